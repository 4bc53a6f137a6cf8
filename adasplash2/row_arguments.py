"""Are the arguments of a row-wise map ones that can be served?  Errors name argument, rule, value and way out."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
import torch

from .arguments import beside
from .choice import Implementation, chosen_for
from .orders import check_order

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Tuples, because torch.compile does not trace unions of types.
_ARRAYS = (np.ndarray, np.generic)
_NUMBERS = (numbers.Real, torch.SymFloat, torch.SymInt)


def check_input(caller: str, tensor: object) -> None:
    """Raise unless ``input`` is a dense floating tensor with a dimension."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{caller}: input must be a torch.Tensor, got {type(tensor).__name__}. Convert it first.")
    if tensor.is_nested or tensor.layout != torch.strided:
        raise TypeError(f"{caller}: input has layout {tensor.layout}; it must be dense. Convert it with .to_dense().")
    if tensor.dtype not in DTYPES:
        raise TypeError(
            f"{caller}: input has dtype {tensor.dtype}; it must be float32, bfloat16, float16 or float64. "
            f"Convert it with .to(torch.float32)."
        )
    if tensor.dim() == 0:
        raise ValueError(
            f"{caller}: input has no dimension; it must have at least one, to hold the keys of a row. "
            f"Add one with unsqueeze(0)."
        )


def as_dim(caller: str, dim: Any, n_dims: int) -> int:
    """Return a dimension counted from the front."""
    if isinstance(dim, bool) or not isinstance(dim, numbers.Integral):
        raise TypeError(f"{caller}: dim must be one integer, got {type(dim).__name__}. Pass -1 for the last dimension.")
    dim = int(dim)
    if not -n_dims <= dim < n_dims:
        raise ValueError(
            f"{caller}: dim is {dim}; input has {n_dims} dimensions, so it must be from {-n_dims} to {n_dims - 1}. "
            f"Pass -1 for the last dimension."
        )
    return dim % n_dims


def as_order(caller: str, alpha: Any, tensor: torch.Tensor, dim: int) -> float | torch.Tensor:
    """Return alpha as a float, or as a tensor of as many dimensions as ``tensor``, of size 1 in ``dim``.

    What a tensor holds is not read here: the host would wait for the device, and a graph would break.
    """
    if isinstance(alpha, torch.Tensor):
        return _as_orders(caller, alpha, tensor, dim)
    if isinstance(alpha, _ARRAYS) and alpha.ndim == 0:
        alpha = alpha.item()
    if isinstance(alpha, bool) or not isinstance(alpha, _NUMBERS):
        raise TypeError(
            f"{caller}: alpha must be a real number or a tensor, got {type(alpha).__name__}. "
            f"Pass a float such as 1.5, or convert it with torch.as_tensor."
        )
    try:
        order = float(alpha)
    except OverflowError:
        order = math.inf
    if order == 1.0:
        raise ValueError(f"{caller}: alpha is 1, which is softmax; it must be above 1. Use torch.softmax.")
    if not 1.0 < order < math.inf:
        raise ValueError(f"{caller}: alpha must be a finite number above 1, got {order}. Pass 1.5 or 2, for example.")
    return order


def _as_orders(caller: str, alpha: torch.Tensor, tensor: torch.Tensor, dim: int) -> torch.Tensor:
    alpha = beside(caller, alpha, tensor, "input")
    rows = (*tensor.shape[:dim], 1, *tensor.shape[dim + 1 :])
    sizes = (1,) * (len(rows) - alpha.dim()) + tuple(alpha.shape)
    if len(sizes) > len(rows) or any(size not in (1, full) for size, full in zip(sizes, rows, strict=True)):
        raise ValueError(
            f"{caller}: alpha has shape {tuple(alpha.shape)}; it must broadcast to the rows of input, {rows}, with "
            f"size 1 in dim {dim}. Insert dimensions of size 1 with unsqueeze: alpha[:, None, None] is one alpha a "
            f"head for input of shape (batch, heads, n_queries, n_keys)."
        )
    return alpha.reshape(sizes)


def as_impl(caller: str, impl: Any, tensor: torch.Tensor, order: float | torch.Tensor) -> Implementation:
    """Return the implementation that was chosen, or that fits the tensor; raise if it cannot serve the call."""
    if impl is None:
        impl = chosen_for(tensor, served=tensor.dtype != torch.float64)
    if impl == "reference":
        return "reference"
    if impl != "triton":
        raise ValueError(f"{caller}: impl must be None, 'triton' or 'reference', got {impl!r}. Omit it.")
    if tensor.dtype == torch.float64:
        raise TypeError(
            f"{caller}: input is float64; the kernels take float32, bfloat16 and float16. "
            f"Convert it, or use impl='reference'."
        )
    if not isinstance(order, torch.Tensor):
        check_order(caller, order)
    from .launch import INTERPRETED

    if not (tensor.is_cuda or tensor.is_meta or INTERPRETED):
        raise ValueError(
            f"{caller}: impl='triton' with a tensor on {tensor.device} needs the Triton interpreter. "
            f"Set TRITON_INTERPRET=1 before adasplash2 is imported, move it to a GPU, or use impl='reference'."
        )
    return "triton"
