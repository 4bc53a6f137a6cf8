"""How fast, and in how many passes?  Tables and plots made from records of ``adasplash2 bench`` when pages are built.

``bench-table FILE NAME`` shows one table of a record, by the name that the report of its benchmark gives it;
``bench-plot FILE`` draws it, ``bench-notes FILE`` says what is missing in it and how it was made. Where a record has
not been committed yet, a sentence stands in its place.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from docutils import nodes
from evidence import RESULTS, Record, table_row
from sphinx.application import Sphinx

from adasplash2.bench.attention import plot, report
from adasplash2.bench.attention.record import SpeedRecord
from adasplash2.bench.passes import report as pass_report
from adasplash2.bench.passes.count import PassRecord
from adasplash2.bench.rows import report as row_report
from adasplash2.bench.rows.measure import RowRecord
from adasplash2.bench.shared.record import read_record
from adasplash2.bench.shared.table import Table
from adasplash2.bench.ways import report as way_report
from adasplash2.bench.ways.measure import WayRecord

Kept = SpeedRecord | PassRecord | RowRecord | WayRecord


class Kind(NamedTuple):
    """How a record of one kind is read, and made into tables, a figure and remarks with its origin."""

    record: type[Kept]
    tables: Callable[[Any], list[Table]]
    figure: Callable[[Any], Any]
    notes: tuple[Callable[[Any], list[str]], Callable[[Any], list[str]]]


KINDS = {
    "attention": Kind(SpeedRecord, report.speed_tables, plot.speed_figure, (report.remarks, report.origin)),
    "passes": Kind(
        PassRecord, pass_report.pass_tables, pass_report.pass_figure, (pass_report.answers, pass_report.pass_origin)
    ),
    "rows": Kind(
        RowRecord, row_report.row_tables, row_report.row_figure, (row_report.row_remarks, report.contest_lines)
    ),
    "ways": Kind(
        WayRecord, way_report.way_tables, way_report.way_figure, (way_report.way_remarks, report.contest_lines)
    ),
}


class BenchRecord(Record):
    """A directive about a record of ``adasplash2 bench``."""

    def kept(self) -> Kept | None:
        """Return the record; None if there is none yet."""
        path = RESULTS / self.arguments[0]
        self.env.note_dependency(str(path))
        if not path.is_file():
            return None
        return read_record(path, KINDS[self.record()["kind"]].record)

    def run(self) -> list[nodes.Node]:
        """Return what the record says, or that there is none."""
        record = self.kept()
        if record is None:
            return self.parsed([f"*Not measured yet: there is no* ``docs/results/{self.arguments[0]}``."])
        return self.shown(record)

    def shown(self, record: Kept) -> list[nodes.Node]:
        """Return what the directive shows of a record."""
        raise NotImplementedError


class BenchTable(BenchRecord):
    """One table of a record, as a list-table."""

    required_arguments = 2
    final_argument_whitespace = True

    def shown(self, record: Kept) -> list[nodes.Node]:
        """Return the table."""
        named = {table.name: table for table in KINDS[record.kind].tables(record)}
        if self.arguments[1] not in named:
            return self.parsed([f"*This record has no {self.arguments[1]}.*"])
        table = named[self.arguments[1]]
        lines = [f".. list-table:: {table.title}", "   :header-rows: 1", "   :class: bench", ""]
        for row in (table.headings, *table.rows):
            lines += table_row(literal(cell) for cell in row)
        return self.parsed(lines)


class BenchPlot(BenchRecord):
    """The plot of a record, as SVG within the page."""

    def shown(self, record: Kept) -> list[nodes.Node]:
        """Return the drawing."""
        drawn = io.StringIO()
        KINDS[record.kind].figure(record).savefig(drawn, format="svg", metadata={"Date": None})
        # The page sets the width; the rest is an XML document's head, which has no place inside a page.
        svg = drawn.getvalue()
        svg = re.sub(
            r'width="[\d.]+pt" height="[\d.]+pt"', 'width="100%" role="img"', svg[svg.index("<svg") :], count=1
        )
        return [nodes.raw("", svg, format="html")]


class BenchNotes(BenchRecord):
    """Answers and gaps of a record, and how it was made."""

    def shown(self, record: Kept) -> list[nodes.Node]:
        """Return a list."""
        return self.parsed(bullets(line for note in KINDS[record.kind].notes for line in note(record)))


def literal(cell: str) -> str:
    """Return a cell as reStructuredText that shows it as it is."""
    return re.sub(r"([*|`_\\])", r"\\\1", cell)


def bullets(lines: Iterable[str]) -> list[str]:
    """Return lines as a list; a command is set as one."""
    return [
        f"- Command: ``{line.removeprefix('Command: ')}``" if line.startswith("Command: ") else f"- {literal(line)}"
        for line in lines
    ]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("bench-table", BenchTable)
    app.add_directive("bench-plot", BenchPlot)
    app.add_directive("bench-notes", BenchNotes)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
