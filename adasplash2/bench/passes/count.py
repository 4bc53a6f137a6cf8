"""How many refinement passes do rows of any length take?  Counted in the kernels, or in their specification."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from adasplash2 import entmax_attention
from adasplash2.bench.shared.record import SCHEMA, Header
from adasplash2.orders import TOLERANCE
from entmax_ref import stages

from .rows import NAMES, Rows, as_z, draw

LENGTHS = (1, 2, 7, 64, 1000, 1024, 4096, 16384, 131072, 1048576)
ALPHAS = (1.5, 2.0)
QUERIES = 16  # rows that share a head: each reads one component of its keys
SCORES_AT_ONCE = 2**22


@dataclasses.dataclass(frozen=True)
class Counted:
    """What rows of one kind and length took.

    Attributes
    ----------
    passes : ndarray of int
    residual : float
        Largest, where refinement ended.
    mass_error : float
        Largest ``abs(mass - 1)`` at the threshold that came out.
    """

    passes: np.ndarray
    residual: float
    mass_error: float


@dataclasses.dataclass(frozen=True)
class PassResult:
    """Passes of some rows: mean, most, and how many rows took more than two."""

    workload: str
    length: int
    alpha: float
    rows: int
    mean: float
    most: int
    over_two: int
    residual: float
    mass_error: float


@dataclasses.dataclass(frozen=True)
class PassRecord:
    """A run of ``bench passes``; ``source`` is "kernels" or "specification", ``tolerance`` where a row may stop."""

    header: Header
    source: str
    tolerance: float
    results: tuple[PassResult, ...]
    schema: int = SCHEMA
    kind: str = "passes"


def tolerance() -> float:
    """Return the residual at which refinement of float32 operands ends."""
    return TOLERANCE[torch.float32]


def count_passes(
    names: Sequence[str] = NAMES,
    lengths: Sequence[int] = LENGTHS,
    alphas: Sequence[float] = ALPHAS,
    *,
    rows: int,
    device: str | None,
    seed: int = 0,
) -> Iterator[PassResult]:
    """Yield passes by length, workload and alpha.

    Parameters
    ----------
    names, lengths, alphas
        What to combine.
    rows : int
        Rows of each kind.
    device : str or None
        Where the kernels run; None for the float64 specification.
    seed : int
    """
    for length in lengths:
        for name in names:
            drawn = draw(name, rows, length, seed)
            for alpha in alphas:
                z = as_z(name, drawn, alpha)
                found = by_specification(z, alpha) if device is None else by_kernels(z, alpha, device)
                yield PassResult(
                    name,
                    length,
                    alpha,
                    rows,
                    float(found.passes.mean()),
                    int(found.passes.max()),
                    int((found.passes > 2).sum()),
                    found.residual,
                    found.mass_error,
                )


def by_specification(z: Rows, alpha: float) -> Counted:
    """Return the passes of `entmax_ref.stages` in float64, from its histogram to the kernels' float32 tolerance."""
    at_once = max(SCORES_AT_ONCE // z.shape[1], 1)
    passes, residual, mass_error = [], 0.0, 0.0
    for start in range(0, len(z), at_once):
        exact = z[start : start + at_once].astype(np.float64)
        refined = stages.refine(exact, stages.histogram(exact, alpha), alpha, tolerance=tolerance())
        mass, _, _ = stages.sums(exact, refined.tau, alpha)
        passes.append(refined.passes)
        residual = max(residual, float(refined.residual.max()))
        mass_error = max(mass_error, float(np.abs(mass - 1.0).max()))
    return Counted(np.concatenate(passes), residual, mass_error)


def by_kernels(z: Rows, alpha: float, device: str) -> Counted:
    """Return the passes of the kernels on float32 operands whose products are z, bit by bit.

    A head has 16 rows: component c of key j is z of row c at j, and query c is the unit vector that reads it.
    """
    count, n = z.shape
    heads = -(-count // QUERIES)
    padded = np.concatenate([z, np.repeat(z[-1:], heads * QUERIES - count, axis=0)])
    key = torch.from_numpy(padded).to(device).view(1, heads, QUERIES, n).transpose(2, 3).contiguous()
    query = torch.eye(QUERIES, device=device).expand(1, heads, -1, -1).contiguous()
    with torch.no_grad():
        _, aux = entmax_attention(
            query, key, key, alpha=alpha, scale=1.0 / (alpha - 1.0), impl="triton", return_aux=True
        )
    passes, residual, mass = (x.flatten()[:count].double().cpu().numpy() for x in (aux.passes, aux.residual, aux.mass))
    return Counted(passes.astype(np.int64), float(residual.max()), float(np.abs(mass - 1.0).max()))
