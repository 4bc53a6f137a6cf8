"""What does a result say?  Times of a contender, ratios of ours to another, and how far rounds lie apart."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from .contenders import TITLES
from .record import CaseResult, Entry


def present(results: Iterable[CaseResult]) -> list[str]:
    """Return the contenders that took part or were to, in the order of ``TITLES``."""
    seen = {entry.name for result in results for entry in result.entries}
    return [name for name in TITLES if name in seen]


def entry_of(result: CaseResult, name: str) -> Entry | None:
    """Return a contender's entry in a case."""
    return next((entry for entry in result.entries if entry.name == name), None)


def time_of(result: CaseResult, name: str, part: str) -> float | None:
    """Return a contender's median of medians, of ``part`` "forward" or "step"; None if there is none."""
    entry = entry_of(result, name)
    return None if entry is None else entry.ms(part)


def spread_of(result: CaseResult) -> float | None:
    """Return the largest ``(highest - lowest) / median`` between the rounds of any contender."""
    found = [
        (max(series) - min(series)) / statistics.median(series)
        for entry in result.entries
        for series in (entry.forward_ms, entry.step_ms)
        if series
    ]
    return max(found) if found else None


def ratio_of(result: CaseResult, name: str, part: str) -> float | None:
    """Return our time over a contender's, or over the floor if ``name`` is "floor"."""
    ours = time_of(result, "ours", part)
    if name == "floor":
        other = None if result.floor is None else getattr(result.floor, f"{part}_ms")
    else:
        other = time_of(result, name, part)
    return ours / other if ours is not None and other else None
