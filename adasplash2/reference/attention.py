"""How is the eager path called, differentiated and mapped over?

Four passes differentiate into each other: the gradient of the output is `gradient`, its derivative along a direction is
`tangent`, and the derivatives of both are these two and `second`. Each is an operator, so that tracing does not look
inside, and a function of autograd with a rule for `torch.func.vmap`, which folds the mapped dimension into the batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch._compile

from ..transforms import apply_outside_graphs, as_bytes, as_words, empty_bytes, under_transform
from . import passes
from .chunks import BLOCK

Tensors = tuple[torch.Tensor, ...]
Four = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
Six = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


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
    row_max : Tensor, like tau
        Largest ``(alpha - 1) * scores`` of each row, -inf for a row without a visible key.
    tau_from_max : Tensor, like tau
        ``tau - row_max``, rounded once.
    """

    out: torch.Tensor
    tau: torch.Tensor
    mass: torch.Tensor
    block_mask: torch.Tensor
    row_max: torch.Tensor
    tau_from_max: torch.Tensor


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
        float32, bfloat16, float16 or float64.
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

    Notes
    -----
    Everything is float64 inside, autocast included, and rounded once at the end.  Reverse mode works twice, forward
    mode once, and either over the other; `torch.func` composes with all of it.  Memory beyond operands and results is
    at most 64 MiB, or that of one row of scores per query head if it is more.
    """
    out, tau, mass, blocks, row_max, tau_from_max = _attend(query, key, value, attn_mask, alpha, is_causal, scale)
    shape = *query.shape[:2], -(-query.shape[2] // BLOCK), -(-key.shape[2] // BLOCK)
    return ReferenceResult(out, tau, mass, as_words(blocks, shape) != 0, row_max, tau_from_max)


def reference_output(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    alpha: float,
    is_causal: bool,
    scale: float,
    attn_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return ``out`` of `reference_attention` alone; a graph traced with it holds for any number of blocks."""
    return _attend(query, key, value, attn_mask, alpha, is_causal, scale)[0]


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    alpha: float,
    is_causal: bool,
    scale: float,
) -> Six:
    if mask is not None:
        mask = mask.reshape((1,) * (4 - mask.dim()) + mask.shape)
    # Dynamo takes no function with a forward mode: a graph outside every transform holds the operator and its own
    # derivative, under a transform it breaks here and runs as it would without.
    if torch.compiler.is_compiling() and not under_transform():
        return _forward(query, key, value, mask, alpha, is_causal, scale)
    return apply_outside_graphs(_Forward, query, key, value, mask, alpha, is_causal, scale)


@torch.library.custom_op("adasplash2::reference_forward", mutates_args=())
def _forward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    alpha: float,
    is_causal: bool,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    out, tau, mass, blocks, row_max, tau_from_max = passes.forward(query, key, value, mask, alpha, is_causal, scale)
    return out, tau, mass, as_bytes(blocks.int()), row_max, tau_from_max


@torch.library.custom_op("adasplash2::reference_gradient", mutates_args=())
def _gradient(
    d_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    alpha: float,
    is_causal: bool,
    scale: float,
    of_mask: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return passes.gradient(d_out, query, key, value, mask, alpha, is_causal, scale, of_mask)


@torch.library.custom_op("adasplash2::reference_tangent", mutates_args=())
def _tangent(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    t_query: torch.Tensor,
    t_key: torch.Tensor,
    t_value: torch.Tensor,
    t_mask: torch.Tensor | None,
    alpha: float,
    is_causal: bool,
    scale: float,
) -> torch.Tensor:
    return passes.tangent(query, key, value, mask, t_query, t_key, t_value, t_mask, alpha, is_causal, scale)


@torch.library.custom_op("adasplash2::reference_second", mutates_args=())
def _second(
    d_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    t_query: torch.Tensor,
    t_key: torch.Tensor,
    t_value: torch.Tensor,
    t_mask: torch.Tensor | None,
    alpha: float,
    is_causal: bool,
    scale: float,
    of_mask: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return passes.second(
        d_out, query, key, value, mask, t_query, t_key, t_value, t_mask, alpha, is_causal, scale, of_mask
    )


@_forward.register_fake
def _(query, key, value, mask, alpha, is_causal, scale):  # type: ignore[no-untyped-def]
    rows = query.shape[:3]
    low = torch.promote_types(query.dtype, torch.float32)
    blocks = (*rows[:2], (rows[2] + BLOCK - 1) // BLOCK, (key.shape[2] + BLOCK - 1) // BLOCK)
    return (
        query.new_empty((*rows, value.shape[3])),
        query.new_empty(rows, dtype=low),
        query.new_empty(rows, dtype=low),
        empty_bytes(query, blocks),
        query.new_empty(rows, dtype=low),
        query.new_empty(rows, dtype=low),
    )


def _empty_gradients(query, key, value, mask, of_mask):  # type: ignore[no-untyped-def]
    d_mask = mask.new_empty(mask.shape) if of_mask else query.new_empty(0)
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape), d_mask


@_gradient.register_fake
def _(d_out, query, key, value, mask, alpha, is_causal, scale, of_mask):  # type: ignore[no-untyped-def]
    return _empty_gradients(query, key, value, mask, of_mask)


@_tangent.register_fake
def _(query, key, value, mask, *rest):  # type: ignore[no-untyped-def]
    return query.new_empty((*query.shape[:3], value.shape[3]))


@_second.register_fake
def _(d_out, query, key, value, mask, *rest):  # type: ignore[no-untyped-def]
    return _empty_gradients(query, key, value, mask, rest[-1])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Six) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.options = inputs[4:]


def _backward(ctx: Any, d_out: torch.Tensor, *_: Any) -> tuple[Any, ...]:
    of_mask = _wants_mask(ctx, 3)
    return *_gradients(_gradient(d_out, *ctx.saved_tensors, *ctx.options, of_mask), of_mask), None, None, None


_forward.register_autograd(_backward, setup_context=_setup_context)


class _Forward(torch.autograd.Function):
    """query, key, value, mask, alpha, is_causal, scale -> out, tau, mass, block mask (bytes of int32), row_max,
    tau_from_max.
    """

    @staticmethod
    def forward(*args: Any) -> Six:
        return _forward(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Six) -> None:
        _save(ctx, inputs[:4])
        ctx.options = inputs[4:]
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, d_out: torch.Tensor, *_: Any) -> tuple[Any, ...]:
        of_mask = _wants_mask(ctx, 3)
        found = apply_outside_graphs(_Gradient, d_out, *ctx.saved_tensors, *ctx.options, of_mask)
        return *_gradients(found, of_mask), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Any, ...]:
        operands = ctx.saved_tensors
        return apply_outside_graphs(_Tangent, *operands, *_directions(operands, tangents[:4]), *ctx.options), *(
            None,
        ) * 5

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        return _mapped(_Forward, info.batch_size, in_dims, args, masks=(3,), of_mask=None)


class _Gradient(torch.autograd.Function):
    """d_out, query, key, value, mask, alpha, is_causal, scale, of_mask -> gradients of the operands."""

    @staticmethod
    def forward(*args: Any) -> Four:
        return _gradient(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Four) -> None:
        _save(ctx, inputs[:5])
        ctx.options, ctx.of_mask = inputs[5:8], inputs[8]

    @staticmethod
    def backward(ctx: Any, *directions: Any) -> tuple[Any, ...]:
        d_out, *operands = ctx.saved_tensors
        along = _directions(operands, (*directions[:3], directions[3] if ctx.of_mask else None))
        of_mask = _wants_mask(ctx, 4)
        of_d_out = apply_outside_graphs(_Tangent, *operands, *along, *ctx.options)
        found = apply_outside_graphs(_Second, d_out, *operands, *along, *ctx.options, of_mask)
        return of_d_out, *_gradients(found, of_mask), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Any, ...]:
        d_out, *operands = ctx.saved_tensors
        along = _directions(operands, tangents[1:5])
        # The gradient is linear in d_out, and its derivative by the operands is symmetric.
        found = apply_outside_graphs(_Second, d_out, *operands, *along, *ctx.options, ctx.of_mask)
        if tangents[0] is None:
            return tuple(found)
        linear = apply_outside_graphs(_Gradient, tangents[0], *operands, *ctx.options, ctx.of_mask)
        return tuple(one + other for one, other in zip(found, linear, strict=True))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        return _mapped(_Gradient, info.batch_size, in_dims, args, masks=(4,), of_mask=args[8])


class _Tangent(torch.autograd.Function):
    """query, key, value, mask, a direction of each, alpha, is_causal, scale -> change of out."""

    @staticmethod
    def forward(*args: Any) -> torch.Tensor:
        return _tangent(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        _save(ctx, inputs[:8])
        ctx.options = inputs[8:]

    @staticmethod
    def backward(ctx: Any, weight: torch.Tensor) -> tuple[Any, ...]:
        operands, along = ctx.saved_tensors[:4], ctx.saved_tensors[4:]
        of_mask, of_direction = _wants_mask(ctx, 3), _wants_mask(ctx, 7)
        found = apply_outside_graphs(_Second, weight, *operands, *along, *ctx.options, of_mask)
        linear = apply_outside_graphs(_Gradient, weight, *operands, *ctx.options, of_direction)
        return *_gradients(found, of_mask), *_gradients(linear, of_direction), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> torch.Tensor:
        raise NotImplementedError(
            "entmax_attention: a forward-mode derivative of a forward-mode derivative is not implemented. "
            "Take one of them in reverse: torch.func.hessian, or jacfwd of jacrev."
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        return _mapped(_Tangent, info.batch_size, in_dims, args, masks=(3, 7), of_mask=None)


class _Second(torch.autograd.Function):
    """d_out, the arguments of `_Tangent`, of_mask -> gradients of ``(d_out * tangent).sum()``."""

    @staticmethod
    def forward(*args: Any) -> Four:
        return _second(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Four) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> tuple[Any, ...]:
        raise NotImplementedError(THIRD)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> tuple[Any, ...]:
        raise NotImplementedError(THIRD)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        return _mapped(_Second, info.batch_size, in_dims, args, masks=(4, 8), of_mask=args[12])


THIRD = (
    "entmax_attention: third derivatives are not implemented. "
    "Detach what need not be differentiated, or take the third order by finite differences."
)


def _save(ctx: Any, tensors: tuple[Any, ...]) -> None:
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def _wants_mask(ctx: Any, place: int) -> bool:
    """Return whether the mask at this place of the arguments wants a gradient; a boolean one never does."""
    return bool(ctx.needs_input_grad[place])


def _gradients(found: Tensors, of_mask: bool) -> tuple[Any, ...]:
    return *found[:3], found[3] if of_mask else None


def _directions(operands: Any, tangents: Any) -> list[Any]:
    """Return a direction of each operand, zeros where it stands still; none of the mask if that does."""
    found = [
        torch.zeros_like(operand) if tangent is None else tangent
        for operand, tangent in zip(operands[:3], tangents[:3], strict=True)
    ]
    return [*found, tangents[3]]


def _mapped(
    function: Any,
    length: int,
    in_dims: tuple[Any, ...],
    args: tuple[Any, ...],
    *,
    masks: tuple[int, ...],
    of_mask: bool | None,
) -> tuple[Any, Any]:
    """Apply a function with the mapped dimension folded into the batch.

    ``of_mask`` says whether the last of four results is the gradient of the mask; None for a function whose results,
    however many, all lie along the batch of the operands, or are as many times as long.
    """
    batch = next(
        arg.shape[0] if dim is None else arg.movedim(dim, 0).shape[1]
        for place, (arg, dim) in enumerate(zip(args, in_dims, strict=True))
        if isinstance(arg, torch.Tensor) and place not in masks
    )
    folded, of_mask_batch = list(args), 1
    for place, (arg, dim) in enumerate(zip(args, in_dims, strict=True)):
        if not isinstance(arg, torch.Tensor):
            continue
        if place in masks and place == masks[0]:
            of_mask_batch = arg.shape[0] if dim is None else arg.movedim(dim, 0).shape[1]
        if place in masks and dim is None and arg.shape[0] == 1:
            # broadcasts over the folded batch as it did over the batch, without a copy
            folded[place] = arg.expand(length * batch, *arg.shape[1:])
            continue
        wide = arg.expand(length, *arg.shape) if dim is None else arg.movedim(dim, 0)
        if wide.shape[1] != batch:
            wide = wide.expand(length, batch, *wide.shape[2:])
        folded[place] = wide.reshape(length * batch, *wide.shape[2:])
    results = function.apply(*folded)
    if isinstance(results, torch.Tensor):
        return results.unflatten(0, (length, batch)), 0
    if of_mask is None:
        return tuple(result.unflatten(0, (length, result.shape[0] // length)) for result in results), (0,) * len(
            results
        )
    unfolded = [result.unflatten(0, (length, batch)) for result in results[:3]]
    if of_mask is False:
        return (*unfolded, results[3]), (0, 0, 0, None)
    last = results[3].unflatten(0, (length, results[3].shape[0] // length))
    if of_mask and of_mask_batch != batch:
        last = last.sum(1, keepdim=True)
    return (*unfolded, last), (0, 0, 0, 0)
