"""Do the masks of blocks keep the support?"""

import hard
import pytest
from lemmas import lemma
from specified import each_alpha, exact_tau, slack

from entmax_ref import stages


@lemma("block_mask_superset")
@lemma("candidate_superset")
@each_alpha
@pytest.mark.parametrize("block", [1, 16, 64])
def test_masks_keep_the_support(alpha, block):
    _, z = hard.rows(300)
    refined = stages.refine(z, stages.histogram(z, alpha), alpha)
    # a key within rounding of tau may be on either side
    live = stages.block_mask(z, exact_tau(z, alpha) + slack(z), block)
    own = stages.block_mask(z, refined.tau + slack(z), block)
    found = stages.dense(z, alpha, block=block)
    assert (found.candidates | ~live).all() and (found.lo <= exact_tau(z, alpha) + slack(z)).all()
    assert (stages.block_mask(z, refined.lo, block) | ~(live | own)).all()
