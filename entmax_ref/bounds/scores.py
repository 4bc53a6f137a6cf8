"""How wrong may the scores be in float32, and what are the exact rows that all other bounds start from?"""

import numpy as np
from numpy.typing import ArrayLike

from entmax_ref.arguments import Floats, as_mask, as_scale
from entmax_ref.bounds.model import SLACK, TINY, Operand, U, check_operand, product_gamma
from entmax_ref.bounds.oracle import threshold
from entmax_ref.bounds.refine import tau
from entmax_ref.bounds.rows import Rows, as_matrices, as_order
from entmax_ref.rows.threshold import threshold as solve


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
    alpha : float, default 1.5
        In (1, 2]; one that is not 2, 1.5, 4 / 3 or 1.25 must be a float32 number, which is what kernels load.
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
        What the bounds of the stages take.

    Raises
    ------
    ValueError
        If alpha is not in (1, 2], or ``dtype`` is not one of the three.

    Notes
    -----
    "Exact" is float64 here: the products err by 2**-29 of what float32 may, and the threshold by the bound of the
    oracle. Both are added to the errors.
    """
    alpha = as_order("exact_rows", alpha)
    check_operand("exact_rows", dtype)
    q, k = as_matrices("exact_rows", query, key)
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
        As the kernels get them.
    z_scale : float
        ``scale * (alpha - 1)``.
    dtype : {"float32", "bfloat16", "float16"}

    Returns
    -------
    bound : ndarray of float64, shape (..., n_queries, n_keys)
        Of the distance from the exact z.

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
    q, k = (np.abs(part) for part in as_matrices("scores", query, key))
    head_dim = q.shape[-1]
    size = abs(z_scale) * (q @ np.swapaxes(k, -1, -2))
    relative = (1.0 + product_gamma(head_dim, dtype)) * (1.0 + U) ** 2 - 1.0
    return np.asarray(size * relative * SLACK + ((2 * head_dim + 1) * abs(z_scale) + 1.0) * TINY)
