"""How are the stages run on tensors: which backend, which layouts, and which memory?"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Any

import torch
from triton.runtime.interpreter import InterpretedFunction

from . import starts
from .kernels.dense import dense_kernel
from .launch_table import block_d
from .problem import Problem
from .stages import backward_calls, forward_calls
from .starts import Call
from .state import BackwardState, ForwardState, Support, empty_backward, empty_forward, tensors_of

# Triton decides at import, from TRITON_INTERPRET, whether kernels are compiled or interpreted.
INTERPRETED = isinstance(dense_kernel, InterpretedFunction)
# Key of the launch table for the kernels that this process starts.
BACKEND = "interpreter" if INTERPRETED else "hip" if torch.version.hip else "cuda"
# Queries or keys of a tile, at most.
MOST_TILE_ROWS = 128


def forward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ranges: torch.Tensor | None = None,
    alphas: torch.Tensor | None = None,
    *,
    alpha: float,
    is_causal: bool,
    scale: float,
) -> ForwardState:
    """Run the forward stages; out has the dtype of query.

    ``ranges`` stand in the place of ``is_causal``, and ``alphas``, float32 (batch, heads), in that of ``alpha``.
    """
    problem = Problem.of(query, key, alpha=alpha, scale=abs(scale), is_causal=is_causal, backend=BACKEND)
    operands = signed(as_operand(query), scale), as_operand(key), as_operand(value)
    state = run_forward(problem, _numbers(problem), *operands, _as_read(ranges), alphas)
    return dataclasses.replace(state, out=state.out.to(query.dtype))


def run_forward(
    problem: Problem,
    numbers: tuple[Hashable, ...],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ranges: torch.Tensor | None,
    alphas: torch.Tensor | None,
) -> ForwardState:
    """Run the forward stages of a problem on operands that kernels can read (`as_operand`, `signed`).

    ``numbers`` decide the problem, with the layouts of the operands.
    """
    state = empty_forward(problem, query)

    def calls_of(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *besides: torch.Tensor) -> list[Call]:
        return forward_calls(problem, query, key, value, state, *besides)

    starts.run(("forward", *numbers), (query, key, value, ranges, alphas), tensors_of(state), calls_of)
    return state


def backward(
    d_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    base: torch.Tensor,
    rest: torch.Tensor,
    block_mask: torch.Tensor,
    support: Support,
    ranges: torch.Tensor | None = None,
    alphas: torch.Tensor | None = None,
    *,
    alpha: float,
    is_causal: bool,
    scale: float,
    of_alpha: bool = False,
) -> BackwardState:
    """Run the backward stages on what `forward` left; gradients have the dtype of their operand."""
    problem = Problem.of(query, key, alpha=alpha, scale=abs(scale), is_causal=is_causal, backend=BACKEND)
    operands = signed(as_operand(query), scale), as_operand(key), as_operand(value)
    left = as_operand(out), base, rest, block_mask
    state = run_backward(
        problem,
        _numbers(problem),
        as_operand(d_out),
        *operands,
        *left,
        support,
        _as_read(ranges),
        alphas,
        of_alpha=of_alpha,
    )
    return dataclasses.replace(
        state,
        d_query=signed(state.d_query, scale).to(query.dtype),
        d_key=state.d_key.to(key.dtype),
        d_value=state.d_value.to(value.dtype),
    )


def run_backward(
    problem: Problem,
    numbers: tuple[Hashable, ...],
    d_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    base: torch.Tensor,
    rest: torch.Tensor,
    block_mask: torch.Tensor,
    support: Support,
    ranges: torch.Tensor | None,
    alphas: torch.Tensor | None,
    *,
    of_alpha: bool = False,
) -> BackwardState:
    """Run the backward stages of a problem on what `run_forward` was given and left."""
    state = empty_backward(problem, query, key, value, of_alpha=of_alpha)
    parts = tensors_of(support)
    given = (d_out, query, key, value, out, base, rest, block_mask, *parts, ranges, alphas)

    def calls_of(d_out: torch.Tensor, *given: torch.Tensor) -> list[Call]:
        query, key, value, out, base, rest, mask, *others = given
        support = Support(*others[: len(parts)])
        besides = others[len(parts) :]
        return backward_calls(problem, d_out, query, key, value, out, base, rest, mask, support, state, *besides)

    starts.run(("backward", of_alpha, *numbers), given, tensors_of(state), calls_of)
    return state


def _as_read(ranges: torch.Tensor | None) -> torch.Tensor | None:
    """Return ranges with those of an item one behind the other, as kernels read them."""
    return ranges if ranges is None or ranges.stride()[1:] == (2, 1) else ranges.contiguous()


def _numbers(problem: Problem) -> tuple[Any, ...]:
    """Return what decides the stages besides the operands."""
    return problem.alpha, problem.scale, problem.is_causal


def as_operand(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that the kernels can read.

    Offsets within a tile are 32 bit: only a layout in which neighbours lie millions of numbers apart has to be copied.
    The interpreter gets float32 for bfloat16, whose arithmetic it does silently wrong.
    """
    _, _, stride_row, stride_dim = tensor.stride()
    spans_far = MOST_TILE_ROWS * stride_row + block_d(tensor.shape[-1]) * stride_dim >= 2**31
    tensor = tensor.contiguous() if spans_far else tensor
    return tensor.float() if INTERPRETED and tensor.dtype == torch.bfloat16 else tensor


def signed(tensor: torch.Tensor, scale: float) -> torch.Tensor:
    """Return queries, or their gradient, with the sign of the scale.

    The kernels take the largest product for the largest score.
    """
    return -tensor if scale < 0.0 else tensor
