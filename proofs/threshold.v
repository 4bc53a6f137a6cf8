(** Where is the threshold of a row?  It exists, once, in a known bracket, and the mass says how far a point is from it. *)

From Coq Require Import Reals List Permutation Lra.
From Entmax Require Import specification power.
Import ListNotations.
Open Scope R_scope.

(** ** Mass *)

Lemma mass_eq p z t : mass p z t = sum (fun x => pw p (x - t)) z.
Proof. unfold mass. apply sum_ext. intros. apply pw_gap. Qed.

Lemma slope_eq p z t : slope p z t = sum (fun x => pw (p - 1) (x - t)) z.
Proof. unfold slope. apply sum_ext. intros. apply pw_gap. Qed.

Lemma mass_nonneg p z t : 0 <= mass p z t.
Proof. apply sum_nonneg. intros. apply pw_nonneg. Qed.

Lemma slope_nonneg p z t : 0 <= slope p z t.
Proof. apply sum_nonneg. intros. apply pw_nonneg. Qed.

Lemma mass_le p z s t : 0 <= p -> s <= t -> mass p z t <= mass p z s.
Proof. intros Hp H. rewrite !mass_eq. apply sum_le. intros. apply pw_le; lra. Qed.

Lemma mass_lt p z s t : 0 < p -> s < t -> 0 < mass p z s -> mass p z t < mass p z s.
Proof.
  intros Hp H Hm. rewrite !mass_eq in *.
  destruct (sum_pos_exists _ _ Hm) as [x [Hx Hpos]]. apply pw_pos_inv in Hpos.
  apply sum_lt with x; [intros; apply pw_le; lra | exact Hx |].
  destruct (Rlt_dec 0 (x - t)); [apply pw_lt; lra | rewrite pw_zero by lra; apply pw_pos; exact Hpos].
Qed.

Lemma mass_app p a b t : mass p (a ++ b) t = mass p a t + mass p b t.
Proof. apply sum_app. Qed.

Lemma mass_pos_iff p z t : 0 < mass p z t <-> exists x, In x z /\ t < x.
Proof.
  rewrite mass_eq. split.
  - intros H. destruct (sum_pos_exists _ _ H) as [x [Hx Hpos]]. apply pw_pos_inv in Hpos. exists x. split; [auto | lra].
  - intros [x [Hx Hlt]]. apply Rlt_le_trans with (pw p (x - t)); [apply pw_pos; lra|].
    apply (sum_le_one (fun y => pw p (y - t))); [intros; apply pw_nonneg | exact Hx].
Qed.

Lemma slope_pos p z t : 0 < mass p z t -> 0 < slope p z t.
Proof.
  rewrite mass_pos_iff. intros [x [Hx Hlt]]. rewrite slope_eq.
  apply Rlt_le_trans with (pw (p - 1) (x - t)); [apply pw_pos; lra|].
  apply (sum_le_one (fun y => pw (p - 1) (y - t))); [intros; apply pw_nonneg | exact Hx].
Qed.

Lemma mass_max p z m t : is_max m z -> pw p (m - t) <= mass p z t.
Proof.
  intros [Hin _]. rewrite mass_eq. apply (sum_le_one (fun y => pw p (y - t))); [intros; apply pw_nonneg | exact Hin].
Qed.

Lemma mass_beyond p z m t : is_max m z -> m <= t -> mass p z t = 0.
Proof.
  intros [_ Hall] H. rewrite mass_eq. apply sum_zero. intros x Hx. rewrite Forall_forall in Hall.
  specialize (Hall x Hx). apply pw_zero. lra.
Qed.

Lemma mass_continuous p z : 0 < p -> continuity (mass p z).
Proof.
  intros Hp t.
  assert (C : continuity_pt (fun t => sum (fun x => pw p (x - t)) z) t).
  { apply (sum_continuous (fun x t => pw p (x - t))). intros x _.
    apply (continuity_pt_comp (fun t => x - t) (pw p)); [|apply pw_continuous; exact Hp].
    apply continuity_pt_minus; [apply continuity_pt_const; intros a b; reflexivity | apply derivable_continuous_pt, derivable_pt_id]. }
  intros eps Heps. destruct (C eps Heps) as [d [Hd H]]. exists d. split; [exact Hd|].
  intros y Hy. rewrite !mass_eq. apply H. exact Hy.
Qed.

(** ** The root *)

Lemma tau_below_max p z m tau : is_max m z -> is_tau p z tau -> tau < m.
Proof.
  intros Hm Ht. apply Rnot_le_lt. intros H.
  unfold is_tau in Ht. pose proof (mass_beyond p z m tau Hm H). lra.
Qed.

Lemma left_of_root p z tau t : 0 < p -> is_tau p z tau -> t <= tau <-> 1 <= mass p z t.
Proof.
  unfold is_tau. intros Hp Ht. split; intros H.
  - rewrite <- Ht at 1. apply mass_le; lra.
  - apply Rnot_lt_le. intros Hlt. assert (mass p z t < mass p z tau) by (apply mass_lt; lra). lra.
Qed.

Lemma right_of_root p z tau t : 0 < p -> is_tau p z tau -> tau <= t <-> mass p z t <= 1.
Proof.
  unfold is_tau. intros Hp Ht. split; intros H.
  - rewrite <- Ht. apply mass_le; lra.
  - apply Rnot_lt_le. intros Hlt. assert (mass p z tau < mass p z t); [|lra].
    apply mass_lt; try lra. assert (mass p z tau <= mass p z t) by (apply mass_le; lra). lra.
Qed.

Lemma tau_unique p z s t : 0 < p -> is_tau p z s -> is_tau p z t -> s = t.
Proof.
  intros Hp Hs Ht. apply Rle_antisym.
  - apply (left_of_root p z t s Hp Ht). unfold is_tau in Hs. lra.
  - apply (left_of_root p z s t Hp Hs). unfold is_tau in Ht. lra.
Qed.

Lemma tau_exists p z m : 0 < p -> is_max m z -> exists tau, is_tau p z tau /\ m - 1 <= tau.
Proof.
  intros Hp Hm.
  assert (C : continuity (fun t => mass p z t - 1)).
  { intros t. apply continuity_pt_minus; [apply mass_continuous; exact Hp | apply continuity_pt_const; intros a b; reflexivity]. }
  destruct (IVT_cor (fun t => mass p z t - 1) (m - 1) m C) as [tau [H1 H2]]; [lra | |].
  - pose proof (mass_max p z m (m - 1) Hm) as L. replace (m - (m - 1)) with 1 in L by ring. rewrite pw_one in L.
    rewrite (mass_beyond p z m m Hm) by lra. nra.
  - exists tau. unfold is_tau. split; lra.
Qed.

Theorem threshold_unique : forall p z m,
  0 < p -> is_max m z ->
  continuity (mass p z) /\
  (forall s t, s < t -> t <= m -> mass p z t < mass p z s) /\
  (forall bound, exists s, forall t, t <= s -> bound < mass p z t) /\
  (forall t, m <= t -> mass p z t = 0) /\
  (exists tau, is_tau p z tau) /\
  (forall tau, is_tau p z tau ->
    tau < m /\
    (forall other, is_tau p z other -> other = tau) /\
    (forall t, t <= tau <-> 1 <= mass p z t) /\
    (forall t, tau <= t <-> mass p z t <= 1)).
Proof.
  intros p z m Hp Hm. split; [apply mass_continuous; exact Hp|]. split.
  { intros s t Hst Htm. apply mass_lt; try assumption. apply mass_pos_iff. exists m. split; [apply Hm | lra]. }
  split.
  { intros bound. set (b := Rmax bound 0 + 1).
    assert (Hb : 0 < b) by (unfold b; pose proof (Rmax_r bound 0); lra).
    exists (m - pw (/ p) b). intros t Ht.
    apply Rlt_le_trans with b; [unfold b; pose proof (Rmax_l bound 0); lra|].
    apply Rle_trans with (pw p (m - t)); [|apply mass_max; exact Hm].
    rewrite <- (pw_inverse' p b) by lra. apply pw_le; lra. }
  split; [intros t Ht; apply mass_beyond with m; assumption|].
  split; [destruct (tau_exists p z m Hp Hm) as [tau [H _]]; exists tau; exact H|].
  intros tau Ht. split; [apply tau_below_max with p z; assumption|].
  split; [intros other Ho; apply tau_unique with p z; assumption|].
  split; intros t; [apply left_of_root | apply right_of_root]; assumption.
Qed.

Theorem threshold_bracket : forall p z m tau,
  0 < p -> is_max m z -> is_tau p z tau ->
  m - 1 <= tau <= m - Rpower (INR (length z)) (1 - alpha p).
Proof.
  intros p z m tau Hp Hm Ht. split.
  - apply (left_of_root p z tau); try assumption.
    pose proof (mass_max p z m (m - 1) Hm) as L. replace (m - (m - 1)) with 1 in L by ring. rewrite pw_one in L. exact L.
  - apply (right_of_root p z tau); try assumption.
    set (n := INR (length z)). set (r := Rpower n (1 - alpha p)).
    assert (Hn : 0 < n).
    { unfold n. destruct Hm as [Hin _]. destruct z as [|x z]; [destruct Hin|]. simpl length. apply lt_0_INR. apply Nat.lt_0_succ. }
    assert (Hr : 0 < r) by apply Rpower_pos.
    assert (E : pw p r = / n).
    { rewrite pw_Rpower by exact Hr. unfold r, alpha. rewrite Rpower_mult.
      replace ((1 - (1 + / p)) * p) with (- (1)) by (field; lra). rewrite Rpower_Ropp, Rpower_1 by exact Hn. reflexivity. }
    rewrite mass_eq. apply Rle_trans with (sum (fun _ => pw p r) z).
    + apply sum_le. intros x Hx. destruct Hm as [_ Hall]. rewrite Forall_forall in Hall. specialize (Hall x Hx).
      apply pw_le; lra.
    + rewrite sum_const, E. fold n. right. field. lra.
Qed.

Theorem threshold_shift : forall p z tau c,
  (is_tau p (map (fun x => x + c) z) (tau + c) <-> is_tau p z tau) /\
  map (fun x => pw p (gap x (tau + c))) (map (fun x => x + c) z) = map (fun x => pw p (gap x tau)) z.
Proof.
  intros p z tau c.
  assert (G : forall x, gap (x + c) (tau + c) = gap x tau) by (intros; unfold gap; f_equal; ring).
  split.
  - unfold is_tau, mass. rewrite sum_map.
    rewrite (sum_ext (fun x => pw p (gap (x + c) (tau + c))) (fun x => pw p (gap x tau))) by (intros; rewrite G; reflexivity).
    tauto.
  - rewrite map_map. apply map_ext. intros. rewrite G. reflexivity.
Qed.

(** Moving every score up by at least nothing, or by at most d, moves the root no further. *)
Lemma tau_monotone p z y tau ty d :
  0 < p -> is_tau p z tau -> is_tau p y ty -> Forall2 (fun a b => a - d <= b) z y -> tau - d <= ty.
Proof.
  intros Hp Ht Hy H. apply (left_of_root p y ty); try assumption.
  unfold is_tau in Ht. rewrite <- Ht. rewrite !mass_eq.
  apply (sum_forall2 _ _ (fun a b => a - d <= b)); [exact H|]. intros a b Hab. apply pw_le; lra.
Qed.

Lemma forall2_impl {A B} (r s : A -> B -> Prop) a b :
  (forall x y, r x y -> s x y) -> Forall2 r a b -> Forall2 s a b.
Proof. intros H F. induction F; constructor; auto. Qed.

Lemma forall2_flip {A B} (r : A -> B -> Prop) a b : Forall2 r a b -> Forall2 (fun y x => r x y) b a.
Proof. intros F. induction F; constructor; auto. Qed.

Theorem threshold_subset : forall p z tau,
  0 < p -> is_tau p z tau ->
  (forall a ta, part a z -> is_tau p a ta -> ta <= tau) /\
  (forall y ty, Forall2 Rle z y -> is_tau p y ty -> tau <= ty) /\
  (forall y ty d, Forall2 (fun a b => Rabs (a - b) <= d) z y -> is_tau p y ty -> Rabs (tau - ty) <= d).
Proof.
  intros p z tau Hp Ht. repeat split.
  - intros a ta [rest Hperm] Ha. apply (left_of_root p z tau); try assumption.
    unfold mass. rewrite (sum_perm _ _ _ Hperm), sum_app.
    pose proof (sum_nonneg (fun x => pw p (gap x ta)) rest (fun x _ => pw_nonneg p _)).
    unfold is_tau, mass in Ha. lra.
  - intros y ty H Hy. rewrite <- (Rminus_0_r tau). apply (tau_monotone p z y); try assumption.
    eapply forall2_impl; [|exact H]. intros a b Hab. lra.
  - intros y ty d H Hy. apply Rabs_le. split.
    + assert (ty - d <= tau); [|lra]. apply (tau_monotone p y z); try assumption.
      apply forall2_flip in H. eapply forall2_impl; [|exact H]. intros a b Hab. simpl in Hab.
      pose proof (Rle_abs (- (b - a))). rewrite Rabs_Ropp in *. lra.
    + assert (tau - d <= ty); [|lra]. apply (tau_monotone p z y); try assumption.
      eapply forall2_impl; [|exact H]. intros a b Hab. simpl in Hab. pose proof (Rle_abs (a - b)). lra.
Qed.

(** Keys at or below a point add nothing there, to the mass, the slope, or any sum weighted by a power of the gap. *)
Lemma drop_keys {A} (score : A -> R) (f : A -> R) z kept dropped lo :
  Permutation z (kept ++ dropped) -> Forall (fun k => score k <= lo) dropped ->
  forall q t, lo <= t ->
  sum (fun k => pw q (gap (score k) t) * f k) kept = sum (fun k => pw q (gap (score k) t) * f k) z.
Proof.
  intros Hperm Hall q t Ht. rewrite (sum_perm _ _ _ Hperm), sum_app.
  rewrite (sum_zero _ dropped); [ring|]. intros k Hk. rewrite Forall_forall in Hall. specialize (Hall k Hk).
  rewrite pw_gap, pw_zero by lra. ring.
Qed.

Lemma drop_scores z kept dropped lo :
  Permutation z (kept ++ dropped) -> Forall (fun x => x <= lo) dropped ->
  forall q t, lo <= t -> sum (fun x => pw q (gap x t)) kept = sum (fun x => pw q (gap x t)) z.
Proof.
  intros Hperm Hall q t Ht.
  pose proof (drop_keys (fun x => x) (fun _ => 1) z kept dropped lo Hperm Hall q t Ht) as D. cbv beta in D.
  rewrite (sum_ext (fun x => pw q (gap x t)) (fun x => pw q (gap x t) * 1) kept) by (intros; ring).
  rewrite D. apply sum_ext. intros; ring.
Qed.

Lemma drop_tau p z kept dropped lo tau :
  0 < p -> is_tau p z tau -> lo <= tau -> Permutation z (kept ++ dropped) -> Forall (fun x => x <= lo) dropped ->
  forall t, is_tau p kept t <-> is_tau p z t.
Proof.
  intros Hp Ht Hlo Hperm Hall t.
  assert (K : is_tau p kept tau) by (unfold is_tau, mass; rewrite (drop_scores z kept dropped lo); assumption).
  split; intros H.
  - rewrite (tau_unique p kept t tau); assumption.
  - rewrite (tau_unique p z t tau); assumption.
Qed.

(** ** The residual *)

Lemma prob_le_one p z tau x : 0 < p -> is_tau p z tau -> In x z -> gap x tau <= 1.
Proof.
  intros Hp Ht Hx. unfold is_tau in Ht.
  assert (H : pw p (x - tau) <= 1).
  { rewrite <- Ht, mass_eq. apply (sum_le_one (fun y => pw p (y - tau))); [intros; apply pw_nonneg | exact Hx]. }
  unfold gap. apply Rmax_lub; [|lra]. apply Rnot_lt_le. intros Hlt.
  assert (pw p 1 < pw p (x - tau)) by (apply pw_lt; lra). rewrite pw_one in *. lra.
Qed.

Lemma slope_ge_one p z tau : 1 <= p -> is_tau p z tau -> 1 <= slope p z tau.
Proof.
  intros Hp Ht. unfold is_tau in Ht. rewrite <- Ht. apply sum_le. intros x Hx.
  assert (0 <= gap x tau) by apply Rmax_r.
  assert (gap x tau <= 1) by (apply (prob_le_one p z); try assumption; lra).
  rewrite pw_step by assumption. pose proof (pw_nonneg (p - 1) (gap x tau)). nra.
Qed.

Lemma mass_tangent p z s t : 1 <= p -> mass p z t + p * slope p z t * (t - s) <= mass p z s.
Proof.
  intros Hp. rewrite !mass_eq, slope_eq.
  replace (p * sum (fun x => pw (p - 1) (x - t)) z * (t - s))
    with (sum (fun x => p * (t - s) * pw (p - 1) (x - t)) z) by (rewrite sum_scale; ring).
  rewrite <- sum_plus. apply sum_le. intros x _.
  pose proof (tangent p (x - t) (x - s) Hp). replace (x - s - (x - t)) with (t - s) in H by ring. lra.
Qed.

Theorem residual_bound : forall p z m tau t,
  1 <= p -> is_max m z -> is_tau p z tau -> t <= m -> Rabs (t - tau) <= Rabs (mass p z t - 1).
Proof.
  intros p z m tau t Hp Hm Ht Htm. destruct (Rle_dec t tau) as [H|H].
  - pose proof (mass_tangent p z t tau Hp) as T. pose proof (slope_ge_one p z tau Hp Ht) as S.
    unfold is_tau in Ht. rewrite Ht in T.
    assert (1 <= p * slope p z tau) by nra.
    assert (1 * (tau - t) <= p * slope p z tau * (tau - t)) by (apply Rmult_le_compat_r; lra).
    rewrite Rabs_left1 by lra. rewrite Rabs_pos_eq by lra. lra.
  - assert (Hd : 0 <= t - tau <= 1).
    { pose proof (threshold_bracket p z m tau ltac:(lra) Hm Ht). lra. }
    assert (L : mass p z t <= 1 - (t - tau)).
    { unfold is_tau in Ht. apply Rle_trans with ((1 - (t - tau)) * mass p z tau); [|rewrite Ht; lra].
      rewrite !mass_eq, <- sum_scale. apply sum_le. intros x Hx.
      pose proof (pw_nonneg p (x - tau)) as N.
      destruct (Rlt_dec 0 (x - t)) as [Hx1|Hx1]; [|rewrite (pw_zero p (x - t)) by lra; apply Rmult_le_pos; lra].
      pose proof (prob_le_one p z tau x ltac:(lra) Ht Hx) as Hg. unfold gap in Hg. pose proof (Rmax_l (x - tau) 0).
      assert (E : x - t = (x - tau) * ((x - t) / (x - tau))) by (field; lra).
      assert (Hq : 0 < (x - t) / (x - tau)) by (apply Rdiv_lt_0_compat; lra).
      assert (Hq1 : (x - t) / (x - tau) <= 1 - (t - tau)).
      { apply Rmult_le_reg_r with (x - tau); [lra|]. replace ((x - t) / (x - tau) * (x - tau)) with (x - t) by (field; lra).
        assert ((t - tau) * (x - tau) <= (t - tau) * 1) by (apply Rmult_le_compat_l; lra). lra. }
      rewrite E, pw_mult by lra. rewrite Rmult_comm. apply Rmult_le_compat_r; [exact N|].
      apply Rle_trans with ((x - t) / (x - tau)); [apply pw_le_id; lra | exact Hq1]. }
    pose proof (mass_nonneg p z t).
    rewrite Rabs_pos_eq by lra. rewrite Rabs_left1 by lra. lra.
Qed.

(** ** Convexity *)

Theorem mass_convex : forall p z s t w,
  1 <= p -> 0 <= w <= 1 -> mass p z (w * s + (1 - w) * t) <= w * mass p z s + (1 - w) * mass p z t.
Proof.
  intros p z s t w Hp Hw. set (r := w * s + (1 - w) * t).
  pose proof (mass_tangent p z s r Hp) as A. pose proof (mass_tangent p z t r Hp) as B.
  apply (Rmult_le_compat_l w) in A; [|lra]. apply (Rmult_le_compat_l (1 - w)) in B; [|lra].
  assert (E : w * (p * slope p z r * (r - s)) + (1 - w) * (p * slope p z r * (r - t)) = 0) by (unfold r; ring). lra.
Qed.

(** Rows as pairs of scores, before and after. *)
Theorem tau_subgradient : forall p moves tau ty,
  1 <= p -> is_tau p (map fst moves) tau -> is_tau p (map snd moves) ty ->
  let s k := pw (p - 1) (gap (fst k) tau) in
  sum (fun k => s k * (snd k - fst k)) moves <= (ty - tau) * sum s moves.
Proof.
  intros p moves tau ty Hp Ht Hy s. unfold is_tau in *. rewrite mass_eq, sum_map in Ht. rewrite mass_eq, sum_map in Hy.
  assert (L : sum (fun k => pw p (fst k - tau) + p * (s k * (snd k - fst k)) + - (p * (ty - tau)) * s k) moves <= 1).
  { rewrite <- Hy. apply sum_le. intros k _. pose proof (tangent p (fst k - tau) (snd k - ty) Hp) as T.
    unfold s. rewrite pw_gap.
    replace (p * (pw (p - 1) (fst k - tau) * (snd k - fst k)) + - (p * (ty - tau)) * pw (p - 1) (fst k - tau))
      with (p * pw (p - 1) (fst k - tau) * (snd k - ty - (fst k - tau))) by ring. lra. }
  rewrite !sum_plus, !sum_scale, Ht in L. apply Rmult_le_reg_l with p; lra.
Qed.
