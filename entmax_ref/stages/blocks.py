"""Which blocks of keys are visited, and by which blocks of queries?"""

import numpy as np
from numpy.typing import NDArray

from entmax_ref.arguments import Booleans, Floats


def block_max(z: Floats, block: int) -> Floats:
    """Return the maximum of each block of keys.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n)
        ``-inf`` where a key is not visible.
    block : int
        Keys in a block; a last short block counts as full.

    Returns
    -------
    block_max : ndarray of float64, shape (..., ceil(n / block))
        ``-inf`` for a block without a visible key.
    """
    padding = [(0, 0)] * (z.ndim - 1) + [(0, -z.shape[-1] % block)]
    padded = np.pad(z, padding, constant_values=-np.inf)
    result: Floats = padded.reshape(*z.shape[:-1], padded.shape[-1] // block, block).max(axis=-1)
    return result


def block_list(kept: Booleans) -> list[NDArray[np.int64]]:
    """Return the indices of the set blocks of each row of a mask, ascending.

    Parameters
    ----------
    kept : ndarray of bool, shape (..., n_blocks)
        A mask of blocks of keys.

    Returns
    -------
    lists : list of ndarray of int64
        One for each row, in the order of the flattened leading axes.
    """
    return [np.flatnonzero(row) for row in kept.reshape(-1, kept.shape[-1])]


def block_mask(z: Floats, bound: Floats, block: int) -> Booleans:
    """Return which blocks of keys reach above ``bound``, shape (..., ceil(n / block)).

    With a bound at or below tau, a block that is False holds no support.  A row whose bound is NaN keeps what it sees.

    Parameters
    ----------
    z : ndarray of float64, shape (..., n)
        ``-inf`` where a key is not visible.
    bound : ndarray of float64, shape (...)
        A lower bound of the threshold that all later stages use: ``lo`` of `refine`.
    block : int
        Keys in a block; the last one may be shorter.

    Returns
    -------
    kept : ndarray of bool, shape (..., ceil(n / block))
        Which blocks the later stages visit. A kernel keeps a block if any row of its query block does.

    Notes
    -----
    Lemmas: block_mask_superset, block_mask_unsound_above
    """
    highest = block_max(np.where(np.isnan(z), np.inf, z), block)
    return (highest > -np.inf) & ~(highest <= bound[..., None])


def block_mask_transpose(kept: Booleans) -> Booleans:
    """Return a mask by key blocks of one by query blocks.

    Parameters
    ----------
    kept : ndarray of bool, shape (..., n_query_blocks, n_key_blocks)
        Which key blocks each query block visits.

    Returns
    -------
    transposed : ndarray of bool, shape (..., n_key_blocks, n_query_blocks)
        Which query blocks visit each key block.
    """
    return np.swapaxes(kept, -1, -2)
