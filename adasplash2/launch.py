"""In which order do the stages run, and what does each get?  The only file that starts kernels.

A stage is a `Call`: a kernel, its grid and its arguments.  The same calls run on a GPU, run in the interpreter, and are
compiled ahead of time (over tensors without storage) by ``aot``.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import numpy as np
import torch
from triton.runtime.interpreter import InterpretedFunction

from .kernels.backward_dkdv import backward_dkdv_kernel
from .kernels.backward_dq import backward_dq_kernel
from .kernels.block_mask import block_mask_transpose_kernel
from .kernels.delta import delta_kernel
from .kernels.histogram import histogram_kernel
from .kernels.output import output_kernel
from .kernels.refine import refine_kernel
from .kernels.row_max import row_max_kernel
from .problem import MAX_PASSES, POWERS, Problem, block_d
from .state import BackwardState, ForwardState, empty_backward, empty_forward

# Triton decides at import, from TRITON_INTERPRET, whether kernels are compiled or interpreted.
INTERPRETED = isinstance(row_max_kernel, InterpretedFunction)
# Key of the launch table for the kernels that this process starts.
BACKEND = "interpreter" if INTERPRETED else "hip" if torch.version.hip else "cuda"


@dataclasses.dataclass(frozen=True)
class Call:
    """One kernel start: everything but the device."""

    stage: str
    kernel: Any
    programs: int
    num_warps: int
    backend: str
    arguments: dict[str, Any]
    constants: dict[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        """Compiler options.

        Multiplications and additions stay apart: a fused one would round the scores of one stage unlike another's.
        Loops over set bits are not pipelined, so there is one stage.  Left to itself, the CUDA assembler spills a few
        registers to fit one more program on a multiprocessor.
        """
        options = {"num_warps": self.num_warps, "num_stages": 1, "enable_fp_fusion": False}
        return options | {"maxnreg": 255} if self.backend == "cuda" else options

    def run(self) -> None:
        """Start the kernel on the current device; an empty grid does nothing."""
        if self.programs == 0:
            return
        # Rows without a key divide zero by zero before they are set aside; NumPy would warn of it in the interpreter.
        with np.errstate(all="ignore"):
            self.kernel[(self.programs,)](**self.arguments, **self.constants, **self.options)


def operand(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Return a tensor as the kernels take it: any strides, no copy."""
    return (tensor, *tensor.stride())


def forward_calls(
    problem: Problem, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, state: ForwardState
) -> list[Call]:
    """Return the forward stages in their order; they write ``state``."""
    scored = {"query": operand(query), "key": operand(key), "row_max_ptr": state.row_max} | _shape(problem)
    candidates = {"candidates_ptr": state.candidates}
    bracket = {"lo_ptr": state.lo, "hi_ptr": state.hi, "tau_ptr": state.tau}
    refined = {"block_mask_ptr": state.block_mask, "residual_ptr": state.residual, "passes_ptr": state.passes}
    outputs = {"value": operand(value), "out": operand(state.out), "centre": operand(state.centre)}
    constants = _constants(problem)
    masked = {name: constants[name] for name in ("IS_CAUSAL", "BLOCK_M", "BLOCK_N", "BLOCK_D")}
    programs = problem.batch * problem.heads * problem.n_query_blocks
    warps, backend = problem.launch.warps, problem.backend
    return [
        Call("row_max", row_max_kernel, programs, warps, backend, scored | candidates, masked),
        Call("histogram", histogram_kernel, programs, warps, backend, scored | candidates | bracket, constants),
        Call(
            "refine",
            refine_kernel,
            programs,
            warps,
            backend,
            scored | candidates | bracket | refined | {"tolerance": problem.tolerance, "max_passes": MAX_PASSES},
            constants,
        ),
        Call(
            "output",
            output_kernel,
            programs,
            warps,
            backend,
            scored | outputs | {"tau_ptr": state.tau, "block_mask_ptr": state.block_mask, "mass_ptr": state.mass},
            constants,
        ),
    ]


def backward_calls(
    problem: Problem,
    d_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    centre: torch.Tensor,
    row_max: torch.Tensor,
    tau: torch.Tensor,
    block_mask: torch.Tensor,
    state: BackwardState,
) -> list[Call]:
    """Return the backward stages in their order; they read what the forward stages left and write ``state``."""
    shape = _shape(problem)
    rows = {"row_max_ptr": row_max, "tau_ptr": tau, "delta_ptr": state.delta, "scale": problem.scale}
    scored = {"query": operand(query), "key": operand(key), "value": operand(value), "d_out": operand(d_out)} | rows
    delta_shape = {name: shape[name] for name in ("heads", "n_queries", "head_dim")}
    column_shape = {name: shape[name] for name in ("z_scale", "group", "n_queries", "n_keys", "head_dim")}
    n_words, n_transposed_words = problem.mask_shape[2], problem.transposed_shape[2]
    constants = _constants(problem)
    by_query = problem.batch * problem.heads * problem.n_query_blocks
    by_key = problem.batch * problem.kv_heads * problem.n_key_blocks
    warps, backend = problem.launch.backward_warps, problem.backend
    return [
        Call(
            "delta",
            delta_kernel,
            by_query,
            warps,
            backend,
            {"centre": operand(centre), "d_out": operand(d_out), "delta_ptr": state.delta} | delta_shape,
            {name: constants[name] for name in ("BLOCK_M", "BLOCK_D")},
        ),
        Call(
            "backward_dq",
            backward_dq_kernel,
            by_query,
            warps,
            backend,
            scored | shape | {"d_query": operand(state.d_query), "block_mask_ptr": block_mask},
            constants,
        ),
        Call(
            "block_mask",
            block_mask_transpose_kernel,
            problem.batch * problem.heads * n_words * n_transposed_words,
            1,
            backend,
            {
                "block_mask_ptr": block_mask,
                "transposed_ptr": state.transposed,
                "n_query_blocks": problem.n_query_blocks,
                "n_key_blocks": problem.n_key_blocks,
                "n_words": n_words,
                "n_transposed_words": n_transposed_words,
            },
            {},
        ),
        Call(
            "backward_dkdv",
            backward_dkdv_kernel,
            by_key,
            warps,
            backend,
            scored
            | column_shape
            | {"kv_heads": problem.kv_heads, "n_transposed_words": n_transposed_words}
            | {"d_key": operand(state.d_key), "d_value": operand(state.d_value), "transposed_ptr": state.transposed},
            constants,
        ),
    ]


def forward(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, alpha: float, is_causal: bool, scale: float
) -> ForwardState:
    """Run the forward stages; out has the dtype of query."""
    problem = Problem.of(query, key, alpha=alpha, scale=scale, is_causal=is_causal, backend=BACKEND)
    raised = as_operand_dtype(query)
    state = empty_forward(problem, raised)
    with device_of(query):
        for call in forward_calls(problem, raised, as_operand_dtype(key), as_operand_dtype(value), state):
            call.run()
    return dataclasses.replace(state, out=state.out.to(query.dtype))


def backward(
    d_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    centre: torch.Tensor,
    row_max: torch.Tensor,
    tau: torch.Tensor,
    block_mask: torch.Tensor,
    *,
    alpha: float,
    is_causal: bool,
    scale: float,
) -> BackwardState:
    """Run the backward stages on what `forward` left; gradients have the dtype of their operand."""
    problem = Problem.of(query, key, alpha=alpha, scale=scale, is_causal=is_causal, backend=BACKEND)
    raised_query, raised_key, raised_value = as_operand_dtype(query), as_operand_dtype(key), as_operand_dtype(value)
    state = empty_backward(problem, raised_query, raised_key, raised_value)
    left = (centre, row_max, tau, block_mask)
    with device_of(query):
        for call in backward_calls(
            problem, as_operand_dtype(d_out), raised_query, raised_key, raised_value, *left, state
        ):
            call.run()
    return dataclasses.replace(
        state,
        d_query=state.d_query.to(query.dtype),
        d_key=state.d_key.to(key.dtype),
        d_value=state.d_value.to(value.dtype),
    )


def _shape(problem: Problem) -> dict[str, Any]:
    return {
        "z_scale": problem.scale * (problem.alpha - 1.0),
        "heads": problem.heads,
        "group": problem.group,
        "n_queries": problem.n_queries,
        "n_keys": problem.n_keys,
        "head_dim": problem.head_dim,
        "n_words": problem.mask_shape[2],
    }


def _constants(problem: Problem) -> dict[str, Any]:
    return {
        "IS_CAUSAL": problem.is_causal,
        "POWER": POWERS[problem.alpha],
        "BLOCK_M": problem.launch.block_m,
        "BLOCK_N": problem.launch.block_n,
        "BLOCK_D": block_d(problem.head_dim),
    }


def as_operand_dtype(tensor: torch.Tensor) -> torch.Tensor:
    """Raise bfloat16 to float32 under the interpreter, whose bfloat16 arithmetic is silently wrong."""
    return tensor.float() if INTERPRETED and tensor.dtype == torch.bfloat16 else tensor


def device_of(tensor: torch.Tensor) -> contextlib.AbstractContextManager[Any]:
    """Kernels start on the device that holds the tensor, whichever is current."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
