"""Is the support of the rows in the pool, whole, and turned over to the columns, sorted; or else left to the tiles?"""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from staged import ALPHAS, DEVICE, PATHS, TILE, backward, score_matrices, staged

from adasplash2 import launch
from adasplash2.problem import Problem, index_type
from adasplash2.stages import backward_calls, forward_calls
from adasplash2.state import empty_backward, empty_forward
from entmax_ref import stages

BY_KEYS = PATHS["few"] | {"row_support": 256}
BY_KEYS |= {"row_pairs": 2**20, "column_pairs": 2**20, "turn_pairs": 2**20}


def gradients(run, **fields):
    """Run the backward stages with other fields of the problem; returns their state."""
    run = dataclasses.replace(run, problem=dataclasses.replace(run.problem, **fields))
    d_out = torch.randn(run.query.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    return backward(run, d_out)


def columns_of(found):
    """Return the rows of each column, as they come."""
    counts = found.column_counts.sum(dim=-1)
    return spans(found.sorted_columns, found.column_ends[..., -1] - counts, counts)


def spans(pool, firsts, counts):
    """Return what each row or column of the only head holds."""
    pool, firsts, counts = (part[0, 0].long().cpu().numpy() for part in (pool, firsts, counts))
    return [pool[first : first + count] & 0xFFFF for first, count in zip(firsts, counts, strict=True)]


@examples(15)
@given(z=score_matrices(max_queries=70), alpha=st.sampled_from(ALPHAS), is_causal=st.booleans())
def test_pool_and_columns_hold_the_support_and_nothing_else(z, alpha, is_causal):
    run = staged(z, alpha, is_causal=is_causal, **BY_KEYS)
    gap = np.maximum(run.z - np.where(np.isfinite(run.tau()), run.tau(), np.inf)[:, None], 0.0)
    support = run.after["output"].support
    live = np.zeros(gap.shape, dtype=bool)
    for own, row in zip(live, spans(support.pool, support.starts, support.counts), strict=True):
        own[row] = True
        assert own.sum() == len(row)
    # As alpha nears 1 a power of a gap may be too small for float32, and then its key holds no probability.
    normal = gap ** (1.0 / (alpha - 1.0)) >= 2.0**-125
    assert live[normal].all() and not live[gap == 0.0].any()
    assert int(support.used) == live.sum()
    found = gradients(run)
    assert (found.column_paths > 0).all()
    np.testing.assert_array_equal(found.column_counts[0, 0].sum(dim=-1).cpu().numpy(), live.sum(axis=0))
    columns = columns_of(found)
    for column, specified in zip(columns, stages.block_list(stages.block_mask_transpose(live)), strict=True):
        np.testing.assert_array_equal(column, specified)


@pytest.mark.parametrize("length", [7, 64, 65, 200, 600])
def test_long_columns_are_sorted_as_well(length):
    """One key supports every row; the others support one row each."""
    z = np.full((length, length + 1), -50.0, dtype=np.float32)
    z[np.arange(length), np.arange(length)] = -0.25
    z[:, length] = 0.0
    run = staged(z, **BY_KEYS)
    found = gradients(run, column_rows=600)
    assert (found.column_paths > 0).all() and int(found.column_counts.sum(dim=-1).max()) == length
    last = columns_of(found)[length]
    np.testing.assert_array_equal(last, np.arange(length))


@pytest.mark.parametrize(
    "fields, paths",
    [
        ({}, [1, 1, 1]),
        ({"column_rows": 32}, [0, 1, 1]),  # key 3 supports 33 rows
        ({"column_rows": 33}, [1, 1, 1]),
        # 16 keys at a time, to the longest column of 33, 3 and 1 rows, against 3, 2 and 1 tiles
        ({"column_pairs": 176}, [1, 1, 1]),
        ({"column_pairs": 175}, [0, 1, 1]),
        ({"column_pairs": 24}, [0, 1, 1]),
        ({"column_pairs": 23}, [0, 0, 1]),
        ({"column_pairs": 15}, [0, 0, 0]),
        # The blocks save 3, 2 and 1 tiles, and 69 pairs are to be turned over.
        ({"turn_pairs": 12}, [1, 1, 1]),
        ({"turn_pairs": 11}, [0, 0, 0]),
        ({"capacity": 1}, [1, 1, 1]),  # short lists visit more tiles, which are listed all the same
    ],
)
def test_a_block_of_keys_goes_by_tiles_where_these_are_full(fields, paths):
    z = np.full((33, 3 * TILE), -50.0, dtype=np.float32)
    z[:, 3] = 0.0
    z[:32, 5] = -0.25
    z[[1, 2, 20], TILE] = -0.25
    z[4, 2 * TILE + 7] = -0.25
    run = staged(z, **BY_KEYS)
    assert int(run.after["output"].support.used) == 69
    found = gradients(run, **fields)
    assert found.column_paths[0, 0].sign().tolist() == paths
    assert bool(found.turned) == any(paths)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
@pytest.mark.parametrize("is_causal", [False, True])
def test_blocks_without_their_support_are_added_as_tiles(alpha, is_causal):
    """The second block of queries has a row of more entries than there is room for."""
    z = np.full((6 * TILE, 8 * TILE), -50.0, dtype=np.float32)
    z[:, [0, 8 * TILE - 1]] = 0.0
    z[:, 3] = -0.1
    z[TILE + 3, np.arange(4) * TILE] = 0.0
    z[2, 6 * TILE] = 0.0
    run = staged(z, alpha, is_causal=is_causal, **BY_KEYS | {"row_entries": 3})
    assert (run.paths() >= 2).tolist() == [False, True, False, False, False, False]
    counts = run.after["output"].support.counts[0, 0].cpu().numpy()
    assert (counts[:TILE] >= 1).all() and (counts[TILE : 2 * TILE] == -1).all() and (counts[2 * TILE :] >= 1).all()
    mixed, tiles = gradients(run), gradients(run, row_pairs=0, column_pairs=0)
    assert mixed.column_paths[0, 0, 0] > 0 and (tiles.column_paths[0, 0] * tiles.block_pairs[0, 0] == 0).all()
    assert mixed.n_unlisted[0, 0, 0] == 1 and mixed.unlisted[0, 0, 0, 0] == 1
    for name in ("d_query", "d_key", "d_value"):
        one, other = getattr(mixed, name).double(), getattr(tiles, name).double()
        assert (one - other).abs().max() <= 2.0**-18 * one.abs().max(), name


@pytest.mark.parametrize("alpha", [1.5, 2.0])
@pytest.mark.parametrize("row_support", [0, 1, 2])
def test_no_key_is_lost_to_a_full_pool(alpha, row_support):
    """The pool of a head holds 0, 1 or 2 places a row: with less than it needs, all of the head goes by tiles."""
    rng = np.random.default_rng(0)
    z = (2.0 * rng.normal(size=(40, 100))).astype(np.float32)
    whole = staged(z, alpha, **BY_KEYS)
    short = staged(z, alpha, **BY_KEYS | {"row_support": row_support})
    used = int(short.after["output"].support.used)
    assert used == int(whole.after["output"].support.used) > 2 * 40
    expected, found = gradients(whole), gradients(short)
    assert (found.column_paths == 0).any() and (expected.column_paths > 0).all()
    for name in ("d_query", "d_key", "d_value", "delta"):
        one, other = getattr(expected, name).double(), getattr(found, name).double()
        assert (one - other).abs().max() <= 2.0**-18 * one.abs().max()


def test_by_keys_and_by_tiles_agree_with_grouped_heads():
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 4, 90, 16, generator=generator), torch.randn(2, 2, 130, 16, generator=generator)
    value, d_out = torch.randn(2, 2, 130, 16, generator=generator), torch.randn(2, 4, 90, 16, generator=generator)
    found = {}
    runs = {"keys": BY_KEYS, "tiles": PATHS["many"], "not turned over": BY_KEYS | {"turn_pairs": 0}}
    for name, fields in runs.items():
        operands = [tensor.to(DEVICE) for tensor in (2.0 * query, 2.0 * key, value)]
        problem = Problem.of(*operands[:2], alpha=1.5, scale=0.25, is_causal=True, backend=launch.BACKEND)
        problem = dataclasses.replace(problem, **fields)
        state, after = empty_forward(problem, operands[0]), empty_backward(problem, *operands)
        for call in forward_calls(problem, *operands, state):
            call.run()
        left = (state.out, state.base, state.rest, state.block_mask, state.support)
        for call in backward_calls(problem, d_out.to(DEVICE), *operands, *left, after):
            call.run()
        if name != "tiles":
            assert (after.column_paths > 0).all() == (name == "keys") and (state.support.counts >= 1).all()
        found[name] = after
    for name in ("d_query", "d_key", "d_value"):
        one, *others = (getattr(found[path], name).double() for path in runs)
        for other in others:
            assert (one - other).abs().max() <= 2.0**-18 * one.abs().max(), name


def test_indices_take_16_bits_up_to_65536():
    assert index_type(2**16) == torch.int16 and index_type(2**16 + 1) == torch.int32
    pool = torch.tensor([0, 2**15, 2**16 - 1]).to(torch.int16)
    assert (pool.numpy().astype(np.int64) & 0xFFFF).tolist() == [0, 2**15, 2**16 - 1]
