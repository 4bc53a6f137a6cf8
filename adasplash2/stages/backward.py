"""Which stages find the gradients?"""

from __future__ import annotations

from typing import Any

import torch

from adasplash2.kernels.backward_alpha import backward_alpha_kernel
from adasplash2.kernels.backward_dkdv import backward_dkdv_kernel
from adasplash2.kernels.backward_dkdv_sum import backward_dkdv_sum_kernel
from adasplash2.kernels.backward_dq import backward_dq_kernel
from adasplash2.kernels.block_mask_transpose import block_mask_transpose_kernel
from adasplash2.kernels.column_segments import column_segments_kernel
from adasplash2.problem import Problem
from adasplash2.starts import Call
from adasplash2.state import BackwardState, Support

from .arguments import (
    INDICES,
    SMALL,
    key_gradients_of,
    key_shape_of,
    lists_of,
    operand,
    ranges_of,
    shape_of,
    tile_of,
    width_of,
)
from .backward_keys import backward_calls_by_keys
from .block_lists import block_lists, kept_lists


def backward_calls(
    problem: Problem,
    d_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    base: torch.Tensor,
    rest: torch.Tensor,
    block_mask: torch.Tensor,
    support: Support,
    state: BackwardState,
    ranges: torch.Tensor | None = None,
    alphas: torch.Tensor | None = None,
) -> list[Call]:
    """Return the backward stages in their order; they read what the forward stages left and write ``state``."""
    launch, backend = problem.launch, problem.backend
    shape = shape_of(problem)
    constants = tile_of(problem) | {"POWER": problem.power, "BY_KEYS": problem.by_keys}
    scored: dict[str, Any] = {"query": operand(query), "key": operand(key), "value": operand(value)}
    scored["d_out"] = operand(d_out)
    scored |= {"base_ptr": base, "rest_ptr": rest, "delta_ptr": state.delta, "scale": problem.scale}
    scored |= {"alphas_ptr": alphas}
    of_queries = {"out": operand(out), "d_query": operand(state.d_query)}
    d_alpha = {"d_alpha_ptr": state.d_alpha if state.d_alpha.numel() else None}
    listed = ranges_of(ranges) | lists_of(state.kept) | {"counts_ptr": support.counts, "used_ptr": support.used}
    listed |= {"support_capacity": problem.support_capacity, "row_pairs": problem.row_pairs}
    heads = problem.batch * problem.heads
    is_split = problem.n_segments > 0
    n_words, n_transposed_words = problem.mask_shape[2], problem.transposed_shape[2]
    of_alpha = []
    if state.d_alpha.numel():
        unscaled = {name: argument for name, argument in scored.items() if name != "scale"}
        of_alpha.append(
            Call(
                "backward_alpha",
                backward_alpha_kernel,
                heads * problem.n_query_blocks,
                launch.backward_dq,
                backend,
                unscaled | shape | listed | d_alpha,
                constants,
            )
        )
    return [
        kept_lists(problem, block_mask, state.kept, ranges),
        Call(
            "backward_dq",
            backward_dq_kernel,
            heads * problem.n_query_blocks,
            launch.backward_dq,
            backend,
            scored | shape | listed | of_queries,
            constants,
        ),
        *of_alpha,
        Call(
            "block_mask_transpose",
            block_mask_transpose_kernel,
            heads * n_words * n_transposed_words,
            SMALL,
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
        block_lists(problem, state.transposed, state.keeping, ranges, by_keys=True),
        *(
            backward_calls_by_keys(problem, scored, of_queries | d_alpha, support, state, ranges)
            if problem.by_keys
            else ()
        ),
        *([_segments_call(problem, state)] if is_split else ()),
        Call(
            "backward_dkdv",
            backward_dkdv_kernel,
            problem.batch * problem.kv_heads * (problem.n_key_blocks + problem.n_segments),
            launch.backward_dkdv,
            backend,
            scored
            | key_shape_of(problem)
            | ranges_of(ranges)
            | lists_of(state.keeping)
            | _segments_of(problem, state)
            | {"paths_ptr": state.column_paths, "split_ptr": state.split, "split_tiles": problem.split_tiles},
            constants | {"IS_WHOLE": problem.n_queries % launch.block_m == 0},
        ),
        *([_sum_call(problem, state)] if is_split else ()),
    ]


def _segments_of(problem: Problem, state: BackwardState) -> dict[str, Any]:
    """Return the gradients of keys and values, and the segments of those that are split."""
    partial = {"partial_ptr": state.partial if problem.n_segments else None}
    segments = {"segments_ptr": state.segments, "segment_capacity": problem.n_segments}
    return key_gradients_of(state) | segments | partial


def _segments_call(problem: Problem, state: BackwardState) -> Call:
    """Return the stage that shares out the tiles of long blocks of keys."""
    return Call(
        "column_segments",
        column_segments_kernel,
        problem.batch * problem.kv_heads,
        INDICES,
        problem.backend,
        {"numbers_ptr": state.keeping.numbers, "paths_ptr": state.column_paths, "split_ptr": state.split}
        | {"segments_ptr": state.segments, "group": problem.group, "n_blocks": problem.n_key_blocks}
        | {"capacity": problem.n_segments, "split_tiles": problem.split_tiles},
        {"BY_KEYS": problem.by_keys},
    )


def _sum_call(problem: Problem, state: BackwardState) -> Call:
    """Return the stage that adds up their segments."""
    return Call(
        "backward_dkdv_sum",
        backward_dkdv_sum_kernel,
        problem.batch * problem.kv_heads * problem.n_segments,
        INDICES,
        problem.backend,
        _segments_of(problem, state) | {"scale": problem.scale, "kv_heads": problem.kv_heads, "n_keys": problem.n_keys},
        {"BLOCK_N": problem.launch.block_n} | width_of(problem),
    )
