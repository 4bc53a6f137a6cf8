"""Which checks are there for rows, whom are they for, and on which examples?"""

from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from entmax_ref.conformance import loss_checks as losses
from entmax_ref.conformance import row_checks as judge
from entmax_ref.conformance import row_gradient_checks as gradients
from entmax_ref.conformance.case import Case
from entmax_ref.conformance.check import Check, always, checks, unless
from entmax_ref.conformance.precision import rounded
from entmax_ref.conformance.row_strategies import fits, flat_cases, lengths, row_cases
from entmax_ref.conformance.target import RowTarget

_SMALL_ALPHA = 1.02
_no_iterations = unless("a number of iterations", "more_iterations")
_no_gradient = unless("a gradient", "vjp")
_no_empty_row = unless("a row without a key", "empty")
_no_alpha_gradient = unless("a gradient of alpha", "d_alpha")


def _of(*, hidden: bool = False, offset: bool = False, vectors: tuple[str, ...] = (), short: int = 2**20) -> Any:
    """Return how plain cases are drawn; rows with hidden keys only for targets that take them."""

    def draw(target: RowTarget, dtype: str, most: int) -> Any:
        visible = not (hidden and target.hidden)
        cases = row_cases(target, dtype, min(most, short), hidden=not visible, offset=offset, vectors=vectors)
        return cases.filter(fits)

    return draw


@st.composite
def _shifted(draw: st.DrawFn, target: RowTarget, dtype: str, most: int) -> Case:
    """Draw rows on a grid of eighths, and a shift that the dtype adds to them without rounding."""
    least, longest = target.lengths
    grid = st.lists(st.integers(-16, 16).map(lambda k: k / 8), min_size=least, max_size=max(least, min(10, longest)))
    n = draw(lengths(target, most))
    long = st.just(f"np.random.default_rng(1).integers(-16, 17, {n}) / 8.0")
    row = draw(st.one_of(grid.map(lambda values: f"np.array({values})"), long))
    reach = {"float64": 2.0**40, "float32": 2.0**18, "bfloat16": 8.0, "float16": 64.0}[dtype]
    offset = draw(st.sampled_from((1.0, -2.0, reach, -reach)))
    return Case(draw(st.sampled_from(target.alphas)), dtype, {"scores": row, "offset": f"np.array({offset})"})


def _limit(target: RowTarget, dtype: str, most: int) -> Any:
    near = [alpha for alpha in target.alphas if alpha <= _SMALL_ALPHA]
    return row_cases(target, dtype, most, alphas=near).filter(fits)


@st.composite
def _hidden(draw: st.DrawFn, target: RowTarget, dtype: str, most: int) -> Case:
    """Draw rows in which every second or third key is hidden, the last one never."""
    case = draw(_of()(target, dtype, most))
    row = case.texts["scores"]
    n = len(case["scores"])
    every = draw(st.integers(2, 3))
    text = f"np.where((np.arange({n}) % {every} == 0) & (np.arange({n}) < {n - 1}), -inf, {row})"
    return Case(case.alpha, dtype, {"scores": text})


@st.composite
def _empty(draw: st.DrawFn, target: RowTarget, dtype: str, most: int) -> Case:
    n = draw(lengths(target, most))
    texts = {"scores": f"np.full({n}, -inf)", "d_probs": f"np.ones({n})"}
    return Case(draw(st.sampled_from(target.alphas)), dtype, texts)


@st.composite
def _nonfinite(draw: st.DrawFn, target: RowTarget, dtype: str, most: int) -> Case:
    case = draw(_of(hidden=True)(target, dtype, most))
    row, n = case.texts["scores"], len(case["scores"])
    odd, at = draw(st.sampled_from(("nan", "inf"))), draw(st.integers(0, n - 1))
    return Case(case.alpha, dtype, {"scores": f"np.where(np.arange({n}) == {at}, {odd}, {row})"})


@st.composite
def _among(draw: st.DrawFn, target: RowTarget, dtype: str, most: int) -> Case:
    """Draw a row, and one to stand next to it; NaN in the latter where the target says what becomes of it."""
    case = draw(_of(hidden=True)(target, dtype, most))
    n = len(case["scores"])
    others = [f"np.full({n}, 2.0)", f"np.arange({n}) * -3.0", f"np.random.default_rng(5).normal(size={n}) * 8.0"]
    others += [f"np.full({n}, nan)"] if target.nonfinite else []
    return Case(case.alpha, dtype, {**case.texts, "others": draw(st.sampled_from(others))})


@st.composite
def _differences(draw: st.DrawFn, target: RowTarget, dtype: str, most: int) -> Case:
    """Draw rows without an offset, so that a small step is not lost to rounding."""
    case = draw(_of(vectors=("d_probs", "way"), short=64)(target, dtype, most))
    return Case(case.alpha, dtype, {**case.texts, "scores": f"np.clip({case.texts['scores']}, -8.0, 8.0)"})


def _second(target: RowTarget) -> str:
    if target.second is None:
        return "second derivatives are not claimed"
    return "" if min(target.alphas) <= 2.0 else "no alpha up to 2 is claimed"


@st.composite
def _spread(draw: st.DrawFn, target: RowTarget, dtype: str, most: int) -> Case:
    """Draw rows with few keys, far apart, whose second derivatives are moderate."""
    values = draw(st.lists(st.integers(-16, 16).map(lambda k: k / 8), min_size=max(2, target.lengths[0]), max_size=6))
    n = len(values)
    texts = {"scores": f"np.array({values})"}
    texts |= {name: f"np.random.default_rng({draw(st.integers(0, 9))}).normal(size={n})" for name in ("d_probs", "way")}
    return Case(draw(st.sampled_from([alpha for alpha in target.alphas if alpha <= 2.0])), dtype, texts)


def _make() -> tuple[Check, ...]:
    with_vector = _of(hidden=True, vectors=("d_probs",))
    rows = [
        ("probabilities", "threshold_unique", always, _of(hidden=True), judge.probabilities, 1.0),
        ("row_sum", "threshold_unique", always, _of(hidden=True), judge.row_sum, 1.0),
        ("nonnegative", "contract", always, _of(hidden=True), judge.nonnegative, 0.5),
        ("support", "threshold_unique", always, _of(hidden=True), judge.support, 1.0),
        ("shift", "threshold_shift", always, _shifted, judge.shift, 0.5),
        ("offset", "threshold_shift", always, _of(offset=True), judge.probabilities_at_an_offset, 1.0),
        ("permutation", "contract", always, _of(hidden=True), judge.permutation, 0.5),
        ("monotone", "contract", always, _of(), judge.monotone, 0.5),
        ("softmax_limit", "contract", _no_small_alpha, _limit, judge.softmax_limit, 0.5),
        ("threshold", "residual_bound", unless("tau", "threshold"), _of(), judge.threshold, 1.0),
        ("hidden_keys", "threshold_subset", unless("a score of -inf", "hidden"), _hidden, judge.hidden_keys, 0.5),
        ("empty_row", "contract", _no_empty_row, _empty, judge.empty_row, 0.2),
        ("nonfinite_row", "contract", unless("NaN", "nonfinite"), _nonfinite, judge.nonfinite_row, 0.3),
        ("neighbours", "contract", always, _among, judge.neighbours, 0.5),
        ("deterministic", "contract", always, _of(hidden=True), judge.deterministic, 0.3),
        ("strides", "contract", unless("an array with other strides", "strides"), _of(), judge.strides, 0.3),
        ("iterations", "refine_loop_certifies", _no_iterations, _of(hidden=True), judge.iterations, 1.0),
        ("operands_kept", "contract", always, _of(), judge.operands_kept, 0.2),
    ]
    gradient = [
        ("gradient", "jacobian_form", _no_gradient, with_vector, gradients.gradient, 1.0),
        ("gradient_sum", "jacobian_rows_zero", _no_gradient, with_vector, gradients.gradient_sum, 0.5),
        ("gradient_outside", "jacobian_form", _no_gradient, with_vector, gradients.gradient_outside, 0.5),
        ("finite_differences", "jacobian_form", _no_gradient, _differences, gradients.finite_differences, 0.5),
        ("empty_gradient", "contract", _no_empty_gradient, _empty, gradients.empty_gradient, 0.2),
        ("second_order", "contract", _second, _spread, gradients.second_order, 0.5),
        ("loss", "contract", unless("a loss", "loss"), _right_key, losses.loss, 0.5),
        ("loss_gradient", "contract", unless("a loss", "loss_grad"), _right_key, losses.loss_gradient, 0.5),
        ("alpha_gradient", "alpha_derivative", _no_alpha_gradient, _of_alpha, gradients.alpha_gradient, 0.5),
    ]  # fmt: skip
    flat = [("long_flat_mass", "refine_loop_certifies", always, flat_cases, judge.row_sum, 0.3)]
    return checks("rows", rows=rows, gradient=gradient, long=flat)


def _no_small_alpha(target: RowTarget) -> str:
    return "" if min(target.alphas) <= _SMALL_ALPHA else f"no alpha up to {_SMALL_ALPHA} is claimed"


def _no_empty_gradient(target: RowTarget) -> str:
    return _no_gradient(target) or _no_empty_row(target)


@st.composite
def _of_alpha(draw: st.DrawFn, target: RowTarget, dtype: str, most: int) -> Case:
    """Draw cases whose alpha the dtype holds, since it is a tensor here."""
    case = draw(_of(vectors=("d_probs",), short=64)(target, dtype, most))
    alpha = float(rounded(case.alpha, dtype))
    assume(alpha > 1.0)
    return Case(alpha, dtype, case.texts)


@st.composite
def _right_key(draw: st.DrawFn, target: RowTarget, dtype: str, most: int) -> Case:
    case = draw(_of()(target, dtype, most))
    return Case(case.alpha, dtype, case.texts, {"index": draw(st.integers(0, len(case["scores"]) - 1))})


ROW_CHECKS = _make()
