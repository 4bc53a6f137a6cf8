(** What do the theorems speak of?  Definitions alone: no other file of the development defines anything.

    A row is a list of real scores z, times (alpha - 1) already.  Alpha enters as p = 1 / (alpha - 1) > 0, the power. *)

From Coq Require Import Reals List Permutation ZArith.
From Flocq Require Import Core.
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

(** The root of a counted row that lies below [base], from its count and the sums of c * w and c * w ** 2, where the bins
    lie w >= 0 above [base]; to be taken off it. *)
Definition knot_root (p count first second : R) : R :=
  if Req_EM_T p 1 then (1 - first) / count
  else (1 - second) / (first + sqrt (first * first + count * (1 - second))).

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

(** One pass of the refinement from (t, lo, hi), as the kernel makes it; [slack] is what it takes off for rounding, and
    [retreat] any point to go to when a proposal fails: the middle, the lower end, or the nearest Newton point so far. *)
Definition refine_step (p : R) (z : list R) (tolerance slack retreat : R) (proposal : option R) (at_ : R * R * R)
  : R * R * R :=
  let '(t, lo, hi) := at_ in
  let f := mass p z t in
  let lo' := Rmax lo (t + norm_step p f (slope p z t) - slack) in
  let hi' := if Rlt_dec f 1 then Rmin hi t else Rmin hi (t + (f - 1)) in
  let otherwise := if Rle_dec (Rabs (f - 1)) tolerance then t else Rmin retreat hi' in
  let next := match proposal with
    | Some s => if Rle_dec (Rmax s lo') hi' then Rmax s lo' else otherwise
    | None => otherwise
    end in
  (Rmax next lo', lo', hi').

(** Passes with these proposals, retreats and slacks, until the mass is within the tolerance; also where it was then evaluated. *)
Fixpoint refine_loop (p : R) (z : list R) (tolerance : R) (passes : list (option R * R * R)) (at_ : R * R * R)
  : (R * R * R) * option R :=
  match passes with
  | [] => (at_, None)
  | (proposal, retreat, slack) :: rest =>
      let t := fst (fst at_) in
      let next := refine_step p z tolerance slack retreat proposal at_ in
      if Rle_dec (Rabs (mass p z t - 1)) tolerance then (next, Some t) else refine_loop p z tolerance rest next
  end.

(** Halley's step on mass - 1, to be added to t. *)
Definition curve (p : R) (z : list R) (t : R) : R := sum (fun x => pw (p - 2) (gap x t)) z.

Definition halley_step (p : R) (z : list R) (t : R) : R :=
  let f := mass p z t - 1 in
  let f' := - p * slope p z t in
  let f'' := p * (p - 1) * curve p z t in
  - (2 * f * f') / (2 * (f' * f') - f * f'').

(** ** Candidates *)

Definition raised (running : option R) (x : R) : option R :=
  match running with
  | None => Some x
  | Some r => Some (Rmax r x)
  end.

Definition in_reach (running : option R) (x : R) : bool :=
  match running with
  | None => true
  | Some r => if Rlt_dec (- 1) (x - r) then true else false
  end.

(** The scores of the tiles that are kept: those with a score less than 1 below the maximum so far, their own included. *)
Fixpoint scan (running : option R) (tiles : list (list R)) : list R :=
  match tiles with
  | [] => []
  | tile :: rest =>
      let now := fold_left raised tile running in
      (if existsb (in_reach now) tile then tile else []) ++ scan now rest
  end.

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

(** What the backward pass forms for each key of a row. *)
Definition score_gradient (n d : nat) (s : nat -> R) (value : nat -> vector) (d_out : vector) (j : nat) : R :=
  s j * (dot d (value j) d_out - dot d (centre n s value) d_out).

(** One query; [attention_z] in the unit of tau. *)
Definition attention_z (p : R) (e : nat) (scale : R) (query : vector) (key : nat -> vector) (j : nat) : R :=
  scale * dot e query (key j) / p.

Definition attention_row (p : R) (n e : nat) (scale : R) (query : vector) (key : nat -> vector) : list R :=
  map (attention_z p e scale query key) (seq 0 n).

Definition attention_out (p : R) (n e : nat) (scale : R) (query : vector) (key value : nat -> vector) (tau : R) : vector :=
  fun c => total n (fun j => prob p (attention_z p e scale query key j) tau * value j c).

(** x + h * y *)
Definition shifted (x y : vector) (h : R) : vector := fun c => x c + h * y c.

(** ** Floats: binary32 with gradual underflow, round to nearest even, no largest number *)

Definition fl (x : R) : R := round radix2 (FLT_exp (-149) 24) ZnearestE x.

Definition is_float (x : R) : Prop := generic_format radix2 (FLT_exp (-149) 24) x.

Definition u : R := / 2 ^ 24.

(** A sum in some order and grouping, exact and rounded. *)
Inductive tree : Type :=
  | Leaf (x : R)
  | Node (a b : tree).

Fixpoint depth (t : tree) : nat :=
  match t with
  | Leaf _ => 0
  | Node a b => S (max (depth a) (depth b))
  end.

Fixpoint terms (t : tree) : list R :=
  match t with
  | Leaf x => [x]
  | Node a b => terms a ++ terms b
  end.

Fixpoint float_sum (t : tree) : R :=
  match t with
  | Leaf x => x
  | Node a b => fl (float_sum a + float_sum b)
  end.

Definition exact_sum (t : tree) : R := sum (fun x => x) (terms t).

(** A total and what its last addition rounded away, which goes into the next term. *)
Definition add_compensated (state : R * R) (x : R) : R * R :=
  let y := fl (x + snd state) in
  let larger := Rmax (fst state) y in
  let smaller := Rmin (fst state) y in
  let total := fl (larger + smaller) in
  (total, fl (smaller - fl (total - larger))).

Definition compensated (tile_sums : list R) : R :=
  let state := fold_left add_compensated tile_sums (0, 0) in
  fl (fst state + snd state).

(** How far an operation that is not rounded to nearest may be off: four units of roundoff, or next to nothing. *)
Definition approximates (computed exact : R) : Prop := Rabs (computed - exact) <= 4 * u * Rabs exact + / 2 ^ 100.

(** The lower bound of the refinement: t + step - slack - 2 ** -23, from left to right. *)
Definition float_bound (t step slack : R) : R := fl (fl (fl (t + step) - slack) - / 2 ^ 23).

(** ** The bound of the dense pass, in floats *)

(** An operation that is rounded to nearest, or not at all: as the product is in a fused multiply-add. *)
Definition rounds (computed exact : R) : Prop :=
  Rabs (computed - exact) <= u * Rabs exact + / 2 ^ 100 /\ (0 <= exact -> 0 <= computed).

Definition total_count (bins : list (R * nat)) : R := sum (fun bin => INR (snd bin)) bins.

(** Bins that the scan has passed, each with its distance below the maximum and its count, the nearest last; how far down
    it is, and the sums of c * w and c * w ** 2 as computed there. It passes as long as the mass is below 1. The product
    c * w may be fused into one sum and rounded for the other. *)
Inductive passed (p : R) : list (R * nat) -> R -> R -> R -> Prop :=
  | Passed_none : passed p [(0, 1%nat)] 0 0 0
  | Passed_next bins base first second edge held width linear linear' cross square half first' second' :
      passed p bins base first second -> base <= edge <= 1 ->
      rounds width (edge - base) -> rounds linear (total_count bins * width) -> rounds first' (first + linear) ->
      rounds linear' (total_count bins * width) -> rounds cross (2 * first * width) -> rounds square (linear' * width) ->
      rounds half (second + cross) -> rounds second' (half + square) ->
      (p = 1 -> first' < 1) -> (p = 2 -> second' < 1) ->
      passed p ((edge, held) :: bins) edge first' second'.

(** [knot_root] as computed, for p = 1 and p = 2. *)
Definition computed_root (p count first second root : R) : Prop :=
  (p = 1 -> exists rest, rounds rest (1 - first) /\ approximates root (rest / count)) /\
  (p = 2 -> exists rest square product radicand radix bottom,
    rounds rest (Rmax (1 - second) 0) /\ rounds square (first * first) /\ rounds product (count * rest) /\
    rounds radicand (square + product) /\ approximates radix (sqrt radicand) /\ rounds bottom (first + radix) /\
    approximates root (rest / bottom)).

(** The bins of twelfths on an absolute grid; [excess] is how far the largest maximum lies above the edge of its own. *)
Definition level (x : R) : Z := Zfloor (fl (12 * x)).

Definition far_edge (top excess x edge : R) : Prop :=
  exists below far, (0 <= below <= 7)%Z /\ level x = (level top - below)%Z /\
    rounds far (excess + IZR below) /\ approximates edge (far / 12).

Definition row_below (bins : list (R * nat)) : list R := counted (map (fun bin => (- fst bin, snd bin)) bins).
