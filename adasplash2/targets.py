"""Is the target of a loss one index or one distribution for each row?  Values are read where that costs no waiting."""

from __future__ import annotations

import torch

_CALLER = "entmax_loss"
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def as_target(target: object, tensor: torch.Tensor, dim: int, ignore_index: int) -> torch.Tensor:
    """Return a target that fits ``tensor``, int64 of its shape without ``dim``, or float64 of its shape.

    What is out of range raises ValueError on a CPU; on a GPU, for which the host would have to wait, it is left as it
    is.
    """
    if not isinstance(target, torch.Tensor):
        raise TypeError(f"{_CALLER}: target must be a torch.Tensor, got {type(target).__name__}. Convert it first.")
    if target.dtype not in _INTEGERS and not target.is_floating_point():
        raise TypeError(
            f"{_CALLER}: target has dtype {target.dtype}; it must be of integers, one index per row, or floating, one "
            f"distribution per row. Convert it with .to(torch.int64)."
        )
    if target.device != tensor.device:
        raise ValueError(
            f"{_CALLER}: target is on {target.device}, input on {tensor.device}; they must be on one device. "
            f"Move one with .to()."
        )
    if target.requires_grad:
        raise ValueError(f"{_CALLER}: target requires grad; the loss has no gradient by it. Pass target.detach().")
    rows, shape = (*tensor.shape[:dim], *tensor.shape[dim + 1 :]), tuple(tensor.shape)
    wanted, what = (shape, "distribution") if target.is_floating_point() else (rows, "index")
    if tuple(target.shape) != wanted:
        raise ValueError(
            f"{_CALLER}: target of dtype {target.dtype} has shape {tuple(target.shape)}; it must hold one {what} per "
            f"row, shape {wanted}. Pass integers in the shape {rows}, or floating numbers in the shape {shape}."
        )
    return _checked(target, tensor.shape[dim], dim, ignore_index)


# An operator, so that the values are read when a graph runs, and not where it is traced.
@torch.library.custom_op("adasplash2::checked_target", mutates_args=())
def _checked(target: torch.Tensor, n: int, dim: int, ignore_index: int) -> torch.Tensor:
    if target.is_floating_point():
        found = target.double().clone()
        if target.device.type == "cpu":
            _check_distributions(found, dim, max(2.0**-16, torch.finfo(target.dtype).eps))
    else:
        found = target.long().clone()
        if target.device.type == "cpu":
            _check_indices(found, n, ignore_index)
    return found


@_checked.register_fake
def _(target, n, dim, ignore_index):  # type: ignore[no-untyped-def]
    return target.new_empty(target.shape, dtype=torch.float64 if target.is_floating_point() else torch.int64)


@_checked.register_vmap
def _(info, in_dims, target, n, dim, ignore_index):  # type: ignore[no-untyped-def]
    return _checked(target.movedim(in_dims[0], 0), n, dim + 1, ignore_index), 0


def _check_indices(target: torch.Tensor, n: int, ignore_index: int) -> None:
    bad = ((target < 0) | (target >= n)) & (target != ignore_index)
    if bool(bad.any()):
        raise ValueError(
            f"{_CALLER}: target holds {int(target[bad][0])}; it must index the {n} keys of a row, from 0 to {n - 1}, "
            f"or be ignore_index, {ignore_index}. Check what made it, or pass ignore_index for rows to leave out."
        )


def _check_distributions(target: torch.Tensor, dim: int, slack: float) -> None:
    wrong = ~(target >= 0.0)
    if bool(wrong.any()):
        raise ValueError(
            f"{_CALLER}: target holds {float(target[wrong][0])}; probabilities must not be negative. "
            f"Clamp rounding errors, and normalise."
        )
    total = target.sum(dim)
    off = ~((total - 1.0).abs() <= slack)
    if target.shape[dim] and bool(off.any()):
        raise ValueError(
            f"{_CALLER}: target must sum to 1 over dim {dim}, within {slack:.2g}; a row sums to "
            f"{float(total[off][0])}. Divide it by its sum."
        )
