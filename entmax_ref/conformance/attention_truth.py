"""What is the right answer for attention, and how far off may a target be?  Entry by entry, to first order.

Scores are sums of head_dim products of the operands, formed in the working precision (float32 but for float64): over
the orders of the terms such a sum is off by ``w * sqrt((d + 1) * (2 * P**2 + Q) / 6 + Q + 2 * P**2)``, P the sum and Q
the sum of the squares of its terms, and the largest of N by ``sqrt(2 * log(N))`` times that. `row_truth` says what this
does to the probabilities. Every later product may round its left factor to the dtype once (probabilities, gradients of
scores), rounds its sum as above, and the result is rounded to the dtype. Errors are added with their moduli, never in
squares.
"""

import math
from dataclasses import dataclass

import numpy as np

import entmax_ref
from entmax_ref.conformance.precision import FORMATS, Floats
from entmax_ref.conformance.row_truth import RowTruth, row_truth
from entmax_ref.conformance.target import Call


@dataclass(frozen=True)
class AttentionTruth:
    """The oracle's output, and the rows that it comes from; ``out_allowed`` has the shape of ``out``.

    ``rows`` is of shape (batch, heads, n_queries, n_keys); ``seen`` says which keys are visible; ``score_error`` bounds
    how far the scores may be off.
    """

    out: Floats
    out_allowed: Floats
    rows: RowTruth
    scores: Floats
    score_error: Floats


def repeated(operand: Floats, heads: int) -> Floats:
    """Return key or value with a head for each head of the query."""
    return np.repeat(operand, heads // operand.shape[1], axis=1)


def mask_of(call: Call, n_keys: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | None:
    """Return the key ranges of a call as a mask, (batch, 1, n_queries, n_keys), True where a key is visible."""
    if call.key_ranges is None:
        return None
    keys, ranges = np.arange(n_keys), call.key_ranges[:, None, :, :, None]
    return np.asarray((ranges[..., 0, :] <= keys) & (keys < ranges[..., 1, :]))


def scores_of(query: Floats, key: Floats, call: Call) -> tuple[Floats, Floats]:
    """Return the scores, ``-inf`` where not visible, and how far they may be off."""
    form, head_dim = FORMATS[call.dtype], query.shape[-1]
    scale = head_dim**-0.5 if call.scale is None else call.scale
    k = repeated(key, query.shape[1])
    scores = entmax_ref.attention_scores(
        query, k, is_causal=call.is_causal, scale=scale, window=call.window, mask=mask_of(call, key.shape[2])
    )
    products, squares = query @ np.swapaxes(k, -1, -2), query**2 @ np.swapaxes(k**2, -1, -2)
    reach = math.sqrt(2.0 * math.log(max(products.size, 2)))
    error = np.sqrt((head_dim + 1.0) * (2.0 * products**2 + squares) / 6.0 + squares + 2.0 * products**2)
    return scores, reach * abs(scale) * form.working * error


def attention_truth(query: Floats, key: Floats, value: Floats, call: Call) -> AttentionTruth:
    """Return the truth about one call; the operands are finite."""
    form = FORMATS[call.dtype]
    scores, error = scores_of(query, key, call)
    # A key that lies far below tau cannot move it, whatever its error.
    first = row_truth(scores, call.alpha, call.dtype)
    rows = row_truth(scores, call.alpha, call.dtype, score_error=np.where(first.margin > -0.5, error, 0.0))
    v = repeated(value, query.shape[1])
    out = rows.probs @ v
    size = rows.probs @ np.abs(v)
    allowed = rows.allowed @ np.abs(v) + (form.roundoff + sum_error(scores.shape[-1], out.size, form.working)) * size
    # The weights may be divided by their computed sum.
    allowed += np.sum(rows.allowed, axis=-1, keepdims=True) * np.abs(out) + form.roundoff * np.abs(out)
    return AttentionTruth(out, allowed + form.tiny + form.working_tiny, rows, scores, error)


def sum_error(terms: int, sums: int, working: float) -> float:
    """Return how far the largest of some sums may be off, as a share of the sum of the moduli of its terms."""
    return 2.0 * working * math.sqrt(2.0 * math.log(max(sums, 2))) * (math.sqrt((terms + 1.0) / 2.0) + 2.0)


@dataclass(frozen=True)
class Gradients:
    """The oracle's gradients, and what a target may be off; by ``query``, ``key`` and ``value``."""

    exact: dict[str, Floats]
    allowed: dict[str, Floats]


def gradients_truth(query: Floats, key: Floats, value: Floats, d_out: Floats, call: Call) -> Gradients:
    """Return the truth about the gradients of one call; ``d_out`` is 0 in rows that `undecided` names."""
    form, alpha = FORMATS[call.dtype], call.alpha
    heads, head_dim = query.shape[1], query.shape[-1]
    scale = head_dim**-0.5 if call.scale is None else call.scale
    at = attention_truth(query, key, value, call)
    k, v = repeated(key, heads), repeated(value, heads)
    w, u, sums = form.working, form.roundoff, sum_error(k.shape[2], query.size, form.working)
    over_queries = sum_error(query.shape[2] * (heads // key.shape[1]), key.size, w)
    s, moved = _sensitivity(at.rows, alpha)
    total = np.sum(s, axis=-1, keepdims=True)
    total = np.where(total > 0.0, total, 1.0)
    g = d_out @ np.swapaxes(v, -1, -2)
    g_error = sum_error(value.shape[-1], g.size, w) * (np.abs(d_out) @ np.swapaxes(np.abs(v), -1, -2))
    delta = np.sum(s * g, axis=-1, keepdims=True) / total
    away = np.abs(g - delta)
    delta_error = np.sum(moved * away + s * g_error, axis=-1, keepdims=True) / total
    delta_error += (sums + 4.0 * w) * np.sum(s * (np.abs(g) + g_error), axis=-1, keepdims=True) / total
    d_scores = s * (g - delta)
    of_scores = moved * (away + delta_error + g_error) + s * (
        g_error + delta_error + 4.0 * w * (np.abs(g) + np.abs(delta))
    )
    of_scores += 2.0 * u * (np.abs(d_scores) + of_scores) + (form.tiny + form.working_tiny) * (at.scores > -np.inf)
    of_probs = at.rows.allowed + u * at.rows.probs + form.tiny * (at.scores > -np.inf)
    terms = {"query": (d_scores, of_scores, k, sums, scale)}
    terms |= {"key": (np.swapaxes(d_scores, -1, -2), np.swapaxes(of_scores, -1, -2), query, over_queries, scale)}
    terms |= {"value": (np.swapaxes(at.rows.probs, -1, -2), np.swapaxes(of_probs, -1, -2), d_out, over_queries, 1.0)}
    group = heads // key.shape[1]

    def of_heads(name: str, gradient: Floats) -> Floats:
        """Add up the heads that share a key."""
        shape = (gradient.shape[0], key.shape[1], group, *gradient.shape[2:])
        return gradient if name == "query" else np.asarray(gradient.reshape(shape).sum(axis=2))

    if alpha == 1.0:  # which the oracle leaves to softmax
        found = {name: of_heads(name, part[-1] * (part[0] @ part[2])) for name, part in terms.items()}
    else:
        exact = entmax_ref.attention_vjp(
            query, key, value, d_out, alpha=alpha, is_causal=call.is_causal, scale=scale, enable_gqa=True,
            window=call.window, mask=mask_of(call, key.shape[2]),
        )  # fmt: skip
        found = dict(zip(("query", "key", "value"), exact, strict=True))
    allowed = {}
    for name, (left, left_error, right, rounding, factor) in terms.items():
        off = abs(factor) * (left_error @ np.abs(right) + rounding * (np.abs(left) @ np.abs(right)))
        allowed[name] = of_heads(name, off) + 2.0 * u * np.abs(found[name]) + form.tiny + form.working_tiny
    return Gradients(found, allowed)


def undecided(at: AttentionTruth, alpha: float) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return the rows (batch, heads, n_queries) so near a jump of the gradient that rounding decides on its side."""
    near = np.abs(at.rows.margin) <= 2.0 * at.rows.gap_error
    return np.asarray(np.any(near, axis=-1) & (alpha >= 2.0))


def _sensitivity(rows: RowTruth, alpha: float) -> tuple[Floats, Floats]:
    """Return ``probs ** (2 - alpha)`` in the support, at alpha 2 1, and how far an error of the gap moves it."""
    inside = rows.probs > 0.0
    if alpha == 1.0:
        return rows.probs, rows.allowed
    if alpha == 2.0:
        return inside.astype(np.float64), np.zeros_like(rows.probs)
    exponent = (2.0 - alpha) / (alpha - 1.0)
    gap = np.where(inside, np.maximum(rows.margin, 0.0), 0.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        s = np.where(inside, rows.probs ** (2.0 - alpha), 0.0)
        above = np.maximum(rows.margin + rows.gap_error, 0.0)
        ends = [np.where(end > 0.0, end**exponent, 0.0) for end in (np.maximum(gap - rows.gap_error, 0.0), above)]
    moved = np.maximum(np.abs(ends[0] - s), np.abs(ends[1] - s))
    return s, np.where(rows.margin > -rows.gap_error, moved, 0.0)
