"""Is an answer right?  Errors, each next to its budget; NaN never passes, and neither does zero."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch

from adasplash2.workloads import Workload

from .answer import Answer
from .naive import NaiveResult
from .truth import Booleans, Floats, Truth

# Refinement stops at a residual below this (problem.TOLERANCE), and takes one more step from there.
MASS_BUDGET = 1e-5
GRADIENTS = ("d_query", "d_key", "d_value")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A measured number and what it may be at most; NaN where it could not be measured."""

    error: float
    budget: float

    @property
    def passed(self) -> bool:
        """Whether the error is a number within the budget."""
        return self.error <= self.budget


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What was found, and every rule that was broken."""

    comparisons: dict[str, Comparison]
    passes: dict[int, int]
    live: int
    lost: int
    failures: tuple[str, ...]


def relative_error(result: Floats, exact: Floats) -> float:
    """Return ``norm(result - exact) / norm(exact)``, Frobenius; NaN if any entry is not finite.

    Where exact is 0 throughout: 0 if the result is, else inf.
    """
    if not np.isfinite(result).all():
        return math.nan
    size, distance = float(np.linalg.norm(exact)), float(np.linalg.norm(result - exact))
    if size == 0.0:
        return 0.0 if distance == 0.0 else math.inf
    return distance / size


def budget(naive: Floats, exact: Floats, dtype: torch.dtype) -> float:
    """Return twice the error of the naive evaluation plus one rounding of the result."""
    return 2.0 * relative_error(naive, exact) + torch.finfo(dtype).eps / 2.0


def compared_gradients(load: Workload) -> tuple[str, ...]:
    """Return the gradients that mean something: a product with 0 * inf or 0 * NaN in it does not."""
    if load.is_finite:
        return GRADIENTS
    others = bool(torch.isfinite(load.key).all() and torch.isfinite(load.value).all())
    # A NaN query spoils the gradients of the keys it sees, and of no other query.
    return ("d_query",) if others else ()


def judge(
    load: Workload, truth: Truth, answer: Answer, naive: NaiveResult, live: Booleans, *, is_kernel: bool = True
) -> Judgement:
    """Judge one answer.

    Parameters
    ----------
    load : Workload
    truth : Truth
    answer : Answer
    naive : NaiveResult
        On the same operands.
    live : ndarray of bool, like ``answer.block_mask``
        Blocks that hold support beyond doubt.
    is_kernel : bool
        False for the reference, which sorts: its mass has the error of a plain float32 sum.

    Returns
    -------
    Judgement
    """
    failures: list[str] = []
    comparisons: dict[str, Comparison] = {}
    nan_rows, empty_rows = truth.nan_rows, truth.empty_rows
    ordinary = ~nan_rows & ~empty_rows

    for name in ("out", *compared_gradients(load)):
        rows = ~nan_rows if name in ("out", "d_query") else slice(None)
        result, exact, plain = (getattr(part, name) for part in (answer, truth, naive))
        result, exact, plain = result[rows], exact[rows], plain.numpy()[rows]
        comparisons[name] = Comparison(relative_error(result, exact), budget(plain, exact, load.query.dtype))
    comparisons["mass"] = Comparison(_worst(np.abs(answer.mass - 1.0)[ordinary]), MASS_BUDGET)
    comparisons["tau"] = tau_comparison(truth, answer.tau, answer.tolerance, ordinary)
    if is_kernel:
        comparisons["residual"] = Comparison(_worst(answer.residual[ordinary]), answer.tolerance)
    for name, comparison in comparisons.items():
        if not comparison.passed:
            failures.append(f"{name} is off by {comparison.error:.2e}, budget {comparison.budget:.2e}")

    failures += _special_rows(load, truth, answer)
    most = int(answer.passes[ordinary].max(initial=0))
    if most >= answer.max_passes:
        failures.append(f"a row reached the cap of {answer.max_passes} passes")
    lost = int(np.count_nonzero(live & ~answer.block_mask))
    if lost:
        failures.append(f"{lost} of {int(live.sum())} live blocks lost by the block mask")
    steps, rows_of = np.unique(answer.passes[ordinary], return_counts=True)
    passes = {int(step): int(count) for step, count in zip(steps, rows_of, strict=True)}
    return Judgement(comparisons, passes, int(live.sum()), lost, tuple(failures))


def tau_comparison(truth: Truth, tau: Floats, tolerance: float, rows: Booleans) -> Comparison:
    """Return the error of tau at the row that comes closest to its bound (or exceeds it most), and that bound.

    tau is 1-Lipschitz in z, so float32 scores may move it by their largest error; refinement by its tolerance; and one
    unit in the last place is for its representation.
    """
    exact = truth.tau[rows]
    if exact.size == 0:
        return Comparison(0.0, tolerance)
    error = np.abs(tau[rows] - exact)
    bound = truth.row_error[rows] + tolerance + np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    worst = int(np.argmax(np.where(np.isnan(error), np.inf, error / bound)))
    return Comparison(float(error[worst]), float(bound[worst]))


def _worst(values: Floats) -> float:
    """Return the largest value, NaN if one is NaN, 0 if there is none."""
    return float(values.max()) if values.size else 0.0


def _special_rows(load: Workload, truth: Truth, answer: Answer) -> list[str]:
    """Return what rows with NaN, and rows without a key, did wrong."""
    failures = []
    is_nan = np.isnan(answer.out)
    missing = int(np.count_nonzero(~is_nan[truth.nan_rows].all(axis=-1)))
    spilled = int(np.count_nonzero(is_nan[~truth.nan_rows].any(axis=-1)))
    if missing:
        failures.append(f"NaN swallowed: {missing} of {int(truth.nan_rows.sum())} rows that must be NaN are not")
    if spilled:
        failures.append(f"NaN spilled: {spilled} rows are NaN that must not be")
    if truth.empty_rows.any():
        if np.count_nonzero(answer.out[truth.empty_rows]) or not (answer.tau[truth.empty_rows] == np.inf).all():
            failures.append("a row without a visible key must have out 0 and tau +inf")
        if load.is_finite and np.count_nonzero(answer.d_query[truth.empty_rows]):
            failures.append("a row without a visible key must have d_query 0")
    return failures
