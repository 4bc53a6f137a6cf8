(** What of x ** p do the proofs use?  Order, products, continuity, and one inequality: a tangent lies below. *)

From Coq Require Import Reals List Lra.
From Entmax Require Import specification.
Import ListNotations.
Open Scope R_scope.

(** ** Sums *)

Lemma sum_le {A} (f g : A -> R) l : (forall x, In x l -> f x <= g x) -> sum f l <= sum g l.
Proof.
  induction l as [|a l IH]; intros H; simpl; [lra|].
  apply Rplus_le_compat; [apply H; left; auto | apply IH; intros; apply H; right; auto].
Qed.

Lemma sum_lt {A} (f g : A -> R) l x :
  (forall x, In x l -> f x <= g x) -> In x l -> f x < g x -> sum f l < sum g l.
Proof.
  induction l as [|a l IH]; intros H Hin Hx; [destruct Hin|]. simpl.
  destruct Hin as [-> | Hin].
  - apply Rplus_lt_le_compat; [auto | apply sum_le; intros; apply H; right; auto].
  - apply Rplus_le_lt_compat; [apply H; left; auto | apply IH; auto; intros; apply H; right; auto].
Qed.

Lemma sum_ext {A} (f g : A -> R) l : (forall x, In x l -> f x = g x) -> sum f l = sum g l.
Proof.
  intros H. apply Rle_antisym; apply sum_le; intros x Hx; rewrite (H x Hx); lra.
Qed.

Lemma sum_zero {A} (f : A -> R) l : (forall x, In x l -> f x = 0) -> sum f l = 0.
Proof.
  induction l as [|a l IH]; intros H; simpl; [reflexivity|].
  rewrite H by (left; auto). rewrite IH by (intros; apply H; right; auto). ring.
Qed.

Lemma sum_nonneg {A} (f : A -> R) l : (forall x, In x l -> 0 <= f x) -> 0 <= sum f l.
Proof.
  intros H. rewrite <- (sum_zero (fun _ : A => 0) l) by auto. apply sum_le; auto.
Qed.

Lemma sum_app {A} (f : A -> R) a b : sum f (a ++ b) = sum f a + sum f b.
Proof. induction a as [|x a IH]; simpl; [ring | rewrite IH; ring]. Qed.

Lemma sum_plus {A} (f g : A -> R) l : sum (fun x => f x + g x) l = sum f l + sum g l.
Proof. induction l as [|x l IH]; simpl; [ring | rewrite IH; ring]. Qed.

Lemma sum_minus {A} (f g : A -> R) l : sum (fun x => f x - g x) l = sum f l - sum g l.
Proof. induction l as [|x l IH]; simpl; [ring | rewrite IH; ring]. Qed.

Lemma sum_scale {A} (f : A -> R) c l : sum (fun x => c * f x) l = c * sum f l.
Proof. induction l as [|x l IH]; simpl; [ring | rewrite IH; ring]. Qed.

Lemma sum_const {A} c (l : list A) : sum (fun _ => c) l = INR (length l) * c.
Proof.
  induction l as [|x l IH]; [simpl; ring|].
  cbn [sum length]. rewrite S_INR, IH. ring.
Qed.

Lemma sum_map {A B} (f : B -> R) (g : A -> B) l : sum f (map g l) = sum (fun x => f (g x)) l.
Proof. induction l as [|x l IH]; simpl; [reflexivity | rewrite IH; reflexivity]. Qed.

Lemma sum_perm {A} (f : A -> R) a b : Permutation.Permutation a b -> sum f a = sum f b.
Proof. induction 1; simpl; lra. Qed.

Lemma sum_le_one {A} (f : A -> R) l x : (forall x, In x l -> 0 <= f x) -> In x l -> f x <= sum f l.
Proof.
  induction l as [|a l IH]; intros H Hin; [destruct Hin|]. simpl.
  assert (0 <= f a) by (apply H; left; auto).
  assert (0 <= sum f l) by (apply sum_nonneg; intros; apply H; right; auto).
  destruct Hin as [-> | Hin]; [lra|].
  assert (f x <= sum f l) by (apply IH; auto; intros; apply H; right; auto). lra.
Qed.

Lemma sum_pos_exists {A} (f : A -> R) l : 0 < sum f l -> exists x, In x l /\ 0 < f x.
Proof.
  induction l as [|a l IH]; simpl; intros H; [lra|].
  destruct (Rlt_dec 0 (f a)) as [Ha|Ha].
  - exists a; auto.
  - destruct IH as [x [Hx Hf]]; [lra|]. exists x; auto.
Qed.

Lemma sum_forall2 {A B} (f : A -> R) (g : B -> R) (rel : A -> B -> Prop) a b :
  Forall2 rel a b -> (forall x y, rel x y -> f x <= g y) -> sum f a <= sum g b.
Proof.
  intros H Hle. induction H as [|x y a b Hxy H IH]; simpl; [lra|].
  specialize (Hle x y Hxy). lra.
Qed.

Lemma sum_continuous {A} (f : A -> R -> R) l t :
  (forall x, In x l -> continuity_pt (f x) t) -> continuity_pt (fun t => sum (fun x => f x t) l) t.
Proof.
  induction l as [|a l IH]; intros H; simpl.
  - apply continuity_pt_const. intros x y. reflexivity.
  - apply (continuity_pt_plus (f a)); [apply H; left; auto | apply IH; intros; apply H; right; auto].
Qed.

Lemma abs_le x a : Rabs x <= a -> - a <= x <= a.
Proof. intros H. pose proof (Rle_abs x). pose proof (Rle_abs (- x)). rewrite Rabs_Ropp in *. lra. Qed.

(** ** The power *)

Lemma pw_zero p x : x <= 0 -> pw p x = 0.
Proof. unfold pw. destruct (Rlt_dec 0 x); lra. Qed.

Lemma pw_Rpower p x : 0 < x -> pw p x = Rpower x p.
Proof. unfold pw. destruct (Rlt_dec 0 x); lra. Qed.

Lemma Rpower_pos x p : 0 < Rpower x p.
Proof. apply exp_pos. Qed.

Lemma pw_pos p x : 0 < x -> 0 < pw p x.
Proof. intros H. rewrite pw_Rpower by exact H. apply Rpower_pos. Qed.

Lemma pw_nonneg p x : 0 <= pw p x.
Proof. unfold pw. destruct (Rlt_dec 0 x); [left; apply Rpower_pos | lra]. Qed.

Lemma pw_pos_inv p x : 0 < pw p x -> 0 < x.
Proof. intros H. destruct (Rlt_dec 0 x) as [Hx|Hx]; [exact Hx|]. rewrite pw_zero in H; lra. Qed.

Lemma pw_one p : pw p 1 = 1.
Proof. rewrite pw_Rpower by lra. unfold Rpower. rewrite ln_1, Rmult_0_r. apply exp_0. Qed.

Lemma pw_0 x : 0 < x -> pw 0 x = 1.
Proof. intros H. rewrite pw_Rpower by exact H. apply Rpower_O. exact H. Qed.

Lemma pw_1 x : 0 <= x -> pw 1 x = x.
Proof.
  intros [H|H]; [rewrite pw_Rpower by exact H; apply Rpower_1; exact H | subst; apply pw_zero; lra].
Qed.

Lemma pw_plus p q x : pw (p + q) x = pw p x * pw q x.
Proof.
  unfold pw. destruct (Rlt_dec 0 x); [apply Rpower_plus | ring].
Qed.

Lemma pw_2 x : 0 <= x -> pw 2 x = x * x.
Proof. intros H. replace 2 with (1 + 1) by ring. rewrite pw_plus, pw_1 by exact H. reflexivity. Qed.

(** x ** p = x * x ** (p - 1), the link between mass and slope. *)
Lemma pw_step p x : 0 <= x -> pw p x = x * pw (p - 1) x.
Proof. intros H. replace p with (1 + (p - 1)) at 1 by ring. rewrite pw_plus, pw_1 by exact H. reflexivity. Qed.

Lemma pw_pw p q x : pw q (pw p x) = pw (p * q) x.
Proof.
  destruct (Rlt_dec 0 x) as [H|H].
  - rewrite (pw_Rpower p x), (pw_Rpower (p * q) x) by exact H.
    rewrite pw_Rpower by apply Rpower_pos. apply Rpower_mult.
  - rewrite (pw_zero p x), (pw_zero (p * q) x), pw_zero by lra. reflexivity.
Qed.

Lemma pw_mult p x y : 0 <= x -> 0 <= y -> pw p (x * y) = pw p x * pw p y.
Proof.
  intros [Hx|<-] [Hy|<-].
  - rewrite !pw_Rpower by (try apply Rmult_lt_0_compat; assumption).
    symmetry. apply Rpower_mult_distr; assumption.
  - rewrite Rmult_0_r, pw_zero by lra. ring.
  - rewrite Rmult_0_l, (pw_zero p 0) by lra. ring.
  - rewrite Rmult_0_l, pw_zero by lra. ring.
Qed.

Lemma pw_lt p x y : 0 < p -> 0 <= x -> x < y -> pw p x < pw p y.
Proof.
  intros Hp [Hx|<-] Hxy.
  - rewrite !pw_Rpower by lra. unfold Rpower. apply exp_increasing.
    apply Rmult_lt_compat_l; [exact Hp | apply ln_increasing; assumption].
  - rewrite (pw_zero p 0) by lra. apply pw_pos. exact Hxy.
Qed.

Lemma pw_le p x y : 0 <= p -> x <= y -> pw p x <= pw p y.
Proof.
  intros Hp Hxy. destruct (Rlt_dec 0 x) as [Hx|Hx].
  - rewrite !pw_Rpower by lra. apply Rle_Rpower_l; lra.
  - rewrite (pw_zero p x) by lra. apply pw_nonneg.
Qed.

Lemma pw_inverse p x : 0 < p -> 0 <= x -> pw (/ p) (pw p x) = x.
Proof.
  intros Hp Hx. rewrite pw_pw, Rinv_r by lra. apply pw_1. exact Hx.
Qed.

Lemma pw_inverse' p x : 0 < p -> 0 <= x -> pw p (pw (/ p) x) = x.
Proof.
  intros Hp Hx. rewrite pw_pw, Rinv_l by lra. apply pw_1. exact Hx.
Qed.

Lemma pw_le_id p x : 1 <= p -> 0 <= x <= 1 -> pw p x <= x.
Proof.
  intros Hp [Hx Hx1]. rewrite pw_step by exact Hx.
  assert (pw (p - 1) x <= pw (p - 1) 1) by (apply pw_le; lra). rewrite pw_one in H.
  rewrite <- (Rmult_1_r x) at 3. apply Rmult_le_compat_l; assumption.
Qed.

Lemma pw_gap p x t : pw p (gap x t) = pw p (x - t).
Proof.
  unfold gap, Rmax. destruct (Rle_dec (x - t) 0); [rewrite !pw_zero; lra | reflexivity].
Qed.

Lemma pw_derivative p x : 0 < x -> derivable_pt_lim (pw p) x (p * pw (p - 1) x).
Proof.
  intros Hx. rewrite pw_Rpower by exact Hx. intros eps Heps.
  destruct (derivable_pt_lim_power x p Hx eps Heps) as [d Hd].
  assert (Hm : 0 < Rmin d x) by (apply Rmin_pos; [apply cond_pos | exact Hx]).
  exists (mkposreal _ Hm). simpl. intros h Hh Hsmall.
  assert (Rabs h < d) by (eapply Rlt_le_trans; [exact Hsmall | apply Rmin_l]).
  assert (Rabs h < x) by (eapply Rlt_le_trans; [exact Hsmall | apply Rmin_r]).
  assert (- Rabs h <= h) by (pose proof (Rle_abs (- h)); rewrite Rabs_Ropp in *; lra).
  rewrite !pw_Rpower by lra. apply Hd; assumption.
Qed.

(** Below 0 the function is constant. *)
Lemma pw_derivative_left p x : x < 0 -> derivable_pt_lim (pw p) x (p * pw (p - 1) x).
Proof.
  intros Hx. rewrite pw_zero by lra. rewrite Rmult_0_r. intros eps Heps.
  assert (Hm : 0 < - x) by lra. exists (mkposreal _ Hm). simpl. intros h Hh Hsmall.
  pose proof (Rle_abs h). rewrite !pw_zero by lra.
  replace ((0 - 0) / h - 0) with 0 by (field; exact Hh). rewrite Rabs_R0. exact Heps.
Qed.

Lemma pw_derivative_zero p : 1 < p -> derivable_pt_lim (pw p) 0 (p * pw (p - 1) 0).
Proof.
  intros Hp. rewrite (pw_zero (p - 1)) by lra. rewrite Rmult_0_r. intros eps Heps.
  assert (Hm : 0 < pw (/ (p - 1)) eps) by (apply pw_pos; exact Heps).
  exists (mkposreal _ Hm). simpl. intros h Hh Hsmall.
  rewrite Rplus_0_l, (pw_zero p 0) by lra. rewrite !Rminus_0_r.
  destruct (Rlt_dec 0 h) as [Hpos|Hneg].
  - rewrite pw_step by lra. replace (h * pw (p - 1) h / h) with (pw (p - 1) h) by (field; lra).
    rewrite Rabs_pos_eq by apply pw_nonneg. rewrite Rabs_pos_eq in Hsmall by lra.
    rewrite <- (pw_inverse' (p - 1) eps) by lra. apply pw_lt; lra.
  - rewrite pw_zero by lra. unfold Rdiv. rewrite Rmult_0_l, Rabs_R0. exact Heps.
Qed.

Lemma pw_continuous p x : 0 < p -> continuity_pt (pw p) x.
Proof.
  intros Hp. destruct (Rtotal_order x 0) as [Hx|[->|Hx]].
  - apply derivable_continuous_pt. exists (p * pw (p - 1) x). apply pw_derivative_left. exact Hx.
  - intros eps Heps. exists (pw (/ p) eps). split; [apply pw_pos; exact Heps|].
    intros y [[_ Hy] Hd]. simpl in *. unfold R_dist in *. rewrite Rminus_0_r in Hd.
    rewrite (pw_zero p 0), Rminus_0_r, Rabs_pos_eq by (try apply pw_nonneg; lra).
    destruct (Rlt_dec 0 y) as [Hpos|Hneg].
    + rewrite Rabs_pos_eq in Hd by lra. rewrite <- (pw_inverse' p eps) by lra. apply pw_lt; lra.
    + rewrite pw_zero by lra. exact Heps.
  - apply derivable_continuous_pt. exists (p * pw (p - 1) x). apply pw_derivative. exact Hx.
Qed.

(** Bernoulli, from the mean value theorem. *)
Lemma bernoulli p r : 1 <= p -> 0 < r -> 1 + p * (r - 1) <= pw p r.
Proof.
  intros Hp Hr.
  assert (D : forall c, 0 < c -> derivable_pt_lim (pw p) c (p * pw (p - 1) c)) by (intros; apply pw_derivative; auto).
  destruct (Rtotal_order r 1) as [H|[->|H]].
  - destruct (MVT_cor2 (pw p) (fun c => p * pw (p - 1) c) r 1 H) as [c [Hc [H1 H2]]].
    { intros c Hc. apply D. lra. }
    rewrite pw_one in Hc.
    assert (pw (p - 1) c <= pw (p - 1) 1) by (apply pw_le; lra). rewrite pw_one in *.
    assert (p * pw (p - 1) c * (1 - r) <= p * (1 - r)).
    { apply Rmult_le_compat_r; [lra | nra]. }
    lra.
  - rewrite pw_one. lra.
  - destruct (MVT_cor2 (pw p) (fun c => p * pw (p - 1) c) 1 r H) as [c [Hc [H1 H2]]].
    { intros c Hc. apply D. lra. }
    rewrite pw_one in Hc.
    assert (pw (p - 1) 1 <= pw (p - 1) c) by (apply pw_le; lra). rewrite pw_one in *.
    assert (p * (r - 1) <= p * pw (p - 1) c * (r - 1)).
    { apply Rmult_le_compat_r; [lra | nra]. }
    lra.
Qed.

Lemma tangent p a b : 1 <= p -> pw p a + p * pw (p - 1) a * (b - a) <= pw p b.
Proof.
  intros Hp. destruct (Rlt_dec 0 a) as [Ha|Ha].
  - assert (Hpow : pw p a = a * pw (p - 1) a) by (apply pw_step; lra).
    assert (0 < pw (p - 1) a) by (apply pw_pos; exact Ha).
    destruct (Rlt_dec 0 b) as [Hb|Hb].
    + assert (Hr : 0 < b / a) by (apply Rdiv_lt_0_compat; assumption).
      pose proof (bernoulli p (b / a) Hp Hr) as B.
      assert (E : pw p b = pw p a * pw p (b / a)).
      { rewrite <- pw_mult by lra. f_equal. field. lra. }
      rewrite E. assert (0 < pw p a) by (apply pw_pos; exact Ha).
      apply Rle_trans with (pw p a * (1 + p * (b / a - 1))).
      * right. rewrite Hpow. field. lra.
      * apply Rmult_le_compat_l; lra.
    + rewrite (pw_zero p b) by lra. rewrite Hpow.
      replace (a * pw (p - 1) a + p * pw (p - 1) a * (b - a)) with (pw (p - 1) a * (a * (1 - p) + p * b)) by ring.
      assert (a * (1 - p) + p * b <= 0).
      { assert (0 <= a * (p - 1)) by (apply Rmult_le_pos; lra).
        assert (0 <= p * - b) by (apply Rmult_le_pos; lra). lra. }
      rewrite <- (Rmult_0_r (pw (p - 1) a)). apply Rmult_le_compat_l; lra.
  - rewrite !(pw_zero _ a) by lra. pose proof (pw_nonneg p b). lra.
Qed.

(** x ** q lies below its tangent at 1 for 0 <= q <= 1. *)
Lemma concave_tangent q x : 0 <= q <= 1 -> 0 < x -> pw q x <= 1 + q * (x - 1).
Proof.
  intros [[Hq|<-] Hq1] Hx.
  - assert (Hp : 1 <= / q) by (rewrite <- Rinv_1; apply Rinv_le_contravar; lra).
    pose proof (bernoulli (/ q) (pw q x) Hp (pw_pos q x Hx)) as B.
    rewrite pw_inverse in B by lra.
    assert (q * (1 + / q * (pw q x - 1)) <= q * x) by (apply Rmult_le_compat_l; lra).
    replace (q * (1 + / q * (pw q x - 1))) with (q + pw q x - 1) in H by (field; lra). lra.
  - rewrite pw_0 by exact Hx. lra.
Qed.
