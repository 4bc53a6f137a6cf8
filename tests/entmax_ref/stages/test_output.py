"""Is the output off by no more than the mass is?"""

import numpy as np
from lemmas import lemma
from specified import attention_problem, each_alpha, exact_tau

import entmax_ref
from entmax_ref import stages


@lemma("normalised_output")
@each_alpha
def test_the_output_is_off_by_no_more_than_the_mass(alpha):
    _, _, value, _, _, _, z = attention_problem(alpha, seed=1)
    seen = np.isfinite(z).any(axis=-1)
    exact = exact_tau(z[seen], alpha)
    truth = entmax_ref.entmax(z[seen] / (alpha - 1.0), alpha) @ value
    for off in (2.0**-6, 2.0**-12, -(2.0**-6), -(2.0**-12)):
        out, mass = stages.output(z[seen], exact + off, value, alpha)
        # D is half of the spread, from the middle.
        bound = np.ptp(value, axis=0).max() * abs(mass - 1.0)
        assert (abs(out - truth).max(axis=-1) <= bound + 2.0**-44).all()
        assert abs(out - truth).max() > 2.0**-30
