"""What is a check?  A named question, who has to answer it, the examples to draw, and the judgement of one example."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from entmax_ref.conformance.case import Case
from entmax_ref.conformance.precision import Floats

LEVELS = ("rows", "gradient", "long", "attention", "attention_gradient")


class BadAnswer(Exception):
    """A target answered with something that cannot be judged; the message says what."""


@dataclass(frozen=True)
class Finding:
    """The judgement of one example: an error, what it may be at most, and both in a sentence."""

    error: float
    limit: float
    sentence: str

    @property
    def passed(self) -> bool:
        """Whether the error is a number within its limit; NaN never is."""
        return bool(self.error <= self.limit)

    @property
    def share(self) -> float:
        """The error as a share of its limit; infinite where NaN, or where nothing is allowed and something is."""
        if not self.error > 0.0:
            return 0.0 if self.error <= 0.0 else float("inf")
        return self.error / self.limit if self.limit > 0.0 else float("inf")


@dataclass(frozen=True)
class Check:
    """A rule that targets are held to.

    Attributes
    ----------
    name : str
    level : str
        One of `LEVELS`.
    claim : str
        The lemma of ``proofs/ledger.toml`` that the rule is, or ``contract``.
    question : str
        What it asks, in a sentence that a report can show.
    kind : str
        ``rows`` or ``attention``: which targets it is for.
    refusal : callable
        From a target to why the check does not apply, empty if it does.
    draw : callable
        ``draw(target, dtype, most)`` returns a Hypothesis strategy of cases, of rows of at most that many keys.
    judge : callable
        ``judge(target, case)`` returns a `Finding`.
    share : float
        How many examples it draws, as a share of the budget.
    """

    name: str
    level: str
    claim: str
    question: str
    kind: str
    refusal: Callable[[Any], str]
    draw: Callable[[Any, str, int], Any]
    judge: Callable[[Any, Case], Finding]
    share: float = 1.0


def always(target: Any) -> str:
    """Return no refusal: every target is held to the rule."""
    return ""


def unless(what: str, claim: str) -> Callable[[Any], str]:
    """Return a refusal for targets whose attribute ``claim`` is empty."""
    return lambda target: "" if getattr(target, claim) else f"{what} is not claimed"


def checks(kind: str, **levels: Sequence[tuple[Any, ...]]) -> tuple[Check, ...]:
    """Return the checks of each level, from rows ``(name, claim, refusal, draw, judge, share)``.

    What a check asks is the first line of its judge's docstring.
    """
    return tuple(
        Check(name, level, claim, str(judge.__doc__).strip().splitlines()[0], kind, refusal, draw, judge, share)
        for level, rows in levels.items()
        for name, claim, refusal, draw, judge, share in rows
    )


def answer(found: Any, shape: tuple[int, ...], what: str) -> Floats:
    """Return what a target answered as float64, or raise `BadAnswer` if it has another shape or type."""
    try:
        values = np.asarray(found)
    except Exception as error:
        raise BadAnswer(f"{what}: NumPy cannot read {type(found).__name__}: {_line(error)}") from error
    if values.dtype.kind not in "fiub":
        raise BadAnswer(f"{what} is an array of {values.dtype}, not of real numbers (got {type(found).__name__})")
    if values.shape != shape:
        raise BadAnswer(f"{what} has shape {values.shape}, not {shape}")
    return values.astype(np.float64)


def asked(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a target answers; an error that it raises becomes a `BadAnswer` of one line."""
    try:
        return function(*arguments)
    except Exception as error:
        raise BadAnswer(f"it raised {type(error).__name__}: {_line(error)}") from error


def _line(error: BaseException) -> str:
    """Return the first line of an error, short enough for a table."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def worst(errors: Floats, limits: Floats, sentence: Callable[[tuple[int, ...]], str]) -> Finding:
    """Return the finding of the entry that comes closest to its limit, or exceeds it most; NaN before all."""
    if not errors.size:
        return Finding(0.0, 0.0, "nothing to compare")
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(errors > 0.0, errors / np.where(limits > 0.0, limits, 1e-300), 0.0)
    shares = np.where(np.isnan(errors), np.inf, shares)
    at = np.unravel_index(int(np.argmax(shares)), errors.shape)
    place = tuple(int(index) for index in at)
    return Finding(float(errors[place]), float(np.broadcast_to(limits, errors.shape)[place]), sentence(place))


def exact(broken: Any, sentence: str) -> Finding:
    """Return the finding of a rule without a tolerance: how many entries break it."""
    return Finding(float(np.count_nonzero(broken)), 0.0, sentence)
