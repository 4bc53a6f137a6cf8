"""Which modules hold the maps, the loss and the attentions, and an alpha that is learnt?"""

from __future__ import annotations

import math
from typing import Any

import torch

from .attention_modules import EntmaxAttention, MultiheadEntmaxAttention
from .losses import Reduction, entmax_loss
from .maps import entmax, entmax15, sparsemax

__all__ = [
    "AlphaParameter",
    "Entmax",
    "Entmax15",
    "EntmaxAttention",
    "EntmaxLoss",
    "MultiheadEntmaxAttention",
    "Sparsemax",
]


class AlphaParameter(torch.nn.Module):
    """An alpha that is learnt, between ``lowest`` and 2: ``lowest + (2 - lowest) * sigmoid(weight)``.

    Parameters
    ----------
    shape : tuple of int, default ()
        Of alpha, so that it broadcasts to the rows of what it is used on: (heads, 1, 1) is one alpha per head for
        scores of shape (batch, heads, n_queries, n_keys).
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


class _WithAlpha(torch.nn.Module):
    """A module that has an alpha: a number, a tensor that moves with the module, or a module that returns one."""

    def __init__(self, alpha: float | torch.Tensor | torch.nn.Module) -> None:
        super().__init__()
        if isinstance(alpha, torch.Tensor) and not isinstance(alpha, torch.nn.Parameter):
            self.register_buffer("alpha", alpha)
        else:
            self.alpha = alpha

    def order(self) -> float | torch.Tensor:
        """Return alpha as `entmax` takes it."""
        alpha: Any = self.alpha
        return alpha() if isinstance(alpha, torch.nn.Module) else alpha


class Entmax(_WithAlpha):
    """`adasplash2.entmax` along ``dim``.

    Parameters
    ----------
    alpha : float, Tensor or Module, default 1.5
        As given to `entmax`; a tensor is a buffer, or if it is one a parameter, of this module.  A module, such as
        `AlphaParameter`, is called without arguments.
    dim : int, default -1
        The dimension of the keys.

    Examples
    --------
    >>> import torch
    >>> from adasplash2 import nn
    >>> nn.Entmax(2.0)(torch.tensor([0.5, 0.25, -1.0]))
    tensor([0.6250, 0.3750, 0.0000])
    """

    def __init__(self, alpha: float | torch.Tensor | torch.nn.Module = 1.5, dim: int = -1) -> None:
        super().__init__(alpha)
        self.dim = dim

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of ``input``."""
        return entmax(input, self.order(), self.dim)

    def extra_repr(self) -> str:
        """Return what `repr` shows."""
        shown = f"alpha={self.alpha}, " if isinstance(self.alpha, float | int) else ""
        return f"{shown}dim={self.dim}"


class Sparsemax(torch.nn.Module):
    """`adasplash2.sparsemax` along ``dim``.

    Parameters
    ----------
    dim : int, default -1
        The dimension of the keys.
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of ``input``."""
        return sparsemax(input, self.dim)

    def extra_repr(self) -> str:
        """Return what `repr` shows."""
        return f"dim={self.dim}"


class Entmax15(Sparsemax):
    """`adasplash2.entmax15` along ``dim``.

    Parameters
    ----------
    dim : int, default -1
        The dimension of the keys.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of ``input``."""
        return entmax15(input, self.dim)


class EntmaxLoss(_WithAlpha):
    """`adasplash2.entmax_loss`.

    Parameters
    ----------
    alpha : float, Tensor or Module, default 1.5
        As given to `Entmax`.
    reduction, ignore_index, dim
        As given to `entmax_loss`.

    Examples
    --------
    >>> import torch
    >>> from adasplash2 import nn
    >>> nn.EntmaxLoss()(torch.tensor([[8.0, 0.0]]), torch.tensor([0]))
    tensor(0.)
    """

    def __init__(
        self,
        alpha: float | torch.Tensor | torch.nn.Module = 1.5,
        reduction: Reduction = "mean",
        ignore_index: int = -100,
        *,
        dim: int = -1,
    ) -> None:
        super().__init__(alpha)
        self.reduction: Reduction = reduction
        self.ignore_index, self.dim = ignore_index, dim

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return entmax_loss(input, target, self.order(), self.reduction, self.ignore_index, dim=self.dim)

    def extra_repr(self) -> str:
        """Return what `repr` shows."""
        shown = f"alpha={self.alpha}, " if isinstance(self.alpha, float | int) else ""
        return f"{shown}reduction={self.reduction!r}, ignore_index={self.ignore_index}, dim={self.dim}"
