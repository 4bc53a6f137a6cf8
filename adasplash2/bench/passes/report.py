"""Do one or two passes suffice, beyond 32768 too?  One table an alpha, and the answer in a sentence."""

from __future__ import annotations

from typing import Any

from adasplash2.bench.shared.figure import legend_below
from adasplash2.bench.shared.origin import header_lines
from adasplash2.bench.shared.table import Table, text_lines

from .count import PassRecord, PassResult

LONG = 32768


def pass_tables(record: PassRecord) -> list[Table]:
    """Return one table an alpha: workloads down, lengths across, mean and most passes in each cell."""
    tables = []
    for alpha in _values(record, "alpha"):
        of_alpha = [result for result in record.results if result.alpha == alpha]
        lengths = sorted({result.length for result in of_alpha})
        rows = []
        for name in _values(record, "workload"):
            cells = {
                result.length: f"{result.mean:.2f} / {result.most}" for result in of_alpha if result.workload == name
            }
            rows.append((name, *(cells.get(length, "-") for length in lengths)))
        headings = ("rows", *(str(length) for length in lengths))
        tables.append(Table(f"alpha {alpha:g}", f"Passes at alpha {alpha:g}, mean / most", headings, tuple(rows)))
    return tables


def answers(record: PassRecord) -> list[str]:
    """Return, for each alpha, whether rows beyond 32768 end within two passes, and which do not."""
    return [_answer(record, alpha) for alpha in _values(record, "alpha")]


def _answer(record: PassRecord, alpha: float) -> str:
    long = [result for result in record.results if result.alpha == alpha and result.length > LONG]
    if not long:
        return f"alpha {alpha:g}: no row beyond {LONG} was run."
    most = max(result.most for result in long)
    over = [result for result in long if result.over_two]
    rows = sum(result.rows for result in long)
    head = f"alpha {alpha:g}, {rows} rows longer than {LONG}: "
    if not over:
        return head + f"every row ends within {most} passes. One or two passes suffice."
    taken = sum(result.over_two for result in over)
    names = dict.fromkeys(result.workload for result in over)
    worst = ", ".join(_longest(name, [result for result in over if result.workload == name]) for name in names)
    return head + f"{taken} take more than two passes, at most {most} (most, and from which length on: {worst})."


def _longest(name: str, over: list[PassResult]) -> str:
    return f"{name} {max(result.most for result in over)} from {min(result.length for result in over)}"


def pass_text(record: PassRecord) -> str:
    """Return what the command prints."""
    parts = []
    for table in pass_tables(record):
        parts += [table.title, *text_lines(table), ""]
    return "\n".join([*parts, *answers(record), "", *pass_origin(record)])


def pass_origin(record: PassRecord) -> list[str]:
    """Return what ran, where, and how exact the rows were in the end."""
    source = "the kernels, on float32 operands" if record.source == "kernels" else "the float64 specification"
    lines = [f"Counted in {source}; a row may stop once abs(mass - 1) <= {record.tolerance:.1e}."]
    if record.results:
        residual, mass = (max(getattr(one, name) for one in record.results) for name in ("residual", "mass_error"))
        lines[0] += f" Worst residual {residual:.1e}, worst abs(mass - 1) at the threshold returned {mass:.1e}."
    return [*lines, *header_lines(record.header)]


def pass_figure(record: PassRecord) -> Any:
    """Return a figure: mean (line) and most passes (marks) against length, one panel an alpha."""
    from matplotlib.figure import Figure

    alphas = _values(record, "alpha")
    figure = Figure(figsize=(8.6, 3.8), layout="constrained")
    panels = figure.subplots(1, max(len(alphas), 1), sharey=True, squeeze=False)[0]
    for panel, alpha in zip(panels, alphas, strict=False):
        for place, name in enumerate(_values(record, "workload")):
            found = [result for result in record.results if result.alpha == alpha and result.workload == name]
            lengths = [result.length for result in found]
            (line,) = panel.plot(lengths, [result.mean for result in found], color=f"C{place}", label=name, linewidth=1)
            panel.plot(lengths, [result.most for result in found], "_", color=line.get_color(), markersize=10)
        panel.axhline(2.0, color="#8b949e", linewidth=0.8, zorder=0)
        panel.set_xscale("log")
        panel.set_title(f"alpha {alpha:g}: mean (line), most (mark)", fontsize=9)
        panel.set_xlabel("length")
    panels[0].set_ylabel("passes")
    legend_below(figure, panels, 5)
    return figure


def _values(record: PassRecord, name: str) -> list[Any]:
    return list(dict.fromkeys(getattr(result, name) for result in record.results))
