"""What do torch's transforms meet at the kernels?  vmap is folded, tangents are refused, sizes may be symbols."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

_NAME = "refuse_tangents"
# An operator, because only the dispatcher sees the tangents of every level of nested transforms, traced ones included.
_LIBRARY = torch.library.Library("adasplash2", "FRAGMENT")
_LIBRARY.define(f"{_NAME}(Tensor[] operands) -> ()")


def refuse_tangents(*operands: torch.Tensor) -> None:
    """Raise RuntimeError if an operand carries a tangent, which an operator without forward mode would drop."""
    # Only a transform brings tangents, and to ask the dispatcher takes as long as a short kernel.
    if torch.compiler.is_compiling() or under_transform():
        torch.ops.adasplash2.refuse_tangents(operands)


def _refuse(keyset: Any, operands: list[torch.Tensor]) -> None:
    if any(forward_ad.unpack_dual(operand).tangent is not None for operand in operands):
        raise RuntimeError(
            "adasplash2: a forward-mode derivative was asked for (torch.func.jvp, jacfwd or hessian, or "
            "torch.autograd.forward_ad); the fused kernels have reverse mode only. Use torch.func.vjp or jacrev, or "
            "impl='reference'."
        )
    # On to the next level of nested transforms.
    with torch._C._AutoDispatchBelowAutograd():
        overload = torch.ops.adasplash2.refuse_tangents.default
        overload.redispatch(keyset & torch._C._after_autograd_keyset, operands)


def _nothing(operands: list[torch.Tensor]) -> None:
    """There are no tangents below autograd."""


def _refuse_batch(info: Any, in_dims: Any, operands: list[torch.Tensor]) -> tuple[None, None]:
    refuse_tangents(*operands)
    return None, None


_LIBRARY.impl(_NAME, _refuse, "Autograd", with_keyset=True)
# The vmap of is_grads_batched, which falls back on a loop over the operators that return something.
_LIBRARY.impl(_NAME, _nothing, "Batched")
_LIBRARY.impl(_NAME, _nothing, "CompositeExplicitAutograd")
torch.library.register_fake(f"adasplash2::{_NAME}", _nothing, lib=_LIBRARY)
torch.library.register_vmap(f"adasplash2::{_NAME}", _refuse_batch, lib=_LIBRARY)


def fold_vmap(operator: Any) -> None:
    """Let vmap fold its dimension into the first one of every tensor that a custom operator takes and returns."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[tuple[torch.Tensor, ...], Any]:
        return _folded(operator, info.batch_size, in_dims, arguments)

    operator.register_vmap(rule)


def as_function(
    operator: Any, implementation: Callable[..., Any], setup_context: Callable[..., None], backward: Callable[..., Any]
) -> Callable[..., Any]:
    """Return what calls a custom operator so that `torch.func` can differentiate it; arguments as of register_autograd.

    The derivative that an operator registers is out of its reach; that of an autograd.Function is not.
    ``implementation`` is what the operator was made of: a call that nothing but autograd could see goes there, past the
    dispatcher, which takes longer than a short kernel.
    """

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(*arguments: Any) -> Any:
            return operator(*arguments)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
            return _folded(Function.apply, info.batch_size, in_dims, arguments)

    Function.setup_context = staticmethod(setup_context)  # type: ignore[method-assign]
    Function.backward = staticmethod(backward)  # type: ignore[method-assign]

    class Plain(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Any:
            output = implementation(*arguments)
            setup_context(ctx, arguments, output)
            return output

    Plain.backward = staticmethod(backward)  # type: ignore[method-assign]

    def call(*arguments: Any) -> Any:
        if not torch.compiler.is_compiling():
            if _is_plain(arguments):
                # Where nothing is differentiated, a Function is nothing but time of the host.
                watched = torch.is_grad_enabled() and any(getattr(one, "requires_grad", False) for one in arguments)
                return Plain.apply(*arguments) if watched else implementation(*arguments)
            watched = torch.is_grad_enabled() or under_transform()
            return Function.apply(*arguments) if watched else operator(*arguments)
        # A graph holds the operator, whose own derivative is enough there, and breaks where torch.func differentiates.
        return apply_outside_graphs(Function, *arguments) if _under_grad() else operator(*arguments)

    return call


def differentiable(
    operator: Any, implementation: Callable[..., Any], setup_context: Callable[..., None], backward: Callable[..., Any]
) -> Callable[..., Any]:
    """Give a custom operator its derivative and its rule for vmap, and return `as_function` of it."""
    operator.register_autograd(backward, setup_context=setup_context)
    fold_vmap(operator)
    return as_function(operator, implementation, setup_context, backward)


def last_derivative(operator: Any, implementation: Callable[..., Any], complaint: str) -> Callable[..., Any]:
    """Return `differentiable` of an operator that has no derivative: one that is asked for raises RuntimeError."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
        """Nothing is kept for a derivative that does not exist."""

    def backward(ctx: Any, *_: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        raise RuntimeError(complaint)

    return differentiable(operator, implementation, setup_context, backward)


def only_first_differentiable(ctx: Any, output: tuple[torch.Tensor, ...]) -> None:
    """Tell autograd, in setup_context, that only the first result has a gradient.

    Zeros would be made and passed for the others, and for the first where its gradient is not needed: it is None then.
    """
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def under_transform() -> bool:
    """Return whether `torch.func` or a level of forward mode is at work."""
    return forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None


def _is_plain(arguments: tuple[Any, ...]) -> bool:
    """Return whether the dispatcher would pass a call on to its implementation, by way of autograd at most."""
    if torch._C._len_torch_dispatch_stack() or torch._C._is_tracing() or under_transform():
        return False
    for argument in arguments:
        kind = type(argument)
        if kind is torch.Tensor or kind is torch.nn.Parameter:
            # What else would be looked at: batches of any kind, a pending negation, functionalization, a subclass.
            if argument.is_meta or torch._C._dispatch_keys(argument).raw_repr() & ~_plain_keys(argument.device):
                return False
        elif isinstance(argument, torch.Tensor):
            return False
    return True


@functools.cache
def _plain_keys(device: torch.device) -> int:
    """Return the dispatch keys, as bits, of a tensor that is memory and nothing else."""
    keys: int = torch._C._dispatch_keys(torch.empty(0, device=device)).raw_repr()
    return keys


def _under_grad() -> bool:
    levels = torch._C._functorch.get_interpreter_stack() or ()
    return any(level.key() == torch._C._functorch.TransformType.Grad for level in levels)


@torch._compile._disable_dynamo
def apply_outside_graphs(function: Any, *arguments: Any) -> Any:
    """Apply a function of autograd whose rule for vmap or forward mode Dynamo does not take."""
    return function.apply(*arguments)


# What torch.compiler.assume_constant_result does, and torch.compiler.disable above, without importing Dynamo, which
# takes a second, along with this package.
under_transform._dynamo_marked_constant = True  # type: ignore[attr-defined]
_under_grad._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _folded(
    function: Callable[..., Any], size: int, in_dims: tuple[int | None, ...], arguments: tuple[Any, ...]
) -> tuple[tuple[torch.Tensor, ...], tuple[int, ...]]:
    folded = (
        _fold(argument, dim, size) if isinstance(argument, torch.Tensor) else argument
        for argument, dim in zip(arguments, in_dims, strict=True)
    )
    results = function(*folded)
    return tuple(result.unflatten(0, (size, result.shape[0] // size)) for result in results), (0,) * len(results)


def _fold(tensor: torch.Tensor, dim: int | None, size: int) -> torch.Tensor:
    tensor = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    # A view would do for query, key and value, but the kernels know no strides of what is saved of each row.
    return tensor.flatten(0, 1).contiguous()


def as_bytes(words: torch.Tensor) -> torch.Tensor:
    """Return int32 words as one dimension of uint8, on the same memory.

    Tracing tells sizes of 1 from others.  The number of words along a side may be 1 at one length and not at another,
    which would tie a graph to the lengths it was traced with; four times a number of words never is.
    """
    return words.flatten().view(torch.uint8)


def empty_bytes(like: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return memory for `as_bytes` of int32 words of this shape."""
    return like.new_empty(4 * math.prod(shape), dtype=torch.uint8)


def as_words(bytes_: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return what `as_bytes` was given; ``shape`` is the shape that it had."""
    return bytes_.view(torch.int32).view(shape)
