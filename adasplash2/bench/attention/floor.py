"""How fast could it be?  Operations that the method cannot avoid, over the measured rate of the matrix units.

One pass over all visible scores, a product q.k, costs ``2 * n_queries * n_keys * head_dim`` operations a head, half of
it under a causal mask. Only blocks of 64 by 64 with support need more: 2 products forward (q.k again, and the sum of
values weighted by probability) and 8 backward (4 for d_query, which finds delta as well, 4 for d_key and d_value).
"""

from __future__ import annotations

import dataclasses

import torch

from adasplash2.bench.shared.timing import median_ms

from .cases import Case

BLOCK = 64
FORWARD_PRODUCTS = 2
BACKWARD_PRODUCTS = 8
# What a stage has to do of it. Other stages are the price of the method, and have no floor.
DENSE_STAGE = "dense"
STAGE_PRODUCTS = {"output": 2, "backward_dq": 4, "backward_dkdv": 4}


@dataclasses.dataclass(frozen=True)
class Floor:
    """Milliseconds that nothing can fall below which computes every score once and skips only empty blocks."""

    dense_ms: float
    product_ms: float

    @property
    def forward_ms(self) -> float:
        """The forward's."""
        return self.dense_ms + FORWARD_PRODUCTS * self.product_ms

    @property
    def step_ms(self) -> float:
        """Forward and backward together."""
        return self.forward_ms + BACKWARD_PRODUCTS * self.product_ms

    def stage_ms(self, stage: str) -> float | None:
        """One stage's; None for a stage without."""
        if stage == DENSE_STAGE:
            return self.dense_ms
        return STAGE_PRODUCTS[stage] * self.product_ms if stage in STAGE_PRODUCTS else None


def floor_of(case: Case, live_blocks: int, rate: float) -> Floor:
    """Return the floor of a case.

    Parameters
    ----------
    case : Case
    live_blocks : int
        Blocks of 64 by 64 with support, of all heads and batch items.
    rate : float
        Operations a second of the matrix units, see `matrix_rate`.

    Returns
    -------
    Floor

    Examples
    --------
    >>> from adasplash2.bench.attention.cases import case_of
    >>> floor = floor_of(case_of("topic16", 32768), live_blocks=150_000, rate=8e14)
    >>> round(floor.dense_ms, 2), round(floor.forward_ms, 2), round(floor.step_ms, 2)
    (1.37, 1.57, 2.36)
    """
    scores = case.batch * case.heads * case.length * case.length * (0.5 if case.is_causal else 1.0)
    of_score = 2.0 * case.head_dim / rate * 1e3
    return Floor(of_score * scores, of_score * BLOCK * BLOCK * live_blocks)


def matrix_rate(dtype: torch.dtype, device: torch.device | str, size: int = 8192) -> float:
    """Return operations a second of one square matrix product on random operands."""
    generator = torch.Generator(device=device).manual_seed(0)
    left, right = (torch.randn(size, size, generator=generator, device=device).to(dtype) for _ in range(2))
    return 2.0 * size**3 / (median_ms(lambda: left @ right, device) * 1e-3)
