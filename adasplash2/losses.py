"""What does a user call in the place of cross entropy?  The Fenchel-Young loss of entmax."""

from __future__ import annotations

from typing import Any, Literal

import torch

from .choice import Implementation
from .maps import orders_of, probs_of
from .operands import raise_autocast
from .reference.fenchel_young import fenchel_young
from .row_arguments import as_dim, as_impl, as_order, check_input
from .targets import as_target

Reduction = Literal["none", "mean", "sum"]
_CALLER = "entmax_loss"


def entmax_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    alpha: float | torch.Tensor = 1.5,
    reduction: Reduction = "mean",
    ignore_index: int = -100,
    *,
    dim: int = -1,
    impl: Implementation | None = None,
) -> torch.Tensor:
    r"""Return the Fenchel-Young loss of entmax, which is 0 where the probabilities are the target.

    Takes the place of `torch.nn.functional.cross_entropy`, to which it tends as alpha tends to 1 (for a target that is
    a distribution, less its entropy).  Unlike cross entropy it reaches 0, at finite scores.

    Parameters
    ----------
    input : Tensor, shape (..., n, ...)
        Scores, as `entmax` takes them.
    target : Tensor
        Integers, the shape of ``input`` without ``dim``: the index of the one right key of each row.  Or floating, the
        shape of ``input``: nonnegative, and summing to 1 over each row within 2**-16 or the rounding of its dtype.  It
        needs no gradient.
    alpha : float or Tensor, default 1.5
        As given to `entmax`; a tensor gets its gradient.
    reduction : {"mean", "sum", "none"}, default "mean"
        The mean is over the rows that are not ignored, as in cross entropy; NaN if there are none.
    ignore_index : int, default -100
        Rows with this target cost nothing, and have no gradient.  A target that is a distribution has none.
    dim : int, default -1
        The dimension of the keys.  Cross entropy has it second.
    impl : {"triton", "reference"}, optional
        What finds the probabilities, as in `entmax`.

    Returns
    -------
    loss : Tensor, dtype of ``input``
        Without dimensions, or with ``reduction="none"`` the shape of ``input`` without ``dim``.  Nonnegative; 0 for a
        row without a visible key, NaN for one that holds NaN or +inf, +inf for a target on a key that is not visible.

    Raises
    ------
    TypeError, ValueError
        As `entmax` does; and for a target of another dtype, shape or device, a reduction of another name, or an
        ignore_index that is no integer.
    ValueError
        A target out of range, or that is no distribution; on a GPU, for which the host would have to wait, the loss of
        a row whose index is out of range is NaN instead, and distributions are taken as they are.

    See Also
    --------
    entmax_ref.entmax_loss : the oracle, and the form in which the loss is evaluated.

    Notes
    -----
    With p the probabilities, y the target and :math:`H_\alpha` the Tsallis entropy, the loss is :math:`(p - y) \cdot s
    + H_\alpha(p) - H_\alpha(y)`.  Its gradient by the scores is ``p - y``, and by alpha the derivative of the
    difference of the entropies alone.  It is computed in float64, its mean too, and rounded once; from probabilities in
    float32 if the kernels find them.

    References
    ----------
    .. [1] Mathieu Blondel, A. F. T. Martins and V. Niculae, "Learning with Fenchel-Young Losses", JMLR 2020.
    .. [2] Ben Peters, V. Niculae and A. F. T. Martins, "Sparse Sequence-to-Sequence Models", ACL 2019.

    Examples
    --------
    >>> import torch
    >>> from adasplash2 import entmax_loss
    >>> scores = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.5]])
    >>> entmax_loss(scores, torch.tensor([0, 2]), alpha=2.0, reduction="none")
    tensor([0.0000, 0.0833])
    """
    check_input(_CALLER, input)
    place = as_dim(_CALLER, dim, input.dim())
    order = as_order(_CALLER, alpha, input, place)
    _check_options(reduction, ignore_index)
    chosen = as_impl(_CALLER, impl, input, order)
    wanted = as_target(target, input, place, ignore_index)
    scores = raise_autocast(input)
    rows = scores.movedim(place, -1)
    if wanted.is_floating_point():
        loss = _loss(rows, wanted.movedim(place, -1), order, place, chosen)
        count: int | torch.Tensor = loss.numel()
    else:
        ignored = wanted == ignore_index
        # What is ignored is not read: its NaN must not reach a gradient.
        read, index = torch.where(ignored.unsqueeze(-1), 0.0, rows), torch.where(ignored, 0, wanted).unsqueeze(-1)
        loss = torch.where(ignored, 0.0, _loss(read, index, order, place, chosen))
        count = (~ignored).sum()
    if reduction != "none":
        loss = loss.sum() if reduction == "sum" else loss.sum() / count
    return loss.to(scores.dtype)


def _loss(
    scores: torch.Tensor, target: torch.Tensor, order: float | torch.Tensor, dim: int, impl: Implementation
) -> torch.Tensor:
    """Return the loss of each row on the last axis, which was ``dim``, in float64."""
    n, wide = scores.shape[-1], scores.double()
    if n == 0:
        return wide.sum(-1)
    probs = probs_of(scores.float() if impl == "triton" else scores, order, dim, impl).double()
    alpha = orders_of(order, scores, dim)
    if target.is_floating_point():
        return fenchel_young(wide, probs, target, alpha)
    index = target.clamp(0, n - 1)
    return torch.where((index == target).squeeze(-1), fenchel_young(wide, probs, index, alpha), torch.nan)


def _check_options(reduction: Any, ignore_index: Any) -> None:
    if not isinstance(reduction, str) or reduction not in ("none", "mean", "sum"):
        raise ValueError(
            f"{_CALLER}: reduction must be 'none', 'mean' or 'sum', got {reduction!r}. Omit it for 'mean'."
        )
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, int):
        raise TypeError(
            f"{_CALLER}: ignore_index must be an integer, got {type(ignore_index).__name__}. Omit it for -100."
        )
