"""Which alphas do the kernels take, and how exactly is a row solved?"""

from __future__ import annotations

import torch

# The alphas that kernels are compiled for, and their power, 1 / (alpha - 1); any other is loaded (kernels/power.py).
POWERS = {2.0: 1, 1.5: 2, 4.0 / 3.0: 3, 1.25: 4}
# A row is refined until abs(mass - 1), which bounds the error of its tau, is within this.  It then takes one more step,
# which leaves an error of the order of the square.
TOLERANCE = {torch.float32: 2.0**-18, torch.bfloat16: 2.0**-17, torch.float16: 2.0**-17}
# A guard, not a parameter: in docs/results/passes.json rows take at most 3 at alpha 1.5 and 5 at 2; bisection takes 32.
MAX_PASSES = 40


def check_order(caller: str, alpha: float) -> None:
    """Raise ValueError for an alpha above 1 that the kernels do not take."""
    if alpha > 2.0:
        raise ValueError(
            f"{caller}: alpha is {alpha}; the kernels take 1 < alpha <= 2. "
            f"Use impl='reference', which takes any alpha above 1."
        )
    if alpha <= 1.0 + 2.0**-24:
        raise ValueError(
            f"{caller}: alpha is {alpha}, which is 1 in float32, in which the kernels have it. Use impl='reference'."
        )


def tolerance_of(dtype: torch.dtype, alpha: float) -> float:
    """Return the residual that a row may stop at: `TOLERANCE`, or what a unit in the last place of its gaps is worth.

    That is more below alpha 1.016 in 16 bits, 1.03 in float32 (`least_tolerance` in kernels/power.py).
    """
    return TOLERANCE[dtype] if alpha in POWERS else max(TOLERANCE[dtype], 2.0**-23 / (alpha - 1.0))


def alphas_of(alpha: float | torch.Tensor, query: torch.Tensor) -> torch.Tensor | None:
    """Return alpha as the kernels load it, float32 (batch, heads), or None for one that they are compiled for.

    A tensor has the shape (batch, heads).
    """
    if isinstance(alpha, torch.Tensor):
        return alpha.float().contiguous()
    return None if alpha in POWERS else query.new_full(query.shape[:2], alpha, dtype=torch.float32)
