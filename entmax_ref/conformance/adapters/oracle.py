"""Is the oracle held to its own suite?  It is, in float64."""

import numpy as np

import entmax_ref
from entmax_ref.conformance.precision import Floats
from entmax_ref.conformance.target import RowTarget

ALPHAS = (1.0, 1.001, 1.01, 1.1, 1.25, 4 / 3, 1.5, 1.75, 2.0, 2.5, 4.0)


def rows() -> RowTarget:
    """Return `entmax_ref.entmax` and its derivatives as a target."""
    return RowTarget(
        name="entmax_ref",
        version="",
        alphas=ALPHAS[1:],
        dtypes=("float64",),
        probs=lambda scores, alpha, dtype: entmax_ref.entmax(scores, alpha),
        vjp=lambda scores, d_probs, alpha, dtype: entmax_ref.entmax_vjp(scores, d_probs, alpha),
        threshold=lambda scores, alpha, dtype: entmax_ref.threshold(scores, alpha),
        second=lambda scores, d_probs, way, alpha, dtype: entmax_ref.entmax_second(scores, d_probs, way, alpha),
        d_alpha=_d_alpha,
        call="entmax_ref.entmax(scores, alpha)",
        imports="import entmax_ref",
    )


def _d_alpha(scores: Floats, d_probs: Floats, alpha: float, dtype: str) -> Floats:
    return np.asarray(np.sum(entmax_ref.entmax_alpha_grad(scores, alpha) * d_probs))
