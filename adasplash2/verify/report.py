"""What did the run find, for a reader with a browser?  One page that holds everything it shows and loads nothing."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from adasplash2.runs.machine import Machine
from entmax_ref.webpage import document, row, safe

from .charts import errors_chart, mask_chart, rows_chart
from .judge import RowsComparison
from .measure import Result
from .table import LEGEND, passes_text, short, stage_summary, verdict


def write_report(path: Path, machine: Machine, results: list[Result], *, asked: int, seconds: float) -> None:
    """Write `page` to a file."""
    path.write_text(page(machine, results, asked=asked, seconds=seconds), encoding="utf-8")


def page(machine: Machine, results: list[Result], *, asked: int, seconds: float) -> str:
    """Return the report as one HTML page without scripts, links or anything to load.

    Parameters
    ----------
    machine : Machine
    results : list of Result
    asked : int
        Cases of the whole run; fewer results are those of an interrupted one.
    seconds : float
        Time of the run.
    """
    passed = len(results) == asked and all(result.passed for result in results)
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    versions = f"adasplash2 {machine.adasplash2}, torch {machine.torch}, triton {machine.triton}, numpy {machine.numpy}"
    where = f"{machine.device} ({machine.device_name}), {versions}, python {machine.python}. {date}."
    parts = [
        "<h1>adasplash2 verify</h1>",
        f'<p class="verdict {"pass" if passed else "fail"}">{safe(verdict(machine, results, asked, seconds))}</p>',
        f"<p><b>Mode {safe(machine.mode)}.</b> {safe(machine.sentence)}</p><p>{safe(where)}</p>",
        _failures(results),
        "<h2>The worst row against its bound</h2>",
        "<p>Every row is judged: a query of one head or, for d_key and d_value, a key. Each dot is the distance of the "
        "worst row from the float64 oracle as a share of the row's size, each bar what it may be at most: twice what a "
        "plain dense evaluation in the same dtype loses, on the scale of the rounding errors that this row must "
        "expect, plus one rounding of the result. A dot left of its bar passed, and then every row did. The size of a "
        "row is its norm or, where its terms cancel, that of the terms.</p>",
        f'<div class="wide">{errors_chart(results)}</div>',
        "<h2>Refinement passes and row mass</h2>",
        "<p>How many refinement passes the rows took, and how far the probabilities of the worst row are from summing "
        "to 1.</p>",
        f'<div class="wide">{rows_chart(results)}</div>',
        _pictures(results),
        "<h2>All numbers</h2>",
        *(f"<p>{safe(line)}</p>" for line in (" ".join(LEGEND),)),
        f'<div class="wide">{_table(results)}</div>',
        _rows(results),
        _stages(results),
    ]
    return document("adasplash2 verify", parts)


def _failures(results: Sequence[Result]) -> str:
    lines = [
        f"<li>{safe(f'{result.case.name} {result.case.dtype} {result.case.shape}: {failure}')}</li>"
        for result in results
        for failure in result.failures
    ]
    return f"<h2>What broke</h2><ul>{''.join(lines)}</ul>" if lines else ""


def _pictures(results: Sequence[Result]) -> str:
    shown = [result for result in results if result.picture is not None]
    if not shown:
        return ""
    lead = "The first head of a case: where the exact support lies, and which blocks the kernels visit for it."
    parts = [f"<h2>Block mask and support</h2><p>{lead}</p>"]
    for result in shown:
        assert result.picture is not None
        title = f"{result.case.name}, {result.case.dtype}, {result.case.shape}"
        parts.append(f"<h3>{safe(title)}</h3><p>{safe(result.note)}</p>{mask_chart(result.picture)}")
    return "".join(parts)


def _table(results: Sequence[Result]) -> str:
    heads = ["case", "dtype", "sizes", "out", "d_query", "d_key", "d_value", "row mass", "tau"]
    lines = [row([*heads, "passes, %", "lost of live", "skipped", "s"], "th")]
    for result in results:
        cells = [result.case.name, result.case.dtype, result.case.shape]
        cells += [_pair(result, name) for name in ("out", "d_query", "d_key", "d_value", "mass", "tau")]
        cells += [passes_text(result.passes), f"{result.lost} of {result.live}", f"{100 * result.skipped:.0f} %"]
        lines.append(row([*cells, f"{result.seconds:.1f}"], "td", broken=not result.passed))
    return f"<table>{''.join(lines)}</table>"


def _rows(results: Sequence[Result]) -> str:
    """Return how many rows were judged and were over their bounds, and how small an error would have been noticed."""
    heads = ["case", "dtype", "sizes", "tensor", "over, of rows", "worst row", "naive", "noticed", "2 % noticed"]
    lines = [row([*heads, "hidden", "whole"], "th", names=4)]
    for result in results:
        for name, found in result.comparisons.items():
            if not isinstance(found, RowsComparison):
                continue
            cells = [result.case.name, result.case.dtype, result.case.shape, name, f"{found.over} of {found.rows}"]
            cells += [
                ", ".join(map(str, found.row)),
                f"{found.naive:.2f} <small>/ {found.naive_limit:.1f}</small>",
                short(found.sensitivity),
            ]
            cells += [f"{100 * found.share_noticing_2_percent:.0f} %", f"{100 * found.share_hidden:.0f} %"]
            cells.append(f"{short(found.whole)} <small>/ {short(found.whole_budget)}</small>")
            lines.append(row(cells, "td", broken=not found.passed, names=4))
    return (
        "<h2>Row by row</h2><p>worst row: batch, head, index. naive: the largest error of a row of the plain "
        "evaluation over the one that rounding must be expected to make there, which scales the bounds, and how large "
        "it may be before they mean nothing and the case fails. noticed: from which error on a row fails, as a share "
        "of its norm, for the median row that is not 0; 2 % noticed: in how many of these rows an error of 2 % is. "
        "hidden: how many could be 0 unnoticed, because their terms cancel to less than rounding leaves. whole: error "
        "and budget of the tensor, Frobenius.</p>"
        f'<div class="wide"><table>{"".join(lines)}</table></div>'
    )


def _pair(result: Result, name: str) -> str:
    comparison = result.comparisons.get(name)
    return "-" if comparison is None else f"{short(comparison.error)} <small>/ {short(comparison.budget)}</small>"


def _stages(results: Sequence[Result]) -> str:
    summary = stage_summary(results)
    if not summary:
        return ""
    cases = sum(1 for result in results if result.stages)
    lines = [row(["stage", "rule", "passed", "worst"], "th", names=2)]
    for line in summary:
        cells = [line.stage, safe(line.rule), f"{line.passed} of {line.checked}", line.worst]
        lines.append(row(cells, "td", broken=line.passed < line.checked, names=2))
    return (
        f"<h2>Stage by stage</h2><p>On {cases} cases every stage was run by itself and held to its specification. The "
        "last column is the largest error as a share of its bound or, where no exception is allowed, their number.</p>"
        f"<table>{''.join(lines)}</table>"
    )
