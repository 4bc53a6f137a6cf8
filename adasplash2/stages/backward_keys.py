"""Which stages find the gradients of rows and keys of few pairs, pair by pair?"""

from __future__ import annotations

from typing import Any

import torch

from adasplash2.kernels.backward_dkdv_keys import backward_dkdv_keys_kernel
from adasplash2.kernels.backward_dq_keys import backward_dq_keys_kernel
from adasplash2.kernels.column_counts import column_counts_kernel
from adasplash2.kernels.column_order import column_order_kernel
from adasplash2.kernels.column_paths import column_paths_kernel
from adasplash2.kernels.column_starts import column_starts_kernel
from adasplash2.kernels.column_worth import column_worth_kernel
from adasplash2.kernels.columns import columns_kernel
from adasplash2.problem import MIXED_PARTS, SOLVE_ROWS, START_KEYS, TURNED_ROWS, Problem, ceil_div
from adasplash2.starts import Call
from adasplash2.state import BackwardState, Support

from .arguments import INDICES, LISTS, SMALL, key_gradients_of, key_shape_of, ranges_of, shape_of, width_of


def backward_calls_by_keys(
    problem: Problem,
    scored: dict[str, Any],
    of_queries: dict[str, Any],
    support: Support,
    state: BackwardState,
    ranges: torch.Tensor | None,
) -> list[Call]:
    """Return the backward stages that work on single keys and single queries."""
    launch, backend, shape = problem.launch, problem.backend, shape_of(problem)
    heads, kv_heads = problem.batch * problem.heads, problem.batch * problem.kv_heads
    turned, turned_rows = heads * ceil_div(problem.n_queries, TURNED_ROWS), {"ROWS": TURNED_ROWS}
    power = {"POWER": problem.power, "ROWS": SOLVE_ROWS}
    width = width_of(problem)
    block_n = {"BLOCK_N": launch.block_n}
    sizes = {name: shape[name] for name in ("heads", "group", "n_queries", "n_keys")}
    capacity = {"capacity": problem.support_capacity}
    spans = {"support_ptr": support.pool, "starts_ptr": support.starts, "counts_ptr": support.counts}
    rows, turned_heads = spans | {"used_ptr": support.used}, {"turned_ptr": state.turned}
    counts, ends = {"column_counts_ptr": state.column_counts}, {"column_ends_ptr": state.column_ends}
    paths, columns = {"paths_ptr": state.column_paths}, {"columns_ptr": state.columns}
    pairs = {"block_pairs_ptr": state.block_pairs}
    unlisted = {"unlisted_ptr": state.unlisted, "n_unlisted_ptr": state.n_unlisted}
    n_columns = {name: sizes[name] for name in ("heads", "group", "n_keys")}
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
            INDICES,
            backend,
            rows | counts | capacity | {name: sizes[name] for name in ("heads", "n_queries", "n_keys")},
            turned_rows,
        ),
        Call(
            "column_paths",
            column_paths_kernel,
            kv_heads * problem.n_key_blocks,
            SMALL,
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
            INDICES,
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
            INDICES,
            backend,
            counts | pairs | paths | n_columns | {"starts_ptr": state.column_ends},
            {"KEYS": START_KEYS} | block_n,
        ),
        Call(
            "columns",
            columns_kernel,
            turned,
            INDICES,
            backend,
            spans | turned_heads | paths | ends | columns | sizes | capacity,
            turned_rows | block_n,
        ),
        Call(
            "column_order",
            column_order_kernel,
            heads * problem.n_key_blocks,
            LISTS,
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
                | key_shape_of(problem)
                | ranges_of(ranges)
                | {"columns_ptr": state.sorted_columns}
                | ends
                | counts
                | unlisted
                | paths
                | capacity
                | {"kv_head_blocks": kv_heads * problem.n_key_blocks}
                | key_gradients_of(state),
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
