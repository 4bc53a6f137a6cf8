"""How wrong may tau and the mass be in float32?  The stages that find the threshold: dense, solve, refine."""

import numpy as np
from numpy.typing import ArrayLike

from entmax_ref.arguments import Floats, as_real
from entmax_ref.bounds.model import SLACK, TINY, U, sum_gamma
from entmax_ref.bounds.rows import Rows, as_order, power_of
from entmax_ref.bounds.weights import margin_of, power_error, powers_of


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
    alpha : float, default 1.5
        In (1, 2].
    block : int, default 64
        Keys of a tile.
    residual : array_like of real numbers, optional
        ``abs(mass - 1)`` of each row, with the mass that the output stage computed at this very tau; broadcasts to
        (..., n_queries).
    tolerance : float, default 2**-17
        The tolerance of the refinement, used where no residual is given; with a loaded alpha it is at least ``2**-23 /
        (alpha - 1)``.

    Returns
    -------
    bound : ndarray of float64, shape (..., n_queries)
        0 for a row without a visible key.

    Notes
    -----
    Three parts. (1) tau is 1-Lipschitz in z, so it moves by at most the largest error of a z that can matter, one that
    may come within 1 of the maximum. (2) ``z - row_max`` rounds by at most u where it is above -1, and stays at or
    below -1 otherwise, where it does not matter. (3) With e = ``sum_gamma(block)``, and what the powers of an alpha
    other than 1.5 and 2 round besides, the exact mass of the rounded row at tau is within ``e / (1 - e)`` of the
    computed one, relatively, so its distance from 1, which bounds the distance from the root, is at most ``residual + e
    / (1 - e) * (1 + residual)``. The sum ``row_max + tau`` is not formed.

    Without a residual: refinement takes one more step, from a point t with a computed ``abs(mass - 1)`` of at most d =
    tolerance. It ends between lo' and hi', which hold the root up to rounding. There lo' is at least t minus the norm
    step (at most 1.01 * d, because slope >= mass ** (1 - 1 / power)) and its rounding (at most 9 e); hi' is t
    or ``t + mass - 1``, and the root exceeds it by at most 1.1 e. Of norm step and ``mass - 1`` one counts, by the sign
    of ``mass - 1``. In all ``1.01 * d + 11 e + 2**-20``. A threshold that is found from all live keys of a row at once
    has a residual of their sums' rounding alone.

    Lemmas: threshold_subset, candidate_superset, residual_bound, step_keeps_bracket, compensated_sum
    """
    alpha = as_order("tau", alpha)
    seen = z > -np.inf
    exists = seen.any(axis=-1)
    top = np.argmax(z, axis=-1)[..., None]
    least_max = np.take_along_axis(z, top, axis=-1) - np.take_along_axis(z_error, top, axis=-1)
    matters = seen & (z + z_error > least_max - 1.0)
    moved = np.max(np.where(matters, z_error, 0.0), axis=-1)
    e = sum_gamma(block) + power_error(alpha)
    if residual is None:
        stopped = max(tolerance, 2.0**-23 * power_of(alpha))
        refined = np.full(exists.shape, 1.01 * stopped + 11.0 * e + 2.0**-20)
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
    exact, error = powers_of(margin_of(at.z, tau), at.z_error + U, power_of(at.alpha))
    total = (exact + error).sum(axis=-1)
    return np.asarray(
        (error.sum(axis=-1) + (sum_gamma(at.block) + power_error(at.alpha)) * total) * SLACK + TINY * at.z.shape[-1]
    )
