"""Does the dense pass find the maximum of each row, bound its threshold, and list what may hold support?"""

import fractions

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples
from staged import ALPHAS, ANY_WORDS, TILE, score_matrices, staged, tile_any

import entmax_ref
from entmax_ref import stages

# kernels/dense.py: what rounding may add to the bound, absolutely and relative to row_max.
BOUND_ERROR, BOUND_ROUNDOFF = 2.0**-18, 2.0**-21


@lemma("candidate_superset")
@examples(15)
@given(z=score_matrices(), is_causal=st.booleans())
def test_row_max_and_candidates_are_those_of_the_specification(z, is_causal):
    run = staged(z, is_causal=is_causal)
    # float32, so that the difference of two maxima rounds as in the kernel
    specified = stages.dense(run.z.astype(np.float32), block=TILE)
    np.testing.assert_array_equal(run.row("dense", "row_max"), specified.row_max)
    found, numbers = run.lists("dense", "candidates")
    # The blocks that only some queries of a tile see whole are listed without a look at their scores.
    starts = np.arange(0, z.shape[0], TILE)
    offset = z.shape[1] - z.shape[0]
    for row, (listed, start) in enumerate(zip(found, starts, strict=True)):
        last = min(start + TILE, z.shape[0]) - 1
        visible = min(-(-max(last + offset + 1, 0) // TILE), -(-z.shape[1] // TILE)) if is_causal else None
        visible = -(-z.shape[1] // TILE) if visible is None else visible
        common = (min(max(start + offset + 1, 0), z.shape[1]) if is_causal else z.shape[1]) // TILE
        wanted = np.flatnonzero(tile_any(specified.candidates)[row])
        np.testing.assert_array_equal(listed, np.union1d(wanted, np.arange(common, visible)))
        assert numbers[row, 0] == np.count_nonzero(listed < common)


@lemma("threshold_subset")
@lemma("dense_bound_float")
@examples(25)
@given(z=score_matrices(), alpha=st.sampled_from(ALPHAS), is_causal=st.booleans())
def test_the_bound_lies_below_the_threshold_and_near_the_specified_one(z, alpha, is_causal):
    run = staged(z, alpha, is_causal=is_causal)
    lo, top = run.row("dense", "lo"), run.row("dense", "row_max")
    seen = np.isfinite(top)
    exact = entmax_ref.threshold(run.z / (alpha - 1.0), alpha)
    assert (lo[seen] <= exact[seen]).all() and np.isposinf(lo[~seen]).all()
    specified = stages.dense(run.z, alpha, block=TILE).lo
    # Twice the slack: the bound may err by as much before it is taken off. One more rounding stores it.
    off = 2.0 * (BOUND_ERROR + abs(top[seen]) * BOUND_ROUNDOFF) + np.spacing(abs(lo[seen]).astype(np.float32))
    assert (abs(lo[seen] - specified[seen]) <= off).all()


def _exact_root(levels, alpha):
    """Return whether the mass of the levels at a float is at least 1, exactly: then the float is at or below tau."""

    def heavy(at):
        gaps = [max(fractions.Fraction(level) - fractions.Fraction(at), 0) for level in levels]
        return sum(gap if alpha == 2.0 else gap * gap for gap in gaps) >= 1

    return heavy


@lemma("dense_bound_float")
def test_without_its_slack_the_bound_would_pass_the_threshold():
    """Scores on the edges of bins, one a tile: then the counts lose nothing, and only rounding parts bound and root."""
    rng = np.random.default_rng(0)
    without = 0
    for alpha in (1.5, 2.0):
        # Quarters are edges of bins of a twelfth, and exact.
        levels = (rng.integers(-2, 1, size=(48, 5)) + rng.integers(-32, 33, size=(48, 1))).astype(np.float32) / 4.0
        z = np.full((48, 5 * TILE), -1e3, np.float32)
        z[:, ::TILE] = levels
        run = staged(z, alpha)
        lo, top = run.row("dense", "lo"), run.row("dense", "row_max")
        for row, own, highest in zip(levels, lo, top, strict=True):
            heavy = _exact_root([float(level) for level in row], alpha)
            assert heavy(float(own))
            # what the kernel would have stored, but for the last rounding
            without += not heavy(float(own) + BOUND_ERROR + abs(float(highest)) * BOUND_ROUNDOFF)
    assert without > 10


@lemma("candidate_superset", "pruning_keeps_threshold")
@examples(25)
@given(z=score_matrices(), alpha=st.sampled_from([1.25, 1.5, 2.0]))
def test_specified_candidates_hold_the_support_and_the_bound_is_one(z, alpha):
    wide = z.astype(np.float64)
    found = stages.dense(wide, alpha, block=TILE)
    exact = entmax_ref.threshold(wide / (alpha - 1.0), alpha)
    # a score within rounding of tau may be on either side: only blocks that reach clearly above it must be kept
    clear = stages.block_mask(wide, exact + 1e-12 * abs(wide).max(), TILE)
    assert (found.candidates | ~clear).all()
    assert (found.lo <= exact + 2.0**-44 * np.maximum(1.0, abs(wide).max(axis=-1))).all()


def test_a_poisoned_row_keeps_every_block_it_sees():
    z = np.zeros((20, 50), dtype=np.float32)
    z[:, 49] = 100.0  # without the poison only the last block is a candidate
    z[3, 40] = np.inf
    candidates = stages.dense(z.astype(np.float64), block=TILE).candidates
    assert candidates[3].all() and candidates[4].sum() == 1


def test_a_full_list_visits_everything():
    z = np.zeros((20, 70), dtype=np.float32)
    run = staged(z, capacity=2)
    found, numbers = run.lists("dense", "candidates")
    for listed in found:
        np.testing.assert_array_equal(listed, np.arange(5))
    assert (numbers[:, 2] == 0).all() and (numbers[:, 1] == 5).all()


def test_flat_rows_go_by_tiles_and_peaked_ones_by_keys():
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(size=(16, 400)) * 1e-3, rng.normal(size=(16, 400)) * 8.0]).astype(np.float32)
    assert staged(z, row_entries=400, **ANY_WORDS).paths("dense").tolist() == [2, 0]
