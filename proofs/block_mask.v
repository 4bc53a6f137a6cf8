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
