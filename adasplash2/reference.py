"""What does entmax attention compute, in plain torch?  Any device, float64 included, differentiable; dense.

The path that ``impl="reference"`` selects, and the default for CPU tensors.  The threshold is exact (by sorting) where
a closed form exists and the root of a bracketed search in float64 elsewhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

# Blocks of the mask that `reference_attention` reports; the fused kernels report their own tile.
BLOCK = 64
# Halvings from the bracket [row_max - 1, row_max] to the last bit of float64.
_HALVINGS = 60


def row_gaps(z: torch.Tensor, alpha: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``max(z - tau, 0)`` and tau of each row of ``z = (alpha - 1) * scores``.

    Parameters
    ----------
    z : Tensor, shape (..., n), float32 or float64
        ``-inf`` marks keys that are not visible.
    alpha : float, above 1

    Returns
    -------
    gap : Tensor, shape and dtype of z
        NaN throughout a row that holds NaN or +inf.
    tau : Tensor, shape (...), dtype of z
        +inf for a row without a visible key, NaN for one that holds NaN or +inf.
    """
    row_max = z.amax(dim=-1, keepdim=True) if z.shape[-1] else z.new_full((*z.shape[:-1], 1), -torch.inf)
    empty = row_max == -torch.inf
    # A row of -inf alone would give -inf - -inf.
    reference = row_max.where(~empty, 0.0)
    shifted = z - reference
    if alpha == 1.5:
        tau = _sorted_root(shifted, _quadratic_root)
    elif alpha == 2.0:
        tau = _sorted_root(shifted, _linear_root)
    else:
        tau = _bisected_root(shifted, 1.0 / (alpha - 1.0))
    tau = torch.where(empty, torch.inf, tau)
    tau = torch.where(torch.isnan(row_max) | (row_max == torch.inf), torch.nan, tau)
    # In float64 until the difference is taken: the last digits of tau decide the mass of long rows.
    gap = (shifted.double() - tau).clamp(min=0.0).to(z.dtype)
    return gap, (tau + reference).squeeze(-1).to(z.dtype)


def _sorted_root(shifted: torch.Tensor, root: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return the root among those of every leading part of the sorted row that supports itself."""
    # float64: on long rows the sums of float32 cancel.
    ordered = shifted.double().nan_to_num(nan=-torch.inf).sort(dim=-1, descending=True).values
    ordered = ordered.clamp(min=-2.0)
    count = torch.arange(1, shifted.shape[-1] + 1, dtype=torch.float64, device=shifted.device)
    candidate = root(ordered, count)
    # Key k is in the support exactly if it lies above the root of the k largest.
    size = (ordered > candidate).sum(dim=-1, keepdim=True).clamp(min=1)
    if shifted.shape[-1] == 0:
        return ordered.new_zeros((*ordered.shape[:-1], 1))
    return candidate.gather(-1, size - 1)


def _quadratic_root(ordered: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    mean = ordered.cumsum(-1) / count
    spread = (ordered * ordered).cumsum(-1) - count * mean * mean
    return mean - ((1.0 - spread).clamp(min=0.0) / count).sqrt()


def _linear_root(ordered: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    return (ordered.cumsum(-1) - 1.0) / count


def _bisected_root(shifted: torch.Tensor, power: float) -> torch.Tensor:
    wide = shifted.double()
    low = wide.new_full((*wide.shape[:-1], 1), -1.0)
    high = torch.zeros_like(low)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        heavy = ((wide - middle).clamp(min=0.0) ** power).sum(-1, keepdim=True) >= 1.0
        low, high = torch.where(heavy, middle, low), torch.where(heavy, high, middle)
    return low


class _Entmax(torch.autograd.Function):
    """Probabilities of scores whose rows end in the last dimension; differentiable any number of times."""

    @staticmethod
    def forward(scores: torch.Tensor, alpha: float) -> tuple[torch.Tensor, torch.Tensor]:
        gap, tau = row_gaps(scores * (alpha - 1.0), alpha)
        probs = gap ** (1.0 / (alpha - 1.0))
        # clamp keeps NaN; keys that are not visible stay out even of a poisoned row.
        return torch.where(scores == -torch.inf, 0.0, probs), tau

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
        _, ctx.alpha = inputs
        probs, tau = output
        ctx.mark_non_differentiable(tau)
        ctx.save_for_backward(probs)

    @staticmethod
    def backward(ctx: Any, d_probs: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, None]:
        (probs,) = ctx.saved_tensors
        # NaN rows count as support, so that their gradient is NaN.
        live = probs != 0.0
        sensitivity = torch.where(live, torch.where(live, probs, 1.0) ** (2.0 - ctx.alpha), 0.0)
        total = sensitivity.sum(-1, keepdim=True)
        mean = (sensitivity * d_probs).sum(-1, keepdim=True) / torch.where(total == 0.0, 1.0, total)
        return torch.where(live, sensitivity * (d_probs - mean), 0.0), None


class _Products(torch.autograd.Function):
    """``query @ key.T``, whose gradient does not carry 0 * NaN to rows and keys that never met the NaN."""

    @staticmethod
    def forward(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return query @ key.transpose(-1, -2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, d_products: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        query, key = (tensor.where(tensor.isfinite(), 0.0) for tensor in ctx.saved_tensors)
        with _without_autocast(query):
            return d_products @ key, d_products.transpose(-1, -2) @ query


def _without_autocast(tensor: torch.Tensor) -> contextlib.AbstractContextManager[object]:
    """Products keep their dtype: autocast would round scores, and with them the threshold, to half precision."""
    if not torch.amp.is_autocast_available(tensor.device.type):  # such as meta
        return contextlib.nullcontext()
    return torch.autocast(device_type=tensor.device.type, enabled=False)


def visible_mask(n_queries: int, n_keys: int, device: torch.device) -> torch.Tensor:
    """Return which key each query may see under a causal mask, aligned to the bottom right."""
    rows = torch.arange(n_queries, device=device)[:, None] + (n_keys - n_queries)
    return torch.arange(n_keys, device=device)[None, :] <= rows


class ReferenceResult(NamedTuple):
    """What `reference_attention` finds; only ``out`` carries a gradient.

    Attributes
    ----------
    out : Tensor, dtype of query, shape (batch, heads, n_queries, value_head_dim)
    tau : Tensor, float32 (float64 for float64 inputs), shape (batch, heads, n_queries)
        Absolute, in the unit of ``(alpha - 1) * scores``.
    mass : Tensor, like tau
        Sum of the probabilities of each row, 0 for a row without a visible key.
    block_mask : Tensor, bool, shape (batch, heads, n_query_blocks, n_key_blocks)
        Which blocks of `BLOCK` queries and keys hold a probability that is not zero.
    """

    out: torch.Tensor
    tau: torch.Tensor
    mass: torch.Tensor
    block_mask: torch.Tensor


def reference_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    alpha: float,
    is_causal: bool,
    scale: float,
    attn_mask: torch.Tensor | None = None,
) -> ReferenceResult:
    """Return entmax attention and its rows' numbers; arguments have been checked.

    Parameters
    ----------
    query : Tensor, shape (batch, heads, n_queries, head_dim)
        float32, bfloat16, float16 or float64; autocast does not reach inside.
    key : Tensor, shape (batch, kv_heads, n_keys, head_dim)
        heads is a multiple of kv_heads.
    value : Tensor, shape (batch, kv_heads, n_keys, value_head_dim)
    alpha : float, above 1
    is_causal : bool
        Aligned to the bottom right.
    scale : float
    attn_mask : Tensor, optional
        Broadcasts to (batch, heads, n_queries, n_keys).  bool: True where a key is visible.  Floating: added to
        ``scale * query . key``; -inf hides, and a gradient reaches it.  Applies beside ``is_causal``.

    Returns
    -------
    ReferenceResult
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    group = query.shape[1] // max(key.shape[1], 1)
    with _without_autocast(query):
        wide_key, wide_value = (tensor.to(dtype).repeat_interleave(group, dim=1) for tensor in (key, value))
        scores = _Products.apply(query.to(dtype), wide_key) * scale
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = torch.where(attn_mask == -torch.inf, -torch.inf, scores + attn_mask.to(dtype))
        if is_causal:
            visible = visible_mask(query.shape[2], key.shape[2], query.device)
            scores = scores.masked_fill(~visible, -torch.inf)
        probs, tau = _Entmax.apply(scores, alpha)
        out = (probs @ wide_value).to(query.dtype)
        return ReferenceResult(out, tau, probs.detach().sum(-1), block_mask(probs.detach()))


def block_mask(probs: torch.Tensor) -> torch.Tensor:
    """Return which blocks hold a probability that is not zero."""
    batch, heads, n_queries, n_keys = probs.shape
    padded = torch.nn.functional.pad(probs != 0.0, (0, -n_keys % BLOCK, 0, -n_queries % BLOCK))
    rows, columns = padded.shape[2] // BLOCK, padded.shape[3] // BLOCK
    return padded.view(batch, heads, rows, BLOCK, columns, BLOCK).any(dim=5).any(dim=3)
