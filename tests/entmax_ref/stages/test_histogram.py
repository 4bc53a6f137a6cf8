"""Does the histogram bracket the threshold, as closely as its bins are?"""

import hard
import numpy as np
import pytest
from lemmas import lemma
from specified import each_alpha, exact_tau, slack

from entmax_ref import stages


@pytest.mark.parametrize("alpha", [1.6, 1.75])
def test_more_bins_save_passes_where_the_last_bin_is_too_wide(alpha):
    _, z = hard.rows(65536)
    narrow, wide = (
        stages.refine(z, stages.histogram(z, alpha, bins=bins), alpha, tolerance=1e-5).passes for bins in (32, 16)
    )
    assert narrow.mean() < wide.mean() and narrow.max() <= 4


@lemma("histogram_bracket")
@each_alpha
@pytest.mark.parametrize("edges", [stages.linear_edges(8), stages.bin_edges(1), stages.bin_edges(24)])
def test_any_edges_give_a_bracket_no_wider_than_a_bin(alpha, edges):
    _, z = hard.rows(400)
    lo, hi, tau = stages.histogram(z, alpha, edges=edges)
    exact = exact_tau(z, alpha)
    assert (lo <= exact + slack(z)).all() and (exact <= hi + slack(z)).all()
    assert (lo <= tau).all() and (tau <= hi).all()
    assert (hi - lo <= np.max(-np.diff(edges)) + slack(z)).all()
