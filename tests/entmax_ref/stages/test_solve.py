"""Is the threshold of the live keys that of the row?"""

import hard
import numpy as np
from lemmas import lemma
from specified import each_alpha, exact_tau, slack

from entmax_ref import stages


@lemma("newton_norm_left")
@each_alpha
def test_the_threshold_of_the_live_keys_is_that_of_the_row(alpha):
    _, z = hard.rows(300)
    live = stages.collect(z, stages.dense(z, alpha, block=16).lo)
    assert (abs(stages.solve(z, live, alpha) - exact_tau(z, alpha)) <= slack(z)).all()
    hidden = np.full((2, 5), -np.inf)
    np.testing.assert_array_equal(stages.solve(hidden, hidden > 0.0, alpha), [np.inf, np.inf])
