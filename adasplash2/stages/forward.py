"""Which stages find the output?"""

from __future__ import annotations

import torch

from adasplash2.kernels.dense import dense_kernel
from adasplash2.kernels.histogram import histogram_kernel
from adasplash2.kernels.output import output_kernel
from adasplash2.kernels.refine import refine_kernel
from adasplash2.orders import MAX_PASSES
from adasplash2.problem import Problem
from adasplash2.starts import Call
from adasplash2.state import ForwardState

from .arguments import launch_of, lists_of, operand, ranges_of, shape_of, tile_of
from .block_lists import kept_lists
from .forward_keys import forward_calls_by_keys


def forward_calls(
    problem: Problem,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    state: ForwardState,
    ranges: torch.Tensor | None = None,
    alphas: torch.Tensor | None = None,
) -> list[Call]:
    """Return the forward stages in their order; they write ``state``.  The scale must not be negative (`signed`).

    ``alphas``, float32 (batch, heads), contiguous, are there if ``problem.power`` is 0.
    """
    launch, backend = launch_of(problem, ranges), problem.backend
    shape, tile = shape_of(problem), tile_of(problem)
    power, order = {"POWER": problem.power}, {"alphas_ptr": alphas}
    scored = {"query": operand(query), "key": operand(key)} | shape | order
    seen = scored | ranges_of(ranges)
    pair = {"base_ptr": state.base, "rest_ptr": state.rest}
    bracket = {"lo_ptr": state.tile_lo, "hi_ptr": state.hi, "tau_ptr": state.first_tau}
    paths = {"paths_ptr": state.candidates.numbers}
    dense_tile = tile | {"BLOCK_M": launch.dense_m, "BLOCK_N": launch.dense_n}
    heads = problem.batch * problem.heads
    programs = heads * problem.n_query_blocks
    return [
        Call(
            "dense",
            dense_kernel,
            heads * problem.candidate_shape[1],
            launch.dense,
            backend,
            seen | {"row_max_ptr": state.row_max, "lo_ptr": state.lo} | lists_of(state.candidates),
            dense_tile | power | {"BY_KEYS": problem.by_keys},
        ),
        *(forward_calls_by_keys(problem, scored, value, state, ranges) if problem.by_keys else ()),
        Call(
            "histogram",
            histogram_kernel,
            programs,
            launch.histogram,
            backend,
            seen
            | bracket
            | lists_of(state.candidates)
            | {"row_max_ptr": state.row_max, "block_mask_ptr": state.block_mask, "n_words": problem.mask_shape[2]},
            tile | power | {"TILE_M": launch.dense_m, "TILE_N": launch.dense_n},
        ),
        kept_lists(problem, state.block_mask, state.kept, ranges),
        Call(
            "refine",
            refine_kernel,
            programs,
            launch.refine,
            backend,
            seen
            | pair
            | bracket
            | lists_of(state.kept)
            | paths
            | {"row_max_ptr": state.row_max, "residual_ptr": state.residual, "passes_ptr": state.passes}
            | {"tolerance": problem.tolerance, "max_passes": MAX_PASSES},
            tile | power | {"TILE_M": launch.dense_m},
        ),
        Call(
            "output",
            output_kernel,
            programs,
            launch.output,
            backend,
            seen
            | pair
            | lists_of(state.kept)
            | paths
            | {"value": operand(value), "out": operand(state.out), "mass_ptr": state.mass}
            | {"row_counts_ptr": state.support.counts},
            tile | power | {"TILE_M": launch.dense_m, "BY_KEYS": problem.by_keys},
        ),
    ]
