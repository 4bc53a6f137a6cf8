"""Which keys may each query see?  Windows, padding and packed sequences, all as one range of keys for each query."""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple

import torch

PADDING_SIDES = ("right", "left")
_INTEGERS = (torch.int32, torch.int64)


class Visibility(NamedTuple):
    """What a caller may say of it, besides ``is_causal`` and ``attn_mask``; as given to `entmax_attention`."""

    window_size: Any = None
    seqlens_q: Any = None
    seqlens_k: Any = None
    padding_side: Any = "right"
    key_ranges: Any = None

    @property
    def is_given(self) -> bool:
        """Whether any of it is."""
        return any(part is not None for part in (self.window_size, self.seqlens_q, self.seqlens_k, self.key_ranges))


def ranges_of(
    caller: str,
    visibility: Visibility,
    query: torch.Tensor,
    n_keys: int,
    lead: tuple[int, ...],
    *,
    is_causal: bool,
) -> torch.Tensor | None:
    """Return the range of keys of each query, int32 (batch, n_queries, 2), or None where ``is_causal`` says it all.

    Query i of an item sees the keys from ``ranges[item, i, 0]`` up to, not including, ``ranges[item, i, 1]``; both are
    0 where it sees none.  ``lead`` is what the operands have before (length, head_dim), broadcast; all of it but the
    heads is the batch.
    """
    window = as_window(caller, visibility.window_size)
    if visibility.padding_side not in PADDING_SIDES:
        raise ValueError(
            f"{caller}: padding_side must be 'right' or 'left', got {visibility.padding_side!r}. Omit it for 'right'."
        )
    if not visibility.is_given:
        return None
    items, n_queries, device = lead[:-1], query.shape[-2], query.device
    of_queries = _lengths(caller, "seqlens_q", visibility.seqlens_q, items, n_queries, device)
    of_keys = _lengths(caller, "seqlens_k", visibility.seqlens_k, items, n_keys, device)
    index = torch.arange(n_queries, device=device)
    first_query, first_key = torch.zeros_like(of_queries), torch.zeros_like(of_keys)
    if visibility.padding_side == "left":
        first_query, first_key = n_queries - of_queries, n_keys - of_keys
    ranges = _ranges(index - first_query, of_queries, first_key, of_keys, window, is_causal=is_causal)
    if visibility.key_ranges is not None:
        given = _key_ranges(caller, visibility.key_ranges, items, n_queries, n_keys, device)
        ranges = intersection(ranges, given)
    return ranges.expand(math.prod(items), n_queries, 2)


def packed_ranges(
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    total_queries: int,
    window: tuple[int | None, int | None],
    *,
    is_causal: bool,
) -> torch.Tensor:
    """Return the ranges of queries that are packed along one axis, int32 (total_queries, 2).

    Queries beyond the last sequence see no key.
    """
    index = torch.arange(total_queries, device=cu_seqlens_q.device)
    # The last sequence that begins at or before a query: those without queries begin where the next one does.  Behind
    # the last offset begins one of no length.
    item = torch.searchsorted(cu_seqlens_q, index, right=True) - 1
    (first_query, of_queries), (first_key, of_keys) = (
        (cu[item], torch.cat((cu.diff(), cu.new_zeros(1)))[item]) for cu in (cu_seqlens_q, cu_seqlens_k)
    )
    return _ranges(index - first_query, of_queries, first_key, of_keys, window, is_causal=is_causal)


def intersection(ranges: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return the keys that are in both of two ranges, int32 (batch, n_queries, 2); batch or n_queries may be 1."""
    return _normal(torch.maximum(ranges[..., 0], others[..., 0]), torch.minimum(ranges[..., 1], others[..., 1]))


def as_mask(ranges: torch.Tensor, n_keys: int) -> torch.Tensor:
    """Return ranges as a mask, bool (batch, 1, n_queries, n_keys), True where a key is visible."""
    keys = torch.arange(n_keys, device=ranges.device)
    return ((keys >= ranges[..., :1]) & (keys < ranges[..., 1:]))[:, None]


def combined_mask(ranges: torch.Tensor, attn_mask: torch.Tensor | None, n_keys: int) -> torch.Tensor:
    """Return the mask, boolean or additive, that hides what ranges or ``attn_mask`` hide."""
    visible = as_mask(ranges, n_keys)
    if attn_mask is None:
        return visible
    if attn_mask.dtype == torch.bool:
        return visible & attn_mask
    return torch.where(visible, attn_mask, -math.inf)


def added(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what a mask adds to the scores: an additive one itself, of a boolean one 0 and -inf of some dtype."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, -math.inf)


def visible_blocks(ranges: torch.Tensor, n_keys: int, block: tuple[int, int]) -> torch.Tensor:
    """Return which blocks hold a key that some query of theirs may see, bool (batch, query blocks, key blocks)."""
    n_query_blocks, n_key_blocks = -(-ranges.shape[1] // block[0]), -(-n_keys // block[1])
    seen = ranges[..., 0] < ranges[..., 1]
    begin = torch.where(seen, ranges[..., 0] // block[1], 0).long()
    end = torch.where(seen, (ranges[..., 1] + block[1] - 1) // block[1], 0).long()
    # Plus one where a range begins, minus one behind its end: the sum up to a block counts the ranges over it.
    place = torch.arange(ranges.shape[1], device=ranges.device) // block[0] * (n_key_blocks + 1)
    edges = torch.zeros(ranges.shape[0], n_query_blocks * (n_key_blocks + 1), device=ranges.device, dtype=torch.int32)
    edges = edges.scatter_add(1, place + begin, seen.int()).scatter_add(1, place + end, -seen.int())
    return edges.unflatten(1, (n_query_blocks, n_key_blocks + 1)).cumsum(-1)[..., :n_key_blocks] > 0


def as_window(caller: str, window_size: Any) -> tuple[int | None, int | None]:
    """Return how many keys before and after its diagonal a query sees, None for all."""
    if window_size is None:
        return None, None
    if not isinstance(window_size, tuple | list) or len(window_size) != 2:
        raise TypeError(
            f"{caller}: window_size must be None or a pair (left, right), got {window_size!r}. "
            f"Pass (1023, 0), for example, for a query's own key and the 1023 before it."
        )
    return _side(caller, window_size, window_size[0]), _side(caller, window_size, window_size[1])


def _side(caller: str, window_size: Any, side: Any) -> int | None:
    try:
        if isinstance(side, bool):
            raise TypeError("a bool is no length")
        length = None if side is None else operator.index(side)
    except TypeError as error:
        raise TypeError(
            f"{caller}: window_size must hold integers or None, got {window_size!r}. Pass (1023, 0), for example."
        ) from error
    if length is not None and length < -1:
        raise ValueError(
            f"{caller}: window_size must not be negative, got {window_size!r}. "
            f"Pass None, or -1, for a side without a limit."
        )
    return None if length == -1 else length


def _lengths(
    caller: str, name: str, lengths: Any, items: tuple[int, ...], length: int, device: torch.device
) -> torch.Tensor:
    """Return the lengths of sequences, int64 (batch, 1), or (1, 1) of the full length where none are given."""
    if lengths is None:
        return torch.full((1, 1), length, device=device)
    _check_integers(caller, name, lengths, device)
    if tuple(lengths.shape) != items:
        raise ValueError(
            f"{caller}: {name} has shape {tuple(lengths.shape)}; it must have one length for each item of the batch, "
            f"{items}. Check which dimensions the operands have before heads."
        )
    return lengths.reshape(-1, 1).long().clamp(0, length)


def _key_ranges(
    caller: str, ranges: Any, items: tuple[int, ...], n_queries: int, n_keys: int, device: torch.device
) -> torch.Tensor:
    _check_integers(caller, "key_ranges", ranges, device)
    shape = (*items, n_queries, 2)
    given = tuple(ranges.shape)
    fits = 2 <= len(given) <= len(shape) and given[-1] == 2
    fits = fits and all(size in (1, full) for size, full in zip(reversed(given), reversed(shape), strict=False))
    if not fits:
        raise ValueError(
            f"{caller}: key_ranges has shape {given}; it must end in 2 and broadcast to (..., n_queries, 2), {shape}. "
            f"Give each query the first key that it sees and the one behind its last."
        )
    return ranges.expand(shape).reshape(-1, n_queries, 2).long().clamp(0, n_keys)


def _check_integers(caller: str, name: str, tensor: Any, device: torch.device) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{caller}: {name} must be a torch.Tensor, got {type(tensor).__name__}. Convert it first.")
    if tensor.dtype not in _INTEGERS:
        raise TypeError(
            f"{caller}: {name} has dtype {tensor.dtype}; it must be int32 or int64. Convert it with .int()."
        )
    if tensor.device != device:
        raise ValueError(
            f"{caller}: {name} is on {tensor.device}, query on {device}; they must be on one device. "
            f"Move one with .to()."
        )


def _ranges(
    position: torch.Tensor,
    of_queries: torch.Tensor,
    first_key: torch.Tensor,
    of_keys: torch.Tensor,
    window: tuple[int | None, int | None],
    *,
    is_causal: bool,
) -> torch.Tensor:
    """Return the ranges of queries at some position of sequences of some lengths, which end at one diagonal."""
    left, right = window
    right = 0 if is_causal else right
    diagonal = position + (of_keys - of_queries)
    first = torch.zeros_like(diagonal) if left is None else (diagonal - left).clamp(min=0)
    end = of_keys.expand_as(diagonal) if right is None else torch.minimum(diagonal + (right + 1), of_keys)
    exists = (position >= 0) & (position < of_queries)
    return _normal(first_key + first, torch.where(exists, first_key + end, 0))


def _normal(first: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Return ranges as int32 (..., 2), 0 and 0 where there is no key between the two."""
    seen = first < end
    return torch.stack((torch.where(seen, first, 0), torch.where(seen, end, 0)), dim=-1).int()
