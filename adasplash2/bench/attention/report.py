"""How is a record of attention speed read?  As tables, which a terminal and the documentation both show."""

from __future__ import annotations

from collections.abc import Sequence

from adasplash2.bench.shared.origin import contest_lines, gap, missing, with_places
from adasplash2.bench.shared.table import MISSING, Table, number, text_lines
from adasplash2.verify.table import passes_text, short

from .cases import Case
from .contenders import TITLES
from .readings import entry_of, present, ratio_of, spread_of, time_of
from .record import CaseResult, SpeedRecord


def speed_tables(record: SpeedRecord) -> list[Table]:
    """Return all tables of a record; those without a row are left out."""
    names = present(record.results)
    tables = [
        _times(record.results, names),
        _ratios(record.results, names),
        _stages(record.results),
        _rows(record.results),
        _errors(record.results),
        _memory(record.results, names),
    ]
    return [table for table in tables if table.rows]


def as_text(record: SpeedRecord) -> str:
    """Return what the command prints: the tables, what is missing and why, and where it was measured."""
    parts = []
    for table in speed_tables(record):
        parts += [table.title, *text_lines(table), ""]
    parts += [*remarks(record), "", *origin(record)]
    return "\n".join(parts)


def origin(record: SpeedRecord) -> list[str]:
    """Return where, when and how a record was made."""
    rates = ", ".join(f"{dtype} {rate / 1e12:.0f} TFLOP/s" for dtype, rate in record.matrix_rate.items())
    of_rates = [f"Rate of the matrix units (8192 x 8192 x 8192 product): {rates}."] if rates else []
    of_breaks = [f"Cut short, and taken up again: {', '.join(record.resumed)}."] if record.resumed else []
    return [*contest_lines(record), *of_rates, *of_breaks, *gap(record)]


def remarks(record: SpeedRecord) -> list[str]:
    """Return, once each, why a contender or a part of the measurement is missing, and in how many cases."""
    entries = [(result.case.label, entry) for result in record.results for entry in result.entries]
    failures = [
        (f"not measured: {failure}", result.case.label) for result in record.results for failure in result.failures
    ]
    return missing(entries, TITLES) + with_places(failures)


def _time_cell(result: CaseResult, name: str, part: str) -> str:
    entry = entry_of(result, name)
    if entry is not None and entry.status == "failed":
        return "failed"
    return number(time_of(result, name, part))


def _times(results: Sequence[CaseResult], names: list[str]) -> Table:
    headings = ["case", "empty %", "keys/row"]
    for part in ("forward", "step"):
        headings += [f"{part}: {TITLES[names[0]]}" if names else part, *(TITLES[name] for name in names[1:]), "floor"]
    rows = []
    for result in results:
        support, floor = result.support, result.floor
        row = [
            result.case.label,
            MISSING if support is None else f"{100.0 * support.sparsity:.1f}",
            MISSING if support is None else number(support.keys_per_row),
        ]
        for part in ("forward", "step"):
            row += [_time_cell(result, name, part) for name in names]
            row.append(MISSING if floor is None else number(getattr(floor, f"{part}_ms")))
        spread = spread_of(result)
        rows.append((*row, MISSING if spread is None else f"{100.0 * spread:.1f}"))
    title = "Milliseconds (forward without gradient; step: forward and backward)"
    return Table("times", title, (*headings, "spread %"), tuple(rows))


def _ratios(results: Sequence[CaseResult], names: list[str]) -> Table:
    others = ["floor", *(name for name in names if name != "ours")]
    titles = [f"/ {TITLES.get(name, name)}" for name in others]
    rows = [
        (
            result.case.label,
            *(number(ratio_of(result, name, "forward")) for name in others),
            *(number(ratio_of(result, name, "step")) for name in others),
        )
        for result in results
        if time_of(result, "ours", "step") is not None
    ]
    headings = ("case", f"forward {titles[0]}", *titles[1:], f"step {titles[0]}", *titles[1:])
    return Table(
        "ratios", "Our time over the floor and over each contender's (below 1: we are faster)", headings, tuple(rows)
    )


# Kernels that one column of the table of stages stands for; any other has a column of its own.
STAGES = {
    "solve": ("solve", "solve_wide"),
    "lists": ("block_list", "block_mask_transpose"),
    "columns": (
        *("column_counts", "column_paths", "column_worth", "column_starts", "columns", "column_order"),
        "column_segments",
    ),
    "backward_dkdv_keys": ("backward_dkdv_keys", "backward_dkdv_mixed"),
    "backward_dkdv": ("backward_dkdv", "backward_dkdv_sum"),
}


def _stages(results: Sequence[CaseResult]) -> Table:
    column_of = {kernel: column for column, kernels in STAGES.items() for kernel in kernels}
    names = list(dict.fromkeys(column_of.get(one.stage, one.stage) for result in results for one in result.stages))
    rows = []
    for result in results:
        if not result.stages:
            continue
        cells = []
        for name in names:
            found = [stage for stage in result.stages if column_of.get(stage.stage, stage.stage) == name]
            ms = sum(stage.ms for stage in found)
            floor = next((stage.floor_ms for stage in found if stage.floor_ms), None)
            times = f" ({number(ms / floor, 2)}x)" if floor else ""
            cells.append(number(ms) + times if found else MISSING)
        rows.append((result.case.label, *cells))
    title = "Our stages, milliseconds (times its floor, where the count of operations gives one)"
    return Table("stages", title, ("case", *names), tuple(rows))


def _rows(results: Sequence[CaseResult]) -> Table:
    rows: list[tuple[str, ...]] = []
    for result in results:
        found, flex = result.rows, result.flex
        if found is None:
            continue
        kept = MISSING if result.support is None else f"{100.0 * (1.0 - found.skipped):.1f}"
        rows.append(
            (
                result.case.label,
                passes_text(found.passes),
                str(max(found.passes, default=0)),
                short(found.residual),
                short(found.mass_error),
                MISSING if found.tau_error is None else short(found.tau_error),
                MISSING if result.support is None else f"{100.0 * (1.0 - result.support.sparsity):.1f}",
                kept,
                *((short(flex.log_mass), short(flex.out), number(flex.forward_ms)) if flex else (MISSING,) * 3),
            )
        )
    headings = ["case", "passes % 0/1/2/3+", "most", "residual", "|mass - 1|", "tau error", "live %", "kept %"]
    headings += ["flex log mass", "flex out", "flex ms"]
    if all(result.flex is None for result in results):
        headings, rows = headings[:-3], [row[:-3] for row in rows]
    return Table(
        "rows", "Our rows: refinement passes, worst residual, mass and threshold", tuple(headings), tuple(rows)
    )


def _errors(results: Sequence[CaseResult]) -> Table:
    names = [name for name in TITLES if any(e.errors for r in results for e in r.entries if e.name == name)]
    rows = []
    for result in results:
        if not result.naive:
            continue
        cells = []
        for quantity in ("out", "d_query"):
            for name in names:
                entry = entry_of(result, name)
                cells.append(short(entry.errors[quantity]) if entry and quantity in entry.errors else MISSING)
            cells.append(short(result.naive[quantity]))
        rows.append((result.case.label, *cells))
    titles = [TITLES[name] for name in names] + ["naive"]
    headings = ("case", f"out: {titles[0]}", *titles[1:], f"d_query: {titles[0]}", *titles[1:])
    return Table("errors", "Relative error against the float64 oracle, in sampled rows", headings, tuple(rows))


def _memory(results: Sequence[CaseResult], names: list[str]) -> Table:
    rows = []
    for result in results:
        memories = [entry.memory if (entry := entry_of(result, name)) else None for name in names]
        if not any(memories):
            continue
        saved = (MISSING if memory is None else _mebibytes(memory.saved) for memory in memories)
        step = (MISSING if memory is None else _mebibytes(memory.step) for memory in memories)
        rows.append((result.case.label, _mebibytes(operand_bytes(result.case)), *saved, *step))
    titles = [TITLES[name] for name in names] or [""]
    headings = ("case", "operands", f"saved: {titles[0]}", *titles[1:], f"step: {titles[0]}", *titles[1:])
    title = "MiB beyond query, key, value and d_out (saved: held for the backward, output included; step: largest)"
    return Table("memory", title, headings, tuple(rows))


def operand_bytes(case: Case) -> int:
    """Return the bytes of query, key and value."""
    width = 4 if case.dtype == "fp32" else 2
    return 3 * case.batch * case.heads * case.length * case.head_dim * width


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.0f}"
