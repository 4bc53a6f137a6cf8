"""Are the arguments of a call ones that can be served?  Errors name argument, rule, value and way out."""

from __future__ import annotations

import math
import numbers

import torch

IMPLEMENTATIONS = ("triton", "reference")
# Scores are float32.
MAX_SCALE = torch.finfo(torch.float32).max
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def check_alpha(caller: str, alpha: object) -> None:
    """Raise unless alpha is a finite number above 1."""
    if isinstance(alpha, bool) or not isinstance(alpha, numbers.Real):
        raise TypeError(f"{caller}: alpha must be a real number, got {type(alpha).__name__}. Pass a float such as 1.5.")
    if alpha == 1:
        raise ValueError(
            f"{caller}: alpha is 1, which is softmax. "
            f"Use torch.nn.functional.scaled_dot_product_attention, or an alpha above 1."
        )
    if not 1.0 < float(alpha) < math.inf:
        raise ValueError(f"{caller}: alpha must be a finite number above 1, got {alpha}. Pass 1.5 or 2, for example.")


def check_attention(
    query: object,
    key: object,
    value: object,
    *,
    alpha: object,
    scale: object,
    enable_gqa: bool,
    impl: object,
) -> None:
    """Raise TypeError or ValueError for arguments of `adasplash2.entmax_attention` that no implementation serves."""
    caller = "entmax_attention"
    operands = {"query": query, "key": key, "value": value}
    for name, tensor in operands.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{caller}: {name} must be a torch.Tensor, got {type(tensor).__name__}. Convert it first.")
        if tensor.dim() != 4:
            raise ValueError(
                f"{caller}: {name} must have shape (batch, heads, length, head_dim), got {tuple(tensor.shape)}. "
                f"Add the missing dimensions with unsqueeze."
            )
        if tensor.dtype not in _DTYPES:
            raise TypeError(
                f"{caller}: {name} has dtype {tensor.dtype}; it must be float32, bfloat16, float16, or float64 on the "
                f"reference path. Convert it with .to(torch.float32)."
            )
    assert isinstance(query, torch.Tensor) and isinstance(key, torch.Tensor) and isinstance(value, torch.Tensor)
    for name, tensor in (("key", key), ("value", value)):
        if tensor.dtype != query.dtype:
            raise TypeError(
                f"{caller}: {name} has dtype {tensor.dtype}, query has {query.dtype}; they must be equal. "
                f"Convert one with .to()."
            )
        if tensor.device != query.device:
            raise ValueError(
                f"{caller}: {name} is on {tensor.device}, query on {query.device}; they must be on one device. "
                f"Move one with .to()."
            )
    _check_shapes(caller, tuple(query.shape), tuple(key.shape), tuple(value.shape), enable_gqa)
    check_alpha(caller, alpha)
    if scale is not None:
        if isinstance(scale, bool) or not isinstance(scale, numbers.Real):
            raise TypeError(f"{caller}: scale must be a real number or None, got {type(scale).__name__}. Pass a float.")
        if not abs(float(scale)) <= MAX_SCALE:
            raise ValueError(
                f"{caller}: scale must be finite in float32 (at most {MAX_SCALE:.2g}), got {scale}. "
                f"Omit it for head_dim ** -0.5."
            )
    if impl is not None and impl not in IMPLEMENTATIONS:
        raise ValueError(f"{caller}: impl must be None, 'triton' or 'reference', got {impl!r}. Omit it.")


def _check_shapes(
    caller: str,
    query: tuple[int, ...],
    key: tuple[int, ...],
    value: tuple[int, ...],
    enable_gqa: bool,
) -> None:
    for name, shape in (("key", key), ("value", value)):
        if shape[0] != query[0]:
            raise ValueError(
                f"{caller}: {name} has batch {shape[0]}, query has {query[0]}; they must be equal. "
                f"Expand one with .expand()."
            )
    if key[3] != query[3]:
        raise ValueError(
            f"{caller}: key has head_dim {key[3]}, query has {query[3]}; they must be equal. "
            f"Check the projections that made them."
        )
    if value[3] != query[3]:
        raise ValueError(
            f"{caller}: value has head_dim {value[3]}, query has {query[3]}; they must be equal. Pad the shorter with "
            f"zeros, pass scale={query[3]} ** -0.5 if that is query and key, and drop what pads the output."
        )
    if query[3] == 0:
        raise ValueError(f"{caller}: head_dim is 0; it must be at least 1. Check the last dimension of query.")
    if key[2] != value[2]:
        raise ValueError(
            f"{caller}: key has length {key[2]}, value has {value[2]}; each key needs one value. Check dimension 2."
        )
    if key[1] != value[1]:
        raise ValueError(
            f"{caller}: key has {key[1]} heads, value has {value[1]}; they must be equal. See dimension 1."
        )
    if key[1] != query[1]:
        if not enable_gqa:
            raise ValueError(
                f"{caller}: query has {query[1]} heads, key has {key[1]}; they must be equal. "
                f"Pass enable_gqa=True to share each key head among several query heads."
            )
        if key[1] == 0 or query[1] % key[1]:
            raise ValueError(
                f"{caller}: query has {query[1]} heads, key has {key[1]}; with enable_gqa the first must be a multiple "
                f"of the second. Repeat or drop heads."
            )
