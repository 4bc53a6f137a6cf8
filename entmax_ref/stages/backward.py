"""How does the loss change with queries, keys and values?"""

import numpy as np

from entmax_ref.arguments import Floats
from entmax_ref.stages.output import probs_and_sensitivity


def delta(z: Floats, tau: Floats, value: Floats, d_out: Floats, alpha: float = 1.5) -> Floats:
    """Return what each row subtracts from ``d_probs``: their mean weighted by the sensitivity.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n_queries, n_keys)
        ``-inf`` where a key is not visible.
    tau : ndarray of float64, shape (..., n_queries)
        The threshold of the forward.
    value : ndarray of float64, shape (..., n_keys, value_dim)
        The values.
    d_out : ndarray of float64, shape (..., n_queries, value_dim)
        Gradient of the output.
    alpha : float, default 1.5
        Order, in (1, 2].

    Returns
    -------
    delta : ndarray of float64, shape (..., n_queries)
        0 for a row without a visible key.

    Notes
    -----
    The kernel finds it in the pass that makes d_query, as ``d_out . out`` and the weighted mean of what the rest of
    ``d_probs`` is.

    Lemma: delta_is_centre
    """
    _, sensitivity = probs_and_sensitivity(z, tau, alpha)
    slope = sensitivity.sum(axis=-1)
    moment = np.sum(sensitivity * (d_out @ np.swapaxes(value, -1, -2)), axis=-1)
    result: Floats = moment / np.where(slope == 0.0, 1.0, slope)
    return result


def score_gradient(z: Floats, tau: Floats, value: Floats, d_out: Floats, delta: Floats, alpha: float = 1.5) -> Floats:
    """Return the gradient of the scores.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n_queries, n_keys)
        ``-inf`` where a key is not visible.
    tau : ndarray of float64, shape (..., n_queries)
        The threshold of the forward.
    value : ndarray of float64, shape (..., n_keys, value_dim)
        The values.
    d_out : ndarray of float64, shape (..., n_queries, value_dim)
        Gradient of the output.
    delta : ndarray of float64, shape (..., n_queries)
        Of the function of that name.
    alpha : float, default 1.5
        Order, in (1, 2].

    Returns
    -------
    d_scores : ndarray of float64, shape (..., n_queries, n_keys)
        0 off the support; NaN where visible in a poisoned row.

    Notes
    -----
    Lemmas: jacobian_form, jacobian_rows_zero, delta_is_centre
    """
    _, sensitivity = probs_and_sensitivity(z, tau, alpha)
    result: Floats = sensitivity * (d_out @ np.swapaxes(value, -1, -2) - delta[..., None])
    return result


def backward_dq(
    z: Floats, tau: Floats, key: Floats, value: Floats, d_out: Floats, delta: Floats, scale: float, alpha: float = 1.5
) -> Floats:
    """Return the gradient of the query.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n_queries, n_keys)
        ``-inf`` where a key is not visible.
    tau : ndarray of float64, shape (..., n_queries)
        The threshold of the forward.
    key : ndarray of float64, shape (..., n_keys, head_dim)
        The keys.
    value : ndarray of float64, shape (..., n_keys, value_dim)
        The values.
    d_out : ndarray of float64, shape (..., n_queries, value_dim)
        Gradient of the output.
    delta : ndarray of float64, shape (..., n_queries)
        Of the function of that name.
    scale : float
        Multiplier of the products.
    alpha : float, default 1.5
        Order, in (1, 2].

    Returns
    -------
    d_query : ndarray of float64, shape (..., n_queries, head_dim)
        ``scale * d_scores @ key``.
    """
    result: Floats = scale * (score_gradient(z, tau, value, d_out, delta, alpha) @ key)
    return result


def backward_dkdv(
    z: Floats, tau: Floats, query: Floats, value: Floats, d_out: Floats, delta: Floats, scale: float, alpha: float = 1.5
) -> tuple[Floats, Floats]:
    """Return the gradients of key and value, one query head at a time; grouped heads add up.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n_queries, n_keys)
        ``-inf`` where a key is not visible.
    tau : ndarray of float64, shape (..., n_queries)
        The threshold of the forward.
    query : ndarray of float64, shape (..., n_queries, head_dim)
        The queries.
    value : ndarray of float64, shape (..., n_keys, value_dim)
        The values.
    d_out : ndarray of float64, shape (..., n_queries, value_dim)
        Gradient of the output.
    delta : ndarray of float64, shape (..., n_queries)
        Of the function of that name.
    scale : float
        Multiplier of the products.
    alpha : float, default 1.5
        Order, in (1, 2].

    Returns
    -------
    d_key : ndarray of float64, shape (..., n_keys, head_dim)
        ``scale * d_scores.T @ query``.
    d_value : ndarray of float64, shape (..., n_keys, value_dim)
        ``probs.T @ d_out``.
    """
    probs, _ = probs_and_sensitivity(z, tau, alpha)
    d_scores = score_gradient(z, tau, value, d_out, delta, alpha)
    return scale * (np.swapaxes(d_scores, -1, -2) @ query), np.swapaxes(probs, -1, -2) @ d_out
