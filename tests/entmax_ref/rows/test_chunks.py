"""Do the shortcuts of long rows find what sorting the whole row finds?"""

import exact
import hard
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma

import entmax_ref
from entmax_ref.rows import chunks


@given(
    n=st.integers(chunks.LONG, chunks.LONG + 3 * chunks.GROUP),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_key_lies_below_a_peak_and_every_peak_is_a_key(n, seed):
    shown = np.random.default_rng(seed).normal(size=(2, n))
    peaks = chunks._peaks(shown)
    assert peaks.shape == (2, n // chunks.GROUP)
    np.testing.assert_array_equal(peaks.max(axis=-1), shown.max(axis=-1))
    width = n // chunks.GROUP
    for row, own in zip(shown, peaks, strict=True):
        for place in range(width):
            assert own[place] == row[place::width].max()


@pytest.mark.parametrize("alpha", [1.001, 1.25, 1.5, 1.75, 2.0, 2.5, 4.0])
@pytest.mark.parametrize("n", [chunks.LONG, chunks.LONG + 5, 3001])
@lemma("threshold_subset")
@lemma("candidate_superset")
def test_looking_at_the_peaks_first_loses_no_key(alpha, n, monkeypatch):
    scores = hard.long_rows(alpha, n, 3)
    scores[7] = -np.inf
    scores[8, 5], scores[9, 5] = np.nan, np.inf
    scores[10, 1:] = -np.inf
    by_row = np.full(len(scores), alpha)
    by_row[::4] = 1.0
    found = [entmax_ref.entmax(scores, order) for order in (alpha, by_row)]
    support = entmax_ref.support(scores, alpha)
    monkeypatch.setattr(chunks, "LONG", n + 1)
    np.testing.assert_array_equal(support, entmax_ref.support(scores, alpha))
    slack = 2.0 * exact.gap_bound(n, alpha)
    for order, probs in zip((alpha, by_row), found, strict=True):
        whole = entmax_ref.entmax(scores, order)
        np.testing.assert_array_equal(np.isnan(probs), np.isnan(whole))
        np.testing.assert_array_equal(probs > 0.0, whole > 0.0)
        step = np.broadcast_to(np.asarray(order), len(scores))[:, None] - 1.0
        assert np.nanmax(np.abs(probs**step - whole**step)) <= slack + 2.0**-50
        total = np.nansum(probs, axis=-1)
        live = ~np.isnan(probs).any(axis=-1) & (scores > -np.inf).any(axis=-1)
        assert np.all(np.abs(total[live] - 1.0) <= 4 * 2.0**-52 * np.sqrt(n))
