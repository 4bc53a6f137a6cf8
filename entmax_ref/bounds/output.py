"""How wrong may the output be in float32?"""

import numpy as np
from numpy.typing import ArrayLike

from entmax_ref.arguments import Floats
from entmax_ref.bounds.model import FORMATS, TINY, U, product_gamma, sum_gamma
from entmax_ref.bounds.rows import Rows, as_matrix
from entmax_ref.bounds.weights import probs_of, stored, terms_of


def output(at: Rows, value: ArrayLike) -> Floats:
    r"""Bound the error of the output, entry by entry.

    Parameters
    ----------
    at : Rows
        As `exact_rows` returns them.
    value : array_like of real numbers, shape (..., n_keys, value_dim)
        As the kernels get it.

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
    v = np.abs(as_matrix("output", "value", value, at.z.shape[-1]))
    probs, rounded = probs_of(at)
    within = probs.exact + rounded
    count = terms_of(within)
    weighted = rounded @ v + product_gamma(count, at.dtype) * (within @ v) + count * TINY
    drift = probs.error.sum(axis=-1)[..., None]
    defect = drift + sum_gamma(at.block) * (1.0 + drift)
    size = probs.exact @ v
    # 1 / (1 - defect) - 1, and nothing is promised where the defect may reach 1.
    lost = np.where(defect < 1.0, defect / np.where(defect < 1.0, 1.0 - defect, 1.0), np.inf)
    lost = np.where(np.any(within, axis=-1, keepdims=True), lost, 0.0) + 4.0 * U
    moved = weighted + lost * (size + weighted)
    return stored(size, moved + U * (size + moved), FORMATS[at.dtype])
