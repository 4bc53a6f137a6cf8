"""Between which numbers do tau and the probabilities provably lie?  Ball arithmetic, or rationals for alpha 2.

- `prove`: the entrance.
- `balls`, `rationals`: the two methods. Each solves one row and says what is proven of it.
- `found`, `certificate`: what is proven so far, and in the end.
- `split`: numbers with more digits than a float64.
"""

from entmax_ref.certify.certificate import Certificate
from entmax_ref.certify.prove import certify

__all__ = ["Certificate", "certify"]
