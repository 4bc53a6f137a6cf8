"""Are output, centre and mass those of the specification at the kernel's own tau?"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples
from staged import U, score_matrices, staged

import entmax_ref
from entmax_ref import stages


@examples(15)
@given(z=score_matrices(), alpha=st.sampled_from([1.5, 2.0]), is_causal=st.booleans())
def test_output_centre_and_mass(z, alpha, is_causal):
    run = staged(z, alpha, is_causal=is_causal)
    top = run.row("row_max", "row_max")
    seen = np.isfinite(top)
    shifted = np.where(seen[:, None], run.z - np.where(seen, top, 0.0)[:, None], -np.inf)
    shifted = shifted.astype(np.float32).astype(np.float64)
    value = run.value[0, 0].double().cpu().numpy()
    expected = stages.output(shifted, run.row("refine", "tau"), value, alpha)
    # A product of n terms, of which gap carries one rounding and its power two more, by the sum of their sizes.
    n = run.problem.n_keys
    largest = (n + 8) * U * abs(value).max()
    spread = stages.output(shifted, run.row("refine", "tau"), abs(value), alpha)
    assert (abs(run.row("output", "mass") - expected.mass) <= (n + 8) * U * np.maximum(expected.mass, 1.0)).all()
    for name in ("out", "centre"):
        found = getattr(run.after["output"], name)[0, 0].double().cpu().numpy()
        size = (n + 8) * U * (spread.out + 2.0 * spread.centre) + largest
        assert (abs(found - getattr(expected, name)) <= size).all(), name
        assert (found[~seen] == 0.0).all()


@lemma("first_order_correction")
@examples(60)
@given(z=score_matrices(), alpha=st.sampled_from([1.5, 2.0]), off=st.floats(-1e-3, 1e-3))
def test_correction_leaves_the_square_of_the_error(z, alpha, off):
    """Output at tau + off, corrected, is within 2 D G(t) (mass(N t) - 1) of the output at tau (PROOFS, power >= 1)."""
    wide = z.astype(np.float64) - z.max(axis=1, keepdims=True).astype(np.float64)
    scores = wide / (alpha - 1.0)
    exact = entmax_ref.threshold(scores, alpha)
    value = np.random.default_rng(0).normal(size=(z.shape[1], 3))
    t = exact + off
    mass, slope, _ = stages.sums(wide, t, alpha)
    power = 1.0 / (alpha - 1.0)
    reached = slope > 0.0
    newton = t + np.where(reached, (mass - 1.0) / np.where(reached, power * slope, 1.0), 0.0)
    found = stages.output(wide, t, value, alpha).out
    truth = entmax_ref.entmax(scores, alpha) @ value
    spread = value.max() - value.min()
    bound = 2.0 * spread * power * slope * abs(newton - exact)
    assert (abs(found - truth).max(axis=1)[reached] <= bound[reached] + 2.0**-40 * (1.0 + slope[reached])).all()
