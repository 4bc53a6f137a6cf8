(** What do the theorems speak of?  Definitions alone: no other file of the development defines anything.

    A row is a list of real scores z, times (alpha - 1) already.  Alpha enters as p = 1 / (alpha - 1) > 0, the power. *)

From Coq Require Import Reals List Permutation.
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

(** A part of a row: some of its scores, each as often as it is there at most. *)
Definition part {A : Type} (a z : list A) : Prop := exists rest, Permutation z (a ++ rest).

Definition alpha (p : R) : R := 1 + / p.
