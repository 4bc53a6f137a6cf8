"""Which weights does attention have?  Those that are not zero, as a sparse matrix."""

from __future__ import annotations

from typing import Literal

import torch

from .prepared import prepare
from .reference.sparse import sparse_weights
from .visible import Visibility


def attention_weights(
    query: torch.Tensor,
    key: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    window_size: tuple[int | None, int | None] | None = None,
    seqlens_q: torch.Tensor | None = None,
    seqlens_k: torch.Tensor | None = None,
    padding_side: Literal["right", "left"] = "right",
    key_ranges: torch.Tensor | None = None,
    alpha: float | torch.Tensor = 1.5,
) -> torch.Tensor:
    """Return the weights of `entmax_attention`, exact zeros left out, as a sparse matrix.

    Parameters
    ----------
    query : Tensor, shape (..., heads, n_queries, head_dim)
        As in `entmax_attention`, like all that follow.
    key : Tensor, shape (..., kv_heads, n_keys, head_dim)
        dtype and device of query.
    attn_mask : Tensor, optional
        Any that `entmax_attention` takes on the reference path.
    is_causal, scale, enable_gqa, window_size, seqlens_q, seqlens_k, padding_side, key_ranges, alpha
        As given to `entmax_attention`.

    Returns
    -------
    weights : Tensor, layout sparse CSR, float32 (float64 for float64 inputs), shape (rows, n_keys)
        Rows are the queries of every head, counted over (..., heads, n_queries): ``crow_indices().diff()`` are the
        sizes of the supports.  Queries and keys of jagged operands are those of their values, all sequences together.
        A row without a visible key is empty, one with a NaN or +inf score holds NaN on its visible keys.

    Raises
    ------
    TypeError, ValueError
        As `entmax_attention`, in whose name they speak.

    Notes
    -----
    The reference path finds them, on any device: the support is exact for the operands as they are given, and a weight
    is rounded once.  Those of the kernels differ from them by the error of the kernels.  Nothing is differentiated.
    Memory is 64 MiB beyond operands and result, and that has 12 to 16 bytes for each weight that is not zero; with
    ``key_ranges``, lengths or a window there is a mask of a byte for each query and key.

    Examples
    --------
    >>> import torch
    >>> from adasplash2 import attention_weights
    >>> query, key = torch.randn(2, 1, 2, 64, 32).unbind()
    >>> weights = attention_weights(query, key, is_causal=True)
    >>> weights.shape
    torch.Size([128, 64])
    >>> torch.allclose(weights.to_dense().sum(-1), torch.ones(128))
    True
    """
    visibility = Visibility(window_size, seqlens_q, seqlens_k, padding_side, key_ranges)
    prepared = prepare(
        query, key, key, attn_mask, visibility, is_causal=is_causal, enable_gqa=enable_gqa, dropout_p=0.0, scale=scale,
        alpha=alpha, impl="reference",
    )  # fmt: skip
    query, key, _, mask = prepared.of_reference()
    rows, columns, values = sparse_weights(
        query, key, alpha=prepared.alpha, is_causal=prepared.is_causal, scale=prepared.scale, attn_mask=mask
    )
    n_rows, n_keys = query.shape[:3].numel(), key.shape[2]
    ends = torch.bincount(rows, minlength=n_rows).cumsum(0)
    starts = torch.cat((ends.new_zeros(1), ends))
    low = torch.promote_types(query.dtype, torch.float32)
    # Said in so many words, or torch warns of it: they are in order by construction, and a check waits for the device.
    return torch.sparse_csr_tensor(
        starts, columns, values.to(low), (n_rows, n_keys), device=query.device, check_invariants=False
    )
