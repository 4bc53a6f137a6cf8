"""Which single keys may be support?"""

from entmax_ref.arguments import Booleans, Floats


def collect(z: Floats, lo: Floats) -> Booleans:
    """Return which keys reach above a lower bound of the threshold; all support is among them.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n)
        ``-inf`` where a key is not visible.
    lo : ndarray of float64, shape (...)
        Of `dense`.

    Returns
    -------
    live : ndarray of bool, shape (..., n)
        False only for keys outside the support.

    Notes
    -----
    Lemma: block_mask_superset
    """
    return z > lo[..., None]
