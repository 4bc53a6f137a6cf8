"""What does a row attend to, at a given threshold?"""

from typing import NamedTuple

import numpy as np

from entmax_ref.arguments import Floats


class Output(NamedTuple):
    """What the output stage leaves for each row.

    Attributes
    ----------
    out : ndarray of float64, shape (..., n_queries, value_dim)
        The output; 0 for a row without a visible key, NaN for a poisoned one.
    mass : ndarray of float64, shape (..., n_queries)
        At the given tau; 1 at the exact one.
    """

    out: Floats
    mass: Floats


def gaps(z: Floats, tau: Floats) -> Floats:
    """Return ``max(z - tau, 0)``, the gap of every key.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n)
        ``-inf`` where a key is not visible.
    tau : ndarray of float64, shape (...)
        The threshold.

    Returns
    -------
    gap : ndarray of float64, shape (..., n)
        0 where not visible, NaN where visible in a row whose tau is NaN.
    """
    return np.where(z == -np.inf, 0.0, np.maximum(np.where(z == -np.inf, 0.0, z) - tau[..., None], 0.0))


def probs_and_sensitivity(z: Floats, tau: Floats, alpha: float) -> tuple[Floats, Floats]:
    """Return the probabilities at tau, ``gap ** power``, and the sensitivities.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n)
        ``-inf`` where a key is not visible.
    tau : ndarray of float64, shape (...)
        The threshold.
    alpha : float
        Order, in (1, 2].

    Returns
    -------
    probs, sensitivity : ndarray of float64, shape (..., n)
        ``sensitivity`` is ``gap ** (power - 1)`` on the support and 0 elsewhere.

    Notes
    -----
    Lemma: jacobian_form
    """
    power = 1.0 / (alpha - 1.0)
    gap = gaps(z, tau)
    live = gap != 0.0
    return gap**power, np.where(live, np.where(live, gap, 1.0) ** (power - 1.0), 0.0)


def output(z: Floats, tau: Floats, value: Floats, alpha: float = 1.5) -> Output:
    """Return the mean of the values weighted by the probabilities at tau, and the mass of these.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n_queries, n_keys)
        ``-inf`` where a key is not visible.
    tau : ndarray of float64, shape (..., n_queries)
        A threshold near the exact one.
    value : ndarray of float64, shape (..., n_keys, value_dim)
        The values.
    alpha : float, default 1.5
        Order, in (1, 2].

    Returns
    -------
    output : Output
        Off by at most twice the spread of the values times ``abs(mass - 1)``.

    Notes
    -----
    Lemma: normalised_output
    """
    probs, _ = probs_and_sensitivity(z, tau, alpha)
    mass = probs.sum(axis=-1)
    return Output((probs @ value) / np.where(mass == 0.0, 1.0, mass)[..., None], mass)
