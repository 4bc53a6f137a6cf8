(** Which plausible claims are false?  A mask needs a bound that is proved to lie at or below tau; an iterate is none. *)

From Coq Require Import Reals List Lra.
From Entmax Require Import specification power threshold.
Import ListNotations.
Open Scope R_scope.

Lemma gap_pos x t : t <= x -> gap x t = x - t.
Proof. intros H. unfold gap. apply Rmax_left. lra. Qed.

Lemma sum_repeat {A} (f : A -> R) x n : sum f (repeat x n) = INR n * f x.
Proof.
  induction n as [|n IH]; [simpl; ring|]. rewrite S_INR. cbn [repeat sum]. rewrite IH. ring.
Qed.

Theorem block_mask_unsound_above :
  let z := [1; 1 / 2] in
  let iterate := 6 / 10 in
  1 / 2 <= iterate /\
  is_tau 1 z (1 / 4) /\ pw 1 (gap (1 / 2) (1 / 4)) = 1 / 4 /\
  is_tau 2 z ((3 - sqrt 7) / 4) /\ pw 2 (gap (1 / 2) ((3 - sqrt 7) / 4)) = (4 - sqrt 7) / 8 /\
  0 < (4 - sqrt 7) / 8.
Proof.
  intros z iterate.
  assert (Q : sqrt 7 * sqrt 7 = 7) by (apply sqrt_sqrt; lra).
  assert (Q0 : 0 <= sqrt 7) by apply sqrt_pos.
  assert (Q1 : sqrt 7 < 4) by nra.
  assert (Q2 : 1 < sqrt 7) by nra.
  unfold is_tau, mass, z, iterate. cbn [sum]. rewrite !gap_pos by lra. rewrite !pw_1, !pw_2 by lra.
  repeat split; nra.
Qed.

Theorem halley_overshoots : forall tau,
  let z := repeat 1 4 ++ [53 / 100] ++ repeat (1 / 10) 20 in
  is_tau 2 z tau ->
  50 / 100 < tau < 51 / 100 /\
  544 / 1000 < 0 + halley_step 2 z 0 < 545 / 1000 /\
  53 / 100 <= 0 + halley_step 2 z 0 /\ 0 < pw 2 (gap (53 / 100) tau).
Proof.
  intros tau z Ht.
  assert (M : forall t, mass 2 z t = 4 * pw 2 (1 - t) + pw 2 (53 / 100 - t) + 20 * pw 2 (1 / 10 - t)).
  { intros t. rewrite mass_eq. unfold z. rewrite !sum_app, !sum_repeat. cbn [sum]. simpl INR. ring. }
  assert (A : 50 / 100 < tau).
  { apply Rnot_le_lt. intros H. apply (right_of_root 2 z tau _ ltac:(lra) Ht) in H. rewrite M in H.
    rewrite (pw_2 (1 - 50 / 100)), (pw_2 (53 / 100 - 50 / 100)), pw_zero in H by lra. lra. }
  assert (B : tau < 51 / 100).
  { apply Rnot_le_lt. intros H. apply (left_of_root 2 z tau _ ltac:(lra) Ht) in H. rewrite M in H.
    rewrite (pw_2 (1 - 51 / 100)), (pw_2 (53 / 100 - 51 / 100)), pw_zero in H by lra. lra. }
  assert (E : halley_step 2 z 0 = 90921108 / 1000000 / (341127200 / 1000000 - 174045000 / 1000000)).
  { assert (M0 : mass 2 z 0 = 44809 / 10000) by (rewrite M, !pw_2 by lra; lra).
    assert (S0 : slope 2 z 0 = 653 / 100).
    { rewrite slope_eq. unfold z. rewrite !sum_app, !sum_repeat. cbn [sum]. replace (2 - 1) with 1 by ring.
      rewrite !pw_1 by lra. simpl INR. lra. }
    assert (C0 : curve 2 z 0 = 25).
    { unfold curve. unfold z. rewrite !sum_app, !sum_repeat. cbn [sum]. replace (2 - 2) with 0 by ring.
      rewrite !pw_gap, !pw_0 by lra. simpl INR. lra. }
    unfold halley_step. rewrite M0, S0, C0. cbv zeta.
    match goal with |- ?a / ?b = ?c / ?d => replace a with c by lra; replace b with d by lra end. reflexivity. }
  split; [lra|]. rewrite E. split; [lra|]. split; [lra|].
  rewrite pw_gap. apply pw_pos. lra.
Qed.
