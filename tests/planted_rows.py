"""Which faults must the checks of rows see?  A small row map after the pipeline of the kernels, and its faults by name.

The map: count scores from the maximum, put their depths into bins, bracket tau by the counts, search in the bracket,
skip tiles that hold no support. Each fault is one keyword of it, or wraps its result.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

import entmax_ref
from entmax_ref.conformance.precision import rounded
from entmax_ref.conformance.target import RowTarget

TILE, BINS = 16, 8


def bracket(depth, power, *, bins=BINS, index_bins=None, to_int=np.floor, counter=2**31):
    """Return lo <= tau + 1 - row_max <= hi from counts of the depths, which end at 1."""
    where = np.minimum(to_int(depth[depth > 0.0] * (index_bins or bins)).astype(int), bins - 1)
    counts = np.bincount(where, minlength=bins) % counter
    edges = np.arange(bins + 1) / bins
    # All scores at the lower, then at the upper edges of their bins: the roots lie on either side of tau.
    lo, hi = (solve(np.repeat(ends, counts), power, 0.0, 1.0) for ends in (edges[:-1], edges[1:]))
    return lo, max(hi, lo)


def solve(depth, power, lo, hi, iterations=64):
    """Return the root of the mass in the bracket, by bisection."""
    for _ in range(iterations):
        middle = 0.5 * (lo + hi)
        mass = np.sum(np.maximum(depth - middle, 0.0) ** power)
        lo, hi = (middle, hi) if mass >= 1.0 else (lo, middle)
    return 0.5 * (lo + hi)


def row(
    scores,
    alpha,
    *,
    top=None,
    iterations=64,
    mask_above=0.0,
    last_tile=True,
    wrong_power=1.0,
    normalised=False,
    clamp=True,
    **histogram,
):
    """Return the probabilities of one row of finite or hidden scores."""
    power = 1.0 / (alpha - 1.0)
    row_max = scores.max() if top is None else top
    depth = np.maximum((alpha - 1.0) * (scores - row_max) + 1.0, -1e30)
    seen = depth if last_tile else depth[: len(depth) // TILE * TILE or len(depth)]
    lo, hi = bracket(seen, power, **histogram)
    tau = solve(seen, power, lo, hi, iterations)
    gap = np.maximum(depth - tau, 0.0) if clamp else np.where(depth > -10.0, depth - tau, 0.0)
    for start in range(0, len(gap), TILE):
        if depth[start : start + TILE].max() <= tau + mask_above:
            gap[start : start + TILE] = 0.0
    if not last_tile:
        gap[len(seen) :] = 0.0
    probs = np.abs(gap) ** (power * wrong_power)
    return probs / probs.sum() if normalised else probs


def rows(scores, alpha, dtype, *, nan=True, empty=0.0, **how):
    """Return the probabilities of rows, in the dtype."""
    out = np.zeros_like(scores)
    for index, one in enumerate(scores):
        if np.isnan(one).any() or (one == np.inf).any():
            out[index] = np.where(one == -np.inf, 0.0, np.nan if nan else 0.0)
        elif one.max() == -np.inf:
            out[index] = empty
        else:
            out[index] = row(one, alpha, **how)
    return rounded(out, dtype)


def vjp(scores, d_probs, alpha, dtype, *, centred=True, exponent=None, over_all=False, leak=0.0, factor=1.0, empty=0.0):
    """Return the gradient of rows."""
    probs = rows(scores, alpha, "float64")
    inside = probs > 0.0
    s = np.where(inside, probs ** (2.0 - alpha if exponent is None else exponent), leak)
    weights = np.ones_like(s) if over_all else s
    total = weights.sum(-1, keepdims=True)
    mean = np.sum(weights * d_probs, -1, keepdims=True) / np.where(total > 0.0, total, 1.0)
    found = np.where(scores.max(-1, keepdims=True) > -np.inf, factor * s * (d_probs - mean * centred), empty)
    return rounded(found, dtype)


def sound(**claims: Any) -> RowTarget:
    """Return the map without a fault; claims replace fields of the target."""
    plain = RowTarget(
        name="planted",
        version="",
        alphas=(1.01, 1.25, 1.5, 2.0),
        dtypes=("float32", "float16"),
        lengths=(1, 2049),
        probs=rows,
        vjp=vjp,
        threshold=lambda scores, alpha, dtype: rounded(entmax_ref.threshold(scores, alpha), "float32"),
        second=lambda scores, d_probs, way, alpha, dtype: entmax_ref.entmax_second(scores, d_probs, way, alpha),
        d_alpha=lambda scores, d_probs, alpha, dtype: np.sum(entmax_ref.entmax_alpha_grad(scores, alpha) * d_probs),
        more_iterations=lambda scores, alpha, dtype: rows(scores, alpha, dtype, iterations=128),
        loss=lambda scores, keys, alpha, dtype: rounded(entmax_ref.entmax_loss(scores, keys, alpha), dtype),
        loss_grad=lambda scores, keys, alpha, dtype: rounded(entmax_ref.entmax_loss_grad(scores, keys, alpha), dtype),
    )
    return dataclasses.replace(plain, **claims)


def _probs(**how: Any) -> RowTarget:
    return sound(probs=lambda scores, alpha, dtype: rows(scores, alpha, dtype, **how))


def _vjp(**how: Any) -> RowTarget:
    return sound(vjp=lambda scores, d_probs, alpha, dtype: vjp(scores, d_probs, alpha, dtype, **how))


def _after(change: Callable[[Any, Any], Any]) -> RowTarget:
    """Return the map with a change of its result, which sees the scores as well."""
    return sound(probs=lambda scores, alpha, dtype: change(rows(scores, alpha, dtype), scores))


_calls = iter(range(10**9))


def _written(scores, alpha, dtype):
    found = rows(scores, alpha, dtype)
    scores -= scores.max(-1, keepdims=True)
    return found


def _floored(scores, alpha, dtype):
    return rows(np.where(scores == -np.inf, -np.inf, np.maximum(scores, -1000.0)), alpha, dtype)


def _batch_maximum(scores, alpha, dtype):
    finite = scores[np.isfinite(scores)]
    return rows(scores, alpha, dtype, top=finite.max()) if finite.size else rows(scores, alpha, dtype)


def _strides_ignored(scores, alpha, dtype):
    return rows(np.ravel(scores, order="K").reshape(scores.shape), alpha, dtype)


# name: (the check that must see it, the target with the fault)
FAULTS: dict[str, tuple[str, Callable[[], RowTarget]]] = {
    "zeros returned": ("row_sum", lambda: _after(lambda probs, scores: 0.0 * probs)),
    "iteration count fixed at 1": ("row_sum", lambda: _probs(iterations=1)),
    "iteration count fixed at 2, then normalised": ("probabilities", lambda: _probs(iterations=2, normalised=True)),
    "too few iterations by default": ("iterations", lambda: _probs(iterations=3)),
    "one bin too few in the index": ("row_sum", lambda: _probs(index_bins=BINS - 1)),
    "one bin too many in the index": ("row_sum", lambda: _probs(index_bins=BINS + 1)),
    "floor replaced by round": ("row_sum", lambda: _probs(to_int=np.rint)),
    "counter of 8 bits overflows": ("long_flat_mass", lambda: _probs(counter=256)),
    "last tile missing": ("support", lambda: _probs(last_tile=False)),
    "mask from an iterate above tau": ("support", lambda: _probs(mask_above=0.02)),
    "gap not clamped at 0": ("support", lambda: _probs(clamp=False)),
    "power off by a tenth": ("probabilities", lambda: _probs(wrong_power=1.1)),
    "keys outside get 1e-6": ("support", lambda: _after(lambda probs, scores: np.maximum(probs, 1e-6))),
    "a probability below 0": (
        "nonnegative",
        lambda: _after(lambda probs, scores: np.where(probs == 0.0, -1e-6, probs)),
    ),
    "NaN swallowed": ("nonfinite_row", lambda: _probs(nan=False)),
    "a row without a key is uniform": ("empty_row", lambda: _probs(empty=0.25)),
    "scores below -1000 clamped": ("offset", lambda: sound(probs=_floored)),
    "maximum of the whole batch": ("neighbours", lambda: sound(probs=_batch_maximum)),
    "strides ignored": ("strides", lambda: sound(probs=_strides_ignored)),
    "scores overwritten": ("operands_kept", lambda: sound(probs=_written)),
    "result left sorted": ("permutation", lambda: _after(lambda probs, scores: np.sort(probs, -1))),
    "later keys favoured": (
        "monotone",
        lambda: _after(lambda probs, scores: probs * (1.0 - 0.01 * np.arange(probs.shape[-1]) / probs.shape[-1])),
    ),
    "hidden keys count as 0": (
        "hidden_keys",
        lambda: sound(probs=lambda scores, alpha, dtype: rows(np.where(scores == -np.inf, 0.0, scores), alpha, dtype)),
    ),
    "a random last bit": (
        "deterministic",
        lambda: _after(lambda probs, scores: probs * (1.0 + 2.0**-9 * (next(_calls) % 2))),
    ),
    "alpha clamped at 1.1": (
        "softmax_limit",
        lambda: sound(probs=lambda scores, alpha, dtype: rows(scores, max(alpha, 1.1), dtype)),
    ),
    "not shifted by the maximum": (
        "shift",
        lambda: sound(probs=lambda s, alpha, dtype: rows(s, alpha, dtype, top=0.0)),
    ),
    "tau in the unit of the scores": (
        "threshold",
        lambda: sound(threshold=lambda scores, alpha, dtype: entmax_ref.threshold(scores, alpha) / (alpha - 1.0)),
    ),
    "gradient not centred": ("gradient_sum", lambda: _vjp(centred=False)),
    "gradient centred over all keys": ("gradient_sum", lambda: _vjp(over_all=True)),
    "softmax's gradient": ("gradient", lambda: _vjp(exponent=1.0)),
    "gradient outside the support": ("gradient_outside", lambda: _vjp(leak=1e-3)),
    "gradient halved": ("finite_differences", lambda: _vjp(factor=0.5)),
    "gradient of a row without a key is NaN": ("empty_gradient", lambda: _vjp(empty=np.nan)),
    "second derivative 0": (
        "second_order",
        lambda: sound(second=lambda scores, d_probs, way, alpha, dtype: np.zeros_like(scores)),
    ),
    "sign of the gradient of alpha": (
        "alpha_gradient",
        lambda: sound(
            d_alpha=lambda scores, d_probs, alpha, dtype: -np.sum(entmax_ref.entmax_alpha_grad(scores, alpha) * d_probs)
        ),
    ),
    "loss with a constant too many": (
        "loss",
        lambda: sound(loss=lambda scores, keys, alpha, dtype: entmax_ref.entmax_loss(scores, keys, alpha) + 0.01),
    ),
    "gradient of the loss without the right key": (
        "loss_gradient",
        lambda: sound(loss_grad=lambda scores, keys, alpha, dtype: rows(scores, alpha, dtype)),
    ),
}
