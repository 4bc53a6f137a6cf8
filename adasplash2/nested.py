"""How do jagged nested tensors become packed sequences, and the result a jagged tensor again?

A jagged tensor holds its sequences one behind the other already, and their offsets.
"""

from __future__ import annotations

from typing import Any

import torch

from .visible import Visibility, as_window, packed_ranges

Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def is_nested(*tensors: object) -> bool:
    """Return whether one of the tensors is nested."""
    return any(isinstance(tensor, torch.Tensor) and tensor.is_nested for tensor in tensors)


def unpacked(
    caller: str,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: object,
    visibility: Visibility,
    *,
    is_causal: bool,
) -> tuple[Three, torch.Tensor]:
    """Return operands of shape (heads, total, head_dim), and the keys that each query sees, int32 (total_queries, 2).

    Without heads, of shape (total, head_dim).  Of the visibility only the window says something of jagged tensors.
    """
    padded = {name: getattr(visibility, name) for name in ("seqlens_q", "seqlens_k", "key_ranges")}
    for name, argument in {"attn_mask": attn_mask, **padded}.items():
        if argument is not None:
            raise ValueError(
                f"{caller}: {name} is given beside nested tensors, which have no padding and no common length. "
                f"Omit it; is_causal and window_size count from the end of each sequence."
            )
    operands = {"query": query, "key": key, "value": value}
    query, key, value = (_jagged(caller, name, tensor) for name, tensor in operands.items())
    for name, tensor in (("key", key), ("value", value)):
        if tensor.dim() != query.dim() or tensor.shape[0] != query.shape[0]:
            raise ValueError(
                f"{caller}: {name} has {tensor.dim()} dimensions and {tensor.shape[0]} sequences, query has "
                f"{query.dim()} and {query.shape[0]}; both must be equal. Give a sequence without keys the length 0."
            )
    offsets_q, offsets_k, offsets_v = (tensor.offsets() for tensor in (query, key, value))
    if offsets_k is not offsets_v and not torch.equal(offsets_k, offsets_v):
        raise ValueError(
            f"{caller}: the sequences of key and value differ in length; each key needs one value. Make both with the "
            f"same offsets."
        )
    packed = query.values(), key.values(), value.values()
    window = as_window(caller, visibility.window_size)
    ranges = packed_ranges(offsets_q.long(), offsets_k.long(), packed[0].shape[-2], window, is_causal=is_causal)
    return packed, ranges


def repacked(out: torch.Tensor, query: Any) -> torch.Tensor:
    """Return an output of the packed operands as a jagged tensor with the lengths of ``query``."""
    query = _without_holes(query)
    jagged: torch.Tensor = torch.nested.nested_tensor_from_jagged(
        out, offsets=query.offsets(), jagged_dim=query.dim() - 2
    )
    return jagged


def _jagged(caller: str, name: str, tensor: object) -> Any:
    """Return a tensor if it is jagged along its length, without what may lie between its sequences."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{caller}: {name} must be a torch.Tensor, got {type(tensor).__name__}. Convert it first.")
    if not tensor.is_nested or tensor.layout != torch.jagged:
        what = f"a nested tensor of {tensor.layout}" if tensor.is_nested else "no nested tensor"
        raise TypeError(
            f"{caller}: {name} is {what}; query, key and value must all be jagged if one of them is nested. "
            f"Make it with layout=torch.jagged, or give all sequences one length and pass dense tensors."
        )
    ragged = tensor._ragged_idx  # type: ignore[attr-defined]
    if tensor.dim() not in (3, 4) or ragged != tensor.dim() - 2:
        raise ValueError(
            f"{caller}: {name} has {tensor.dim()} dimensions and is jagged in dimension {ragged}; it must have shape "
            f"(batch, heads, length, head_dim), or (batch, length, head_dim), with a jagged length. "
            f"Move the heads with .transpose(1, 2)."
        )
    return _without_holes(tensor)


def _without_holes(tensor: Any) -> Any:
    if tensor.lengths() is None:
        return tensor
    # torch copies them only if the length is the first dimension behind the batch.
    return tensor.contiguous() if tensor.dim() == 3 else tensor.transpose(1, 2).contiguous().transpose(1, 2)
