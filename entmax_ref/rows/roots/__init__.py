"""What is the root of each row of keys?  One way for each range of alpha.

What it buys: alpha 1.5 and 2 have a closed form (`closed`), three to five times as fast as Newton; from 1 to 2 Newton
takes the place of some 50 halvings of a bracket (`newton`); above 2 the power of a gap has an infinite slope at 0, so
the support is found first (`support`); and rows of many keys need no sort at alpha 1.5 and 2 (`unsorted`). `form` says
how a root is kept.
"""

import numpy as np
from numpy.typing import NDArray

from entmax_ref.arguments import Floats
from entmax_ref.rows.roots.closed import root_in_closed_form
from entmax_ref.rows.roots.form import Root
from entmax_ref.rows.roots.newton import root_by_newton
from entmax_ref.rows.roots.support import root_by_support


def solve(drop: Floats, count: NDArray[np.intp], step: float | Floats) -> Root:
    """Return the root of rows of ascending drops, (m, w), of which the first ``count`` may be supported."""
    if not isinstance(step, np.ndarray):
        if step in (0.5, 1.0):
            return root_in_closed_form(drop, count, step)
        return root_by_newton(drop, count, step) if step < 1.0 else root_by_support(drop, count, step)
    blank = np.zeros(step.shape)
    root = Root(
        blank, blank.copy(), blank.copy(), np.zeros(step.shape, dtype=np.bool_), np.zeros(step.shape, dtype=np.bool_)
    )
    flat = step[:, 0]
    for group in (flat == 0.5, flat == 1.0, (flat < 1.0) & (flat != 0.5), flat > 1.0):
        if group.any():
            own = step[group]
            solved = (
                solve(drop[group], count[group], float(own[0, 0]))
                if (own == own[0]).all()
                else (root_by_newton if own[0, 0] < 1.0 else root_by_support)(drop[group], count[group], own)
            )
            for whole, part in zip(root, solved, strict=True):
                whole[group] = part
    return root
