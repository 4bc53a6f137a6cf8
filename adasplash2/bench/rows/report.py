"""Is a map of rows near the speed of a copy, and is it right?  A table of times, one of ratios, one of errors."""

from __future__ import annotations

from typing import Any

from adasplash2.bench.shared.figure import legend_below
from adasplash2.bench.shared.origin import contest_lines, gap, missing
from adasplash2.bench.shared.table import Table, number, text_lines

from .contenders import ENTMAX, TITLES
from .measure import RowRecord, RowResult

COLOURS = {
    "ours": "#0072b2",
    "copy": "#999999",
    "softmax": "#009e73",
    "entmax_sort": "#e69f00",
    "entmax_bisect": "#d55e00",
    "adasplash": "#cc79a7",
}


def row_tables(record: RowRecord) -> list[Table]:
    """Return the tables of times, of ratios and of errors."""
    names = _present(record)
    times, ratios, errors = [], [], []
    for result in record.results:
        label = result.case.label
        times.append((label, *(_time(result, name) for name in names)))
        of_copy = number(result.ratio("copy", "forward"))
        of_softmax = (number(result.ratio("softmax", part)) for part in ("forward", "step"))
        ratios.append((label, of_copy, *of_softmax))
        for name in (name for name in names if name in ENTMAX):
            errors += _errors(result, name)
    return [
        Table("times", "Milliseconds, forward / forward and backward", ("rows", *map(TITLES.get, names)), tuple(times)),  # type: ignore[arg-type]
        Table(
            "ratios",
            "Our time over",
            ("rows", "copy, forward", "softmax, forward", "softmax, step"),
            tuple(ratios),
        ),
        Table(
            "errors",
            "Worst over the rows that are hard: abs(mass - 1), keys wrongly in and out, relative errors; where",
            ("rows", "contender", "mass", "in", "out", "probs", "d_scores", "worst mass in"),
            tuple(errors),
        ),
    ]


def _present(record: RowRecord) -> list[str]:
    seen = {entry.name for result in record.results for entry in result.entries}
    return [name for name in TITLES if name in seen]


def _time(result: RowResult, name: str) -> str:
    entry = result.entry(name)
    if entry is None or not entry.forward_ms:
        return "-" if entry is None else entry.status
    return f"{number(entry.ms('forward'))} / {number(entry.ms('step'))}"


def _errors(result: RowResult, name: str) -> list[tuple[str, ...]]:
    entry = result.entry(name)
    if entry is None or not entry.errors:
        return []

    def worst(field: str) -> float:
        values = [getattr(error, field) for error in entry.errors]
        return float("nan") if any(value != value for value in values) else max(values)

    where = max(entry.errors, key=lambda error: (error.mass != error.mass, error.mass)).workload
    counts = (str(sum(getattr(error, field) for error in entry.errors)) for field in ("false_in", "false_out"))
    ends = (f"{worst(field):.1e}" for field in ("probs", "d_scores"))
    return [(result.case.label, TITLES[name], f"{worst('mass'):.1e}", *counts, *ends, where)]


def row_text(record: RowRecord) -> str:
    """Return what the command prints."""
    parts: list[str] = []
    for table in row_tables(record):
        if table.rows:
            parts += [table.title, *text_lines(table), ""]
    return "\n".join([*parts, *row_remarks(record), *contest_lines(record)])


def row_remarks(record: RowRecord) -> list[str]:
    """Return what is missing: contenders that did not run, and cases."""
    entries = [(result.case.label, entry) for result in record.results for entry in result.entries]
    return [*gap(record), *missing(entries, TITLES)]


def row_figure(record: RowRecord) -> Any:
    """Return a figure: times over a copy's, forward and step, against length; a panel for each dtype and alpha."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys((result.case.dtype, result.case.alpha) for result in record.results))
    figure = Figure(figsize=(8.6, 1.0 + 2.6 * max(len(kinds), 1)), layout="constrained")
    panels = figure.subplots(max(len(kinds), 1), 2, squeeze=False)
    for row, kind in zip(panels, kinds, strict=False):
        found = [result for result in record.results if (result.case.dtype, result.case.alpha) == kind]
        for panel, part in zip(row, ("forward", "step"), strict=True):
            for name in _present(record):
                points = [
                    (result.case.length, ms)
                    for result in found
                    if (entry := result.entry(name)) is not None and (ms := entry.ms(part)) is not None
                ]
                if points:
                    panel.plot(*zip(*points, strict=True), "o-", color=COLOURS[name], label=TITLES[name], linewidth=1)
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            panel.set_title(f"{kind[0]}, alpha {kind[1]:g}: {part}, ms", fontsize=9)
            panel.spines[["top", "right"]].set_visible(False)
    legend_below(figure, panels.flat)
    return figure
