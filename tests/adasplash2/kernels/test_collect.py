"""Do the entries of a row name exactly its live keys, and what becomes of a row without room?"""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples
from staged import ALPHAS, ANY_WORDS, DEVICE, PATHS, TILE, live_keys, score_matrices, small_launch, staged

from adasplash2 import launch, problem
from adasplash2.problem import Problem
from adasplash2.stages import forward_calls
from adasplash2.state import empty_forward
from entmax_ref import stages

FEW, SHARED, MANY = 0, 1, 2


@lemma("dead_product_float")
@examples(15)
@given(z=score_matrices(), alpha=st.sampled_from(ALPHAS), is_causal=st.booleans())
def test_entries_name_the_keys_above_the_bound_in_order(z, alpha, is_causal):
    run = staged(z, alpha, is_causal=is_causal, row_entries=70, **ANY_WORDS)
    if run.problem.tiles_at_once < run.problem.n_tiles:
        return  # the scratch holds the last part only
    lo = run.row("dense", "lo")
    live = stages.collect(run.z, lo)
    # A key is compared with lo, lowered by up to 2 ** -19 of itself.
    loosest = stages.collect(run.z, lo - 2.0**-19 * abs(np.where(np.isfinite(lo), lo, 0.0)))
    paths = run.paths("collect")
    for row in range(len(z)):
        if paths[row // TILE] != FEW:
            continue
        keys = live_keys(run, row)
        assert keys == sorted(keys)
        named = np.zeros(z.shape[1], dtype=bool)
        named[keys] = True
        assert (named | ~live[row]).all() and (loosest[row] | ~named).all()


@pytest.mark.parametrize("entries", [0, 1, 2, 3, 4, 5])
def test_a_row_without_room_leaves_its_block_to_the_tiles(entries):
    z = np.full((TILE, 8 * TILE), -10.0, dtype=np.float32)
    z[:, 0] = 0.0
    z[5, [1, 2 * TILE, 5 * TILE, 7 * TILE]] = -1e-3  # four words: the first holds two keys
    run = staged(z, row_entries=entries, **ANY_WORDS)
    assert run.row("dense", "row_max").max() == 0.0
    assert run.paths()[0] == (FEW if entries >= 4 else MANY)


def test_blocks_of_many_entries_a_candidate_share_their_tiles():
    z = np.zeros((TILE, 4), dtype=np.float32)
    assert staged(z, row_entries=8, shared_words=TILE).paths("collect")[0] == SHARED
    assert staged(z, row_entries=8, shared_words=TILE + 1).paths("collect")[0] == FEW


def test_blocks_of_too_many_entries_a_candidate_go_by_tiles():
    z = np.zeros((TILE, 4), dtype=np.float32)
    for many_words, path in ((TILE, MANY), (TILE + 1, SHARED)):
        run = staged(z, row_entries=8, shared_words=TILE, many_words=many_words)
        assert run.paths("collect")[0] == run.paths()[0] == path
        np.testing.assert_allclose(run.tau(), run.z.max(axis=1) - 0.5, atol=2.0**-20)


def test_only_short_rows_leave_a_block_for_its_entries():
    found = []
    for length in (512, 513, 2048, 2049):
        query = torch.empty(1, 1, length, 64, dtype=torch.bfloat16, device="meta")
        found.append(Problem.of(query, query, alpha=1.5, scale=0.1, is_causal=True, backend="cuda", arch="sm_90"))
    assert [run.most_words for run in found] == [290, 340, 340, 2**16]
    assert dataclasses.replace(found[0], many_words=7).most_words == 7


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_parts_that_share_the_scratch_change_no_bit(is_causal, monkeypatch):
    """3 heads of 3 blocks of queries: all at once, head by head, and block by block."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (2.0 * torch.randn(1, 3, 45, 16, generator=generator).to(DEVICE) for _ in range(3))
    found = []
    for most, at_once in ((9, 9), (4, 3), (2, 2), (1, 1)):
        run = Problem.of(query, key, alpha=1.5, scale=0.25, is_causal=is_causal, backend=launch.BACKEND)
        run = dataclasses.replace(run, launch=small_launch(), **PATHS["few"])
        monkeypatch.setattr(problem, "SCRATCH_HALVES", 2**20)
        monkeypatch.setattr(problem, "SCRATCH_BYTES", most * TILE * run.row_places * 8)
        assert run.tiles_at_once == at_once
        state = empty_forward(run, query)
        for call in forward_calls(run, query, key, value, state):
            call.run()
        assert (state.support.counts >= 1).all()
        found.append(state)
    for name in ("out", "base", "rest", "mass", "block_mask"):
        assert all(torch.equal(getattr(found[0], name), getattr(other, name)) for other in found[1:]), name


def test_long_rows_have_more_room_and_their_parts_are_whole_heads_within_the_bound():
    """A row has room for its entries and, behind them, for as many live keys: of long rows those are about as many."""
    found = {}
    for length, heads in ((8192, 64), (32768, 16), (65536, 8), (131072, 4), (2**20, 2)):
        query = torch.empty(1, heads, length, 64, dtype=torch.bfloat16, device="meta")
        run = Problem.of(query, query, alpha=1.5, scale=0.125, is_causal=True, backend="cuda", arch="sm_90")
        scratch = run.tiles_at_once * run.launch.dense_m * run.row_places * 8
        assert scratch <= problem.SCRATCH_BYTES
        found[length] = run.row_places, run.tiles_at_once * run.launch.dense_m / length
    assert found == {
        8192: (176, 32), 32768: (176, 8), 65536: (208, 3), 131072: (256, 1), 2**20: (256, pytest.approx(0.17, abs=0.01))
    }  # fmt: skip
    floats = torch.empty(1, 1, 131072, 64, device="meta")
    run = Problem.of(floats, floats, alpha=1.5, scale=0.125, is_causal=True, backend="cuda", arch="sm_90")
    assert run.most_entries == run.row_places == 0
    assert dataclasses.replace(run, row_entries=3).most_entries == 3
