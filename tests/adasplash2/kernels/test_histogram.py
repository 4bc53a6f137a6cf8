"""Is the bracket that the histogram gives sound, and as narrow as a bin?"""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import assume, given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples
from staged import ALPHAS, DEVICE, PATHS, U, score_matrices, staged, tile_any

import entmax_ref
from adasplash2.kernels.histogram import BINS, count_tile
from adasplash2.kernels.power import knot_root
from entmax_ref import stages

# kernels/histogram.py, ROOT_ERROR: what the kernel widens its bracket by, relative to the distance from row_max
ROOT_ERROR = 2.0**-18


@lemma("histogram_bracket")
@examples(15)
@given(z=score_matrices(), alpha=st.sampled_from(ALPHAS), is_causal=st.booleans())
def test_bracket_holds_the_exact_threshold(z, alpha, is_causal):
    run = staged(z, alpha, is_causal=is_causal, **PATHS["many"])
    top = run.row("dense", "row_max")
    seen = np.isfinite(top)
    exact = entmax_ref.threshold(run.z / (alpha - 1.0), alpha)[seen] - top[seen]
    # The kernel sees fl(z - row_max), each within U of its size (at most 1 where it matters), and tau is 1-Lipschitz.
    slack = 2 * U
    lo, hi, tau = (run.row("histogram", name)[seen] for name in ("tile_lo", "hi", "first_tau"))
    assert (lo <= exact + slack).all() and (exact <= hi + slack).all()
    assert (lo <= tau).all() and (tau <= hi).all()
    assert np.isposinf(run.row("histogram", "first_tau")[~seen]).all()


@lemma("histogram_bracket")
@examples(15)
@given(z=score_matrices(), alpha=st.sampled_from(ALPHAS))
def test_bracket_is_the_specified_one(z, alpha):
    run = staged(z, alpha, **PATHS["many"])
    top = run.row("dense", "row_max")[:, None]
    # the specification on the differences that the kernel sees
    shifted = (z - top.astype(np.float32)).astype(np.float64)
    bracket = stages.histogram(shifted, alpha)
    for name in ("lo", "hi", "tau"):
        found, specified = (
            run.row("histogram", {"lo": "tile_lo", "tau": "first_tau"}.get(name, name)),
            getattr(bracket, name),
        )
        # row_max may be rounded, which lo and hi allow for
        assert (abs(found - specified) <= 2 * ROOT_ERROR * abs(specified) + U * abs(top[:, 0])).all(), name


@lemma("histogram_bracket")
@examples(60)
@given(z=score_matrices(), alpha=st.sampled_from([1.25, 1.5, 2.0]), bins=st.sampled_from([1, 2, 8, 16, 24]))
def test_specified_bracket_holds_the_exact_threshold(z, alpha, bins):
    wide = z.astype(np.float64)
    exact = entmax_ref.threshold(wide / (alpha - 1.0), alpha)
    bracket = stages.histogram(wide, alpha, bins=bins)
    slack = 8 * np.finfo(np.float64).eps * np.maximum(1.0, abs(wide).max(axis=-1))
    assert (bracket.lo <= exact + slack).all() and (exact <= bracket.hi + slack).all()
    # a bin is at most half of its far edge wide, the first one (of a single bin) all of it
    width = np.max(-np.diff(stages.bin_edges(bins, alpha)))
    assert (bracket.hi - bracket.lo <= width + slack).all()


@triton.jit
def count_kernel(
    shifted_ptr, counts_ptr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BINS: tl.constexpr, BITS: tl.constexpr
):
    rows, columns = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    shifted = tl.load(shifted_ptr + rows[:, None] * COLUMNS + columns[None, :])
    counts = count_tile(shifted, shifted > -8.0, BITS, True)
    tl.store(counts_ptr + rows[:, None] * BINS + tl.arange(0, BINS)[None, :], counts)


@lemma("counter_no_carry")
@pytest.mark.parametrize("alpha", [1.5, 2.0])
@pytest.mark.parametrize("columns", [16, 64, 128])
def test_packed_counters_count(columns, alpha):
    rng = np.random.default_rng(columns)
    edges = stages.bin_edges(alpha=alpha)
    shifted = -rng.choice(np.append(edges, rng.uniform(0, 1.2, 40)), size=(16, columns)).astype(np.float32)
    shifted[0] = 0.0  # every score in one bin: the fullest that a counter gets
    shifted[1] = -0.0
    shifted[2] = -np.float32(0.75)
    shifted[3] = -np.nextafter(np.float32(1.0), np.float32(0.0))
    shifted[4] = -9.0  # not visible
    shifted[5] = -1e-45
    found = torch.zeros(16, BINS.value, dtype=torch.int32, device=DEVICE)
    count_kernel[(1,)](torch.tensor(shifted, device=DEVICE), found, 16, columns, BINS.value, 23 if alpha == 2.0 else 22)
    drop = -shifted.astype(np.float64)
    expected = np.stack([np.sum((edges[b + 1] <= drop) & (drop < edges[b]), axis=1) for b in range(BINS.value)], axis=1)
    np.testing.assert_array_equal(found.cpu().numpy(), expected)
    assert expected[0, -1] == columns and expected[4].sum() == 0


@lemma("candidate_superset")
@examples(10)
@given(z=score_matrices(), is_causal=st.booleans(), dense=st.sampled_from([16, 32]))
def test_the_mask_of_such_rows_are_their_candidates(z, is_causal, dense):
    run = staged(z, is_causal=is_causal, dense=dense, **PATHS["many"])
    found, _ = run.lists("dense", "candidates")
    kept = run.mask("histogram")
    tiles = dense // 16
    for row, listed in enumerate(found):
        blocks = (listed[:, None] * tiles + np.arange(tiles)).ravel()
        of_row = kept[row * tiles : (row + 1) * tiles]
        assert (of_row.sum(axis=1) == np.count_nonzero(blocks < kept.shape[1])).all()
        assert of_row[:, blocks[blocks < kept.shape[1]]].all()
    live = tile_any(stages.block_mask(run.z, run.tau(), 16))
    assert (kept | ~live).all()


@lemma("histogram_root_float")
def test_a_margin_of_the_roots_is_needed():
    """Scores on the edges of bins: the specified root is exact, and the kernel's would pass it by rounding."""
    rng = np.random.default_rng(1)
    passed = 0
    for alpha in (1.5, 2.0):
        edges = stages.bin_edges(alpha=alpha)[:-1]
        z = (-rng.choice(np.append(edges, 0.0), size=(64, 70))).astype(np.float32)
        z[:, 0] = 0.0
        run = staged(z, alpha, **PATHS["many"])
        exact = stages.histogram(z.astype(np.float64), alpha)
        lo, hi = run.row("histogram", "tile_lo"), run.row("histogram", "hi")
        assert (lo <= exact.lo).all() and (hi >= exact.hi).all()
        passed += (lo / (1.0 + ROOT_ERROR) > exact.lo).sum() + (hi / (1.0 - ROOT_ERROR) < exact.hi).sum()
    assert passed > 10


@triton.jit
def root_kernel(sums_ptr, out_ptr, POWER: tl.constexpr):
    one = tl.arange(0, 1)
    count, first, second = tl.load(sums_ptr + one), tl.load(sums_ptr + 1 + one), tl.load(sums_ptr + 2 + one)
    tl.store(out_ptr + one, knot_root(count, first, second, POWER))


@lemma("knot_root_exact")
@examples(100)
@given(
    bins=st.lists(st.tuples(st.integers(0, 64), st.integers(1, 5)), min_size=1, max_size=8),
    power=st.sampled_from([1, 2]),
)
def test_the_root_below_a_knot_is_that_of_the_counted_row(bins, power):
    """The sums are exact in float32, so what is left are the roundings of the root: 8 of itself."""
    distances = np.repeat([place / 256.0 for place, _ in bins], [count for _, count in bins])
    sums = [float((distances**k).sum()) for k in range(3)]
    assume(sums[power] <= 1.0)
    out = torch.empty(1, device=DEVICE)
    root_kernel[(1,)](torch.tensor(sums, device=DEVICE), out, POWER=power)
    exact = -entmax_ref.threshold(power * distances, 1.0 + 1.0 / power)
    assert float(out) >= 0.0 and abs(float(out) - exact) <= 8 * U * exact + 2.0**-48
