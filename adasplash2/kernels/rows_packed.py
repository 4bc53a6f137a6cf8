"""What are the probabilities of long rows of 16 bits?  Loaded once, and held as words of two keys."""

import triton
import triton.language as tl

from .packed import PARTS, hidden_words, packed, unpacked
from .power import gap_probs
from .row import ROUGH, ascend, row_order, score_gap, score_threshold
from .tile import any_of, larger_or_nan, row_maximum


@triton.jit
def rows_packed_kernel(
    scores_ptr, probs_ptr, passes_ptr, n_words, row_stride, tolerance, max_passes,
    POWER: tl.constexpr, DTYPE: tl.constexpr, IS_FULL: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Grid (rows,).

    Reads scores as words (n_rows, n_words), int32 of two keys each (packed.py), in PARTS of BLOCK_W, with a row stride
    in words.  Writes contiguous probabilities in the same way, and how many steps the tolerance of each row asked for.
    They are not divided by their sum: where a row has converged that is 1 to its tolerance, 2 ** -17, and 16 bits round
    by 2 ** -12 or more.  The search starts at the threshold of the largest key of each place of all parts, at or left
    of that of the row.  Lemmas: threshold_subset, newton_norm_left, residual_bound
    """
    rows = tl.program_id(0) + tl.arange(0, 1)
    places = tl.arange(0, BLOCK_W)[None, :]
    words_ptr = scores_ptr.to(tl.pointer_type(tl.int32)) + tl.program_id(0).to(tl.int64) * row_stride
    probs_ptr = probs_ptr.to(tl.pointer_type(tl.int32)) + tl.program_id(0).to(tl.int64) * n_words
    parts = ()
    peaks = tl.full([1, BLOCK_W], float("-inf"), tl.float32)
    step, power, _ = row_order(scores_ptr, rows, rows >= 0, 0, POWER)
    rest = step * 0.0
    tau = rest - 1.0
    for i in tl.static_range(PARTS):
        if IS_FULL:
            words = tl.load(words_ptr + i * BLOCK_W + places)
        else:
            inside = i * BLOCK_W + places < n_words
            words = tl.load(words_ptr + i * BLOCK_W + places, mask=inside, other=hidden_words(DTYPE))
        parts = parts + (words,)  # noqa: RUF005 (Triton knows no star)
        first, second = unpacked(words, tau, DTYPE)
        peaks = larger_or_nan(peaks, larger_or_nan(first, second))
    row_max = row_maximum(peaks)
    ordinary = tl.abs(row_max) < float("inf")
    origin = tl.where(ordinary, row_max, 0.0)
    peaks = (peaks - origin[:, None]) * step[:, None]
    tau, rest, _ = ascend(peaks, origin, tau, rest, ordinary, step, power, ROUGH, max_passes, POWER, True, 0)
    tau, rest, passes = ascend(
        parts, origin, tau, rest, ordinary, step, power, tolerance, max_passes, POWER, False, DTYPE
    )
    upper, lower = score_threshold(origin, tau, rest, power)
    is_ordinary = any_of(ordinary) > 0
    for i in tl.static_range(PARTS):
        first, second = unpacked(parts[i], tau, DTYPE)
        if is_ordinary:
            first = gap_probs(score_gap(first, upper, lower) * step[:, None], (power, power), POWER)
            second = gap_probs(score_gap(second, upper, lower) * step[:, None], (power, power), POWER)
        else:
            first = tl.where(first == float("-inf"), 0.0, float("nan"))
            second = tl.where(second == float("-inf"), 0.0, float("nan"))
        found = packed(first, second, DTYPE)
        if IS_FULL:
            tl.store(probs_ptr + i * BLOCK_W + places, found)
        else:
            tl.store(probs_ptr + i * BLOCK_W + places, found, mask=i * BLOCK_W + places < n_words)
    tl.store(passes_ptr + rows, passes)
