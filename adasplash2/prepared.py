"""What do the arguments of attention come down to, before an implementation is chosen?"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from . import nested
from .arguments import accept, check_flags, check_operands
from .operands import Folded, autocast, fold
from .visible import Visibility, as_mask, combined_mask, ranges_of


class Prepared(NamedTuple):
    """Checked arguments, in the shapes that every implementation takes."""

    operands: Folded
    ranges: torch.Tensor | None  # with the causal mask in them
    alpha: float | torch.Tensor  # a tensor is (batch, heads)
    scale: float
    is_causal: bool  # of itself: False where there are ranges
    lead: tuple[int, ...]

    def of_reference(self) -> Folded:
        """Return operands and mask for the reference path: ranges become a mask, and what no query sees becomes 0."""
        query, key, value, attn_mask = self.operands
        if self.ranges is None:
            return self.operands
        # Padding may hold anything.
        unseen = ~as_mask(self.ranges, key.shape[2]).any(-2)[..., None]
        key, value = key.masked_fill(unseen, 0.0), value.masked_fill(unseen, 0.0)
        return Folded(query, key, value, combined_mask(self.ranges, attn_mask, key.shape[2]))


def prepare(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None,
    visibility: Visibility,
    *,
    is_causal: Any,
    enable_gqa: Any,
    return_aux: Any = False,
    **options: Any,
) -> Prepared:
    """Check the arguments of `adasplash2.entmax_attention` and fold them; ``options`` are the others of `accept`."""
    check_flags(is_causal=is_causal, enable_gqa=enable_gqa, return_aux=return_aux)
    if nested.is_nested(query, key, value):
        (query, key, value), seen = nested.unpacked(
            "entmax_attention", query, key, value, attn_mask, visibility, is_causal=is_causal
        )
        visibility, is_causal = Visibility(key_ranges=seen), False
    check_operands(query, key, value, attn_mask)
    query, key, value = (autocast(operand) for operand in (query, key, value))
    mask = None if attn_mask is None else autocast(attn_mask)
    alpha, scale, lead = accept(query, key, value, mask, is_causal=is_causal, enable_gqa=enable_gqa, **options)
    ranges = ranges_of("entmax_attention", visibility, query, key.shape[-2], lead, is_causal=is_causal)
    folded = fold(query, key, value, mask, lead, enable_gqa=enable_gqa)
    if isinstance(alpha, torch.Tensor):
        alpha = alpha.reshape(folded.query.shape[:2])
    return Prepared(folded, ranges, alpha, scale, is_causal and ranges is None, lead)
