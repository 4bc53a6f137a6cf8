"""What did the run find, for a program?  JSON with every number, and its schema version."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adasplash2.runs.machine import Machine
from adasplash2.runs.plain import to_plain

if TYPE_CHECKING:
    from .measure import Result

# 2: comparisons of out and gradients are those of the worst row, with what became of all of them.
SCHEMA = 2


def as_record(machine: Machine, results: list[Result], *, asked: int, seconds: float) -> dict[str, Any]:
    """Return the run as dictionaries, lists, strings and numbers; NaN and infinities as strings."""
    return {
        "schema": SCHEMA,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": dataclasses.asdict(machine),
        "seconds": round(seconds, 3),
        "cases_asked": asked,
        "passed": len(results) == asked and all(result.passed for result in results),
        "results": [to_plain(_result(result)) for result in results],
    }


def write_json(path: Path, machine: Machine, results: list[Result], *, asked: int, seconds: float) -> None:
    """Write `as_record` to a file."""
    record = as_record(machine, results, asked=asked, seconds=seconds)
    path.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _result(result: Result) -> dict[str, Any]:
    fields = dataclasses.asdict(result)
    del fields["picture"]
    fields["passed"] = result.passed
    for name, comparison in result.comparisons.items():
        fields["comparisons"][name]["passed"] = comparison.passed
    for check, found in zip(fields["stages"], result.stages, strict=True):
        check["passed"] = found.passed
    return fields
