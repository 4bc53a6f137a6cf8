"""Do the entries of a row name exactly its live keys, and what becomes of a row without room?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples
from staged import ALPHAS, TILE, live_keys, score_matrices, staged

from entmax_ref import stages

FEW, SHARED, MANY = 0, 1, 2


@lemma("dense_bound_float")
@examples(15)
@given(z=score_matrices(), alpha=st.sampled_from(ALPHAS), is_causal=st.booleans())
def test_entries_name_the_keys_above_the_bound_in_order(z, alpha, is_causal):
    run = staged(z, alpha, is_causal=is_causal, row_entries=70, shared_words=2**20)
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
    run = staged(z, row_entries=entries, shared_words=2**20)
    assert run.row("dense", "row_max").max() == 0.0
    assert run.paths()[0] == (FEW if entries >= 4 else MANY)


def test_blocks_of_many_entries_a_candidate_share_their_tiles():
    z = np.zeros((TILE, 4), dtype=np.float32)
    assert staged(z, row_entries=8, shared_words=TILE).paths("collect")[0] == SHARED
    assert staged(z, row_entries=8, shared_words=TILE + 1).paths("collect")[0] == FEW
