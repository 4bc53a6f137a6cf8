"""How are sequences attended to that lie one behind the other, without padding?"""

from __future__ import annotations

from typing import Any, Literal, overload

import torch

from .api import AttentionAux, entmax_attention
from .visible import as_window, packed_ranges

_CALLER = "entmax_attention_varlen"


@overload
def entmax_attention_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int | None = ...,
    max_seqlen_k: int | None = ...,
    *,
    is_causal: bool = ...,
    scale: float | None = ...,
    window_size: tuple[int | None, int | None] | None = ...,
    alpha: float | torch.Tensor = ...,
    impl: Literal["triton", "reference"] | None = ...,
    return_aux: Literal[False] = ...,
) -> torch.Tensor: ...


@overload
def entmax_attention_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int | None = ...,
    max_seqlen_k: int | None = ...,
    *,
    is_causal: bool = ...,
    scale: float | None = ...,
    window_size: tuple[int | None, int | None] | None = ...,
    alpha: float | torch.Tensor = ...,
    impl: Literal["triton", "reference"] | None = ...,
    return_aux: Literal[True],
) -> tuple[torch.Tensor, AttentionAux]: ...


def entmax_attention_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    window_size: tuple[int | None, int | None] | None = None,
    alpha: float | torch.Tensor = 1.5,
    impl: Literal["triton", "reference"] | None = None,
    return_aux: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, AttentionAux]:
    """`entmax_attention` of each of several sequences that are packed along one axis.

    Operands and offsets are those of ``flash_attn_varlen_func``; nothing is padded or copied.

    Parameters
    ----------
    query : Tensor, shape (total_queries, heads, head_dim)
        The queries of all sequences; dtypes as in `entmax_attention`.
    key : Tensor, shape (total_keys, kv_heads, head_dim)
        dtype and device of query.  ``heads`` may be any multiple of ``kv_heads``.
    value : Tensor, shape (total_keys, kv_heads, value_dim)
        dtype and device of query.
    cu_seqlens_q, cu_seqlens_k : Tensor, int32 or int64, shape (sequences + 1,)
        Offsets, rising from 0: sequence s holds the queries ``cu_seqlens_q[s]`` to ``cu_seqlens_q[s + 1] - 1``, and
        keys likewise.  A sequence may have no query, no key or neither.  Queries beyond the last sequence see no key.
        Checked on the CPU; on a GPU that would wait for the device, and offsets that do not rise or that pass the total
        are a bug of the caller.
    max_seqlen_q, max_seqlen_k : int, optional
        Taken so that calls of ``flash_attn_varlen_func`` fit; not needed.
    is_causal : bool, default False
        Aligned to the bottom right of each sequence, as in `entmax_attention`.
    scale, window_size, alpha, impl
        As given to `entmax_attention`; the diagonal of the window is that of each sequence, and a tensor of alphas has
        the shape (heads,).
    return_aux : bool, default False
        Also return an `AttentionAux`.

    Returns
    -------
    out : Tensor, dtype of query, shape (total_queries, heads, value_dim)
        0 for a query without a visible key.
    aux : AttentionAux
        Only with ``return_aux=True``; its rows have the shape (heads, total_queries).

    Raises
    ------
    TypeError, ValueError
        As `entmax_attention`, and for operands without three dimensions or offsets that are no offsets.

    Notes
    -----
    A block of queries that spans several sequences visits the keys of all of them; the mask within it is exact.  The
    reference path holds the mask of all pairs, ``total_queries * total_keys`` bytes.

    Examples
    --------
    >>> import torch
    >>> from adasplash2 import entmax_attention_varlen
    >>> query, key, value = torch.randn(3, 100, 2, 32).unbind(0)
    >>> offsets = torch.tensor([0, 30, 100])
    >>> entmax_attention_varlen(query, key, value, offsets, offsets, is_causal=True).shape
    torch.Size([100, 2, 32])
    """
    for name, tensor in {"query": query, "key": key, "value": value}.items():
        if not isinstance(tensor, torch.Tensor) or tensor.dim() != 3:
            raise (TypeError if not isinstance(tensor, torch.Tensor) else ValueError)(
                f"{_CALLER}: {name} must be a tensor of shape (total, heads, head_dim), got "
                f"{tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__}. "
                f"Pack the sequences along the first dimension."
            )
    _check_offsets("cu_seqlens_q", cu_seqlens_q, query, "query")
    _check_offsets("cu_seqlens_k", cu_seqlens_k, key, "key")
    if cu_seqlens_q.shape != cu_seqlens_k.shape:
        raise ValueError(
            f"{_CALLER}: cu_seqlens_q has {cu_seqlens_q.shape[0]} offsets, cu_seqlens_k has {cu_seqlens_k.shape[0]}; "
            f"both must be one more than there are sequences. Repeat an offset for a sequence without keys."
        )
    if not isinstance(is_causal, bool):
        raise TypeError(f"{_CALLER}: is_causal must be True or False, got {type(is_causal).__name__}. Use bool().")
    window = as_window(_CALLER, window_size)
    ranges = packed_ranges(cu_seqlens_q.long(), cu_seqlens_k.long(), query.shape[0], window, is_causal=is_causal)
    q, k, v = (tensor.transpose(0, 1) for tensor in (query, key, value))
    options: dict[str, Any] = {"scale": scale, "alpha": alpha, "impl": impl, "key_ranges": ranges}
    if not return_aux:
        return entmax_attention(q, k, v, enable_gqa=True, **options).transpose(0, 1)
    out, aux = entmax_attention(q, k, v, enable_gqa=True, return_aux=True, **options)
    return out.transpose(0, 1), aux


def _check_offsets(name: str, offsets: object, operand: torch.Tensor, owner: str) -> None:
    if not isinstance(offsets, torch.Tensor) or offsets.dtype not in (torch.int32, torch.int64):
        got = f"dtype {offsets.dtype}" if isinstance(offsets, torch.Tensor) else f"type {type(offsets).__name__}"
        raise TypeError(f"{_CALLER}: {name} must be a tensor of int32 or int64, got {got}. Convert it first.")
    if offsets.dim() != 1 or offsets.shape[0] == 0:
        raise ValueError(
            f"{_CALLER}: {name} must have shape (sequences + 1,), got {tuple(offsets.shape)}. Begin it with 0."
        )
    if offsets.device != operand.device:
        raise ValueError(
            f"{_CALLER}: {name} is on {offsets.device}, {owner} on {operand.device}; they must be on one device. "
            f"Move one with .to()."
        )
    if offsets.device.type != "cpu" or torch.compiler.is_compiling():
        return
    total = operand.shape[0]
    if int(offsets[0]) != 0 or bool((offsets.diff() < 0).any()) or int(offsets[-1]) > total:
        raise ValueError(
            f"{_CALLER}: {name} must rise from 0 to at most {total}, the length of {owner}. "
            f"Make it of the lengths with torch.cumsum."
        )
