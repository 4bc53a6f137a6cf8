"""What came of a check?  A record that tables, pages and JSON files are made from."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from entmax_ref.conformance.case import Case

Status = Literal["passed", "failed", "known failure", "unexpected pass", "skipped"]
BAD: tuple[Status, ...] = ("failed", "unexpected pass")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one check of a target in one dtype.

    Attributes
    ----------
    target, version, check, level, claim, dtype : str
    status : str
    share : float
        The largest error as a share of its limit, over all examples that were judged; infinite if NaN, or where nothing
        was allowed.
    examples : int
        How many were judged.
    sentence : str
        What is wrong with the smallest example that fails, or why the check was skipped, or is expected to fail.
    reproduction : str
        A program that shows the failure; empty if there is none.
    case : Case or None
        The smallest example that fails.
    """

    target: str
    version: str
    check: str
    level: str
    claim: str
    dtype: str
    status: Status
    share: float
    examples: int
    sentence: str
    reproduction: str = ""
    case: Case | None = None

    @property
    def bad(self) -> bool:
        """Whether it fails the run: a failure that nobody expected, or a pass that nobody expected."""
        return self.status in BAD


def write_json(path: Path, outcomes: Sequence[Outcome], about: Mapping[str, object]) -> None:
    """Write what a run found, and what it was: budget, seed, versions."""
    whole = {"about": dict(about), "outcomes": [as_record(outcome) for outcome in outcomes]}
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def as_record(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as JSON can hold it; an infinite share is null."""
    record = {field.name: getattr(outcome, field.name) for field in dataclasses.fields(outcome)}
    record["share"] = outcome.share if outcome.share < float("inf") else None
    case = outcome.case
    record["case"] = case and {
        "alpha": case.alpha, "dtype": case.dtype, "texts": dict(case.texts), "options": dict(case.options)
    }  # fmt: skip
    return record


def from_record(record: Mapping[str, Any]) -> Outcome:
    """Return the outcome that `as_record` wrote.

    Examples
    --------
    >>> one = Outcome("t", "1", "row_sum", "rows", "contract", "float32", "passed", 0.5, 3, "")
    >>> from_record(as_record(one)) == one
    True
    """
    known = {field.name for field in dataclasses.fields(Outcome)}
    values = {name: value for name, value in record.items() if name in known}
    values["share"] = float("inf") if record["share"] is None else record["share"]
    values["case"] = Case(**record["case"]) if record.get("case") else None
    return Outcome(**values)
