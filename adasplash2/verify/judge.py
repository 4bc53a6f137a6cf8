"""Is an answer right?  Every row of it, next to a bound of its own; NaN never passes, and neither does zero."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import torch

from adasplash2.workloads import Workload

from .answer import Answer
from .naive import NaiveResult
from .rounding import NAMES, TINIEST, Expected
from .truth import Booleans, Floats, Truth

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

    def failure(self, name: str) -> str:
        """Return what is wrong, in a sentence."""
        return f"{name} is off by {self.error:.2e}, budget {self.budget:.2e}"


@dataclasses.dataclass(frozen=True)
class RowsComparison(Comparison):
    """What became of the rows of one tensor: a row is one query of one head, or one key of one key head.

    Attributes
    ----------
    error, budget : float
        Of the worst row, the one that comes closest to its bound or exceeds it most, as shares of the row's size: its
        exact norm or, where the bound is above that because the terms cancel, the root of the sum of their squares.
        NaN if it is not finite.
    row : tuple of int
        (batch, head, index) of that row.
    rows, over : int
        Rows that were judged, and rows over their bounds.
    naive, naive_limit : float
        How much of the expected error shows up in the naive evaluation, at most; and how much may.  The largest of N
        normal errors is about ``sqrt(2 * log(N))`` of their standard deviation, N the numbers in the tensor.  Were it
        more, the naive evaluation would be wrong or the model would miss a term, and no bound would mean anything.
    sensitivity : float
        The smallest error that would be noticed, as a share of the row's norm: the median over the rows that are not 0
        (to the rounding of the oracle).
    share_noticing_2_percent : float
        Share of those rows in which an error of 2 percent would be.
    share_hidden : float
        Share of those rows that could be 0 unnoticed: their terms cancel to less than rounding leaves.
    whole, whole_budget : float
        Error and budget of the tensor as a whole (Frobenius), as shares of the size of all rows.
    """

    row: tuple[int, ...]
    rows: int
    over: int
    naive: float
    naive_limit: float
    sensitivity: float
    share_noticing_2_percent: float
    share_hidden: float
    whole: float
    whole_budget: float

    @property
    def passed(self) -> bool:
        """Whether every row is a number within its bound, the whole within its budget, and both mean something."""
        return self.over == 0 and self.whole <= self.whole_budget and self.naive <= self.naive_limit

    def failure(self, name: str) -> str:
        """Return what is wrong, in a sentence."""
        if not self.naive <= self.naive_limit:
            return (
                f"{name} has no bounds: the plain evaluation errs by {self.naive:.2e} times what rounding explains, "
                f"at most {self.naive_limit:.2e}"
            )
        if self.over:
            place = ", ".join(map(str, self.row))
            return (
                f"{name}: {self.over} of {self.rows} rows are over their bounds; row ({place}) is off by "
                f"{self.error:.2e} of its size, at most {self.budget:.2e}"
            )
        return f"{name} as a whole is off by {self.whole:.2e}, budget {self.whole_budget:.2e}"


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


def row_norms(rows: Floats) -> Floats:
    """Return the norm of each row; NaN if an entry is not finite."""
    norms: Floats = np.linalg.norm(rows, axis=-1)
    return np.where(np.isfinite(norms), norms, np.nan)


def naive_share(naive: Floats, exact: Floats, expected: Expected, rows: Booleans | None = None) -> float:
    """Return the largest error of a naive row as a share of the error that the row must expect."""
    errors, chosen = row_norms(naive - exact), slice(None) if rows is None else rows
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(expected.error > 0.0, errors / expected.error, 0.0)[chosen]
    return _worst(shares)


def row_bounds(exact: Floats, expected: Expected, share: float, dtype: torch.dtype) -> Floats:
    """Return the most that each row may be off: twice what the naive evaluation loses, and one rounding of the result.

    Parameters
    ----------
    exact : ndarray of float64, shape (..., rows, width)
    expected : Expected
        Of each row, to first order; the scale of its bound.
    share : float
        How much of it shows up in the naive evaluation (`naive_share`).
    dtype : torch.dtype
        Of the result.

    Returns
    -------
    bound : ndarray of float64, shape (..., rows)

    Notes
    -----
    ``max(2 * share, 1) * expected + u * norm(exact)``, and the smallest numbers of the dtype.  The expected error takes
    every rounding at its largest, so a share of 1/2 and below says no more than that few rows were there to look at: a
    row with one key may have a naive error of 0.

    The proven bounds, `entmax_ref.bounds`, do not appear: they hold for one way of computing (the block of a sum, the
    tolerance of a search, a centre).  Taking the worst case at every step they are 20 to 1000 times larger in float32.
    In 16 bits they would lower the bound of a row, one with a single term, to half of it at best.
    """
    info = torch.finfo(dtype)
    tiny = max(info.smallest_normal * info.eps / 2.0, TINIEST) * math.sqrt(exact.shape[-1])
    return max(2.0 * share, 1.0) * expected.error + info.eps / 2.0 * row_norms(exact) + tiny


def compare_rows(
    result: Floats,
    exact: Floats,
    naive: Floats,
    expected: Expected,
    dtype: torch.dtype,
    rows: Booleans | None = None,
) -> RowsComparison:
    """Judge every row of one tensor: the one function that says whether an output or a gradient is right.

    Parameters
    ----------
    result, exact, naive : ndarray of float64, shape (batch, heads, rows, width)
        Of the implementation, of the oracle, and of `naive.naive_attention`.
    expected : Expected
        From `rounding.expected_errors`.
    dtype : torch.dtype
        Of the operands and the result.
    rows : ndarray of bool, shape (batch, heads, rows), optional
        Which to judge; all by default.

    Returns
    -------
    RowsComparison
    """
    chosen = np.ones(exact.shape[:-1], dtype=np.bool_) if rows is None else rows
    places = np.argwhere(chosen)
    if not len(places):
        return RowsComparison(0.0, 0.0, (), 0, 0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    share = naive_share(naive, exact, expected, chosen)
    with np.errstate(over="ignore", invalid="ignore"):
        errors, lost = row_norms(result - exact)[chosen], row_norms(naive - exact)[chosen]
    norms, allowed = row_norms(exact)[chosen], row_bounds(exact, expected, share, dtype)[chosen]
    terms = expected.terms[chosen]
    size = np.where((norms > allowed) | (terms == 0.0), norms, terms)
    size = np.where(size > 0.0, size, 1.0)
    worst = int(np.argmax(np.where(np.isnan(errors), np.inf, errors / allowed)))
    unit = torch.finfo(dtype).eps / 2.0
    whole = max(2.0 * float(np.linalg.norm(lost)), float(np.linalg.norm(expected.error[chosen])))
    whole_budget = whole + unit * float(np.linalg.norm(norms))
    total = float(np.linalg.norm(size))
    nonzero = norms > np.finfo(np.float64).eps * exact.shape[-1] * terms
    seen = allowed[nonzero] / norms[nonzero]
    return RowsComparison(
        error=float(errors[worst] / size[worst]),
        budget=float(allowed[worst] / size[worst]),
        row=tuple(int(index) for index in places[worst]),
        rows=len(places),
        over=int(np.count_nonzero(~(errors <= allowed))),
        naive=share,
        naive_limit=math.sqrt(2.0 * math.log(max(len(places) * exact.shape[-1], 2))),
        sensitivity=float(np.median(seen)) if seen.size else 0.0,
        share_noticing_2_percent=float(np.mean(seen < 0.02)) if seen.size else 1.0,
        share_hidden=float(np.mean(seen >= 1.0)) if seen.size else 0.0,
        whole=float(np.linalg.norm(errors)) / total,
        whole_budget=whole_budget / total,
    )


def judge_results(
    found: Mapping[str, Floats],
    exact: Mapping[str, Floats],
    naive: NaiveResult,
    expected: Mapping[str, Expected],
    dtype: torch.dtype,
    *,
    names: tuple[str, ...] = NAMES,
    rows: Booleans | None = None,
) -> dict[str, RowsComparison]:
    """Judge every row of the output and of the gradients; what `judge` and the tests have in common.

    Parameters
    ----------
    found, exact : mapping of str to ndarray of float64
        By the names ``out``, ``d_query``, ``d_key``, ``d_value``.
    naive : NaiveResult
    expected : mapping of str to Expected
    dtype : torch.dtype
        Of the operands and the results.
    names : tuple of str
        Those that mean something.
    rows : ndarray of bool, shape (batch, heads, n_queries), optional
        The queries whose rows of ``out`` and ``d_query`` mean something; all by default.

    Returns
    -------
    dict of RowsComparison
    """
    return {
        name: compare_rows(
            found[name],
            exact[name],
            getattr(naive, name).numpy(),
            expected[name],
            dtype,
            rows if name in ("out", "d_query") else None,
        )
        for name in names
    }


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

    names = ("out", *compared_gradients(load))
    found, exact = ({name: getattr(part, name) for name in names} for part in (answer, truth))
    comparisons |= judge_results(found, exact, naive, truth.expected, load.query.dtype, names=names, rows=~nan_rows)
    comparisons["mass"] = Comparison(_worst(np.abs(answer.mass - 1.0)[ordinary]), answer.tolerance)
    comparisons["tau"] = tau_comparison(truth, answer.tau, answer.tolerance, ordinary)
    if is_kernel:
        comparisons["residual"] = Comparison(_worst(answer.residual[ordinary]), answer.tolerance)
    for name, comparison in comparisons.items():
        if not comparison.passed:
            failures.append(comparison.failure(name))

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
