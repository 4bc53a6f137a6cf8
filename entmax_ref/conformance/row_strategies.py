"""Which rows are drawn?  Those that are hard for a threshold, as NumPy expressions that shrink to short ones."""

import math
from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from entmax_ref.conformance.case import Case
from entmax_ref.conformance.precision import FORMATS
from entmax_ref.conformance.target import Target

# Around every edge of a tile and every power of two that kernels like.
_EDGES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
LENGTHS = (1, 2, 3, 4, 5, 7, 8, 9, *(edge + off for edge in _EDGES for off in (-1, 0, 1)))
LONG = (16384, 16385, 32768, 65536, 131072, 262144, 1048576)
_OFFSETS = (1.0, -2000.0, 1e4, -1e4, 1e6, 1e8, -1e8)

_plain = st.floats(-4.0, 4.0, allow_subnormal=True, width=32)
_grid = st.integers(-16, 16).map(lambda k: k / 8)  # ties, exact in every dtype
_near = st.integers(-4, 4).map(lambda k: k * 2.0**-20)
_wide = st.floats(-1e3, 1e3, width=16)
_subnormal = st.integers(-8, 8).map(lambda k: k * 2.0**-149)


def lengths(target: Target, most: int) -> SearchStrategy[int]:
    """Return lengths of rows that the target takes, none above ``most``, shortest first."""
    least, longest = target.lengths
    fitting = [n for n in (*LENGTHS, *LONG) if least <= n <= min(most, longest)]
    return st.sampled_from(fitting or [least])


@st.composite
def listed(draw: st.DrawFn, least: int = 1, most: int = 10) -> str:
    """Return a short row, score by score."""
    kind = draw(st.sampled_from((_grid, _plain, _near, _wide, _subnormal)))
    return f"np.array({draw(st.lists(kind, min_size=max(least, 1), max_size=max(most, least, 1)))})"


@st.composite
def recipes(draw: st.DrawFn, n: int, alpha: float) -> str:
    """Return a row of n keys of one of the hard kinds."""
    seed = draw(st.integers(0, 999))
    rng = f"np.random.default_rng({seed})"
    kind = draw(
        st.sampled_from(
            ("equal", "levels", "spike", "plateau", "levels", "ties", "near", "gauss", "clusters", "tail", "decay")
        )
    )
    if kind == "equal":
        return f"np.full({n}, {draw(st.sampled_from((0.0, 1.0, -3.0)))})"
    if kind == "spike":
        return f"np.eye(1, {n}, {draw(st.integers(0, n - 1))})[0] * {draw(st.sampled_from((1.0, 2.0, 0.5, 30.0)))}"
    if kind == "plateau":
        top = draw(st.integers(1, n))
        return f"np.repeat([0.0, {plateau_level(top, alpha, draw(st.integers(-6, 6)))}], [{top}, {n - top}])"
    if kind == "levels":
        depths = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
        first = draw(st.integers(1, min(n, 8)))
        second = draw(st.integers(0, min(n - first, 64)))
        low = [round(-depth / 40.0 / max(alpha - 1.0, 0.125), 6) for depth in depths]
        return f"np.repeat([0.0, {low[0]}, {low[1]}], [{first}, {second}, {n - first - second}])"
    if kind == "ties":
        return f"{rng}.integers(-8, 9, {n}) / 8.0"
    if kind == "near":
        return f"{rng}.normal(size={n}) * {draw(st.sampled_from((0.02, 0.2, 1e-3, 1e-6)))}"
    if kind == "clusters":
        return f"{rng}.choice([0.0, -0.5, -1.0], {n}) + 1e-4 * {rng}.normal(size={n})"
    if kind == "tail":
        return f"{rng}.standard_cauchy({n})"
    if kind == "decay":
        return f"-np.arange({n}) * {draw(st.sampled_from((1.0, 0.125, 0.01)))}"
    return f"{rng}.normal(size={n}) * {draw(st.sampled_from((1.0, 4.0, 16.0, 0.25)))}"


def plateau_level(top: int, alpha: float, nudge: int) -> float:
    """Return a score just below (``nudge`` above 0) or above the threshold of ``top`` keys at 0."""
    step = alpha - 1.0
    # With top keys at 0, tau is -top ** -step in the unit of z; log(top) is the limit for alpha 1, which has no end.
    depth = math.exp(-step * math.log(top)) / step if step else 1.0 + math.log(top)
    return -depth * (1.0 + math.copysign(2.0 ** (-3 * abs(nudge)), nudge))


@st.composite
def finite_row(draw: st.DrawFn, target: Target, alpha: float, most: int) -> str:
    """Return a row of finite scores."""
    least, longest = target.lengths
    if least <= 10 and draw(st.integers(0, 3)) == 3:
        return draw(listed(least, min(10, longest)))
    # Where size ** (alpha - 1) is 2 equal keys have a gap of 1/2, and a solver may go from one unknown to another.
    turn = round(2.0 ** (1.0 / (alpha - 1.0))) if alpha > 1.05 else least
    if least <= turn <= min(most, longest) and draw(st.integers(0, 7)) == 7:
        return draw(recipes(turn, alpha))
    return draw(recipes(draw(lengths(target, most)), alpha))


@st.composite
def offset_row(draw: st.DrawFn, target: Target, alpha: float, most: int) -> str:
    """Return a row of finite scores around a large number."""
    return f"{draw(finite_row(target, alpha, most))} + {draw(st.sampled_from(_OFFSETS))}"


@st.composite
def hidden_row(draw: st.DrawFn, target: Target, alpha: float, most: int) -> str:
    """Return a row with keys of ``-inf``, and at least one that is visible."""
    row, seed = draw(finite_row(target, alpha, most)), draw(st.integers(0, 99))
    every = draw(st.integers(2, 5))
    return f"np.where(np.arange(len({row})) % {every} == {seed % every}, {row}, -inf)" if seed % every == 0 else row


@st.composite
def row_cases(
    draw: st.DrawFn,
    target: Target,
    dtype: str,
    most: int,
    *,
    hidden: bool = False,
    offset: bool = False,
    alphas: Sequence[float] | None = None,
    vectors: tuple[str, ...] = (),
) -> Case:
    """Return a case with one row as ``scores`` and vectors of its length, under the names given.

    Parameters
    ----------
    target : Target
    dtype : str
    most : int
        Keys of a row, at most.
    hidden : bool
        Also rows with keys of ``-inf``.
    offset : bool
        Rows around a large number.
    alphas : sequence of float, optional
        Those of the target by default.
    vectors : tuple of str
    """
    alpha = draw(st.sampled_from(tuple(alphas or target.alphas)))
    kinds = [offset_row(target, alpha, most) if offset else finite_row(target, alpha, most)]
    kinds += [hidden_row(target, alpha, most)] if hidden else []
    row = draw(kinds[draw(st.sampled_from((0, 0, -1)))])
    texts = {"scores": row}
    for name in vectors:
        texts[name] = draw(_vector(row))
    return Case(alpha, dtype, texts)


@st.composite
def _vector(draw: st.DrawFn, row: str) -> str:
    """Return a vector of the length of a row: one key, alternating, or normal around an offset."""
    seed = draw(st.integers(0, 99))
    return draw(
        st.sampled_from(
            (
                f"np.eye(1, len({row}))[0]",
                f"(-1.0) ** np.arange(len({row}))",
                f"np.random.default_rng({seed}).normal(size=len({row}))",
                f"np.random.default_rng({seed}).normal(size=len({row})) + 8.0",
            )
        )
    )


@st.composite
def flat_cases(draw: st.DrawFn, target: Target, dtype: str, most: int) -> Case:
    """Return long rows that are flat: where a search that starts badly shows it."""
    least, longest = target.lengths
    fitting = [n for n in (1024, *LONG) if least <= n <= min(most, longest)] or [min(longest, most)]
    n, spread = draw(st.sampled_from(fitting)), draw(st.sampled_from((0.0, 0.02, 0.2, 1.0)))
    seed = draw(st.integers(0, 9))
    row = f"np.random.default_rng({seed}).normal(size={n}) * {spread}" if spread else f"np.full({n}, 1.0)"
    return Case(draw(st.sampled_from(target.alphas)), dtype, {"scores": row})


def fits(case: Case, name: str = "scores") -> bool:
    """Return whether an operand is of numbers that bounds are known for: its largest is far from overflow."""
    values = abs(case[name])
    return bool(values[values < math.inf].max(initial=0.0) < FORMATS[case.dtype].largest / 16.0)
