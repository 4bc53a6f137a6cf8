(** What do the theorems speak of?  Definitions alone: no other file of the development defines anything.

    A row is a list of real scores z, times (alpha - 1) already.  Alpha enters as p = 1 / (alpha - 1) > 0, the power. *)

From Coq Require Import Reals List Permutation ZArith.
Import ListNotations.
Open Scope R_scope.

(** Sum of [f x] over a list. *)
Fixpoint sum {A : Type} (f : A -> R) (l : list A) : R :=
  match l with
  | [] => 0
  | x :: rest => f x + sum f rest
  end.

(** ** Row, mass, threshold *)

(** x ** p for x > 0, and 0 at and below 0.  So [pw 0 x] is 1 if x > 0 and 0 otherwise. *)
Definition pw (p x : R) : R := if Rlt_dec 0 x then Rpower x p else 0.

Definition gap (x t : R) : R := Rmax (x - t) 0.

Definition mass (p : R) (z : list R) (t : R) : R := sum (fun x => pw p (gap x t)) z.

(** The derivative of [mass] is - p * [slope].  For p = 1 this is the count of scores above t. *)
Definition slope (p : R) (z : list R) (t : R) : R := sum (fun x => pw (p - 1) (gap x t)) z.

Definition is_tau (p : R) (z : list R) (tau : R) : Prop := mass p z tau = 1.

Definition is_max (m : R) (z : list R) : Prop := In m z /\ Forall (fun x => x <= m) z.

(** A part of a list: some of its members, each as often as it is there at most. *)
Definition part {A : Type} (a z : list A) : Prop := exists rest, Permutation z (a ++ rest).

Definition alpha (p : R) : R := 1 + / p.

(** ** Histogram *)

(** The word in which each event of a list adds 1 to the field of b bits that it names, and what a field reads. *)
Fixpoint word (b : nat) (events : list nat) : Z :=
  match events with
  | [] => 0%Z
  | f :: rest => (2 ^ Z.of_nat (b * f) + word b rest)%Z
  end.

Definition field (b : nat) (w : Z) (f : nat) : Z := ((w / 2 ^ Z.of_nat (b * f)) mod 2 ^ Z.of_nat b)%Z.

Definition count (events : list nat) (f : nat) : Z := Z.of_nat (count_occ Nat.eq_dec events f).

(** The row that has each edge as often as its count says, and its mass from the counts alone. *)
Definition counted (bins : list (R * nat)) : list R := concat (map (fun bin => repeat (fst bin) (snd bin)) bins).

Definition counted_mass (p : R) (bins : list (R * nat)) (t : R) : R :=
  sum (fun bin => INR (snd bin) * pw p (gap (fst bin) t)) bins.

(** ** Refinement *)

(** Newton's step on mass ** (1 / p), to be added to t. *)
Definition norm_step (p mass slope : R) : R := (mass - pw (1 - / p) mass) / slope.

(** [below] is a proved lower bound of tau; [above] an upper one if the mass is at least 1. *)
Definition next_lo (p : R) (z : list R) (t lo below : R) : R :=
  Rmax (if Rle_dec 1 (mass p z t) then Rmax lo t else lo) below.

Definition next_hi (p : R) (z : list R) (t hi above : R) : R :=
  let tightened := if Rle_dec (mass p z t) 1 then Rmin hi t else hi in
  if Rle_dec 1 (mass p z t) then Rmin tightened above else tightened.

(** A proposal that is not a number is [None]. *)
Definition accepted (lo hi : R) (proposal : option R) (otherwise : R) : R :=
  match proposal with
  | Some s => if Rle_dec lo s then if Rle_dec s hi then s else otherwise else otherwise
  | None => otherwise
  end.

(** Halley's step on mass - 1, to be added to t. *)
Definition curve (p : R) (z : list R) (t : R) : R := sum (fun x => pw (p - 2) (gap x t)) z.

Definition halley_step (p : R) (z : list R) (t : R) : R :=
  let f := mass p z t - 1 in
  let f' := - p * slope p z t in
  let f'' := p * (p - 1) * curve p z t in
  - (2 * f * f') / (2 * (f' * f') - f * f'').

(** ** Output *)

Definition vector : Type := nat -> R.

(** Any norm of vectors; that it is positive is not needed. *)
Definition is_norm (norm : vector -> R) : Prop :=
  (forall x y, norm (fun i => x i + y i) <= norm x + norm y) /\
  (forall c x, norm (fun i => c * x i) = Rabs c * norm x).

(** A key has a score and a value. *)
Definition scores (keys : list (R * vector)) : list R := map fst keys.

Definition weighted (p : R) (keys : list (R * vector)) (t : R) : vector :=
  fun i => sum (fun k => pw p (gap (fst k) t) * snd k i) keys.

(** ** Gradient: keys are numbered from 0 to n - 1 *)

Definition total (n : nat) (f : nat -> R) : R := sum f (seq 0 n).

(** The row of the scores [score i + h * direction i], in the unit of tau. *)
Definition moved (p : R) (score direction : nat -> R) (h : R) (i : nat) : R := (score i + h * direction i) / p.

Definition moved_row (p : R) (n : nat) (score direction : nat -> R) (h : R) : list R :=
  map (moved p score direction h) (seq 0 n).

Definition prob (p x tau : R) : R := pw p (gap x tau).

Definition sensitivity (p x tau : R) : R := pw (2 - alpha p) (prob p x tau).

(** diag(s) - s s^T / sum(s) *)
Definition jacobian (n : nat) (s : nat -> R) (i j : nat) : R :=
  (if Nat.eq_dec i j then s i else 0) - s i * s j / total n s.

Definition dot (d : nat) (x y : vector) : R := total d (fun c => x c * y c).

(** The mean of the values, weighted by the sensitivities. *)
Definition centre (n : nat) (s : nat -> R) (value : nat -> vector) : vector :=
  fun c => total n (fun i => s i * value i c) / total n s.
