"""Which memory do the stages share?  Beyond inputs and outputs: a few numbers per row, a bit and lists per block."""

from __future__ import annotations

import dataclasses

import torch

from .launch_table import block_d
from .problem import COLUMN_PARTS, LIST_NUMBERS, SEGMENT_NUMBERS, SOLVE_ROWS, UNLISTED, Problem, ceil_div, index_type


@dataclasses.dataclass(frozen=True)
class Lists:
    """Lists of blocks, int32 (batch * heads, rows, places), and their numbers (kernels/lists.py), (.., rows, 4)."""

    places: torch.Tensor
    numbers: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Support:
    """The support of rows that are solved by single keys (kernels/support.py).

    ``pool`` is (batch, heads, places), int16 where that holds a key, else int32; ``starts`` and ``counts`` are int32
    (batch, heads, n_queries), and ``used`` int32 (batch, heads).  Without stages by single keys all but ``used`` are
    empty.
    """

    pool: torch.Tensor
    starts: torch.Tensor
    counts: torch.Tensor
    used: torch.Tensor


@dataclasses.dataclass(frozen=True)
class ForwardState:
    """What the forward stages write.

    Rows are (batch, heads, n_queries), float32 but for passes, int32; masks are int32 words (`Problem.mask_shape`).
    ``entries`` to ``n_unsolved`` are scratch, of some blocks of queries at a time.
    ``lo`` is absolute; ``tile_lo``, ``hi`` and ``first_tau``, of blocks that go by tiles, are counted from row_max. The
    final threshold is ``base + rest`` (kernels/tile.py says why).
    """

    row_max: torch.Tensor
    candidates: Lists
    entries: torch.Tensor
    counts: torch.Tensor
    n_live: torch.Tensor
    n_wide: torch.Tensor
    unsolved: torch.Tensor
    n_unsolved: torch.Tensor
    lo: torch.Tensor
    tile_lo: torch.Tensor
    hi: torch.Tensor
    first_tau: torch.Tensor
    block_mask: torch.Tensor
    kept: Lists
    base: torch.Tensor
    rest: torch.Tensor
    residual: torch.Tensor
    passes: torch.Tensor
    out: torch.Tensor
    mass: torch.Tensor
    support: Support


@dataclasses.dataclass(frozen=True)
class BackwardState:
    """What the backward stages write; gradients have the shape, strides and dtype of their operand.

    ``d_alpha`` is the gradient of alpha by row, float32, and empty where it is not asked for.
    ``column_counts`` and ``column_ends`` are int32 (batch, heads, n_keys, parts); ``column_paths`` int32 (batch,
    kv_heads, key blocks) and ``turned`` (batch, kv_heads); ``block_pairs`` and ``n_unlisted`` int32 (batch, heads, key
    blocks), ``unlisted`` with the places of a list behind; ``columns`` and ``sorted_columns`` (batch, heads, places),
    int16 where that holds a query, else int32.
    ``split`` is int32 (batch, kv_heads, key blocks), ``segments`` (batch, kv_heads, segments, numbers) and ``partial``
    float32 (batch, kv_heads, segments, 2, block_n, block_d); the last two are empty where no block can be split.
    """

    kept: Lists
    delta: torch.Tensor
    d_alpha: torch.Tensor
    transposed: torch.Tensor
    keeping: Lists
    column_counts: torch.Tensor
    column_ends: torch.Tensor
    column_paths: torch.Tensor
    turned: torch.Tensor
    block_pairs: torch.Tensor
    unlisted: torch.Tensor
    n_unlisted: torch.Tensor
    split: torch.Tensor
    segments: torch.Tensor
    partial: torch.Tensor
    columns: torch.Tensor
    sorted_columns: torch.Tensor
    d_query: torch.Tensor
    d_key: torch.Tensor
    d_value: torch.Tensor


def empty_forward(problem: Problem, query: torch.Tensor) -> ForwardState:
    """Return memory for the forward stages; only the bits of the block mask are set, since stages add to them."""
    device = query.device

    def row(dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(problem.row_shape, dtype=dtype, device=device)

    scratch = problem.tiles_at_once, problem.launch.dense_m
    return ForwardState(
        row_max=row(),
        candidates=empty_lists(problem.candidate_shape, device),
        entries=torch.empty((*scratch, problem.row_places), dtype=torch.int64, device=device),
        counts=torch.empty(scratch, dtype=torch.int32, device=device),
        n_live=torch.empty(scratch, dtype=torch.int32, device=device),
        n_wide=torch.empty(problem.tiles_at_once, dtype=torch.int32, device=device),
        unsolved=torch.empty(
            problem.tiles_at_once * ceil_div(problem.launch.dense_m, SOLVE_ROWS), dtype=torch.int32, device=device
        ),
        n_unsolved=torch.empty(1, dtype=torch.int32, device=device),
        lo=row(),
        tile_lo=row(),
        hi=row(),
        first_tau=row(),
        block_mask=torch.zeros(problem.mask_shape, dtype=torch.int32, device=device),
        kept=empty_lists(problem.list_shape, device),
        base=row(),
        rest=row(),
        residual=row(),
        passes=row(torch.int32),
        out=torch.empty_like(query),
        mass=row(),
        support=empty_support(problem, device),
    )


def empty_backward(
    problem: Problem, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, of_alpha: bool = False
) -> BackwardState:
    """Return memory for the backward stages; only the counts of the columns are set, since rows add to them."""
    device, heads, kv_heads = query.device, (problem.batch, problem.heads), (problem.batch, problem.kv_heads)
    by_block = (*heads, problem.n_key_blocks if problem.by_keys else 0)
    by_key, pool = (*heads, problem.n_keys if problem.by_keys else 0, COLUMN_PARTS), (*heads, problem.support_capacity)
    return BackwardState(
        kept=empty_lists(problem.list_shape, device),
        delta=torch.empty(problem.row_shape, dtype=torch.float32, device=device),
        d_alpha=torch.empty(problem.row_shape if of_alpha else (problem.batch, 0), dtype=torch.float32, device=device),
        transposed=torch.empty(problem.transposed_shape, dtype=torch.int32, device=device),
        keeping=empty_lists(problem.transposed_list_shape, device),
        column_counts=torch.zeros(by_key, dtype=torch.int32, device=device),
        column_ends=torch.empty(by_key, dtype=torch.int32, device=device),
        column_paths=torch.empty(*kv_heads, problem.n_key_blocks, dtype=torch.int32, device=device),
        turned=torch.empty(kv_heads, dtype=torch.int32, device=device),
        block_pairs=torch.empty(by_block, dtype=torch.int32, device=device),
        unlisted=torch.empty((*by_block, UNLISTED), dtype=torch.int32, device=device),
        n_unlisted=torch.empty(by_block, dtype=torch.int32, device=device),
        split=torch.empty(*kv_heads, problem.n_key_blocks, dtype=torch.int32, device=device),
        segments=torch.empty(*kv_heads, problem.n_segments, SEGMENT_NUMBERS, dtype=torch.int32, device=device),
        partial=torch.empty(
            *kv_heads, problem.n_segments, 2, problem.launch.block_n, block_d(problem.head_dim), device=device
        ),
        columns=torch.empty(pool, dtype=index_type(problem.n_queries), device=device),
        sorted_columns=torch.empty(pool, dtype=index_type(problem.n_queries), device=device),
        d_query=torch.empty_like(query),
        d_key=torch.empty_like(key),
        d_value=torch.empty_like(value),
    )


def empty_support(problem: Problem, device: torch.device) -> Support:
    """Return memory for the support of rows; only ``used`` is set."""
    heads, rows = (problem.batch, problem.heads), problem.listed_shape
    return Support(
        torch.empty(*heads, problem.support_capacity, dtype=index_type(problem.n_keys), device=device),
        torch.empty(rows, dtype=torch.int32, device=device),
        torch.empty(rows, dtype=torch.int32, device=device),
        torch.zeros(heads, dtype=torch.int32, device=device),
    )


def empty_lists(shape: tuple[int, int, int], device: torch.device) -> Lists:
    """Return memory for the lists of a shape and their numbers."""
    return Lists(
        torch.empty(shape, dtype=torch.int32, device=device),
        torch.empty((*shape[:2], LIST_NUMBERS), dtype=torch.int32, device=device),
    )


def unpack_mask(words: torch.Tensor, n_blocks: int) -> torch.Tensor:
    """Return mask words, int32 (..., n_words), or their bytes, uint8 (..., 4 * n_words), as booleans (.., n_blocks)."""
    bits = torch.arange(8 * words.element_size(), dtype=words.dtype, device=words.device)
    return ((words[..., None] >> bits) & 1).flatten(-2)[..., :n_blocks].bool()


def tensors_of(state: ForwardState | BackwardState | Support | Lists) -> list[torch.Tensor]:
    """Return the tensors of a state, in the order of its fields."""
    found: list[torch.Tensor] = []
    for value in vars(state).values():
        if isinstance(value, torch.Tensor):
            found.append(value)
        else:
            found += tensors_of(value)
    return found
