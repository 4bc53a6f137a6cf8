"""How wrong may each kernel stage be in float32?"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from entmax_ref.arguments import Booleans, Floats, as_alpha, as_mask, as_real, as_same_shape, as_scale
from entmax_ref.bounds.model import (
    FORMATS,
    SLACK,
    TINY,
    Format,
    Operand,
    U,
    check_operand,
    gamma,
    product_gamma,
    sum_gamma,
)
from entmax_ref.bounds.oracle import threshold
from entmax_ref.reading import shown
from entmax_ref.rows.threshold import threshold as solve

# alpha -> power, and the roundings of gap ** power with that of the gap included.
POWERS = {1.5: (2, 3), 2.0: (1, 1)}


@dataclasses.dataclass(frozen=True)
class Rows:
    """Exact rows of one head, and how far float32 may be off; made by `exact_rows`, taken by the bounds of the stages.

    Attributes
    ----------
    z : ndarray of float64, shape (..., n_queries, n_keys)
        ``(alpha - 1) * scores``, ``-inf`` where not visible.
    z_error : ndarray of float64, the shape of z
        Bound of the error of z in float32 (`scores`).
    tau : ndarray of float64, shape (..., n_queries)
        The exact threshold, in the unit of z; ``+inf`` for a row without a visible key.
    tau_error : ndarray of float64, the shape of tau
        Bound of the error of ``row_max + tau`` (`tau`).
    alpha : float
    dtype : {"float32", "bfloat16", "float16"}
        Of the operands, and of what is stored.
    block : int
        Keys of a tile.
    """

    z: Floats
    z_error: Floats
    tau: Floats
    tau_error: Floats
    alpha: float
    dtype: Operand
    block: int


class _Range(NamedTuple):
    """A quantity of each key: its exact value, and how far float32 may be off."""

    exact: Floats
    error: Floats


def exact_rows(
    query: ArrayLike,
    key: ArrayLike,
    *,
    scale: float,
    alpha: float = 1.5,
    visible: ArrayLike = True,
    dtype: Operand = "bfloat16",
    block: int = 64,
    residual: ArrayLike | None = None,
    tolerance: float = 2.0**-17,
) -> Rows:
    """Return the exact rows of one head and the errors that its scores and thresholds may have.

    Parameters
    ----------
    query, key : array_like of real numbers, shape (..., n_queries, head_dim) and (..., n_keys, head_dim)
        As the kernels get them, that is, rounded to ``dtype`` before they are raised to float64.
    scale : float
        Multiplier of q.k.
    alpha : {1.5, 2.0}, default 1.5
        The orders that the kernels know.
    visible : array_like of bool, default True
        Broadcasts to (..., n_queries, n_keys).
    dtype : {"float32", "bfloat16", "float16"}, default "bfloat16"
    block : int, default 64
        Keys of a tile.
    residual, tolerance
        As `tau` takes them.

    Returns
    -------
    rows : Rows

    Raises
    ------
    ValueError
        If alpha is not 1.5 or 2, or ``dtype`` is not one of the three.

    Notes
    -----
    "Exact" is float64 here: the products err by 2**-29 of what float32 may, and the threshold by the bound of the
    oracle. Both are added to the errors.
    """
    alpha = _as_order("exact_rows", alpha)
    check_operand("exact_rows", dtype)
    q, k = _as_matrices("exact_rows", query, key)
    scale = as_scale("exact_rows", scale, q.shape[-1])
    z_scale = scale * (alpha - 1.0)
    products = q @ np.swapaxes(k, -1, -2)
    seen = as_mask("exact_rows", "visible", visible, products.shape)
    seen = np.ones(products.shape, np.bool_) if seen is None else seen
    z = np.where(seen, z_scale * products, -np.inf)
    z_error = np.where(seen, scores(q, k, z_scale, dtype=dtype) * (1.0 + 2.0**-28), 0.0)
    unscaled = z / (alpha - 1.0)
    own = threshold(unscaled, alpha) + 2.0**-28 * np.max(z_error, axis=-1)
    moved = tau(z, z_error, alpha=alpha, block=block, residual=residual, tolerance=tolerance)
    return Rows(z, z_error, solve(unscaled, alpha), moved + own, alpha, dtype, block)


def scores(query: ArrayLike, key: ArrayLike, z_scale: float, *, dtype: Operand) -> Floats:
    r"""Bound the error of ``z = z_scale * q.k`` as ``score_tile`` computes it.

    Parameters
    ----------
    query, key : array_like of real numbers, shape (..., n_queries, head_dim) and (..., n_keys, head_dim)
    z_scale : float
        ``scale * (alpha - 1)``.
    dtype : {"float32", "bfloat16", "float16"}

    Returns
    -------
    bound : ndarray of float64, shape (..., n_queries, n_keys)

    Notes
    -----
    With g = ``product_gamma(head_dim, dtype)`` the product errs by at most g * abs(q).abs(k). The scale is rounded to
    float32, and so is the product with it: ``abs(z_scale) * abs(q).abs(k) * ((1 + g) * (1 + u)**2 - 1)``, and a few
    ``2**-126``.

    Examples
    --------
    >>> scores([[1.0, 2.0]], [[0.5, 0.25]], 0.5, dtype="float32") <= 5.01 * 2.0**-24 * 0.5
    array([[ True]])
    """
    q, k = (np.abs(part) for part in _as_matrices("scores", query, key))
    head_dim = q.shape[-1]
    size = abs(z_scale) * (q @ np.swapaxes(k, -1, -2))
    relative = (1.0 + product_gamma(head_dim, dtype)) * (1.0 + U) ** 2 - 1.0
    return np.asarray(size * relative * SLACK + ((2 * head_dim + 1) * abs(z_scale) + 1.0) * TINY)


def tau(
    z: Floats,
    z_error: Floats,
    *,
    alpha: float = 1.5,
    block: int = 64,
    residual: ArrayLike | None = None,
    tolerance: float = 2.0**-17,
) -> Floats:
    r"""Bound the error of ``row_max + tau``, the threshold that `refine` leaves.

    Parameters
    ----------
    z, z_error : ndarray of float64, shape (..., n_queries, n_keys)
        Exact z, ``-inf`` where not visible, and the bound of its error.
    alpha : {1.5, 2.0}, default 1.5
    block : int, default 64
        Keys of a tile.
    residual : array_like of real numbers, optional
        ``abs(mass - 1)`` of each row, with the mass that the output stage computed at this very tau; broadcasts to
        (..., n_queries).
    tolerance : float, default 2**-17
        The tolerance of the refinement, used where no residual is given.

    Returns
    -------
    bound : ndarray of float64, shape (..., n_queries)
        0 for a row without a visible key.

    Notes
    -----
    Three parts. (1) tau is 1-Lipschitz in z, so it moves by at most the largest error of a z that can matter, one that
    may come within 1 of the maximum. (2) ``z - row_max`` rounds by at most u where it is above -1, and stays at or
    below -1 otherwise, where it does not matter. (3) With e = ``sum_gamma(block)`` the exact mass of the rounded row at
    tau is within ``e / (1 - e)`` of the computed one, relatively, so its distance from 1, which bounds the distance
    from the root, is at most ``residual + e / (1 - e) * (1 + residual)``. The sum ``row_max + tau`` is not formed.

    Without a residual: refinement takes one more step, from a point t with a computed ``abs(mass - 1)`` of at most d =
    tolerance. It ends between lo' and hi', which hold the root up to rounding. There lo' is at least t minus the norm
    step (at most 1.01 * d, because slope >= mass ** (1 / 2), or 1 for alpha 2) and its rounding (at most 9 e); hi' is t
    or ``t + mass - 1``, and the root exceeds it by at most 1.1 e. Of norm step and ``mass - 1`` one counts, by the sign
    of ``mass - 1``. In all ``1.01 * d + 11 e + 2**-20``. A threshold that is found from all live keys of a row at once
    has a residual of their sums' rounding alone.

    Lemmas: threshold_subset, candidate_superset, residual_bound, step_keeps_bracket, compensated_sum
    """
    alpha = _as_order("tau", alpha)
    seen = z > -np.inf
    exists = seen.any(axis=-1)
    top = np.argmax(z, axis=-1)[..., None]
    least_max = np.take_along_axis(z, top, axis=-1) - np.take_along_axis(z_error, top, axis=-1)
    matters = seen & (z + z_error > least_max - 1.0)
    moved = np.max(np.where(matters, z_error, 0.0), axis=-1)
    e = sum_gamma(block)
    if residual is None:
        refined = np.full(exists.shape, 1.01 * tolerance + 11.0 * e + 2.0**-20)
    else:
        left = as_real("tau", "residual", residual)
        refined = np.broadcast_to(left + e / (1.0 - e) * (1.0 + left), exists.shape)
    return np.where(exists, (moved + U + refined) * SLACK, 0.0)


def mass(at: Rows, tau: Floats) -> Floats:
    """Bound the error of the mass that `refine` and `output` compute at a given tau.

    Parameters
    ----------
    at : Rows
        Its own tau is not used.
    tau : ndarray of float64, shape (..., n_queries)
        Where the mass is evaluated: the exact sum of the row_max and the tau of the kernel; tau itself at most 0.

    Returns
    -------
    bound : ndarray of float64, shape (..., n_queries)
        Of the distance from the exact mass of the exact z at that tau.

    Notes
    -----
    A margin ``z - tau`` errs by d = z_error + u, where u is for the rounding of ``z - row_max``. The power is convex,
    so a term errs by at most ``max(z - tau + d, 0) ** power - max(z - tau, 0) ** power``. The roundings of gap, power
    and sum are `sum_gamma` of the result.  Lemma: compensated_sum
    """
    power, _ = POWERS[at.alpha]
    exact, error = _powers(_margin(at.z, tau), at.z_error + U, power)
    total = (exact + error).sum(axis=-1)
    return np.asarray((error.sum(axis=-1) + sum_gamma(at.block) * total) * SLACK + TINY * at.z.shape[-1])


def output(at: Rows, value: ArrayLike) -> Floats:
    r"""Bound the error of the output, entry by entry.

    Parameters
    ----------
    at : Rows
    value : array_like of real numbers, shape (..., n_keys, value_dim)

    Returns
    -------
    bound : ndarray of float64, shape (..., n_queries, value_dim)
        Of the distance from ``probs @ value`` at the exact tau, the rounding of what is stored included.

    Notes
    -----
    A margin errs by d = z_error + tau_error + u, hence a probability by ``max(margin + d, 0) ** power - prob`` and its
    own roundings, and again by one of the dtype before the product. The product with the values follows
    `product_gamma`, with as many terms as there are keys that may have a positive gap. It is divided by the computed
    mass, whose distance from 1 is at most the errors of the probabilities and of their sum together; so the quotient
    moves by as much of the product at most. That the two errors partly cancel is not used.

    Lemmas: normalised_output, block_mask_superset, compensated_sum
    """
    v = np.abs(_as_matrix("output", "value", value, at.z.shape[-1]))
    probs, rounded = _probs(at)
    within = probs.exact + rounded
    count = _terms(within)
    weighted = rounded @ v + product_gamma(count, at.dtype) * (within @ v) + count * TINY
    drift = probs.error.sum(axis=-1)[..., None]
    defect = drift + sum_gamma(at.block) * (1.0 + drift)
    size = probs.exact @ v
    # 1 / (1 - defect) - 1, and nothing is promised where the defect may reach 1.
    lost = np.where(defect < 1.0, defect / np.where(defect < 1.0, 1.0 - defect, 1.0), np.inf)
    lost = np.where(np.any(within, axis=-1, keepdims=True), lost, 0.0) + 4.0 * U
    moved = weighted + lost * (size + weighted)
    return _stored(size, moved + U * (size + moved), FORMATS[at.dtype])


def centre(at: Rows, value: ArrayLike) -> Floats:
    r"""Bound the error of the centre, entry by entry.

    Parameters
    ----------
    at : Rows
    value : array_like of real numbers, shape (..., n_keys, value_dim)

    Returns
    -------
    bound : ndarray of float64, shape (..., n_queries, value_dim)
        Of the distance from ``sum(sensitivity * v) / sum(sensitivity)`` at the exact tau.

    Notes
    -----
    With weights s' in place of s the mean moves by :math:`\sum_j (s'_j - s_j) (v_j - c) / \sum_j s'_j`, and never
    beyond the values that have weight, or to 0 if all weights vanish. For alpha 2 the weights are 0 or 1: a key within
    its error of tau may have either, and the bound is as large as that jump. The roundings of the two sums and of their
    quotient move a mean by `product_gamma`, `sum_gamma` and three u of the largest value.

    Lemma: delta_is_centre
    """
    v = _as_matrix("centre", "value", value, at.z.shape[-1])
    weights = _sensitivity(at)
    off = weights.error
    if at.alpha != 2.0:  # the weights of alpha 2 are 0 and 1, which every dtype holds
        form, within = FORMATS[at.dtype], weights.exact + off
        off = off + form.roundoff * within + form.tiny * (within > 0.0)
    within = weights.exact + off
    mean = _mean(weights.exact, v)
    lowest, highest = (_over_keys(pick, within > 0.0, v, 0.0) for pick in (np.minimum, np.maximum))
    widest = np.maximum(np.maximum(np.abs(highest - mean), np.abs(mean - lowest)), np.abs(mean))
    surely = np.maximum(weights.exact - off, 0.0).sum(axis=-1)[..., None]
    shifted = off @ np.abs(v) + off.sum(axis=-1)[..., None] * np.abs(mean)
    moved = np.where(surely > 0.0, np.minimum(widest, shifted / np.where(surely > 0.0, surely, 1.0)), widest)
    return np.asarray((moved + _centre_growth(at, within) * _largest(within, v)) * SLACK + TINY)


def delta(centre: ArrayLike, d_out: ArrayLike, centre_error: ArrayLike = 0.0) -> Floats:
    """Bound the error of delta, the inner product of centre and d_out.

    Parameters
    ----------
    centre, d_out : array_like of real numbers, shape (..., n_queries, value_dim)
        The centre that delta is taken from, or the exact one.
    centre_error : array_like of real numbers, default 0
        Bound of the error of the centre: one for all, or of its shape.

    Returns
    -------
    bound : ndarray of float64, shape (..., n_queries)

    Notes
    -----
    Products and sum round as float32 does, in any order: ``gamma(value_dim)`` of the sum of the moduli.

    Examples
    --------
    >>> delta([[1.0, 2.0]], [[3.0, 4.0]]) <= 11 * 2.01 * 2.0**-24
    array([ True])
    """
    c = np.abs(as_real("delta", "centre", centre))
    d = np.abs(as_same_shape("delta", "d_out", d_out, "the shape of centre", c.shape))
    error = as_real("delta", "centre_error", centre_error)
    if error.ndim:
        error = as_same_shape("delta", "centre_error", error, "the shape of centre", c.shape)
    relative = gamma(c.shape[-1])
    return np.asarray(np.sum(d * (error + relative * (c + error)), axis=-1) * SLACK + 2 * c.shape[-1] * TINY)


def d_query(at: Rows, key: ArrayLike, value: ArrayLike, d_out: ArrayLike, scale: float) -> Floats:
    """Bound the error of the gradient of the query, entry by entry.

    Parameters
    ----------
    at : Rows
    key, value : array_like of real numbers, shape (..., n_keys, head_dim) and (..., n_keys, value_dim)
    d_out : array_like of real numbers, shape (..., n_queries, value_dim)
    scale : float

    Returns
    -------
    bound : ndarray of float64, shape (..., n_queries, head_dim)
        Of the distance from ``scale * d_scores @ key``, the rounding of what is stored included.

    Notes
    -----
    The kernel sums ``s * (g - c)`` and ``s`` over the keys, each rounded to the dtype, with ``c = d_out . out``, and
    subtracts the second ``delta - c`` times. A weight errs by the error of s times the bracket, by s times that of g (a
    product), by two roundings of float32 and by one of the dtype; delta as in `d_key`; c cancels but for the roundings
    of both sums, which are of ``abs(g - c)`` and ``abs(delta - c)``. The sums over keys follow `product_gamma`; the
    difference, the scale and the product with it round once each.

    Lemmas: jacobian_form, delta_is_centre, block_mask_superset
    """
    size, error = _score_gradient("d_query", at, value, d_out)
    parts = _two_sums(at, _as_matrix("d_query", "value", value, at.z.shape[-1]), np.asarray(d_out, dtype=np.float64))
    k = np.abs(_as_matrix("d_query", "key", key, at.z.shape[-1]))
    own = as_scale("d_query", scale, k.shape[-1])
    extra = abs(own) * ((FORMATS[at.dtype].roundoff + product_gamma(_terms(parts), at.dtype) + gamma(3)) * (parts @ k))
    return _projected(size, error, k, own, at.dtype) + extra * SLACK


def d_key(at: Rows, query: ArrayLike, value: ArrayLike, d_out: ArrayLike, scale: float) -> Floats:
    """Bound the error of the gradient of the key, entry by entry.

    Parameters
    ----------
    at : Rows
    query : array_like of real numbers, shape (..., n_queries, head_dim)
    value : array_like of real numbers, shape (..., n_keys, value_dim)
    d_out : array_like of real numbers, shape (..., n_queries, value_dim)
    scale : float

    Returns
    -------
    bound : ndarray of float64, shape (..., n_keys, head_dim)

    Notes
    -----
    A score gradient ``s * (g - delta)`` errs by the error of s times ``abs(g - delta)``, by s times those of g (a
    product) and delta (`centre`, `delta`), by the product of both, by two roundings of float32 and by one of the dtype.
    The sum over queries follows `product_gamma`.  Lemmas: jacobian_form, delta_is_centre, block_mask_superset
    """
    size, error = (np.swapaxes(part, -1, -2) for part in _score_gradient("d_key", at, value, d_out))
    q = np.abs(_as_matrix("d_key", "query", query, at.z.shape[-2]))
    return _projected(size, error, q, as_scale("d_key", scale, q.shape[-1]), at.dtype)


def d_value(at: Rows, d_out: ArrayLike) -> Floats:
    """Bound the error of the gradient of the value, entry by entry.

    Parameters
    ----------
    at : Rows
    d_out : array_like of real numbers, shape (..., n_queries, value_dim)

    Returns
    -------
    bound : ndarray of float64, shape (..., n_keys, value_dim)
        Of the distance from ``probs.T @ d_out``, the rounding of what is stored included.

    Notes
    -----
    The probabilities err as in `output`; here nothing corrects them.  Lemma: block_mask_superset
    """
    probs, rounded = _probs(at)
    size, error = np.swapaxes(probs.exact, -1, -2), np.swapaxes(rounded, -1, -2)
    return _projected(size, error, np.abs(_as_matrix("d_value", "d_out", d_out, at.z.shape[-2])), 1.0, at.dtype)


def _as_order(function: str, alpha: Any) -> float:
    """Return alpha as a float; raise unless it is one of `POWERS`."""
    order = as_alpha(function, alpha)
    if order not in POWERS:
        raise ValueError(
            f"{function}: alpha must be 1.5 or 2, the orders that the kernels know; it is {shown(alpha)}. Use one."
        )
    return order


def _as_matrix(function: str, name: str, array: ArrayLike, length: int) -> Floats:
    """Return an operand as float64; raise unless it has as many rows as the scores have queries or keys."""
    found = as_real(function, name, array)
    if found.ndim < 2 or found.shape[-2] != length or found.shape[-1] == 0:
        raise ValueError(
            f"{function}: {name} must have the axes (..., {length}, head_dim), of which {length} is that of the scores "
            f"and head_dim at least 1; its shape is {found.shape}. Pass that of the same head."
        )
    return found


def _as_matrices(function: str, query: ArrayLike, key: ArrayLike) -> tuple[Floats, Floats]:
    """Return query and key as float64; raise unless their product exists."""
    q, k = as_real(function, "query", query), as_real(function, "key", key)
    for name, array in (("query", q), ("key", k)):
        if array.ndim < 2:
            raise ValueError(
                f"{function}: {name} must have the axes (..., length, head_dim); its shape is {array.shape}. "
                "Insert axes of length 1 for those that are missing."
            )
    if q.shape[-1] == 0 or q.shape[-1] != k.shape[-1]:
        raise ValueError(
            f"{function}: query and key must share a head_dim of at least 1; their shapes are {q.shape} and {k.shape}. "
            "Check that the last axis is head_dim in both."
        )
    try:
        np.broadcast_shapes(q.shape[:-2], k.shape[:-2])
    except ValueError as error:
        raise ValueError(
            f"{function}: the leading axes of query and key must broadcast; their shapes are {q.shape} and {k.shape}. "
            "Repeat the key heads for grouped queries, or insert axes of length 1."
        ) from error
    return q, k


def _terms(within: Floats) -> Floats:
    """Return how many weights of each row may differ from 0, (..., rows, 1)."""
    return np.asarray(np.count_nonzero(within, axis=-1)[..., None], dtype=np.float64)


def _margin(z: Floats, tau: Floats) -> Floats:
    """Return ``z - tau``, ``-inf`` where not visible."""
    return np.where(z > -np.inf, z - np.where(np.isfinite(tau), tau, 0.0)[..., None], -np.inf)


def _powers(margin: Floats, error: Floats, power: int) -> _Range:
    """Return ``max(margin, 0) ** power`` and the most that an error of the margin changes it (power >= 1 is convex)."""
    exact = np.maximum(margin, 0.0) ** power
    return _Range(exact, np.maximum(margin + error, 0.0) ** power - exact)


def _probs(at: Rows) -> tuple[_Range, Floats]:
    """Return the probabilities with their error in float32, and their error once rounded to the dtype."""
    power, roundings = POWERS[at.alpha]
    found = _powers(_margin(at.z, at.tau), at.z_error + at.tau_error[..., None] + U, power)
    within = found.exact + found.error
    error = (found.error + gamma(roundings) * within + TINY * (within > 0.0)) * SLACK
    form = FORMATS[at.dtype]
    rounded = error + form.roundoff * (found.exact + error) + form.tiny * (within > 0.0)
    return _Range(found.exact, error), rounded * SLACK


def _sensitivity(at: Rows) -> _Range:
    """Return ``gap ** (power - 1)`` on the support and 0 outside, and its error in float32."""
    margin, error = _margin(at.z, at.tau), at.z_error + at.tau_error[..., None] + U
    if at.alpha == 2.0:
        return _Range((margin > 0.0).astype(np.float64), (np.abs(margin) <= error).astype(np.float64))
    exact, moved = _powers(margin, error, 1)
    return _Range(exact, (moved + U * (exact + moved)) * SLACK)


def _mean(weights: Floats, v: Floats) -> Floats:
    """Return the mean of the values under the weights, 0 without weight."""
    total = weights.sum(axis=-1)[..., None]
    return np.asarray((weights @ v) / np.where(total > 0.0, total, 1.0))


def _over_keys(pick: np.ufunc, live: Booleans, v: Floats, otherwise: float) -> Floats:
    """Return the least or largest value of the live keys of each row, (..., rows, value_dim); ``otherwise`` if none."""
    limit = -np.inf if pick is np.maximum else np.inf
    columns = [pick.reduce(np.where(live, v[..., None, :, dim], limit), axis=-1) for dim in range(v.shape[-1])]
    found = np.stack(columns, axis=-1)
    return np.where(np.isfinite(found), found, otherwise)


def _largest(within: Floats, v: Floats) -> Floats:
    """Return the largest modulus of a value among the keys that may have weight, (..., rows, value_dim)."""
    return _over_keys(np.maximum, within > 0.0, np.abs(v), 0.0)


def _centre_growth(at: Rows, within: Floats) -> Floats:
    """Return what the roundings of its two sums and of their quotient may add to a centre, relatively."""
    product = product_gamma(_terms(within), at.dtype)
    return np.asarray((1.0 + product) * (1.0 + 3.0 * U) / (1.0 - sum_gamma(at.block)) - 1.0)


def _score_gradient(function: str, at: Rows, value: ArrayLike, d_out: ArrayLike) -> tuple[Floats, Floats]:
    """Return the modulus of the exact gradient of the scores, and its error once rounded to the dtype."""
    v, d = _as_matrix(function, "value", value, at.z.shape[-1]), _as_matrix(function, "d_out", d_out, at.z.shape[-2])
    if v.shape[-1] != d.shape[-1]:
        raise ValueError(
            f"{function}: value and d_out must share value_dim; their shapes are {v.shape} and {d.shape}. "
            "Pass the gradient of the output of these values."
        )
    weights = _sensitivity(at)
    mean, lifted = _mean(weights.exact, v), np.swapaxes(v, -1, -2)
    centred = np.abs(d @ lifted - np.sum(mean * d, axis=-1)[..., None])
    product = product_gamma(v.shape[-1], at.dtype) * (np.abs(d) @ np.abs(lifted)) + 2 * v.shape[-1] * TINY
    # Delta is a mean of the same products.
    bracket = product + np.max(product, axis=-1, keepdims=True) + delta(mean, d, centre(at, v))[..., None]
    size, within = weights.exact * centred, weights.exact + weights.error
    error = weights.error * (centred + bracket) + weights.exact * bracket + gamma(2) * within * (centred + bracket)
    form = FORMATS[at.dtype]
    error = error + form.roundoff * (size + error) + (form.tiny + 2.0 * TINY) * (within > 0.0)
    return size, error * SLACK


def _two_sums(at: Rows, v: Floats, d: Floats) -> Floats:
    """Return what d_query sums the moduli of, key by key, where ``s * (g - delta)`` is summed in two parts."""
    weights, (probs, _) = _sensitivity(at), _probs(at)
    lifted = d @ np.swapaxes(v, -1, -2)
    # out as it was stored: off by its own bound.
    shared = np.sum((probs.exact @ v) * d, axis=-1)[..., None]
    off = np.sum(output(at, v) * np.abs(d), axis=-1)[..., None]
    apart = np.abs(np.sum(_mean(weights.exact, v) * d, axis=-1)[..., None] - shared) + off
    return np.asarray((weights.exact + weights.error) * (np.abs(lifted - shared) + off + apart))


def _projected(size: Floats, error: Floats, other: Floats, scale: float, dtype: Operand) -> Floats:
    """Bound the error of ``scale * weights @ other``, storage included, for weights of known modulus and error."""
    within = size + error
    count = _terms(within)
    summed = abs(scale) * (error @ other + product_gamma(count, dtype) * (within @ other) + 2.0 * count * TINY)
    whole = abs(scale) * (size @ other)
    return _stored(whole, summed + gamma(2) * (whole + summed) + TINY, FORMATS[dtype])


def _stored(size: Floats, error: Floats, form: Format) -> Floats:
    """Return the error of a number of at most this modulus, once it is rounded to the dtype."""
    return np.asarray((error + form.roundoff * (size + error) + form.tiny) * SLACK)
