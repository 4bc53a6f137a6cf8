"""How does a reader see a failure for himself?  A program that needs the library and, if it can be, no more."""

import numpy as np

from entmax_ref.conformance.case import Case
from entmax_ref.conformance.precision import Floats
from entmax_ref.conformance.target import RowTarget, Target

_SHOWN = 16  # values of an operand that are written out; a longer one is written as its expression


def _number(value: float) -> str:
    return f"float('{value}')" if not np.isfinite(value) else repr(value)


def _operand(values: Floats, text: str) -> str:
    """Return an expression for an operand, as short as it can be and as exact as it has to be."""
    if values.ndim == 1 and values.size <= _SHOWN:
        return f"[{', '.join(_number(float(value)) for value in values)}]"
    return text.replace("-inf", "-np.inf").replace(" inf", " np.inf").replace(" nan", " np.nan")


def reproduction(target: Target, check: str, case: Case) -> str:
    """Return the program for an example that fails.

    Parameters
    ----------
    target : Target
        With `Target.call` the program calls the library; without it, it asks the suite again.
    check : str
    case : Case

    Returns
    -------
    str

    Examples
    --------
    >>> from entmax_ref.conformance.adapters.oracle import rows
    >>> print(reproduction(rows(), "row_sum", Case(1.5, "float64", {"scores": "np.array([0.0, 1.0])"})))
    import numpy as np, torch
    import entmax_ref
    alpha = 1.5
    scores = torch.tensor(np.array([[0.0, 1.0]]), dtype=torch.float64).requires_grad_()
    print(entmax_ref.entmax(scores, alpha))  # row_sum
    """
    if not target.call or not isinstance(target, RowTarget) or "index" in case.options:
        found = f"target = next(one for one in load({target.source!r}) if one.name == {target.name!r})"
        return "\n".join(
            [
                "from entmax_ref.conformance import Case, load, replay",
                found if target.source else f"# target: {target.name}, which was not loaded by its name",
                f"print(replay(target, {check!r}, {case!r}))",
            ]
        )
    lines = ["import numpy as np, torch", *([target.imports] if target.imports else []), f"alpha = {case.alpha!r}"]
    for name, text in case.texts.items():
        if name not in ("offset", "others"):
            row = f"np.array([{_operand(case[name], text)}])"
            leaf = ".requires_grad_()" if name == "scores" else ""
            lines.append(f"{name} = torch.tensor({row}, dtype=torch.{case.dtype}){leaf}")
    if "offset" in case.texts:
        moved = target.call.replace("scores", f"scores + {float(case['offset'])!r}")
        lines.append(f"print({moved})")
    lines.append(f"print({target.call})  # {check}")
    if "d_probs" in case.texts:
        lines.append(f"print(torch.autograd.grad({target.call}, scores, d_probs)[0])")
    return "\n".join(lines)
