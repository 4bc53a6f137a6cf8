"""What does each kernel stage compute?  The executable specification: one function a stage, under the stage's name.

Rows are float64 arrays ``z = (alpha - 1) * scores`` with the keys on the last axis, ``-inf`` where one is not visible.
Everything is in the unit of z and counted from 0; the kernels count from ``row_max`` to keep digits in float32. Alpha
is one float in (1, 2], and ``power = 1 / (alpha - 1)``. Leading axes are free: heads and queries, or none.

Arguments are not checked here: these functions state what kernels compute, and tests call them with the kernels' own
intermediate values. `entmax_ref.solvers` compares the solver below with its alternatives.

Examples
--------
The stages in their order, on one row with support 2:

>>> import numpy as np
>>> z, value = np.array([0.5, 0.3, -1.0, -2.0]), np.eye(4)
>>> found = dense(z, block=2)
>>> float(found.row_max), found.candidates, bool(found.lo <= -0.3)
(0.5, array([ True,  True]), True)
>>> live = collect(z, found.lo)
>>> tau = solve(z, live)
>>> bool(abs(tau - refine(z, histogram(z)).tau) < 1e-5)
True
>>> block_list(block_mask(z, tau, block=2))
[array([0])]
>>> output(z, tau, value).out.round(6)
array([0.64, 0.36, 0.  , 0.  ])
"""

from entmax_ref.stages.backward import backward_dkdv, backward_dq, delta, score_gradient
from entmax_ref.stages.blocks import block_list, block_mask, block_mask_transpose, block_max
from entmax_ref.stages.collect import collect
from entmax_ref.stages.dense import Dense, dense
from entmax_ref.stages.histogram import Bracket, bin_edges, histogram, linear_edges
from entmax_ref.stages.output import Output, gaps, output, probs_and_sensitivity
from entmax_ref.stages.refine import Refined, refine
from entmax_ref.stages.solve import solve
from entmax_ref.stages.steps import active_set_step, density, norm_step, safeguarded_step, sums

__all__ = [
    "Bracket",
    "Dense",
    "Output",
    "Refined",
    "active_set_step",
    "backward_dkdv",
    "backward_dq",
    "bin_edges",
    "block_list",
    "block_mask",
    "block_mask_transpose",
    "block_max",
    "collect",
    "delta",
    "dense",
    "density",
    "gaps",
    "histogram",
    "linear_edges",
    "norm_step",
    "output",
    "probs_and_sensitivity",
    "refine",
    "safeguarded_step",
    "score_gradient",
    "solve",
    "sums",
]
