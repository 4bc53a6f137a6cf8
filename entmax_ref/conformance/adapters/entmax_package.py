"""Where does the package ``entmax`` stand?  Each of its maps and losses is a target, at its default arguments.

The lists of known failures say what version 1.3 does; the checks find each of them without being told.

Not covered, because they are other maps than entmax and the oracle has no truth for them: ``normmax_bisect`` and its
loss, whose regulariser is a norm, and ``budget_bisect``, whose rows sum to a budget with every entry at most 1. Nor are
``n_iter`` and ``ensure_sum_one`` of the losses and ``k`` of the maps by sorting: these are judged at their defaults.
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
from entmax_ref.conformance.target import Known, RowTarget

_DTYPES = ("float64", "float32", "bfloat16", "float16")
_MANY = 200  # halvings, where the default is 50

# Reasons, with the thread that reports it where there is one that we know.
_EMPTY = "a row without a visible key is not provided for"
_SECOND = "the derivative of a power of 0 is not finite: NaN where a key is outside the support"
_SIXTEEN = "computed in the dtype of the scores, whose sums round to 16 bits"
_SUMS = "the mean of squares less the square of the mean cancels"
_OFFSET = "scores are multiplied by alpha - 1 before their maximum is taken away, so an offset costs digits"
_ROUNDED = "more halvings change nothing: the mass and tau are rounded to the dtype of the scores at every step"
_STEPS = "50 halvings leave the last digits open"

_B, _H, _BH, _ALL = ("bfloat16",), ("float16",), ("bfloat16", "float16"), _DTYPES
_LINKS = {
    _EMPTY: "https://github.com/deep-spin/entmax/issues/19",
    _SIXTEEN: "https://github.com/deep-spin/entmax/pull/31",
}
# What version 1.3 was found to do by the default budget: reason, checks, dtypes.
_KNOWN: dict[str, tuple[tuple[str, str, tuple[str, ...]], ...]] = {
    "entmax15": (
        (_EMPTY, "empty_row empty_gradient", _ALL),
        (_SECOND, "second_order", _ALL),
        (_SUMS, "probabilities row_sum", ("float64",)),
        (_SIXTEEN, "probabilities row_sum offset gradient finite_differences loss loss_gradient long_flat_mass", _BH),
    ),
    "sparsemax": (
        (_EMPTY, "empty_row empty_gradient", _ALL),
        (_SIXTEEN, "probabilities offset gradient gradient_sum loss_gradient long_flat_mass", _BH),
        (_SIXTEEN, "row_sum", _H),
    ),
    "entmax_bisect": (
        (_EMPTY, "empty_row empty_gradient", _ALL),
        (_SECOND, "second_order", _ALL),
        (_OFFSET, "shift offset", _ALL),
        (_STEPS, "probabilities loss_gradient hidden_keys iterations", ("float64",)),
        (_ROUNDED, "probabilities loss_gradient", ("float32",)),
        (_SIXTEEN, "probabilities row_sum softmax_limit gradient finite_differences alpha_gradient", _BH),
        (_SIXTEEN, "loss loss_gradient", _BH),
        (_SIXTEEN, "support strides long_flat_mass", _B),
        (_SIXTEEN, "gradient_sum", _H),
    ),
    "sparsemax_bisect": (
        (_EMPTY, "empty_row empty_gradient", _ALL),
        (_OFFSET, "shift offset", _ALL),
        (_SIXTEEN, "probabilities finite_differences loss_gradient", _BH),
        (_SIXTEEN, "monotone hidden_keys neighbours strides gradient loss long_flat_mass", _B),
    ),
}


def _known(function: str) -> tuple[Known, ...]:
    """Return the failures that are expected of a map and its loss."""
    return tuple(
        Known(check, reason, _LINKS.get(reason, ""), dtypes)
        for reason, checks, dtypes in _KNOWN[function]
        for check in checks.split()
    )


def _target(function: str, *alphas: float) -> RowTarget:
    """Return a map, with the loss of its name; entmax_bisect alone takes alpha, and so has a gradient of it."""
    takes_alpha, bisects = function == "entmax_bisect", function.endswith("_bisect")

    def call(name: str, *operands: Any, alpha: Any, **options: Any) -> Any:
        return getattr(importlib.import_module("entmax"), name)(*operands, *([alpha] if takes_alpha else []), **options)

    def map(rows: Any, alpha: Any) -> Any:
        return call(function, rows, alpha=alpha, dim=-1)

    def loss(scores: Any, keys: Any, alpha: float) -> Any:
        return call(f"{function}_loss", scores, keys, alpha=alpha)

    more = (lambda rows, alpha: call(function, rows, alpha=alpha, dim=-1, n_iter=_MANY)) if bisects else None

    return row_target(
        map,
        more_iterations=more,
        name=f"entmax.{function}",
        version=version_of("entmax"),
        alphas=alphas,
        dtypes=_DTYPES,
        nonfinite=False,  # its documentation says nothing of NaN
        twice=True,
        known=_known(function),
        missing=missing_package("entmax"),
        call=f"entmax.{function}(scores, {'alpha, ' if takes_alpha else ''}dim=-1)",
        imports="import entmax",
        d_alpha=alpha_gradient(map) if takes_alpha else None,
        **loss_functions(loss),
    )


def entmax15() -> RowTarget:
    """Return its map for alpha 1.5, by sorting."""
    return _target("entmax15", 1.5)


def sparsemax() -> RowTarget:
    """Return its map for alpha 2, by sorting."""
    return _target("sparsemax", 2.0)


def entmax_bisect() -> RowTarget:
    """Return its map for any alpha, by bisection."""
    return _target("entmax_bisect", 1.01, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5)


def sparsemax_bisect() -> RowTarget:
    """Return its map for alpha 2, by bisection."""
    return _target("sparsemax_bisect", 2.0)


def rows() -> list[RowTarget]:
    """Return all of its maps to probabilities by alpha."""
    return [entmax15(), sparsemax(), entmax_bisect(), sparsemax_bisect()]
