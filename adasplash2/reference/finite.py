"""How is a factor left out that is not finite, and its gradient not?

A product of gradients with 0 in the place of NaN or infinity reaches only what met that factor, and the factor itself
has the gradient of where it stood, which `torch.where` would not give it.
"""

from __future__ import annotations

from typing import Any

import torch

from ..transforms import apply_outside_graphs, under_transform


def finite(factor: torch.Tensor) -> torch.Tensor:
    """Return a factor with 0 for what is not finite; its derivative is the identity."""
    if torch.compiler.is_compiling() and not under_transform():
        return _finite(factor)
    return apply_outside_graphs(_Finite, factor)


@torch.library.custom_op("adasplash2::finite", mutates_args=())
def _finite(factor: torch.Tensor) -> torch.Tensor:
    return factor.where(factor.isfinite(), 0.0)


@_finite.register_fake
def _(factor):  # type: ignore[no-untyped-def]
    return factor.new_empty(factor.shape)


def _backward(ctx: Any, d_factor: torch.Tensor) -> torch.Tensor:
    return d_factor


_finite.register_autograd(_backward)


class _Finite(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(factor: torch.Tensor) -> torch.Tensor:
        return factor.where(factor.isfinite(), 0.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        """Nothing is kept."""

    backward = staticmethod(_backward)

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor) -> torch.Tensor:
        return tangent
