"""What are the gradients of scores and alpha, given the probabilities of rows and their gradient?

``s = probs ** (2 - alpha)``, ``d_scores = s * (d_probs - sum(s * d_probs) / sum(s))``.  Keys outside the support are
not read.  Lemma: skipped_keys_have_no_gradient
"""

import triton
import triton.language as tl

from .alpha_weight import alpha_weight
from .logarithm import LOG2_E, log_of
from .row import load_rows, row_order, store_rows
from .rows_blocks import key_block


@triton.jit
def probs_sensitivity(probs, step, POWER: tl.constexpr):
    """Return ``probs ** (2 - alpha)`` on the support and 0 outside; float32.  NaN stays NaN.  Lemma: jacobian_form"""
    if POWER == 1:
        found = tl.where(probs > 0.0, 1.0, probs)
    elif POWER == 2:
        found = tl.sqrt(probs)
    else:
        safe = tl.where(probs > 0.0, probs, 1.0)
        found = tl.where(probs > 0.0, tl.exp2(log_of(safe) * ((1.0 - step) * LOG2_E)), probs)
    return found


@triton.jit
def weighted_mean(weighted, total):
    """Return ``weighted / total``, 0 for a row without support."""
    return weighted / tl.where(total == 0.0, 1.0, total)


@triton.jit
def rows_backward_whole_kernel(
    probs_ptr, d_probs_ptr, alpha_ptr, d_scores_ptr, d_alpha_ptr,
    n_rows, n_keys, row_stride, d_row_stride, alpha_stride,
    POWER: tl.constexpr, OF_ALPHA: tl.constexpr, IS_FULL: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of ROWS rows,).

    Reads probs and d_probs (n_rows, n_keys), of any row stride.  Writes contiguous d_scores and, if OF_ALPHA, d_alpha
    of each row, float32 (n_rows,).  Lemmas: jacobian_form, jacobian_rows_zero
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = rows < n_rows
    inside = exists[:, None] & (tl.arange(0, BLOCK_N) < n_keys)[None, :]
    probs = load_rows(probs_ptr, rows, row_stride, inside, 0.0, IS_FULL, BLOCK_N)
    d_probs = load_rows(d_probs_ptr, rows, d_row_stride, inside, 0.0, IS_FULL, BLOCK_N)
    step, _, _ = row_order(alpha_ptr, rows, exists, alpha_stride, POWER)
    s = probs_sensitivity(probs, step[:, None], POWER)
    # What lies outside is not read, whatever it holds.
    d_probs = tl.where(probs == 0.0, 0.0, d_probs)
    mean = weighted_mean(tl.sum(s * d_probs, axis=1), tl.sum(s, axis=1))
    d_scores = tl.where(probs == 0.0, 0.0, s * (d_probs - mean[:, None]))
    store_rows(d_scores_ptr, rows, n_keys, d_scores, inside, IS_FULL, BLOCK_N)
    if OF_ALPHA:
        # d_scores sums to 0, so a part that all weights share is left out.
        shared = alpha_weight(tl.max(probs, axis=1), step)
        weight = alpha_weight(probs, step[:, None]) - shared[:, None]
        tl.store(d_alpha_ptr + rows, tl.sum(tl.where(probs == 0.0, 0.0, d_scores * weight), axis=1), mask=exists)


@triton.jit
def rows_backward_blocks_kernel(
    probs_ptr, d_probs_ptr, alpha_ptr, d_scores_ptr, d_alpha_ptr,
    n_rows, n_keys, row_stride, d_row_stride, alpha_stride,
    POWER: tl.constexpr, OF_ALPHA: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Grid (rows,).  Arguments as of `rows_backward_whole_kernel`; two passes over both rows.

    Lemmas: jacobian_form, jacobian_rows_zero
    """
    rows = tl.program_id(0) + tl.arange(0, 1)
    row = tl.program_id(0).to(tl.int64)
    probs_ptr += row * row_stride
    d_probs_ptr += row * d_row_stride
    d_scores_ptr += row * n_keys
    step, _, _ = row_order(alpha_ptr, rows, rows < n_rows, alpha_stride, POWER)

    weighted, total = tl.zeros([1, BLOCK_N], tl.float32), tl.zeros([1, BLOCK_N], tl.float32)
    largest = tl.zeros([1, BLOCK_N], tl.float32)
    for start in range(0, n_keys, BLOCK_N):
        probs = key_block(probs_ptr, start, n_keys, 0.0, BLOCK_N)
        d_probs = key_block(d_probs_ptr, start, n_keys, 0.0, BLOCK_N)
        s = probs_sensitivity(probs, step[:, None], POWER)
        total += s
        weighted += tl.where(probs == 0.0, 0.0, s * d_probs)
        largest = tl.maximum(largest, probs)
    mean = weighted_mean(tl.sum(weighted, axis=1), tl.sum(total, axis=1))
    shared = alpha_weight(tl.max(largest, axis=1), step)
    d_alpha = tl.zeros([1, BLOCK_N], tl.float32)
    for start in range(0, n_keys, BLOCK_N):
        probs = key_block(probs_ptr, start, n_keys, 0.0, BLOCK_N)
        d_probs = key_block(d_probs_ptr, start, n_keys, 0.0, BLOCK_N)
        s = probs_sensitivity(probs, step[:, None], POWER)
        d_scores = tl.where(probs == 0.0, 0.0, s * (d_probs - mean[:, None]))
        keys = start + tl.arange(0, BLOCK_N)[None, :]
        tl.store(d_scores_ptr + keys, d_scores.to(d_scores_ptr.dtype.element_ty), mask=keys < n_keys)
        if OF_ALPHA:
            weight = alpha_weight(probs, step[:, None]) - shared[:, None]
            d_alpha += tl.where(probs == 0.0, 0.0, d_scores * weight)
    if OF_ALPHA:
        tl.store(d_alpha_ptr + rows, tl.sum(d_alpha, axis=1))
