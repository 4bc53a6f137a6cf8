"""How wrong is a plain dense evaluation in the same dtype?  It scales the bounds that the kernels are held to.

Every product takes operands rounded to the dtype and is summed in float32, term after term, so that a budget does not
depend on which order a library prefers for a shape.  The map itself is float32, with the best threshold that float32
can hold.  What a product reads or a caller receives is rounded to the dtype, and nothing else is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch

import entmax_ref


@dataclasses.dataclass(frozen=True)
class NaiveResult:
    """Results in float64: out and the gradients rounded to the dtype first, centre (shape of query) in float32."""

    out: torch.Tensor
    centre: torch.Tensor
    d_query: torch.Tensor
    d_key: torch.Tensor
    d_value: torch.Tensor


def naive_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    d_out: torch.Tensor,
    *,
    alpha: float,
    is_causal: bool,
    scale: float,
    mask: torch.Tensor | None = None,
    multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> NaiveResult:
    """Return output, centre and gradients of entmax attention, evaluated densely.

    Parameters
    ----------
    query, d_out : Tensor, shape (batch, heads, n_queries, head_dim)
        float32, bfloat16 or float16.
    key, value : Tensor, shape (batch, kv_heads, n_keys, head_dim)
        dtype and device of query.
    alpha : float
        1.5 or 2, for which the threshold has a closed form on the sorted row.
    is_causal : bool
        Aligned to the bottom right.
    scale : float
    mask : Tensor of bool, optional
        Broadcasts to (batch, heads, n_queries, n_keys), True where a key is visible.
    multiply : callable, optional
        Forms the products of float32 matrices; `product` by default.  A library's own is faster on long rows.

    Returns
    -------
    NaiveResult
        Rows with a score of NaN or +inf count as rows without a key: they are judged by other rules.
    """
    multiply = product if multiply is None else multiply
    dtype, kv_heads = query.dtype, key.shape[1]
    group = query.shape[1] // kv_heads

    def rounded(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(dtype).float()

    q, grad = query.float(), d_out.float()
    k, v = (x.float().repeat_interleave(group, dim=1) for x in (key, value))
    z = multiply(q, k.transpose(-1, -2)) * (scale * (alpha - 1.0))
    if is_causal:
        n_queries, n_keys = z.shape[-2:]
        rows = torch.arange(n_queries, device=z.device)[:, None] + (n_keys - n_queries)
        z = z.masked_fill(torch.arange(n_keys, device=z.device) > rows, -math.inf)
    if mask is not None:
        z = z.masked_fill(~mask, -math.inf)
    gap = row_gaps(z, alpha)
    probs = gap ** (1.0 / (alpha - 1.0))
    sensitivity = torch.where(gap > 0.0, gap ** ((2.0 - alpha) / (alpha - 1.0)), 0.0)
    total = sensitivity.sum(-1, keepdim=True)
    total = torch.where(total == 0.0, 1.0, total)

    # delta as its definition says, from a centre that nobody rounded.
    delta = (multiply(sensitivity, v) / total * grad).sum(-1, keepdim=True)
    d_scores = rounded(sensitivity * (multiply(grad, v.transpose(-1, -2)) - delta))
    d_key = multiply(d_scores.transpose(-1, -2), q) * scale
    d_value = multiply(rounded(probs).transpose(-1, -2), grad)
    results = {
        "out": multiply(rounded(probs), v),
        "d_query": multiply(d_scores, k) * scale,
        "d_key": d_key.unflatten(1, (kv_heads, group)).sum(2),
        "d_value": d_value.unflatten(1, (kv_heads, group)).sum(2),
    }
    centre = multiply(rounded(sensitivity), v) / total
    received = {name: result.to(dtype).double().cpu() for name, result in results.items()}
    return NaiveResult(centre=centre.double().cpu(), **received)


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return ``left @ right`` in float32, adding one term after the other."""
    total = left.new_zeros((*left.shape[:-1], right.shape[-1]))
    for index in range(left.shape[-1]):
        total += left[..., index, None] * right[..., index, None, :]
    return total


def row_gaps(z: torch.Tensor, alpha: float) -> torch.Tensor:
    """Return ``max(z - tau, 0)`` in float32; 0 throughout a row with NaN or +inf, or without a key.

    tau is found by sorting, in float64, and then rounded: a budget must not grow with the error of a root search.
    For an alpha without a closed form the oracle finds it.
    """
    row_max = z.amax(dim=-1, keepdim=True)
    ordinary = row_max.abs() < math.inf
    shifted = torch.where(ordinary, z - row_max, 0.0)
    if alpha not in (1.5, 2.0):
        exact = entmax_ref.threshold(shifted.double().cpu().numpy() / (alpha - 1.0), alpha)
        tau = torch.from_numpy(exact)[..., None].to(z.device).float()
        return torch.where(ordinary & tau.isfinite(), (shifted - tau).clamp(min=0.0), 0.0)
    # tau is at least row_max - 1, so what lies below may as well lie there; -inf would spoil the sums.
    ordered = shifted.double().sort(dim=-1, descending=True).values.clamp(min=-1.0)
    count = torch.arange(1, z.shape[-1] + 1, dtype=torch.float64, device=z.device)
    mean = ordered.cumsum(-1) / count
    if alpha == 2.0:
        candidate = mean - 1.0 / count
    else:
        spread = (ordered * ordered).cumsum(-1) - count * mean * mean
        candidate = mean - ((1.0 - spread).clamp(min=0.0) / count).sqrt()
    size = (ordered > candidate).sum(dim=-1, keepdim=True).clamp(min=1)
    tau = candidate.gather(-1, size - 1).float()
    return torch.where(ordinary, (shifted - tau).clamp(min=0.0), 0.0)
