"""Is the threshold of single keys exact, and is what goes by keys, by tiles or by both the same to rounding?"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples
from staged import ALPHAS, ANY_WORDS, DEVICE, PATHS, TILE, U, backward, score_matrices, staged, tile_any

import entmax_ref
from adasplash2.problem import ROW_KEYS, WIDE_ROW_KEYS
from entmax_ref import stages

FULL = 3


@lemma("newton_norm_left")
@lemma("pair_exact")
@examples(20)
@given(z=score_matrices(), alpha=st.sampled_from(ALPHAS), is_causal=st.booleans())
def test_the_threshold_is_exact_to_the_rounding_of_its_sums(z, alpha, is_causal):
    run = staged(z, alpha, is_causal=is_causal, **PATHS["few"])
    assert (run.paths() == 0).all()
    exact = entmax_ref.threshold(run.z / (alpha - 1.0), alpha)
    seen = np.isfinite(run.row("dense", "row_max"))
    residual, mass = run.row("output", "residual"), run.row("output", "mass")
    # A row of n keys sums with n roundings, and a gap carries two: at most n + 8 units, relative to a mass of about 1.
    rounding = (z.shape[1] + 8) * U
    assert (residual <= 2 * rounding).all() and (run.row("output", "passes") == seen).all()
    np.testing.assert_array_equal(residual[seen], abs(mass[seen] - 1.0).astype(np.float32))
    of_oracle = 2.0**-48 * np.maximum(1.0, abs(exact[seen]))
    assert (abs(run.tau()[seen] - exact[seen]) <= residual[seen] + 2 * rounding + of_oracle).all()
    assert np.isposinf(run.tau()[~seen]).all() and (mass[~seen] == 0.0).all()
    kept = run.mask("output")
    live = stages.block_mask(run.z, run.tau(), TILE)
    np.testing.assert_array_equal(kept, tile_any(live))


@lemma("threshold_unique")
@examples(40)
@given(z=score_matrices(), alpha=st.sampled_from([1.25, 1.5, 2.0]))
def test_the_specified_threshold_is_that_of_the_row(z, alpha):
    wide = z.astype(np.float64)
    found = stages.solve(wide, stages.collect(wide, stages.dense(wide, alpha, block=TILE).lo), alpha)
    exact = entmax_ref.threshold(wide / (alpha - 1.0), alpha)
    assert (abs(found - exact) <= 2.0**-44 * np.maximum(1.0, abs(wide).max(axis=-1))).all()


@lemma("normalised_output")
@examples(10)
@given(z=score_matrices(), alpha=st.sampled_from(ALPHAS), is_causal=st.booleans())
def test_every_path_gives_the_same_to_rounding(z, alpha, is_causal):
    d_out = torch.randn(1, 1, z.shape[0], z.shape[1], generator=torch.Generator().manual_seed(1)).to(DEVICE)
    runs = {name: staged(z, alpha, is_causal=is_causal, **fields) for name, fields in PATHS.items()}
    # One entry a row: some rows have room, and others do not.
    runs["mixed"] = staged(z, alpha, is_causal=is_causal, row_entries=1)
    runs["short lists"] = staged(z, alpha, is_causal=is_causal, row_entries=0, capacity=1)
    exact = entmax_ref.threshold(runs["few"].z / (alpha - 1.0), alpha)
    seen = np.isfinite(exact)
    probs, _ = stages.probs_and_sensitivity(runs["few"].z, exact, alpha)
    value = runs["few"].value[0, 0].double().cpu().numpy()
    n = z.shape[1]
    for name, run in runs.items():
        out = run.after["output"].out[0, 0].double().cpu().numpy()
        # tau within the tolerance, and from there one step: twice the spread times what the mass is off.
        off = (
            2.0 * np.ptp(value) * (abs(run.row("output", "mass")[seen] - 1.0) + (n + 8) * U)
            + (n + 8) * U * abs(value).max()
        )
        assert (abs(out - probs @ value).max(axis=1)[seen] <= off).all(), name
        assert not out[~seen].any()
        found = backward(run, d_out)
        assert all(torch.isfinite(part).all() for part in (found.d_query, found.d_key, found.d_value))
    assert (runs["many"].paths() >= 2).all()


@pytest.mark.parametrize("support", [ROW_KEYS - 1, ROW_KEYS, ROW_KEYS + 1, WIDE_ROW_KEYS, WIDE_ROW_KEYS + 1, 200])
def test_no_key_is_lost_where_a_row_has_no_room(support):
    """Equal scores in tiles of their own, so that each takes an entry; the rest of the block has one key a row."""
    z = np.full((TILE, 256 * TILE), -50.0, dtype=np.float32)
    z[:, 0] = 0.0
    z[3, np.arange(support) * TILE] = 0.0
    run = staged(z, row_entries=256, **ANY_WORDS)
    assert run.paths("dense")[0] == 0
    exact = entmax_ref.threshold(z.astype(np.float64) / 0.5)
    assert (abs(run.tau() - exact) <= 2.0**-18).all()
    assert (run.paths()[0] == FULL) == (support > WIDE_ROW_KEYS)
    assert run.row("output", "mass")[3] == pytest.approx(1.0, abs=2.0**-17)
    kept = run.mask("output")[0]
    assert (kept[:support].all() and not kept[support:].any()) or run.paths()[0] == FULL


@pytest.mark.parametrize("row_entries", [128, 256])
def test_more_live_keys_than_support_fit_into_fewer_places(row_entries):
    """The largest keys stay: a row of 100 live keys, 20 of them support, without and with room behind its entries.

    Two keys of the support share a tile: the bound knows of one of them only, and lets the other keys live.
    """
    z = np.full((TILE, 128 * TILE), -50.0, dtype=np.float32)
    tiles = np.random.default_rng(0).permutation(np.arange(1, 90)) * TILE
    z[3, tiles] = -0.23
    z[:, :2] = 0.0
    z[3, tiles[:9]] = z[3, tiles[:9] + 1] = 0.0
    run = staged(z, row_entries=row_entries, **ANY_WORDS)
    assert run.after["collect"].counts[0, 3] == 90
    assert run.after["solve"].n_unsolved.item() == (row_entries == 128)
    exact = entmax_ref.threshold(z.astype(np.float64) / 0.5)
    assert abs(run.tau() - exact).max() <= 2.0**-18 and run.paths()[0] == 0
