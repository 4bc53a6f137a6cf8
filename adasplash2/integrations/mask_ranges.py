"""Which range of keys does a mask leave each query, if it leaves each one range?"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

# So many entries of a mask are looked at together: 16 MiB, and as much again for each 64-bit index that makes them.
_CHUNK = 2**24


class MaskRanges(NamedTuple):
    """What a mask leaves visible, if ``are_ranges``."""

    ranges: torch.Tensor  # int32 (batch, n_queries, 2): the first visible key and the one behind the last, 0 and 0
    are_ranges: torch.Tensor  # bool (): no query sees two keys without those between them


def of_rows(
    rows: Callable[[int, int], torch.Tensor], batch: int, n_queries: int, n_keys: int, *, at_once: bool
) -> MaskRanges:
    """Return the ranges of a mask of which ``rows(begin, end)`` is bool (batch, end - begin, n_keys).

    The mask is never held whole, unless ``at_once``: a graph that is traced has no loop over chunks, and needs none.
    """
    step = n_queries if at_once else max(1, _CHUNK // max(1, batch * n_keys))
    parts = [_of_chunk(rows(begin, min(begin + step, n_queries))) for begin in range(0, n_queries, max(1, step))]
    parts = parts or [_of_chunk(rows(0, 0))]
    return MaskRanges(torch.cat([part.ranges for part in parts], 1), torch.stack([part[1] for part in parts]).all())


def of_mask(attn_mask: torch.Tensor) -> torch.Tensor | None:
    """Return the ranges of a mask, boolean or additive, (batch or 1, 1, n_queries, n_keys); None if it is more.

    An additive mask hides a key by -inf or the lowest number of its dtype, and is more where it adds anything but 0.
    Reads values, so that a GPU is waited for.
    """
    if attn_mask.dim() != 4 or attn_mask.shape[1] != 1 or 0 in attn_mask.shape:
        return None
    visible = attn_mask
    if attn_mask.dtype != torch.bool:
        visible = attn_mask == 0
        if not bool((visible | (attn_mask <= torch.finfo(attn_mask.dtype).min)).all()):
            return None
    ranges, are_ranges = _of_chunk(visible[:, 0])
    return ranges if bool(are_ranges) else None


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
