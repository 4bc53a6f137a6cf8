(** What may rounding do to a sum, and to the bound that a step rests on?  Binary32, any order of summation. *)

From Coq Require Import Reals List ZArith Lia Lra.
From Flocq Require Import Core Plus_error Relative Pff2Flocq.
From Entmax Require Import specification power threshold refine.
Import ListNotations.
Open Scope R_scope.

(** ** One operation *)

Lemma u_bpow : u = bpow radix2 (-24).
Proof. unfold u. change (-24)%Z with (- (24))%Z. rewrite bpow_opp, <- IZR_Zpower by lia. simpl. lra. Qed.

Lemma u_half : u = / 2 * bpow radix2 (- (24) + 1).
Proof. unfold u. change (- (24) + 1)%Z with (- (23))%Z. rewrite bpow_opp, <- IZR_Zpower by lia. simpl. lra. Qed.

Lemma u_pos : 0 < u <= / 16777216.
Proof. unfold u. lra. Qed.

Lemma choice_symmetric x : negb (Z.even x) = negb (negb (Z.even (- (x + 1)))).
Proof. rewrite Z.even_opp, Z.even_add. destruct (Z.even x); reflexivity. Qed.

Lemma precision_positive : Prec_gt_0 24.
Proof. unfold Prec_gt_0. lia. Qed.

Lemma fl_float x : is_float (fl x).
Proof. apply generic_format_round; [apply FLT_exp_valid, precision_positive | apply valid_rnd_N]. Qed.

Lemma fl_id x : is_float x -> fl x = x.
Proof. intros H. apply round_generic; [apply valid_rnd_N | exact H]. Qed.

Lemma fl_le x y : x <= y -> fl x <= fl y.
Proof. intros H. apply round_le; [apply FLT_exp_valid, precision_positive | apply valid_rnd_N | exact H]. Qed.

Lemma fl_opp x : fl (- x) = - fl x.
Proof. apply round_N_opp_sym. apply choice_symmetric. Qed.

Lemma float_0 : is_float 0.
Proof. apply generic_format_0. Qed.

Lemma float_opp x : is_float x -> is_float (- x).
Proof. apply generic_format_opp. Qed.

Lemma fl_nonneg x : 0 <= x -> 0 <= fl x.
Proof. intros H. rewrite <- (fl_id 0 float_0). apply fl_le. exact H. Qed.

(** Any operation: a relative error, or an absolute one where the result is subnormal. *)
Lemma fl_error x : Rabs (fl x - x) <= u * Rabs x + / 2 ^ 150.
Proof.
  destruct (error_N_FLT radix2 (-149) 24 ltac:(lia) (fun z => negb (Z.even z)) x) as [e [h [He [Hh [_ E]]]]].
  unfold fl. rewrite E. rewrite <- u_half in He.
  replace (x * (1 + e) + h - x) with (e * x + h) by ring. eapply Rle_trans; [apply Rabs_triang|]. rewrite Rabs_mult.
  apply Rplus_le_compat; [apply Rmult_le_compat_r; [apply Rabs_pos | exact He]|].
  eapply Rle_trans; [exact Hh|]. change (-149)%Z with (- (149))%Z. rewrite bpow_opp, <- IZR_Zpower by lia. simpl. lra.
Qed.

Lemma fl_error_normal x : / 2 ^ 126 <= Rabs x -> Rabs (fl x - x) <= u * Rabs x.
Proof.
  intros H. rewrite u_half. apply relative_error_N_FLT; [apply precision_positive|].
  change (-149 + 24 - 1)%Z with (- (126))%Z. rewrite bpow_opp, <- IZR_Zpower by lia. simpl. lra.
Qed.

(** A sum of two floats that is subnormal is exact. *)
Lemma fl_plus_error x y : is_float x -> is_float y -> Rabs (fl (x + y) - (x + y)) <= u * Rabs (x + y).
Proof.
  intros Hx Hy. destruct (Rle_or_lt (/ 2 ^ 126) (Rabs (x + y))) as [H|H]; [apply fl_error_normal; exact H|].
  replace (fl (x + y)) with (x + y).
  - rewrite Rminus_diag_eq, Rabs_R0 by reflexivity. pose proof u_pos. apply Rmult_le_pos; [lra | apply Rabs_pos].
  - symmetry. apply fl_id. apply FLT_format_plus_small; [apply precision_positive | exact Hx | exact Hy|].
    apply Rlt_le, (Rlt_le_trans _ _ _ H). change (24 + -149)%Z with (- (125))%Z.
    rewrite bpow_opp, <- IZR_Zpower by lia. simpl. lra.
Qed.

(** The same, relative to the rounded sum. *)
Lemma fl_plus_error_round x y : is_float x -> is_float y -> Rabs (fl (x + y) - (x + y)) <= u * Rabs (fl (x + y)).
Proof.
  intros Hx Hy.
  destruct (@FLT_plus_error_N_round_ex radix2 (-149) 24 precision_positive (fun z => negb (Z.even z)) x y Hx Hy) as [e [He E]].
  fold (fl (x + y)) in E. set (s := fl (x + y)) in *. rewrite E.
  replace (s - s * (1 + e)) with (- (e * s)) by ring. rewrite Rabs_Ropp, Rabs_mult.
  apply Rmult_le_compat_r; [apply Rabs_pos|]. rewrite u_half. exact He.
Qed.

(** Within [-1, 1] half a unit in the last place of 1. *)
Lemma fl_error_unit x : Rabs x <= 1 -> Rabs (fl x - x) <= u / 2.
Proof.
  intros [H|H].
  - eapply Rle_trans; [apply error_le_half_ulp; apply FLT_exp_valid, precision_positive|].
    assert (ulp radix2 (FLT_exp (-149) 24) x <= u); [|lra]. rewrite u_bpow.
    destruct (Req_dec x 0) as [->|Hx].
    + rewrite ulp_FLT_0. apply bpow_le. lia. apply precision_positive.
    + rewrite ulp_neq_0 by exact Hx. apply bpow_le. unfold cexp, FLT_exp.
      assert (mag radix2 x <= 0)%Z by (apply mag_le_bpow; [exact Hx | exact H]). lia.
  - assert (F : is_float x).
    { assert (F1 : is_float 1) by (apply (generic_format_FLT_bpow radix2 (-149) 24 (prec_gt_0_ := precision_positive) 0); lia).
      unfold Rabs in H. destruct (Rcase_abs x); [replace x with (- (1)) by lra; apply float_opp; exact F1 | rewrite H; exact F1]. }
    rewrite (fl_id x F), Rminus_diag_eq, Rabs_R0 by reflexivity. pose proof u_pos. lra.
Qed.

(** ** Pairs *)

Theorem pair_exact : forall a b,
  is_float a -> is_float b ->
  let s := fl (a + b) in
  let c := fl (s - a) in
  let e := fl (fl (a - fl (s - c)) + fl (b - c)) in
  a + b = s + e.
Proof.
  intros a b Ha Hb s c e. symmetry.
  apply (@TwoSum_correct (-149) 24 (fun z => negb (Z.even z)) ltac:(lia) ltac:(lia) choice_symmetric a b Ha Hb).
Qed.

Lemma fast_sum a b : is_float a -> is_float b -> Rabs b <= Rabs a ->
  fl (a + b) + fl (b - fl (fl (a + b) - a)) = a + b.
Proof.
  intros Ha Hb Hle.
  pose proof (@Fast2Sum_correct (-149) 24 (fun z => negb (Z.even z)) ltac:(lia) ltac:(lia) choice_symmetric a b Ha Hb Hle) as E.
  transitivity (fl (a + b) + fl (b + fl (a - fl (a + b)))); [|exact E].
  f_equal. f_equal. unfold Rminus at 1. f_equal. rewrite <- fl_opp. f_equal. ring.
Qed.

(** ** Sums *)

Lemma power_bounds n : (1 - u) ^ n <= (1 + u) ^ n /\ 1 <= (1 + u) ^ n /\ 0 <= (1 - u) ^ n <= 1.
Proof.
  pose proof u_pos as U. induction n as [|n [I1 [I2 I3]]]; simpl; [lra|].
  repeat split; nra.
Qed.

Lemma float_sum_float t : Forall (fun x => is_float x /\ 0 <= x) (terms t) -> is_float (float_sum t) /\ 0 <= float_sum t.
Proof.
  induction t as [x|a IHa b IHb]; intros H; simpl in *; [inversion H; assumption|].
  apply Forall_app in H. destruct H as [Ha Hb]. destruct (IHa Ha), (IHb Hb).
  split; [apply fl_float | apply fl_nonneg; lra].
Qed.

Lemma exact_sum_nonneg t : Forall (fun x => is_float x /\ 0 <= x) (terms t) -> 0 <= exact_sum t.
Proof. intros H. apply sum_nonneg. intros x Hx. rewrite Forall_forall in H. apply H. exact Hx. Qed.

Lemma tree_error t h : Forall (fun x => is_float x /\ 0 <= x) (terms t) -> (depth t <= h)%nat ->
  (1 - u) ^ h * exact_sum t <= float_sum t <= (1 + u) ^ h * exact_sum t.
Proof.
  revert h. induction t as [x|a IHa b IHb]; intros h H Hh.
  - pose proof (exact_sum_nonneg _ H) as N. unfold exact_sum in *. simpl in *.
    destruct (power_bounds h) as [_ [P1 P2]]. split; nra.
  - simpl in H. apply Forall_app in H. destruct H as [Ha Hb]. simpl in Hh. destruct h as [|h]; [lia|].
    destruct (float_sum_float a Ha) as [Fa Na]. destruct (float_sum_float b Hb) as [Fb Nb].
    specialize (IHa h Ha ltac:(lia)). specialize (IHb h Hb ltac:(lia)).
    assert (E : exact_sum (Node a b) = exact_sum a + exact_sum b) by (unfold exact_sum; simpl; apply sum_app).
    rewrite E. cbn [float_sum]. pose proof (fl_plus_error _ _ Fa Fb) as R. rewrite (Rabs_pos_eq (float_sum a + _)) in R by lra.
    apply Rabs_le_inv in R. pose proof u_pos as U. cbn [pow]. split.
    + apply Rle_trans with ((1 - u) * (float_sum a + float_sum b)); [|lra].
      rewrite Rmult_assoc. apply Rmult_le_compat_l; lra.
    + apply Rle_trans with ((1 + u) * (float_sum a + float_sum b)); [lra|].
      rewrite Rmult_assoc. apply Rmult_le_compat_l; lra.
Qed.

(** One step: what an addition rounds away is in the error, exactly; only the correction of the term loses something. *)
Lemma compensated_step s c x :
  is_float s -> is_float c -> is_float x -> 0 <= s -> 0 <= x -> Rabs c <= u * s ->
  let next := add_compensated (s, c) x in
  is_float (fst next) /\ is_float (snd next) /\ 0 <= fst next /\ Rabs (snd next) <= u * fst next /\
  Rabs (fst next + snd next - (s + c + x)) <= u * x + u * u * s.
Proof.
  intros Fs Fc Fx Hs Hx Hc next. pose proof u_pos as U.
  set (y := fl (x + c)). assert (Fy : is_float y) by apply fl_float.
  set (a := Rmax s y). set (b := Rmin s y).
  assert (AB : a + b = s + y /\ is_float a /\ is_float b).
  { unfold a, b, Rmax, Rmin. destruct (Rle_dec s y); repeat split; try assumption; ring. }
  destruct AB as [AB [Fa Fb]].
  assert (Hc' := Hc). apply Rabs_le_inv in Hc'.
  assert (Hy : - (u * s) <= y).
  { apply Rle_trans with c; [lra|]. rewrite <- (fl_id c Fc). apply fl_le. lra. }
  assert (Hab : Rabs b <= Rabs a).
  { unfold a, b, Rmax, Rmin. destruct (Rle_dec s y).
    - rewrite !Rabs_pos_eq; lra.
    - rewrite (Rabs_pos_eq s) by exact Hs. apply Rabs_le. split; nra. }
  assert (next_eq : next = (fl (a + b), fl (b - fl (fl (a + b) - a)))) by reflexivity.
  rewrite next_eq. cbn [fst snd].
  pose proof (fast_sum a b Fa Fb Hab) as E.
  pose proof (fl_plus_error_round a b Fa Fb) as R.
  assert (N : 0 <= fl (a + b)) by (apply fl_nonneg; rewrite AB; nra).
  split; [apply fl_float|]. split; [apply fl_float|]. split; [exact N|]. split.
  - replace (fl (b - fl (fl (a + b) - a))) with (- (fl (a + b) - (a + b))) by lra. rewrite Rabs_Ropp.
    rewrite (Rabs_pos_eq (fl (a + b))) in R by exact N. exact R.
  - rewrite E, AB. replace (s + y - (s + c + x)) with (y - (x + c)) by ring.
    eapply Rle_trans; [apply (fl_plus_error x c Fx Fc)|].
    assert (Rabs (x + c) <= x + u * s).
    { eapply Rle_trans; [apply Rabs_triang|]. rewrite (Rabs_pos_eq x) by exact Hx. lra. }
    nra.
Qed.

(** After k of m terms; the totals stay below a multiple of the sum of all. *)
Lemma compensated_run xs : forall s c done k m all,
  Forall (fun x => is_float x /\ 0 <= x) xs ->
  is_float s -> is_float c -> 0 <= s -> Rabs c <= u * s -> 0 <= done -> 0 <= k ->
  u + m * (u * u) < 1 -> k + INR (length xs) <= m -> done + sum (fun x => x) xs <= all ->
  let K := (1 + u) / (1 - u - m * (u * u)) in
  Rabs (s + c - done) <= u * done + k * (u * u) * (K * all) ->
  let final := fold_left add_compensated xs (s, c) in
  is_float (fst final) /\ is_float (snd final) /\ 0 <= fst final /\ Rabs (snd final) <= u * fst final /\
  Rabs (fst final + snd final - (done + sum (fun x => x) xs))
    <= u * (done + sum (fun x => x) xs) + (k + INR (length xs)) * (u * u) * (K * all).
Proof.
  induction xs as [|x xs IH]; intros s c done k m all Hall Fs Fc Hs Hc Hdone Hk Hm Hlen Hsum K Hinv final.
  - unfold final. simpl. rewrite !Rplus_0_r. repeat split; assumption.
  - inversion Hall as [|x' xs' [Fx Hx] Hxs]; subst. cbn [sum length] in *. rewrite S_INR in Hlen.
    assert (Hn : 0 <= INR (length xs)) by apply pos_INR.
    assert (Hrest : 0 <= sum (fun x => x) xs).
    { apply sum_nonneg. intros y Hy. rewrite Forall_forall in Hxs. apply Hxs. exact Hy. }
    pose proof u_pos as U.
    assert (Hden : 0 < 1 - u - m * (u * u)) by lra.
    assert (HK : K * (1 - u - m * (u * u)) = 1 + u) by (unfold K; field; lra).
    assert (HK0 : 0 < K) by (unfold K; apply Rdiv_lt_0_compat; lra).
    assert (Hsall : s <= K * all).
    { apply Rabs_le_inv in Hinv. apply Rabs_le_inv in Hc.
      assert (H1 : (1 - u) * s <= (1 + u) * all + m * (u * u) * (K * all)).
      { assert (k * (u * u) * (K * all) <= m * (u * u) * (K * all)).
        { apply Rmult_le_compat_r; [apply Rmult_le_pos; lra|]. apply Rmult_le_compat_r; nra. }
        nra. }
      assert (H2 : (1 + u) * all + m * (u * u) * (K * all) = (1 - u) * (K * all)).
      { rewrite <- HK. ring. }
      rewrite H2 in H1. apply Rmult_le_reg_l with (1 - u); lra. }
    pose proof (compensated_step s c x Fs Fc Fx Hs Hx Hc) as St. cbv zeta in St.
    unfold final. cbn [fold_left]. destruct (add_compensated (s, c) x) as [s' c'] eqn:En. cbn [fst snd] in St.
    destruct St as [Fs' [Fc' [Hs' [Hc' Hd]]]].
    assert (Hinv' : Rabs (s' + c' - (done + x)) <= u * (done + x) + (k + 1) * (u * u) * (K * all)).
    { replace (s' + c' - (done + x)) with ((s' + c' - (s + c + x)) + (s + c - done)) by ring.
      eapply Rle_trans; [apply Rabs_triang|].
      assert (u * u * s <= u * u * (K * all)) by (apply Rmult_le_compat_l; [nra | exact Hsall]). lra. }
    specialize (IH s' c' (done + x) (k + 1) m all Hxs Fs' Fc' Hs' Hc' ltac:(lra) ltac:(lra) Hm ltac:(lra) ltac:(lra) Hinv').
    cbv zeta in IH. fold K in IH. rewrite S_INR.
    replace (done + (x + sum (fun x0 => x0) xs)) with (done + x + sum (fun x0 => x0) xs) by ring.
    replace (k + (INR (length xs) + 1)) with (k + 1 + INR (length xs)) by ring. exact IH.
Qed.

Lemma power_sum n w : 0 <= w -> 2 <= (1 + u) ^ n * (1 + w) + (1 - u) ^ n * (1 - w).
Proof.
  intros Hw. pose proof u_pos as U. destruct (power_bounds n) as [P _].
  assert (A : 1 + INR n * u <= (1 + u) ^ n /\ 1 - INR n * u <= (1 - u) ^ n).
  { clear P. induction n as [|n [I1 I2]]; [simpl; lra|]. rewrite S_INR. cbn [pow]. pose proof (pos_INR n).
    assert (0 <= INR n * u) by (apply Rmult_le_pos; lra). split; nra. }
  nra.
Qed.

Lemma power_quadratic n : INR n * u <= / 4 -> (1 + u) ^ n <= 1 + INR n * u + 6 / 10 * (INR n * u * (INR n * u)).
Proof.
  pose proof u_pos as U. induction n as [|n IH]; [simpl; lra|]. rewrite S_INR. intros H. pose proof (pos_INR n).
  set (y := INR n * u) in *. assert (Hy : 0 <= y) by (unfold y; apply Rmult_le_pos; lra).
  assert (E : (INR n + 1) * u = y + u) by (unfold y; ring). rewrite E in *. specialize (IH ltac:(lra)). cbn [pow].
  assert (y * y * u <= / 4 * (y * u)) by nra. nra.
Qed.

Theorem compensated_sum : forall tiles h,
  Forall (fun t => (depth t <= h)%nat /\ Forall (fun x => is_float x /\ 0 <= x) (terms t)) tiles ->
  let m := INR (length tiles) in
  let w := u + (1 + u) * m * (u * u) / (1 - u - m * (u * u)) in
  let exact := sum exact_sum tiles in
  let computed := compensated (map float_sum tiles) in
  u + m * (u * u) < 1 ->
  Rabs (computed - exact) <= ((1 + u) ^ (h + 1) * (1 + w) - 1) * exact /\
  (m <= 2 ^ 22 -> (h <= 4096)%nat -> (1 + u) ^ (h + 1) * (1 + w) - 1 <= (INR h + 3) * u).
Proof.
  intros tiles h Hall m w exact computed Hm. pose proof u_pos as U.
  assert (Hm0 : 0 <= m) by apply pos_INR.
  assert (Hden : 0 < 1 - u - m * (u * u)) by lra.
  set (K := (1 + u) / (1 - u - m * (u * u))).
  assert (HK : 0 < K) by (unfold K; apply Rdiv_lt_0_compat; lra).
  assert (Hw : w = u + m * (u * u) * K) by (unfold w, K; field; lra).
  assert (Hmuu : 0 <= m * (u * u)) by (apply Rmult_le_pos; nra).
  assert (Hw0 : 0 <= w) by (rewrite Hw; nra).
  split.
  - set (xs := map float_sum tiles) in *.
    assert (Hxs : Forall (fun x => is_float x /\ 0 <= x) xs).
    { unfold xs. apply Forall_map. eapply Forall_impl; [|exact Hall]. intros t [_ H]. apply float_sum_float. exact H. }
    set (X := sum (fun x => x) xs).
    assert (HX : 0 <= X) by (apply sum_nonneg; intros x Hx; rewrite Forall_forall in Hxs; apply Hxs; exact Hx).
    assert (Hlen : INR (length xs) = m) by (unfold xs, m; rewrite map_length; reflexivity).
    assert (Hex : 0 <= exact).
    { apply sum_nonneg. intros t Ht. rewrite Forall_forall in Hall. apply exact_sum_nonneg. apply (Hall t Ht). }
    assert (HXe : (1 - u) ^ h * exact <= X <= (1 + u) ^ h * exact).
    { unfold X, xs, exact. rewrite sum_map, <- !sum_scale. rewrite Forall_forall in Hall.
      split; apply sum_le; intros t Ht; destruct (Hall t Ht) as [Hd Ht']; apply (tree_error t h Ht' Hd). }
    destruct (compensated_run xs 0 0 0 0 m X Hxs float_0 float_0) as [Ff [Fg [N [C Hf]]]]; try lra.
    { rewrite Rabs_R0. lra. }
    { fold X. lra. }
    { rewrite Rminus_0_r, Rplus_0_r, Rabs_R0. lra. }
    fold K X in Hf. rewrite Hlen, !Rplus_0_l in Hf.
    unfold computed, compensated. set (final := fold_left add_compensated xs (0, 0)) in *.
    set (T := fst final + snd final) in *.
    assert (HT : Rabs (T - X) <= w * X) by (rewrite Hw; lra).
    pose proof (fl_plus_error _ _ Ff Fg) as HR. fold T in HR. apply Rabs_le_inv in HT.
    destruct (power_bounds h) as [P1 [P2 P3]]. pose proof (power_sum (h + 1) w Hw0) as PS.
    rewrite Nat.add_1_r in *. cbn [pow] in *.
    set (p := (1 + u) ^ h) in *. set (q := (1 - u) ^ h) in *.
    assert (Up : fl T <= (1 + u) * p * (1 + w) * exact).
    { assert (T <= (1 + w) * (p * exact)) by (assert ((1 + w) * X <= (1 + w) * (p * exact)) by (apply Rmult_le_compat_l; lra); lra).
      assert (B : Rabs T <= (1 + w) * (p * exact)).
      { apply Rabs_le. split; [|lra]. assert (0 <= (1 + w) * X) by (apply Rmult_le_pos; lra).
        assert ((1 + w) * X <= (1 + w) * (p * exact)) by (apply Rmult_le_compat_l; lra). lra. }
      apply Rabs_le_inv in HR. assert (u * Rabs T <= u * ((1 + w) * (p * exact))) by (apply Rmult_le_compat_l; lra). lra. }
    assert (Lo : (1 - u) * q * (1 - w) * exact <= fl T).
    { destruct (Rle_or_lt w 1) as [W|W].
      - assert (HT0 : (1 - w) * X <= T) by lra.
        assert (0 <= (1 - w) * X) by (apply Rmult_le_pos; lra).
        apply Rabs_le_inv in HR. rewrite (Rabs_pos_eq T) in HR by lra.
        assert ((1 - w) * (q * exact) <= (1 - w) * X) by (apply Rmult_le_compat_l; lra).
        assert ((1 - u) * ((1 - w) * (q * exact)) <= (1 - u) * T) by (apply Rmult_le_compat_l; lra). lra.
      - assert (0 <= fl T).
        { apply fl_nonneg. apply Rabs_le_inv in C. unfold T.
          assert (u * fst final <= 1 * fst final) by (apply Rmult_le_compat_r; lra). lra. }
        assert (0 <= (1 - u) * q * exact) by (apply Rmult_le_pos; [apply Rmult_le_pos |]; lra). nra. }
    apply Rabs_le. split; nra.
  - intros Hm22 Hh.
    assert (Hh' : INR h <= 4096) by (replace 4096 with (INR 4096) by (rewrite INR_IZR_INZ; reflexivity); apply le_INR; exact Hh).
    pose proof (pos_INR h) as Hh0. unfold u in *. set (v := / 2 ^ 24) in *.
    assert (V : v = / 16777216) by (unfold v; lra).
    assert (Hmv : m * (v * v) <= v / 4) by (rewrite V; lra).
    assert (HK1 : K <= 1 + 2 / 10000).
    { unfold K. apply Rmult_le_reg_r with (1 - v - m * (v * v)); [lra|].
      unfold Rdiv. rewrite Rmult_assoc, Rinv_l, Rmult_1_r by lra. rewrite V in *. lra. }
    assert (Hw1 : w <= 12501 / 10000 * v).
    { rewrite Hw. assert (m * (v * v) * K <= v / 4 * (1 + 2 / 10000)) by (apply Rmult_le_compat; lra). lra. }
    assert (PQ : (1 + v) ^ (h + 1) <= 1 + INR (h + 1) * v + 6 / 10 * (INR (h + 1) * v * (INR (h + 1) * v))).
    { apply power_quadratic. unfold u. fold v. rewrite plus_INR. simpl (INR 1). rewrite V. lra. }
    rewrite plus_INR in PQ. simpl (INR 1) in PQ. set (n := INR h + 1) in *.
    assert (Hn : 1 <= n <= 4097) by (unfold n; lra).
    assert (Hq : 6 / 10 * (n * v * (n * v)) <= 6004 / 10000 * v).
    { assert (n * n <= 4097 * 4097) by nra. rewrite V. nra. }
    assert (Hp : 0 <= (1 + v) ^ (h + 1)) by (apply pow_le; lra).
    assert ((1 + v) ^ (h + 1) * (1 + w) <= (1 + n * v + 6004 / 10000 * v) * (1 + 12501 / 10000 * v)).
    { apply Rmult_le_compat; lra. }
    replace ((INR h + 3) * v) with ((n + 2) * v) by (unfold n; ring).
    rewrite V in *. nra.
Qed.

Lemma float_min x : is_float x -> 0 < x -> / 2 ^ 149 <= x.
Proof.
  intros F H. apply Rle_trans with (ulp radix2 (FLT_exp (-149) 24) x); [|apply ulp_le_id; assumption].
  rewrite ulp_neq_0 by lra. replace (/ 2 ^ 149) with (bpow radix2 (- (149))).
  - apply bpow_le. unfold cexp, FLT_exp. lia.
  - rewrite bpow_opp, <- IZR_Zpower by lia. simpl. lra.
Qed.

(** A leaf that is a product may enter its addition unrounded, as in a fused multiply-add: it need not be a float. *)
Theorem fused_sum : forall t h,
  Forall (fun x => 0 <= x) (terms t) -> (depth t <= h)%nat ->
  0 <= exact_sum t /\
  ((h > 0)%nat -> (depth t > 0)%nat -> is_float (float_sum t) /\ 0 <= float_sum t) /\
  Rabs (float_sum t - exact_sum t)
    <= ((1 + u) ^ h - 1) * exact_sum t + (INR (length (terms t)) - 1) * ((1 + u) ^ h * / 2 ^ 150).
Proof.
  intros t h H Hh.
  assert (E0 : 0 <= exact_sum t).
  { apply sum_nonneg. intros x Hx. rewrite Forall_forall in H. apply H. exact Hx. }
  assert (N0 : forall t, Forall (fun x => 0 <= x) (terms t) -> 0 <= float_sum t).
  { clear. induction t as [x|a IHa b IHb]; intros H; simpl in *; [inversion H; assumption|].
    apply Forall_app in H. destruct H as [Ha Hb]. specialize (IHa Ha). specialize (IHb Hb). apply fl_nonneg. lra. }
  split; [exact E0|]. split.
  { intros _ Hd. split; [|apply N0; exact H]. destruct t as [x|a b]; simpl in *; [lia | apply fl_float]. }
  clear E0. revert h Hh. induction t as [x|a IHa b IHb]; intros h Hh.
  - pose proof (proj1 (Forall_forall _ _) H x (or_introl eq_refl)) as Hx. destruct (power_bounds h) as [_ [P1 _]].
    unfold exact_sum. simpl. rewrite Rplus_0_r, !Rminus_diag_eq, Rabs_R0 by reflexivity.
    assert (0 <= ((1 + u) ^ h - 1) * x) by (apply Rmult_le_pos; lra). lra.
  - simpl in H. apply Forall_app in H. destruct H as [Ha Hb]. simpl in Hh. destruct h as [|h]; [lia|].
    specialize (IHa Ha h ltac:(lia)). specialize (IHb Hb h ltac:(lia)).
    assert (E : exact_sum (Node a b) = exact_sum a + exact_sum b) by (unfold exact_sum; simpl; apply sum_app).
    assert (L : INR (length (terms (Node a b))) = INR (length (terms a)) + INR (length (terms b))).
    { simpl. rewrite app_length, plus_INR. reflexivity. }
    rewrite E, L, <- tech_pow_Rmult. cbn [float_sum]. pose proof u_pos as U. destruct (power_bounds h) as [_ [P1 _]].
    pose proof (N0 a Ha) as Na. pose proof (N0 b Hb) as Nb. set (A := float_sum a) in *. set (B := float_sum b) in *.
    set (ea := exact_sum a) in *. set (eb := exact_sum b) in *. set (g := (1 + u) ^ h) in *. set (tiny := / 2 ^ 150) in *.
    assert (T : 0 < tiny) by (unfold tiny; lra).
    pose proof (fl_error (A + B)) as Er. fold tiny in Er. rewrite (Rabs_pos_eq (A + B)) in Er by lra.
    set (n := INR (length (terms a)) - 1 + (INR (length (terms b)) - 1)) in *.
    assert (S : Rabs (A + B - (ea + eb)) <= (g - 1) * (ea + eb) + n * (g * tiny)).
    { replace (A + B - (ea + eb)) with ((A - ea) + (B - eb)) by ring. eapply Rle_trans; [apply Rabs_triang|].
      unfold n. lra. }
    assert (AB : A + B <= g * (ea + eb) + n * (g * tiny)) by (apply Rabs_le_inv in S; lra).
    assert (uAB : u * (A + B) <= u * (g * (ea + eb) + n * (g * tiny))) by (apply Rmult_le_compat_l; lra).
    assert (Tg : tiny <= (1 + u) * g * tiny).
    { rewrite <- (Rmult_1_l tiny) at 1. apply Rmult_le_compat_r; [lra|].
      apply Rle_trans with (1 * 1); [lra | apply Rmult_le_compat; lra]. }
    replace (INR (length (terms a)) + INR (length (terms b)) - 1) with (n + 1) by (unfold n; ring).
    replace (fl (A + B) - (ea + eb)) with ((fl (A + B) - (A + B)) + (A + B - (ea + eb))) by ring.
    eapply Rle_trans; [apply Rabs_triang|].
    replace (((1 + u) * g - 1) * (ea + eb) + (n + 1) * ((1 + u) * g * tiny))
      with (u * (g * (ea + eb) + n * (g * tiny)) + ((g - 1) * (ea + eb) + n * (g * tiny)) + (1 + u) * g * tiny) by ring.
    lra.
Qed.

(** ** The distance from tau *)

(** z is the product of two floats, and enters the first difference unrounded; tau is the pair of base and rest. *)
Theorem fused_gap : forall z base rest,
  is_float base -> is_float rest ->
  let tau := base + rest in
  let margin x := fl (fl (x - base) - rest) in
  (forall y, y <= z -> margin y <= margin z) /\
  Rabs (margin z - (z - tau)) <= 3 * u * Rabs (z - tau) + 2 * u * Rabs rest + / 2 ^ 148 /\
  (margin z <= 0 -> z - tau <= 2 * u * Rabs rest + / 2 ^ 148).
Proof.
  intros z base rest Fb Fr tau margin. pose proof u_pos as U. set (tiny := / 2 ^ 150).
  assert (T : / 2 ^ 148 = 4 * tiny /\ 0 < tiny) by (unfold tiny; split; lra).
  set (w := z - base). set (v := fl w). assert (Fv : is_float v) by apply fl_float.
  pose proof (fl_error w) as E1. fold v tiny in E1.
  pose proof (fl_plus_error v (- rest) Fv (float_opp _ Fr)) as E2. fold (v - rest) in E2.
  assert (Em : margin z = fl (v - rest)) by reflexivity. rewrite Em. set (g := w - rest).
  replace (z - tau) with g by (unfold g, w, tau; ring).
  pose proof (Rabs_pos w) as Aw. pose proof (Rabs_pos rest) as Ar. pose proof (Rabs_pos g) as Ag.
  assert (Ww : Rabs w <= Rabs g + Rabs rest).
  { replace w with (g + rest) by (unfold g; ring). apply Rabs_triang. }
  assert (uW : u * Rabs w <= u * (Rabs g + Rabs rest)) by (apply Rmult_le_compat_l; lra).
  split; [|split].
  - intros y Hy. unfold margin. apply fl_le. assert (fl (y - base) <= v) by (apply fl_le; unfold w; lra). lra.
  - assert (Vr : Rabs (v - rest) <= Rabs g + (u * (Rabs g + Rabs rest) + tiny)).
    { replace (v - rest) with (g + (v - w)) by (unfold g; ring). eapply Rle_trans; [apply Rabs_triang|]. lra. }
    assert (uV : u * Rabs (v - rest) <= u * (Rabs g + (u * (Rabs g + Rabs rest) + tiny))) by (apply Rmult_le_compat_l; lra).
    assert (uu : u * (u * (Rabs g + Rabs rest)) <= / 2 * (u * (Rabs g + Rabs rest))).
    { apply Rmult_le_compat_r; [apply Rmult_le_pos|]; lra. }
    assert (ug : 0 <= u * Rabs g) by (apply Rmult_le_pos; lra). assert (ur : 0 <= u * Rabs rest) by (apply Rmult_le_pos; lra).
    assert (ut : u * tiny <= tiny) by (rewrite <- (Rmult_1_l tiny) at 2; apply Rmult_le_compat_r; lra).
    replace (fl (v - rest) - g) with ((fl (v - rest) - (v - rest)) + (v - w)) by (unfold g; ring).
    eapply Rle_trans; [apply Rabs_triang|]. lra.
  - intros Hm. destruct (Rle_or_lt g 0) as [G|G].
    + assert (0 <= u * Rabs rest) by (apply Rmult_le_pos; lra). lra.
    + (* the difference rounds to rest itself *)
      assert (Hv : v <= rest).
      { apply Rnot_lt_le. intros L.
        assert (M : / 2 ^ 149 <= v - rest).
        { apply Rnot_lt_le. intros S. assert (B : Rabs (v - rest) <= / 2 ^ 126) by (rewrite Rabs_pos_eq; lra).
          assert (Ex : is_float (v - rest)).
          { apply FLT_format_plus_small; [apply precision_positive | exact Fv | apply float_opp; exact Fr|].
            eapply Rle_trans; [exact B|]. change (24 + -149)%Z with (- (125))%Z. rewrite bpow_opp, <- IZR_Zpower by lia. simpl. lra. }
          pose proof (float_min (v - rest) Ex ltac:(lra)). lra. }
        rewrite (Rabs_pos_eq (v - rest)) in E2 by lra. apply Rabs_le_inv in E2.
        assert (u * (v - rest) <= / 2 * (v - rest)) by (apply Rmult_le_compat_r; lra). lra. }
      assert (Hv' : v = rest).
      { apply Rle_antisym; [exact Hv|]. rewrite <- (fl_id rest Fr). apply fl_le. unfold g in G. lra. }
      rewrite Hv' in E1. apply Rabs_le_inv in E1. unfold g in *.
      assert (Gw : Rabs (w - rest) = w - rest) by (apply Rabs_pos_eq; lra). rewrite Gw in *.
      assert (u * (w - rest) <= / 2 * (w - rest)) by (apply Rmult_le_compat_r; lra). lra.
Qed.

(** ** The lower bound that the refinement keeps *)

Lemma power_near q e x x' :
  0 <= q <= 1 -> 0 <= e < 1 -> 0 < x -> Rabs (x' - x) <= e * x ->
  (1 - e) * pw q x <= pw q x' <= (1 + e) * pw q x.
Proof.
  intros Hq He Hx H. apply Rabs_le_inv in H.
  assert (Hx' : 0 < x') by nra.
  set (r := x' / x). assert (Hr : 1 - e <= r <= 1 + e).
  { unfold r. split; apply Rmult_le_reg_r with x; try lra; unfold Rdiv; rewrite Rmult_assoc, Rinv_l by lra; lra. }
  assert (Hr0 : 0 < r) by lra.
  assert (E : pw q x' = pw q r * pw q x).
  { rewrite <- pw_mult by lra. f_equal. unfold r. field. lra. }
  assert (Hpx : 0 < pw q x) by (apply pw_pos; exact Hx).
  assert (B : 1 - e <= pw q r <= 1 + e).
  { split.
    - destruct (Rle_or_lt 1 r) as [R1|R1].
      + assert (pw q 1 <= pw q r) by (apply pw_le; lra). rewrite pw_one in *. lra.
      + assert (C : pw (1 - q) r <= 1) by (apply Rle_trans with (pw (1 - q) 1); [apply pw_le; lra | right; apply pw_one]).
        assert (P : pw q r * pw (1 - q) r = r).
        { rewrite <- pw_plus. replace (q + (1 - q)) with 1 by ring. apply pw_1. lra. }
        pose proof (pw_nonneg q r). nra.
    - pose proof (concave_tangent q r Hq Hr0). nra. }
  rewrite E. split; apply Rmult_le_compat_r; lra.
Qed.

Lemma inexact_bound p z m tau t mass' slope' eps :
  1 <= p -> is_max m z -> is_tau p z tau -> t < m -> 0 <= eps <= 1 / 8 ->
  Rabs (mass' - mass p z t) <= eps * mass p z t -> Rabs (slope' - slope p z t) <= eps * slope p z t ->
  let root := pw (1 - / p) mass' in
  0 < mass' /\ 0 < slope' /\
  t + (mass' - root) / slope' - 2 * eps / (1 - eps) * ((mass' + root) / slope') <= tau.
Proof.
  intros Hp Hm Ht Htm He HF HG root.
  destruct (newton_norm_left p z m tau t Hp Hm Ht Htm) as [PF [PG [Left _]]]. unfold norm_step in Left.
  set (F := mass p z t) in *. set (G := slope p z t) in *. set (N := pw (1 - / p) F) in *.
  assert (Hi : 0 < / p <= 1) by (split; [apply Rinv_0_lt_compat; lra | rewrite <- Rinv_1; apply Rinv_le_contravar; lra]).
  pose proof (power_near (1 - / p) eps F mass' ltac:(lra) ltac:(lra) PF HF) as HN. fold root N in HN.
  assert (PN : 0 < N) by (apply pw_pos; exact PF).
  apply Rabs_le_inv in HF. apply Rabs_le_inv in HG.
  assert (PF' : 0 < mass') by nra. assert (PG' : 0 < slope') by nra.
  assert (PN' : 0 < root) by (apply pw_pos; exact PF').
  split; [exact PF'|]. split; [exact PG'|].
  assert (L : F - N <= (tau - t) * G).
  { assert (L' : (F - N) / G <= tau - t) by lra. apply (Rmult_le_compat_r G) in L'; [|lra].
    replace ((F - N) / G * G) with (F - N) in L' by (field; lra). exact L'. }
  (* g is the factor of the slope *)
  set (g := slope' / G). assert (Eg : slope' = g * G) by (unfold g; field; lra).
  assert (Hg : 1 - eps <= g <= 1 + eps).
  { unfold g. split; apply Rmult_le_reg_r with G; try lra; unfold Rdiv; rewrite Rmult_assoc, Rinv_l by lra; lra. }
  assert (L2 : g * (F - N) <= (tau - t) * slope') by (rewrite Eg; nra).
  assert (D : mass' - root - g * (F - N) <= 2 * eps / (1 - eps) * (mass' + root)).
  { assert (A1 : mass' - g * F <= 2 * eps / (1 - eps) * mass').
    { apply Rmult_le_reg_r with (1 - eps); [lra|].
      replace (2 * eps / (1 - eps) * mass' * (1 - eps)) with (2 * eps * mass') by (field; lra). nra. }
    assert (A2 : g * N - root <= 2 * eps / (1 - eps) * root).
    { apply Rmult_le_reg_r with (1 - eps); [lra|].
      replace (2 * eps / (1 - eps) * root * (1 - eps)) with (2 * eps * root) by (field; lra). nra. }
    lra. }
  assert (Goal' : (mass' - root) / slope' - 2 * eps / (1 - eps) * ((mass' + root) / slope') <= tau - t); [|lra].
  apply Rmult_le_reg_r with slope'; [exact PG'|].
  replace (((mass' - root) / slope' - 2 * eps / (1 - eps) * ((mass' + root) / slope')) * slope')
    with (mass' - root - 2 * eps / (1 - eps) * (mass' + root)) by (field; lra). lra.
Qed.

Lemma slope_inexact p z m tau t mass' slope' eps e :
  1 <= p -> is_max m z -> is_tau p z tau -> t < m -> 0 <= eps <= 1 / 8 -> 0 <= e <= 1 / 8 ->
  Rabs (mass' - mass p z t) <= eps * mass p z t -> Rabs (slope' - slope p z t) <= (eps + e) * slope p z t ->
  let root := pw (1 - / p) mass' in
  let step := (mass' - root) / slope' in
  0 < mass' /\ 0 < slope' /\
  t + step - (2 * eps / (1 - eps) * (1 + 8 / 7 * e) * ((mass' + root) / slope') + 8 / 7 * e * Rabs step) <= tau.
Proof.
  intros Hp Hm Ht Htm He He' HF HG root step.
  destruct (newton_norm_left p z m tau t Hp Hm Ht Htm) as [_ [PG _]]. set (G := slope p z t) in *.
  apply Rabs_le_inv in HG.
  assert (LG : 3 / 4 * G <= slope').
  { assert ((eps + e) * G <= 1 / 4 * G) by (apply Rmult_le_compat_r; lra). lra. }
  (* a slope within eps of the exact one, next to the one that is there *)
  set (near := Rmax ((1 - eps) * G) (Rmin slope' ((1 + eps) * G))).
  assert (eG : 0 <= eps * G) by (apply Rmult_le_pos; lra). assert (eG' : 0 <= e * G) by (apply Rmult_le_pos; lra).
  assert (eG8 : eps * G <= 1 / 8 * G) by (apply Rmult_le_compat_r; lra).
  assert (N1 : Rabs (near - G) <= eps * G).
  { apply Rabs_le. unfold near, Rmax, Rmin. destruct (Rle_dec slope' ((1 + eps) * G));
      [destruct (Rle_dec ((1 - eps) * G) slope') | destruct (Rle_dec ((1 - eps) * G) ((1 + eps) * G))]; split; lra. }
  assert (N2 : Rabs (slope' - near) <= e * G).
  { apply Rabs_le. unfold near, Rmax, Rmin. destruct (Rle_dec slope' ((1 + eps) * G));
      [destruct (Rle_dec ((1 - eps) * G) slope') | destruct (Rle_dec ((1 - eps) * G) ((1 + eps) * G))]; split; lra. }
  destruct (inexact_bound p z m tau t mass' near eps Hp Hm Ht Htm He HF N1) as [PF [Pn B]]. fold root in B.
  assert (PN : 0 < root) by (apply pw_pos; exact PF).
  apply Rabs_le_inv in N1. assert (Ln : 7 / 8 * G <= near) by lra. apply Rabs_le_inv in N2.
  set (q := slope' / near). assert (Eq : slope' = q * near) by (unfold q; field; lra).
  assert (Hq : 1 - 8 / 7 * e <= q <= 1 + 8 / 7 * e).
  { assert (8 / 7 * e * (7 / 8 * G) <= 8 / 7 * e * near) by (apply Rmult_le_compat_l; lra).
    unfold q. split; apply Rmult_le_reg_r with near; try lra; replace (slope' / near * near) with slope' by (field; lra); lra. }
  assert (Ps : 0 < slope') by lra.
  assert (S1 : (mass' - root) / near = q * step) by (unfold step; rewrite Eq; field; split; [lra|]; lra).
  set (size := (mass' + root) / slope').
  assert (S2 : (mass' + root) / near = q * size) by (unfold size; rewrite Eq; field; split; [lra|]; lra).
  rewrite S1, S2 in B.
  assert (P0 : 0 <= size) by (apply Rmult_le_pos; [lra | left; apply Rinv_0_lt_compat; exact Ps]).
  assert (A1 : step - 8 / 7 * e * Rabs step <= q * step).
  { assert (D : Rabs ((1 - q) * step) <= 8 / 7 * e * Rabs step).
    { rewrite Rabs_mult. apply Rmult_le_compat_r; [apply Rabs_pos|]. apply Rabs_le. lra. }
    apply Rabs_le_inv in D. lra. }
  assert (A2 : 2 * eps / (1 - eps) * (q * size) <= 2 * eps / (1 - eps) * (1 + 8 / 7 * e) * size).
  { rewrite Rmult_assoc. apply Rmult_le_compat_l; [|apply Rmult_le_compat_r; lra].
    apply Rmult_le_pos; [lra | left; apply Rinv_0_lt_compat; lra]. }
  split; [exact PF|]. split; [exact Ps|]. lra.
Qed.

(** The slope is a plain sum over tiles, and may be off by [e] more: then that share of the step is taken off, twice. *)
Theorem slope_slack : forall p z m tau t mass' slope' eps e,
  1 <= p -> is_max m z -> is_tau p z tau -> t < m -> 0 <= eps <= 1 / 8 -> 0 <= e <= 1 / 8 ->
  Rabs (mass' - mass p z t) <= eps * mass p z t -> Rabs (slope' - slope p z t) <= (eps + e) * slope p z t ->
  let root := pw (1 - / p) mass' in
  let step := (mass' - root) / slope' in
  t + step - (4 * eps * ((mass' + root) / slope') + 2 * e * Rabs step) <= tau.
Proof.
  intros p z m tau t mass' slope' eps e Hp Hm Ht Htm He He' HF HG root step.
  destruct (slope_inexact p z m tau t mass' slope' eps e Hp Hm Ht Htm He He' HF HG) as [PF [PG B]]. fold root in B. fold step in B.
  assert (PN : 0 < root) by (apply pw_pos; exact PF).
  set (size := (mass' + root) / slope') in *.
  assert (P0 : 0 <= size) by (apply Rmult_le_pos; [lra | left; apply Rinv_0_lt_compat; exact PG]).
  assert (A : 2 * eps / (1 - eps) * (1 + 8 / 7 * e) * size <= 4 * eps * size).
  { apply Rmult_le_compat_r; [exact P0|]. apply Rmult_le_reg_r with (1 - eps); [lra|].
    replace (2 * eps / (1 - eps) * (1 + 8 / 7 * e) * (1 - eps)) with (eps * (2 * (1 + 8 / 7 * e))) by (field; lra).
    replace (4 * eps * (1 - eps)) with (eps * (4 * (1 - eps))) by ring. apply Rmult_le_compat_l; lra. }
  assert (0 <= e * Rabs step) by (apply Rmult_le_pos; [lra | apply Rabs_pos]). lra.
Qed.

Lemma root_min p F : p = 1 \/ p = 2 -> is_float F -> 0 < F -> / 2 ^ 75 <= pw (1 - / p) F.
Proof.
  intros Hp FF PF. pose proof (float_min F FF PF) as Min. destruct Hp as [->| ->].
  - replace (1 - / 1) with 0 by field. rewrite pw_0 by exact PF. lra.
  - assert (E : pw (1 - / 2) F * pw (1 - / 2) F = F).
    { rewrite <- pw_plus. replace (1 - / 2 + (1 - / 2)) with 1 by field. apply pw_1. lra. }
    pose proof (pw_nonneg (1 - / 2) F). apply Rnot_lt_le. intros L.
    assert (pw (1 - / 2) F * pw (1 - / 2) F <= / 2 ^ 75 * / 2 ^ 75) by (apply Rmult_le_compat; lra).
    lra.
Qed.

Lemma small_products v k : 0 < v <= / 16777216 -> v <= k <= 4 * v ->
  k + v * (1 + k) + k * ((1 + v) * (1 + k)) <= 21 / 10 * k + 11 / 10 * v /\
  (1 + k) * ((1 + v) * (1 + k)) <= 101 / 100 /\
  1 - 2 * v - 2 * k <= (1 - k) * ((1 - v) * ((1 - v) * (1 - k))) /\
  (1 + k) * ((1 + v) * ((1 + v) * (1 + k))) <= 41 / 40.
Proof.
  intros Hv Hk.
  assert (Hkv : 0 <= k * v) by (apply Rmult_le_pos; lra).
  assert (Hkv' : k * v <= v / 1000) by (replace (v / 1000) with (/ 1000 * v) by field; apply Rmult_le_compat_r; lra).
  assert (Hkk : k * k <= k / 1000) by (replace (k / 1000) with (/ 1000 * k) by field; apply Rmult_le_compat_r; lra).
  set (a := k + v - k * v).
  assert (E : (1 + v) * (1 + k) <= 1001 / 1000) by lra.
  assert (E0 : 0 <= (1 + v) * (1 + k)) by (apply Rmult_le_pos; lra).
  assert (EK : (1 + k) * ((1 + v) * (1 + k)) <= 1001 / 1000 * (1001 / 1000)) by (apply Rmult_le_compat; lra).
  assert (EV : (1 + v) * ((1 + v) * (1 + k)) <= 1001 / 1000 * (1001 / 1000)) by (apply Rmult_le_compat; lra).
  assert (EV0 : 0 <= (1 + v) * ((1 + v) * (1 + k))) by (apply Rmult_le_pos; lra).
  assert (KE : k * ((1 + v) * (1 + k)) <= k * (1001 / 1000)) by (apply Rmult_le_compat_l; lra).
  split; [lra|]. split; [lra|]. split.
  - replace ((1 - k) * ((1 - v) * ((1 - v) * (1 - k)))) with ((1 - a) * (1 - a)) by (unfold a; ring).
    assert (0 <= a * a) by apply Rle_0_sqr. unfold a in *. lra.
  - apply Rle_trans with (1001 / 1000 * (1001 / 1000 * (1001 / 1000))); [|lra]. apply Rmult_le_compat; lra.
Qed.

(** Step and slack as computed, with operations off by at most k from their exact results. *)
Lemma computed_step p mass' slope' eps root' k tiny step slack :
  p = 1 \/ p = 2 -> is_float mass' -> 0 < mass' -> 0 < slope' -> 2 * u <= eps <= / 32 ->
  u <= k <= 4 * u -> 0 <= tiny ->
  let root := pw (1 - / p) mass' in
  is_float root' -> Rabs (root' - root) <= k * root ->
  Rabs (step - fl (mass' - root') / slope') <= k * Rabs (fl (mass' - root') / slope') + tiny ->
  Rabs (slack - fl (4 * eps * fl (mass' + root')) / slope')
    <= k * Rabs (fl (4 * eps * fl (mass' + root')) / slope') + tiny ->
  let scale := (mass' + root) / slope' in
  0 < scale /\
  step <= (mass' - root) / slope' + (21 / 10 * k + 11 / 10 * u) * scale + tiny /\
  - (101 / 100 * scale + tiny) <= step <= 101 / 100 * scale + tiny /\
  4 * eps * scale - (k + u) / 4 * scale - tiny <= slack <= 41 / 10 * eps * scale + tiny.
Proof.
  intros Hp FF PF PG He Hk Htiny root Froot Hroot Hstep Hslack scale. pose proof u_pos as U.
  assert (PN : 0 < root) by (apply pw_pos; exact PF).
  pose proof (root_min p mass' Hp FF PF) as RN. fold root in RN.
  set (A := mass' + root) in *. assert (PA : 0 < A) by (unfold A; lra).
  assert (Hi : 0 < / slope') by (apply Rinv_0_lt_compat; exact PG).
  assert (PS : 0 < scale) by (apply Rmult_lt_0_compat; assumption).
  apply Rabs_le_inv in Hroot.
  (* numerator *)
  set (d := fl (mass' - root')) in *.
  assert (Hd : Rabs (d - (mass' - root')) <= u * Rabs (mass' - root')).
  { unfold d, Rminus. apply fl_plus_error; [exact FF | apply float_opp; exact Froot]. }
  assert (Hroot0 : 0 <= root') by nra.
  assert (Habs : Rabs (mass' - root') <= (1 + k) * A).
  { unfold A. apply Rabs_le. split; nra. }
  apply Rabs_le_inv in Hd.
  assert (HuA : u * Rabs (mass' - root') <= u * ((1 + k) * A)) by (apply Rmult_le_compat_l; lra).
  assert (HkA : k * root <= k * A) by (apply Rmult_le_compat_l; unfold A; lra).
  assert (Hd1 : d <= mass' - root + (k + u * (1 + k)) * A) by lra.
  assert (Hdabs : Rabs d <= (1 + u) * (1 + k) * A).
  { apply Rabs_le_inv in Habs. apply Rabs_le. split; nra. }
  set (q := d / slope') in *.
  assert (Hq : Rabs q <= (1 + u) * (1 + k) * scale).
  { unfold q, Rdiv. rewrite Rabs_mult, (Rabs_pos_eq (/ slope')) by lra. unfold scale, Rdiv. rewrite <- Rmult_assoc.
    apply Rmult_le_compat_r; lra. }
  assert (Hq1 : q <= (mass' - root) / slope' + (k + u * (1 + k)) * scale).
  { unfold q, scale, Rdiv. fold A. apply (Rmult_le_compat_r (/ slope')) in Hd1; lra. }
  assert (HkQ : k * Rabs q <= k * ((1 + u) * (1 + k) * scale)) by (apply Rmult_le_compat_l; lra).
  apply Rabs_le_inv in Hstep.
  destruct (small_products u k U Hk) as [K1 [K2 [K3 K4]]].
  assert (K1s : (k + u * (1 + k) + k * ((1 + u) * (1 + k))) * scale <= (21 / 10 * k + 11 / 10 * u) * scale)
    by (apply Rmult_le_compat_r; lra).
  assert (K2s : (1 + k) * ((1 + u) * (1 + k)) * scale <= 101 / 100 * scale) by (apply Rmult_le_compat_r; lra).
  split; [exact PS|]. split; [lra|]. split.
  { assert (Hq' := Hq). apply Rabs_le_inv in Hq'. split; lra. }
  (* slack *)
  set (s1 := fl (mass' + root')) in *.
  assert (Hs1 : Rabs (s1 - (mass' + root')) <= u * Rabs (mass' + root')) by (apply fl_plus_error; assumption).
  rewrite (Rabs_pos_eq (mass' + root')) in Hs1 by lra. apply Rabs_le_inv in Hs1.
  assert (S1 : (1 - u) * (1 - k) * A <= s1 <= (1 + u) * (1 + k) * A).
  { assert (0 <= k * mass') by (apply Rmult_le_pos; lra).
    assert (B1 : (1 - k) * A <= mass' + root') by (unfold A; lra).
    assert (B2 : mass' + root' <= (1 + k) * A) by (unfold A; lra).
    apply (Rmult_le_compat_l (1 - u)) in B1; [|lra]. apply (Rmult_le_compat_l (1 + u)) in B2; [|lra]. split; lra. }
  assert (S1' : / 2 ^ 76 <= s1).
  { assert (/ 2 ^ 75 <= A) by (unfold A; lra). assert (/ 2 <= (1 - u) * (1 - k)).
    { assert (0 <= u * k) by (apply Rmult_le_pos; lra). lra. }
    assert (/ 2 * A <= (1 - u) * (1 - k) * A) by (apply Rmult_le_compat_r; lra). lra. }
  set (s2 := fl (4 * eps * s1)) in *.
  assert (Hes : / 2 ^ 100 <= 4 * eps * s1).
  { assert (/ 2 ^ 24 * / 2 ^ 76 <= 4 * eps * s1) by (apply Rmult_le_compat; unfold u in *; lra). lra. }
  assert (Hs2 : Rabs (s2 - 4 * eps * s1) <= u * Rabs (4 * eps * s1)).
  { apply fl_error_normal. rewrite Rabs_pos_eq by lra. lra. }
  rewrite (Rabs_pos_eq (4 * eps * s1)) in Hs2 by lra. apply Rabs_le_inv in Hs2.
  assert (S2 : (1 - u) * ((1 - u) * (1 - k)) * (4 * eps * A) <= s2 <= (1 + u) * ((1 + u) * (1 + k)) * (4 * eps * A)).
  { assert (B : 4 * eps * ((1 - u) * (1 - k) * A) <= 4 * eps * s1 <= 4 * eps * ((1 + u) * (1 + k) * A))
      by (split; apply Rmult_le_compat_l; lra).
    assert (C1 : (1 - u) * (4 * eps * ((1 - u) * (1 - k) * A)) <= (1 - u) * (4 * eps * s1)) by (apply Rmult_le_compat_l; lra).
    assert (C2 : (1 + u) * (4 * eps * s1) <= (1 + u) * (4 * eps * ((1 + u) * (1 + k) * A))) by (apply Rmult_le_compat_l; lra).
    split; lra. }
  assert (P2 : 0 <= s2) by (apply fl_nonneg; lra).
  set (q2 := s2 / slope') in *.
  assert (Q2 : (1 - u) * ((1 - u) * (1 - k)) * (4 * eps * scale) <= q2 <= (1 + u) * ((1 + u) * (1 + k)) * (4 * eps * scale)).
  { unfold q2, scale, Rdiv. destruct S2 as [S2a S2b]. apply (Rmult_le_compat_r (/ slope')) in S2a; [|lra].
    apply (Rmult_le_compat_r (/ slope')) in S2b; [|lra]. split; lra. }
  assert (P3 : 0 <= q2) by (apply Rmult_le_pos; lra).
  rewrite (Rabs_pos_eq q2) in Hslack by exact P3. apply Rabs_le_inv in Hslack.
  assert (PES : 0 < 4 * eps * scale) by (apply Rmult_lt_0_compat; lra).
  assert (K3s : (1 - 2 * u - 2 * k) * (4 * eps * scale) <= (1 - k) * ((1 - u) * ((1 - u) * (1 - k))) * (4 * eps * scale))
    by (apply Rmult_le_compat_r; lra).
  assert (K4s : (1 + k) * ((1 + u) * ((1 + u) * (1 + k))) * (4 * eps * scale) <= 41 / 40 * (4 * eps * scale))
    by (apply Rmult_le_compat_r; lra).
  assert (Q3 : (1 - k) * ((1 - u) * ((1 - u) * (1 - k)) * (4 * eps * scale)) <= (1 - k) * q2) by (apply Rmult_le_compat_l; lra).
  assert (Q4 : (1 + k) * q2 <= (1 + k) * ((1 + u) * ((1 + u) * (1 + k)) * (4 * eps * scale))) by (apply Rmult_le_compat_l; lra).
  assert (E32 : eps * scale <= / 32 * scale) by (apply Rmult_le_compat_r; lra).
  assert (E33 : (2 * u + 2 * k) * (4 * (eps * scale)) <= (2 * u + 2 * k) * (4 * (/ 32 * scale))) by (apply Rmult_le_compat_l; lra).
  split; lra.
Qed.

Lemma sum_squares {A} (f : A -> R) l : (forall x, 0 <= f x) -> sum (fun x => f x * f x) l <= sum f l * sum f l.
Proof.
  intros H. induction l as [|a l IH]; simpl; [lra|]. specialize (H a) as Ha.
  assert (0 <= sum f l) by (apply sum_nonneg; intros; apply H).
  assert (0 <= f a * sum f l) by (apply Rmult_le_pos; assumption). lra.
Qed.

(** Next to the maximum no gap is above 1, and the slope is the largest of the sums. *)
Lemma sums_below_slope p z m t :
  p = 1 \/ p = 2 -> is_max m z -> m - 1 <= t -> t < m ->
  mass p z t <= slope p z t /\ pw (1 - / p) (mass p z t) <= slope p z t.
Proof.
  intros Hp Hm Hlo Htm.
  assert (HF : 0 < mass p z t) by (apply mass_pos_iff; exists m; split; [apply Hm | exact Htm]).
  split.
  - apply sum_le. intros x Hx. destruct Hm as [_ Hall]. rewrite Forall_forall in Hall. specialize (Hall x Hx).
    assert (0 <= gap x t) by apply Rmax_r. assert (gap x t <= 1) by (apply Rmax_lub; lra).
    rewrite pw_step by assumption. pose proof (pw_nonneg (p - 1) (gap x t)).
    assert (gap x t * pw (p - 1) (gap x t) <= 1 * pw (p - 1) (gap x t)) by (apply Rmult_le_compat_r; assumption). lra.
  - destruct Hp as [->| ->].
    + replace (1 - / 1) with 0 by field. rewrite pw_0 by exact HF. rewrite slope_eq. replace (1 - 1) with 0 by ring.
      apply Rle_trans with (pw 0 (m - t)); [right; symmetry; apply pw_0; lra|].
      apply (sum_le_one (fun y => pw 0 (y - t))); [intros; apply pw_nonneg | apply Hm].
    + assert (E : pw (1 - / 2) (mass 2 z t) * pw (1 - / 2) (mass 2 z t) = mass 2 z t).
      { rewrite <- pw_plus. replace (1 - / 2 + (1 - / 2)) with 1 by field. apply pw_1. lra. }
      assert (Sq : mass 2 z t <= slope 2 z t * slope 2 z t).
      { eapply Rle_trans; [|apply (sum_squares (fun x => pw (2 - 1) (gap x t))); intros; apply pw_nonneg].
        apply sum_le. intros x _. assert (0 <= gap x t) by apply Rmax_r. replace (2 - 1) with 1 by ring.
        rewrite pw_2, pw_1 by assumption. lra. }
      pose proof (slope_nonneg 2 z t). pose proof (pw_nonneg (1 - / 2) (mass 2 z t)).
      apply Rnot_lt_le. intros L.
      assert (slope 2 z t * slope 2 z t < pw (1 - / 2) (mass 2 z t) * pw (1 - / 2) (mass 2 z t))
        by (apply Rmult_le_0_lt_compat; lra). lra.
Qed.

Lemma margin eps scale : 0 <= eps <= / 32 -> 0 <= scale -> 2 * eps / (1 - eps) * scale <= 64 / 31 * (eps * scale).
Proof.
  intros He Hs. rewrite <- Rmult_assoc. apply Rmult_le_compat_r; [exact Hs|].
  apply Rmult_le_reg_r with (1 - eps); [lra|]. replace (2 * eps / (1 - eps) * (1 - eps)) with (2 * eps) by (field; lra).
  assert (0 <= eps * (/ 32 - eps)) by (apply Rmult_le_pos; lra). lra.
Qed.

(** The three additions where t and the steps are small: each errs by its own size, and the slack has room. *)
Lemma small_additions t step slack scale :
  - / 2 <= t <= / 2 -> 0 <= scale ->
  - (101 / 100 * scale + / 2 ^ 100) <= step <= 101 / 100 * scale + / 2 ^ 100 ->
  - (13 / 100 * scale + / 2 ^ 100) <= slack <= 13 / 100 * scale + / 2 ^ 100 ->
  float_bound t step slack <= t + step - slack - 4 / 10 * u + 34 / 10 * u * scale.
Proof.
  intros Ht Hs Hstep Hslack. unfold float_bound. pose proof u_pos as U.
  assert (Ustep : forall x c d, 0 <= c -> 0 <= d -> Rabs x <= c + d * scale ->
    fl x <= x + (u * c + d * (u * scale)) + / 2 ^ 150 /\ Rabs (fl x) <= 1001 / 1000 * c + 1001 / 1000 * d * scale + / 2 ^ 150).
  { intros x c d Hc Hd Hx. pose proof (fl_error x) as E.
    assert (u * Rabs x <= u * (c + d * scale)) by (apply Rmult_le_compat_l; lra).
    assert (0 <= d * scale) by (apply Rmult_le_pos; assumption).
    assert (u * (c + d * scale) <= / 1000 * (c + d * scale)) by (apply Rmult_le_compat_r; lra).
    apply Rabs_le_inv in E. apply Rabs_le_inv in Hx. split; [lra|]. apply Rabs_le. split; lra. }
  destruct (Ustep (t + step) (501 / 1000) (101 / 100)) as [E1 B1]; [lra | lra | apply Rabs_le; split; lra|].
  set (r1 := fl (t + step)) in *. apply Rabs_le_inv in B1.
  destruct (Ustep (r1 - slack) (503 / 1000) (115 / 100)) as [E2 B2]; [lra | lra | apply Rabs_le; split; lra|].
  set (r2 := fl (r1 - slack)) in *. apply Rabs_le_inv in B2.
  destruct (Ustep (r2 - / 2 ^ 23) (505 / 1000) (117 / 100)) as [E3 _]; [lra | lra | apply Rabs_le; split; lra|].
  assert (0 <= u * scale) by (apply Rmult_le_pos; lra).
  assert (T : / 2 ^ 23 = 2 * u) by (unfold u; lra).
  assert (/ 2 ^ 150 <= u / 1000) by (unfold u; lra). lra.
Qed.

(** And where all results lie in [-1, 1], or one of them, and so the last, at or below -1. *)
Lemma unit_additions t step slack tau :
  -1 <= tau -> 0 <= slack -> t + step <= 1 -> t + step - slack <= tau + / 2 ^ 100 ->
  float_bound t step slack <= tau.
Proof.
  intros Htau Hslack H1 H2. unfold float_bound. pose proof u_pos as U.
  assert (F1 : is_float (-1)).
  { replace (-1) with (- (1)) by ring. apply float_opp.
    apply (generic_format_FLT_bpow radix2 (-149) 24 (prec_gt_0_ := precision_positive) 0). lia. }
  assert (Low : forall x, x <= -1 -> fl x <= -1).
  { intros x Hx. rewrite <- (fl_id (-1) F1). apply fl_le. exact Hx. }
  assert (F1' : is_float 1) by (replace 1 with (- (-1)) by ring; apply float_opp; exact F1).
  assert (High : forall x, x <= 1 -> fl x <= 1).
  { intros x Hx. rewrite <- (fl_id 1 F1'). apply fl_le. exact Hx. }
  assert (Mid : forall x, x <= 1 -> fl x <= -1 \/ fl x <= x + u / 2).
  { intros x Hx. destruct (Rle_or_lt x (-1)) as [L|L]; [left; apply Low; exact L | right].
    assert (A : Rabs x <= 1) by (apply Rabs_le; lra). apply fl_error_unit, Rabs_le_inv in A. lra. }
  assert (P23 : 0 < / 2 ^ 23) by (unfold u in U; lra).
  set (r1 := fl (t + step)). set (r2 := fl (r1 - slack)).
  destruct (Mid (t + step) H1) as [A|A]; fold r1 in A.
  { assert (r2 <= -1) by (apply Low; lra). assert (fl (r2 - / 2 ^ 23) <= -1) by (apply Low; lra). lra. }
  assert (B1 : r1 <= 1) by (apply High; exact H1).
  destruct (Mid (r1 - slack) ltac:(lra)) as [B|B]; fold r2 in B.
  { assert (fl (r2 - / 2 ^ 23) <= -1) by (apply Low; lra). lra. }
  assert (B2 : r2 <= 1) by (apply High; lra).
  destruct (Mid (r2 - / 2 ^ 23) ltac:(lra)) as [C|C]; [lra|].
  assert (T : / 2 ^ 23 = 2 * u) by (unfold u; lra). assert (/ 2 ^ 100 <= u / 1000) by (unfold u; lra). lra.
Qed.

Theorem mask_bound_float : forall p z m tau t mass' slope' eps,
  is_max m z -> is_tau p z tau -> t < m ->
  Rabs (mass' - mass p z t) <= eps * mass p z t -> Rabs (slope' - slope p z t) <= eps * slope p z t ->
  let root := pw (1 - / p) mass' in
  (1 <= p -> 0 <= eps <= 1 / 8 ->
    t + (mass' - root) / slope' - 4 * eps * ((mass' + root) / slope') <= tau) /\
  (p = 1 \/ p = 2 -> is_float mass' -> m = 0 -> -1 <= t -> 2 * u <= eps <= / 32 ->
    let root' := fl root in
    let step := fl (fl (mass' - root') / slope') in
    let slack := fl (fl (4 * eps * fl (mass' + root')) / slope') in
    float_bound t step slack <= tau) /\
  (p = 1 \/ p = 2 -> is_float mass' -> - / 2 <= t <= / 2 -> 8 * u <= eps <= / 32 ->
    forall root' step slack,
    is_float root' -> Rabs (root' - root) <= 4 * u * root ->
    approximates step (fl (mass' - root') / slope') ->
    approximates slack (fl (4 * eps * fl (mass' + root')) / slope') ->
    float_bound t step slack <= tau).
Proof.
  intros p z m tau t mass' slope' eps Hm Ht Htm HF HG root. pose proof u_pos as U.
  split; [|split].
  - intros Hp He. destruct (inexact_bound p z m tau t mass' slope' eps Hp Hm Ht Htm He HF HG) as [PF [PG B]].
    fold root in B. assert (PN : 0 < root) by (apply pw_pos; exact PF).
    set (scale := (mass' + root) / slope') in *. assert (PS : 0 < scale) by (apply Rdiv_lt_0_compat; lra).
    assert (2 * eps / (1 - eps) * scale <= 4 * eps * scale); [|lra]. apply Rmult_le_compat_r; [lra|].
    apply Rmult_le_reg_r with (1 - eps); [lra|]. replace (2 * eps / (1 - eps) * (1 - eps)) with (2 * eps) by (field; lra).
    assert (0 <= eps * (1 / 8 - eps)) by (apply Rmult_le_pos; lra). lra.
  - intros Hp FF -> Hlo He root' step slack.
    assert (Hp1 : 1 <= p) by (destruct Hp; lra).
    destruct (inexact_bound p z 0 tau t mass' slope' eps Hp1 Hm Ht Htm ltac:(lra) HF HG) as [PF [PG B]]. fold root in B.
    pose proof (root_min p mass' Hp FF PF) as RN. fold root in RN.
    assert (PN : 0 < root) by lra.
    destruct (computed_step p mass' slope' eps root' u (/ 2 ^ 150) step slack Hp FF PF PG He ltac:(lra) ltac:(lra))
      as [PS [S1 [_ S2]]].
    { apply fl_float. }
    { fold root. unfold root'. rewrite <- (Rabs_pos_eq root) at 3 by lra. apply fl_error_normal. rewrite Rabs_pos_eq by lra. lra. }
    { apply fl_error. }
    { apply fl_error. }
    fold root in PS, S1, S2. set (scale := (mass' + root) / slope') in *.
    pose proof (margin eps scale ltac:(lra) ltac:(lra)) as Mg.
    assert (Eu : 2 * u * scale <= eps * scale) by (apply Rmult_le_compat_r; lra).
    assert (Pu : 0 <= u * scale) by (apply Rmult_le_pos; lra).
    assert (Tiny : / 2 ^ 150 + / 2 ^ 150 <= / 2 ^ 100) by lra.
    assert (Main : t + step - slack <= tau + / 2 ^ 100) by lra.
    assert (Htau : -1 <= tau <= 0).
    { pose proof (threshold_bracket p z 0 tau ltac:(lra) Hm Ht). pose proof (tau_below_max p z 0 tau Hm Ht). lra. }
    (* the scale *)
    assert (Sc : scale <= 66 / 31).
    { destruct (sums_below_slope p z 0 t Hp Hm ltac:(lra) Htm) as [L1 L2].
      destruct (newton_norm_left p z 0 tau t Hp1 Hm Ht Htm) as [QF [QG _]].
      assert (Hi : 0 < / p <= 1) by (destruct Hp as [->| ->]; lra).
      destruct (power_near (1 - / p) eps (mass p z t) mass' ltac:(lra) ltac:(lra) QF HF) as [_ L3]. fold root in L3.
      apply Rabs_le_inv in HF. apply Rabs_le_inv in HG.
      apply Rmult_le_reg_r with slope'; [exact PG|]. unfold scale, Rdiv. rewrite Rmult_assoc, Rinv_l, Rmult_1_r by lra.
      assert (L4 : (1 + eps) * pw (1 - / p) (mass p z t) <= (1 + eps) * slope p z t) by (apply Rmult_le_compat_l; lra).
      assert (L5 : (1 + eps) * mass p z t <= (1 + eps) * slope p z t) by (apply Rmult_le_compat_l; lra).
      assert (L6 : eps * slope p z t <= / 32 * slope p z t) by (apply Rmult_le_compat_r; lra). lra. }
    assert (Es : eps * scale <= / 32 * (66 / 31)) by (apply Rmult_le_compat; lra).
    apply unit_additions; try lra.
    unfold slack. apply fl_nonneg. apply Rmult_le_pos; [|left; apply Rinv_0_lt_compat; exact PG].
    apply fl_nonneg. apply Rmult_le_pos; [lra|]. apply fl_nonneg. assert (0 <= root') by (apply fl_nonneg; lra). lra.
  - intros Hp FF Htr He root' step slack Froot Hroot Hstep Hslack.
    assert (Hp1 : 1 <= p) by (destruct Hp; lra).
    destruct (inexact_bound p z m tau t mass' slope' eps Hp1 Hm Ht Htm ltac:(lra) HF HG) as [PF [PG B]]. fold root in B.
    destruct (computed_step p mass' slope' eps root' (4 * u) (/ 2 ^ 100) step slack Hp FF PF PG ltac:(lra) ltac:(lra) ltac:(lra)
      Froot Hroot Hstep Hslack) as [PS [S1 [S3 S2]]].
    fold root in PS, S1, S2, S3. set (scale := (mass' + root) / slope') in *.
    pose proof (margin eps scale ltac:(lra) ltac:(lra)) as Mg.
    assert (Eu : 8 * u * scale <= eps * scale) by (apply Rmult_le_compat_r; lra).
    assert (Es : eps * scale <= / 32 * scale) by (apply Rmult_le_compat_r; lra).
    assert (Pu : 0 <= u * scale) by (apply Rmult_le_pos; lra).
    assert (Us : u * scale <= / 1000 * scale) by (apply Rmult_le_compat_r; lra).
    pose proof (small_additions t step slack scale Htr ltac:(lra) S3 ltac:(split; lra)) as Add.
    assert (/ 2 ^ 100 <= u / 1000) by (unfold u; lra). lra.
Qed.

(** Any power and any number of tiles, given how near the step is to that of the computed sums, and that the slack makes
    up for that, for the sums, and for what the slope is off by beyond them. *)
Theorem mask_bound_any_power : forall p z m tau t mass' slope' eps e k step slack,
  1 <= p -> is_max m z -> is_tau p z tau -> t < m -> - / 2 <= t <= / 2 ->
  8 * u <= eps -> 0 <= e <= / 100 -> 0 <= k <= / 100 -> eps + k <= / 32 ->
  Rabs (mass' - mass p z t) <= eps * mass p z t -> Rabs (slope' - slope p z t) <= (eps + e) * slope p z t ->
  let root := pw (1 - / p) mass' in
  let scale := (mass' + root) / slope' in
  let exact := (mass' - root) / slope' in
  Rabs (step - exact) <= k * scale ->
  3 * (eps + k) * scale + 3 / 2 * e * Rabs exact <= slack <= 13 / 100 * scale ->
  float_bound t step slack <= tau.
Proof.
  intros p z m tau t mass' slope' eps e k step slack Hp Hm Ht Htm Hr He He' Hk Hek HF HG root scale exact
    Hstep Hslack.
  pose proof u_pos as U.
  destruct (slope_inexact p z m tau t mass' slope' eps e Hp Hm Ht Htm ltac:(lra) ltac:(lra) HF HG) as [PF [PG B]].
  fold root in B. fold scale exact in B.
  assert (PN : 0 < root) by (apply pw_pos; exact PF).
  assert (PS : 0 < scale) by (apply Rdiv_lt_0_compat; lra).
  assert (Mg : 2 * eps / (1 - eps) * (1 + 8 / 7 * e) * scale <= 21 / 10 * (eps * scale)).
  { rewrite <- Rmult_assoc. apply Rmult_le_compat_r; [lra|]. apply Rmult_le_reg_r with (1 - eps); [lra|].
    replace (2 * eps / (1 - eps) * (1 + 8 / 7 * e) * (1 - eps)) with (eps * (2 * (1 + 8 / 7 * e))) by (field; lra).
    replace (21 / 10 * eps * (1 - eps)) with (eps * (21 / 10 * (1 - eps))) by ring. apply Rmult_le_compat_l; lra. }
  assert (Size : Rabs exact <= scale).
  { unfold exact, scale, Rdiv. rewrite Rabs_mult, (Rabs_pos_eq (/ slope')) by (left; apply Rinv_0_lt_compat; exact PG).
    apply Rmult_le_compat_r; [left; apply Rinv_0_lt_compat; exact PG|]. apply Rabs_le. lra. }
  assert (ex : 0 <= e * Rabs exact) by (apply Rmult_le_pos; [lra | apply Rabs_pos]).
  apply Rabs_le_inv in Hstep. apply Rabs_le_inv in Size.
  assert (ks : k * scale <= / 100 * scale) by (apply Rmult_le_compat_r; lra).
  assert (k0 : 0 <= k * scale) by (apply Rmult_le_pos; lra).
  assert (es : 8 * u * scale <= eps * scale) by (apply Rmult_le_compat_r; lra).
  assert (e0 : 0 <= u * scale) by (apply Rmult_le_pos; lra).
  pose proof (small_additions t step slack scale Hr ltac:(lra) ltac:(split; lra) ltac:(split; lra)) as Add.
  lra.
Qed.

(** A computed mass is a certificate too, once its relative error is known. *)
Theorem computed_mass_certifies : forall p z m tau t mass' e,
  1 <= p -> is_max m z -> is_tau p z tau -> t <= m -> 0 <= e -> Rabs (mass' - mass p z t) <= e * mass p z t ->
  (1 + e <= mass' -> t <= tau) /\
  (e < 1 -> mass' <= 1 - e -> tau <= t) /\
  Rabs (t - tau) <= Rabs (mass' - 1) + e * mass p z t.
Proof.
  intros p z m tau t mass' e Hp Hm Ht Htm He H. pose proof (residual_bound p z m tau t Hp Hm Ht Htm) as R.
  pose proof (mass_nonneg p z t) as N. split; [|split].
  - intros G. apply (left_of_root p z tau t ltac:(lra) Ht). apply Rabs_le_inv in H. apply Rnot_lt_le. intros L.
    assert (e * mass p z t <= e * 1) by (apply Rmult_le_compat_l; lra). lra.
  - intros He1 G. apply (right_of_root p z tau t ltac:(lra) Ht). apply Rabs_le_inv in H. apply Rnot_lt_le. intros L.
    assert ((1 - e) * 1 < (1 - e) * mass p z t) by (apply Rmult_lt_compat_l; lra). lra.
  - replace (mass p z t - 1) with ((mass' - 1) - (mass' - mass p z t)) in R by ring.
    eapply Rle_trans; [exact R|]. unfold Rminus at 1. eapply Rle_trans; [apply Rabs_triang|]. rewrite Rabs_Ropp. lra.
Qed.
