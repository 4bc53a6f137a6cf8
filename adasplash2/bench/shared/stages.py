"""How does the benchmark reach the kernel stages?  The only file here that knows how `adasplash2.stages` are called."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from adasplash2 import launch
from adasplash2.launch_table import Launch, arch_of, block_d, choose_launch
from adasplash2.orders import alphas_of
from adasplash2.problem import Problem
from adasplash2.stages import backward_calls, forward_calls
from adasplash2.starts import Call
from adasplash2.state import BackwardState, ForwardState, empty_backward, empty_forward
from adasplash2.workloads import Workload


def problem_of(load: Workload, alpha: float, row: Launch | None = None) -> Problem:
    """Return the problem of a workload, under another row of the launch table if one is given."""
    scale = load.query.shape[-1] ** -0.5
    problem = Problem.of(
        load.query, load.key, alpha=alpha, scale=scale, is_causal=load.is_causal, backend=launch.BACKEND
    )
    return problem if row is None else problem.under(row)


def launch_row(dtype: torch.dtype, head_dim: int) -> Launch:
    """Return the row of the launch table that calls of this kind use."""
    return choose_launch(launch.BACKEND, dtype, head_dim, _arch())


def launch_key(dtype: torch.dtype, head_dim: int) -> tuple[str, int, int]:
    """Return the key of that row."""
    return _arch() or launch.BACKEND, dtype.itemsize, block_d(head_dim)


def _arch() -> str:
    return arch_of(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _operands(load: Workload) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return tuple(launch.as_operand(part) for part in (load.query, load.key, load.value))  # type: ignore[return-value]


def forward_stages(
    load: Workload, alpha: float, row: Launch | None = None
) -> Callable[[], tuple[list[Call], ForwardState]]:
    """Return what makes the forward stages over fresh memory, and that memory."""
    problem, operands = problem_of(load, alpha, row), _operands(load)

    def prepare() -> tuple[list[Call], ForwardState]:
        state = empty_forward(problem, operands[0])
        return forward_calls(problem, *operands, state, None, alphas_of(alpha, operands[0])), state

    return prepare


def backward_stages(
    load: Workload, d_out: torch.Tensor, alpha: float, row: Launch | None = None
) -> Callable[[], list[Call]]:
    """Run the forward stages once, and return what makes the backward stages over fresh memory."""
    problem, operands = problem_of(load, alpha, row), _operands(load)
    calls, left = forward_stages(load, alpha, row)()
    for call in calls:
        call.run()
    rows, support = (left.out, left.base, left.rest, left.block_mask), left.support
    d_out = launch.as_operand(d_out)

    def prepare() -> list[Call]:
        state, alphas = empty_backward(problem, *operands), alphas_of(alpha, operands[0])
        return backward_calls(problem, d_out, *operands, *rows, support, state, None, alphas)

    return prepare


def whole_step(
    load: Workload, d_out: torch.Tensor, alpha: float, **fields: int
) -> Callable[[], tuple[Problem, ForwardState, BackwardState]]:
    """Return what runs forward and backward as a call does, under a problem of which fields are replaced."""
    problem = dataclasses.replace(problem_of(load, alpha), **fields)  # type: ignore[arg-type]
    operands, alphas, grad = _operands(load), alphas_of(alpha, load.query), launch.as_operand(d_out)

    def run() -> tuple[Problem, ForwardState, BackwardState]:
        state = launch.run_forward(problem, (problem,), *operands, None, alphas)
        left = state.out, state.base, state.rest, state.block_mask
        after = launch.run_backward(problem, (problem,), grad, *operands, *left, state.support, None, alphas)
        return problem, state, after

    return run


def random_like(tensor: torch.Tensor, seed: int) -> torch.Tensor:
    """Return N(0, 1) in the shape, dtype and place of a tensor, the same for a seed."""
    generator = torch.Generator(device=tensor.device).manual_seed(seed)
    return torch.randn(tensor.shape, generator=generator, device=tensor.device).to(tensor.dtype)
