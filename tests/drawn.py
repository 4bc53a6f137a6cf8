"""Draw rows of scores that are hard for a threshold: ties, near ties, flat rows, offsets, hidden keys."""

import numpy as np
from hypothesis import strategies as st

ALPHAS = (1.1, 1.25, 4 / 3, 1.5, 1.75, 2.0, 2.5, 4.0)
EXTREME_ALPHAS = (1.0001, 1.01, 10.0, 30.0)

_plain = st.floats(-4.0, 4.0, allow_subnormal=True)
_grid = st.integers(-16, 16).map(lambda k: k / 8)  # ties; and gaps that are exact in float64
_near = st.integers(-4, 4).map(lambda k: k * 2.0**-50)  # equal to a few units in the last place
_spread = st.floats(-1e3, 1e3)


def finite_rows(max_size=10):
    """Return rows of finite scores, of one kind each, as float64 arrays."""
    kinds = [st.lists(kind, min_size=1, max_size=max_size) for kind in (_plain, _grid, _near, _spread)]
    kinds.append(st.tuples(_plain, st.integers(1, max_size)).map(lambda pair: [pair[0]] * pair[1]))
    return st.one_of(kinds).map(np.array)


def grid_rows(max_size=10):
    """Return rows of multiples of 1/8 in [-2, 2]: shifts by integers up to 2**49 are exact."""
    return st.lists(_grid, min_size=1, max_size=max_size).map(np.array)


@st.composite
def shifted_rows(draw, max_size=10):
    """Return rows of finite scores at an offset, which rounds them, or not at all."""
    row = draw(finite_rows(max_size))
    return row + draw(st.sampled_from([0.0, 0.0, 3.0, -1e4, 1e8, -1e15, 1e300]))


@st.composite
def edge_rows(draw, alpha, threshold, max_size=6):
    """Return rows with one more key, within a few units in the last place of where tau was without it."""
    row = draw(finite_rows(max_size))
    edge = float(threshold(row, alpha)) / (alpha - 1.0)
    return np.append(row, edge + draw(st.integers(-8, 8)) * np.spacing(max(1.0, abs(edge))))


@st.composite
def masked_rows(draw, max_size=10):
    """Return a row and a boolean mask of its length."""
    row = draw(finite_rows(max_size))
    return row, np.array(draw(st.lists(st.booleans(), min_size=len(row), max_size=len(row))))
