"""Where does the package ``entmax`` stand?  Each of its maps and losses is a target, at its default arguments.

The lists of known failures say what version 1.3 does; the checks find each of them without being told.
"""

import importlib
from typing import Any

from entmax_ref.conformance.adapters.tensors import (
    alpha_gradient,
    loss_functions,
    missing_package,
    row_target,
    version_of,
)
from entmax_ref.conformance.target import RowTarget

_DTYPES = ("float64", "float32", "bfloat16", "float16")


def _call(function: str, *arguments: Any, **options: Any) -> Any:
    return getattr(importlib.import_module("entmax"), function)(*arguments, **options)


def _target(function: str, map: Any, alphas: tuple[float, ...], call: str, **claims: Any) -> RowTarget:
    """Return a map, with the loss of its name, which takes alpha if the map does."""

    def loss(scores: Any, keys: Any, alpha: float) -> Any:
        return _call(f"{function}_loss", scores, keys, *((alpha,) if function == "entmax_bisect" else ()))

    return row_target(
        map,
        name=f"entmax.{function}",
        version=version_of("entmax"),
        alphas=alphas,
        dtypes=_DTYPES,
        nonfinite=False,  # its documentation says nothing of NaN
        twice=True,
        missing=missing_package("entmax"),
        call=call,
        imports="import entmax",
        **loss_functions(loss),
        **claims,
    )


def entmax15() -> RowTarget:
    """Return its map for alpha 1.5, by sorting."""
    return _target(
        "entmax15",
        lambda rows, alpha: _call("entmax15", rows, dim=-1),
        (1.5,),
        "entmax.entmax15(scores, dim=-1)",
    )


def sparsemax() -> RowTarget:
    """Return its map for alpha 2, by sorting."""
    return _target(
        "sparsemax",
        lambda rows, alpha: _call("sparsemax", rows, dim=-1),
        (2.0,),
        "entmax.sparsemax(scores, dim=-1)",
    )


def entmax_bisect() -> RowTarget:
    """Return its map for any alpha, by bisection."""

    def bisect(rows: Any, alpha: Any) -> Any:
        return _call("entmax_bisect", rows, alpha, dim=-1)

    return _target(
        "entmax_bisect",
        bisect,
        (1.01, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5),
        "entmax.entmax_bisect(scores, alpha, dim=-1)",
        d_alpha=alpha_gradient(bisect),
    )


def sparsemax_bisect() -> RowTarget:
    """Return its map for alpha 2, by bisection."""
    return _target(
        "sparsemax_bisect",
        lambda rows, alpha: _call("sparsemax_bisect", rows, dim=-1),
        (2.0,),
        "entmax.sparsemax_bisect(scores, dim=-1)",
    )


def rows() -> list[RowTarget]:
    """Return all of its maps to probabilities by alpha."""
    return [entmax15(), sparsemax(), entmax_bisect(), sparsemax_bisect()]
