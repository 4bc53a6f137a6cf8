"""Where does a record come from, and what is missing in it?  The lines below its tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from .record import Header, Timed


class Turns(Protocol):
    """What records of contenders that take turns share."""

    @property
    def header(self) -> Header:
        """Where, when and how."""

    @property
    def rounds(self) -> int:
        """Turns a case."""

    @property
    def asked(self) -> int:
        """Cases that were to run."""

    @property
    def results(self) -> Sequence[Any]:
        """Those that did."""

    @property
    def packages(self) -> dict[str, str]:
        """Versions of contenders that are packages."""


def contest_lines(record: Turns) -> list[str]:
    """Return card, versions, date and command, and how often the contenders took turns, in which versions."""
    packages = ", ".join(f"{name} {version}" for name, version in record.packages.items())
    turns = f"Contenders took {record.rounds} turns a case" + (f"; {packages}." if packages else ".")
    return [*header_lines(record.header), turns]


def gap(record: Turns) -> list[str]:
    """Return a line if cases are missing."""
    done = len(record.results)
    return [f"INCOMPLETE: {done} of {record.asked} cases."] if done < record.asked else []


def header_lines(header: Header) -> list[str]:
    """Return card, versions, date and command."""
    machine = header.machine
    return [
        f"{machine.device_name}, torch {machine.torch}, triton {machine.triton}, adasplash2 {machine.adasplash2}, "
        f"{header.date[:10]}.",
        f"Command: {header.command}",
    ]


def missing(entries: Iterable[tuple[str, Timed]], titles: Mapping[str, str]) -> list[str]:
    """Return, once each, why a contender did not run, and in which of the cases, given as (label, entry)."""
    return with_places(
        (f"{titles[entry.name]} {entry.status}: {entry.note}", label)
        for label, entry in entries
        if entry.status != "ok"
    )


def with_places(said: Iterable[tuple[str, str]]) -> list[str]:
    """Return what was said of labels, once each: (line, label)."""
    found: dict[str, list[str]] = {}
    for line, label in said:
        found.setdefault(line, []).append(label)
    return [
        f"{line} ({labels[0] if len(labels) == 1 else f'{len(labels)} cases, first {labels[0]}'})"
        for line, labels in found.items()
    ]
