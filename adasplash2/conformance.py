"""Are our maps and our attention held to the suite?  Their adapters, as in ``--target adasplash2.conformance:rows``."""

from __future__ import annotations

from typing import Any

from entmax_ref.conformance.adapters.tensors import alpha_gradient, row_target
from entmax_ref.conformance.target import RowTarget

from . import __version__
from .maps import entmax

# Of what the reference path takes; the kernels go up to 2.
_ALPHAS = (1.001, 1.01, 1.1, 1.25, 4 / 3, 1.5, 1.75, 2.0, 2.5, 4.0)


def rows() -> RowTarget:
    """Return `adasplash2.entmax` on the reference path, on the CPU."""

    def reference(scores: Any, alpha: Any) -> Any:
        return entmax(scores, alpha, impl="reference")

    return row_target(
        reference,
        name="adasplash2.entmax, reference",
        version=__version__,
        alphas=_ALPHAS,
        dtypes=("float64", "float32", "bfloat16", "float16"),
        twice=True,
        d_alpha=alpha_gradient(reference),
        call="adasplash2.entmax(scores, alpha, impl='reference')",
        imports="import adasplash2",
    )


def row_kernels() -> RowTarget:
    """Return `adasplash2.entmax` on the kernels: compiled on a GPU, else in the Triton interpreter if that is set."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"

    def kernels(scores: Any, alpha: Any) -> Any:
        return entmax(scores, alpha, impl="triton")

    return row_target(
        kernels,
        device=device,
        name="adasplash2.entmax, kernels",
        version=__version__,
        alphas=tuple(alpha for alpha in _ALPHAS if alpha <= 2.0),
        dtypes=("float32", "bfloat16", "float16"),
        d_alpha=alpha_gradient(kernels, device),
        call="adasplash2.entmax(scores, alpha, impl='triton')",
        imports="import adasplash2",
    )
