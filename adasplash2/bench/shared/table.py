"""What is a table?  Headings and rows of text, and how numbers and columns are set in a terminal."""

from __future__ import annotations

import dataclasses

MISSING = "-"


@dataclasses.dataclass(frozen=True)
class Table:
    """Headings and rows of text; the first column is words, the others are numbers."""

    name: str
    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def text_lines(table: Table) -> list[str]:
    """Return a table in columns of equal width."""
    lines = [table.headings, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.headings))]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits, or a dash."""
    if value is None:
        return MISSING
    if value != value:
        return "nan"
    if value >= 10.0 ** (digits - 1):
        return f"{value:.0f}"
    return f"{value:#.{digits}g}".rstrip(".")
