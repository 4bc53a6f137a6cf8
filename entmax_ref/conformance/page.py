"""What did the run find, for a reader with a browser?  One page with the targets side by side, which loads nothing."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from entmax_ref.conformance.outcome import Outcome
from entmax_ref.conformance.table import LEGEND, dtypes_of, mark, share_text, verdict
from entmax_ref.drawing import BAD, BOTTOM, INK, TOP, dot, legend, line, log_axis, place, svg, text
from entmax_ref.webpage import document, row, safe

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#666666")
_LOW, _HIGH = -4, 4
_HUES = {
    "passed": "#dff3e3",
    "failed": "#fde2e4",
    "known failure": "#fff1cc",
    "unexpected pass": "#fde2e4",
    "skipped": "#ffffff",
}


def write_page(path: Path, outcomes: Sequence[Outcome], about: Mapping[str, object]) -> None:
    """Write `page` to a file."""
    path.write_text(page(outcomes, about), encoding="utf-8")


def page(outcomes: Sequence[Outcome], about: Mapping[str, object]) -> str:
    """Return the report as one HTML page.

    Parameters
    ----------
    outcomes : sequence of Outcome
    about : mapping
        What the run was: budget, seed, versions.

    Returns
    -------
    str
    """
    bad = any(outcome.bad for outcome in outcomes)
    said = ", ".join(f"{name} {value}" for name, value in about.items())
    parts = [
        "<h1>entmax conformance</h1>",
        f'<p class="verdict {"fail" if bad else "pass"}">{safe(verdict(outcomes))}</p>',
        f"<p>{safe(said)}</p>",
        "<p>Every check draws examples, judges each by a bound that follows from the precision of the dtype, and keeps "
        "the smallest one that fails. Its number is the largest error as a share of that bound.</p>",
        "<h2>The largest error of each check as a share of its limit</h2>",
        f'<div class="wide">{shares_chart(outcomes)}</div>',
        "<h2>Checks by target and dtype</h2>",
        f"<p>{safe(LEGEND)}</p>",
        *(f'<div class="wide">{_matrix(outcomes, kind)}</div>' for kind in _kinds(outcomes)),
        _failures(outcomes),
        _skipped(outcomes),
    ]
    return document("entmax conformance", parts)


def _kinds(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """Return the sets of checks that belong to one table: targets of rows and of attention share none."""
    sets: dict[tuple[str, ...], None] = {}
    for name in dict.fromkeys(outcome.target for outcome in outcomes):
        checks = tuple(dict.fromkeys(outcome.check for outcome in outcomes if outcome.target == name))
        if not any(set(checks) & set(other) for other in sets):
            sets[checks] = None
    return list(sets)


def shares_chart(outcomes: Sequence[Outcome]) -> str:
    """Return one row a check, a dot for each target and dtype: left of the line at 1 it passed."""
    judged = [outcome for outcome in outcomes if outcome.status != "skipped"]
    checks = list(dict.fromkeys(outcome.check for outcome in judged))
    names = list(dict.fromkeys(outcome.target for outcome in judged))
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
    left, width, size = 200.0, 700.0, 18
    top = TOP + 18 * math.ceil(len(names) / 3)
    height = top + size * len(checks) + BOTTOM
    parts = [f'<g transform="translate(0 {top - TOP})">']
    parts += log_axis(left, width, _LOW, _HIGH, height - (top - TOP), "", "error as a share of its limit")
    parts.append("</g>")
    for start in range(0, len(names), 3):
        marks = [(dot(colours[name]), name) for name in names[start : start + 3]]
        parts += legend(left, 14 + 18 * (start // 3), marks)
    for index, check in enumerate(checks):
        middle = top + size * (index + 0.5)
        parts.append(text(left - 8, middle + 4, check, "end", INK, 11))
        found = [outcome for outcome in judged if outcome.check == check]
        for number, outcome in enumerate(found):
            x = place(outcome.share, left, width, _LOW, _HIGH)
            y = middle + (number / max(len(found) - 1, 1) - 0.5) * (size - 7)
            tip = safe(f"{outcome.target}, {check}, {outcome.dtype}: {share_text(outcome.share)}")
            edge = f' stroke="{BAD}" stroke-width="1.5"' if outcome.status != "passed" else ""
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colours[outcome.target]}"{edge}>'
                f"<title>{tip}</title></circle>"
            )
    limit = place(1.0, left, width, _LOW, _HIGH)
    parts.append(line(limit, top, limit, height - BOTTOM, INK, 2))
    return svg(left + width + 30, height, parts, "largest error of each check as a share of its limit")


def _matrix(outcomes: Sequence[Outcome], checks: tuple[str, ...]) -> str:
    """Return a table of checks by target and dtype."""
    shown = [outcome for outcome in outcomes if outcome.check in checks]
    columns = [
        (name, dtype)
        for name in dict.fromkeys(outcome.target for outcome in shown)
        for dtype in dtypes_of([outcome for outcome in shown if outcome.target == name])
    ]
    cells = {(outcome.check, outcome.target, outcome.dtype): outcome for outcome in shown}
    versions = {outcome.target: outcome.version for outcome in shown}
    heads = [f"{safe(name)}<br><small>{safe(versions[name])}</small><br>{dtype}" for name, dtype in columns]
    lines = [row(["check", "claim", *heads], "th", names=2)]
    for check in dict.fromkeys(outcome.check for outcome in shown):
        claim = next(outcome.claim for outcome in shown if outcome.check == check)
        lines.append(row([check, claim, *(_cell(cells.get((check, *column))) for column in columns)], "td", names=2))
    return f"<table>{''.join(lines)}</table>"


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    style = f"background:{_HUES[outcome.status]};padding:0 .3em"
    return f'<span style="{style}" title="{safe(outcome.sentence)}">{safe(mark(outcome))}</span>'


def _failures(outcomes: Sequence[Outcome]) -> str:
    """Return what failed, once for each check of a target, with a program that shows it."""
    parts = []
    first: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.status in ("failed", "known failure", "unexpected pass"):
            first.setdefault((outcome.target, outcome.check), []).append(outcome)
    for (target, check), found in first.items():
        dtypes = ", ".join(outcome.dtype for outcome in found)
        head = f"{target}: {check} ({found[0].status}; {dtypes})"
        parts.append(f"<h3>{safe(head)}</h3><p>{safe(found[0].sentence)}</p>")
        parts.append(f"<pre>{safe(found[0].reproduction)}</pre>" if found[0].reproduction else "")
    return f"<h2>What failed, and how to see it</h2>{''.join(parts)}" if parts else ""


def _skipped(outcomes: Sequence[Outcome]) -> str:
    said = dict.fromkeys((one.target, one.check, one.sentence) for one in outcomes if one.status == "skipped")
    if not said:
        return ""
    lines = "".join(row([safe(cell) for cell in cells], "td", names=3) for cells in said)
    return f"<h2>What was not claimed, and is not judged</h2><table>{lines}</table>"
