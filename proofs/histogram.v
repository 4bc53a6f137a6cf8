(** What may be read off a count of scores in bins?  Packed counters keep their counts, and counts bracket tau. *)

From Coq Require Import Reals List Permutation ZArith Lia Lra.
From Entmax Require Import specification power threshold.
Import ListNotations.
Open Scope R_scope.

(** ** Packed counters *)

Lemma word_app b x y : word b (x ++ y) = (word b x + word b y)%Z.
Proof. induction x as [|f x IH]; simpl; [reflexivity | rewrite IH; lia]. Qed.

Lemma word_perm b x y : Permutation x y -> word b x = word b y.
Proof. induction 1; simpl; lia. Qed.

Lemma word_nonneg b x : (0 <= word b x)%Z.
Proof. induction x as [|f x IH]; simpl; [lia|]. pose proof (Z.pow_nonneg 2 (Z.of_nat (b * f))). lia. Qed.

Lemma count_cons x f g : count (g :: x) f = ((if Nat.eq_dec g f then 1 else 0) + count x f)%Z.
Proof. unfold count. simpl. destruct (Nat.eq_dec g f); lia. Qed.

Lemma below_step b n x :
  word b (filter (fun f => Nat.ltb f (S n)) x) = (word b (filter (fun f => Nat.ltb f n) x) + count x n * 2 ^ Z.of_nat (b * n))%Z.
Proof.
  induction x as [|f x IH]; [reflexivity|]. rewrite count_cons. cbn [filter].
  destruct (Nat.eq_dec f n) as [->|Hne].
  - replace (Nat.ltb n (S n)) with true by (symmetry; apply Nat.ltb_lt; lia).
    replace (Nat.ltb n n) with false by (symmetry; apply Nat.ltb_ge; lia). cbn [word]. rewrite IH. lia.
  - destruct (Nat.ltb_spec f (S n)); destruct (Nat.ltb_spec f n); try lia; cbn [word]; rewrite IH; lia.
Qed.

Lemma pow_step b n : (2 ^ Z.of_nat (b * S n) = 2 ^ Z.of_nat b * 2 ^ Z.of_nat (b * n))%Z.
Proof. rewrite <- Z.pow_add_r by lia. f_equal. lia. Qed.

Lemma below_small b x : (forall f, (count x f < 2 ^ Z.of_nat b)%Z) ->
  forall n, (word b (filter (fun f => Nat.ltb f n) x) < 2 ^ Z.of_nat (b * n))%Z.
Proof.
  intros H n. induction n as [|n IH].
  - replace (filter (fun f => Nat.ltb f 0) x) with (@nil nat).
    + rewrite Nat.mul_0_r. simpl. lia.
    + clear H. induction x as [|f x IH]; [reflexivity | exact IH].
  - rewrite below_step, pow_step. specialize (H n).
    assert (0 < 2 ^ Z.of_nat (b * n))%Z by (apply Z.pow_pos_nonneg; lia). nia.
Qed.

Lemma above_multiple b n x :
  exists k, word b x = (word b (filter (fun f => Nat.ltb f n) x) + k * 2 ^ Z.of_nat (b * n))%Z.
Proof.
  induction x as [|f x [k IH]]; [exists 0%Z; reflexivity|]. cbn [filter word].
  destruct (Nat.ltb_spec f n).
  - exists k. cbn [word]. rewrite IH. lia.
  - exists (2 ^ Z.of_nat (b * (f - n)) + k)%Z. rewrite IH, Z.mul_add_distr_r, <- Z.pow_add_r by apply Nat2Z.is_nonneg.
    replace (Z.of_nat (b * (f - n)) + Z.of_nat (b * n))%Z with (Z.of_nat (b * f)) by nia. lia.
Qed.

Lemma field_is_count b x : (forall f, (count x f < 2 ^ Z.of_nat b)%Z) -> forall f, field b (word b x) f = count x f.
Proof.
  intros H f. destruct (above_multiple b (S f) x) as [k Hk]. rewrite below_step, pow_step in Hk.
  set (low := word b (filter (fun g => Nat.ltb g f) x)) in *. set (P := (2 ^ Z.of_nat (b * f))%Z) in *.
  set (B := (2 ^ Z.of_nat b)%Z) in *.
  assert (0 <= low < P)%Z by (split; [apply word_nonneg | apply below_small; exact H]).
  assert (0 <= count x f < B)%Z by (split; [unfold count; lia | apply H]).
  unfold field. fold P B. rewrite Hk.
  replace (low + count x f * P + k * (B * P))%Z with (low + (count x f + k * B) * P)%Z by ring.
  rewrite Z.div_add, Z.div_small by lia. rewrite Z.add_0_l, Z.mod_add, Z.mod_small; lia.
Qed.

Lemma word_small b fields x :
  Forall (fun f => (f < fields)%nat) x -> (forall f, (count x f < 2 ^ Z.of_nat b)%Z) ->
  (word b x < 2 ^ Z.of_nat (b * fields))%Z.
Proof.
  intros Hall H. replace x with (filter (fun f => Nat.ltb f fields) x) at 1; [apply below_small; exact H|].
  clear H. induction Hall as [|f x Hf Hall IH]; [reflexivity|]. cbn [filter].
  destruct (Nat.ltb_spec f fields); [rewrite IH; reflexivity | lia].
Qed.

Theorem counter_no_carry : forall b fields events,
  Forall (fun f => (f < fields)%nat) events ->
  (forall f, (count events f < 2 ^ Z.of_nat b)%Z) ->
  (forall some, part some events ->
    (0 <= word b some < 2 ^ Z.of_nat (b * fields))%Z /\
    (forall f, field b (word b some) f = count some f)) /\
  (forall one other, word b (one ++ other) = (word b one + word b other)%Z) /\
  (forall one other, Permutation one other -> word b one = word b other).
Proof.
  intros b fields events Hall H. split; [|split; [apply word_app | apply word_perm]].
  intros some [rest Hperm].
  assert (C : forall f, (count some f < 2 ^ Z.of_nat b)%Z).
  { intros f. eapply Z.le_lt_trans; [|apply (H f)]. unfold count.
    rewrite (proj1 (Permutation_count_occ Nat.eq_dec _ _) Hperm f), count_occ_app. lia. }
  split; [split; [apply word_nonneg|] | apply field_is_count; exact C].
  apply word_small; [|exact C]. rewrite Forall_forall in *. intros f Hf. apply Hall.
  apply Permutation_in with (some ++ rest); [symmetry; exact Hperm | apply in_or_app; left; exact Hf].
Qed.

(** ** Bracket *)

Lemma counted_mass_eq p bins t : mass p (counted bins) t = counted_mass p bins t.
Proof.
  unfold counted, counted_mass. induction bins as [|[x n] bins IH]; [reflexivity|].
  cbn [map concat sum fst snd]. rewrite mass_app, IH. f_equal. clear IH.
  induction n as [|n IH]; [unfold mass; simpl; ring|]. rewrite S_INR. cbn [repeat]. unfold mass in *. cbn [sum]. rewrite IH. ring.
Qed.

Theorem histogram_bracket : forall p z m tau kept dropped a b ta tb s,
  0 < p -> is_max m z -> is_tau p z tau ->
  Permutation z (kept ++ dropped) -> Forall (fun x => x <= m - 1) dropped ->
  Forall2 (fun x y => x <= y + s) a kept -> Forall2 (fun x y => x <= y + s) kept b ->
  is_tau p a ta -> is_tau p b tb ->
  ta - s <= tau <= tb + s /\
  (forall w, Forall2 (fun x y => y - x <= w) a b -> tb <= ta + w) /\
  (forall bins t, mass p (counted bins) t = counted_mass p bins t).
Proof.
  intros p z m tau kept dropped a b ta tb s Hp Hm Ht Hperm Hdrop Ha Hb Hta Htb.
  pose proof (proj1 (threshold_bracket p z m tau Hp Hm Ht)) as Hlo.
  assert (K : is_tau p kept tau) by (apply (drop_tau p z kept dropped (m - 1) tau); assumption).
  split; [|split; [|intros; apply counted_mass_eq]].
  - assert (ta - s <= tau) by (apply (tau_monotone p a kept); try assumption; eapply forall2_impl; [|exact Ha]; intros; simpl in *; lra).
    assert (tau - s <= tb) by (apply (tau_monotone p kept b); try assumption; eapply forall2_impl; [|exact Hb]; intros; simpl in *; lra).
    lra.
  - intros w Hw. assert (tb - w <= ta); [|lra]. apply (tau_monotone p b a); try assumption.
    apply forall2_flip in Hw. eapply forall2_impl; [|exact Hw]. intros; simpl in *; lra.
Qed.

(** ** The root of a counted row *)

Theorem knot_root_exact : forall p bins base,
  p = 1 \/ p = 2 ->
  Forall (fun bin => base <= fst bin) bins -> counted_mass p bins base <= 1 ->
  let count := sum (fun bin => INR (snd bin)) bins in
  let first := sum (fun bin => INR (snd bin) * (fst bin - base)) bins in
  let second := sum (fun bin => INR (snd bin) * ((fst bin - base) * (fst bin - base))) bins in
  0 < count ->
  0 <= knot_root p count first second /\ is_tau p (counted bins) (base - knot_root p count first second).
Proof.
  intros p bins base Hp Hall Hm count first second Hc. rewrite Forall_forall in Hall.
  assert (G : forall s bin, 0 <= s -> In bin bins -> gap (fst bin) (base - s) = fst bin - base + s).
  { intros s bin Hs Hin. specialize (Hall bin Hin). unfold gap. rewrite Rmax_left by lra. ring. }
  assert (G0 : forall bin, In bin bins -> gap (fst bin) base = fst bin - base).
  { intros bin Hin. specialize (Hall bin Hin). unfold gap. rewrite Rmax_left by lra. ring. }
  assert (W : forall bin, In bin bins -> 0 <= fst bin - base) by (intros bin Hin; specialize (Hall bin Hin); lra).
  unfold is_tau. rewrite counted_mass_eq. unfold counted_mass in *. unfold knot_root.
  destruct Hp as [->| ->].
  - destruct (Req_EM_T 1 1) as [_|N]; [|congruence].
    assert (E : sum (fun bin : R * nat => INR (snd bin) * pw 1 (gap (fst bin) base)) bins = first).
    { apply sum_ext. intros bin Hin. rewrite G0, pw_1 by auto. reflexivity. }
    rewrite E in Hm. set (s := (1 - first) / count).
    assert (Hs : 0 <= s) by (apply Rmult_le_pos; [lra | left; apply Rinv_0_lt_compat; exact Hc]).
    split; [exact Hs|].
    transitivity (first + s * count); [|unfold s; field; lra].
    unfold first, count. rewrite <- sum_scale, <- sum_plus. apply sum_ext. intros bin Hin.
    specialize (W bin Hin). rewrite G, pw_1 by (auto; lra). ring.
  - destruct (Req_EM_T 2 1) as [N|_]; [exfalso; lra|].
    assert (E : sum (fun bin : R * nat => INR (snd bin) * pw 2 (gap (fst bin) base)) bins = second).
    { apply sum_ext. intros bin Hin. rewrite G0, pw_2 by auto. reflexivity. }
    rewrite E in Hm.
    assert (F0 : 0 <= first) by (apply sum_nonneg; intros bin Hin; apply Rmult_le_pos; [apply pos_INR | apply W; exact Hin]).
    set (rest := 1 - second) in *. assert (R0 : 0 <= rest) by (unfold rest; lra).
    set (D := sqrt (first * first + count * rest)).
    assert (CR : 0 <= count * rest) by (apply Rmult_le_pos; lra).
    assert (FF : 0 <= first * first) by (apply Rmult_le_pos; lra).
    assert (D0 : 0 <= D) by apply sqrt_pos.
    assert (DD : D * D = first * first + count * rest) by (apply sqrt_sqrt; lra).
    set (s := rest / (first + D)).
    assert (Q : 0 <= s /\ count * (s * s) + 2 * first * s = rest).
    { destruct (Rle_lt_or_eq_dec 0 (first + D)) as [P|P]; [lra| |].
      - split; [apply Rmult_le_pos; [lra | left; apply Rinv_0_lt_compat; exact P]|].
        assert (Es : count * s = D - first).
        { unfold s. apply Rmult_eq_reg_r with (first + D); [|lra].
          replace (count * (rest / (first + D)) * (first + D)) with (count * rest) by (field; lra). lra. }
        replace (count * (s * s) + 2 * first * s) with (s * (count * s + 2 * first)) by ring. rewrite Es.
        unfold s. field. lra.
      - assert (first = 0) by lra. assert (D = 0) by lra. assert (CR0 : count * rest = 0) by nra.
        apply Rmult_integral in CR0. destruct CR0 as [C|C]; [lra|]. unfold s. rewrite C. unfold Rdiv. rewrite Rmult_0_l. split; lra. }
    destruct Q as [Hs Q]. split; [exact Hs|].
    transitivity (second + (count * (s * s) + 2 * first * s)); [|rewrite Q; unfold rest; ring].
    replace (count * (s * s) + 2 * first * s) with ((s * s) * count + (2 * s) * first) by ring.
    unfold second, count, first. rewrite <- !sum_scale, <- !sum_plus. apply sum_ext. intros bin Hin.
    specialize (W bin Hin). rewrite G, pw_2 by (auto; lra). ring.
Qed.
