"""What does a user call?  Argument checks, the choice of implementation, and the report on the call."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, overload

import torch

from . import reference
from .arguments import check_attention
from .problem import MAX_HEAD_DIM, POWERS, Problem


class AttentionAux(NamedTuple):
    """What `entmax_attention` found on its way; no part of it carries a gradient.

    Attributes
    ----------
    tau : Tensor, float32 (float64 for float64 inputs), shape (batch, heads, n_queries)
        Threshold of each row in the unit of ``(alpha - 1) * scores``; +inf for a row without a visible key, NaN for a
        row that holds NaN or +inf.
    mass : Tensor, like tau
        Sum of the probabilities of each row at tau, before the output is corrected for its distance from 1; 0 for a
        row without a visible key.
    residual : Tensor, like tau
        A bound of the error of tau, ``abs(mass - 1)`` at the last point where refinement evaluated it.
    passes : Tensor, int32, like tau
        Refinement steps that each row needed until its residual met the tolerance; 0 where the histogram's estimate
        already did, and on the reference path, which sorts.
    block_mask : Tensor, bool, shape (batch, heads, n_query_blocks, n_key_blocks)
        True where a block may hold support.  A block that is False holds none.
    skipped : float
        Share of the blocks that some query may see and that the block mask leaves out.
    """

    tau: torch.Tensor
    mass: torch.Tensor
    residual: torch.Tensor
    passes: torch.Tensor
    block_mask: torch.Tensor
    skipped: float


@overload
def entmax_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    alpha: float = ...,
    is_causal: bool = ...,
    scale: float | None = ...,
    enable_gqa: bool = ...,
    impl: Literal["triton", "reference"] | None = ...,
    return_aux: Literal[False] = ...,
) -> torch.Tensor: ...


@overload
def entmax_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    alpha: float = ...,
    is_causal: bool = ...,
    scale: float | None = ...,
    enable_gqa: bool = ...,
    impl: Literal["triton", "reference"] | None = ...,
    return_aux: Literal[True],
) -> tuple[torch.Tensor, AttentionAux]: ...


def entmax_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    alpha: float = 1.5,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    impl: Literal["triton", "reference"] | None = None,
    return_aux: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, AttentionAux]:
    """Attention whose weights are the alpha-entmax of the scores: exact zeros, chosen by the data.

    A drop-in for `torch.nn.functional.scaled_dot_product_attention`, differentiable in query, key and value.

    Parameters
    ----------
    query : Tensor, shape (batch, heads, n_queries, head_dim)
        float32, bfloat16 or float16, any strides (float64 on the reference path).
    key, value : Tensor, shape (batch, kv_heads, n_keys, head_dim)
        dtype and device of query.
    alpha : float, default 1.5
        Order of the map.  The kernels take 1.5 (entmax-1.5) and 2 (sparsemax), the reference path any alpha above 1.
    is_causal : bool, default False
        Query i sees key j if ``j <= i + n_keys - n_queries``: the last query sees every key (bottom-right alignment, as
        in FlashAttention; SDPA aligns to the top left when the lengths differ).
    scale : float, optional
        Multiplier of ``query . key``; ``head_dim ** -0.5`` by default.
    enable_gqa : bool, default False
        Allow ``heads`` to be a multiple of ``kv_heads``; query head h then uses key head ``h // (heads // kv_heads)``.
    impl : {"triton", "reference"}, optional
        ``None`` takes the kernels for GPU tensors and the eager reference for CPU tensors.  ``"triton"`` with CPU
        tensors needs ``TRITON_INTERPRET=1`` in the environment before this package is imported.
    return_aux : bool, default False
        Also return an `AttentionAux`.

    Returns
    -------
    out : Tensor, shape and dtype of query
        A row without a visible key is 0, and so are its gradients.  A row with a NaN or +inf score is NaN, no other
        row is, and its NaN reaches the gradients of its query and of the keys and values it sees.  A score of -inf
        makes its key invisible.
    aux : AttentionAux
        Only with ``return_aux=True``; computing ``aux.skipped`` waits for the device.

    Raises
    ------
    TypeError
        An argument of the wrong type, dtypes that differ, or a dtype that the implementation does not take.
    ValueError
        A shape, device, alpha, scale or impl that cannot be served; the message names the way out.

    Notes
    -----
    Sums and tau are float32, products as the matrix unit of the dtype makes them (never tf32).  Each row is refined
    until ``abs(mass - 1)``, which bounds the error of tau, is at most 2 ** -17 (2 ** -18 for float32), or what one unit
    in the last place of tau is worth if that is more; then it is moved by one more step.  There is no iteration count
    to choose.  The output is corrected for the rest, so that its weights sum to 1.  Blocks are left out only below a
    lower bound of tau.  The same inputs give the same bits.

    NaN in value, and infinity in value or key, are factors like any other: 0 * NaN is NaN, also for keys of probability
    0 that a tile or a dense product takes along.

    Lemmas: residual_bound, block_mask_superset, first_order_correction

    References
    ----------
    .. [1] Nuno Gonçalves, M. Treviso and A. F. T. Martins, "AdaSplash: Adaptive Sparse Flash Attention", ICML 2025.
    .. [2] Nuno M. T. Gonçalves et al., "AdaSplash-2: Faster Differentiable Sparse Attention", ICML 2026.
    .. [3] Ben Peters, V. Niculae and A. F. T. Martins, "Sparse Sequence-to-Sequence Models", ACL 2019.

    Examples
    --------
    >>> import torch
    >>> from adasplash2 import entmax_attention
    >>> query, key, value = torch.randn(3, 1, 2, 128, 32).unbind(0)
    >>> out, aux = entmax_attention(query, key, value, is_causal=True, return_aux=True)
    >>> out.shape
    torch.Size([1, 2, 128, 32])
    >>> bool((aux.mass - 1).abs().max() < 1e-5)
    True
    """
    check_attention(query, key, value, alpha=alpha, scale=scale, enable_gqa=enable_gqa, impl=impl)
    alpha = float(alpha)
    scale = query.shape[-1] ** -0.5 if scale is None else float(scale)
    if impl is None:
        impl = "triton" if query.is_cuda else "reference"
    if impl == "reference":
        out, tau, mass, block_mask = reference.reference_attention(
            query, key, value, alpha=alpha, is_causal=is_causal, scale=scale
        )
        if not return_aux:
            return out
        passes = torch.zeros_like(tau, dtype=torch.int32)
        residual = torch.where(tau == torch.inf, 0.0, (mass - 1.0).abs())
        block = reference.BLOCK, reference.BLOCK
        skipped = _skipped(block_mask, query.shape[2], key.shape[2], is_causal, block)
        return out, AttentionAux(tau, mass, residual, passes, block_mask, skipped)

    # Imported here: the reference path works where triton is not installed.
    from . import launch, ops
    from .state import unpack_mask

    _check_kernels(query, alpha, interpreted=launch.INTERPRETED)
    out, _, row_max, tau, words, mass, residual, passes = ops.attention(query, key, value, alpha, is_causal, scale)
    if not return_aux:
        return out
    problem = Problem.of(query, key, alpha=alpha, scale=scale, is_causal=is_causal, backend=launch.BACKEND)
    block_mask = unpack_mask(words, problem.n_key_blocks).unflatten(0, query.shape[:2])
    block = problem.launch.block_m, problem.launch.block_n
    # A row without a key has row_max = -inf and tau = +inf.
    absolute = torch.where(tau == torch.inf, tau, tau + row_max)
    skipped = _skipped(block_mask, query.shape[2], key.shape[2], is_causal, block)
    # The operator's other results carry no gradient, and must not look as if they did.
    absolute, mass, residual, passes = (row.detach() for row in (absolute, mass, residual, passes))
    return out, AttentionAux(absolute, mass, residual, passes, block_mask, skipped)


def _check_kernels(query: torch.Tensor, alpha: float, *, interpreted: bool) -> None:
    """Raise where only the reference path can serve the call."""
    if alpha not in POWERS:
        raise ValueError(
            f"entmax_attention: alpha is {alpha}; the fused kernels take {' and '.join(map(str, POWERS))}. "
            f"Use impl='reference', which takes any alpha above 1."
        )
    if query.dtype == torch.float64:
        raise TypeError(
            "entmax_attention: query is float64; the fused kernels take float32, bfloat16 and float16. "
            "Convert the operands, or use impl='reference'."
        )
    if query.shape[-1] > MAX_HEAD_DIM:
        raise ValueError(
            f"entmax_attention: query has head_dim {query.shape[-1]}; the fused kernels take 1 to {MAX_HEAD_DIM}. "
            f"Use impl='reference'."
        )
    if not query.is_cuda and not interpreted:
        raise ValueError(
            f"entmax_attention: impl='triton' with tensors on {query.device} needs the Triton interpreter. "
            f"Set TRITON_INTERPRET=1 before adasplash2 is imported, move the tensors to a GPU, or use impl='reference'."
        )


def _skipped(block_mask: torch.Tensor, n_queries: int, n_keys: int, is_causal: bool, block: tuple[int, int]) -> float:
    """Return the share of visible blocks that the mask leaves out; 0 if no block is visible."""
    n_query_blocks, n_key_blocks = block_mask.shape[-2:]
    if is_causal:
        last = [min((i + 1) * block[0], n_queries) + n_keys - n_queries for i in range(n_query_blocks)]
        visible = sum(min(max(math.ceil(end / block[1]), 0), n_key_blocks) for end in last)
    else:
        visible = n_query_blocks * n_key_blocks
    visible *= block_mask.shape[0] * block_mask.shape[1]
    return 1.0 - int(block_mask.sum()) / visible if visible else 0.0
