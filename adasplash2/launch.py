"""In which order do the stages run, and what does each get?

A stage is a `starts.Call`: a kernel, its grid and its arguments.  The same calls run on a GPU, run in the interpreter,
and are compiled ahead of time (over tensors without storage) by ``aot``.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from triton.runtime.interpreter import InterpretedFunction

from . import starts
from .kernels.backward_alpha import backward_alpha_kernel
from .kernels.backward_dkdv import backward_dkdv_kernel
from .kernels.backward_dkdv_keys import backward_dkdv_keys_kernel
from .kernels.backward_dkdv_sum import backward_dkdv_sum_kernel
from .kernels.backward_dq import backward_dq_kernel
from .kernels.backward_dq_keys import backward_dq_keys_kernel
from .kernels.block_list import block_list_kernel
from .kernels.block_mask_transpose import block_mask_transpose_kernel
from .kernels.collect import collect_kernel
from .kernels.column_counts import column_counts_kernel
from .kernels.column_order import column_order_kernel
from .kernels.column_paths import column_paths_kernel
from .kernels.column_segments import column_segments_kernel
from .kernels.column_starts import column_starts_kernel
from .kernels.column_worth import column_worth_kernel
from .kernels.columns import columns_kernel
from .kernels.dense import dense_kernel
from .kernels.histogram import histogram_kernel
from .kernels.output import output_kernel
from .kernels.refine import refine_kernel
from .kernels.score_keys import score_keys_kernel
from .kernels.solve import solve_kernel
from .kernels.solve_wide import solve_wide_kernel
from .problem import (
    KEYS_AT_ONCE,
    MAX_PASSES,
    MIXED_PARTS,
    ROW_KEYS,
    SOLVE_ROWS,
    START_KEYS,
    TURNED_ROWS,
    WIDE_PROGRAMS,
    WIDE_ROW_KEYS,
    Launch,
    Problem,
    Program,
    block_d,
    ceil_div,
)
from .starts import Call
from .state import BackwardState, ForwardState, Lists, Support, empty_backward, empty_forward, tensors_of

# Triton decides at import, from TRITON_INTERPRET, whether kernels are compiled or interpreted.
INTERPRETED = isinstance(dense_kernel, InterpretedFunction)
# Key of the launch table for the kernels that this process starts.
BACKEND = "interpreter" if INTERPRETED else "hip" if torch.version.hip else "cuda"
# Queries or keys of a tile, at most.
MOST_TILE_ROWS = 128
# Stages that only turn bits over, those that handle indices, and the one that sorts lists of them.
_SMALL = Program(1, 1)
_INDICES = Program(4, 1)
_LISTS = Program(2, 1)


def operand(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Return a tensor as the kernels take it: any strides, no copy."""
    return (tensor, *tensor.stride())


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
    launch, backend = _launch(problem, ranges), problem.backend
    shape, tile = _shape(problem), _tile(problem)
    power, order = {"POWER": problem.power}, {"alphas_ptr": alphas}
    scored = {"query": operand(query), "key": operand(key)} | shape | order
    seen = scored | _ranges(ranges)
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
            seen | {"row_max_ptr": state.row_max, "lo_ptr": state.lo} | _lists(state.candidates),
            dense_tile | power | {"BY_KEYS": problem.by_keys},
        ),
        *(_calls_by_keys(problem, scored, value, state, ranges) if problem.by_keys else ()),
        Call(
            "histogram",
            histogram_kernel,
            programs,
            launch.histogram,
            backend,
            seen
            | bracket
            | _lists(state.candidates)
            | {"row_max_ptr": state.row_max, "block_mask_ptr": state.block_mask, "n_words": problem.mask_shape[2]},
            tile | power | {"TILE_M": launch.dense_m, "TILE_N": launch.dense_n},
        ),
        _kept_lists(problem, state.block_mask, state.kept, ranges),
        Call(
            "refine",
            refine_kernel,
            programs,
            launch.refine,
            backend,
            seen
            | pair
            | bracket
            | _lists(state.kept)
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
            | _lists(state.kept)
            | paths
            | {"value": operand(value), "out": operand(state.out), "mass_ptr": state.mass}
            | {"row_counts_ptr": state.support.counts},
            tile | power | {"TILE_M": launch.dense_m, "BY_KEYS": problem.by_keys},
        ),
    ]


def _calls_by_keys(
    problem: Problem, scored: dict[str, Any], value: torch.Tensor, state: ForwardState, ranges: torch.Tensor | None
) -> list[Call]:
    """Return the stages that work on single keys, once for each part of the queries that share their scratch."""
    launch, backend, tile = _launch(problem, ranges), problem.backend, _tile(problem)
    keys = {"KEYS": min(32, launch.dense_n)}
    scratch = {"entries_ptr": state.entries, "counts_ptr": state.counts, "row_places": problem.row_places}
    n_live, n_wide = {"n_live_ptr": state.n_live}, {"n_wide_ptr": state.n_wide}
    numbers = {"numbers_ptr": state.candidates.numbers}
    n_unsolved = {"n_unsolved_ptr": state.n_unsolved}
    unsolved = {"unsolved_ptr": state.unsolved} | n_unsolved
    rows: dict[str, Any] = {"lo_ptr": state.lo, "base_ptr": state.base, "rest_ptr": state.rest, "mass_ptr": state.mass}
    rows |= {"residual_ptr": state.residual, "passes_ptr": state.passes, "block_mask_ptr": state.block_mask}
    rows |= {"support_ptr": state.support.pool, "starts_ptr": state.support.starts, "used_ptr": state.support.used}
    rows |= {"row_counts_ptr": state.support.counts, "support_capacity": problem.support_capacity}
    rows |= {"value": operand(value), "out": operand(state.out), "n_words": problem.mask_shape[2]}
    by_row = {"ROWS": SOLVE_ROWS, "AT_ONCE": KEYS_AT_ONCE, "TILE_M": launch.dense_m}
    width = {name: tile[name] for name in ("BLOCK_D", "HEAD_DIM")}
    solved = by_row | {name: tile[name] for name in ("BLOCK_M", "BLOCK_N")} | width | {"POWER": problem.power}
    unscored = {name: scored[name] for name in ("alphas_ptr", "z_scale", "heads", "group", "n_queries")}
    counted = {name: scored[name] for name in ("query", "key", "heads", "group", "n_queries", "n_keys")}
    calls, of_head = [], problem.candidate_shape[1]
    for first in range(0, problem.n_tiles, problem.tiles_at_once):
        now = min(problem.tiles_at_once, problem.n_tiles - first)
        parts = now * ceil_div(launch.dense_m, SOLVE_ROWS)
        some = scratch | {"first_tile": first, "n_part_heads": now // of_head if problem.in_whole_heads else 1}
        calls += [
            Call(
                "collect",
                collect_kernel,
                now,
                launch.collect,
                backend,
                scored
                | some
                | _ranges(ranges)
                | {"lo_ptr": state.lo, "entry_capacity": problem.row_entries}
                | n_wide
                | n_unsolved
                | _lists(state.candidates),
                tile
                | keys
                | {"POWER": problem.power}
                | {"BLOCK_M": launch.dense_m, "BLOCK_N": launch.dense_n, "SHARED_WORDS": problem.shared_words},
            ),
            Call(
                "score_keys",
                score_keys_kernel,
                parts,
                launch.score_keys,
                backend,
                counted | some | n_live | n_wide | numbers,
                width | by_row | keys | {"ROW_KEYS": ROW_KEYS},
            ),
            Call(
                "solve",
                solve_kernel,
                parts,
                launch.solve,
                backend,
                unscored | some | n_live | n_wide | {"most_wide": problem.most_wide} | unsolved | numbers | rows,
                solved | {"ROW_KEYS": ROW_KEYS},
            ),
            Call(
                "solve_wide",
                solve_wide_kernel,
                min(parts, WIDE_PROGRAMS),
                launch.solve_wide,
                backend,
                scored | some | unsolved | numbers | rows,
                solved | keys | {"ROW_KEYS": WIDE_ROW_KEYS},
            ),
        ]
    return calls


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
    shape = _shape(problem)
    constants = _tile(problem) | {"POWER": problem.power, "BY_KEYS": problem.by_keys}
    scored: dict[str, Any] = {"query": operand(query), "key": operand(key), "value": operand(value)}
    scored["d_out"] = operand(d_out)
    scored |= {"base_ptr": base, "rest_ptr": rest, "delta_ptr": state.delta, "scale": problem.scale}
    scored |= {"alphas_ptr": alphas}
    of_queries = {"out": operand(out), "d_query": operand(state.d_query)}
    d_alpha = {"d_alpha_ptr": state.d_alpha if state.d_alpha.numel() else None}
    listed = _ranges(ranges) | _lists(state.kept) | {"counts_ptr": support.counts, "used_ptr": support.used}
    listed |= {"support_capacity": problem.support_capacity, "row_pairs": problem.row_pairs}
    by_key = {name: shape[name] for name in shape if name != "heads"} | {"kv_heads": problem.kv_heads}
    heads = problem.batch * problem.heads
    gradients = {"d_key": operand(state.d_key), "d_value": operand(state.d_value)}
    segments = {"segments_ptr": state.segments, "segment_capacity": problem.n_segments}
    segments["partial_ptr"] = state.partial if problem.n_segments else None
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
        _kept_lists(problem, block_mask, state.kept, ranges),
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
            _SMALL,
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
        _block_lists(problem, state.transposed, state.keeping, ranges, by_keys=True),
        *(
            _backward_calls_by_keys(problem, scored, of_queries | d_alpha, support, state, ranges)
            if problem.by_keys
            else ()
        ),
        *([_segments_call(problem, state)] if problem.n_segments else []),
        Call(
            "backward_dkdv",
            backward_dkdv_kernel,
            problem.batch * problem.kv_heads * (problem.n_key_blocks + problem.n_segments),
            launch.backward_dkdv,
            backend,
            scored
            | by_key
            | _ranges(ranges)
            | _lists(state.keeping)
            | gradients
            | segments
            | {"paths_ptr": state.column_paths, "split_ptr": state.split, "split_tiles": problem.split_tiles},
            constants | {"IS_WHOLE": problem.n_queries % launch.block_m == 0},
        ),
        *(
            [
                Call(
                    "backward_dkdv_sum",
                    backward_dkdv_sum_kernel,
                    problem.batch * problem.kv_heads * problem.n_segments,
                    _INDICES,
                    backend,
                    gradients
                    | segments
                    | {"scale": problem.scale, "kv_heads": problem.kv_heads, "n_keys": problem.n_keys},
                    {name: constants[name] for name in ("BLOCK_N", "BLOCK_D", "HEAD_DIM")},
                )
            ]
            if problem.n_segments
            else []
        ),
    ]


def _segments_call(problem: Problem, state: BackwardState) -> Call:
    return Call(
        "column_segments",
        column_segments_kernel,
        problem.batch * problem.kv_heads,
        _INDICES,
        problem.backend,
        {"numbers_ptr": state.keeping.numbers, "paths_ptr": state.column_paths, "split_ptr": state.split}
        | {"segments_ptr": state.segments, "group": problem.group, "n_blocks": problem.n_key_blocks}
        | {"capacity": problem.n_segments, "split_tiles": problem.split_tiles},
        {"BY_KEYS": problem.by_keys},
    )


def _backward_calls_by_keys(
    problem: Problem,
    scored: dict[str, Any],
    of_queries: dict[str, Any],
    support: Support,
    state: BackwardState,
    ranges: torch.Tensor | None,
) -> list[Call]:
    """Return the backward stages that work on single keys and single queries."""
    launch, backend, shape, tile = problem.launch, problem.backend, _shape(problem), _tile(problem)
    heads, kv_heads = problem.batch * problem.heads, problem.batch * problem.kv_heads
    turned, turned_rows = heads * ceil_div(problem.n_queries, TURNED_ROWS), {"ROWS": TURNED_ROWS}
    power = {"POWER": problem.power, "ROWS": SOLVE_ROWS}
    width = {name: tile[name] for name in ("BLOCK_D", "HEAD_DIM")}
    block_n = {"BLOCK_N": launch.block_n}
    sizes = {name: shape[name] for name in ("heads", "group", "n_queries", "n_keys")}
    capacity = {"capacity": problem.support_capacity}
    rows = {"support_ptr": support.pool, "starts_ptr": support.starts}
    rows |= {"counts_ptr": support.counts}
    turned_heads = {"turned_ptr": state.turned}
    rows_of_turned, rows = rows | turned_heads, rows | {"used_ptr": support.used}
    counts, ends = {"column_counts_ptr": state.column_counts}, {"column_ends_ptr": state.column_ends}
    paths, columns = {"paths_ptr": state.column_paths}, {"columns_ptr": state.columns}
    pairs = {"block_pairs_ptr": state.block_pairs}
    unlisted = {"unlisted_ptr": state.unlisted, "n_unlisted_ptr": state.n_unlisted}
    n_columns = {name: sizes[name] for name in ("heads", "group", "n_keys")}
    by_key = {name: shape[name] for name in shape if name != "heads"} | {"kv_heads": problem.kv_heads}
    return [
        Call(
            "backward_dq_keys",
            backward_dq_keys_kernel,
            heads * ceil_div(problem.n_queries, SOLVE_ROWS),
            launch.backward_dq_keys,
            backend,
            scored
            | shape
            | rows
            | capacity
            | of_queries
            | {"numbers_ptr": state.kept.numbers, "row_pairs": problem.row_pairs},
            width | power | {"BLOCK_M": launch.block_m},
        ),
        Call(
            "column_counts",
            column_counts_kernel,
            turned,
            _INDICES,
            backend,
            rows | counts | capacity | {name: sizes[name] for name in ("heads", "n_queries", "n_keys")},
            turned_rows,
        ),
        Call(
            "column_paths",
            column_paths_kernel,
            kv_heads * problem.n_key_blocks,
            _SMALL,
            backend,
            {"lists_ptr": state.keeping.places, "numbers_ptr": state.keeping.numbers}
            | {"list_capacity": state.keeping.places.shape[2], "kv_heads": problem.kv_heads}
            | {"counts_ptr": support.counts, "used_ptr": support.used}
            | {name: sizes[name] for name in ("group", "n_queries", "n_keys")}
            | {"column_rows": problem.column_rows, "column_pairs": problem.column_pairs}
            | counts
            | pairs
            | unlisted
            | paths
            | capacity,
            {"BLOCK_M": launch.block_m} | block_n,
        ),
        Call(
            "column_worth",
            column_worth_kernel,
            kv_heads,
            _INDICES,
            backend,
            paths
            | turned_heads
            | {"used_ptr": support.used, "group": problem.group, "n_blocks": problem.n_key_blocks}
            | {"turn_pairs": problem.turn_pairs},
            {},
        ),
        Call(
            "column_starts",
            column_starts_kernel,
            heads * ceil_div(problem.n_keys, START_KEYS),
            _INDICES,
            backend,
            counts | pairs | paths | n_columns | {"starts_ptr": state.column_ends},
            {"KEYS": START_KEYS} | block_n,
        ),
        Call(
            "columns",
            columns_kernel,
            turned,
            _INDICES,
            backend,
            rows_of_turned | paths | ends | columns | sizes | capacity,
            turned_rows | block_n,
        ),
        Call(
            "column_order",
            column_order_kernel,
            heads * problem.n_key_blocks,
            _LISTS,
            backend,
            paths | counts | ends | columns | n_columns | capacity | {"sorted_ptr": state.sorted_columns},
            block_n,
        ),
        *(
            Call(
                name,
                backward_dkdv_keys_kernel,
                ceil_div(kv_heads * ceil_div(problem.n_keys, SOLVE_ROWS), MIXED_PARTS if is_mixed else 1),
                program,
                backend,
                scored
                | by_key
                | _ranges(ranges)
                | {"columns_ptr": state.sorted_columns}
                | ends
                | counts
                | unlisted
                | paths
                | capacity
                | {"kv_head_blocks": kv_heads * problem.n_key_blocks}
                | {"d_key": operand(state.d_key), "d_value": operand(state.d_value)},
                width
                | power
                | block_n
                | {"BLOCK_M": launch.block_m, "IS_CAUSAL": problem.is_causal, "IS_MIXED": is_mixed},
            )
            for name, program, is_mixed in (
                ("backward_dkdv_keys", launch.backward_dkdv_keys, False),
                ("backward_dkdv_mixed", launch.backward_dkdv_mixed, True),
            )
        ),
    ]


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
    given = signed(as_operand(query), scale), as_operand(key), as_operand(value)
    state = empty_forward(problem, given[0])

    def calls_of(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *besides: torch.Tensor) -> list[Call]:
        return forward_calls(problem, query, key, value, state, *besides)

    starts.run(("forward", *_numbers(problem)), (*given, _as_read(ranges), alphas), tensors_of(state), calls_of)
    return dataclasses.replace(state, out=state.out.to(query.dtype))


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
    state = empty_backward(problem, *operands, of_alpha=of_alpha)
    parts = tensors_of(support)
    given = (as_operand(d_out), *operands, as_operand(out), base, rest, block_mask, *parts, _as_read(ranges), alphas)

    def calls_of(d_out: torch.Tensor, *given: torch.Tensor) -> list[Call]:
        query, key, value, out, base, rest, mask, *others = given
        support = Support(*others[: len(parts)])
        besides = others[len(parts) :]
        return backward_calls(problem, d_out, query, key, value, out, base, rest, mask, support, state, *besides)

    starts.run(("backward", of_alpha, *_numbers(problem)), given, tensors_of(state), calls_of)
    return dataclasses.replace(
        state,
        d_query=signed(state.d_query, scale).to(query.dtype),
        d_key=state.d_key.to(key.dtype),
        d_value=state.d_value.to(value.dtype),
    )


def _as_read(ranges: torch.Tensor | None) -> torch.Tensor | None:
    """Return ranges with those of an item one behind the other, as kernels read them."""
    return ranges if ranges is None or ranges.stride()[1:] == (2, 1) else ranges.contiguous()


def _numbers(problem: Problem) -> tuple[Any, ...]:
    """Return what decides the stages besides the operands."""
    return problem.alpha, problem.scale, problem.is_causal


def _shape(problem: Problem) -> dict[str, Any]:
    return {
        "z_scale": problem.z_scale,
        "heads": problem.heads,
        "group": problem.group,
        "n_queries": problem.n_queries,
        "n_keys": problem.n_keys,
    }


def _tile(problem: Problem) -> dict[str, Any]:
    return {
        "IS_CAUSAL": problem.is_causal,
        "BLOCK_M": problem.launch.block_m,
        "BLOCK_N": problem.launch.block_n,
        "BLOCK_D": block_d(problem.head_dim),
        "HEAD_DIM": problem.head_dim,
    }


def _launch(problem: Problem, ranges: torch.Tensor | None) -> Launch:
    """Return the launch row of the forward stages, with registers for ranges in those that read them."""
    launch = problem.launch
    if ranges is None:
        return launch
    names = ("dense", "collect", "histogram", "refine", "output")
    return dataclasses.replace(launch, **{name: getattr(launch, name).with_ranges() for name in names})


def _ranges(ranges: torch.Tensor | None) -> dict[str, Any]:
    """Return the ranges of the queries as kernels take them (kernels/visible.py)."""
    return {"ranges": None if ranges is None else (ranges, ranges.stride(0))}


def _lists(lists: Lists) -> dict[str, Any]:
    return {"lists_ptr": lists.places, "numbers_ptr": lists.numbers, "capacity": lists.places.shape[2]}


def _kept_lists(problem: Problem, block_mask: torch.Tensor, kept: Lists, ranges: torch.Tensor | None) -> Call:
    return _block_lists(problem, block_mask, kept, ranges, by_keys=False)


def _block_lists(
    problem: Problem, mask: torch.Tensor, lists: Lists, ranges: torch.Tensor | None, *, by_keys: bool
) -> Call:
    tile = _tile(problem)
    return Call(
        "block_list",
        block_list_kernel,
        mask.shape[0] * mask.shape[1],
        _SMALL,
        problem.backend,
        {
            "mask_ptr": mask,
            "heads": problem.heads,
            "n_queries": problem.n_queries,
            "n_keys": problem.n_keys,
            "n_words": mask.shape[2],
            "n_blocks": problem.n_query_blocks if by_keys else problem.n_key_blocks,
            "n_rows": mask.shape[1],
        }
        | _ranges(ranges)
        | _lists(lists),
        {name: tile[name] for name in ("IS_CAUSAL", "BLOCK_M", "BLOCK_N")} | {"BY_KEYS": by_keys},
    )


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
