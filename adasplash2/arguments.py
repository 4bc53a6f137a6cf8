"""Are the arguments of a call ones that can be served?  Errors name argument, rule, value and way out."""

from __future__ import annotations

import math
import numbers
from typing import Any, NamedTuple

import numpy as np
import torch

from .choice import IMPLEMENTATIONS
from .transforms import under_transform

# Scores are float32.
MAX_SCALE = torch.finfo(torch.float32).max
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_CALLER = "entmax_attention"
# Tuples, because torch.compile does not trace unions of types.
_ARRAYS = (np.ndarray, np.generic)
_NUMBERS = (numbers.Real, torch.SymFloat, torch.SymInt)


class Accepted(NamedTuple):
    """What the checked arguments come down to."""

    alpha: float | torch.Tensor  # a tensor has a real dtype and the shape of lead
    scale: float
    lead: tuple[int, ...]  # what query, key and value have before (length, head_dim), broadcast


def check_operands(query: object, key: object, value: object, attn_mask: object) -> None:
    """Raise unless all are dense tensors of two or more dimensions, and the first three of a floating dtype."""
    for name, tensor in {"query": query, "key": key, "value": value, "attn_mask": attn_mask}.items():
        if tensor is None and name == "attn_mask":
            continue
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{_CALLER}: {name} must be a torch.Tensor, got {type(tensor).__name__}. Convert it first.")
        if tensor.is_nested:
            raise TypeError(f"{_CALLER}: {name} is a nested tensor; only query, key and value may be. Use window_size.")
        if tensor.layout != torch.strided:
            raise TypeError(
                f"{_CALLER}: {name} has layout {tensor.layout}; operands must be dense. Convert it with .to_dense()."
            )
        if name == "attn_mask":
            continue
        if tensor.dim() < 2:
            raise ValueError(
                f"{_CALLER}: {name} must have shape (..., length, head_dim), got {tuple(tensor.shape)}. "
                f"Add the missing dimensions with unsqueeze."
            )
        if tensor.dtype not in _DTYPES:
            raise TypeError(
                f"{_CALLER}: {name} has dtype {tensor.dtype}; it must be float32, bfloat16, float16, or float64 on the "
                f"reference path. Convert it with .to(torch.float32)."
            )


def check_flags(**flags: object) -> None:
    """Raise unless all are True or False."""
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise TypeError(
                f"{_CALLER}: {name} must be True or False, got {_shown(flag)} of type {type(flag).__name__}. "
                f"Convert it with bool() if that is what it means."
            )


def accept(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None,
    *,
    dropout_p: object,
    is_causal: bool,
    scale: object,
    enable_gqa: bool,
    alpha: object,
    impl: object,
) -> Accepted:
    """Raise TypeError or ValueError for arguments of `adasplash2.entmax_attention` that no implementation serves.

    The tensors have passed `check_operands` and have the dtypes that autocast gives them, the flags `check_flags`.
    """
    if impl is not None and not (isinstance(impl, str) and impl in IMPLEMENTATIONS):
        raise ValueError(f"{_CALLER}: impl must be None, 'triton' or 'reference', got {_shown(impl)}. Omit it.")
    if _as_number("dropout_p", dropout_p, "a real number", "Pass 0.0.") != 0.0:
        raise ValueError(
            f"{_CALLER}: dropout_p is {_shown(dropout_p)}; it must be 0: no implementation draws random numbers, so "
            f"that the same inputs give the same bits. Pass 0.0, and apply torch.nn.functional.dropout to what comes "
            f"before or after."
        )
    order = alpha if isinstance(alpha, torch.Tensor) and _stays_tensor(alpha) else _as_alpha(alpha)
    factor = query.shape[-1] ** -0.5 if scale is None and query.shape[-1] else _as_scale(scale)
    _check_alike(query, key, value)
    lead = _lead_of(tuple(query.shape), tuple(key.shape), tuple(value.shape), enable_gqa)
    if isinstance(order, torch.Tensor):
        order = _as_alphas(order, query, lead)
    if attn_mask is not None:
        _check_mask(attn_mask, query, (*lead, query.shape[-2], key.shape[-2]), is_causal)
    return Accepted(order, factor, lead)


def _shown(argument: Any) -> str:
    """Return how an argument looks, shortened: it may be a tensor, or an integer of more digits than Python prints."""
    try:
        text = repr(argument)
    except ValueError:
        return f"an integer of {argument.bit_length()} bits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _as_number(name: str, number: Any, rule: str, way_out: str) -> float:
    """Return a real number, or the one in an array or tensor without dimensions, as a float; infinite if beyond one."""
    if isinstance(number, torch.Tensor) and number.ndim == 0:
        if number.requires_grad:
            raise TypeError(
                f"{_CALLER}: {name} is a tensor that requires grad; it must be a number, for which no implementation "
                f"has a derivative. Pass float({name}.detach())."
            )
        if number.is_meta:
            raise TypeError(f"{_CALLER}: {name} is a meta tensor, which holds no number; it must be {rule}. {way_out}")
        number = number.item()
    elif isinstance(number, _ARRAYS) and number.ndim == 0:
        number = number.item()
    if isinstance(number, bool) or not isinstance(number, _NUMBERS):
        raise TypeError(f"{_CALLER}: {name} must be {rule}, got {type(number).__name__}. {way_out}")
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _stays_tensor(alpha: torch.Tensor) -> bool:
    """Return whether a tensor must stay one: it has dimensions, or a derivative, or holds no number to be read."""
    return alpha.dim() > 0 or alpha.requires_grad or alpha.is_meta or under_transform()


def beside(caller: str, alpha: torch.Tensor, operand: torch.Tensor, owner: str) -> torch.Tensor:
    """Return an alpha on the device of an operand, to which a real one without dimensions is moved."""
    if alpha.dtype == torch.bool or alpha.is_complex():
        raise TypeError(
            f"{caller}: alpha has dtype {alpha.dtype}; it must be real. Convert it with .to(torch.float32)."
        )
    if alpha.device != operand.device and (alpha.dim() > 0 or alpha.is_meta):
        raise ValueError(
            f"{caller}: alpha is on {alpha.device}, {owner} on {operand.device}; they must be on one device. "
            f"Move one with .to()."
        )
    return alpha.to(operand.device)


def _as_alphas(alpha: torch.Tensor, query: torch.Tensor, lead: tuple[int, ...]) -> torch.Tensor:
    """Return an alpha for each head of each item; what it holds is not read, for which the host would wait."""
    alpha = beside(_CALLER, alpha, query, "query")
    sizes = tuple(alpha.shape)
    if len(sizes) > len(lead) or any(
        size not in (1, full) for size, full in zip(reversed(sizes), reversed(lead), strict=False)
    ):
        raise ValueError(
            f"{_CALLER}: alpha has shape {sizes}; it must broadcast to (..., heads), here {lead}, the dimensions of "
            f"query before its length. Pass one number, or one for each head."
        )
    return alpha.expand(lead)


def _as_alpha(alpha: Any) -> float:
    order = _as_number("alpha", alpha, "a real number or a tensor", "Pass a float such as 1.5.")
    if order == 1.0:
        raise ValueError(
            f"{_CALLER}: alpha is {_shown(alpha)}, and 1 is softmax. "
            f"Use torch.nn.functional.scaled_dot_product_attention, or an alpha above 1."
        )
    if not 1.0 < order < math.inf:
        raise ValueError(
            f"{_CALLER}: alpha must be a finite number above 1, got {_shown(alpha)}. Pass 1.5 or 2, for example."
        )
    return order


def _as_scale(scale: Any) -> float:
    if scale is None:
        raise ValueError(f"{_CALLER}: head_dim is 0; it must be at least 1. Check the last dimension of query.")
    factor = _as_number("scale", scale, "a real number or None", "Pass a float.")
    if not abs(factor) <= MAX_SCALE:
        raise ValueError(
            f"{_CALLER}: scale must be finite in float32 (at most {MAX_SCALE:.2g}), got {_shown(scale)}. "
            f"Omit it for head_dim ** -0.5."
        )
    return factor


def _check_alike(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
    """Raise unless dtypes and devices are equal and the last two dimensions fit together."""
    for name, tensor in (("key", key), ("value", value)):
        if tensor.dtype != query.dtype:
            raise TypeError(
                f"{_CALLER}: {name} has dtype {tensor.dtype}, query has {query.dtype}; they must be equal. "
                f"Convert one with .to(), or call under torch.autocast."
            )
        if tensor.device != query.device:
            raise ValueError(
                f"{_CALLER}: {name} is on {tensor.device}, query on {query.device}; they must be on one device. "
                f"Move one with .to()."
            )
    if key.shape[-1] != query.shape[-1]:
        raise ValueError(
            f"{_CALLER}: key has head_dim {key.shape[-1]}, query has {query.shape[-1]}; they must be equal. "
            f"Check the projections that made them."
        )
    if query.shape[-1] == 0:
        raise ValueError(f"{_CALLER}: head_dim is 0; it must be at least 1. Check the last dimension of query.")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError(
            f"{_CALLER}: key has length {key.shape[-2]}, value has {value.shape[-2]}; each key needs one value. "
            f"Check dimension -2."
        )


def _lead_of(query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], enable_gqa: bool) -> tuple[int, ...]:
    """Return the leading dimensions of three shapes, broadcast; the heads of query if they are grouped."""
    if enable_gqa:
        if min(len(query), len(key), len(value)) < 3:
            raise ValueError(
                f"{_CALLER}: query has shape {query}, key {key}, value {value}; with enable_gqa each must have heads, "
                f"(..., heads, length, head_dim). Add them with unsqueeze(-3), or omit enable_gqa."
            )
        if key[-3] != value[-3]:
            raise ValueError(
                f"{_CALLER}: key has {key[-3]} heads, value has {value[-3]}; they must be equal. See dimension -3."
            )
        if query[-3] != key[-3] and (key[-3] == 0 or query[-3] % key[-3]):
            raise ValueError(
                f"{_CALLER}: query has {query[-3]} heads, key has {key[-3]}; with enable_gqa the first must be a "
                f"multiple of the second. Repeat or drop heads."
            )
        return (*_broadcast(query[:-3], key[:-3], value[:-3], last=-4), query[-3])
    heads = {name: shape[-3] for name, shape in (("query", query), ("key", key), ("value", value)) if len(shape) > 2}
    for (one, a), (other, b) in (
        pair for pair in _pairs(heads) if pair[0][1] != pair[1][1] and 1 not in (pair[0][1], pair[1][1])
    ):
        way_out = "Check the projections that made them."
        if one == "query" and b and a % b == 0:
            way_out = "Pass enable_gqa=True to share each key head among several query heads."
        raise ValueError(
            f"{_CALLER}: {one} has {a} heads, {other} has {b} (dimension -3); they must be equal, or one of them 1. "
            f"{way_out}"
        )
    return _broadcast(query[:-2], key[:-2], value[:-2], last=-3)


def _pairs(named: dict[str, int]) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    entries = list(named.items())
    return [(one, other) for index, one in enumerate(entries) for other in entries[index + 1 :]]


def _broadcast(query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *, last: int) -> tuple[int, ...]:
    """Return three shapes broadcast; ``last`` is the number of their last dimension, counted from the end."""
    lead: list[int] = []
    for back in range(1, max(len(query), len(key), len(value)) + 1):
        found, owner = 1, "query"
        for name, shape in (("query", query), ("key", key), ("value", value)):
            size = shape[-back] if back <= len(shape) else 1
            if size == found or size == 1:
                continue
            if found != 1:
                raise ValueError(
                    f"{_CALLER}: {name} has size {size} in dimension {last + 1 - back}, {owner} has {found}; leading "
                    f"dimensions must be equal, or one of them 1. Expand or select with indexing."
                )
            found, owner = size, name
        lead.insert(0, found)
    return tuple(lead)


def _check_mask(attn_mask: torch.Tensor, query: torch.Tensor, shape: tuple[int, ...], is_causal: bool) -> None:
    """Raise unless ``attn_mask`` is what SDPA takes for scores of this shape."""
    if is_causal:
        raise ValueError(
            f"{_CALLER}: attn_mask and is_causal=True are both given; one of them must say what is visible. "
            f"Combine them into attn_mask, for example with .tril()."
        )
    if attn_mask.dtype not in (torch.bool, torch.float32, query.dtype):
        raise TypeError(
            f"{_CALLER}: attn_mask has dtype {attn_mask.dtype}; it must be bool, float32 or that of query, "
            f"{query.dtype}. Convert it with .to()."
        )
    if attn_mask.device != query.device:
        raise ValueError(
            f"{_CALLER}: attn_mask is on {attn_mask.device}, query on {query.device}; they must be on one device. "
            f"Move one with .to()."
        )
    mask = tuple(attn_mask.shape)
    fits = 2 <= len(mask) <= len(shape) and all(
        size == 1 or size == full for size, full in zip(reversed(mask), reversed(shape), strict=False)
    )
    if not fits:
        raise ValueError(
            f"{_CALLER}: attn_mask has shape {mask}; it must have two dimensions or more and broadcast to the scores, "
            f"{shape}. Insert dimensions of length 1 with unsqueeze."
        )
