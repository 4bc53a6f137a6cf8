"""How large an error must each row expect from rounding alone?  To first order, from the exact quantities.

Twice the error of the naive evaluation is the budget of a tensor.  Of a single row it is not: a row's own error may be
small by chance (one key, one lucky rounding), and a right answer would fail.  So the error that a row must expect is
*modelled* here, row by row, and the naive evaluation only says how much of it shows up (`judge.row_bounds`).

The model.  Every rounding is an error of its own, independent of the others and as large as round to nearest lets it
be; independent errors add up in squares.  With u the unit roundoff of the dtype (0 for float32, whose operands are not
rounded again), w that of float32, p the power, s the sensitivity, b = g - delta and ds = s * b:

- A float32 sum of n terms rounds every partial sum.  Over all orders of the terms the squares of the partial sums are
  on average ``(n + 1) * (2 * A**2 + Q) / 6`` together, A the sum of the terms and Q the sum of their squares: a partial
  sum of k terms has mean ``k * A / n`` and variance ``k * (n - k) / (n - 1) * (Q / n - A**2 / n**2)``.  `_summed`.
- z errs by such a sum over head_dim, by its products and by the scale: e.  Its distance from row_max rounds once more.
- tau moves by ``sum(s * e) / sum(s)``, and by the roundings of its own: w * (row_max - tau) where it is kept, and those
  of a float32 mass, since no root is better than the mass it is the root of, over the derivative ``p * sum(s)``.
- A probability moves by ``p * s * (error of the gap)``, and by its square where the gap is no larger than its error; it
  is rounded to the dtype before the products.  In the output the share of tau turns v into v - centre.
- A score gradient moves with s (but for alpha 2), with the float32 product g, with delta, and is rounded to the dtype.
  What moves s moves delta as well, which turns k into k - (mean of k under s).  Delta is taken in
  float32: from weights rounded to the dtype it would be off by much where b is small, and whole rows of d_key with it.
- Keys below tau by less than float32 can tell may come out as supported.  The largest of N normal errors is about
  ``sqrt(2 * log(N))`` of their standard deviation; so far does the model look, with N the number of scores.
- Equal scores round equally: the errors of their weights do not average out, but scale the row.  Hence u times the row.

Where the exact row is 0 because its terms cancel, its error is still that of the terms, and so is its bound.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from numpy.typing import NDArray

from entmax_ref.bounds.model import FORMATS, TINY, U

Floats = NDArray[np.float64]

# Scores to hold at once, in float64 and a dozen times over.
CELLS = 2**20
# Roundings of a power of a gap that its logarithm is taken for, but for those that grow with the logarithm.
POWER_ROUNDINGS = 5.0
NAMES = ("out", "d_query", "d_key", "d_value")
# What an operation of float32 may lose where its result underflows, flushed or gradual.
TINIEST = TINY


@dataclasses.dataclass(frozen=True)
class Expected:
    """What rounding may do to each row of a tensor, and how large the row is; shape (batch, heads, rows).

    Attributes
    ----------
    error : ndarray of float64
        The expected error of the row's norm.
    terms : ndarray of float64
        The root of the sum of the squares of the norms of the terms that the row is the sum of, with b taken for two
        terms, g and delta.  It is the scale of a row whose terms cancel.
    """

    error: Floats
    terms: Floats


@dataclasses.dataclass
class _Total:
    """Sums over the terms of each row: squares of norms of errors, terms and their parts; number; and the exact row."""

    error: torch.Tensor
    summed: torch.Tensor
    terms: torch.Tensor
    count: torch.Tensor
    exact: torch.Tensor

    @classmethod
    def zeros(cls, shape: torch.Size | tuple[int, ...], device: torch.device) -> _Total:
        one = torch.zeros(shape[:-1], dtype=torch.float64, device=device)
        return cls(one, one.clone(), one.clone(), one.clone(), torch.zeros(shape, dtype=torch.float64, device=device))

    def expected(self, unit: float, scale: float, tiny: float) -> Expected:
        """Return the norms, with what the sum, the scale and equal roundings add."""
        whole = _squares(self.exact)
        total = self.error + unit**2 * whole + U**2 * (_summed(self.count, whole, self.summed) + whole)
        error = abs(scale) * total.sqrt() + tiny * math.sqrt(self.exact.shape[-1]) * (total > 0.0)
        return Expected(error.cpu().numpy(), (abs(scale) * self.terms.sqrt()).cpu().numpy())


def expected_errors(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    d_out: torch.Tensor,
    tau: Floats,
    *,
    alpha: float,
    is_causal: bool,
    scale: float,
    mask: torch.Tensor | None = None,
) -> dict[str, Expected]:
    """Return the error to be expected of each row of the output and of the gradients.

    Parameters
    ----------
    query, d_out : Tensor, shape (batch, heads, n_queries, head_dim)
        float32, bfloat16 or float16.
    key, value : Tensor, shape (batch, kv_heads, n_keys, head_dim)
    tau : ndarray of float64, shape (batch, heads, n_queries)
        The exact threshold.  A row where it is not finite is taken for one without a key.
    alpha : float
        In (1, 2].  Above 1.5 the gradient jumps, or rises steeply, where a key enters the support: ``d_out`` must be 0
        in rows where float32 cannot tell whether one does (`truth.Truth.undecided_rows`).
    is_causal : bool
        Aligned to the bottom right.
    scale : float
    mask : Tensor of bool, shape (batch, 1, n_queries, n_keys), optional
        True where a key is visible.

    Returns
    -------
    dict of Expected
        ``out`` and ``d_query`` by query, ``d_key`` and ``d_value`` by key.
    """
    device, (batch, heads, n_queries) = query.device, query.shape[:3]
    kv_heads, n_keys = key.shape[1:3]
    group = heads // max(kv_heads, 1)
    form = FORMATS[str(query.dtype).removeprefix("torch.")]
    tiny = max(form.tiny, TINIEST)
    q, k, v, grad = (tensor.double() for tensor in (query, key, value, d_out))
    threshold = torch.from_numpy(tau).to(device)
    totals = {name: _Total.zeros(q.shape, device) for name in ("out", "d_query")}
    totals |= {name: _Total.zeros(k.shape, device) for name in ("d_key", "d_value")}
    reach = math.sqrt(2.0 * math.log(max(batch * heads * n_queries * n_keys, 2)))
    step = max(CELLS // max(n_keys, 1), 1)
    for item in range(batch):
        for head in range(heads):
            place, kv_place = (item, head), (item, head // group)
            for start in range(0, n_queries, step):
                rows = slice(start, min(start + step, n_queries))
                last = torch.arange(rows.start, rows.stop, device=device) + (n_keys - n_queries)
                seen = torch.ones((rows.stop - rows.start, n_keys), dtype=torch.bool, device=device)
                if is_causal:
                    seen = torch.arange(n_keys, device=device) <= last[:, None]
                if mask is not None:
                    seen &= mask[item, 0, rows]
                _add(
                    totals, place, kv_place, rows,
                    _Chunk(q[place][rows], k[kv_place], v[kv_place], grad[place][rows], threshold[place][rows], seen),
                    alpha=alpha, scale=scale, unit=form.roundoff, tiny=tiny, reach=reach,
                )  # fmt: skip
    factors = {"out": 1.0, "d_query": scale, "d_key": scale, "d_value": 1.0}
    return {name: total.expected(form.roundoff, factors[name], tiny) for name, total in totals.items()}


@dataclasses.dataclass(frozen=True)
class _Chunk:
    """Some queries of one head, all in float64."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    d_out: torch.Tensor
    tau: torch.Tensor
    seen: torch.Tensor


def _add(
    totals: dict[str, _Total],
    place: tuple[int, int],
    kv_place: tuple[int, int],
    rows: slice,
    at: _Chunk,
    *,
    alpha: float,
    scale: float,
    unit: float,
    tiny: float,
    reach: float,
) -> None:
    """Add the queries of a chunk to the totals."""
    power, z_scale = 1.0 / (alpha - 1.0), scale * (alpha - 1.0)
    sound = at.tau.isfinite()
    tau = at.tau.where(sound, 0.0)[:, None]
    # A score of -inf hides its key, like the mask; a row with NaN or +inf has no finite tau.
    seen = at.seen & sound[:, None] & (at.query @ at.key.T > -math.inf)
    query, grad = (torch.where(sound[:, None], x, 0.0) for x in (at.query, at.d_out))
    key = at.key.where(at.key.isfinite(), 0.0)
    key_size, value_size, grad_size = _squares(key), _squares(at.value), _squares(grad)

    # Scores and gaps.
    products = query @ key.T
    squares = (query * query) @ (key * key).T
    z = products * z_scale
    row_max = z.where(seen, -math.inf).amax(-1, keepdim=True)
    row_max = row_max.where(row_max > -math.inf, 0.0)
    z_error = (U * z_scale) ** 2 * (_summed(query.shape[-1], products**2, squares) + squares + 2.0 * products**2)
    z_error += U**2 * (row_max - z) ** 2
    margin = torch.where(seen, z - tau, -math.inf)
    inside = margin > 0.0
    gap = margin.clamp(min=0.0)
    moves = alpha != 2.0  # that of alpha 2 is 0 or 1, which every dtype holds, and no error of a gap moves it
    sensitivity = torch.where(inside, gap ** (power - 1.0), 0.0) if moves else inside.double()
    probs = gap**power
    # Roundings of the weights beyond that of the gap: one product, or a logarithm times the power and an exponential.
    powered = 0.0 if alpha in (1.5, 2.0) else POWER_ROUNDINGS**2 * (1.0 + probs.where(inside, 1.0).log() ** 2)
    count = inside.sum(-1, keepdim=True).double()
    total = sensitivity.sum(-1, keepdim=True)
    total = total.where(total > 0.0, 1.0)

    # The threshold: moved by the scores, and by its own roundings.
    mass_terms = (probs * probs).sum(-1, keepdim=True)
    mass_error = _summed(count, torch.ones_like(count), mass_terms) + 4.0 * mass_terms
    own = U**2 * ((row_max - tau) ** 2 + mass_error / (power * total) ** 2)
    share = sensitivity / total
    moved = (share**2 * z_error).sum(-1, keepdim=True)
    gap_error = z_error * (1.0 - 2.0 * share) + moved + own + U**2 * gap**2
    reached = (margin + reach * (z_error + moved + own).sqrt()).clamp(min=0.0).where(~inside, 0.0)
    active = inside | (reached > 0.0)

    # The output, and the gradient of the values.
    of_probs = (unit**2 + (5.0 + powered) * U**2) * probs**2 + reached ** (2.0 * power) + tiny**2 * active
    # The slope of the sensitivity, and half of the second derivative of a probability; not nearer to tau than an error.
    away = torch.maximum(gap, gap_error.sqrt()).where(inside, 1.0)
    bend = (power - 1.0) * away ** (power - 2.0) * inside if moves else torch.zeros_like(gap)
    of_probs += 3.0 * (0.5 * power * bend * gap_error) ** 2
    first_order = (power * sensitivity) ** 2
    centre = sensitivity @ at.value / total
    out = totals["out"]
    out.exact[place][rows] = probs @ at.value
    out.summed[place][rows] = out.terms[place][rows] = probs**2 @ value_size
    out.count[place][rows] = count[:, 0]
    out.error[place][rows] = (
        _around(first_order * z_error, at.value, centre)
        + ((power * total) ** 2 * own)[:, 0] * _squares(centre)
        + of_probs @ value_size
    )
    _add_columns(
        totals["d_value"], kv_place, probs, probs, first_order * gap_error * inside + of_probs, grad, grad_size, inside
    )

    # The gradients of queries and keys.
    g = grad @ at.value.T
    g_squares = (grad * grad) @ (at.value * at.value).T
    delta = (centre * grad).sum(-1, keepdim=True)
    b = g - delta
    d_scores, parts = sensitivity * b, sensitivity * (g**2 + delta**2).sqrt()
    g_error = U**2 * (_summed(grad.shape[-1], g**2, g_squares) + g_squares + b**2)
    delta_squares = (centre * centre * grad * grad).sum(-1, keepdim=True)
    delta_terms = (share**2 * g_squares).sum(-1, keepdim=True)
    delta_error = U**2 * (
        _summed(grad.shape[-1], delta**2, delta_squares)
        + 4.0 * delta_squares
        + _summed(count, delta_squares, delta_terms)
    )
    of_scores = sensitivity**2 * g_error + d_scores**2 * (unit**2 + U**2) + tiny**2 * active
    if moves:
        of_scores += ((1.0 + powered) * U**2 * sensitivity**2 + reached ** (2.0 * power - 2.0)) * b**2
    scores_moved = z_error * (bend * b) ** 2
    slope = bend * b
    mean_key = sensitivity @ key / total
    d_query = totals["d_query"]
    d_query.exact[place][rows] = d_scores @ key
    d_query.summed[place][rows] = d_scores**2 @ key_size
    d_query.terms[place][rows] = parts**2 @ key_size
    d_query.count[place][rows] = count[:, 0]
    d_query.error[place][rows] = (
        _around(scores_moved, key, mean_key)
        + (moved + own)[:, 0] * _squares(slope @ key - slope.sum(-1, keepdim=True) * mean_key)
        + (delta_error * total**2)[:, 0] * _squares(mean_key)
        + of_scores @ key_size
    )
    delta_moved = (scores_moved.sum(-1, keepdim=True) + own * slope.sum(-1, keepdim=True) ** 2) / total**2
    whole = of_scores + sensitivity**2 * (delta_error + delta_moved)
    if moves:
        whole = whole + gap_error * (bend * b) ** 2
    _add_columns(totals["d_key"], kv_place, d_scores, parts, whole, query, _squares(query), inside)


def _add_columns(
    total: _Total,
    kv_place: tuple[int, int],
    weights: torch.Tensor,
    parts: torch.Tensor,
    error: torch.Tensor,
    rows: torch.Tensor,
    sizes: torch.Tensor,
    inside: torch.Tensor,
) -> None:
    """Add to each key the terms of the queries that see it."""
    total.exact[kv_place] += weights.T @ rows
    total.summed[kv_place] += (weights**2).T @ sizes
    total.terms[kv_place] += (parts**2).T @ sizes
    total.count[kv_place] += inside.sum(0)
    total.error[kv_place] += error.T @ sizes


def _squares(rows: torch.Tensor) -> torch.Tensor:
    """Return the square of the norm of each row."""
    return (rows * rows).sum(-1)


def _summed(count: torch.Tensor | int, whole: torch.Tensor, terms: torch.Tensor) -> torch.Tensor:
    """Return the sum of the squares of the partial sums, on average over the orders of the terms.

    ``whole`` is the square of the sum, ``terms`` the sum of the squares.
    """
    return (count + 1) * (2.0 * whole + terms) / 6.0


def _around(weights: torch.Tensor, rows: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """Return ``sum_j weights[i, j] * norm(rows[j] - centre[i]) ** 2``."""
    size = weights @ _squares(rows) - 2.0 * ((weights @ rows) * centre).sum(-1)
    return (size + weights.sum(-1) * _squares(centre)).clamp(min=0.0)
