"""How are whole arrays of rows solved, exactly and fast?  The fast path, in three rooms.

`entmax_ref.oracle` is the text; this package returns the same for arrays, and everything else here is built on it.

- `chunks`: which keys of which rows are looked at. It buys speed alone.
- `roots`: the root of those keys. One way for each range of alpha, each in the unknown that keeps its digits.
- `exact_support`: the keys within rounding of tau, decided without rounding. It buys the support alone.

`threshold` is the entrance, and `jacobian` what derivatives, losses and attention take from solved rows. Imports point
from `jacobian` to `threshold`, on to `chunks`, from there to `exact_support` and `roots`, and from `exact_support` to
`roots`.
"""
