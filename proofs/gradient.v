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
