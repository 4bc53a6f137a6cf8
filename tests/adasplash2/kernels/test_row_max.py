"""Does the dense pass find the maximum of each row, and keep every block that may hold support?"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples
from staged import TILE, score_matrices, staged, tile_any

import entmax_ref
from entmax_ref import stages


@lemma("candidate_superset")
@examples(15)
@given(z=score_matrices(), is_causal=st.booleans())
def test_row_max_and_candidates_are_those_of_the_specification(z, is_causal):
    run = staged(z, is_causal=is_causal)
    # float32, so that row_max - 1 rounds as in the kernel
    highest, candidates = stages.row_max(run.z.astype(np.float32), TILE)
    np.testing.assert_array_equal(run.row("row_max", "row_max"), highest)
    np.testing.assert_array_equal(run.mask("row_max", "candidates"), tile_any(candidates))


@lemma("candidate_superset")
@examples(25)
@given(z=score_matrices(), alpha=st.sampled_from([1.25, 1.5, 2.0]))
def test_specified_candidates_hold_the_support(z, alpha):
    wide = z.astype(np.float64)
    _, candidates = stages.row_max(wide, TILE)
    live = stages.block_mask(wide, entmax_ref.threshold(wide / (alpha - 1.0), alpha), TILE)
    # a score within rounding of tau may be on either side: only blocks that reach clearly above it must be kept
    clear = stages.block_mask(wide, entmax_ref.threshold(wide / (alpha - 1.0), alpha) + 1e-12 * abs(wide).max(), TILE)
    assert (candidates | ~clear).all()
    assert live.any(axis=-1).all()


def test_a_poisoned_row_keeps_every_block_it_sees():
    z = np.zeros((20, 50), dtype=np.float32)
    z[:, 49] = 100.0  # without the poison only the last block is a candidate
    z[3, 40] = np.inf
    _, candidates = stages.row_max(z.astype(np.float64), TILE)
    assert candidates[3].all() and candidates[4].sum() == 1
