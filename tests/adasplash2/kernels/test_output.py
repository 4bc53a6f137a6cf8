"""Are output, centre and mass those of the specification at the kernel's own tau?"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples
from staged import ALPHAS, PATHS, U, score_matrices, staged

import entmax_ref
from entmax_ref import stages


@examples(15)
@given(z=score_matrices(), alpha=st.sampled_from(ALPHAS), is_causal=st.booleans(), path=st.sampled_from(sorted(PATHS)))
def test_output_and_mass(z, alpha, is_causal, path):
    run = staged(z, alpha, is_causal=is_causal, **PATHS[path])
    seen = np.isfinite(run.row("dense", "row_max"))
    value = run.value[0, 0].double().cpu().numpy()
    expected = stages.output(run.z, run.tau(), value, alpha)
    # A product of n terms, of which gap carries two roundings and its power one more, by the sum of their sizes.
    n = run.problem.n_keys
    spread = stages.output(run.z, run.tau(), abs(value), alpha).out
    assert (abs(run.row("output", "mass") - expected.mass) <= (n + 8) * U * np.maximum(expected.mass, 1.0)).all()
    found = run.after["output"].out[0, 0].double().cpu().numpy()
    assert (abs(found - expected.out) <= 2 * (n + 8) * U * (spread + abs(value).max())).all()
    assert (found[~seen] == 0.0).all()


@lemma("normalised_output")
@examples(60)
@given(z=score_matrices(), alpha=st.sampled_from([1.25, 1.5, 2.0]), off=st.floats(-1e-2, 1e-2))
def test_a_threshold_that_is_off_moves_the_output_by_what_the_mass_is_off(z, alpha, off):
    wide = z.astype(np.float64) - z.max(axis=1, keepdims=True).astype(np.float64)
    exact = entmax_ref.threshold(wide / (alpha - 1.0), alpha)
    value = np.random.default_rng(0).normal(size=(z.shape[1], 3))
    t = np.minimum(exact + off, -(2.0**-20))
    found = stages.output(wide, t, value, alpha)
    truth = entmax_ref.entmax(wide / (alpha - 1.0), alpha) @ value
    # D is the largest distance from the middle of the values, in each dimension
    bound = np.ptp(value, axis=0) * abs(found.mass - 1.0)[:, None]
    assert (abs(found.out - truth) <= bound + 2.0**-40).all()


def test_equal_values_come_out_as_they_are():
    """To the rounding of two sums of n weights and of their quotient, whatever the mass is."""
    z = np.random.default_rng(0).normal(size=(20, 70)).astype(np.float32)
    for fields in PATHS.values():
        run = staged(z, equal=3.0, **fields)
        assert (abs(run.row("output", "mass") - 1.0) <= run.problem.tolerance).all()
        out = run.after["output"].out[0, 0].double().cpu().numpy()
        assert (abs(out - 3.0) <= 3.0 * (2 * 70 + 2) * U).all()
