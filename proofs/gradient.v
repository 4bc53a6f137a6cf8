(** What is the derivative of the probabilities, and what does a backward pass need?  One matrix, and one number a row. *)

From Coq Require Import Reals List Lra Lia.
From Entmax Require Import specification power threshold.
Import ListNotations.
Open Scope R_scope.

(** ** Sums of functions *)

Lemma derivable_sum {A} (f : A -> R -> R) (f' : A -> R) l x :
  (forall a, In a l -> derivable_pt_lim (f a) x (f' a)) ->
  derivable_pt_lim (fun h => sum (fun a => f a h) l) x (sum f' l).
Proof.
  induction l as [|a l IH]; intros H; simpl; [apply derivable_pt_lim_const|].
  apply (derivable_pt_lim_plus (f a)); [apply H; left; auto | apply IH; intros; apply H; right; auto].
Qed.

Lemma derivable_ext f g x l : (forall y, f y = g y) -> derivable_pt_lim f x l -> derivable_pt_lim g x l.
Proof.
  intros E H eps Heps. destruct (H eps Heps) as [d Hd]. exists d. intros h Hh Hs. rewrite <- !E. apply Hd; assumption.
Qed.

Lemma affine_derivative a b x : derivable_pt_lim (fun h => a + h * b) x b.
Proof.
  intros eps Heps. exists (mkposreal 1 Rlt_0_1). intros h Hh _.
  replace ((a + (x + h) * b - (a + x * b)) / h - b) with 0 by (field; exact Hh). rewrite Rabs_R0. exact Heps.
Qed.

(** One distance from 0 within which all of finitely many functions follow their tangents. *)
Lemma common_remainder {A} (f : A -> R -> R) (a c : A -> R) l eps :
  0 < eps -> (forall i, In i l -> derivable_pt_lim (f i) (a i) (c i)) ->
  exists d, 0 < d /\ forall i k, In i l -> Rabs k < d -> Rabs (f i (a i + k) - f i (a i) - c i * k) <= eps * Rabs k.
Proof.
  intros Heps. induction l as [|j l IH]; intros H.
  - exists 1. split; [lra|]. intros i k [].
  - destruct IH as [d [Hd IHd]]; [intros; apply H; right; auto|].
    destruct (H j (or_introl eq_refl) eps Heps) as [e He].
    exists (Rmin d e). split; [apply Rmin_pos; [exact Hd | apply cond_pos]|].
    intros i k [->|Hin] Hk.
    + destruct (Req_dec k 0) as [->|Hk0].
      { replace (f i (a i + 0) - f i (a i) - c i * 0) with 0 by (rewrite Rplus_0_r; ring). rewrite Rabs_R0. lra. }
      assert (Hke : Rabs k < e) by (eapply Rlt_le_trans; [exact Hk | apply Rmin_r]).
      specialize (He k Hk0 Hke).
      replace (f i (a i + k) - f i (a i) - c i * k) with (((f i (a i + k) - f i (a i)) / k - c i) * k) by (field; exact Hk0).
      rewrite Rabs_mult. apply Rmult_le_compat_r; [apply Rabs_pos | lra].
    + apply IHd; [exact Hin|]. eapply Rlt_le_trans; [exact Hk | apply Rmin_l].
Qed.

Lemma sum_abs {A} (f : A -> R) l : Rabs (sum f l) <= sum (fun x => Rabs (f x)) l.
Proof.
  induction l as [|a l IH]; simpl; [rewrite Rabs_R0; lra|]. eapply Rle_trans; [apply Rabs_triang | lra].
Qed.

(** ** The threshold *)

Lemma gap_derivative p x : 0 < p -> 1 < p \/ x <> 0 -> derivable_pt_lim (pw p) x (p * pw (p - 1) x).
Proof.
  intros Hp H. destruct (Rtotal_order x 0) as [Hx|[->|Hx]].
  - apply pw_derivative_left. exact Hx.
  - destruct H as [H|H]; [apply pw_derivative_zero; exact H | lra].
  - apply pw_derivative. exact Hx.
Qed.

Lemma forall2_map {A B} (rel : B -> B -> Prop) (f g : A -> B) l :
  (forall x, In x l -> rel (f x) (g x)) -> Forall2 rel (map f l) (map g l).
Proof.
  induction l as [|a l IH]; intros H; simpl; constructor; [apply H; left; auto | apply IH; intros; apply H; right; auto].
Qed.

(** A root of the mass moves by no more than the scores, and its derivative is their mean by slope. *)
Lemma tau_derivative p n (z x : nat -> R) (T : R -> R) :
  0 < p ->
  (forall h, is_tau p (map (fun i => z i + h * x i) (seq 0 n)) (T h)) ->
  1 < p \/ (forall i, (i < n)%nat -> z i - T 0 <> 0) ->
  0 < total n (fun i => pw (p - 1) (z i - T 0)) /\
  derivable_pt_lim T 0 (total n (fun i => pw (p - 1) (z i - T 0) * x i) / total n (fun i => pw (p - 1) (z i - T 0))).
Proof.
  intros Hp HT Hreg. set (l := seq 0 n) in *.
  set (c := fun i => p * pw (p - 1) (z i - T 0)).
  assert (Hl : forall i, In i l -> (i < n)%nat) by (intros i Hi; apply in_seq in Hi; lia).
  (* the slope is positive *)
  assert (HS : 0 < total n (fun i => pw (p - 1) (z i - T 0))).
  { pose proof (HT 0) as H0. unfold is_tau in H0.
    assert (P : 0 < mass p (map (fun i => z i + 0 * x i) l) (T 0)) by lra.
    apply slope_pos in P. unfold slope in P. rewrite sum_map in P. unfold total. fold l.
    rewrite (sum_ext _ (fun i => pw (p - 1) (z i - T 0))) in P; [exact P|].
    intros i _. rewrite pw_gap. f_equal. ring. }
  split; [exact HS|].
  set (S := total n (fun i => pw (p - 1) (z i - T 0))) in *.
  set (M := 1 + sum (fun i => Rabs (x i)) l).
  assert (HM : forall i, In i l -> Rabs (x i) <= M).
  { intros i Hi. pose proof (sum_le_one (fun i => Rabs (x i)) l i (fun i _ => Rabs_pos (x i)) Hi) as H. simpl in H. unfold M. lra. }
  assert (HM0 : 1 <= M) by (unfold M; pose proof (sum_nonneg (fun i => Rabs (x i)) l (fun i _ => Rabs_pos (x i))); lra).
  assert (Lip : forall h, Rabs (T h - T 0) <= M * Rabs h).
  { intros h. destruct (threshold_subset p _ _ Hp (HT h)) as [_ [_ L]].
    apply (L _ _ (M * Rabs h)) with (2 := HT 0). apply forall2_map. intros i Hi. replace (z i + h * x i - (z i + 0 * x i)) with (x i * h) by ring.
    rewrite Rabs_mult. apply Rmult_le_compat_r; [apply Rabs_pos | apply HM; exact Hi]. }
  intros eps Heps.
  set (eps' := eps * (p * S) / (2 * M * (INR n + 1))).
  assert (Hn : 0 <= INR n) by apply pos_INR.
  assert (HpS : 0 < p * S) by (apply Rmult_lt_0_compat; assumption).
  assert (HB : 0 < 2 * M * (INR n + 1)) by (apply Rmult_lt_0_compat; lra).
  assert (Heps' : 0 < eps') by (apply Rdiv_lt_0_compat; [apply Rmult_lt_0_compat |]; assumption).
  destruct (common_remainder (fun _ => pw p) (fun i => z i - T 0) c l eps' Heps') as [d [Hd Hrem]].
  { intros i Hi. apply gap_derivative; [exact Hp|]. destruct Hreg as [H|H]; [left; exact H | right; apply H, Hl, Hi]. }
  assert (Hdelta : 0 < d / (2 * M)) by (apply Rdiv_lt_0_compat; lra).
  exists (mkposreal _ Hdelta). simpl. intros h Hh Hsmall. rewrite Rplus_0_l.
  set (k := fun i => h * x i - (T h - T 0)).
  assert (Hk : forall i, In i l -> Rabs (k i) <= 2 * M * Rabs h).
  { intros i Hi. unfold k, Rminus at 1. eapply Rle_trans; [apply Rabs_triang|]. rewrite Rabs_Ropp, Rabs_mult.
    specialize (Lip h). specialize (HM i Hi). pose proof (Rabs_pos h).
    assert (Rabs h * Rabs (x i) <= Rabs h * M) by (apply Rmult_le_compat_l; assumption). lra. }
  assert (Hk2 : 2 * M * Rabs h < d).
  { apply Rmult_lt_reg_r with (/ (2 * M)); [apply Rinv_0_lt_compat; lra|].
    replace (2 * M * Rabs h * / (2 * M)) with (Rabs h) by (field; lra). exact Hsmall. }
  assert (Hzero : sum (fun i => pw p (z i - T 0 + k i) - pw p (z i - T 0)) l = 0).
  { pose proof (HT h) as A. pose proof (HT 0) as B. unfold is_tau in A, B. rewrite mass_eq, sum_map in A, B.
    rewrite sum_minus. rewrite (sum_ext _ (fun i => pw p (z i + h * x i - T h))) by (intros; f_equal; unfold k; ring).
    rewrite A. rewrite (sum_ext _ (fun i => pw p (z i + 0 * x i - T 0))) by (intros; f_equal; ring). rewrite B. ring. }
  set (r := fun i => pw p (z i - T 0 + k i) - pw p (z i - T 0) - c i * k i).
  assert (Hr : Rabs (sum r l) <= INR n * (eps' * (2 * M * Rabs h))).
  { eapply Rle_trans; [apply sum_abs|]. apply Rle_trans with (sum (fun _ => eps' * (2 * M * Rabs h)) l).
    - apply sum_le. intros i Hi. unfold r. eapply Rle_trans; [apply Hrem; [exact Hi|]|].
      + eapply Rle_lt_trans; [apply Hk; exact Hi | exact Hk2].
      + apply Rmult_le_compat_l; [lra | apply Hk; exact Hi].
    - rewrite sum_const. unfold l. rewrite seq_length. lra. }
  set (W := total n (fun i => pw (p - 1) (z i - T 0) * x i)).
  assert (Hsum : sum r l = - (p * (h * W - (T h - T 0) * S))).
  { unfold r. rewrite sum_minus, Hzero. unfold W, S, total. fold l. rewrite <- !sum_scale, <- sum_minus, <- sum_scale.
    rewrite Rminus_0_l. f_equal. apply sum_ext. intros i _. unfold c, k. ring. }
  replace ((T h - T 0) / h - W / S) with (sum r l / (h * (p * S))) by (rewrite Hsum; field; repeat split; lra).
  unfold Rdiv. rewrite Rabs_mult, Rabs_inv, Rabs_mult, (Rabs_pos_eq (p * S)) by lra.
  assert (Hh0 : 0 < Rabs h) by (apply Rabs_pos_lt; exact Hh).
  assert (HhS : 0 < Rabs h * (p * S)) by (apply Rmult_lt_0_compat; assumption).
  apply Rmult_lt_reg_r with (Rabs h * (p * S)); [exact HhS|].
  rewrite Rmult_assoc, Rinv_l, Rmult_1_r by lra.
  eapply Rle_lt_trans; [exact Hr|].
  assert (E : eps' * (2 * M * Rabs h) = eps * (Rabs h * (p * S)) * / (INR n + 1)) by (unfold eps'; field; split; lra).
  rewrite E. assert (0 < eps * (Rabs h * (p * S))) by (apply Rmult_lt_0_compat; assumption).
  apply Rmult_lt_reg_r with (INR n + 1); [lra|].
  replace (INR n * (eps * (Rabs h * (p * S)) * / (INR n + 1)) * (INR n + 1)) with (INR n * (eps * (Rabs h * (p * S)))) by (field; lra).
  lra.
Qed.

(** ** The probabilities *)

Lemma sensitivity_eq p x tau : 0 < p -> sensitivity p x tau = pw (p - 1) (x - tau).
Proof.
  intros Hp. unfold sensitivity, prob, alpha. rewrite pw_pw, pw_gap. f_equal. field. lra.
Qed.

Lemma total_unit n (f : nat -> R) j : (j < n)%nat -> total n (fun i => if Nat.eq_dec j i then f i else 0) = f j.
Proof.
  intros Hj. unfold total.
  assert (G : forall start m, (start <= j < start + m)%nat ->
    sum (fun i => if Nat.eq_dec j i then f i else 0) (seq start m) = f j).
  { intros start m. revert start. induction m as [|m IH]; intros start H; [lia|]. cbn [seq sum].
    destruct (Nat.eq_dec j start) as [E|E].
    - subst start. rewrite sum_zero; [ring|]. intros i Hi. apply in_seq in Hi. destruct (Nat.eq_dec j i); [lia | reflexivity].
    - rewrite IH by lia. ring. }
  apply G. lia.
Qed.

Lemma jacobian_apply n s x i : (i < n)%nat -> total n s <> 0 ->
  total n (fun j => jacobian n s i j * x j) = s i * (x i - total n (fun j => s j * x j) / total n s).
Proof.
  intros Hi HS. unfold jacobian.
  transitivity (total n (fun j => (if Nat.eq_dec i j then s j * x j else 0) - s i / total n s * (s j * x j))).
  - apply sum_ext. intros j _. destruct (Nat.eq_dec i j) as [->|E]; field; exact HS.
  - unfold total at 1. rewrite sum_minus, sum_scale. fold (total n (fun j => if Nat.eq_dec i j then s j * x j else 0)).
    rewrite (total_unit n (fun j => s j * x j) i Hi). unfold total. field. exact HS.
Qed.

Lemma moved_row_eq p n score direction h : 0 < p ->
  moved_row p n score direction h = map (fun i => score i / p + h * (direction i / p)) (seq 0 n).
Proof. intros Hp. unfold moved_row, moved. apply map_ext. intros i. field. lra. Qed.

Lemma prob_derivative p n score direction T i :
  0 < p ->
  (forall h, is_tau p (moved_row p n score direction h) (T h)) ->
  1 < p \/ (forall j, (j < n)%nat -> score j / p <> T 0) ->
  (i < n)%nat ->
  let s := fun j => sensitivity p (score j / p) (T 0) in
  0 < total n s /\
  derivable_pt_lim (fun h => prob p (moved p score direction h i) (T h)) 0
    (s i * (direction i - total n (fun j => s j * direction j) / total n s)).
Proof.
  intros Hp HT Hreg Hi s.
  assert (HT' : forall h, is_tau p (map (fun i => score i / p + h * (direction i / p)) (seq 0 n)) (T h)).
  { intros h. rewrite <- moved_row_eq by exact Hp. apply HT. }
  assert (Hreg' : 1 < p \/ (forall i, (i < n)%nat -> score i / p - T 0 <> 0)).
  { destruct Hreg as [H|H]; [left; exact H | right; intros j Hj E; apply (H j Hj); lra]. }
  destruct (tau_derivative p n (fun j => score j / p) (fun j => direction j / p) T Hp HT' Hreg') as [HS HD].
  assert (ES : total n (fun j => pw (p - 1) (score j / p - T 0)) = total n s).
  { apply sum_ext. intros j _. unfold s. rewrite sensitivity_eq by exact Hp. reflexivity. }
  rewrite ES in HS, HD. split; [exact HS|].
  assert (EW : total n (fun j => pw (p - 1) (score j / p - T 0) * (direction j / p)) = total n (fun j => s j * direction j) / p).
  { transitivity (/ p * total n (fun j => s j * direction j)); [|unfold Rdiv; ring].
    unfold total. rewrite <- sum_scale. apply sum_ext. intros j _. unfold s.
    rewrite sensitivity_eq by exact Hp. unfold Rdiv. ring. }
  rewrite EW in HD. set (W := total n (fun j => s j * direction j)) in *. set (S := total n s) in *.
  set (u := fun h => score i / p + h * (direction i / p) - T h).
  assert (Hu : derivable_pt_lim u 0 (direction i / p - W / p / S)).
  { unfold u. apply (derivable_pt_lim_minus (fun h => score i / p + h * (direction i / p)) T); [|exact HD].
    apply affine_derivative. }
  assert (Hu0 : u 0 = score i / p - T 0) by (unfold u; ring).
  assert (Hc : derivable_pt_lim (pw p) (u 0) (p * pw (p - 1) (u 0))).
  { apply gap_derivative; [exact Hp|]. rewrite Hu0. destruct Hreg' as [H|H]; [left; exact H | right; apply H; exact Hi]. }
  pose proof (derivable_pt_lim_comp u (pw p) 0 _ _ Hu Hc) as D.
  apply derivable_ext with (comp (pw p) u).
  - intros h. unfold comp, prob. rewrite pw_gap. f_equal. unfold u, moved. field. lra.
  - replace (s i * (direction i - W / S)) with (p * pw (p - 1) (u 0) * (direction i / p - W / p / S)); [exact D|].
    rewrite Hu0. unfold s. rewrite sensitivity_eq by exact Hp. field. split; lra.
Qed.

(** Cauchy and Schwarz, from the square of the distance from the mean. *)
Lemma spread_nonneg n (s x : nat -> R) :
  (forall i, 0 <= s i) -> 0 < total n s ->
  0 <= total n (fun i => s i * (x i * x i)) - total n (fun i => s i * x i) * total n (fun i => s i * x i) / total n s.
Proof.
  intros Hs HS. set (m := total n (fun i => s i * x i) / total n s).
  assert (P : 0 <= total n (fun i => s i * ((x i - m) * (x i - m)))).
  { apply sum_nonneg. intros i _. apply Rmult_le_pos; [apply Hs | apply Rle_0_sqr]. }
  replace (total n (fun i => s i * ((x i - m) * (x i - m))))
    with (total n (fun i => s i * (x i * x i)) - 2 * m * total n (fun i => s i * x i) + m * m * total n s) in P.
  - replace (total n (fun i => s i * x i) * total n (fun i => s i * x i) / total n s)
      with (2 * m * total n (fun i => s i * x i) - m * m * total n s) by (unfold m; field; lra). lra.
  - unfold total. rewrite <- !sum_scale, <- sum_minus, <- sum_plus. apply sum_ext. intros i _. ring.
Qed.

Theorem jacobian_form : forall p n score direction T,
  0 < p ->
  (forall h, is_tau p (moved_row p n score direction h) (T h)) ->
  1 < p \/ (forall j, (j < n)%nat -> score j / p <> T 0) ->
  let s := fun j => sensitivity p (score j / p) (T 0) in
  (forall i, (i < n)%nat ->
    derivable_pt_lim (fun h => prob p (moved p score direction h i) (T h)) 0
      (total n (fun j => jacobian n s i j * direction j))) /\
  (forall i j, jacobian n s i j = jacobian n s j i) /\
  (forall x, 0 <= total n (fun i => x i * total n (fun j => jacobian n s i j * x j))).
Proof.
  intros p n score direction T Hp HT Hreg s.
  assert (Hn : (0 < n)%nat).
  { destruct n; [|lia]. exfalso. pose proof (HT 0) as H. unfold is_tau, moved_row, mass in H. simpl in H. lra. }
  destruct (prob_derivative p n score direction T 0%nat Hp HT Hreg Hn) as [HS _]. fold s in HS.
  split; [|split].
  - intros i Hi. rewrite jacobian_apply by (try exact Hi; lra).
    apply (prob_derivative p n score direction T i Hp HT Hreg Hi).
  - intros i j. unfold jacobian. destruct (Nat.eq_dec i j) as [E|E]; destruct (Nat.eq_dec j i) as [E'|E']; try congruence.
    unfold Rdiv. ring.
  - intros x. replace (total n (fun i => x i * total n (fun j => jacobian n s i j * x j)))
      with (total n (fun i => s i * (x i * x i)) - total n (fun i => s i * x i) * total n (fun i => s i * x i) / total n s).
    + apply spread_nonneg; [|exact HS]. intros i. unfold s, sensitivity. apply pw_nonneg.
    + transitivity (total n (fun i => s i * (x i * x i) - total n (fun j => s j * x j) / total n s * (s i * x i))).
      * unfold total at 5. rewrite sum_minus, sum_scale. unfold total. field. unfold total in HS. lra.
      * apply sum_ext. intros i Hi. apply in_seq in Hi. rewrite jacobian_apply by (try lia; lra). ring.
Qed.

Theorem jacobian_rows_zero : forall n s i,
  (i < n)%nat -> total n s <> 0 ->
  total n (fun j => jacobian n s i j) = 0 /\
  total n (fun j => jacobian n s j i) = 0 /\
  (s i = 0 -> forall j, jacobian n s i j = 0 /\ jacobian n s j i = 0).
Proof.
  intros n s i Hi HS.
  assert (R : total n (fun j => jacobian n s i j) = 0).
  { transitivity (total n (fun j => jacobian n s i j * 1)); [apply sum_ext; intros; ring|].
    rewrite (jacobian_apply n s (fun _ => 1) i Hi HS).
    replace (total n (fun j => s j * 1)) with (total n s) by (apply sum_ext; intros; ring). field. exact HS. }
  assert (Sym : forall j, jacobian n s j i = jacobian n s i j).
  { intros j. unfold jacobian. destruct (Nat.eq_dec i j) as [E|E]; destruct (Nat.eq_dec j i) as [E'|E']; try congruence.
    unfold Rdiv. ring. }
  split; [exact R|]. split.
  - transitivity (total n (fun j => jacobian n s i j)); [|exact R]. apply sum_ext. intros. apply Sym.
  - intros Hz j. rewrite Sym. unfold jacobian. rewrite Hz. split; destruct (Nat.eq_dec i j); unfold Rdiv; ring.
Qed.

Lemma total_swap n d (f : nat -> nat -> R) :
  total n (fun i => total d (fun c => f i c)) = total d (fun c => total n (fun i => f i c)).
Proof.
  unfold total. generalize (seq 0 n) as l. induction l as [|i l IH]; cbn [sum].
  - symmetry. apply sum_zero. reflexivity.
  - rewrite IH, <- sum_plus. reflexivity.
Qed.

Lemma total_scale n c f : total n (fun i => c * f i) = c * total n f.
Proof. apply sum_scale. Qed.

Lemma total_minus n f g : total n (fun i => f i - g i) = total n f - total n g.
Proof. apply sum_minus. Qed.

Theorem delta_is_centre : forall p n d score direction T value d_out,
  0 < p ->
  (forall h, is_tau p (moved_row p n score direction h) (T h)) ->
  1 < p \/ (forall j, (j < n)%nat -> score j / p <> T 0) ->
  let s := fun j => sensitivity p (score j / p) (T 0) in
  let out := fun h c => total n (fun i => prob p (moved p score direction h i) (T h) * value i c) in
  let delta := dot d (centre n s value) d_out in
  derivable_pt_lim (fun h => dot d (out h) d_out) 0
    (total n (fun j => s j * (dot d (value j) d_out - delta) * direction j)).
Proof.
  intros p n d score direction T value d_out Hp HT Hreg s out delta.
  set (g := fun i => dot d (value i) d_out).
  assert (Hn : (0 < n)%nat).
  { destruct n; [|lia]. exfalso. pose proof (HT 0) as H. unfold is_tau, moved_row, mass in H. simpl in H. lra. }
  destruct (prob_derivative p n score direction T 0%nat Hp HT Hreg Hn) as [HS _]. fold s in HS.
  apply derivable_ext with (fun h => total n (fun i => prob p (moved p score direction h i) (T h) * g i)).
  { intros h. unfold out, g, dot.
    transitivity (total n (fun i => total d (fun c => prob p (moved p score direction h i) (T h) * value i c * d_out c))).
    - apply sum_ext. intros i _. rewrite <- total_scale. apply sum_ext. intros c _. ring.
    - rewrite total_swap. apply sum_ext. intros c _. rewrite (Rmult_comm (total n _)), <- total_scale.
      apply sum_ext. intros i _. ring. }
  set (W := total n (fun j => s j * direction j)).
  assert (Hdelta : delta = total n (fun i => s i * g i) / total n s).
  { transitivity (/ total n s * total d (fun c => total n (fun i => s i * value i c * d_out c))).
    - unfold delta, dot, centre. rewrite <- total_scale. apply sum_ext. intros c _.
      transitivity (/ total n s * (d_out c * total n (fun i => s i * value i c))); [unfold Rdiv; ring|].
      f_equal. rewrite <- total_scale. apply sum_ext. intros i _. ring.
    - rewrite <- (total_swap n d (fun i c => s i * value i c * d_out c)).
      transitivity (/ total n s * total n (fun i => s i * g i)); [|unfold Rdiv; ring].
      f_equal. apply sum_ext. intros i _. unfold g, dot. rewrite <- total_scale. apply sum_ext. intros c _. ring. }
  match goal with |- derivable_pt_lim _ _ ?l =>
    replace l with (total n (fun i => s i * (direction i - W / total n s) * g i)) end.
  - apply (derivable_sum (fun i h => prob p (moved p score direction h i) (T h) * g i)).
    intros i Hi. apply in_seq in Hi.
    destruct (prob_derivative p n score direction T i Hp HT Hreg ltac:(lia)) as [_ D]. fold s in D.
    apply derivable_ext with (fun h => g i * prob p (moved p score direction h i) (T h)); [intros; ring|].
    rewrite (Rmult_comm _ (g i)). apply (derivable_pt_lim_scal (fun h => prob p (moved p score direction h i) (T h))). exact D.
  - rewrite Hdelta. change (fun j => s j * (dot d (value j) d_out - total n (fun i => s i * g i) / total n s) * direction j)
      with (fun j => s j * (g j - total n (fun i => s i * g i) / total n s) * direction j).
    transitivity (total n (fun i => s i * g i * direction i) - W / total n s * total n (fun i => s i * g i)).
    + rewrite <- total_scale, <- total_minus. apply sum_ext. intros i _. ring.
    + transitivity (total n (fun i => s i * g i * direction i) - total n (fun i => s i * g i) / total n s * W);
        [unfold Rdiv; ring|].
      unfold W at 1. rewrite <- total_scale, <- total_minus. apply sum_ext. intros i _. ring.
Qed.

(** ** Query, key, value *)

Lemma dot_shifted_left e x y h k : dot e (shifted x y h) k = dot e x k + h * dot e y k.
Proof.
  unfold dot. rewrite <- total_scale. unfold total. rewrite <- sum_plus. apply sum_ext. intros c _. unfold shifted. ring.
Qed.

Lemma dot_shifted_right e x y h k : dot e k (shifted x y h) = dot e k x + h * dot e k y.
Proof.
  unfold dot. rewrite <- total_scale. unfold total. rewrite <- sum_plus. apply sum_ext. intros c _. unfold shifted. ring.
Qed.

Lemma dot_scale_left e a x y : dot e (fun c => a * x c) y = a * dot e x y.
Proof. unfold dot. rewrite <- total_scale. apply sum_ext. intros c _. ring. Qed.

Lemma dot_total_left n e (f : nat -> vector) y : dot e (fun c => total n (fun j => f j c)) y = total n (fun j => dot e (f j) y).
Proof.
  unfold dot. rewrite total_swap. apply sum_ext. intros c _. rewrite Rmult_comm, <- total_scale. apply sum_ext.
  intros j _. ring.
Qed.

(** A row whose scores move along a line, in the names of [delta_is_centre]. *)
Lemma row_gradient p n e d scale direction T (query : R -> vector) (key : R -> nat -> vector) value d_out :
  0 < p ->
  (forall h j, attention_z p e scale (query h) (key h) j = moved p (fun j => scale * dot e (query 0) (key 0 j)) direction h j) ->
  (forall h, is_tau p (attention_row p n e scale (query h) (key h)) (T h)) ->
  1 < p \/ (forall j, (j < n)%nat -> attention_z p e scale (query 0) (key 0) j <> T 0) ->
  let s := fun j => sensitivity p (attention_z p e scale (query 0) (key 0) j) (T 0) in
  derivable_pt_lim (fun h => dot d (attention_out p n e scale (query h) (key h) value (T h)) d_out) 0
    (total n (fun j => score_gradient n d s value d_out j * direction j)).
Proof.
  intros Hp Hmove HT Hreg s. set (score := fun j => scale * dot e (query 0) (key 0 j)).
  assert (HT' : forall h, is_tau p (moved_row p n score direction h) (T h)).
  { intros h. unfold moved_row. rewrite (map_ext _ _ (fun j => eq_sym (Hmove h j))). apply HT. }
  pose proof (delta_is_centre p n d score direction T value d_out Hp HT' Hreg) as D. cbv zeta in D.
  apply derivable_ext with (2 := D). intros h. unfold dot. apply sum_ext. intros c _. f_equal.
  apply sum_ext. intros i _. rewrite <- Hmove. reflexivity.
Qed.

Theorem query_gradient : forall p n e d scale query key value d_out d_query T,
  0 < p ->
  (forall h, is_tau p (attention_row p n e scale (shifted query d_query h) key) (T h)) ->
  1 < p \/ (forall j, (j < n)%nat -> attention_z p e scale (shifted query d_query 0) key j <> T 0) ->
  let s := fun j => sensitivity p (attention_z p e scale (shifted query d_query 0) key j) (T 0) in
  let gradient := fun c => scale * total n (fun j => score_gradient n d s value d_out j * key j c) in
  derivable_pt_lim (fun h => dot d (attention_out p n e scale (shifted query d_query h) key value (T h)) d_out) 0
    (dot e gradient d_query).
Proof.
  intros p n e d scale query key value d_out d_query T Hp HT Hreg s gradient.
  replace (dot e gradient d_query)
    with (total n (fun j => score_gradient n d s value d_out j * (scale * dot e d_query (key j)))).
  - apply (row_gradient p n e d scale (fun j => scale * dot e d_query (key j)) T (fun h => shifted query d_query h) (fun _ => key));
      try assumption.
    intros h j. unfold attention_z, moved. rewrite !dot_shifted_left. field. lra.
  - unfold gradient. rewrite (dot_scale_left e scale), (dot_total_left n e), <- total_scale. apply sum_ext. intros j _.
    rewrite (dot_scale_left e (score_gradient n d s value d_out j)). unfold dot.
    replace (total e (fun c => d_query c * key j c)) with (total e (fun c => key j c * d_query c));
      [ring | apply sum_ext; intros; ring].
Qed.

(** Every query of the rows, of all heads of a group, adds to the gradient of a key. *)
Theorem key_gradient : forall p rows n e d scale query key value d_out d_key T,
  0 < p ->
  (forall i h, (i < rows)%nat -> is_tau p (attention_row p n e scale (query i) (fun j => shifted (key j) (d_key j) h)) (T i h)) ->
  1 < p \/ (forall i j, (i < rows)%nat -> (j < n)%nat ->
             attention_z p e scale (query i) (fun j => shifted (key j) (d_key j) 0) j <> T i 0) ->
  let s := fun i j => sensitivity p (attention_z p e scale (query i) (fun j => shifted (key j) (d_key j) 0) j) (T i 0) in
  let gradient := fun j c => scale * total rows (fun i => score_gradient n d (s i) value (d_out i) j * query i c) in
  derivable_pt_lim
    (fun h => total rows (fun i =>
       dot d (attention_out p n e scale (query i) (fun j => shifted (key j) (d_key j) h) value (T i h)) (d_out i))) 0
    (total n (fun j => dot e (gradient j) (d_key j))).
Proof.
  intros p rows n e d scale query key value d_out d_key T Hp HT Hreg s gradient.
  replace (total n (fun j => dot e (gradient j) (d_key j)))
    with (total rows (fun i => total n (fun j => score_gradient n d (s i) value (d_out i) j * (scale * dot e (query i) (d_key j))))).
  - apply (derivable_sum (fun i h =>
      dot d (attention_out p n e scale (query i) (fun j => shifted (key j) (d_key j) h) value (T i h)) (d_out i))).
    intros i Hi. apply in_seq in Hi. cbv beta.
    apply (row_gradient p n e d scale (fun j => scale * dot e (query i) (d_key j)) (T i) (fun _ => query i)
             (fun h j => shifted (key j) (d_key j) h)); [exact Hp | | |].
    + intros h j. unfold attention_z, moved. rewrite !dot_shifted_right. field. lra.
    + intros h. apply HT. lia.
    + destruct Hreg as [H|H]; [left; exact H | right; intros j Hj; apply H; [lia | exact Hj]].
  - rewrite total_swap. apply sum_ext. intros j _. unfold gradient.
    rewrite (dot_scale_left e scale), (dot_total_left rows e), <- total_scale. apply sum_ext. intros i _.
    rewrite (dot_scale_left e (score_gradient n d (s i) value (d_out i) j)). ring.
Qed.

Theorem value_gradient : forall p rows n e d scale query key value d_out d_value tau,
  let gradient := fun j c => total rows (fun i => prob p (attention_z p e scale (query i) key j) (tau i) * d_out i c) in
  derivable_pt_lim
    (fun h => total rows (fun i =>
       dot d (attention_out p n e scale (query i) key (fun j => shifted (value j) (d_value j) h) (tau i)) (d_out i))) 0
    (total n (fun j => dot d (gradient j) (d_value j))).
Proof.
  intros p rows n e d scale query key value d_out d_value tau gradient.
  set (w := fun i j => prob p (attention_z p e scale (query i) key j) (tau i)).
  assert (O : forall i (v : nat -> vector),
    dot d (attention_out p n e scale (query i) key v (tau i)) (d_out i) = total n (fun j => w i j * dot d (v j) (d_out i))).
  { intros i v. unfold attention_out. fold (w i). rewrite (dot_total_left n d). apply sum_ext. intros j _.
    apply (dot_scale_left d (w i j)). }
  apply derivable_ext with (fun h =>
    total rows (fun i => total n (fun j => w i j * dot d (value j) (d_out i))) +
    h * total rows (fun i => total n (fun j => w i j * dot d (d_value j) (d_out i)))).
  - intros h. rewrite <- total_scale. unfold total at 1 3 5. rewrite <- sum_plus. apply sum_ext. intros i _.
    rewrite O, <- total_scale. unfold total. rewrite <- sum_plus. apply sum_ext. intros j _. rewrite dot_shifted_left. ring.
  - replace (total n (fun j => dot d (gradient j) (d_value j)))
      with (total rows (fun i => total n (fun j => w i j * dot d (d_value j) (d_out i)))); [apply affine_derivative|].
    rewrite total_swap. apply sum_ext. intros j _. unfold gradient. rewrite (dot_total_left rows d). apply sum_ext. intros i _.
    fold (w i j). rewrite (dot_scale_left d (w i j)). f_equal. unfold dot. apply sum_ext. intros c _. ring.
Qed.

(** A key at or below tau, and so any key of a block that a mask leaves out, adds nothing to any of the three. *)
Theorem skipped_keys_have_no_gradient : forall p n d x tau s value d_out j,
  0 < p -> x <= tau -> s j = sensitivity p x tau ->
  prob p x tau = 0 /\ s j = 0 /\ score_gradient n d s value d_out j = 0.
Proof.
  intros p n d x tau s value d_out j Hp Hx Hs.
  assert (S : s j = 0) by (rewrite Hs, sensitivity_eq by exact Hp; apply pw_zero; lra).
  split; [unfold prob; rewrite pw_gap; apply pw_zero; lra|]. split; [exact S|]. unfold score_gradient. rewrite S. ring.
Qed.

(** ** Alpha *)

(** A derivative as a continuous factor of the difference. *)
Lemma factor f x l : derivable_pt_lim f x l ->
  exists g, (forall k, f (x + k) - f x = k * g k) /\ g 0 = l /\ continuity_pt g 0.
Proof.
  intros H. exists (fun k => if Req_EM_T k 0 then l else (f (x + k) - f x) / k). split; [|split].
  - intros k. destruct (Req_EM_T k 0) as [->|Hk]; [rewrite Rplus_0_r; ring | field; exact Hk].
  - destruct (Req_EM_T 0 0); congruence.
  - intros eps Heps. destruct (H eps Heps) as [d Hd]. exists d. split; [apply cond_pos|].
    intros k [_ Hk]. simpl in *. unfold R_dist in *. rewrite Rminus_0_r in Hk.
    destruct (Req_EM_T 0 0) as [_|N]; [|congruence].
    destruct (Req_EM_T k 0) as [->|Hk0]; [rewrite Rminus_diag_eq, Rabs_R0 by reflexivity; exact Heps|]. apply Hd; assumption.
Qed.

Lemma derivative_of_factor f g l d :
  0 < d -> (forall k, Rabs k < d -> f k - f 0 = k * g k) -> g 0 = l -> continuity_pt g 0 -> derivable_pt_lim f 0 l.
Proof.
  intros Hd E E0 C eps Heps. destruct (C eps Heps) as [d' [Hd' H]].
  exists (mkposreal (Rmin d d') (Rmin_pos _ _ Hd Hd')). simpl. intros k Hk Hs.
  assert (Rabs k < d) by (eapply Rlt_le_trans; [exact Hs | apply Rmin_l]).
  assert (Rabs k < d') by (eapply Rlt_le_trans; [exact Hs | apply Rmin_r]).
  rewrite Rplus_0_l, E by assumption. replace (k * g k / k) with (g k) by (field; exact Hk). rewrite <- E0.
  apply H. split; [split; [exact I | intros N; apply Hk; symmetry; exact N]|]. simpl. unfold R_dist. rewrite Rminus_0_r. assumption.
Qed.

Lemma near_positive f : continuity_pt f 0 -> 0 < f 0 -> exists d, 0 < d /\ forall h, Rabs h < d -> 0 < f h.
Proof.
  intros C H. destruct (C (f 0) H) as [d [Hd N]]. exists d. split; [exact Hd|]. intros h Hh.
  destruct (Req_dec h 0) as [->|Hh0]; [exact H|].
  assert (A : R_dist (f h) (f 0) < f 0).
  { apply N. split; [split; [exact I | intros E; apply Hh0; symmetry; exact E]|]. simpl. unfold R_dist. rewrite Rminus_0_r. exact Hh. }
  unfold R_dist in A. destruct (Rabs_def2 _ _ A). lra.
Qed.

Lemma continuous_near f g d : 0 < d -> (forall h, Rabs h < d -> f h = g h) -> continuity_pt f 0 -> continuity_pt g 0.
Proof.
  intros Hd E C eps Heps. destruct (C eps Heps) as [d' [Hd' H]].
  exists (Rmin d d'). split; [apply Rmin_pos; assumption|]. intros y [Hy Hs]. simpl in *. unfold R_dist in *.
  assert (Y : Rabs y < d) by (rewrite <- (Rminus_0_r y); eapply Rlt_le_trans; [exact Hs | apply Rmin_l]).
  rewrite <- (E y Y), <- (E 0) by (rewrite Rabs_R0; exact Hd).
  apply H. split; [exact Hy|]. eapply Rlt_le_trans; [exact Hs | apply Rmin_r].
Qed.

Lemma const_continuous a x : continuity_pt (fun _ => a) x.
Proof. apply continuity_pt_const. intros y z. reflexivity. Qed.

Lemma id_continuous x : continuity_pt (fun h => h) x.
Proof. apply derivable_continuous_pt, derivable_pt_id. Qed.

(** One key: how its probability moves with h and with tau. *)
Lemma key_moves b c (T : R -> R) :
  0 < b -> continuity_pt T 0 -> b * c - T 0 <> 0 ->
  let x := b * c - T 0 in
  exists d w v, 0 < d /\ continuity_pt w 0 /\ continuity_pt v 0 /\
    (forall h, Rabs h < d -> 0 < b + h /\
      pw (/ (b + h)) ((b + h) * c - T h) - pw (/ b) x = w h * (h * c - (T h - T 0)) + v h * h) /\
    w 0 = / b * pw (/ b - 1) x /\ v 0 = - (/ b * (pw (/ b) x * ln (pw (/ b) x))).
Proof.
  intros Hb CT Hx x. fold x in Hx.
  set (y := fun h => (b + h) * c - T h).
  assert (Cy : continuity_pt y 0).
  { unfold y. apply continuity_pt_minus; [|exact CT]. apply continuity_pt_mult; [|apply const_continuous].
    apply continuity_pt_plus; [apply const_continuous | apply id_continuous]. }
  assert (y0 : y 0 = x) by (unfold y, x; ring).
  destruct (Rlt_or_le x 0) as [Hneg|Hpos].
  - destruct (near_positive (fun h => - y h)) as [d [Hd N]].
    { apply continuity_pt_opp. exact Cy. }
    { rewrite y0. lra. }
    exists (Rmin d b), (fun _ => 0), (fun _ => 0).
    split; [apply Rmin_pos; assumption|]. split; [apply const_continuous|]. split; [apply const_continuous|]. split.
    + intros h Hh. assert (Rabs h < d) by (eapply Rlt_le_trans; [exact Hh | apply Rmin_l]).
      assert (Hhb : Rabs h < b) by (eapply Rlt_le_trans; [exact Hh | apply Rmin_r]). apply Rabs_def2 in Hhb.
      split; [lra|]. specialize (N h H). fold (y h). rewrite !pw_zero by lra. ring.
    + rewrite !pw_zero by lra. split; ring.
  - assert (Hx0 : 0 < x) by lra. clear Hpos.
    destruct (near_positive y Cy ltac:(lra)) as [d [Hd N]].
    destruct (factor ln x (/ x) (derivable_pt_lim_ln x Hx0)) as [gl [El [Gl Cl]]].
    set (lam := fun h => gl (y h - x)).
    assert (Clam : continuity_pt lam 0).
    { apply (continuity_pt_comp (fun h => y h - x) gl).
      - apply continuity_pt_minus; [exact Cy | apply const_continuous].
      - cbv beta. rewrite y0, Rminus_diag_eq by reflexivity. exact Cl. }
    set (A0 := ln x * / b).
    set (A := fun h => ln (y h) * / (b + h) - A0).
    assert (Cbh : continuity_pt (fun h => / (b + h)) 0).
    { apply (continuity_pt_inv (fun h => b + h)); [|cbv beta; lra].
      apply continuity_pt_plus; [apply const_continuous | apply id_continuous]. }
    assert (CA : continuity_pt A 0).
    { unfold A. apply continuity_pt_minus; [|apply const_continuous]. apply continuity_pt_mult; [|exact Cbh].
      apply (continuity_pt_comp y ln); [exact Cy|]. apply derivable_continuous_pt. exists (/ y 0).
      apply derivable_pt_lim_ln. lra. }
    assert (A00 : A 0 = 0) by (unfold A, A0; rewrite y0, Rplus_0_r; ring).
    destruct (factor exp A0 (exp A0) (derivable_pt_lim_exp A0)) as [ge [Ee [Ge Ce]]].
    set (eta := fun h => ge (A h)).
    assert (Ceta : continuity_pt eta 0) by (apply (continuity_pt_comp A ge); [exact CA | rewrite A00; exact Ce]).
    assert (eta0 : eta 0 = exp A0) by (unfold eta; rewrite A00; exact Ge).
    assert (lam0 : lam 0 = / x) by (unfold lam; rewrite y0, Rminus_diag_eq by reflexivity; exact Gl).
    assert (P : pw (/ b) x = exp A0) by (rewrite pw_Rpower by exact Hx0; unfold Rpower, A0; f_equal; ring).
    exists (Rmin d b), (fun h => eta h * lam h * / (b + h)), (fun h => - (ln x * / b) * (eta h * / (b + h))).
    split; [apply Rmin_pos; assumption|]. split; [|split; [|split; [|split]]].
    + apply continuity_pt_mult; [apply continuity_pt_mult|]; assumption.
    + apply continuity_pt_mult; [apply const_continuous | apply continuity_pt_mult; assumption].
    + intros h Hh. assert (Hd' : Rabs h < d) by (eapply Rlt_le_trans; [exact Hh | apply Rmin_l]).
      assert (Hhb : Rabs h < b) by (eapply Rlt_le_trans; [exact Hh | apply Rmin_r]). apply Rabs_def2 in Hhb.
      split; [lra|]. specialize (N h Hd'). fold (y h). rewrite P, pw_Rpower by exact N.
      replace (Rpower (y h) (/ (b + h))) with (exp (A0 + A h)) by (unfold Rpower, A; f_equal; ring).
      rewrite Ee. fold (eta h).
      assert (L : ln (y h) - ln x = (y h - x) * lam h).
      { unfold lam. rewrite <- El. f_equal. f_equal. ring. }
      assert (Y : y h - x = h * c - (T h - T 0)) by (unfold y, x; ring).
      rewrite <- Y. unfold A, A0. replace (ln (y h)) with (ln x + (y h - x) * lam h) by lra. field. lra.
    + rewrite eta0, lam0, Rplus_0_r. rewrite <- P, (pw_step (/ b) x) by lra. field. lra.
    + rewrite eta0, Rplus_0_r, P, ln_exp. unfold A0. ring.
Qed.

(** All keys together. *)
Lemma keys_move b (c : nat -> R) (T : R -> R) l :
  0 < b -> continuity_pt T 0 -> (forall i, In i l -> b * c i - T 0 <> 0) ->
  exists d W C, 0 < d /\ continuity_pt W 0 /\ continuity_pt C 0 /\
    (forall h, Rabs h < d -> 0 < b + h /\
      sum (fun i => pw (/ (b + h)) ((b + h) * c i - T h)) l - sum (fun i => pw (/ b) (b * c i - T 0)) l
        = C h * h - W h * (T h - T 0)) /\
    W 0 = / b * sum (fun i => pw (/ b - 1) (b * c i - T 0)) l /\
    C 0 = / b * (sum (fun i => pw (/ b - 1) (b * c i - T 0) * c i) l
                 - sum (fun i => pw (/ b) (b * c i - T 0) * ln (pw (/ b) (b * c i - T 0))) l).
Proof.
  intros Hb CT. induction l as [|i l IH]; intros Hl.
  - exists b, (fun _ => 0), (fun _ => 0). split; [exact Hb|]. split; [apply const_continuous|]. split; [apply const_continuous|].
    split; [|simpl; split; ring]. intros h Hh. apply Rabs_def2 in Hh. simpl. split; [lra | ring].
  - destruct IH as [d [W [C [Hd [CW [CC [E [W0 C0]]]]]]]]; [intros; apply Hl; right; assumption|].
    destruct (key_moves b (c i) T Hb CT (Hl i (or_introl eq_refl))) as [d1 [w [v [Hd1 [Cw [Cv [E1 [w0 v0]]]]]]]].
    cbv zeta in *. cbn [sum].
    exists (Rmin d d1), (fun h => w h + W h), (fun h => (w h * c i + v h) + C h).
    split; [apply Rmin_pos; assumption|]. split; [apply continuity_pt_plus; assumption|]. split; [|split; [|split]].
    + apply continuity_pt_plus; [|exact CC]. apply continuity_pt_plus; [|exact Cv].
      apply continuity_pt_mult; [exact Cw | apply const_continuous].
    + intros h Hh. destruct (E h) as [_ Eh]; [eapply Rlt_le_trans; [exact Hh | apply Rmin_l]|].
      destruct (E1 h) as [P1 E1h]; [eapply Rlt_le_trans; [exact Hh | apply Rmin_r]|]. split; [exact P1|]. lra.
    + rewrite w0, W0. ring.
    + rewrite w0, v0, C0. ring.
Qed.

(** At a fixed point, each term depends continuously on alpha, also where the gap is 0. *)
Lemma term_continuous b c t : 0 < b -> continuity_pt (fun h => pw (/ (b + h)) ((b + h) * c - t)) 0.
Proof.
  intros Hb. destruct (Req_dec (b * c - t) 0) as [Hz|Hz].
  - intros eps Heps. set (r := pw (2 * b) eps). assert (Hr : 0 < r) by (apply pw_pos; exact Heps).
    set (e := Rmin b (Rmin 1 r / (1 + Rabs c))). pose proof (Rabs_pos c) as Hc.
    assert (Hq : 0 < Rmin 1 r / (1 + Rabs c)) by (apply Rdiv_lt_0_compat; [apply Rmin_pos; lra | lra]).
    exists e. split; [apply Rmin_pos; assumption|]. intros h [_ Hh]. simpl in *. unfold R_dist in *. rewrite Rminus_0_r in Hh.
    rewrite Rplus_0_r, Hz, (pw_zero _ 0), Rminus_0_r, Rabs_pos_eq by (try apply pw_nonneg; lra).
    replace ((b + h) * c - t) with (h * c) by lra.
    destruct (Rle_or_lt (h * c) 0) as [H|H]; [rewrite pw_zero by exact H; exact Heps|].
    assert (Hhb : Rabs h < b) by (eapply Rlt_le_trans; [exact Hh | apply Rmin_l]).
    assert (Hhr : Rabs h < Rmin 1 r / (1 + Rabs c)) by (eapply Rlt_le_trans; [exact Hh | apply Rmin_r]).
    assert (Y : h * c < Rmin 1 r).
    { apply Rle_lt_trans with (Rabs h * Rabs c); [rewrite <- Rabs_mult; apply Rle_abs|].
      apply Rle_lt_trans with (Rabs h * (1 + Rabs c)); [apply Rmult_le_compat_l; [apply Rabs_pos | lra]|].
      apply Rmult_lt_reg_r with (/ (1 + Rabs c)); [apply Rinv_0_lt_compat; lra|].
      rewrite Rmult_assoc, Rinv_r, Rmult_1_r by lra. exact Hhr. }
    assert (Y1 : h * c < 1) by (eapply Rlt_le_trans; [exact Y | apply Rmin_l]).
    assert (Yr : h * c < r) by (eapply Rlt_le_trans; [exact Y | apply Rmin_r]).
    apply Rabs_def2 in Hhb. set (q := / (b + h)). set (q0 := / (2 * b)).
    assert (Q0 : 0 < q0) by (apply Rinv_0_lt_compat; lra).
    assert (Q : q0 <= q) by (apply Rinv_le_contravar; lra).
    apply Rle_lt_trans with (pw q0 (h * c)).
    + replace q with (q0 + (q - q0)) by ring. rewrite pw_plus.
      assert (pw (q - q0) (h * c) <= 1) by (apply Rle_trans with (pw (q - q0) 1); [apply pw_le; lra | right; apply pw_one]).
      pose proof (pw_nonneg q0 (h * c)).
      assert (pw q0 (h * c) * pw (q - q0) (h * c) <= pw q0 (h * c) * 1) by (apply Rmult_le_compat_l; assumption). lra.
    + assert (E : eps = pw q0 r).
      { unfold r. rewrite pw_pw. replace (2 * b * q0) with 1 by (unfold q0; field; lra). symmetry. apply pw_1. lra. }
      rewrite E. apply pw_lt; lra.
  - destruct (key_moves b c (fun _ => t) Hb (const_continuous t 0) Hz) as [d [w [v [Hd [Cw [Cv [E _]]]]]]].
    apply continuous_near with (fun h => pw (/ b) (b * c - t) + (w h * (h * c) + v h * h)) d; [exact Hd | |].
    + intros h Hh. destruct (E h Hh) as [_ Eh]. replace (t - t) with 0 in Eh by ring. rewrite Rminus_0_r in Eh. lra.
    + apply continuity_pt_plus; [apply const_continuous|].
      apply continuity_pt_plus; apply continuity_pt_mult; try assumption; [|apply id_continuous].
      apply continuity_pt_mult; [apply id_continuous | apply const_continuous].
Qed.

Lemma tau_continuous_in_alpha n b (c : nat -> R) (T : R -> R) :
  0 < b ->
  (forall h, 0 < b + h -> is_tau (/ (b + h)) (map (fun i => (b + h) * c i) (seq 0 n)) (T h)) ->
  continuity_pt T 0.
Proof.
  intros Hb HT.
  assert (M : forall h t, mass (/ (b + h)) (map (fun i => (b + h) * c i) (seq 0 n)) t
                          = sum (fun i => pw (/ (b + h)) ((b + h) * c i - t)) (seq 0 n)).
  { intros h t. rewrite mass_eq, sum_map. reflexivity. }
  assert (CM : forall t, continuity_pt (fun h => mass (/ (b + h)) (map (fun i => (b + h) * c i) (seq 0 n)) t) 0).
  { intros t. apply continuous_near with (fun h => sum (fun i => pw (/ (b + h)) ((b + h) * c i - t)) (seq 0 n)) 1; [lra | |].
    - intros h _. symmetry. apply M.
    - apply (sum_continuous (fun i h => pw (/ (b + h)) ((b + h) * c i - t))). intros i _. apply term_continuous. exact Hb. }
  assert (P : forall h, 0 < b + h -> 0 < / (b + h)) by (intros; apply Rinv_0_lt_compat; assumption).
  pose proof (HT 0 ltac:(lra)) as H0. assert (H0' := H0). unfold is_tau in H0'.
  intros eps Heps. set (t1 := T 0 - eps / 2). set (t2 := T 0 + eps / 2).
  assert (L1 : 1 < mass (/ (b + 0)) (map (fun i => (b + 0) * c i) (seq 0 n)) t1).
  { apply Rle_lt_trans with (mass (/ (b + 0)) (map (fun i => (b + 0) * c i) (seq 0 n)) (T 0)); [rewrite H0'; lra|].
    apply mass_lt; [apply P; lra | unfold t1; lra|].
    apply Rlt_le_trans with (mass (/ (b + 0)) (map (fun i => (b + 0) * c i) (seq 0 n)) (T 0)); [rewrite H0'; lra|].
    apply mass_le; [left; apply P; lra | unfold t1; lra]. }
  assert (L2 : mass (/ (b + 0)) (map (fun i => (b + 0) * c i) (seq 0 n)) t2 < 1).
  { apply Rlt_le_trans with (mass (/ (b + 0)) (map (fun i => (b + 0) * c i) (seq 0 n)) (T 0)); [|rewrite H0'; lra].
    apply mass_lt; [apply P; lra | unfold t2; lra | rewrite H0'; lra]. }
  destruct (near_positive (fun h => mass (/ (b + h)) (map (fun i => (b + h) * c i) (seq 0 n)) t1 - 1)) as [d1 [Hd1 N1]];
    [apply continuity_pt_minus; [apply CM | apply const_continuous] | lra |].
  destruct (near_positive (fun h => 1 - mass (/ (b + h)) (map (fun i => (b + h) * c i) (seq 0 n)) t2)) as [d2 [Hd2 N2]];
    [apply continuity_pt_minus; [apply const_continuous | apply CM] | lra |].
  exists (Rmin b (Rmin d1 d2)). split; [repeat apply Rmin_pos; assumption|]. intros h [_ Hh]. simpl in *. unfold R_dist in *.
  rewrite Rminus_0_r in Hh.
  assert (Hhb : Rabs h < b) by (eapply Rlt_le_trans; [exact Hh | apply Rmin_l]).
  assert (Hh1 : Rabs h < d1) by (eapply Rlt_le_trans; [exact Hh | eapply Rle_trans; [apply Rmin_r | apply Rmin_l]]).
  assert (Hh2 : Rabs h < d2) by (eapply Rlt_le_trans; [exact Hh | eapply Rle_trans; [apply Rmin_r | apply Rmin_r]]).
  apply Rabs_def2 in Hhb. specialize (N1 h Hh1). specialize (N2 h Hh2). pose proof (HT h ltac:(lra)) as Hth.
  assert (t1 <= T h) by (apply (left_of_root _ _ (T h) t1 (P h ltac:(lra)) Hth); lra).
  assert (T h <= t2) by (apply (right_of_root _ _ (T h) t2 (P h ltac:(lra)) Hth); lra).
  unfold t1, t2 in *. apply Rabs_def1; lra.
Qed.

(** [a] is alpha - 1. *)
Theorem alpha_derivative : forall n a score T,
  0 < a ->
  (forall h, 0 < a + h -> is_tau (/ (a + h)) (map (fun i => (a + h) * score i) (seq 0 n)) (T h)) ->
  (forall i, (i < n)%nat -> a * score i <> T 0) ->
  let s := fun i => sensitivity (/ a) (a * score i) (T 0) in
  let probs := fun i => prob (/ a) (a * score i) (T 0) in
  let d_tau := (total n (fun i => s i * score i) - total n (fun i => probs i * ln (probs i))) / total n s in
  derivable_pt_lim T 0 d_tau /\
  (forall i, (i < n)%nat ->
    derivable_pt_lim (fun h => prob (/ (a + h)) ((a + h) * score i) (T h)) 0
      (/ a * (s i * (score i - d_tau) - probs i * ln (probs i)))).
Proof.
  intros n a score T Ha HT Hne s probs d_tau.
  assert (Pa : 0 < / a) by (apply Rinv_0_lt_compat; exact Ha).
  pose proof (tau_continuous_in_alpha n a score T Ha HT) as CT.
  assert (Es : forall i, s i = pw (/ a - 1) (a * score i - T 0)) by (intros i; apply sensitivity_eq; exact Pa).
  assert (Ep : forall i, probs i = pw (/ a) (a * score i - T 0)) by (intros i; apply pw_gap).
  assert (HS : 0 < total n s).
  { pose proof (HT 0 ltac:(lra)) as H0. unfold is_tau in H0. rewrite Rplus_0_r in H0.
    assert (Pm : 0 < mass (/ a) (map (fun i => a * score i) (seq 0 n)) (T 0)) by (rewrite H0; lra).
    apply slope_pos in Pm. rewrite slope_eq, sum_map in Pm. unfold total.
    rewrite (sum_ext s (fun i => pw (/ a - 1) (a * score i - T 0))) by (intros; apply Es). exact Pm. }
  destruct (keys_move a score T (seq 0 n) Ha CT) as [d [W [C [Hd [CW [CC [E [W0 C0]]]]]]]].
  { intros i Hi. apply in_seq in Hi. specialize (Hne i ltac:(lia)). lra. }
  assert (W0' : W 0 = / a * total n s).
  { rewrite W0. f_equal. apply sum_ext. intros i _. symmetry. apply Es. }
  assert (C0' : C 0 = / a * (total n (fun i => s i * score i) - total n (fun i => probs i * ln (probs i)))).
  { rewrite C0. f_equal. f_equal; apply sum_ext; intros i _; [rewrite Es | rewrite Ep]; reflexivity. }
  assert (W0p : 0 < W 0) by (rewrite W0'; apply Rmult_lt_0_compat; assumption).
  destruct (near_positive W CW W0p) as [dw [Hdw Nw]].
  set (q := fun h => C h * / W h).
  assert (Cq : continuity_pt q 0) by (apply continuity_pt_mult; [exact CC | apply (continuity_pt_inv W); [exact CW | lra]]).
  assert (q0 : q 0 = d_tau) by (unfold q, d_tau; rewrite C0', W0'; field; split; lra).
  assert (Move : forall h, Rabs h < Rmin d dw -> T h - T 0 = h * q h).
  { intros h Hh. assert (Hh1 : Rabs h < d) by (eapply Rlt_le_trans; [exact Hh | apply Rmin_l]).
    assert (Hh2 : Rabs h < dw) by (eapply Rlt_le_trans; [exact Hh | apply Rmin_r]).
    destruct (E h Hh1) as [Pah Eh]. specialize (Nw h Hh2).
    pose proof (HT h Pah) as A. pose proof (HT 0 ltac:(lra)) as B. unfold is_tau in A, B. rewrite mass_eq, sum_map in A, B.
    rewrite !Rplus_0_r in B. rewrite A, B in Eh.
    assert (Ew : W h * (T h - T 0) = C h * h) by lra.
    unfold q. apply Rmult_eq_reg_l with (W h); [|lra]. rewrite Ew. field. lra. }
  split; [apply (derivative_of_factor T q d_tau (Rmin d dw)); try assumption; apply Rmin_pos; assumption|].
  intros i Hi. specialize (Hne i Hi).
  destruct (key_moves a (score i) T Ha CT ltac:(lra)) as [d1 [w [v [Hd1 [Cw [Cv [E1 [w0 v0]]]]]]]]. cbv zeta in *.
  apply (derivative_of_factor _ (fun h => w h * (score i - q h) + v h) _ (Rmin d1 (Rmin d dw))).
  - repeat apply Rmin_pos; assumption.
  - intros h Hh. destruct (E1 h) as [_ Eh]; [eapply Rlt_le_trans; [exact Hh | apply Rmin_l]|].
    rewrite (Move h) in Eh by (eapply Rlt_le_trans; [exact Hh | apply Rmin_r]).
    unfold prob. rewrite !pw_gap, !Rplus_0_r, Eh. ring.
  - rewrite q0, w0, v0, Es, Ep. ring.
  - apply continuity_pt_plus; [|exact Cv]. apply continuity_pt_mult; [exact Cw|].
    apply continuity_pt_minus; [apply const_continuous | exact Cq].
Qed.
