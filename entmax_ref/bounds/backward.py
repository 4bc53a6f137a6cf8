"""How wrong may the backward stages be in float32?  Centre and delta, and the gradients of the operands."""

import numpy as np
from numpy.typing import ArrayLike

from entmax_ref.arguments import Booleans, Floats, as_real, as_same_shape, as_scale
from entmax_ref.bounds.model import FORMATS, SLACK, TINY, U, gamma, product_gamma, sum_gamma
from entmax_ref.bounds.output import output
from entmax_ref.bounds.rows import Rows, as_matrix
from entmax_ref.bounds.weights import mean_of, probs_of, projected, sensitivity_of, terms_of


def centre(at: Rows, value: ArrayLike) -> Floats:
    r"""Bound the error of the centre, entry by entry.

    Parameters
    ----------
    at : Rows
        As `exact_rows` returns them.
    value : array_like of real numbers, shape (..., n_keys, value_dim)
        As the kernels get it.

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
    v = as_matrix("centre", "value", value, at.z.shape[-1])
    weights = sensitivity_of(at)
    off = weights.error
    if at.alpha != 2.0:  # the weights of alpha 2 are 0 and 1, which every dtype holds
        form, within = FORMATS[at.dtype], weights.exact + off
        off = off + form.roundoff * within + form.tiny * (within > 0.0)
    within = weights.exact + off
    mean = mean_of(weights.exact, v)
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
        Of the distance from the inner product of the exact centre and d_out.

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
        As `exact_rows` returns them.
    key, value : array_like of real numbers, shape (..., n_keys, head_dim) and (..., n_keys, value_dim)
        As the kernels get them.
    d_out : array_like of real numbers, shape (..., n_queries, value_dim)
        Gradient of a scalar with respect to the output, as the kernels get it.
    scale : float
        Multiplier of q.k.

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
    parts = _two_sums(at, as_matrix("d_query", "value", value, at.z.shape[-1]), np.asarray(d_out, dtype=np.float64))
    k = np.abs(as_matrix("d_query", "key", key, at.z.shape[-1]))
    own = as_scale("d_query", scale, k.shape[-1])
    extra = abs(own) * (
        (FORMATS[at.dtype].roundoff + product_gamma(terms_of(parts), at.dtype) + gamma(3)) * (parts @ k)
    )
    return projected(size, error, k, own, at.dtype) + extra * SLACK


def d_key(at: Rows, query: ArrayLike, value: ArrayLike, d_out: ArrayLike, scale: float) -> Floats:
    """Bound the error of the gradient of the key, entry by entry.

    Parameters
    ----------
    at : Rows
        As `exact_rows` returns them.
    query : array_like of real numbers, shape (..., n_queries, head_dim)
        As the kernels get it.
    value : array_like of real numbers, shape (..., n_keys, value_dim)
        As the kernels get it.
    d_out : array_like of real numbers, shape (..., n_queries, value_dim)
        Gradient of a scalar with respect to the output, as the kernels get it.
    scale : float
        Multiplier of q.k.

    Returns
    -------
    bound : ndarray of float64, shape (..., n_keys, head_dim)
        Of the distance from ``scale * d_scores.T @ query``, the rounding of what is stored included.

    Notes
    -----
    A score gradient ``s * (g - delta)`` errs by the error of s times ``abs(g - delta)``, by s times those of g (a
    product) and delta (`centre`, `delta`), by the product of both, by two roundings of float32 and by one of the dtype.
    The sum over queries follows `product_gamma`.  Lemmas: jacobian_form, delta_is_centre, block_mask_superset
    """
    size, error = (np.swapaxes(part, -1, -2) for part in _score_gradient("d_key", at, value, d_out))
    q = np.abs(as_matrix("d_key", "query", query, at.z.shape[-2]))
    return projected(size, error, q, as_scale("d_key", scale, q.shape[-1]), at.dtype)


def d_value(at: Rows, d_out: ArrayLike) -> Floats:
    """Bound the error of the gradient of the value, entry by entry.

    Parameters
    ----------
    at : Rows
        As `exact_rows` returns them.
    d_out : array_like of real numbers, shape (..., n_queries, value_dim)
        Gradient of a scalar with respect to the output, as the kernels get it.

    Returns
    -------
    bound : ndarray of float64, shape (..., n_keys, value_dim)
        Of the distance from ``probs.T @ d_out``, the rounding of what is stored included.

    Notes
    -----
    The probabilities err as in `output`; here nothing corrects them.  Lemma: block_mask_superset
    """
    probs, rounded = probs_of(at)
    size, error = np.swapaxes(probs.exact, -1, -2), np.swapaxes(rounded, -1, -2)
    return projected(size, error, np.abs(as_matrix("d_value", "d_out", d_out, at.z.shape[-2])), 1.0, at.dtype)


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
    product = product_gamma(terms_of(within), at.dtype)
    return np.asarray((1.0 + product) * (1.0 + 3.0 * U) / (1.0 - sum_gamma(at.block)) - 1.0)


def _score_gradient(function: str, at: Rows, value: ArrayLike, d_out: ArrayLike) -> tuple[Floats, Floats]:
    """Return the modulus of the exact gradient of the scores, and its error once rounded to the dtype."""
    v, d = as_matrix(function, "value", value, at.z.shape[-1]), as_matrix(function, "d_out", d_out, at.z.shape[-2])
    if v.shape[-1] != d.shape[-1]:
        raise ValueError(
            f"{function}: value and d_out must share value_dim; their shapes are {v.shape} and {d.shape}. "
            "Pass the gradient of the output of these values."
        )
    weights = sensitivity_of(at)
    mean, lifted = mean_of(weights.exact, v), np.swapaxes(v, -1, -2)
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
    weights, (probs, _) = sensitivity_of(at), probs_of(at)
    lifted = d @ np.swapaxes(v, -1, -2)
    # out as it was stored: off by its own bound.
    shared = np.sum((probs.exact @ v) * d, axis=-1)[..., None]
    off = np.sum(output(at, v) * np.abs(d), axis=-1)[..., None]
    apart = np.abs(np.sum(mean_of(weights.exact, v) * d, axis=-1)[..., None] - shared) + off
    return np.asarray((weights.exact + weights.error) * (np.abs(lifted - shared) + off + apart))
