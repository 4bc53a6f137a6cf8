"""What is one example?  Operands written as NumPy expressions, so that one that fails can be printed and rerun."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from entmax_ref.conformance.precision import Floats, rounded

# What an expression may name besides np: the letters that reprs of arrays hold.
_NAMES: dict[str, Any] = {"np": np, "inf": np.inf, "nan": np.nan}


def evaluated(expression: str) -> Floats:
    """Return the float64 array that an expression of NumPy stands for."""
    return np.asarray(eval(expression, dict(_NAMES)), dtype=np.float64)


def written(values: Floats) -> str:
    """Return an expression for the values, exact to the last digit."""
    return f"np.array({np.asarray(values, dtype=np.float64).tolist()})"


@dataclass(frozen=True)
class Case:
    """An example: what a check is judged on.

    Attributes
    ----------
    alpha : float
    dtype : str
        To which the operands are rounded.
    texts : mapping of str to str
        Expressions of the operands, by name.
    options : mapping of str to object
        What else the check needs, such as ``is_causal``.
    """

    alpha: float
    dtype: str
    texts: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Floats:
        """Return an operand, rounded to the dtype."""
        return rounded(evaluated(self.texts[name]), self.dtype)

    def __repr__(self) -> str:
        """Return the call that makes this case."""
        rest = f", {dict(self.options)!r}" if self.options else ""
        return f"Case({self.alpha!r}, {self.dtype!r}, {dict(self.texts)!r}{rest})"
