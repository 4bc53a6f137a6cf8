(** How far is the output from the exact one if tau is?  By what the mass shows, whatever the norm. *)

From Coq Require Import Reals List Lra FunctionalExtensionality.
From Entmax Require Import specification power threshold.
Import ListNotations.
Open Scope R_scope.

Lemma norm_zero norm : is_norm norm -> norm (fun _ => 0) = 0.
Proof.
  intros [_ H]. specialize (H 0 (fun _ => 0)). cbv beta in H. rewrite Rmult_0_l in H. rewrite H, Rabs_R0. ring.
Qed.

Lemma norm_nonneg norm x : is_norm norm -> 0 <= norm x.
Proof.
  intros Hn. pose proof (norm_zero norm Hn) as Z. destruct Hn as [T H].
  specialize (T x (fun i => -1 * x i)). rewrite (H (-1) x) in T.
  replace (fun i => x i + -1 * x i) with (fun _ : nat => 0) in T by (apply functional_extensionality; intros; ring).
  rewrite Z in T. replace (Rabs (-1)) with 1 in T by (rewrite Rabs_left by lra; ring). lra.
Qed.

Lemma norm_sum {A} norm (c : A -> R) (x : A -> vector) l :
  is_norm norm -> norm (fun i => sum (fun k => c k * x k i) l) <= sum (fun k => Rabs (c k) * norm (x k)) l.
Proof.
  intros Hn. induction l as [|k l IH]; simpl.
  - right. apply norm_zero. exact Hn.
  - destruct Hn as [T H]. eapply Rle_trans; [apply (T (fun i => c k * x k i) (fun i => sum (fun k => c k * x k i) l))|].
    rewrite (H (c k) (x k)). lra.
Qed.

Lemma weights_distance p z tau t :
  0 < p -> is_tau p z tau -> 0 < mass p z t ->
  sum (fun x => Rabs (pw p (gap x t) / mass p z t - pw p (gap x tau))) z <= 2 * Rabs (mass p z t - 1).
Proof.
  intros Hp Ht HF. set (F := mass p z t) in *.
  pose proof (left_of_root p z tau t Hp Ht) as L. pose proof (right_of_root p z tau t Hp Ht) as R.
  fold F in L, R. unfold is_tau, mass in Ht.
  assert (Hi : 0 < / F) by (apply Rinv_0_lt_compat; exact HF).
  assert (HFi : F * / F = 1) by (apply Rinv_r; lra).
  destruct (Rle_dec t tau) as [H|H].
  - assert (HF1 : 1 <= F) by tauto. rewrite (Rabs_pos_eq (F - 1)) by lra.
    assert (Hi1 : / F <= 1) by (rewrite <- Rinv_1; apply Rinv_le_contravar; lra).
    apply Rle_trans with (sum (fun x => / F * (pw p (gap x t) - pw p (gap x tau)) + (1 - / F) * pw p (gap x tau)) z).
    + apply sum_le. intros x _.
      assert (pw p (gap x tau) <= pw p (gap x t)) by (rewrite !pw_gap; apply pw_le; lra).
      pose proof (pw_nonneg p (gap x tau)).
      replace (pw p (gap x t) / F - pw p (gap x tau))
        with (/ F * (pw p (gap x t) - pw p (gap x tau)) + - ((1 - / F) * pw p (gap x tau))) by (unfold Rdiv; ring).
      eapply Rle_trans; [apply Rabs_triang|]. rewrite Rabs_Ropp, !Rabs_pos_eq; [lra | |].
      * apply Rmult_le_pos; lra.
      * apply Rmult_le_pos; lra.
    + rewrite sum_plus, !sum_scale, sum_minus, Ht. fold F. change (sum (fun x => pw p (gap x t)) z) with F.
      assert (/ F * (F - 1) <= 1 * (F - 1)) by (apply Rmult_le_compat_r; lra). lra.
  - assert (HF1 : F <= 1) by (apply R; lra). rewrite (Rabs_left1 (F - 1)) by lra.
    assert (Hi1 : 1 <= / F) by (rewrite <- Rinv_1; apply Rinv_le_contravar; lra).
    apply Rle_trans with (sum (fun x => (/ F - 1) * pw p (gap x t) + (pw p (gap x tau) - pw p (gap x t))) z).
    + apply sum_le. intros x _.
      assert (pw p (gap x t) <= pw p (gap x tau)) by (rewrite !pw_gap; apply pw_le; lra).
      pose proof (pw_nonneg p (gap x t)).
      replace (pw p (gap x t) / F - pw p (gap x tau))
        with ((/ F - 1) * pw p (gap x t) + - (pw p (gap x tau) - pw p (gap x t))) by (unfold Rdiv; ring).
      eapply Rle_trans; [apply Rabs_triang|]. rewrite Rabs_Ropp, !Rabs_pos_eq; [lra | lra |].
      apply Rmult_le_pos; lra.
    + rewrite sum_plus, sum_scale, sum_minus, Ht. change (sum (fun x => pw p (gap x t)) z) with F.
      replace ((/ F - 1) * F) with (1 - F) by lra. lra.
Qed.

Theorem normalised_output : forall norm p keys m tau t spread point,
  is_norm norm -> 0 < p -> is_max m (scores keys) -> is_tau p (scores keys) tau -> t < m ->
  (forall k, In k keys -> t < fst k \/ tau < fst k -> norm (fun i => snd k i - point i) <= spread) ->
  norm (fun i => weighted p keys t i / mass p (scores keys) t - weighted p keys tau i)
    <= 2 * spread * Rabs (mass p (scores keys) t - 1).
Proof.
  intros norm p keys m tau t D c Hn Hp Hm Ht Htm HD.
  assert (HF : 0 < mass p (scores keys) t) by (apply mass_pos_iff; exists m; split; [apply Hm | exact Htm]).
  assert (HD0 : 0 <= D).
  { destruct Hm as [Hin _]. unfold scores in Hin. apply in_map_iff in Hin. destruct Hin as [k [Hk Hin]].
    eapply Rle_trans; [apply (norm_nonneg norm (fun i => snd k i - c i) Hn)|]. apply HD; [exact Hin | lra]. }
  pose proof (weights_distance p (scores keys) tau t Hp Ht HF) as W.
  set (F := mass p (scores keys) t) in *.
  set (d := fun k : R * vector => pw p (gap (fst k) t) / F - pw p (gap (fst k) tau)).
  assert (Hd : sum d keys = 0).
  { unfold d. rewrite sum_minus.
    rewrite (sum_ext (fun k => pw p (gap (fst k) t) / F) (fun k => / F * pw p (gap (fst k) t)))
      by (intros; unfold Rdiv; ring).
    rewrite sum_scale. unfold is_tau, mass, scores in Ht. rewrite sum_map in Ht. rewrite Ht.
    assert (E : sum (fun k : R * vector => pw p (gap (fst k) t)) keys = F) by (unfold F, mass, scores; rewrite sum_map; reflexivity).
    rewrite E. field. lra. }
  replace (fun i => weighted p keys t i / F - weighted p keys tau i)
    with (fun i => sum (fun k => d k * (snd k i - c i)) keys).
  - eapply Rle_trans; [apply (norm_sum norm d (fun k i => snd k i - c i)); exact Hn|].
    apply Rle_trans with (D * sum (fun k => Rabs (d k)) keys).
    + rewrite <- sum_scale. apply sum_le. intros k Hk.
      destruct (Rlt_dec t (fst k)) as [H1|H1].
      * rewrite Rmult_comm. apply Rmult_le_compat_r; [apply Rabs_pos | apply HD; auto].
      * destruct (Rlt_dec tau (fst k)) as [H2|H2].
        -- rewrite Rmult_comm. apply Rmult_le_compat_r; [apply Rabs_pos | apply HD; auto].
        -- unfold d. rewrite !pw_gap, !pw_zero by lra. replace (0 / F - 0) with 0 by (field; lra). rewrite Rabs_R0. lra.
    + unfold scores in W at 1. rewrite sum_map in W. fold F in W.
      replace (2 * D * Rabs (F - 1)) with (D * (2 * Rabs (F - 1))) by ring.
      apply Rmult_le_compat_l; [exact HD0 | exact W].
  - apply functional_extensionality. intros i. unfold weighted, d.
    transitivity (sum (fun k : R * vector => (/ F * (pw p (gap (fst k) t) * snd k i) - pw p (gap (fst k) tau) * snd k i)
                                - c i * (pw p (gap (fst k) t) / F - pw p (gap (fst k) tau))) keys).
    + apply sum_ext. intros k _. unfold Rdiv. ring.
    + rewrite sum_minus, sum_minus, !sum_scale. unfold d in Hd. rewrite Hd, Rmult_0_r, Rminus_0_r. unfold Rdiv.
      f_equal. apply Rmult_comm.
Qed.
