(** Does the bound of the dense pass lie below the threshold in spite of rounding?  Binary32, fused or not. *)

From Coq Require Import Reals List Permutation ZArith Lia Lra.
From Flocq Require Import Core.
From Entmax Require Import specification power threshold histogram float.
Import ListNotations.
Open Scope R_scope.

(** ** Errors of sums and products of numbers that are not negative *)

Lemma tiny_small : 0 < / 2 ^ 100 /\ 2097152 * / 2 ^ 100 <= / 2 ^ 79.
Proof. split; lra. Qed.

Lemma near_weaken e t e' t' x y :
  0 <= y -> e <= e' -> t <= t' -> Rabs (x - y) <= e * y + t -> Rabs (x - y) <= e' * y + t'.
Proof. intros Hy He Ht H. assert (e * y <= e' * y) by (apply Rmult_le_compat_r; assumption). lra. Qed.

Lemma near_rounds e t z x y :
  rounds z x -> Rabs (x - y) <= e * y + t -> 0 <= y -> 0 <= e -> 0 <= t ->
  Rabs (z - y) <= (e + u + e * u) * y + (t * (1 + u) + / 2 ^ 100).
Proof.
  intros [Hz _] H Hy He Ht. pose proof u_pos as U.
  assert (Hx : Rabs x <= y + (e * y + t)).
  { replace x with (y + (x - y)) by ring. eapply Rle_trans; [apply Rabs_triang|]. rewrite (Rabs_pos_eq y) by exact Hy. lra. }
  assert (Hux : u * Rabs x <= u * (y + (e * y + t))) by (apply Rmult_le_compat_l; lra).
  replace (z - y) with ((z - x) + (x - y)) by ring. eapply Rle_trans; [apply Rabs_triang|]. lra.
Qed.

Lemma near_plus e t x y t' x' y' :
  Rabs (x - y) <= e * y + t -> Rabs (x' - y') <= e * y' + t' -> Rabs (x + x' - (y + y')) <= e * (y + y') + (t + t').
Proof.
  intros H H'. replace (x + x' - (y + y')) with ((x - y) + (x' - y')) by ring.
  eapply Rle_trans; [apply Rabs_triang|]. lra.
Qed.

Lemma near_mult e t x y e' t' x' y' :
  Rabs (x - y) <= e * y + t -> Rabs (x' - y') <= e' * y' + t' ->
  0 <= y -> 0 <= y' -> 0 <= e -> 0 <= e' -> 0 <= t -> 0 <= t' ->
  Rabs (x * x' - y * y') <= (e + e' + e * e') * (y * y') + (t * (y' * (1 + e') + t') + t' * (y * (1 + e))).
Proof.
  intros H H' Hy Hy' He He' Ht Ht'.
  replace (x * x' - y * y') with ((x - y) * (x' - y') + ((x - y) * y' + y * (x' - y'))) by ring.
  eapply Rle_trans; [apply Rabs_triang|]. eapply Rle_trans; [apply Rplus_le_compat_l, Rabs_triang|].
  rewrite !Rabs_mult, (Rabs_pos_eq y), (Rabs_pos_eq y') by assumption.
  assert (A : Rabs (x - y) * Rabs (x' - y') <= (e * y + t) * (e' * y' + t'))
    by (apply Rmult_le_compat; try apply Rabs_pos; assumption).
  assert (B : Rabs (x - y) * y' <= (e * y + t) * y') by (apply Rmult_le_compat_r; assumption).
  assert (C : y * Rabs (x' - y') <= y * (e' * y' + t')) by (apply Rmult_le_compat_l; assumption).
  lra.
Qed.

(** ** The sums of the scan *)

(** One bin further down: k is how many were passed before. *)
Lemma passed_step k count W F S first second width linear linear' cross square half first' second' :
  0 <= k <= 7 -> 0 <= count <= 1048576 -> 0 <= W <= 1 -> 0 <= F <= 1048576 -> 0 <= S ->
  Rabs (first - F) <= (k + 2) * (1001 / 1000 * u) * F + k * / 2 ^ 70 ->
  Rabs (second - S) <= (2 * k + 4) * (1001 / 1000 * u) * S + k * / 2 ^ 60 ->
  rounds width W -> rounds linear (count * width) -> rounds first' (first + linear) ->
  rounds linear' (count * width) -> rounds cross (2 * first * width) -> rounds square (linear' * width) ->
  rounds half (second + cross) -> rounds second' (half + square) ->
  Rabs (first' - (F + count * W)) <= (k + 1 + 2) * (1001 / 1000 * u) * (F + count * W) + (k + 1) * / 2 ^ 70 /\
  Rabs (second' - (S + 2 * F * W + count * W * W))
    <= (2 * (k + 1) + 4) * (1001 / 1000 * u) * (S + 2 * F * W + count * W * W) + (k + 1) * / 2 ^ 60.
Proof.
  intros Hk Hc HW HF HS H1 H2 Rw Rl R1 Rl' Rx Rs Rh R2. pose proof u_pos as U. destruct tiny_small as [T0 T1].
  set (tiny := / 2 ^ 100) in *.
  assert (CW : 0 <= count * W <= 1048576) by (split; [apply Rmult_le_pos; lra | apply Rle_trans with (1048576 * 1); [apply Rmult_le_compat; lra | lra]]).
  assert (FW : 0 <= 2 * F * W) by (apply Rmult_le_pos; lra).
  assert (CWW : 0 <= count * W * W) by (apply Rmult_le_pos; lra).
  set (E := (k + 2) * (1001 / 1000 * u)) in *. set (E2 := (2 * k + 4) * (1001 / 1000 * u)) in *.
  assert (HE : 2002 / 1000 * u <= E <= 9009 / 1000 * u) by (unfold E; split; [apply Rle_trans with (2 * (1001 / 1000 * u)) | apply Rle_trans with (9 * (1001 / 1000 * u))]; try lra;
      apply Rmult_le_compat_r; lra).
  assert (HE2 : E2 = 2 * E) by (unfold E2, E; ring).
  (* width *)
  assert (Nw : Rabs (width - W) <= u * W + tiny).
  { destruct Rw as [Rw _]. rewrite (Rabs_pos_eq W) in Rw by lra. exact Rw. }
  (* linear *)
  assert (Nc : Rabs (count - count) <= 0 * count + 0) by (rewrite Rminus_diag_eq, Rabs_R0 by reflexivity; lra).
  pose proof (near_mult _ _ _ _ _ _ _ _ Nc Nw ltac:(lra) ltac:(lra) ltac:(lra) ltac:(lra) ltac:(lra) ltac:(lra)) as Ncw.
  assert (Tc : tiny * count <= / 2 ^ 79) by (apply Rle_trans with (tiny * 1048576); [apply Rmult_le_compat_l; lra | lra]).
  apply (near_weaken _ _ u (/ 2 ^ 79)) in Ncw; [|lra|lra|lra].
  pose proof (near_rounds _ _ linear _ _ Rl Ncw ltac:(lra) ltac:(lra) ltac:(lra)) as Nl. fold tiny in Nl.
  apply (near_weaken _ _ (20001 / 10000 * u) (/ 2 ^ 78)) in Nl; [|lra|unfold u; lra|unfold tiny, u; lra].
  pose proof (near_rounds _ _ linear' _ _ Rl' Ncw ltac:(lra) ltac:(lra) ltac:(lra)) as Nm. fold tiny in Nm.
  apply (near_weaken _ _ (20001 / 10000 * u) (/ 2 ^ 78)) in Nm; [|lra|unfold u; lra|unfold tiny, u; lra].
  split.
  - assert (Nl' := Nl). apply (near_weaken _ _ E (/ 2 ^ 78)) in Nl'; [|lra|lra|lra].
    pose proof (near_plus _ _ _ _ _ _ _ H1 Nl') as Np.
    pose proof (near_rounds _ _ first' _ _ R1 Np ltac:(lra) ltac:(lra) ltac:(lra)) as Nf.
    apply (near_weaken _ _ ((k + 1 + 2) * (1001 / 1000 * u)) ((k + 1) * / 2 ^ 70)) in Nf; [exact Nf|lra| |].
    + replace ((k + 1 + 2) * (1001 / 1000 * u)) with (E + 1001 / 1000 * u) by (unfold E; ring).
      assert (E * u <= 9009 / 1000 * u * u) by (apply Rmult_le_compat_r; lra).
      assert (9009 / 1000 * u * u <= / 1000 * u) by (apply Rmult_le_compat_r; lra). lra.
    + fold tiny. unfold tiny, u. lra.
  - (* cross *)
    assert (H1' : Rabs (2 * first - 2 * F) <= E * (2 * F) + 2 * (k * / 2 ^ 70)).
    { replace (2 * first - 2 * F) with (2 * (first - F)) by ring. rewrite Rabs_mult, (Rabs_pos_eq 2) by lra. lra. }
    pose proof (near_mult _ _ _ _ _ _ _ _ H1' Nw ltac:(lra) ltac:(lra) ltac:(lra) ltac:(lra) ltac:(lra) ltac:(lra)) as Nx.
    assert (Ta : 2 * (k * / 2 ^ 70) * (W * (1 + u) + tiny) <= 2 * (k * / 2 ^ 70) * 2).
    { apply Rmult_le_compat_l; [lra|]. unfold tiny, u in *. lra. }
    assert (Tb : tiny * (2 * F * (1 + E)) <= tiny * 4194304).
    { apply Rmult_le_compat_l; [lra|]. assert (2 * F * (1 + E) <= 2097152 * 2) by (apply Rmult_le_compat; lra). lra. }
    assert (Eu : 0 <= E * u <= / 1000000 * u) by (split; [apply Rmult_le_pos; lra | apply Rmult_le_compat_r; lra]).
    apply (near_weaken _ _ (E + 100001 / 100000 * u) (/ 2 ^ 64)) in Nx; [|lra|lra|unfold tiny in *; lra].
    pose proof (near_rounds _ _ cross _ _ Rx Nx FW ltac:(lra) ltac:(lra)) as Nc'. fold tiny in Nc'.
    assert (Euu : (E + 100001 / 100000 * u) * u <= / 1000000 * u) by (apply Rmult_le_compat_r; lra).
    apply (near_weaken _ _ E2 (/ 2 ^ 63)) in Nc'; [|lra|lra|unfold tiny, u; lra].
    (* half *)
    pose proof (near_plus _ _ _ _ _ _ _ H2 Nc') as Np.
    pose proof (near_rounds _ _ half _ _ Rh Np ltac:(lra) ltac:(lra) ltac:(lra)) as Nh. fold tiny in Nh.
    assert (E2u : 0 <= E2 * u <= / 100000 * u) by (split; [apply Rmult_le_pos; lra | apply Rmult_le_compat_r; lra]).
    apply (near_weaken _ _ (E2 + 1001 / 1000 * u) (k * / 2 ^ 60 * (1 + u) + / 2 ^ 62)) in Nh; [|lra|lra|unfold tiny, u; lra].
    (* square *)
    pose proof (near_mult _ _ _ _ _ _ _ _ Nm Nw ltac:(lra) ltac:(lra) ltac:(lra) ltac:(lra) ltac:(lra) ltac:(lra)) as Ns.
    assert (Tc1 : / 2 ^ 78 * (W * (1 + u) + tiny) <= / 2 ^ 78 * 2).
    { apply Rmult_le_compat_l; [lra|]. unfold tiny, u in *. lra. }
    assert (Td : tiny * (count * W * (1 + 20001 / 10000 * u)) <= tiny * 2097152).
    { apply Rmult_le_compat_l; [lra|].
      assert (count * W * (1 + 20001 / 10000 * u) <= 1048576 * 2) by (apply Rmult_le_compat; lra). lra. }
    assert (uu : 20001 / 10000 * u * u <= / 1000000 * u) by (apply Rmult_le_compat_r; lra).
    apply (near_weaken _ _ (30003 / 10000 * u) (/ 2 ^ 76)) in Ns; [|lra|lra|unfold tiny in *; lra].
    pose proof (near_rounds _ _ square _ _ Rs Ns CWW ltac:(lra) ltac:(lra)) as Nq. fold tiny in Nq.
    assert (uu' : 30003 / 10000 * u * u <= / 1000000 * u) by (apply Rmult_le_compat_r; lra).
    apply (near_weaken _ _ (E2 + 1001 / 1000 * u) (/ 2 ^ 75)) in Nq; [|lra|lra|unfold tiny, u; lra].
    (* the sum *)
    assert (Kt : 0 <= k * / 2 ^ 60 * (1 + u)) by (apply Rmult_le_pos; lra).
    pose proof (near_plus _ _ _ _ _ _ _ Nh Nq) as Nt.
    pose proof (near_rounds _ _ second' _ _ R2 Nt ltac:(lra) ltac:(lra) ltac:(lra)) as Nz. fold tiny in Nz.
    assert (E3u : (E2 + 1001 / 1000 * u) * u <= / 100000 * u) by (apply Rmult_le_compat_r; lra).
    apply (near_weaken _ _ ((2 * (k + 1) + 4) * (1001 / 1000 * u)) ((k + 1) * / 2 ^ 60)) in Nz; [exact Nz|lra| |].
    + replace ((2 * (k + 1) + 4) * (1001 / 1000 * u)) with (E2 + 2002 / 1000 * u) by (unfold E2; field). lra.
    + unfold tiny, u. lra.
Qed.

(** ** What the sums say at the end of the scan *)

Lemma total_count_step edge held bins : total_count ((edge, held) :: bins) = INR held + total_count bins.
Proof. reflexivity. Qed.

Lemma total_count_nonneg bins : 0 <= total_count bins.
Proof. apply sum_nonneg. intros. apply pos_INR. Qed.

(** Sums of c * (base - w) and c * (base - w) ** 2, moved down by W. *)
Lemma sums_moved (bins : list (R * nat)) base W :
  sum (fun bin => INR (snd bin) * (base + W - fst bin)) bins
    = sum (fun bin => INR (snd bin) * (base - fst bin)) bins + total_count bins * W /\
  sum (fun bin => INR (snd bin) * ((base + W - fst bin) * (base + W - fst bin))) bins
    = sum (fun bin => INR (snd bin) * ((base - fst bin) * (base - fst bin))) bins
      + 2 * sum (fun bin => INR (snd bin) * (base - fst bin)) bins * W + total_count bins * W * W.
Proof.
  unfold total_count. induction bins as [|[w c] bins [I1 I2]]; cbn [sum fst snd]; [split; ring|].
  rewrite I1, I2. split; ring.
Qed.

Lemma passed_sums p bins base first second :
  passed p bins base first second -> (length bins <= 9)%nat -> total_count bins <= 1048576 ->
  let k := INR (length bins) - 1 in
  let F := sum (fun bin => INR (snd bin) * (base - fst bin)) bins in
  let S := sum (fun bin => INR (snd bin) * ((base - fst bin) * (base - fst bin))) bins in
  0 <= base <= 1 /\ Forall (fun bin => 0 <= fst bin <= base) bins /\ In (0, 1%nat) bins /\ 1 <= total_count bins /\ 0 <= k /\
  0 <= first /\ 0 <= second /\ (p = 1 -> first < 1) /\ (p = 2 -> second < 1) /\
  0 <= F <= 1048576 /\ 0 <= S /\
  Rabs (first - F) <= (k + 2) * (1001 / 1000 * u) * F + k * / 2 ^ 70 /\
  Rabs (second - S) <= (2 * k + 4) * (1001 / 1000 * u) * S + k * / 2 ^ 60.
Proof.
  intros H. induction H as [|bins base first second edge held width linear linear' cross square half first' second' P IH He Rw Rl R1 Rl' Rx Rs Rh R2 A1 A2].
  - intros _ _ k F S.
    assert (Ek : k = 0) by (unfold k; simpl; ring). assert (EF : F = 0) by (unfold F; simpl; ring).
    assert (ES : S = 0) by (unfold S; simpl; ring). assert (EC : total_count [(0, 1%nat)] = 1) by (unfold total_count; simpl; ring).
    rewrite Ek, EF, ES, EC, Rminus_0_r, Rabs_R0. pose proof u_pos as U.
    repeat split; try lra; [|left; reflexivity]. constructor; [simpl; lra | constructor].
  - intros Hl Hk k F S. rewrite total_count_step in Hk. pose proof (pos_INR held) as Hh. cbn [length] in Hl.
    destruct (IH ltac:(lia) ltac:(lra)) as [B0 [B1 [B2 [B3 [B4 [B5 [B6 [B7 [B8 [B9 [B10 [B11 B12]]]]]]]]]]]].
    cbv zeta in *. clear IH. set (k0 := INR (length bins) - 1) in *.
    assert (Ek : k = k0 + 1) by (unfold k, k0; cbn [length]; rewrite S_INR; ring).
    assert (Hk7 : k0 <= 7).
    { unfold k0. assert (INR (length bins) <= INR 8) by (apply le_INR; lia). simpl (INR 8) in *. lra. }
    set (W := edge - base) in *.
    set (F0 := sum (fun bin => INR (snd bin) * (base - fst bin)) bins) in *.
    set (S0 := sum (fun bin => INR (snd bin) * ((base - fst bin) * (base - fst bin))) bins) in *.
    destruct (sums_moved bins base W) as [M1 M2]. fold F0 in M1, M2. fold S0 in M2.
    replace (base + W) with edge in M1, M2 by (unfold W; ring).
    assert (EF : F = F0 + total_count bins * W) by (unfold F; cbn [sum fst snd]; rewrite M1; ring).
    assert (ES : S = S0 + 2 * F0 * W + total_count bins * W * W) by (unfold S; cbn [sum fst snd]; rewrite M2; ring).
    assert (HW : 0 <= W <= 1) by (unfold W; lra).
    destruct (passed_step k0 (total_count bins) W F0 S0 first second width linear linear' cross square half first' second')
      as [N1 N2]; try assumption; try lra.
    assert (Hall : Forall (fun bin => 0 <= fst bin <= edge) ((edge, held) :: bins)).
    { constructor; [simpl; lra|]. eapply Forall_impl; [|exact B1]. intros bin Hb. simpl in Hb. lra. }
    assert (CW : 0 <= total_count bins * W) by (apply Rmult_le_pos; lra).
    assert (P1 : 0 <= width) by (apply Rw; lra).
    assert (P2 : 0 <= linear) by (apply Rl; apply Rmult_le_pos; lra).
    assert (P2' : 0 <= linear') by (apply Rl'; apply Rmult_le_pos; lra).
    assert (P3 : 0 <= first') by (apply R1; lra).
    assert (P4 : 0 <= cross) by (apply Rx; apply Rmult_le_pos; lra).
    assert (P5 : 0 <= square) by (apply Rs; apply Rmult_le_pos; lra).
    assert (P6 : 0 <= half) by (apply Rh; lra).
    assert (P7 : 0 <= second') by (apply R2; lra).
    assert (HF : F <= 1048576).
    { apply Rle_trans with (total_count ((edge, held) :: bins)); [|rewrite total_count_step; lra].
      unfold F, total_count. apply sum_le. intros bin Hb. rewrite Forall_forall in Hall. specialize (Hall bin Hb).
      pose proof (pos_INR (snd bin)). apply Rle_trans with (INR (snd bin) * 1); [apply Rmult_le_compat_l; lra | lra]. }
    assert (FW : 0 <= F0 * W) by (apply Rmult_le_pos; lra).
    assert (CWW : 0 <= total_count bins * W * W) by (apply Rmult_le_pos; lra).
    rewrite Ek, EF, ES, total_count_step. rewrite EF in HF.
    repeat split; try assumption; try lra; try (right; assumption).
Qed.

(** ** The root below the scan *)

Lemma mass_below p bins base x :
  p = 1 \/ p = 2 -> Forall (fun bin => 0 <= fst bin <= base) bins -> 0 <= x ->
  let F := sum (fun bin => INR (snd bin) * (base - fst bin)) bins in
  let S := sum (fun bin => INR (snd bin) * ((base - fst bin) * (base - fst bin))) bins in
  mass p (row_below bins) (- (base + x))
    = if Req_EM_T p 1 then F + total_count bins * x else S + 2 * F * x + total_count bins * (x * x).
Proof.
  intros Hp Hall Hx F S. unfold row_below. rewrite counted_mass_eq. unfold counted_mass. rewrite sum_map. cbn [fst snd].
  assert (G : forall bin, In bin bins -> gap (- fst bin) (- (base + x)) = base - fst bin + x).
  { intros bin Hin. rewrite Forall_forall in Hall. specialize (Hall bin Hin). unfold gap. rewrite Rmax_left by lra. ring. }
  assert (P : forall bin, In bin bins -> 0 <= base - fst bin + x).
  { intros bin Hin. rewrite Forall_forall in Hall. specialize (Hall bin Hin). lra. }
  destruct Hp as [->| ->].
  - destruct (Req_EM_T 1 1) as [_|N]; [|congruence].
    transitivity (F + x * total_count bins); [|ring]. unfold F, total_count. rewrite <- sum_scale, <- sum_plus.
    apply sum_ext. intros bin Hin. rewrite G, pw_1 by auto. ring.
  - destruct (Req_EM_T 2 1) as [N|_]; [exfalso; lra|].
    transitivity (S + ((2 * x) * F + (x * x) * total_count bins)); [|ring].
    unfold S, F, total_count. rewrite <- !sum_scale, <- !sum_plus. apply sum_ext. intros bin Hin. rewrite G, pw_2 by auto. ring.
Qed.

Lemma quadratic_root C f rest :
  1 <= C -> 0 <= f -> 0 <= rest -> 0 < f + sqrt (f * f + C * rest) ->
  let g := rest / (f + sqrt (f * f + C * rest)) in
  0 <= g /\ C * (g * g) + 2 * f * g = rest.
Proof.
  intros HC Hf HR Hpos g. set (D := sqrt (f * f + C * rest)) in *.
  assert (CR : 0 <= C * rest) by (apply Rmult_le_pos; lra). assert (FF : 0 <= f * f) by (apply Rmult_le_pos; lra).
  assert (DD : D * D = f * f + C * rest) by (apply sqrt_sqrt; lra).
  split; [apply Rmult_le_pos; [lra | left; apply Rinv_0_lt_compat; exact Hpos]|].
  assert (Es : C * g = D - f).
  { unfold g. apply Rmult_eq_reg_r with (f + D); [|lra].
    replace (C * (rest / (f + D)) * (f + D)) with (C * rest) by (field; lra). lra. }
  replace (C * (g * g) + 2 * f * g) with (g * (C * g + 2 * f)) by ring. rewrite Es. unfold g. field. lra.
Qed.

(** The root as computed is little less than a point that has almost the mass 1. *)
Lemma root_error p bins base first second root e t :
  p = 1 \/ p = 2 -> Forall (fun bin => 0 <= fst bin <= base) bins -> 0 <= base <= 1 -> 1 <= total_count bins <= 16777216 ->
  0 <= first -> 0 <= second -> (p = 1 -> first <= 1 + 100 * u) -> 0 <= e <= 24 * u -> 0 <= t <= / 2 ^ 56 ->
  let F := sum (fun bin => INR (snd bin) * (base - fst bin)) bins in
  let S := sum (fun bin => INR (snd bin) * ((base - fst bin) * (base - fst bin))) bins in
  Rabs (first - F) <= e * F + t -> Rabs (second - S) <= e * S + t -> computed_root p (total_count bins) first second root ->
  exists r, / 2 ^ 26 <= r <= 2001 / 1000 /\ r - 11 * (u * r) - / 2 ^ 100 <= base + root /\
    1 - (e + 11 / 10 * u) <= mass p (row_below bins) (- r).
Proof.
  intros Hp B1 B0 B3 B5 B6 B7 He Ht F S N1 N2 [R1 R2]. set (C := total_count bins) in *. pose proof u_pos as U.
  destruct tiny_small as [T0 T1]. set (tiny := / 2 ^ 100) in *.
  assert (Tu : tiny <= u / 1000000) by (unfold tiny, u; lra).
  assert (T56 : / 2 ^ 56 <= u / 100000000) by (unfold u; lra).
  apply Rabs_le_inv in N1. apply Rabs_le_inv in N2.
  assert (F0 : 0 <= F).
  { apply sum_nonneg. intros bin Hin. rewrite Forall_forall in B1. specialize (B1 bin Hin).
    apply Rmult_le_pos; [apply pos_INR | lra]. }
  assert (S0 : 0 <= S).
  { apply sum_nonneg. intros bin Hin. rewrite Forall_forall in B1. specialize (B1 bin Hin).
    apply Rmult_le_pos; [apply pos_INR | apply Rmult_le_pos; lra]. }
  assert (CF : F <= C * base).
  { unfold C, total_count. rewrite Rmult_comm, <- sum_scale. apply sum_le. intros bin Hin. rewrite Forall_forall in B1.
    specialize (B1 bin Hin). pose proof (pos_INR (snd bin)). rewrite (Rmult_comm base). apply Rmult_le_compat_l; lra. }
  assert (eF : e * F <= 24 * u * F) by (apply Rmult_le_compat_r; lra).
  assert (eS : e * S <= 24 * u * S) by (apply Rmult_le_compat_r; lra).
  destruct Hp as [->| ->].
  - clear R2 N2. specialize (B7 eq_refl). destruct (R1 eq_refl) as [rest [[Hr _] Hroot]]. clear R1.
    set (x := (1 - first) / C). set (r := base + x).
    assert (Cx : C * x = 1 - first) by (unfold x; field; lra).
    assert (F3 : F <= 3).
    { apply Rnot_lt_le. intros G. assert (u * F <= / 1000 * F) by (apply Rmult_le_compat_r; lra). lra. }
    assert (uF : u * F <= u * 3) by (apply Rmult_le_compat_l; lra).
    assert (eF1 : 0 <= e * F) by (apply Rmult_le_pos; lra).
    assert (Cr : 999 / 1000 <= C * r).
    { unfold r. rewrite Rmult_plus_distr_l, Cx. lra. }
    assert (Hr0 : / 2 ^ 26 <= r).
    { apply Rnot_lt_le. intros G. assert (C * r <= C * / 2 ^ 26) by (apply Rmult_le_compat_l; lra).
      assert (C * / 2 ^ 26 <= 16777216 * / 2 ^ 26) by (apply Rmult_le_compat_r; lra). lra. }
    assert (Xr : Rabs x <= 102 / 100 * r /\ x <= 1).
    { assert (X1 : - (/ C) <= x <= / C).
      { unfold x, Rdiv. assert (0 < / C) by (apply Rinv_0_lt_compat; lra). split.
        - replace (- / C) with (-1 * / C) by ring. apply Rmult_le_compat_r; lra.
        - rewrite <- (Rmult_1_l (/ C)) at 2. apply Rmult_le_compat_r; lra. }
      assert (X2 : / C <= 102 / 100 * r).
      { apply Rmult_le_reg_l with C; [lra|]. rewrite Rinv_r by lra. lra. }
      assert (X3 : / C <= 1) by (rewrite <- Rinv_1; apply Rinv_le_contravar; lra).
      split; [apply Rabs_le; lra | lra]. }
    exists r. split; [split; [exact Hr0 | unfold r; lra]|].
    assert (Ax : 0 <= Rabs x) by apply Rabs_pos.
    assert (ux : u * Rabs x <= u * (102 / 100 * r)) by (apply Rmult_le_compat_l; lra).
    split.
    + (* the quotient *)
      unfold approximates in Hroot. fold tiny in Hr, Hroot.
      assert (Q : Rabs (rest / C - x) <= u * Rabs x + tiny).
      { replace (rest / C - x) with ((rest - (1 - first)) / C) by (unfold x; field; lra).
        unfold Rdiv. rewrite Rabs_mult, (Rabs_pos_eq (/ C)) by (left; apply Rinv_0_lt_compat; lra).
        apply Rmult_le_reg_r with C; [lra|]. rewrite Rmult_assoc, Rinv_l, Rmult_1_r by lra.
        assert (E : Rabs (1 - first) = C * Rabs x).
        { rewrite <- Cx, Rabs_mult, (Rabs_pos_eq C) by lra. reflexivity. }
        rewrite E in Hr. assert (tiny * 1 <= tiny * C) by (apply Rmult_le_compat_l; lra). lra. }
      assert (Aq : Rabs (rest / C) <= Rabs x + (u * Rabs x + tiny)).
      { replace (rest / C) with (x + (rest / C - x)) by ring. eapply Rle_trans; [apply Rabs_triang|]. lra. }
      assert (uq : u * Rabs (rest / C) <= u * (Rabs x + (u * Rabs x + tiny))) by (apply Rmult_le_compat_l; lra).
      assert (uux : u * (u * Rabs x) <= / 1000 * (u * Rabs x)) by (apply Rmult_le_compat_r; [apply Rmult_le_pos|]; lra).
      assert (utr : tiny <= u * r / 100).
      { assert (u * / 2 ^ 26 <= u * r) by (apply Rmult_le_compat_l; lra). unfold tiny. unfold u in *. lra. }
      assert (ut : u * tiny <= / 100 * tiny) by (apply Rmult_le_compat_r; lra).
      apply Rabs_le_inv in Hroot. apply Rabs_le_inv in Q. unfold r in *. lra.
    + apply Rle_trans with (F + C * x).
      * rewrite Cx. assert (F1 : F <= 1 + 200 * u) by lra.
        assert (e * F <= e * (1 + 200 * u)) by (apply Rmult_le_compat_l; lra).
        assert (u * e <= / 10000 * u) by (rewrite (Rmult_comm u e); apply Rmult_le_compat_r; lra). lra.
      * unfold row_below. rewrite counted_mass_eq. unfold counted_mass. rewrite sum_map. cbn [fst snd].
        apply Rle_trans with (sum (fun bin => INR (snd bin) * (base - fst bin) + x * INR (snd bin)) bins).
        { right. rewrite sum_plus, sum_scale. unfold F, C, total_count. ring. }
        apply sum_le. intros bin Hin. pose proof (pos_INR (snd bin)).
        replace (INR (snd bin) * (base - fst bin) + x * INR (snd bin)) with (INR (snd bin) * (base - fst bin + x)) by ring.
        apply Rmult_le_compat_l; [assumption|]. rewrite pw_1 by apply Rmax_r. unfold gap.
        eapply Rle_trans; [|apply Rmax_l]. unfold r. lra.
  - clear R1 B7.
    destruct (R2 eq_refl) as [rest [square [product [radicand [radix [bottom [[Hr Hr0] [[Hs Hs0] [[Hp Hp0] [[Ha Ha0] [Hx [[Hb Hb0] Hroot]]]]]]]]]]]]. clear R2.
    unfold approximates in Hx, Hroot. fold tiny in Hr, Hs, Hp, Ha, Hx, Hb, Hroot.
    set (left := Rmax (1 - second) 0) in *. assert (Hleft : 0 <= left /\ 1 - second <= left <= 1).
    { unfold left. split; [apply Rmax_r|]. split; [apply Rmax_l | apply Rmax_lub; lra]. }
    rewrite (Rabs_pos_eq left) in Hr by lra. apply Rabs_le_inv in Hr. specialize (Hr0 ltac:(lra)).
    assert (Hur : u * left <= u) by (rewrite <- (Rmult_1_r u) at 2; apply Rmult_le_compat_l; lra).
    assert (FF : 0 <= first * first) by (apply Rmult_le_pos; lra).
    assert (CR : 0 <= C * rest) by (apply Rmult_le_pos; lra).
    rewrite (Rabs_pos_eq (first * first)) in Hs by exact FF. rewrite (Rabs_pos_eq (C * rest)) in Hp by exact CR.
    specialize (Hs0 FF). specialize (Hp0 CR). rewrite (Rabs_pos_eq (square + product)) in Ha by lra.
    specialize (Ha0 ltac:(lra)). apply Rabs_le_inv in Hs. apply Rabs_le_inv in Hp. apply Rabs_le_inv in Ha.
    set (Q := first * first + C * rest) in *. set (D := sqrt Q).
    assert (HQ : 0 <= Q) by (unfold Q; lra). assert (D0 : 0 <= D) by apply sqrt_pos.
    assert (DD : D * D = Q) by (apply sqrt_sqrt; exact HQ).
    assert (uQ : u * (u * Q) <= / 100 * (u * Q)) by (apply Rmult_le_compat_r; [apply Rmult_le_pos|]; lra).
    assert (Sum : square + product <= Q + u * Q + 2 * tiny) by (unfold Q; lra).
    assert (uSum : u * (square + product) <= u * (Q + u * Q + 2 * tiny)) by (apply Rmult_le_compat_l; lra).
    assert (ut : u * tiny <= tiny) by (rewrite <- (Rmult_1_l tiny) at 2; apply Rmult_le_compat_r; lra).
    assert (Rad : radicand <= Q + 21 / 10 * (u * Q) + / 2 ^ 97) by (unfold tiny in *; lra).
    set (Y := D * (1 + 11 / 10 * u) + / 2 ^ 48).
    assert (HY : sqrt radicand <= Y).
    { assert (Y0 : 0 <= Y) by (unfold Y; assert (0 <= D * (1 + 11 / 10 * u)) by (apply Rmult_le_pos; lra); lra).
      rewrite <- (sqrt_square Y Y0). apply sqrt_le_1_alt.
      assert (0 <= D * u) by (apply Rmult_le_pos; lra). assert (0 <= u * u * Q) by (apply Rmult_le_pos; [apply Rmult_le_pos|]; lra).
      replace (Y * Y) with (D * D * (1 + 22 / 10 * u) + 121 / 100 * (u * u * (D * D)) + 2 * (D + 11 / 10 * (D * u)) * / 2 ^ 48 + / 2 ^ 96)
        by (unfold Y; field). rewrite DD. assert (0 <= u * Q) by (apply Rmult_le_pos; lra). lra. }
    pose proof (sqrt_pos radicand) as SR. rewrite (Rabs_pos_eq (sqrt radicand)) in Hx by exact SR. apply Rabs_le_inv in Hx.
    assert (uY : 4 * u * sqrt radicand <= 4 * u * Y) by (apply Rmult_le_compat_l; lra).
    assert (uD : u * (u * D) <= / 100 * (u * D)) by (apply Rmult_le_compat_r; [apply Rmult_le_pos|]; lra).
    assert (uD0 : 0 <= u * D) by (apply Rmult_le_pos; lra).
    assert (Hradix : radix <= D + 52 / 10 * (u * D) + / 2 ^ 47).
    { unfold Y in *. unfold tiny in *. lra. }
    assert (Lower : 4 / 10 <= first + D /\ 4 / 10 <= first + radix).
    { assert (4 * u * sqrt radicand <= / 1000 * sqrt radicand) by (apply Rmult_le_compat_r; lra).
      destruct (Rle_or_lt (45 / 100) first) as [L|L]; [split; lra|].
      assert (HF : F <= 46 / 100).
      { apply Rnot_lt_le. intros G. assert (u * F <= / 100000 * F) by (apply Rmult_le_compat_r; lra). lra. }
      assert (HS : S <= F).
      { apply sum_le. intros bin Hin. rewrite Forall_forall in B1. specialize (B1 bin Hin). pose proof (pos_INR (snd bin)).
        apply Rmult_le_compat_l; [lra|]. rewrite <- (Rmult_1_r (base - fst bin)) at 3. apply Rmult_le_compat_l; lra. }
      assert (u * S <= / 100000 * S) by (apply Rmult_le_compat_r; lra).
      assert (HR : 1 / 2 <= rest) by lra.
      assert (HCR : rest <= C * rest) by (rewrite <- (Rmult_1_l rest) at 1; apply Rmult_le_compat_r; lra).
      assert (uCR : u * (C * rest) <= / 1000 * (C * rest)) by (apply Rmult_le_compat_r; lra).
      assert (us : u * (square + product) <= / 1000 * (square + product)) by (apply Rmult_le_compat_r; lra).
      assert (HD : 7 / 10 <= D).
      { apply Rnot_lt_le. intros G. assert (D * D < 7 / 10 * (7 / 10)) by (apply Rmult_le_0_lt_compat; lra). unfold Q in *. lra. }
      assert (HSR : 6 / 10 <= sqrt radicand).
      { apply Rle_trans with (sqrt (6 / 10 * (6 / 10))); [rewrite sqrt_square; lra|]. apply sqrt_le_1_alt. lra. }
      split; lra. }
    destruct Lower as [L1 L2].
    rewrite (Rabs_pos_eq (first + radix)) in Hb by lra. apply Rabs_le_inv in Hb.
    set (H := first + D) in *.
    assert (uH : u * (u * H) <= / 100 * (u * H)) by (apply Rmult_le_compat_r; [apply Rmult_le_pos|]; lra).
    assert (uf : 0 <= u * first) by (apply Rmult_le_pos; lra).
    assert (uH4 : u * (4 / 10) <= u * H) by (apply Rmult_le_compat_l; lra).
    assert (Top : first + radix <= H + 52 / 10 * (u * H) + / 2 ^ 47) by (unfold H in *; lra).
    assert (uTop : u * (first + radix) <= u * (H + 52 / 10 * (u * H) + / 2 ^ 47)) by (apply Rmult_le_compat_l; lra).
    assert (T47 : / 2 ^ 47 <= u / 1000000) by (unfold u; lra).
    assert (uT : u * / 2 ^ 47 <= / 2 ^ 47) by (rewrite <- (Rmult_1_l (/ 2 ^ 47)) at 2; apply Rmult_le_compat_r; lra).
    assert (Bottom : bottom <= H + 64 / 10 * (u * H)) by lra.
    assert (u1 : u * (first + radix) <= / 1000 * (first + radix)) by (apply Rmult_le_compat_r; lra).
    assert (Bpos : 39 / 100 <= bottom) by lra.
    destruct (quadratic_root C first rest (proj1 B3) B5 Hr0 ltac:(fold Q D H; lra)) as [G0 G1]. fold Q D H in G0, G1. set (g := rest / H) in *.
    assert (Hfg : 0 <= first * g) by (apply Rmult_le_pos; lra).
    assert (Hgg : g * g <= C * (g * g)).
    { rewrite <- (Rmult_1_l (g * g)) at 1. apply Rmult_le_compat_r; [apply Rmult_le_pos|]; lra. }
    assert (G2 : g <= 1001 / 1000).
    { apply Rnot_lt_le. intros G. assert (1001 / 1000 * (1001 / 1000) < g * g) by (apply Rmult_le_0_lt_compat; lra). lra. }
    assert (ug0 : 0 <= u * g) by (apply Rmult_le_pos; lra).
    assert (Rootg : g - 105 / 10 * (u * g) - tiny <= root).
    { assert (Hq : g - 64 / 10 * (u * g) <= rest / bottom).
      { apply Rmult_le_reg_r with bottom; [lra|].
        replace (rest / bottom * bottom) with rest by (field; lra).
        assert (Egh : g * H = rest) by (unfold g; field; lra).
        assert (ug : 0 <= u * g) by (apply Rmult_le_pos; lra).
        assert (Nn : 0 <= g - 64 / 10 * (u * g)).
        { replace (g - 64 / 10 * (u * g)) with (g * (1 - 64 / 10 * u)) by ring. apply Rmult_le_pos; lra. }
        apply Rle_trans with ((g - 64 / 10 * (u * g)) * (H + 64 / 10 * (u * H))); [apply Rmult_le_compat_l; lra|].
        replace ((g - 64 / 10 * (u * g)) * (H + 64 / 10 * (u * H))) with (g * H - 64 / 10 * (64 / 10) * (u * u) * (g * H)) by ring.
        rewrite Egh. assert (0 <= u * u * rest) by (apply Rmult_le_pos; [apply Rmult_le_pos|]; lra). lra. }
      assert (Q0 : 0 <= rest / bottom) by (apply Rmult_le_pos; [lra | left; apply Rinv_0_lt_compat; lra]).
      rewrite (Rabs_pos_eq (rest / bottom)) in Hroot by exact Q0. apply Rabs_le_inv in Hroot.
      assert (L4 : (1 - 4 * u) * (g - 64 / 10 * (u * g)) <= (1 - 4 * u) * (rest / bottom)) by (apply Rmult_le_compat_l; lra).
      assert (0 <= u * (u * g)) by (apply Rmult_le_pos; lra). lra. }
    assert (Mass : 1 - (e + 11 / 10 * u) <= S + 2 * F * g + C * (g * g)).
    { destruct (Rle_or_lt 1 (S + 2 * F * g + C * (g * g))) as [L|L]; [lra|].
      assert (Fg : 0 <= 2 * F * g) by (apply Rmult_le_pos; lra).
      assert (F1 : 2 * first * g <= 2 * (F + e * F + t) * g) by (apply Rmult_le_compat_r; lra).
      assert (Tg : t * g <= t * (1001 / 1000)) by (apply Rmult_le_compat_l; lra).
      assert (gg : 0 <= g * g) by (apply Rmult_le_pos; lra).
      assert (uM : e * (S + 2 * F * g) <= e * 1) by (apply Rmult_le_compat_l; lra). lra. }
    assert (SC : S <= C * (base * base)).
    { unfold C, total_count. rewrite Rmult_comm, <- sum_scale. apply sum_le. intros bin Hin. rewrite Forall_forall in B1.
      specialize (B1 bin Hin). pose proof (pos_INR (snd bin)). rewrite (Rmult_comm (base * base)).
      apply Rmult_le_compat_l; [lra|]. apply Rmult_le_compat; lra. }
    exists (base + g). split; [split; [|lra]|].
    + apply Rnot_lt_le. intros G.
      assert ((base + g) * (base + g) <= / 2 ^ 26 * / 2 ^ 26) by (apply Rmult_le_compat; lra).
      assert (C * ((base + g) * (base + g)) <= 16777216 * (/ 2 ^ 26 * / 2 ^ 26)).
      { apply Rmult_le_compat; try lra. apply Rmult_le_pos; lra. }
      assert (F * g <= C * base * g) by (apply Rmult_le_compat_r; lra). lra.
    + split.
      * assert (0 <= u * base) by (apply Rmult_le_pos; lra). lra.
      * rewrite (mass_below 2 bins base g (or_intror eq_refl) B1 G0). destruct (Req_EM_T 2 1) as [N|_]; [exfalso; lra|]. exact Mass.
Qed.

(** ** From the maxima of the tiles to the row *)

Lemma in_counted x n (bins : list (R * nat)) : In (x, S n) bins -> In x (counted bins).
Proof.
  intros H. unfold counted. apply in_concat. exists (repeat x (S n)). split; [|left; reflexivity].
  apply in_map_iff. exists (x, S n). split; [reflexivity | exact H].
Qed.

Lemma counted_below x (bins : list (R * nat)) : In x (counted bins) -> exists n, In (x, n) bins.
Proof.
  intros H. unfold counted in H. apply in_concat in H. destruct H as [l [Hl Hx]].
  apply in_map_iff in Hl. destruct Hl as [[y n] [E Hin]]. cbn [fst snd] in E. subst l. apply repeat_spec in Hx. subst. exists n. exact Hin.
Qed.

Lemma row_below_max bins base :
  Forall (fun bin => 0 <= fst bin <= base) bins -> In (0, 1%nat) bins -> is_max 0 (row_below bins).
Proof.
  intros Hall Hin. split.
  - apply (in_counted 0 0). apply in_map_iff. exists (0, 1%nat). split; [cbn [fst snd]; f_equal; ring | exact Hin].
  - rewrite Forall_forall in *. intros x Hx. apply counted_below in Hx. destruct Hx as [n Hx].
    apply in_map_iff in Hx. destruct Hx as [bin [E Hb]]. injection E as E1 E2. specialize (Hall bin Hb). lra.
Qed.

Lemma row_below_app bins :
  row_below (bins ++ [(0, 1%nat)]) = map Ropp (counted bins) ++ [0].
Proof.
  unfold row_below, counted. rewrite !map_app, concat_app. f_equal.
  - induction bins as [|[w c] bins IH]; [reflexivity|]. cbn [map concat fst snd]. rewrite map_app, IH. f_equal.
    induction c as [|c IHc]; [reflexivity | cbn [repeat map]; rewrite IHc; reflexivity].
  - cbn [map concat fst snd repeat app]. rewrite Ropp_0. reflexivity.
Qed.

Lemma max_exists x (z : list R) : exists m, is_max m (z ++ [x]).
Proof.
  induction z as [|y z [m [I A]]].
  - exists x. split; [left; reflexivity | repeat constructor; lra].
  - destruct (Rle_or_lt y m) as [L|L].
    + exists m. split; [right; exact I | constructor; assumption].
    + exists y. split; [left; reflexivity|]. constructor; [lra|]. eapply Forall_impl; [|exact A]. intros a Ha. simpl in Ha. lra.
Qed.

(** How far a product may lie below the far edge of the bin of its rounded value. *)
Lemma edge_error top x edge excess :
  rounds excess (fl (12 * top) - IZR (level top)) -> fl x <= top -> far_edge top excess (fl x) edge ->
  top - edge - (5 * u + 31 / 10 * (u * Rabs top)) <= x.
Proof.
  intros [Hex Hex0] Hle [below [far [Hb [Hlevel [[Hfar Hfar0] Hedge]]]]]. unfold approximates in Hedge. pose proof u_pos as U.
  destruct tiny_small as [T0 _]. set (tiny := / 2 ^ 100) in *. assert (Tu : tiny <= u / 1000000) by (unfold tiny, u; lra).
  assert (T150 : / 2 ^ 150 <= tiny) by (unfold tiny; lra).
  assert (K : 0 <= IZR below <= 7) by (split; apply IZR_le; lia). set (k := IZR below) in *.
  set (m := fl x) in *. unfold level in *.
  pose proof (Zfloor_lb (fl (12 * m))) as Lm. rewrite Hlevel, minus_IZR in Lm. fold k in Lm.
  pose proof (Zfloor_lb (fl (12 * top))) as Lt. pose proof (Zfloor_ub (fl (12 * top))) as Ut.
  set (base := IZR (Zfloor (fl (12 * top)))) in *. set (scaled := fl (12 * top)) in *.
  pose proof (fl_error (12 * top)) as E1. fold scaled in E1. pose proof (fl_error (12 * m)) as E2.
  pose proof (fl_error x) as E3. fold m in E3.
  rewrite Rabs_mult, (Rabs_pos_eq 12) in E1, E2 by lra.
  rewrite (Rabs_pos_eq (scaled - base)) in Hex by lra. specialize (Hex0 ltac:(lra)).
  apply Rabs_le_inv in E1. apply Rabs_le_inv in E2. apply Rabs_le_inv in E3. apply Rabs_le_inv in Hex.
  set (ex := scaled - base) in *. assert (Hex1 : 0 <= ex < 1) by (unfold ex; lra).
  assert (uex : u * ex <= u * 1) by (apply Rmult_le_compat_l; lra).
  rewrite (Rabs_pos_eq (excess + k)) in Hfar by lra. apply Rabs_le_inv in Hfar. specialize (Hfar0 ltac:(lra)).
  assert (uk : u * (excess + k) <= u * (81 / 10)) by (apply Rmult_le_compat_l; lra).
  assert (Far : far <= 82 / 10) by lra.
  rewrite (Rabs_pos_eq (far / 12)) in Hedge by lra. apply Rabs_le_inv in Hedge.
  assert (uf : u * (far / 12) <= u * (82 / 10 / 12)) by (apply Rmult_le_compat_l; lra).
  assert (Hedge' : (ex + k) / 12 - 36 / 10 * u <= edge) by lra.
  (* sizes *)
  pose proof (Rabs_pos top) as At. pose proof (Rabs_pos m) as Am. pose proof (Rabs_pos x) as Ax.
  assert (Uat : u * Rabs top <= / 1000 * Rabs top) by (apply Rmult_le_compat_r; lra).
  assert (Uam : u * Rabs m <= / 1000 * Rabs m) by (apply Rmult_le_compat_r; lra).
  assert (Hm : top - (ex + k) / 12 - u * Rabs m - u * Rabs top - tiny <= m) by (unfold ex; lra).
  assert (Sm : Rabs m <= 101 / 100 * Rabs top + 7 / 10).
  { unfold Rabs in *. destruct (Rcase_abs m); destruct (Rcase_abs top); lra. }
  assert (Uax : u * Rabs x <= / 1000 * Rabs x) by (apply Rmult_le_compat_r; lra).
  assert (Sx : Rabs x <= 102 / 100 * Rabs top + 72 / 100).
  { unfold Rabs in *. destruct (Rcase_abs m); destruct (Rcase_abs top); destruct (Rcase_abs x); lra. }
  assert (um : u * Rabs m <= u * (101 / 100 * Rabs top + 7 / 10)) by (apply Rmult_le_compat_l; lra).
  assert (ux : u * Rabs x <= u * (102 / 100 * Rabs top + 72 / 100)) by (apply Rmult_le_compat_l; lra).
  lra.
Qed.

Lemma top_error x top : top = fl x -> top - (5 * u + 31 / 10 * (u * Rabs top)) <= x.
Proof.
  intros ->. pose proof u_pos as U. pose proof (fl_error x) as E. apply Rabs_le_inv in E.
  pose proof (Rabs_pos x) as Ax. pose proof (Rabs_pos (fl x)) as At.
  assert (Uax : u * Rabs x <= / 1000 * Rabs x) by (apply Rmult_le_compat_r; lra).
  assert (T : / 2 ^ 150 <= u / 1000) by (unfold u; lra).
  assert (Sx : Rabs x <= 102 / 100 * Rabs (fl x) + 1 / 10).
  { unfold Rabs in *. destruct (Rcase_abs x); destruct (Rcase_abs (fl x)); lra. }
  assert (ux : u * Rabs x <= u * (102 / 100 * Rabs (fl x) + 1 / 10)) by (apply Rmult_le_compat_l; lra).
  assert (0 <= u * Rabs (fl x)) by (apply Rmult_le_pos; lra). lra.
Qed.

Theorem dense_bound_float : forall p z m tau others last top excess bins base first second root below share slack down lo,
  p = 1 \/ p = 2 -> is_max m z -> is_tau p z tau ->
  part (others ++ [last]) z -> top = fl last -> Forall (fun x => fl x <= top) others ->
  rounds excess (fl (12 * top) - IZR (level top)) ->
  Forall2 (fun x edge => far_edge top excess (fl x) edge) others (counted bins) ->
  passed p (bins ++ [(0, 1%nat)]) base first second ->
  (length bins <= 8)%nat -> total_count (bins ++ [(0, 1%nat)]) <= 1048576 ->
  computed_root p (total_count (bins ++ [(0, 1%nat)])) first second root -> rounds below (base + root) ->
  rounds share (Rabs top * / 2 ^ 21) -> rounds slack (/ 2 ^ 18 + share) -> rounds down (Rmin below 1 + slack) ->
  rounds lo (top - down) ->
  lo <= tau.
Proof.
  intros p z m tau others last top excess bins base first second root below share slack down lo
    Hp Hm Ht Hpart Htop Hle Hex Hfar P Hl Hk Hroot [Hbelow _] [Hshare Hshare0] [Hslack Hslack0] [Hdown _] [Hlo _].
  pose proof u_pos as U. assert (Hp1 : 1 <= p) by (destruct Hp; lra). assert (Hp0 : 0 < p) by lra.
  assert (Hl9 : (length (bins ++ [(0%R, 1%nat)]) <= 9)%nat) by (rewrite app_length; simpl; lia).
  destruct (passed_sums p _ base first second P Hl9 Hk) as [B0 [B1 [B2 [B3 [B4 [B5 [B6 [B7 [_ [_ [_ [B11 B12]]]]]]]]]]]].
  cbv zeta in B11, B12. set (k := INR (length (bins ++ [(0%R, 1%nat)])) - 1) in *.
  assert (K8 : k <= 8).
  { unfold k. assert (INR (length (bins ++ [(0%R, 1%nat)])) <= INR 9) by (apply le_INR; exact Hl9). simpl (INR 9) in *. lra. }
  apply (near_weaken _ _ (20020 / 1000 * u) (8 * / 2 ^ 60)) in B11; [| | |lra].
  2: { apply sum_nonneg. intros bin Hin. rewrite Forall_forall in B1. specialize (B1 bin Hin).
       apply Rmult_le_pos; [apply pos_INR | lra]. }
  2: { assert ((k + 2) * (1001 / 1000 * u) <= 10 * (1001 / 1000 * u)) by (apply Rmult_le_compat_r; lra). lra. }
  apply (near_weaken _ _ (20020 / 1000 * u) (8 * / 2 ^ 60)) in B12; [| | |lra].
  2: { apply sum_nonneg. intros bin Hin. rewrite Forall_forall in B1. specialize (B1 bin Hin).
       apply Rmult_le_pos; [apply pos_INR | apply Rmult_le_pos; lra]. }
  2: { assert ((2 * k + 4) * (1001 / 1000 * u) <= 20 * (1001 / 1000 * u)) by (apply Rmult_le_compat_r; lra). lra. }
  destruct (root_error p _ base first second root (20020 / 1000 * u) (8 * / 2 ^ 60) Hp B1 B0 ltac:(lra) B5 B6
    ltac:(intros E; specialize (B7 E); lra) ltac:(lra) ltac:(lra) B11 B12 Hroot) as [r [G0 [G1 G2]]].
  destruct tiny_small as [T0 _]. set (tiny := / 2 ^ 100) in *. assert (Tu : tiny <= u / 1000000) by (unfold tiny, u; lra).
  set (row := row_below (bins ++ [(0, 1%nat)])) in *.
  assert (Hrow : is_max 0 row) by (apply (row_below_max _ base B1 B2)).
  destruct (tau_exists p row 0 Hp0 Hrow) as [ta [Hta Hta1]].
  (* the threshold of the counted row *)
  assert (A : - r - 22 * u <= ta).
  { destruct (Rle_or_lt 1 (mass p row (- r))) as [L|L].
    - apply (left_of_root p row ta _ Hp0 Hta) in L. lra.
    - pose proof (residual_bound p row 0 ta (- r) Hp1 Hrow Hta ltac:(lra)) as Rb.
      rewrite (Rabs_left (mass p row (- r) - 1)) in Rb by lra. apply Rabs_le_inv in Rb. lra. }
  assert (ur : u * r <= u * (2001 / 1000)) by (apply Rmult_le_compat_l; lra).
  assert (Hbelow' : r - 25 * u <= below).
  { assert (Pos : 0 <= base + root).
    { assert (u * r <= / 1000000 * r) by (apply Rmult_le_compat_r; lra). unfold tiny in *. lra. }
    rewrite (Rabs_pos_eq (base + root)) in Hbelow by exact Pos. apply Rabs_le_inv in Hbelow.
    assert ((1 - u) * (r - 11 * (u * r) - tiny) <= (1 - u) * (base + root)) by (apply Rmult_le_compat_l; lra).
    assert (0 <= u * tiny) by (apply Rmult_le_pos; lra).
    assert (0 <= u * (u * r)) by (apply Rmult_le_pos; [|apply Rmult_le_pos]; lra). lra. }
  set (b := Rmin below 1) in *.
  assert (Hb : - b - 47 * u <= ta /\ - (25 * u) <= b <= 1).
  { unfold b, Rmin. destruct (Rle_dec below 1); split; lra. }
  destruct Hb as [Hb Hb1].
  (* the row of the edges, next to the products that were counted *)
  set (d := 5 * u + 31 / 10 * (u * Rabs top)).
  assert (F2 : Forall2 (fun a x => a - d <= x) (map (fun x => x + top) row) (others ++ [last])).
  { unfold row. rewrite row_below_app, map_app. apply Forall2_app.
    - clear - Hle Hex Hfar. induction Hfar as [|x edge others edges Hx Hrest IH]; cbn [map]; [constructor|].
      inversion Hle; subst. constructor; [|apply IH; assumption].
      pose proof (edge_error top x edge excess Hex ltac:(assumption) Hx). unfold d. lra.
    - cbn [map]. constructor; [|constructor]. pose proof (top_error last top Htop). unfold d. lra. }
  assert (Hshift : is_tau p (map (fun x => x + top) row) (ta + top)) by (apply threshold_shift; exact Hta).
  destruct (max_exists last others) as [mm Hmm]. destruct (tau_exists p _ mm Hp0 Hmm) as [tp [Htp _]].
  pose proof (tau_monotone p _ _ _ _ d Hp0 Hshift Htp F2) as M1.
  pose proof (proj1 (threshold_subset p z tau Hp0 Ht) _ tp Hpart Htp) as M2.
  (* what is taken off *)
  pose proof (Rabs_pos top) as At. set (size := Rabs top) in *.
  assert (us : 0 <= u * size) by (apply Rmult_le_pos; lra).
  assert (uus : u * (u * size) <= / 1000000 * (u * size)) by (apply Rmult_le_compat_r; lra).
  assert (E21 : size * / 2 ^ 21 = 8 * (u * size)) by (unfold u; field).
  assert (E18 : / 2 ^ 18 = 64 * u) by (unfold u; lra).
  rewrite E21 in *. rewrite E18 in *.
  rewrite (Rabs_pos_eq (8 * (u * size))) in Hshare by lra. specialize (Hshare0 ltac:(lra)). apply Rabs_le_inv in Hshare.
  rewrite (Rabs_pos_eq (64 * u + share)) in Hslack by lra. specialize (Hslack0 ltac:(lra)). apply Rabs_le_inv in Hslack.
  assert (uu : u * u <= / 1000000 * u) by (apply Rmult_le_compat_r; lra).
  assert (ush : u * share <= u * (9 * (u * size) + u)) by (apply Rmult_le_compat_l; lra).
  assert (Sl : 639 / 10 * u + 79 / 10 * (u * size) <= slack <= 65 * u + 9 * (u * size)) by lra.
  assert (Bs : Rabs (b + slack) <= 2 + 9 * (u * size)).
  { apply Rabs_le. split; lra. }
  assert (uBs : u * Rabs (b + slack) <= u * (2 + 9 * (u * size))) by (apply Rmult_le_compat_l; lra).
  apply Rabs_le_inv in Hdown.
  assert (Usize : u * size <= / 1000 * size) by (apply Rmult_le_compat_r; lra).
  assert (Ds : Rabs (top - down) <= 101 / 100 * size + 21 / 10).
  { assert (- size <= top <= size) by (unfold size, Rabs; destruct (Rcase_abs top); lra).
    apply Rabs_le_inv in Bs. apply Rabs_le. split; lra. }
  assert (uDs : u * Rabs (top - down) <= u * (101 / 100 * size + 21 / 10)) by (apply Rmult_le_compat_l; lra).
  apply Rabs_le_inv in Hlo. unfold d in *. lra.
Qed.

(** ** The first bracket of the histogram *)

(** There the sums run over all bins at once, in any order; [e] is what they may be off by, relatively. *)
Theorem histogram_root_float : forall p bins base first second root total far ta,
  p = 1 \/ p = 2 -> Forall (fun bin => 0 <= fst bin <= base) bins -> In (0, 1%nat) bins -> 0 <= base <= 1 ->
  total_count bins <= 16777216 ->
  let F := sum (fun bin => INR (snd bin) * (base - fst bin)) bins in
  let S := sum (fun bin => INR (snd bin) * ((base - fst bin) * (base - fst bin))) bins in
  0 <= first -> 0 <= second -> (p = 1 -> first <= 1 + 100 * u) ->
  Rabs (first - F) <= 24 * u * F + / 2 ^ 56 -> Rabs (second - S) <= 24 * u * S + / 2 ^ 56 ->
  computed_root p (total_count bins) first second root -> rounds total (base + root) ->
  rounds far (total * (1 + / 2 ^ 18)) -> is_tau p (row_below bins) ta ->
  Rmax (- far) (- (1)) <= ta.
Proof.
  intros p bins base first second root total far ta Hp B1 B2 B0 Hk F S B5 B6 B7 N1 N2 Hroot [Ht _] [Hf _] Hta.
  pose proof u_pos as U. assert (Hp0 : 0 < p) by (destruct Hp; lra). assert (Hp1 : 1 <= p) by (destruct Hp; lra).
  assert (B3 : 1 <= total_count bins).
  { apply Rle_trans with ((fun bin : R * nat => INR (snd bin)) (0, 1%nat)); [simpl; lra|].
    apply (sum_le_one (fun bin : R * nat => INR (snd bin))); [intros; apply pos_INR | exact B2]. }
  destruct (root_error p bins base first second root (24 * u) (/ 2 ^ 56) Hp B1 B0 ltac:(lra) B5 B6 B7 ltac:(lra) ltac:(lra)
    N1 N2 Hroot) as [r [G0 [G1 G2]]].
  assert (Hrow : is_max 0 (row_below bins)) by (apply (row_below_max _ base B1 B2)).
  pose proof (proj1 (threshold_bracket p _ 0 ta Hp0 Hrow Hta)) as Low.
  apply Rmax_lub; [|lra].
  destruct tiny_small as [T0 _]. set (tiny := / 2 ^ 100) in *.
  assert (ur : 0 <= u * r) by (apply Rmult_le_pos; lra).
  assert (Tr : tiny <= u * r / 1000000).
  { assert (u * / 2 ^ 26 <= u * r) by (apply Rmult_le_compat_l; lra). unfold tiny. unfold u in *. lra. }
  assert (ut : 0 <= u * tiny) by (apply Rmult_le_pos; lra).
  assert (uur : 0 <= u * (u * r) <= / 1000000 * (u * r)).
  { split; [apply Rmult_le_pos; lra | apply Rmult_le_compat_r; lra]. }
  assert (ur1 : u * r <= / 1000000 * r) by (apply Rmult_le_compat_r; lra).
  assert (Pos : 0 <= base + root) by lra.
  rewrite (Rabs_pos_eq (base + root)) in Ht by exact Pos. apply Rabs_le_inv in Ht.
  assert (H1 : (1 - u) * (r - 11 * (u * r) - tiny) <= (1 - u) * (base + root)) by (apply Rmult_le_compat_l; lra).
  assert (Tot : r - 121 / 10 * (u * r) <= total) by lra.
  assert (E18 : / 2 ^ 18 = 64 * u) by (unfold u; lra). rewrite E18 in Hf.
  assert (P2 : 0 <= total * (1 + 64 * u)) by (apply Rmult_le_pos; lra).
  rewrite (Rabs_pos_eq (total * (1 + 64 * u))) in Hf by exact P2. apply Rabs_le_inv in Hf.
  assert (H2 : (1 - u) * (1 + 64 * u) * (r - 121 / 10 * (u * r)) <= (1 - u) * (1 + 64 * u) * total).
  { apply Rmult_le_compat_l; [apply Rmult_le_pos; lra | exact Tot]. }
  assert (u3 : 0 <= u * (u * (u * r))) by (apply Rmult_le_pos; lra).
  assert (Far : r * (1 + 50 * u) <= far) by lra.
  apply (left_of_root p _ ta _ Hp0 Hta).
  (* the mass at a distance that is larger by a factor is larger by that factor *)
  set (f := 1 + 50 * u) in *.
  assert (Scaled : f * mass p (row_below bins) (- r) <= mass p (row_below bins) (- (r * f))).
  { rewrite !mass_eq, <- sum_scale. apply sum_le. intros x Hx. destruct Hrow as [_ Hall]. rewrite Forall_forall in Hall.
    specialize (Hall x Hx). replace (x - - (r * f)) with (x + r * f) by ring. replace (x - - r) with (x + r) by ring.
    destruct (Rlt_dec 0 (x + r)) as [P|P].
    - assert (Fx : f * (x + r) <= x + r * f).
      { unfold f. assert (u * x <= 0) by (rewrite <- (Rmult_0_r u); apply Rmult_le_compat_l; lra). lra. }
      destruct Hp as [->| ->].
      + rewrite !pw_1 by (unfold f in *; lra). exact Fx.
      + assert (f1 : 1 <= f) by (unfold f; lra). assert (f0 : 0 <= f * (x + r)) by (apply Rmult_le_pos; lra).
        rewrite !pw_2 by lra. apply Rle_trans with (f * (x + r) * (f * (x + r))); [|apply Rmult_le_compat; lra].
        replace (f * (x + r) * (f * (x + r))) with (f * (f * ((x + r) * (x + r)))) by ring.
        apply Rmult_le_compat_l; [lra|]. rewrite <- (Rmult_1_l ((x + r) * (x + r))) at 1.
        apply Rmult_le_compat_r; [apply Rmult_le_pos; lra | exact f1].
    - rewrite (pw_zero p (x + r)) by lra. rewrite Rmult_0_r. apply pw_nonneg. }
  assert (One : 1 <= f * mass p (row_below bins) (- r)).
  { apply Rle_trans with (f * (1 - (24 * u + 11 / 10 * u))); [|apply Rmult_le_compat_l; unfold f; lra].
    unfold f. assert (u * u <= / 1000 * u) by (apply Rmult_le_compat_r; lra). lra. }
  apply Rle_trans with (mass p (row_below bins) (- (r * f))); [lra|]. apply mass_le; lra.
Qed.

(** ** The products that cannot reach the bound *)

Theorem dead_product_float : forall lo scale share lowered limit product,
  0 < scale -> rounds share (Rabs lo * / 2 ^ 20) -> rounds lowered (lo - share) -> approximates limit (lowered / scale) ->
  lo = 0 /\ limit = 0 \/ 1 + scale <= 2 ^ 76 * Rabs lo ->
  product <= limit ->
  scale * product <= lo /\ (is_float lo -> fl (scale * product) <= lo).
Proof.
  intros lo scale share lowered limit product Hs [Hsh _] [Hlow _] Hlim Hlo Hprod. pose proof u_pos as U.
  assert (Main : scale * product <= lo).
  { destruct Hlo as [[-> ->]|Hlo].
    - rewrite <- (Rmult_0_r scale). apply Rmult_le_compat_l; lra.
    - unfold approximates in Hlim. destruct tiny_small as [T0 _]. set (tiny := / 2 ^ 100) in *.
      set (size := Rabs lo) in *. pose proof (Rabs_pos lo) as As. fold size in As.
      assert (us : 0 <= u * size) by (apply Rmult_le_pos; lra).
      assert (uus : u * (u * size) <= / 1000000 * (u * size)) by (apply Rmult_le_compat_r; lra).
      assert (E20 : size * / 2 ^ 20 = 16 * (u * size)) by (unfold u; field).
      rewrite E20, (Rabs_pos_eq (16 * (u * size))) in Hsh by lra. apply Rabs_le_inv in Hsh.
      assert (Tt : tiny * (1 + scale) <= u * size).
      { apply Rle_trans with (tiny * (2 ^ 76 * size)); [apply Rmult_le_compat_l; lra|]. unfold tiny, u. lra. }
      assert (St : 0 <= tiny * scale) by (apply Rmult_le_pos; lra).
      assert (Usize : u * size <= / 1000 * size) by (apply Rmult_le_compat_r; lra).
      assert (Low : Rabs (lo - share) <= 11 / 10 * size).
      { assert (- size <= lo <= size) by (unfold size, Rabs; destruct (Rcase_abs lo); lra). apply Rabs_le. split; lra. }
      assert (uLow : u * Rabs (lo - share) <= u * (11 / 10 * size)) by (apply Rmult_le_compat_l; lra).
      apply Rabs_le_inv in Hlow.
      assert (Lw : Rabs lowered <= 12 / 10 * size).
      { apply Rabs_le_inv in Low. apply Rabs_le. split; lra. }
      assert (uLw : u * Rabs lowered <= u * (12 / 10 * size)) by (apply Rmult_le_compat_l; lra).
      unfold Rdiv in Hlim. rewrite Rabs_mult, (Rabs_pos_eq (/ scale)) in Hlim by (left; apply Rinv_0_lt_compat; exact Hs).
      apply Rabs_le_inv in Hlim. destruct Hlim as [_ Hlim].
      assert (Hq : scale * limit <= lowered + 4 * (u * Rabs lowered) + tiny * scale).
      { apply (Rmult_le_compat_l scale) in Hlim; [|lra].
        replace (scale * (4 * u * (Rabs lowered * / scale) + tiny)) with (4 * (u * Rabs lowered) + tiny * scale) in Hlim by (field; lra).
        replace (scale * (limit - lowered * / scale)) with (scale * limit - lowered) in Hlim by (field; lra). lra. }
      apply Rle_trans with (scale * limit); [apply Rmult_le_compat_l; lra|]. lra. }
  split; [exact Main|]. intros F. rewrite <- (fl_id lo F). apply fl_le. exact Main.
Qed.
