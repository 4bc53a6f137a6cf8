"""How do the operands that SDPA takes become the four-dimensional ones that every implementation computes with?"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch


class Folded(NamedTuple):
    """Operands of shape (batch, heads or kv_heads, length, head_dim), and a mask that broadcasts to the scores."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    attn_mask: torch.Tensor | None


def autocast(operand: torch.Tensor) -> torch.Tensor:
    """Return an operand as torch.autocast gives it to SDPA: floating, but not float64, in its lower precision."""
    if not _autocasts(operand) or not operand.is_floating_point() or operand.dtype == torch.float64:
        return operand
    return operand.to(torch.get_autocast_dtype(operand.device.type))


def raise_autocast(scores: torch.Tensor) -> torch.Tensor:
    """Return scores as torch.autocast gives them to softmax on a GPU: of 16 bits, in float32."""
    return scores.float() if _autocasts(scores) and scores.dtype.itemsize == 2 else scores


def _autocasts(tensor: torch.Tensor) -> bool:
    # Asking about meta is an error, and asking whether a device may be asked breaks a compiled graph.
    return not tensor.is_meta and torch.is_autocast_enabled(tensor.device.type)


def fold(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None,
    lead: tuple[int, ...],
    *,
    enable_gqa: bool,
) -> Folded:
    """Return operands with leading dimensions ``lead`` folded into batch and heads; what broadcasts is not copied.

    One key head for all query heads stays one: it is a group like any other.
    """
    heads = lead[-1] if lead else 1
    kv_heads = key.shape[-3] if enable_gqa else heads
    if not enable_gqa and heads > 1 and all(tensor.dim() < 3 or tensor.shape[-3] == 1 for tensor in (key, value)):
        kv_heads = 1
    operands = (
        _fold(query, lead[:-1], heads),
        _fold(key, lead[:-1], kv_heads),
        _fold(value, lead[:-1], kv_heads),
    )
    if attn_mask is not None and len(lead) > 2 and attn_mask.dim() > 3:
        attn_mask = _fold(attn_mask, lead[:-1], attn_mask.shape[-3])
    return Folded(*operands, attn_mask)


def _fold(tensor: torch.Tensor, batch: tuple[int, ...], heads: int) -> torch.Tensor:
    shape = (*batch, heads, *tensor.shape[-2:])
    if tuple(tensor.shape) != shape:
        tensor = tensor.expand(shape)
    return tensor.reshape(math.prod(batch), *tensor.shape[-3:]) if len(batch) != 1 else tensor


def unfold(result: torch.Tensor, lead: tuple[int, ...]) -> torch.Tensor:
    """Return a result of shape (batch, heads, ...) with the leading dimensions of the operands."""
    return result if len(lead) == 2 else result.reshape(*lead, *result.shape[2:])


def widen(tensor: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Return a tensor padded with zeros to ``head_dim``."""
    missing = head_dim - tensor.shape[-1]
    return torch.nn.functional.pad(tensor, (0, missing)) if missing else tensor
