"""Is the choice between tiles and single keys right?  A table, and the time of a step over the share of live scores."""

from __future__ import annotations

from typing import Any

from adasplash2.bench.attention import contenders, plot
from adasplash2.bench.shared.figure import legend_below
from adasplash2.bench.shared.origin import contest_lines, gap, missing
from adasplash2.bench.shared.table import Table, number, text_lines

from .measure import CONTENDERS, WayRecord, WayResult

TITLES = {
    **{"chosen": "as chosen", "tiles": "all by tiles", "keys": "all by keys"},
    **{name: contenders.TITLES[name] for name in CONTENDERS},
}
COLOURS = {
    **{"chosen": plot.COLOURS["ours"], "tiles": "#56b4e9", "keys": "#d55e00"},
    **{name: plot.COLOURS[name] for name in CONTENDERS},
}
# Where fewer blocks than this have room for single keys, a step "all by keys" is one by tiles, and not drawn.
MOSTLY = 0.9


def way_tables(record: WayRecord) -> list[Table]:
    """Return the tables of times and of shares."""
    names = _present(record)
    times, shares = [], []
    for result in record.results:
        live = number(100.0 * result.live), number(result.support.keys_per_row)
        of_tiles = _ratio(result, "chosen", "tiles")
        times.append((result.label, *live, *(_time(result, name) for name in names), number(of_tiles)))
        parts = [
            f"{100.0 * getattr(of, part):.0f}"
            for of in (result.shares, result.keys_shares)
            for part in ("threshold", "output", "d_query", "d_key")
        ]
        shares.append((result.label, result.shape, f"{100.0 * result.support.sparsity:.0f}", *parts))
    titles = [TITLES[name] for name in names]
    stages = ("threshold", "output", "d_query", "d_key and d_value")
    return [
        Table(
            "times",
            "Milliseconds of a step",
            ("workload", "live %", "keys/row", *titles, "as chosen / by tiles"),
            tuple(times),
        ),
        Table(
            "shares",
            "Blocks that go by single keys, %: as chosen, and if all go so that have room",
            ("workload", "shape", "empty %", *stages, *(f"room: {stage}" for stage in stages)),
            tuple(shares),
        ),
    ]


def _present(record: WayRecord) -> list[str]:
    seen = {entry.name for result in record.results for entry in result.entries}
    return [name for name in TITLES if name in seen]


def _ratio(result: WayResult, one: str, other: str) -> float | None:
    ours, theirs = result.ms(one), result.ms(other)
    return ours / theirs if ours is not None and theirs else None


def _time(result: WayResult, name: str) -> str:
    ms = result.ms(name)
    if ms is not None:
        return number(ms)
    return next((entry.status for entry in result.entries if entry.name == name), number(None))


def way_text(record: WayRecord) -> str:
    """Return what the command prints."""
    parts: list[str] = []
    for table in way_tables(record):
        parts += [table.title, *text_lines(table), ""]
    return "\n".join([*parts, *way_remarks(record), *contest_lines(record)])


def way_remarks(record: WayRecord) -> list[str]:
    """Return what is missing: contenders that did not run, and workloads."""
    entries = [(result.label, entry) for result in record.results for entry in result.entries]
    return [*gap(record), *missing(entries, TITLES)]


def way_figure(record: WayRecord) -> Any:
    """Return a figure: the step over the share of live scores, a panel for each length of several workloads.

    Rows without structure are joined by a line, the other workloads are marks.
    """
    from matplotlib.figure import Figure

    lengths = sorted({result.length for result in record.results})
    groups = [[result for result in record.results if result.length == length] for length in lengths]
    groups = [group for group in groups if len(group) > 1 and not all(_is_short(result) for result in group)]
    figure = Figure(figsize=(8.6, 4.2), layout="constrained")
    panels = figure.subplots(1, max(len(groups), 1), squeeze=False)[0]
    for panel, group in zip(panels, groups, strict=False):
        for name in _present(record):
            drawn = [result for result in group if name != "keys" or _mostly_by_keys(result)]
            points = sorted(
                (100.0 * result.live, ms, result) for result in drawn if (ms := result.ms(name)) is not None
            )
            line = [(live, ms) for live, ms, result in points if result.workload.startswith(("gauss", "equal"))]
            marks = [(live, ms) for live, ms, result in points if not result.workload.startswith(("gauss", "equal"))]
            if line:
                panel.plot(*zip(*line, strict=True), "o-", color=COLOURS[name], label=TITLES[name], linewidth=1, ms=3)
            if marks:
                panel.plot(*zip(*marks, strict=True), "x", color=COLOURS[name], ms=6)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel("live scores, %")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("{x:g}")
        panel.tick_params(which="both", labelsize=7)
        panel.set_title(f"length {group[0].length}: step, ms", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    legend_below(figure, panels, 6)
    return figure


def _is_short(result: WayResult) -> bool:
    return result.length < 1024


def _mostly_by_keys(result: WayResult) -> bool:
    return min(result.keys_shares.threshold, result.keys_shares.d_query, result.keys_shares.d_key) >= MOSTLY
