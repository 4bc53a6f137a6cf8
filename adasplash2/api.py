"""What does a user call?  SDPA's arguments, the choice of implementation, and the report on the call."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, overload

import torch

from . import mask_ranges, nested, reference
from .choice import chosen_for
from .launch_table import MAX_HEAD_DIM
from .operands import unfold, widen
from .orders import alphas_of, check_order
from .prepared import Prepared, prepare
from .problem import Problem
from .visible import Visibility, intersection, visible_blocks


class AttentionAux(NamedTuple):
    """What `entmax_attention` found on its way; no part of it carries a gradient.

    ``...`` are the leading dimensions of query, key and value, broadcast: (batch, heads) for four-dimensional operands.

    Attributes
    ----------
    tau : Tensor, float32 (float64 for float64 inputs), shape (..., n_queries)
        Threshold of each row in the unit of ``(alpha - 1) * scores``.  +inf for a row without a visible key, NaN for a
        row that holds NaN or +inf.
    mass : Tensor, like tau
        Sum of the probabilities of each row at its threshold, by which its output is divided; 0 for a row without a
        visible key.
    residual : Tensor, like tau
        ``abs(mass - 1)`` at the last point where refinement evaluated it.  It bounds the error of ``tau_from_max`` for
        the scores as they were computed, up to the rounding of that sum.  It does not bound the error of ``tau``, which
        has the rounding of the scores and of ``row_max`` besides: with an offset of 1e4 in float32, up to 1e-3.
    passes : Tensor, int32, like tau
        Passes over the key blocks, after the dense one, that each row needed until its residual met the tolerance: 1
        for a row of few live keys, which are solved together; for others the refinement steps, 0 where the estimate of
        the histogram met it already; and 0 on the reference path, which finds the threshold exactly.
    block_mask : Tensor, bool, shape (..., n_query_blocks, n_key_blocks)
        True where a block may hold support.  A block that is False holds none.
    skipped : Tensor, float64, shape ()
        Share of the blocks that some query may see and that the block mask leaves out.
    row_max : Tensor, like tau
        Largest ``(alpha - 1) * scores`` of each row as computed; -inf for a row without a visible key.
    tau_from_max : Tensor, like tau
        Threshold counted from ``row_max``, from -1 to 0: what the weights come from, and free of the rounding that an
        offset of the scores costs tau.  +inf and NaN as tau.
    """

    tau: torch.Tensor
    mass: torch.Tensor
    residual: torch.Tensor
    passes: torch.Tensor
    block_mask: torch.Tensor
    skipped: torch.Tensor
    row_max: torch.Tensor
    tau_from_max: torch.Tensor


@overload
def entmax_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = ...,
    dropout_p: float = ...,
    is_causal: bool = ...,
    scale: float | None = ...,
    enable_gqa: bool = ...,
    *,
    window_size: tuple[int | None, int | None] | None = ...,
    seqlens_q: torch.Tensor | None = ...,
    seqlens_k: torch.Tensor | None = ...,
    padding_side: Literal["right", "left"] = ...,
    key_ranges: torch.Tensor | None = ...,
    alpha: float | torch.Tensor = ...,
    impl: Literal["triton", "reference"] | None = ...,
    return_aux: Literal[False] = ...,
) -> torch.Tensor: ...


@overload
def entmax_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = ...,
    dropout_p: float = ...,
    is_causal: bool = ...,
    scale: float | None = ...,
    enable_gqa: bool = ...,
    *,
    window_size: tuple[int | None, int | None] | None = ...,
    seqlens_q: torch.Tensor | None = ...,
    seqlens_k: torch.Tensor | None = ...,
    padding_side: Literal["right", "left"] = ...,
    key_ranges: torch.Tensor | None = ...,
    alpha: float | torch.Tensor = ...,
    impl: Literal["triton", "reference"] | None = ...,
    return_aux: Literal[True],
) -> tuple[torch.Tensor, AttentionAux]: ...


def entmax_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    window_size: tuple[int | None, int | None] | None = None,
    seqlens_q: torch.Tensor | None = None,
    seqlens_k: torch.Tensor | None = None,
    padding_side: Literal["right", "left"] = "right",
    key_ranges: torch.Tensor | None = None,
    alpha: float | torch.Tensor = 1.5,
    impl: Literal["triton", "reference"] | None = None,
    return_aux: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, AttentionAux]:
    """Attention whose weights are the alpha-entmax of the scores: exact zeros, chosen by the data.

    A drop-in for `torch.nn.functional.scaled_dot_product_attention` (SDPA), with its arguments in its order,
    differentiable in query, key and value.  :doc:`/sdpa` lists what differs.

    Parameters
    ----------
    query : Tensor, shape (..., heads, n_queries, head_dim)
        float32, bfloat16 or float16, any strides (float64 on the reference path).  Leading dimensions of query, key and
        value broadcast, and there may be any number of them, none included.  Under `torch.autocast` all operands but
        float64 ones are cast to its dtype.  All three may be jagged nested tensors, (batch, heads, length, head_dim) or
        (batch, length, head_dim): nothing is padded or copied, and ``is_causal`` and ``window_size`` are those of each
        sequence.
    key : Tensor, shape (..., kv_heads, n_keys, head_dim)
        dtype and device of query.
    value : Tensor, shape (..., kv_heads, n_keys, value_dim)
        dtype and device of query.  The kernels pad a value_dim that differs from head_dim.
    attn_mask : Tensor, optional
        Broadcasts to (..., heads, n_queries, n_keys).  Boolean: True where a key is visible.  float32 or the dtype of
        query: added to the scaled products.  The kernels take a mask that leaves each query one range of keys, the same
        for all heads, and adds nothing: padding, causal, windows, chunks, documents.  The reference path takes any.
    dropout_p : float, default 0.0
        Must be 0.
    is_causal : bool, default False
        Query i sees key j if ``j <= i + n_keys - n_queries``: the last query sees every key (bottom-right alignment, as
        in FlashAttention; SDPA aligns to the top left when the lengths differ).
    scale : float, optional
        Multiplier of ``query . key``; ``head_dim ** -0.5`` by default.  A number, or an array or tensor without
        dimensions that needs no gradient.
    enable_gqa : bool, default False
        Allow ``heads`` to be a multiple of ``kv_heads``; query head h then uses key head ``h // (heads // kv_heads)``.
    window_size : pair of int or None, optional
        ``(left, right)``: query i sees key j if ``d - left <= j <= d + right`` with ``d = i + n_keys - n_queries``, the
        diagonal of ``is_causal``; None, or -1, is no limit on that side.  With ``is_causal`` right is 0.
    seqlens_q, seqlens_k : Tensor, int32 or int64, shape (batch,), optional
        How many queries and keys of each item of the batch are there; the others are padding.  A query that is padding
        sees no key, no query sees a key that is, and the diagonal of ``is_causal`` and ``window_size`` is that of the
        lengths: the last query that is there sees the last key that is.  Without one all are there: ``seqlens_k``
        alone are the lengths of a cache.  Lengths beyond the operand count as its own.
    padding_side : {"right", "left"}, default "right"
        Where the padding lies.
    key_ranges : Tensor, int32 or int64, optional
        Broadcasts to (batch, n_queries, 2): query i sees the keys from the first number up to, not including, the
        second.  For documents packed into one sequence, prefixes that are seen from both sides, and local chunks.  A
        key is seen if all options let it be seen.
    alpha : float or Tensor, default 1.5
        Order of the map: 1.5 is entmax-1.5, 2 is sparsemax.  The kernels take any above 1 up to 2, and are compiled for
        2, 1.5, 4 / 3 and 1.25 in particular; the reference path takes any above 1.  A tensor, of any real dtype,
        broadcasts to (..., heads) and is differentiable: one alpha for each head, or for each head of each item.  A
        call does not wait for what it holds, and the kernels load it, at the speed of an alpha that they are not
        compiled for; one without dimensions that needs no gradient is read, and is a number.
    impl : {"triton", "reference"}, optional
        ``None`` takes the kernels for GPU tensors and the eager reference for others.  ``"triton"`` with CPU
        tensors needs ``TRITON_INTERPRET=1`` in the environment before this package is imported.
    return_aux : bool, default False
        Also return an `AttentionAux`.

    Returns
    -------
    out : Tensor, dtype of query, shape (..., heads, n_queries, value_dim), jagged if query is
        A row without a visible key is 0, and so are its gradients.  A row with a NaN or +inf score is NaN, no other
        row is, and its NaN reaches the gradients of its query and of the keys and values it sees.  A score of -inf
        makes its key invisible.
    aux : AttentionAux
        Only with ``return_aux=True``.  For jagged operands its rows are those of ``out.values()``.

    Raises
    ------
    TypeError
        An argument of the wrong type, dtypes that differ, or a dtype that the implementation does not take.
    ValueError
        A shape, device, alpha, scale, mask or impl that cannot be served; the message names the way out.  The kernels
        do not wait for what a tensor holds: the rows of a head whose alpha is not in (1, 2] are NaN.
    RuntimeError
        A derivative that the kernels do not have: in forward mode, or of a gradient.  The reference path has them.

    Notes
    -----
    Sums are float32, products as the matrix unit of the dtype makes them (never tf32), and tau is a pair of float32
    numbers.  In 16 bits, a row of few live keys (up to 128) is solved from all of them at once; any other is refined
    until ``abs(mass - 1)``, which bounds the error of ``tau - row_max`` for the scores as computed, is at most 2 ** -17
    (2 ** -18 for float32), and then moved by one more step.  There is no iteration count to choose, and no list of keys
    or blocks that loses one when it is full.  The output is divided by the sum of its weights.  Blocks are left out
    only below a lower bound of tau.  The same inputs give the same bits.

    NaN in value, and infinity in value or key, are factors like any other: 0 * NaN is NaN, also for keys of probability
    0 that a tile or a dense product takes along.

    `torch.vmap`, the reverse mode of `torch.func`, `torch.compile` and `torch.export` go through the kernels; meta and
    fake tensors give shapes.

    Lemmas: residual_bound, block_mask_superset, normalised_output

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
    visibility = Visibility(window_size, seqlens_q, seqlens_k, padding_side, key_ranges)
    prepared = prepare(
        query, key, value, attn_mask, visibility, is_causal=is_causal, enable_gqa=enable_gqa, dropout_p=dropout_p,
        scale=scale, alpha=alpha, impl=impl, return_aux=return_aux,
    )  # fmt: skip
    if impl is None:
        impl = chosen_for(prepared.operands.query)
    run = _run_kernels if impl == "triton" else _run_reference
    out, aux = run(prepared, return_aux=return_aux)
    if out.shape[-1] != value.shape[-1]:  # value was padded
        out = out[..., : value.shape[-1]]
    out = unfold(out, prepared.lead)
    if nested.is_nested(query):
        out = nested.repacked(out, query)
    if aux is None:
        return out
    # The operator's other results carry no gradient, and must not look as if they did.
    parts = {name: unfold(part.detach(), prepared.lead) for name, part in aux._asdict().items() if name != "skipped"}
    return out, AttentionAux(skipped=aux.skipped, **parts)


def _run_reference(prepared: Prepared, *, return_aux: bool) -> tuple[torch.Tensor, AttentionAux | None]:
    """Return output and report of the eager reference, of one value_dim at least."""
    query, key, value, attn_mask = prepared.of_reference()
    _, _, alpha, scale, is_causal, _ = prepared
    value = widen(value, max(value.shape[-1], 1))
    options: dict[str, Any] = {"is_causal": is_causal, "scale": scale, "attn_mask": attn_mask}
    if isinstance(alpha, torch.Tensor):
        out, parts = reference.attention_by_alphas(query, key, value, alpha, **options, has_report=return_aux)
    elif return_aux:
        found = reference.reference_attention(query, key, value, alpha=alpha, **options)
        out, parts = found.out, found[1:]
    else:
        out, parts = reference.reference_output(query, key, value, alpha=alpha, **options), None
    if parts is None:
        return out, None
    tau, mass, block_mask, row_max, tau_from_max = parts
    residual = torch.where(tau == torch.inf, 0.0, (mass - 1.0).abs())
    passes = torch.zeros_like(tau, dtype=torch.int32)
    shape, block = (query.shape[2], key.shape[2]), (reference.BLOCK, reference.BLOCK)
    seen = _visible_blocks(shape, block, None, is_causal, attn_mask, query.device)
    skipped = _skipped(block_mask, seen)
    return out, AttentionAux(tau, mass, residual, passes, block_mask, skipped, row_max, tau_from_max)


def _run_kernels(prepared: Prepared, *, return_aux: bool) -> tuple[torch.Tensor, AttentionAux | None]:
    """Return output and report of the kernels, of a value_dim that is head_dim at least."""
    operands, ranges, alpha, scale, is_causal, _ = prepared
    _check_kernels(operands.query, operands.value, alpha)
    if operands.attn_mask is not None:
        shown = mask_ranges.of_mask("entmax_attention", operands.attn_mask, operands.key.shape[2])
        ranges = shown if ranges is None else intersection(ranges, shown)
        ranges = ranges.expand(operands.query.shape[0], operands.query.shape[2], 2)
    # Imported here: the reference path works where triton is not installed.
    from . import launch, ops
    from .state import unpack_mask
    from .transforms import refuse_tangents

    width = max(operands.query.shape[-1], operands.value.shape[-1])
    query, key, value = (widen(operand, width) for operand in operands[:3])
    alphas = alphas_of(alpha, query)
    refuse_tangents(query, key, value, *([] if alphas is None else [alphas]))
    order = alpha if alphas is None and not isinstance(alpha, torch.Tensor) else 0.0
    out, row_max, base, rest, bytes_, mass, residual, passes, *_ = ops.differentiable_attention(
        query, key, value, ranges, alphas, order, is_causal, scale
    )
    if not return_aux:
        return out, None
    problem = Problem.of(query, key, alpha=order, scale=scale, is_causal=is_causal, backend=launch.BACKEND)
    # From the bytes: vmap has no rule for a view as another type in torch 2.11.
    *rows, n_words = problem.mask_shape
    block_mask = unpack_mask(bytes_.view(*rows, 4 * n_words), problem.n_key_blocks).unflatten(0, query.shape[:2])
    block = problem.launch.block_m, problem.launch.block_n
    seen = _visible_blocks((query.shape[2], key.shape[2]), block, ranges, is_causal, None, query.device)
    # What a tile of the dense pass keeps, all of its blocks do, also where they see none of it.
    block_mask = block_mask & seen
    # Far from 0 the sum rounds; the difference of the two parts, either side of row_max, does not.
    below = torch.where(base.isinf(), base, (base - row_max) + rest)
    skipped = _skipped(block_mask, seen)
    return out, AttentionAux(base + rest, mass, residual, passes, block_mask, skipped, row_max, below)


def _check_kernels(query: torch.Tensor, value: torch.Tensor, alpha: float | torch.Tensor) -> None:
    """Raise where only the reference path can serve the call."""
    if not isinstance(alpha, torch.Tensor):
        check_order("entmax_attention", alpha)
    if query.dtype == torch.float64:
        raise TypeError(
            "entmax_attention: query is float64; the fused kernels take float32, bfloat16 and float16. "
            "Convert the operands, or use impl='reference'."
        )
    for name, tensor in (("query", query), ("value", value)):
        if tensor.shape[-1] > MAX_HEAD_DIM:
            raise ValueError(
                f"entmax_attention: {name} has head_dim {tensor.shape[-1]}; the fused kernels take 1 to "
                f"{MAX_HEAD_DIM}. Use impl='reference'."
            )
    from .launch import INTERPRETED

    if not (query.is_cuda or query.is_meta or INTERPRETED):
        raise ValueError(
            f"entmax_attention: impl='triton' with tensors on {query.device} needs the Triton interpreter. "
            f"Set TRITON_INTERPRET=1 before adasplash2 is imported, move the tensors to a GPU, or use impl='reference'."
        )


def _visible_blocks(
    shape: tuple[int, int],
    block: tuple[int, int],
    ranges: torch.Tensor | None,
    is_causal: bool,
    attn_mask: torch.Tensor | None,
    device: torch.device,
) -> torch.Tensor:
    """Return which blocks hold a key that some query may see, bool, broadcasting to (batch, heads, blocks, blocks).

    ``shape`` is (n_queries, n_keys).
    """
    # Tensors throughout: traces, vmap and meta tensors pass, and nothing waits for the device.
    if ranges is not None:
        return visible_blocks(ranges, shape[1], block)[:, None]
    if attn_mask is not None:
        visible = attn_mask if attn_mask.dtype == torch.bool else attn_mask != -torch.inf
        for dim in (-2, -1):
            visible = _any_of_blocks(visible, dim, shape[dim], block[dim])
        return visible
    n_query_blocks, n_key_blocks = -(-shape[0] // block[0]), -(-shape[1] // block[1])
    if not is_causal:
        return torch.ones(n_query_blocks, n_key_blocks, dtype=torch.bool, device=device)
    end = (torch.arange(1, n_query_blocks + 1, device=device) * block[0]).clamp(max=shape[0]) + (shape[1] - shape[0])
    return torch.arange(n_key_blocks, device=device) * block[1] < end[:, None]


def _any_of_blocks(visible: torch.Tensor, dim: int, length: int, block: int) -> torch.Tensor:
    """Return a mask with one entry for each block of a dimension, or with the one entry that stands for all of them."""
    if visible.shape[dim] == 1 and length != 1:
        return visible
    missing = -visible.shape[dim] % block
    padded = torch.nn.functional.pad(visible, (0, missing) if dim == -1 else (0, 0, 0, missing))
    # From the left, so that the new dimension does not move the others.
    return padded.unflatten(dim, (-1, block)).any(dim=dim) if padded.numel() else padded[..., :0]


def _skipped(block_mask: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Return the share of visible blocks that the mask leaves out; 0 if no block is visible."""
    visible = visible.expand(block_mask.shape)
    n_visible, kept = visible.sum(), (block_mask & visible).sum().double()
    return torch.where(n_visible == 0, 0.0, 1.0 - kept / n_visible.clamp(min=1))
