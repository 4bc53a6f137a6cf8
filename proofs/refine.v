(** Does each step of the refinement keep what it knows?  Newton on the norm stays left of tau, and the bracket holds. *)

From Coq Require Import Reals List Lra.
From Entmax Require Import specification power threshold.
Import ListNotations.
Open Scope R_scope.

(** Hoelder's inequality for gaps at t and tau, from the tangent of x ** p alone. *)
Lemma gap_product p z tau t :
  1 <= p -> is_tau p z tau -> 0 < mass p z t ->
  mass p z t + (t - tau) * slope p z t <= pw (1 - / p) (mass p z t).
Proof.
  intros Hp Ht HF. set (F := mass p z t) in *. set (N := pw (1 - / p) F). set (lam := pw (- / p) F).
  assert (Hlam : 0 < lam) by (apply pw_pos; exact HF).
  assert (HN : 0 < N) by (apply pw_pos; exact HF).
  assert (L1 : pw p lam * F = 1).
  { unfold lam. rewrite pw_pw. replace (- / p * p) with (- (1)) by (field; lra).
    rewrite <- (pw_1 F) at 2 by lra. rewrite <- pw_plus. replace (- (1) + 1) with 0 by ring. apply pw_0. exact HF. }
  assert (L2 : pw (p - 1) lam * N = 1).
  { unfold lam, N. rewrite pw_pw, <- pw_plus. replace (- / p * (p - 1) + (1 - / p)) with 0 by (field; lra). apply pw_0. exact HF. }
  set (S := sum (fun x => pw (p - 1) (gap x t) * gap x tau) z).
  assert (HS : F + (t - tau) * slope p z t <= S).
  { unfold F, mass, slope, S. rewrite <- sum_scale, <- sum_plus. apply sum_le. intros x _.
    assert (G0 : 0 <= gap x t) by apply Rmax_r. rewrite pw_step by exact G0.
    pose proof (pw_nonneg (p - 1) (gap x t)) as N0.
    destruct G0 as [G0|G0].
    - assert (gap x t + (t - tau) <= gap x tau).
      { unfold gap in *. pose proof (Rmax_l (x - tau) 0). unfold Rmax in G0 |- * at 1.
        destruct (Rle_dec (x - t) 0); lra. }
      assert (pw (p - 1) (gap x t) * (gap x t + (t - tau)) <= pw (p - 1) (gap x t) * gap x tau)
        by (apply Rmult_le_compat_l; assumption). lra.
    - rewrite <- G0, pw_zero by lra. lra. }
  assert (T : pw p lam * F + p * (pw (p - 1) lam * S - pw p lam * F) <= 1).
  { unfold is_tau in Ht. apply Rle_trans with (mass p z tau); [|right; exact Ht]. unfold F, S, mass.
    rewrite <- !sum_scale, <- sum_minus, <- sum_scale, <- sum_plus. apply sum_le. intros x _.
    assert (G0 : 0 <= gap x t) by apply Rmax_r.
    pose proof (tangent p (lam * gap x t) (gap x tau) Hp) as T. rewrite !pw_mult in T by lra.
    assert (E : pw p lam = lam * pw (p - 1) lam) by (apply pw_step; lra).
    assert (E' : pw p (gap x t) = gap x t * pw (p - 1) (gap x t)) by (apply pw_step; lra).
    eapply Rle_trans; [right|exact T]. rewrite E, E'. ring. }
  rewrite L1 in T.
  assert (D : pw (p - 1) lam * S <= 1) by nra.
  assert (pw (p - 1) lam * S * N <= 1 * N) by (apply Rmult_le_compat_r; lra).
  replace (pw (p - 1) lam * S * N) with (pw (p - 1) lam * N * S) in H by ring. rewrite L2 in H. fold N. lra.
Qed.

Theorem newton_norm_left : forall p z m tau t,
  1 <= p -> is_max m z -> is_tau p z tau -> t < m ->
  0 < mass p z t /\ 0 < slope p z t /\
  t + norm_step p (mass p z t) (slope p z t) <= tau /\
  (mass p z t - 1) / (p * slope p z t) <= norm_step p (mass p z t) (slope p z t) /\
  (t <= tau -> 0 <= norm_step p (mass p z t) (slope p z t)).
Proof.
  intros p z m tau t Hp Hm Ht Htm.
  assert (HF : 0 < mass p z t) by (apply mass_pos_iff; exists m; split; [apply Hm | exact Htm]).
  assert (HG : 0 < slope p z t) by (apply slope_pos; exact HF).
  pose proof (gap_product p z tau t Hp Ht HF) as P.
  assert (Hi : 0 < / p <= 1) by (split; [apply Rinv_0_lt_compat; lra | rewrite <- Rinv_1; apply Rinv_le_contravar; lra]).
  pose proof (concave_tangent (1 - / p) (mass p z t) ltac:(lra) HF) as C.
  unfold norm_step. set (F := mass p z t) in *. set (G := slope p z t) in *. set (N := pw (1 - / p) F) in *.
  split; [exact HF|]. split; [exact HG|]. split; [|split].
  - assert ((F - N) / G <= tau - t); [|lra]. apply Rmult_le_reg_r with G; [exact HG|].
    replace ((F - N) / G * G) with (F - N) by (field; lra). lra.
  - replace ((F - 1) / (p * G)) with (/ p * (F - 1) / G) by (field; lra).
    apply Rmult_le_compat_r; [left; apply Rinv_0_lt_compat; exact HG|]. lra.
  - intros Hle. apply (left_of_root p z tau t) in Hle; try assumption; [|lra]. fold F in Hle.
    apply Rmult_le_pos; [|left; apply Rinv_0_lt_compat; exact HG].
    assert ((1 - / p) * (F - 1) <= 1 * (F - 1)) by (apply Rmult_le_compat_r; lra). lra.
Qed.

Theorem step_keeps_bracket : forall p z tau t lo hi below above proposal,
  0 < p -> is_tau p z tau -> lo <= tau <= hi -> lo <= t <= hi ->
  below <= tau -> (1 <= mass p z t -> tau <= above) ->
  let lo' := next_lo p z t lo below in
  let hi' := next_hi p z t hi above in
  lo' <= tau <= hi' /\
  lo' <= accepted lo' hi' proposal ((lo' + hi') / 2) <= hi' /\
  lo' <= accepted lo' hi' proposal (Rmax lo' t) <= hi'.
Proof.
  intros p z tau t lo hi below above proposal Hp Ht Hb Hi Hbelow Habove lo' hi'.
  pose proof (left_of_root p z tau t Hp Ht) as L. pose proof (right_of_root p z tau t Hp Ht) as R.
  assert (A : lo' <= tau).
  { unfold lo', next_lo. apply Rmax_lub; [|exact Hbelow].
    destruct (Rle_dec 1 (mass p z t)) as [H|H]; [apply Rmax_lub; [lra | tauto] | lra]. }
  assert (B : tau <= hi' /\ t <= hi').
  { unfold hi', next_hi. destruct (Rle_dec (mass p z t) 1) as [H|H]; destruct (Rle_dec 1 (mass p z t)) as [H'|H'];
      repeat split; repeat apply Rmin_glb; try lra; try tauto;
      try (apply R in H; lra); try (apply L in H'; specialize (Habove ltac:(tauto)); lra). }
  split; [lra|].
  assert (C : forall other, lo' <= other <= hi' -> lo' <= accepted lo' hi' proposal other <= hi').
  { intros other Ho. unfold accepted. destruct proposal as [s|]; [|exact Ho].
    destruct (Rle_dec lo' s); [|exact Ho]. destruct (Rle_dec s hi'); [lra | exact Ho]. }
  split; apply C; [lra|]. split; [apply Rmax_l | apply Rmax_lub; lra].
Qed.
