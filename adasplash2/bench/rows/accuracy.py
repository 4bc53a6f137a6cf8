"""How exact is a map of rows?  Masses, supports and gradients on rows that are hard, against the float64 oracle."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray

import entmax_ref
from adasplash2.bench.passes.rows import as_z, draw

from .contenders import Map

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class RowErrors:
    """What is wrong with a map on some rows.

    Attributes
    ----------
    workload : str
    mass : float
        Largest ``abs(sum(probs) - 1)``.
    false_in, false_out : int
        Keys outside the exact support with a probability above 0, and keys inside with none.
    probs, d_scores : float
        Largest relative error of a row, in the Euclidean norm; NaN if a number is.
    """

    workload: str
    mass: float
    false_in: int
    false_out: int
    probs: float
    d_scores: float


@dataclasses.dataclass(frozen=True)
class HardRows:
    """Rows of one kind in the dtype of a case, a gradient of their probabilities, and the exact answers."""

    workload: str
    scores: torch.Tensor
    d_probs: torch.Tensor
    probs: Floats
    support: NDArray[np.bool_]
    d_scores: Floats


def hard_rows(name: str, alpha: float, count: int, n: int, dtype: torch.dtype, device: str, seed: int = 0) -> HardRows:
    """Return seeded rows of a kind of `pass_rows`, rounded to the dtype before the oracle sees them."""
    drawn = as_z(name, draw(name, count, n, seed), alpha) / np.float32(alpha - 1.0)
    scores = torch.from_numpy(drawn).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    d_probs = torch.randn(count, n, generator=generator).to(dtype)
    exact, weights = scores.double().numpy(), d_probs.double().numpy()
    return HardRows(
        name,
        scores.to(device),
        d_probs.to(device),
        entmax_ref.entmax(exact, alpha),
        entmax_ref.support(exact, alpha),
        entmax_ref.entmax_vjp(exact, weights, alpha),
    )


def row_errors(function: Map, rows: HardRows) -> RowErrors:
    """Return the errors of a map on such rows."""
    leaf = rows.scores.detach().requires_grad_()
    found = function(leaf)
    (d_scores,) = torch.autograd.grad(found, leaf, rows.d_probs)
    probs = found.detach().double().cpu().numpy()
    return RowErrors(
        rows.workload,
        float(np.abs(probs.sum(-1) - 1.0).max()),
        int(np.count_nonzero((probs > 0.0) & ~rows.support)),
        int(np.count_nonzero(~(probs > 0.0) & rows.support)),
        _relative(probs, rows.probs),
        _relative(d_scores.double().cpu().numpy(), rows.d_scores),
    )


def _relative(found: Floats, exact: Floats) -> float:
    """Return the largest relative error of a row; a row that is 0, or nearly so, counts as large as the mean one."""
    size = np.linalg.norm(exact, axis=-1)
    size = np.maximum(size, size.mean() * 2.0**-10)
    return float((np.linalg.norm(found - exact, axis=-1) / np.where(size > 0.0, size, 1.0)).max())
