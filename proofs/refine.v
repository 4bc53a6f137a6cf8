(** Does each step of the refinement keep what it knows?  Newton on the norm stays left of tau, and the bracket holds. *)

From Coq Require Import Reals List Lra Lia.
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

(** ** The loop *)

Lemma refine_step_invariant p z m tau tolerance slack retreat proposal t lo hi :
  1 <= p -> is_max m z -> is_tau p z tau -> 0 <= slack ->
  m - 1 <= lo <= tau -> tau <= hi -> hi < m -> lo <= t <= hi ->
  let '(t', lo', hi') := refine_step p z tolerance slack retreat proposal (t, lo, hi) in
  m - 1 <= lo' <= tau /\ tau <= hi' /\ hi' < m /\ lo' <= t' <= hi' /\
  (Rabs (mass p z t - 1) <= tolerance -> tolerance < 1 ->
    t' - tau <= 2 * tolerance /\ tau - t' <= 2 * tolerance / (1 - tolerance) + slack).
Proof.
  intros Hp Hm Ht Hs Hlo Hhi Hhm Hti. unfold refine_step.
  destruct (newton_norm_left p z m tau t Hp Hm Ht ltac:(lra)) as [PF [PG [Left [Ahead _]]]].
  pose proof (residual_bound p z m tau t Hp Hm Ht ltac:(lra)) as Res.
  pose proof (left_of_root p z tau t ltac:(lra) Ht) as L. pose proof (right_of_root p z tau t ltac:(lra) Ht) as R.
  set (F := mass p z t) in *. set (G := slope p z t) in *. set (below := t + norm_step p F G - slack).
  set (lo' := Rmax lo below).
  set (hi' := if Rlt_dec F 1 then Rmin hi t else Rmin hi (t + (F - 1))).
  assert (A : m - 1 <= lo' <= tau).
  { split; [apply Rle_trans with lo; [lra | apply Rmax_l] | apply Rmax_lub; unfold below; lra]. }
  assert (B : tau <= hi' /\ t <= hi' /\ hi' <= hi /\ (F < 1 -> hi' <= t) /\ (1 <= F -> hi' <= t + (F - 1))).
  { unfold hi'. destruct (Rlt_dec F 1) as [H|H].
    - assert (tau <= t) by (apply R; lra). pose proof (Rmin_l hi t). pose proof (Rmin_r hi t).
      repeat split; try apply Rmin_glb; lra.
    - assert (t <= tau) by (apply L; lra). rewrite (Rabs_left1 (t - tau)), (Rabs_pos_eq (F - 1)) in Res by lra.
      pose proof (Rmin_l hi (t + (F - 1))). pose proof (Rmin_r hi (t + (F - 1))).
      repeat split; try apply Rmin_glb; lra. }
  set (otherwise := if Rle_dec (Rabs (F - 1)) tolerance then t else Rmin retreat hi').
  assert (O : otherwise <= hi').
  { unfold otherwise. destruct (Rle_dec (Rabs (F - 1)) tolerance); [lra | apply Rmin_r]. }
  set (next := match proposal with Some s => if Rle_dec (Rmax s lo') hi' then Rmax s lo' else otherwise | None => otherwise end).
  assert (N : next <= hi') by (unfold next; destruct proposal as [s|]; [destruct (Rle_dec (Rmax s lo') hi')|]; lra).
  assert (T : lo' <= Rmax next lo' <= hi') by (split; [apply Rmax_r | apply Rmax_lub; lra]).
  split; [exact A|]. split; [lra|]. split; [lra|]. split; [exact T|].
  intros Htol H1.
  assert (Hd : Rabs (t - tau) <= tolerance) by lra. apply abs_le in Hd. apply abs_le in Htol.
  split.
  - destruct (Rlt_dec F 1); [|lra]. assert (hi' <= t) by tauto. lra.
  - assert (Low : below <= lo') by apply Rmax_r.
    assert (FG : F <= p * G).
    { assert (F <= G).
      { apply sum_le. intros x Hx. destruct Hm as [_ Hall]. rewrite Forall_forall in Hall. specialize (Hall x Hx).
        assert (0 <= gap x t) by apply Rmax_r. assert (gap x t <= 1) by (apply Rmax_lub; lra).
        rewrite pw_step by assumption. pose proof (pw_nonneg (p - 1) (gap x t)).
        assert (gap x t * pw (p - 1) (gap x t) <= 1 * pw (p - 1) (gap x t)) by (apply Rmult_le_compat_r; assumption). lra. }
      assert (1 * G <= p * G) by (apply Rmult_le_compat_r; lra). lra. }
    assert (Q : - (tolerance / (1 - tolerance)) <= (F - 1) / (p * G)).
    { assert (PpG : 0 < p * G) by lra. apply Rmult_le_reg_r with (p * G); [exact PpG|].
      replace ((F - 1) / (p * G) * (p * G)) with (F - 1) by (field; lra).
      assert (tolerance / (1 - tolerance) * (1 - tolerance) <= tolerance / (1 - tolerance) * (p * G)).
      { apply Rmult_le_compat_l; [|lra]. apply Rmult_le_pos; [lra | left; apply Rinv_0_lt_compat; lra]. }
      replace (tolerance / (1 - tolerance) * (1 - tolerance)) with tolerance in H by (field; lra). lra. }
    assert (E : tolerance + tolerance / (1 - tolerance) <= 2 * tolerance / (1 - tolerance)).
    { apply Rmult_le_reg_r with (1 - tolerance); [lra|].
      replace ((tolerance + tolerance / (1 - tolerance)) * (1 - tolerance)) with (tolerance * (1 - tolerance) + tolerance) by (field; lra).
      replace (2 * tolerance / (1 - tolerance) * (1 - tolerance)) with (2 * tolerance) by (field; lra).
      assert (0 <= tolerance * tolerance) by apply Rle_0_sqr. lra. }
    unfold below in Low. lra.
Qed.

(** However many passes, whatever the proposals and the points to retreat to: the bracket holds, its lower end is below the final t, and if the loop
    stopped by its tolerance, the residual has certified the point before the last step, and bounds the final one. *)
Theorem refine_loop_certifies : forall p z m tau tolerance passes t lo hi slack,
  1 <= p -> is_max m z -> is_tau p z tau -> tolerance < 1 ->
  Forall (fun pass => 0 <= snd pass <= slack) passes ->
  m - 1 <= lo <= tau -> tau <= hi -> hi < m -> lo <= t <= hi ->
  let '((t', lo', hi'), stopped) := refine_loop p z tolerance passes (t, lo, hi) in
  lo' <= tau <= hi' /\ lo' <= t' <= hi' /\
  (forall last, stopped = Some last ->
    Rabs (mass p z last - 1) <= tolerance /\ Rabs (last - tau) <= tolerance /\
    t' - tau <= 2 * tolerance /\ tau - t' <= 2 * tolerance / (1 - tolerance) + slack).
Proof.
  intros p z m tau tolerance passes. induction passes as [|[[proposal retreat] slack1] passes IH];
    intros t lo hi slack Hp Hm Ht Htol Hall Hlo Hhi Hhm Hti.
  - simpl. split; [lra|]. split; [lra|]. intros last Hl. discriminate Hl.
  - inversion Hall as [|pass rest Hs Hrest]; subst. simpl in Hs. cbn [refine_loop fst].
    pose proof (refine_step_invariant p z m tau tolerance slack1 retreat proposal t lo hi Hp Hm Ht ltac:(lra) Hlo Hhi Hhm Hti) as I.
    destruct (refine_step p z tolerance slack1 retreat proposal (t, lo, hi)) as [[t' lo'] hi'].
    destruct I as [I1 [I2 [I3 [I4 I5]]]].
    destruct (Rle_dec (Rabs (mass p z t - 1)) tolerance) as [Hd|Hd].
    + split; [lra|]. split; [lra|]. intros last Hl. injection Hl as <-.
      destruct (I5 Hd Htol) as [I6 I7]. split; [exact Hd|]. split; [|split; lra].
      eapply Rle_trans; [apply (residual_bound p z m tau t Hp Hm Ht); lra | exact Hd].
    + apply (IH t' lo' hi' slack); assumption.
Qed.

(** ** Newton from the left *)

(** It stands still only at tau: a row that does not rise has arrived. *)
Theorem newton_stops_at_tau : forall p z m tau t,
  1 <= p -> is_max m z -> is_tau p z tau -> t <= tau ->
  norm_step p (mass p z t) (slope p z t) <= 0 -> t = tau.
Proof.
  intros p z m tau t Hp Hm Ht Hle Hs. pose proof (tau_below_max p z m tau Hm Ht) as Htm.
  destruct (newton_norm_left p z m tau t Hp Hm Ht ltac:(lra)) as [PF [PG [_ [Ahead _]]]].
  assert (HF : 1 <= mass p z t) by (apply (left_of_root p z tau t); try assumption; lra).
  apply (tau_unique p z); [lra | | exact Ht]. unfold is_tau. apply Rle_antisym; [|exact HF].
  assert (H : (mass p z t - 1) / (p * slope p z t) <= 0) by lra.
  assert (PpG : 0 < p * slope p z t) by (apply Rmult_lt_0_compat; lra).
  apply (Rmult_le_compat_r (p * slope p z t)) in H; [|lra].
  replace ((mass p z t - 1) / (p * slope p z t) * (p * slope p z t)) with (mass p z t - 1) in H by (field; lra). lra.
Qed.

(** For power 2 the error is squared, times half the number of scores above t, which [slope 1] counts. *)
Theorem newton_is_quadratic : forall z m tau t,
  is_max m z -> is_tau 2 z tau -> t <= tau ->
  0 <= tau - (t + norm_step 2 (mass 2 z t) (slope 2 z t)) <= slope 1 z t / 2 * ((tau - t) * (tau - t)).
Proof.
  intros z m tau t Hm Ht Hle. pose proof (tau_below_max 2 z m tau Hm Ht) as Htm.
  destruct (newton_norm_left 2 z m tau t ltac:(lra) Hm Ht ltac:(lra)) as [PF [PG [Left [Ahead _]]]].
  split; [lra|]. set (e := tau - t) in *. assert (He : 0 <= e) by (unfold e; lra).
  assert (G1 : 1 <= slope 2 z t).
  { apply Rle_trans with (slope 2 z tau); [apply slope_ge_one; [lra | exact Ht]|].
    rewrite !slope_eq. apply sum_le. intros x _. apply pw_le; lra. }
  assert (K0 : 0 <= slope 1 z t) by apply slope_nonneg.
  assert (F1 : 2 * e * slope 2 z t - e * e * slope 1 z t <= mass 2 z t - 1).
  { unfold is_tau in Ht. apply Rle_trans with (mass 2 z t - mass 2 z tau); [|rewrite Ht; lra]. rewrite !mass_eq, !slope_eq, <- sum_minus, <- !sum_scale, <- sum_minus.
    apply sum_le. intros x _. cbv beta. replace (2 - 1) with 1 by ring. replace (1 - 1) with 0 by ring.
    destruct (Rlt_dec 0 (x - t)) as [H|H].
    - rewrite pw_0, (pw_1 (x - t)), (pw_2 (x - t)) by lra. replace (x - tau) with (x - t - e) by (unfold e; ring).
      destruct (Rlt_dec 0 (x - t - e)) as [H'|H'].
      + rewrite pw_2 by lra. right. ring.
      + rewrite (pw_zero 2 (x - t - e)) by lra. pose proof (Rle_0_sqr (x - t - e)) as Sq. unfold Rsqr in Sq. lra.
    - rewrite (pw_zero 1 (x - t)), (pw_zero 0 (x - t)), (pw_zero 2 (x - t)), (pw_zero 2 (x - tau)) by lra. lra. }
  assert (Ee : e = tau - t) by reflexivity.
  set (G := slope 2 z t) in *. set (K := slope 1 z t) in *.
  assert (Q : e - K / 2 * (e * e) <= (mass 2 z t - 1) / (2 * G)); [|lra].
  apply Rmult_le_reg_r with (2 * G); [lra|].
  replace ((mass 2 z t - 1) / (2 * G) * (2 * G)) with (mass 2 z t - 1) by (field; lra).
  assert (0 <= K * (e * e)) by (apply Rmult_le_pos; [exact K0 | apply Rle_0_sqr]).
  assert (K * (e * e) * 1 <= K * (e * e) * G) by (apply Rmult_le_compat_l; lra). lra.
Qed.

Lemma passes_or_not (z : list R) t next :
  (forall x, In x z -> t < x -> next < x) \/ (exists x, In x z /\ t < x <= next).
Proof.
  induction z as [|y z [I|[x [I1 I2]]]].
  - left. intros x [].
  - destruct (Rlt_dec t y) as [L|L].
    + destruct (Rlt_dec next y) as [L'|L'].
      * left. intros x [->|Hx] Hlt; [exact L' | apply I; assumption].
      * right. exists y. split; [left; reflexivity | lra].
    + left. intros x [->|Hx] Hlt; [contradiction | apply I; assumption].
  - right. exists x. split; [right; exact I1 | exact I2].
Qed.

Lemma count_falls (z : list R) t next x :
  t <= next -> In x z -> t < x <= next ->
  sum (fun y => pw 0 (y - next)) z + pw 0 (x - t) <= sum (fun y => pw 0 (y - t)) z.
Proof.
  intros Hn Hx Hb. assert (le : forall y, pw 0 (y - next) <= pw 0 (y - t)) by (intros; apply pw_le; lra).
  induction z as [|y z IH]; [destruct Hx|]. cbn [sum]. destruct Hx as [->|Hx].
  - rewrite (pw_zero 0 (x - next)) by lra.
    assert (sum (fun y => pw 0 (y - next)) z <= sum (fun y => pw 0 (y - t)) z) by (apply sum_le; intros; apply le). lra.
  - specialize (IH Hx). specialize (le y). lra.
Qed.

(** For power 1 a step either arrives or leaves a score behind, so it arrives after as many steps as there are scores. *)
Lemma newton_counts z m tau t :
  is_max m z -> is_tau 1 z tau -> t <= tau ->
  let next := t + norm_step 1 (mass 1 z t) (slope 1 z t) in
  t <= next <= tau /\ (next = tau \/ slope 1 z next <= slope 1 z t - 1).
Proof.
  intros Hm Ht Hle next. pose proof (tau_below_max 1 z m tau Hm Ht) as Htm.
  destruct (newton_norm_left 1 z m tau t ltac:(lra) Hm Ht ltac:(lra)) as [PF [PG [Left [Ahead _]]]].
  assert (HF : 1 <= mass 1 z t) by (apply (left_of_root 1 z tau t); try assumption; lra).
  assert (E : norm_step 1 (mass 1 z t) (slope 1 z t) = (mass 1 z t - 1) / slope 1 z t).
  { unfold norm_step. replace (1 - / 1) with 0 by field. rewrite pw_0 by exact PF. reflexivity. }
  assert (S0 : 0 <= (mass 1 z t - 1) / slope 1 z t) by (apply Rmult_le_pos; [lra | left; apply Rinv_0_lt_compat; exact PG]).
  assert (Hn : t <= next <= tau) by (unfold next; rewrite E; split; [lra | rewrite <- E; exact Left]).
  split; [exact Hn|].
  (* is there a score that the step passes? *)
  pose proof (passes_or_not z t next) as D.
  destruct D as [D|[x [Hx Hb]]].
  - left. apply (tau_unique 1 z); [lra | | exact Ht]. unfold is_tau.
    assert (M : mass 1 z next = mass 1 z t - (next - t) * slope 1 z t).
    { rewrite !mass_eq, slope_eq, <- sum_scale, <- sum_minus. apply sum_ext. intros y Hy. replace (1 - 1) with 0 by ring.
      destruct (Rlt_dec t y) as [L|L].
      - specialize (D y Hy L). rewrite !pw_1, pw_0 by lra. ring.
      - rewrite !pw_zero by lra. ring. }
    rewrite M. unfold next. rewrite E. field. lra.
  - right. rewrite !slope_eq. replace (1 - 1) with 0 by ring.
    assert (G : sum (fun y => pw 0 (y - next)) z + pw 0 (x - t) <= sum (fun y => pw 0 (y - t)) z).
    { apply count_falls; [lra | exact Hx | exact Hb]. }
    rewrite (pw_0 (x - t)) in G by lra. lra.
Qed.

Theorem newton_ends : forall z m tau t steps,
  is_max m z -> is_tau 1 z tau -> t <= tau -> (length z <= steps)%nat ->
  Nat.iter steps (fun t => t + norm_step 1 (mass 1 z t) (slope 1 z t)) t = tau.
Proof.
  intros z m tau t steps Hm Ht Hle Hn. set (next := fun t => t + norm_step 1 (mass 1 z t) (slope 1 z t)).
  assert (Fix : next tau = tau).
  { destruct (newton_counts z m tau tau Hm Ht ltac:(lra)) as [H _]. unfold next. lra. }
  assert (Count : slope 1 z t <= INR steps).
  { apply Rle_trans with (INR (length z)); [|apply le_INR; exact Hn]. rewrite slope_eq. clear.
    induction z as [|x z IH]; [simpl; lra|]. cbn [sum length]. rewrite S_INR. replace (1 - 1) with 0 in * by ring.
    assert (pw 0 (x - t) <= 1); [|lra]. destruct (Rlt_dec 0 (x - t)) as [L|L]; [rewrite pw_0 | rewrite pw_zero]; lra. }
  clear Hn. revert t Hle Count. induction steps as [|steps IH]; intros t Hle Count.
  - exfalso. pose proof (tau_below_max 1 z m tau Hm Ht) as Htm.
    destruct (newton_norm_left 1 z m tau t ltac:(lra) Hm Ht ltac:(lra)) as [_ [PG _]]. simpl in Count. lra.
  - assert (Turn : Nat.iter (S steps) next t = Nat.iter steps next (next t)).
    { clear. induction steps as [|steps IH]; [reflexivity|]. simpl in *. rewrite IH. reflexivity. }
    rewrite Turn.
    destruct (newton_counts z m tau t Hm Ht Hle) as [H1 [H2|H2]]; fold (next t) in H1, H2.
    + rewrite H2. clear - Fix. induction steps as [|steps IH]; [reflexivity|]. simpl in *. rewrite IH. exact Fix.
    + apply IH; [lra|]. rewrite S_INR in Count. lra.
Qed.

(** ** The active set *)

(** The quadratic through the scores above t, for power 2. *)
Theorem active_set_side : forall z tau t s,
  is_tau 2 z tau -> sum (fun x => if Rlt_dec t x then (x - s) * (x - s) else 0) z = 1 ->
  (t <= s -> tau <= s) /\ (s <= t -> s <= tau) /\
  (t <= s -> Forall (fun x => x <= t \/ s <= x) z -> s = tau) /\
  (s <= t -> Forall (fun x => x <= s \/ t < x) z -> s = tau).
Proof.
  intros z tau t s Ht Hq.
  assert (A : t <= s -> mass 2 z s <= 1).
  { intros L. rewrite <- Hq, mass_eq. apply sum_le. intros x _. destruct (Rlt_dec t x) as [H|H].
    - destruct (Rlt_dec 0 (x - s)); [rewrite pw_2 by lra; lra | rewrite pw_zero by lra; apply Rle_0_sqr].
    - rewrite pw_zero by lra. lra. }
  assert (B : s <= t -> 1 <= mass 2 z s).
  { intros L. rewrite <- Hq, mass_eq. apply sum_le. intros x _. destruct (Rlt_dec t x) as [H|H].
    - rewrite pw_2 by lra. lra.
    - apply pw_nonneg. }
  split; [intros L; apply (right_of_root 2 z tau s); [lra | exact Ht | apply A; exact L]|].
  split; [intros L; apply (left_of_root 2 z tau s); [lra | exact Ht | apply B; exact L]|].
  split; intros L Hall; apply (tau_unique 2 z); try lra; try exact Ht; unfold is_tau; rewrite <- Hq, mass_eq; apply sum_ext;
    intros x Hx; rewrite Forall_forall in Hall; specialize (Hall x Hx); destruct (Rlt_dec t x) as [H|H].
  - rewrite pw_2 by lra. ring.
  - rewrite pw_zero by lra. ring.
  - rewrite pw_2 by lra. ring.
  - rewrite pw_zero by lra. ring.
Qed.
