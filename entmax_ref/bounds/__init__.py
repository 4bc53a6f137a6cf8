"""How wrong may a result be?  Proven error bounds as functions of the inputs: the oracle's, and each kernel stage's.

`threshold` and `entmax` bound the float64 oracle. The others bound what the stages in ``adasplash2/kernels`` compute in
float32 from operands in bfloat16, float16 or float32, against exact arithmetic on the same operands. They are rigorous
under the model below and need not be tight.

The model. Operations of float32 round to nearest with unit roundoff u = 2**-24, and lose at most 2**-126 more where a
result underflows. A sum may be formed in any order. A product of matrices of 16 bit operands multiplies exactly and may
truncate each addend to 24 bits of the largest one, as matrix units do; one of float32 operands rounds products and sums
as float32 does. Nothing overflows, and no operand is NaN or infinite.

One head at a time: matrices (n_queries, head_dim) and (n_keys, head_dim), with any leading axes that broadcast. For
grouped heads, join the queries of a group along their axis: the bounds of d_key and d_value then hold for the group.
"""

from entmax_ref.bounds.backward import centre, d_key, d_query, d_value, delta
from entmax_ref.bounds.model import Operand, gamma, product_gamma, sum_gamma
from entmax_ref.bounds.oracle import entmax, threshold
from entmax_ref.bounds.output import output
from entmax_ref.bounds.refine import mass, tau
from entmax_ref.bounds.rows import Rows
from entmax_ref.bounds.scores import exact_rows, scores

__all__ = [
    "Operand",
    "Rows",
    "centre",
    "d_key",
    "d_query",
    "d_value",
    "delta",
    "entmax",
    "exact_rows",
    "gamma",
    "mass",
    "output",
    "product_gamma",
    "scores",
    "sum_gamma",
    "tau",
    "threshold",
]
