"""What is the threshold of a row whose live keys are in hand?"""

import numpy as np

from entmax_ref.arguments import Booleans, Floats
from entmax_ref.stages.blocks import block_max
from entmax_ref.stages.steps import norm_step, sums


def solve(z: Floats, live: Booleans, alpha: float = 1.5) -> Floats:
    """Return the threshold of each row from its live keys alone, by Newton on the norm of their gaps until it stops.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n)
        ``-inf`` where a key is not visible.
    live : ndarray of bool, shape (..., n)
        All support, and perhaps other keys: `collect`.
    alpha : float, default 1.5
        Order, in (1, 2].

    Returns
    -------
    tau : ndarray of float64, shape (...)
        ``+inf`` for a row without a live key.

    Notes
    -----
    From the left the step never passes the root, so a row has arrived when it does not rise any more.

    Lemmas: newton_norm_left, threshold_bracket
    """
    held = np.where(live, z, -np.inf)
    highest = block_max(held, max(z.shape[-1], 1))[..., 0] if z.shape[-1] else np.full(z.shape[:-1], -np.inf)
    seen = highest > -np.inf
    top = np.where(seen, highest, 0.0)
    shifted = np.where(seen[..., None], held - top[..., None], 0.0)
    tau = np.full(top.shape, -1.0)
    while True:
        mass, slope, _ = sums(shifted, tau, alpha)
        step = tau + norm_step(mass, slope, alpha)
        rises = step > tau
        if not rises.any():
            return np.where(seen, top + tau, np.inf)
        tau = np.where(rises, step, tau)
