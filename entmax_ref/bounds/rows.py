"""What do the bounds of the stages take?  Exact rows with the errors of their scores, and operands that fit them."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from entmax_ref.arguments import Floats, as_alpha, as_real
from entmax_ref.bounds.model import (
    Operand,
)
from entmax_ref.reading import shown

# alpha -> power where kernels multiply it out.  Any other they raise with a logarithm.
POWERS = {2.0: 1, 1.5: 2, 4.0 / 3.0: 3, 1.25: 4}


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


def as_order(function: str, alpha: Any) -> float:
    """Return alpha as a float; raise unless the kernels take it."""
    order = as_alpha(function, alpha)
    if order > 2.0:
        raise ValueError(
            f"{function}: alpha must be at most 2, which is what the kernels take; it is {shown(alpha)}. "
            "Use one in (1, 2]."
        )
    return order


def power_of(alpha: float) -> float:
    """Return ``1 / (alpha - 1)``, the integer itself where it is one of `POWERS`."""
    return float(POWERS.get(alpha, 1.0 / (alpha - 1.0)))


def as_matrix(function: str, name: str, array: ArrayLike, length: int) -> Floats:
    """Return an operand as float64; raise unless it has as many rows as the scores have queries or keys."""
    found = as_real(function, name, array)
    if found.ndim < 2 or found.shape[-2] != length or found.shape[-1] == 0:
        raise ValueError(
            f"{function}: {name} must have the axes (..., {length}, head_dim), of which {length} is that of the scores "
            f"and head_dim at least 1; its shape is {found.shape}. Pass that of the same head."
        )
    return found


def as_matrices(function: str, query: ArrayLike, key: ArrayLike) -> tuple[Floats, Floats]:
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
