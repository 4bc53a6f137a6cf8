"""What are the probabilities of rows that fit on chip?  They are loaded once, and stored once."""

import triton
import triton.language as tl

from .row import load_rows, root_in_hand, row_order, row_probs, store_rows
from .tile import row_maximum


@triton.jit
def rows_whole_kernel(
    scores_ptr, alpha_ptr, probs_ptr, passes_ptr, n_rows, n_keys, row_stride, alpha_stride, tolerance, max_passes,
    POWER: tl.constexpr, IS_FULL: tl.constexpr, GROUPS: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of ROWS rows,).

    Reads scores (n_rows, n_keys), of any row stride, and for POWER 0 alpha, float32 (n_rows,), of any stride.  Writes
    contiguous probabilities of the dtype of ``probs_ptr``, and how many steps the tolerance of each row asked for.
    The probabilities are divided by their sum, which takes what the rounding of tau has left.
    Lemmas: newton_norm_left, residual_bound, normalised_output
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = rows < n_rows
    inside = exists[:, None] & (tl.arange(0, BLOCK_N) < n_keys)[None, :]
    scores = load_rows(scores_ptr, rows, row_stride, inside, float("-inf"), IS_FULL, BLOCK_N)
    step, power, known = row_order(alpha_ptr, rows, exists, alpha_stride, POWER)
    row_max = row_maximum(scores)
    ordinary = (tl.abs(row_max) < float("inf")) & known
    z = (scores - tl.where(ordinary, row_max, 0.0)[:, None]) * step[:, None]
    tau, rest, passes = root_in_hand(z, ordinary, step, power, tolerance, max_passes, POWER, GROUPS)
    _, probs = row_probs(z, tau, rest, power, POWER)
    probs = probs * (1.0 / tl.sum(probs, axis=1))[:, None]
    # Of other rows z is a multiple of the scores: a hidden key is -inf, and a row without a key nothing else.  (To hold
    # the scores themselves would take registers.)
    special = tl.where(z == float("-inf"), 0.0, float("nan"))
    probs = tl.where(ordinary[:, None], probs, special)
    store_rows(probs_ptr, rows, n_keys, probs, inside, IS_FULL, BLOCK_N)
    tl.store(passes_ptr + rows, passes, mask=exists)
