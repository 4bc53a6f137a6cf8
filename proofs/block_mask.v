(** Which keys may be left out?  Those at or below any lower bound of tau, and those 1 below any maximum seen so far. *)

From Coq Require Import Reals List Permutation Lra.
From Entmax Require Import specification power threshold.
Import ListNotations.
Open Scope R_scope.

Theorem candidate_superset : forall p z m m' tau kept dropped,
  0 < p -> is_max m z -> is_tau p z tau -> m' <= m ->
  Permutation z (kept ++ dropped) -> Forall (fun x => x <= m' - 1) dropped ->
  Forall (fun x => pw p (gap x tau) = 0) dropped /\
  (forall t, m - 1 <= t -> mass p kept t = mass p z t /\ slope p kept t = slope p z t) /\
  (forall t, is_tau p kept t <-> is_tau p z t).
Proof.
  intros p z m m' tau kept dropped Hp Hm Ht Hle Hperm Hall.
  pose proof (proj1 (threshold_bracket p z m tau Hp Hm Ht)) as Hlo.
  split; [|split].
  - eapply Forall_impl; [|exact Hall]. intros x Hx. simpl in Hx. rewrite pw_gap. apply pw_zero. lra.
  - intros t H. unfold mass, slope. split; apply (drop_scores z kept dropped (m' - 1)); try assumption; lra.
  - apply (drop_tau p z kept dropped (m' - 1) tau); try assumption. lra.
Qed.

(** With f the values, or any other number of each key, the sums are those of mass, slope, output and gradients. *)
Theorem block_mask_superset : forall A (score : A -> R) p keys lo tau kept dropped,
  0 < p -> is_tau p (map score keys) tau -> lo <= tau ->
  Permutation keys (kept ++ dropped) -> Forall (fun k => score k <= lo) dropped ->
  Forall (fun k => pw p (gap (score k) tau) = 0) dropped /\
  (forall q f t, lo <= t ->
    sum (fun k => pw q (gap (score k) t) * f k) kept = sum (fun k => pw q (gap (score k) t) * f k) keys) /\
  (forall t, lo <= t -> mass p (map score kept) t = mass p (map score keys) t /\
                        slope p (map score kept) t = slope p (map score keys) t) /\
  (forall t, is_tau p (map score kept) t <-> is_tau p (map score keys) t).
Proof.
  intros A score p keys lo tau kept dropped Hp Ht Hlo Hperm Hall.
  assert (Hperm' : Permutation (map score keys) (map score kept ++ map score dropped)).
  { rewrite <- map_app. apply Permutation_map. exact Hperm. }
  assert (Hall' : Forall (fun x => x <= lo) (map score dropped)) by (apply Forall_map; exact Hall).
  split; [|split; [|split]].
  - eapply Forall_impl; [|exact Hall]. intros k Hk. simpl in Hk. rewrite pw_gap. apply pw_zero. lra.
  - intros q f t H. apply (drop_keys score f keys kept dropped lo); assumption.
  - intros t H. unfold mass, slope. split; apply (drop_scores _ _ _ lo Hperm' Hall'); exact H.
  - apply (drop_tau p _ _ _ lo tau Hp Ht Hlo Hperm' Hall').
Qed.

(** ** Tiles against a running maximum *)

Lemma raised_below m tile : forall running,
  Forall (fun x => x <= m) tile -> (forall r, running = Some r -> r <= m) ->
  forall r, fold_left raised tile running = Some r -> r <= m.
Proof.
  induction tile as [|x tile IH]; intros running Hall Hr r H; [apply Hr; exact H|].
  inversion Hall as [|x' rest Hx Hrest]; subst. simpl in H. apply (IH (raised running x) Hrest); [|exact H].
  intros r' Hr'. destruct running as [r0|]; simpl in Hr'; injection Hr' as <-; [|exact Hx].
  apply Rmax_lub; [apply Hr; reflexivity | exact Hx].
Qed.

Lemma scan_split m tiles : forall running,
  Forall (fun x => x <= m) (concat tiles) -> (forall r, running = Some r -> r <= m) ->
  exists dropped, Permutation (concat tiles) (scan running tiles ++ dropped) /\ Forall (fun x => x <= m - 1) dropped.
Proof.
  induction tiles as [|tile tiles IH]; intros running Hall Hr; [exists []; split; constructor|].
  cbn [concat scan] in *. apply Forall_app in Hall. destruct Hall as [Htile Htiles].
  set (now := fold_left raised tile running).
  assert (Hnow : forall r, now = Some r -> r <= m) by (intros r; apply raised_below; assumption).
  destruct (IH now Htiles Hnow) as [dropped [Hperm Hdropped]].
  destruct (existsb (in_reach now) tile) eqn:E.
  - exists dropped. split; [|exact Hdropped]. rewrite <- app_assoc. apply Permutation_app_head. exact Hperm.
  - exists (tile ++ dropped). split.
    + simpl. rewrite app_assoc. rewrite (Permutation_app_comm (scan now tiles) tile). rewrite <- app_assoc.
      apply Permutation_app_head. exact Hperm.
    + apply Forall_app. split; [|exact Hdropped]. apply Forall_forall. intros x Hx.
      destruct (in_reach now x) eqn:Ex.
      * assert (existsb (in_reach now) tile = true) by (apply existsb_exists; exists x; split; assumption). congruence.
      * unfold in_reach in Ex. destruct now as [r|] eqn:En; [|discriminate Ex].
        destruct (Rlt_dec (- 1) (x - r)) as [H|H]; [discriminate Ex|]. specialize (Hnow r eq_refl). lra.
Qed.

(** In whatever order the tiles come. *)
Theorem pruning_keeps_threshold : forall p tiles m tau,
  0 < p -> is_max m (concat tiles) -> is_tau p (concat tiles) tau ->
  (forall t, is_tau p (scan None tiles) t <-> is_tau p (concat tiles) t) /\
  (forall t, m - 1 <= t -> mass p (scan None tiles) t = mass p (concat tiles) t /\
                           slope p (scan None tiles) t = slope p (concat tiles) t).
Proof.
  intros p tiles m tau Hp Hm Ht.
  destruct (scan_split m tiles None (proj2 Hm)) as [dropped [Hperm Hdropped]]; [intros r H; discriminate H|].
  destruct (candidate_superset p (concat tiles) m m tau (scan None tiles) dropped Hp Hm Ht ltac:(lra) Hperm Hdropped)
    as [_ [A B]]. split; assumption.
Qed.

(** ** Parts *)

(** Tiles, blocks or devices: sums over parts add up, and so do counts; what a part knows of tau from below holds for all. *)
Theorem merge_parts : forall p (parts : list (list (R * vector))) tau,
  0 < p -> is_tau p (scores (concat parts)) tau ->
  (forall t, mass p (scores (concat parts)) t = sum (fun part => mass p (scores part) t) parts /\
             slope p (scores (concat parts)) t = sum (fun part => slope p (scores part) t) parts) /\
  (forall t i, weighted p (concat parts) t i = sum (fun part => weighted p part t i) parts) /\
  (forall part ta, In part parts -> is_tau p (scores part) ta -> ta <= tau) /\
  (forall bins bins' t, counted_mass p (bins ++ bins') t = counted_mass p bins t + counted_mass p bins' t).
Proof.
  intros p parts tau Hp Ht.
  assert (S : forall f : R * vector -> R, sum f (concat parts) = sum (fun part => sum f part) parts).
  { intros f. clear Ht. induction parts as [|a parts IH]; [reflexivity|]. cbn [concat sum]. rewrite sum_app, IH. reflexivity. }
  split; [|split; [|split]].
  - intros t. unfold mass, slope, scores. rewrite !sum_map, !S. split; apply sum_ext; intros; rewrite sum_map; reflexivity.
  - intros t i. apply S.
  - intros a ta Hin Ha. destruct (threshold_subset p _ tau Hp Ht) as [Sub _]. apply (Sub (scores a)); [|exact Ha].
    destruct (in_split a parts Hin) as [before [after ->]].
    exists (scores (concat before ++ concat after)). unfold scores. rewrite <- map_app. apply Permutation_map.
    rewrite concat_app. cbn [concat]. rewrite app_assoc. rewrite (Permutation_app_comm (concat before) a).
    rewrite app_assoc. reflexivity.
  - intros bins bins' t. apply sum_app.
Qed.
