"""Which range of keys does a mask leave each query, if it leaves each one range?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

# So many entries of a mask are looked at together: 16 MiB of them, and a few times that for what is made of them.
_CHUNK = 2**24


class MaskRanges(NamedTuple):
    """What a mask leaves visible, if ``are_ranges``."""

    ranges: torch.Tensor  # int32 (batch, n_queries, 2): the first visible key and the one behind the last, 0 and 0
    are_ranges: torch.Tensor  # bool (): no query sees two keys without those between them


def of_rows(rows: Callable[[int, int], torch.Tensor], batch: int, n_queries: int, n_keys: int) -> MaskRanges:
    """Return the ranges of a mask of which ``rows(begin, end)`` is bool (batch, end - begin, n_keys).

    The mask is not held whole.
    """
    parts = [_of_chunk(rows(begin, end)) for begin, end in _chunks(n_queries, batch * n_keys)]
    return MaskRanges(torch.cat([part[0] for part in parts], 1), torch.stack([part[1] for part in parts]).all())


def of_mask(caller: str, attn_mask: torch.Tensor, n_keys: int) -> torch.Tensor:
    """Return the ranges of a mask of at most four dimensions, int32 (batch or 1, n_queries or 1, 2).

    An additive mask hides a key by -inf or the lowest number of its dtype, and adds 0 to the others.  Raises ValueError
    for a mask that is more than ranges, which waits for a GPU; or lets the device raise, where values cannot be read.
    """
    if attn_mask.requires_grad:
        raise ValueError(
            f"{caller}: attn_mask requires grad; the fused kernels add nothing to the scores. Use impl='reference'."
        )
    message = (
        f"{caller}: attn_mask of shape {tuple(attn_mask.shape)} adds to scores, differs between heads, or leaves a "
        f"query keys with a gap between them; the fused kernels take a mask that leaves each query one range of keys. "
        f"Use impl='reference'."
    )
    mask = attn_mask[(None,) * (4 - attn_mask.dim())]
    mask = mask.expand(*mask.shape[:3], n_keys)
    if mask.shape[1] != 1 and mask.stride(1) == 0:
        mask = mask[:, :1]
    batch, heads, n_queries, _ = mask.shape

    def rows(begin: int, end: int) -> torch.Tensor:
        part = mask[:, :, begin:end]
        return (part if part.dtype == torch.bool else part == 0).flatten(0, 1)

    found = of_rows(rows, batch * heads, n_queries, n_keys)
    if heads == 0:
        return torch.zeros(batch, n_queries, 2, dtype=torch.int32, device=mask.device)
    ranges = found.ranges.unflatten(0, (batch, heads))
    served = found.are_ranges & (ranges == ranges[:, :1]).all()
    if mask.dtype != torch.bool:
        lowest = torch.finfo(mask.dtype).min
        for begin, end in _chunks(n_queries, batch * heads * n_keys):
            part = mask[:, :, begin:end]
            served = served & ((part == 0) | (part <= lowest)).all()
    demand(served, message)
    return ranges[:, 0]


def demand(condition: torch.Tensor, message: str) -> None:
    """Raise ValueError unless a bool tensor holds; where its value cannot be read, let the device check it later."""
    if condition.is_meta:
        return
    if torch.compiler.is_compiling() or (condition.is_cuda and torch.cuda.is_current_stream_capturing()):
        torch._assert_async(condition, message)
    elif not bool(condition):
        raise ValueError(message)


def _chunks(n_queries: int, entries: int) -> Iterator[tuple[int, int]]:
    """Yield bounds of queries of so many entries each, one pair at least; a traced graph has one, and fuses it."""
    step = n_queries if torch.compiler.is_compiling() else max(1, _CHUNK // max(1, entries))
    for begin in range(0, max(n_queries, 1), max(step, 1)):
        yield begin, min(begin + step, n_queries)


def _of_chunk(visible: torch.Tensor) -> MaskRanges:
    n_keys = visible.shape[-1]
    if n_keys == 0:
        empty = torch.zeros(*visible.shape[:2], 2, dtype=torch.int32, device=visible.device)
        return MaskRanges(empty, torch.ones((), dtype=torch.bool, device=visible.device))
    keys = torch.arange(n_keys, dtype=torch.int32, device=visible.device)
    first = torch.where(visible, keys, n_keys).amin(-1)
    end = torch.where(visible, keys + 1, 0).amax(-1)
    count = visible.sum(-1, dtype=torch.int32)
    first = torch.where(count > 0, first, 0)
    return MaskRanges(torch.stack((first, end), -1), (end - first == count).all())
