"""What do the records of all benchmarks share?  Where and when they were made, times, and the way to JSON and back."""

from __future__ import annotations

import dataclasses
import datetime
import json
import statistics
from pathlib import Path
from typing import Any, TypeVar

from adasplash2.runs.machine import Machine
from adasplash2.runs.plain import from_plain, to_plain

SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class Timed:
    """How a contender fared in a case, and its times.

    Attributes
    ----------
    name : str
    status : str
        "ok"; "refused", if it does not take such a call or was not to be run; "failed", if it raised.
    note : str
        Why, if not "ok".
    first_call_s : float or None
        Seconds of the first forward and backward, compilation included unless it was cached.
    forward_ms, step_ms : tuple of float
        One median a round, of the forward without gradient and of forward and backward.
    """

    name: str
    status: str = "ok"
    note: str = ""
    first_call_s: float | None = None
    forward_ms: tuple[float, ...] = ()
    step_ms: tuple[float, ...] = ()

    def ms(self, part: str) -> float | None:
        """Return the median of the rounds of "forward" or "step"; None if there is none."""
        series = self.forward_ms if part == "forward" else self.step_ms
        return statistics.median(series) if series else None


@dataclasses.dataclass(frozen=True)
class Header:
    """Where, when and how a record was made."""

    date: str
    command: str
    machine: Machine

    @classmethod
    def now(cls, command: str, machine: Machine) -> Header:
        """Return the header of a run that starts now."""
        return cls(datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), command, machine)


Kept = TypeVar("Kept")


def write_record(path: Path, record: Any) -> None:
    """Write a record, first to a file beside it, so that an interrupted run leaves the last whole one."""
    text = json.dumps(to_plain(record), indent=1, allow_nan=False) + "\n"
    path = path.resolve()  # a link stays one
    if path.exists() and not path.is_file():  # a device or a pipe is written to, not replaced
        path.write_text(text, encoding="utf-8")
        return
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def read_record(path: Path, kind: type[Kept]) -> Kept:
    """Return the record in a file.

    Raises
    ------
    ValueError
        If it is of another kind, or of another version of the schema.
    """
    plain = json.loads(path.read_text(encoding="utf-8"))
    expected = {field.name: field.default for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in ("kind", "schema"):
        if plain.get(name) != expected[name]:
            raise ValueError(f"{path.name}: {name} must be {expected[name]!r}, got {plain.get(name)!r}. Make it again.")
    found: Kept = from_plain(kind, plain)
    return found
