"""Does the root of keys in any order agree with that of the sorted keys, and does counting bits count?"""

import exact
import hard
import numpy as np
import pytest
from drawn import finite_rows
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples

from entmax_ref.rows import roots
from entmax_ref.rows.roots.form import how_many
from entmax_ref.rows.roots.unsorted import root_of_many

each_form = pytest.mark.parametrize("alpha", [1.5, 2.0])


def sorted_root(scores, alpha):
    """Return the reach, a scale and the root of whole rows, sorted."""
    drop = scores.max(axis=-1, keepdims=True) - scores
    count = np.count_nonzero(drop < np.inf, axis=-1)
    return drop, roots.solve(np.sort(drop, axis=-1), count, alpha - 1.0)


def depth_of(root, step):
    return np.where(root.near, 1.0 / step - root.theta, root.floor + root.lift / step)


@each_form
@pytest.mark.parametrize("n", [129, 700, 3000])
@lemma("newton_norm_left")
def test_the_root_without_a_sort_is_that_of_the_sorted_row(alpha, n):
    step = alpha - 1.0
    drop, wanted = sorted_root(hard.long_rows(alpha, n, 0), alpha)
    bound = 2.0 * exact.gap_bound(n, alpha) / step
    for reach in (1.0 / step, 1.0 / step + 3.0, depth_of(wanted, step) * (1.0 + 2.0**-40)):
        found = root_of_many(drop, np.broadcast_to(reach, wanted.floor.shape).copy(), step)
        assert np.all(np.abs(depth_of(found, step) - depth_of(wanted, step)) <= bound)
        np.testing.assert_array_equal(found.close, wanted.close)
        far = ~found.close[:, 0]
        np.testing.assert_array_equal((drop <= found.floor)[far], (drop <= wanted.floor)[far])
        assert np.all(np.any(drop == found.floor, axis=-1)[~far]) and np.all(found.lift[~far] > 0.0)


@each_form
@examples(60)
@given(data=st.data())
def test_a_row_of_any_kind_repeated_needs_no_sort(alpha, data):
    row = np.repeat(data.draw(finite_rows()), data.draw(st.integers(1, 40))) * data.draw(st.sampled_from([1.0, 0.01]))
    step = alpha - 1.0
    drop, wanted = sorted_root(row[None], alpha)
    found = root_of_many(drop, np.full((1, 1), 1.0 / step + 2.0**-40), step)
    bound = 2.0 * exact.gap_bound(row.size, alpha) / step
    assert abs(depth_of(found, step) - depth_of(wanted, step)) <= bound
    assert found.close or np.array_equal(drop <= found.floor, drop <= wanted.floor)


@given(data=st.data())
def test_counting_bits_counts(data):
    shape = data.draw(st.tuples(st.integers(0, 4), st.integers(1, 70)))
    which = np.random.default_rng(data.draw(st.integers(0, 99))).random(shape) < 0.5
    np.testing.assert_array_equal(how_many(which)[:, 0], np.count_nonzero(which, axis=-1))
