"""Which modules hold the maps, the loss and the attentions, and an alpha that is learnt?"""

from __future__ import annotations

import torch

from .alpha_module import Alpha, AlphaParameter, held_alpha, hold_alpha, shown_alpha
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


class Entmax(torch.nn.Module):
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

    def __init__(self, alpha: Alpha = 1.5, dim: int = -1) -> None:
        super().__init__()
        hold_alpha(self, alpha)
        self.dim = dim

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of ``input``."""
        return entmax(input, held_alpha(self.alpha), self.dim)

    def extra_repr(self) -> str:
        """Return what `repr` shows."""
        return ", ".join([*shown_alpha(self), f"dim={self.dim}"])


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


class EntmaxLoss(torch.nn.Module):
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
        alpha: Alpha = 1.5,
        reduction: Reduction = "mean",
        ignore_index: int = -100,
        *,
        dim: int = -1,
    ) -> None:
        super().__init__()
        hold_alpha(self, alpha)
        self.reduction: Reduction = reduction
        self.ignore_index, self.dim = ignore_index, dim

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return entmax_loss(input, target, held_alpha(self.alpha), self.reduction, self.ignore_index, dim=self.dim)

    def extra_repr(self) -> str:
        """Return what `repr` shows."""
        options = [f"reduction={self.reduction!r}", f"ignore_index={self.ignore_index}", f"dim={self.dim}"]
        return ", ".join([*shown_alpha(self), *options])
