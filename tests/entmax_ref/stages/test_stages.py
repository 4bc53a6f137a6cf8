"""Do the stages in their order add up to the oracle, row by row, for any alpha in (1, 2]?"""

import hard
import numpy as np
import pytest
from lemmas import lemma
from specified import ULP, attention_problem, each_alpha, exact_tau, slack

import entmax_ref
from entmax_ref import stages


@lemma("delta_is_centre")
@lemma("jacobian_form")
@lemma("normalised_output")
@each_alpha
def test_the_stages_in_their_order_are_attention_and_its_gradients(alpha):
    query, key, value, d_out, scale, mask, z = attention_problem(alpha)
    refined = stages.refine(z, stages.histogram(z, alpha), alpha, tolerance=2.0**-40)
    out, mass = stages.output(z, refined.tau, value, alpha)
    delta = stages.delta(z, refined.tau, value, d_out, alpha)
    d_query = stages.backward_dq(z, refined.tau, key, value, d_out, delta, scale, alpha)
    d_key, d_value = stages.backward_dkdv(z, refined.tau, query, value, d_out, delta, scale, alpha)
    operands = [array[None, None] for array in (query, key, value)]
    seen = refined.tau < np.inf
    assert (abs(mass[seen] - 1.0) <= 2.0**-38).all() and not seen[3]
    found = {"out": out, "d_query": d_query, "d_key": d_key, "d_value": d_value}
    wanted = [
        entmax_ref.attention(*operands, alpha=alpha, mask=mask),
        *entmax_ref.attention_vjp(*operands, d_out[None, None], alpha=alpha, mask=mask),
    ]
    # tau is off by 2**-40 at most, a sensitivity by power / gap of that; the output only by its square
    gap = stages.gaps(z, refined.tau)
    least = gap[gap > 0.0].min()
    steep = 2.0**-40 * max(1.0, abs(2.0 - alpha) / (alpha - 1.0) / least)
    size = n_terms = z.size
    for (name, ours), theirs in zip(found.items(), wanted, strict=True):
        limit = 2.0**-38 if name == "out" else n_terms * 8.0 * steep
        assert np.max(abs(ours - theirs[0, 0])) <= limit + size * ULP, name
        assert np.isfinite(ours).all()
    assert not out[3].any() and not d_query[3].any()


@lemma("merge_parts")
@each_alpha
@pytest.mark.parametrize("parts", [2, 7])
def test_parts_of_the_keys_add_up_to_the_row(alpha, parts):
    _, z = hard.rows(300)
    rng = np.random.default_rng(parts)
    value = rng.normal(size=(300, 3))
    exact, belongs = exact_tau(z, alpha), rng.integers(0, parts, 300)
    # A sum of terms of one sign errs by half an ULP of itself for each addition that a term goes through.
    additions = z.shape[-1] + parts + 8
    pieces = [(z[:, belongs == part], value[belongs == part]) for part in range(parts)]
    for t in (exact, exact - 0.125):
        own_sums = (stages.sums(own, t, alpha) for own, _ in pieces)
        for whole, added in zip(stages.sums(z, t, alpha), zip(*own_sums, strict=True), strict=True):
            np.testing.assert_allclose(np.sum(added, axis=0), whole, rtol=additions * ULP / 2.0)
        out, mass = stages.output(z, t, value, alpha)
        weighted = 0.0
        for own, own_value in pieces:
            own_out, own_mass = stages.output(own, t, own_value, alpha)
            weighted = weighted + own_out * own_mass[:, None]
        size, _ = stages.output(z, t, abs(value), alpha)
        assert (abs(weighted - out * mass[:, None]) <= additions * ULP * size * mass[:, None]).all()
    for own, _ in pieces:
        assert (exact_tau(own, alpha) <= exact + slack(z)).all()


def test_poison_stays_in_its_row():
    z = np.zeros((3, 8))
    z[1, 2], z[2] = np.nan, -np.inf
    bracket = stages.histogram(z)
    refined = stages.refine(z, bracket)
    out, _ = stages.output(z, refined.tau, np.ones((8, 2)))
    assert np.isnan(refined.tau[1]) and np.isnan(out[1]).all()
    assert refined.tau[2] == np.inf and not out[2].any()
    assert abs(out[0] - 1.0).max() <= 8 * ULP
    np.testing.assert_array_equal(stages.block_mask(z, refined.lo, 4), [[True, True], [True, True], [False, False]])


def test_leading_axes_are_free():
    _, z = hard.rows(60)
    deep = z[:24].reshape(2, 3, 4, 60)
    for alpha in (1.25, 1.5, 2.0):
        flat = stages.refine(z[:24], stages.histogram(z[:24], alpha), alpha)
        found = stages.refine(deep, stages.histogram(deep, alpha), alpha)
        for ours, theirs in zip(found, flat, strict=True):
            np.testing.assert_array_equal(ours.reshape(-1), theirs)
