"""How does a module hold an alpha, and which alpha is learnt?"""

from __future__ import annotations

import math
from typing import Any

import torch

Alpha = float | torch.Tensor | torch.nn.Module


class AlphaParameter(torch.nn.Module):
    """An alpha that is learnt, between ``lowest`` and 2: ``lowest + (2 - lowest) * sigmoid(weight)``.

    Parameters
    ----------
    shape : tuple of int, default ()
        Of alpha, so that it broadcasts to what it is used on.  One alpha per head is (heads,) for attention, and
        (heads, 1, 1) for `Entmax` of scores of shape (batch, heads, n_queries, n_keys).
    initial : float, default 1.5
        What every entry starts at; between ``lowest`` and 2.
    lowest : float, default 1.01
        Above 1 and below 2.
    device : torch.device or str, optional
        Of the weight, as in `torch.nn.Linear`.
    dtype : torch.dtype, optional
        The same.

    Raises
    ------
    ValueError
        If not ``1 < lowest < initial < 2``.

    References
    ----------
    .. [1] Gonçalo M. Correia, V. Niculae and A. F. T. Martins, "Adaptively Sparse Transformers", EMNLP 2019.

    Examples
    --------
    >>> import torch
    >>> from adasplash2 import nn
    >>> alpha = nn.AlphaParameter((2, 1, 1))
    >>> nn.Entmax(alpha)(torch.zeros(4, 2, 3, 5)).shape
    torch.Size([4, 2, 3, 5])
    >>> alpha().flatten()
    tensor([1.5000, 1.5000], grad_fn=<...>)
    """

    def __init__(
        self,
        shape: tuple[int, ...] = (),
        initial: float = 1.5,
        *,
        lowest: float = 1.01,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not 1.0 < lowest < initial < 2.0:
            raise ValueError(
                f"AlphaParameter: lowest is {lowest} and initial is {initial}; they must satisfy "
                f"1 < lowest < initial < 2. Use adasplash2.sparsemax for an alpha of 2 that is not learnt."
            )
        self.lowest = lowest
        share = (initial - lowest) / (2.0 - lowest)
        self.weight = torch.nn.Parameter(
            torch.full(shape, math.log(share) - math.log1p(-share), device=device, dtype=dtype)
        )

    def forward(self) -> torch.Tensor:
        """Return alpha, dtype and shape of the weight."""
        return self.lowest + (2.0 - self.lowest) * self.weight.sigmoid()

    def extra_repr(self) -> str:
        """Return what `repr` shows."""
        return f"shape={tuple(self.weight.shape)}, lowest={self.lowest}"


def hold_alpha(module: torch.nn.Module, alpha: Alpha) -> None:
    """Set ``module.alpha``: a number, a tensor that moves with the module, or a module that returns one."""
    if isinstance(alpha, torch.Tensor) and not isinstance(alpha, torch.nn.Parameter):
        module.register_buffer("alpha", alpha)
    else:
        module.alpha = alpha  # type: ignore[assignment]


def held_alpha(alpha: Any) -> Any:
    """Return what a module holds as its alpha as the functions take it."""
    return alpha() if isinstance(alpha, torch.nn.Module) else alpha


def shown_alpha(module: torch.nn.Module) -> list[str]:
    """Return what `extra_repr` says of alpha: nothing of a tensor or a module, which torch shows or leaves out."""
    alpha: Any = module.alpha
    return [f"alpha={alpha}"] if isinstance(alpha, float | int) else []
