"""Which stages find the output of rows of few keys, key by key?"""

from __future__ import annotations

from typing import Any

import torch

from adasplash2.kernels.collect import collect_kernel
from adasplash2.kernels.score_keys import score_keys_kernel
from adasplash2.kernels.solve import solve_kernel
from adasplash2.kernels.solve_wide import solve_wide_kernel
from adasplash2.problem import KEYS_AT_ONCE, ROW_KEYS, SOLVE_ROWS, WIDE_PROGRAMS, WIDE_ROW_KEYS, Problem, ceil_div
from adasplash2.starts import Call
from adasplash2.state import ForwardState

from .arguments import launch_of, lists_of, operand, ranges_of, tile_of, width_of


def forward_calls_by_keys(
    problem: Problem, scored: dict[str, Any], value: torch.Tensor, state: ForwardState, ranges: torch.Tensor | None
) -> list[Call]:
    """Return the stages that work on single keys, once for each part of the queries that share their scratch."""
    launch, backend, tile = launch_of(problem, ranges), problem.backend, tile_of(problem)
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
    width = width_of(problem)
    solved = by_row | {name: tile[name] for name in ("BLOCK_M", "BLOCK_N")} | width | {"POWER": problem.power}
    unscored = {name: scored[name] for name in ("alphas_ptr", "z_scale", "heads", "group", "n_queries")}
    counted = {name: scored[name] for name in ("query", "key", "heads", "group", "n_queries", "n_keys")}
    calls, at_once, of_head = [], problem.tiles_at_once, problem.candidate_shape[1]
    for first in range(0, problem.n_tiles, at_once):
        now = min(at_once, problem.n_tiles - first)
        parts = now * ceil_div(launch.dense_m, SOLVE_ROWS)
        some = scratch | {"first_tile": first, "n_part_heads": max(1, now // of_head)}
        calls += [
            Call(
                "collect",
                collect_kernel,
                now,
                launch.collect,
                backend,
                scored
                | some
                | ranges_of(ranges)
                | {"lo_ptr": state.lo, "entry_capacity": problem.most_entries}
                | n_wide
                | n_unsolved
                | lists_of(state.candidates),
                tile
                | keys
                | {"POWER": problem.power}
                | {"BLOCK_M": launch.dense_m, "BLOCK_N": launch.dense_n}
                | {"SHARED_WORDS": problem.shared_words, "MANY_WORDS": problem.most_words},
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
