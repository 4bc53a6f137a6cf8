"""How do the results look?  Inline SVG made by hand, so that the report needs no library and loads nothing."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from .judge import Comparison, RowsComparison
from .measure import Picture, Result

# Colours that also differ for colour-blind readers (Okabe and Ito), and a ramp from light to dark.
DTYPE_COLOURS = {"bf16": "#0072b2", "fp16": "#d55e00", "fp32": "#009e73"}
_PASS_COLOURS = ("#deebf7", "#9ecae1", "#4292c6", "#08306b")
_PASS_NAMES = ("0", "1", "2", "3 or more")
_PANELS = {"out": "out", "d_query": "d_query", "d_key": "d_key", "d_value": "d_value"}
_ROW, _LABEL, _TOP, _BOTTOM = 16, 290, 46, 34
_INK, _FAINT, _BAD = "#1b1f24", "#d9dee3", "#c1121f"


def errors_chart(results: Sequence[Result]) -> str:
    """Return one row a case: error (dot) and bound (bar) of the worst row of each tensor, on a logarithmic axis."""
    width, gap = 184, 34
    low, high = -8, 1
    height = _TOP + _ROW * len(results) + _BOTTOM
    parts = _row_labels(results)
    for index, (name, title) in enumerate(_PANELS.items()):
        left = _LABEL + index * (width + gap)
        parts += _log_axis(left, width, low, high, height, title, "worst row, share of its size")
        for row, result in enumerate(results):
            comparison = result.comparisons.get(name)
            middle = _TOP + _ROW * row + _ROW / 2
            if comparison is None:
                parts.append(_text(left + width / 2, middle + 4, "not compared", "middle", "#8b949e", 10))
                continue
            colour = DTYPE_COLOURS[result.case.dtype] if comparison.passed else _BAD
            error = _place(comparison.error, left, width, low, high)
            budget = _place(comparison.budget, left, width, low, high)
            tip = f"{_label(result)}: {name} {comparison.error:.2e}, bound {comparison.budget:.2e}{_over(comparison)}"
            parts.append(
                f"<g><title>{html.escape(tip)}</title>"
                + _line(error, middle, budget, middle, colour, 1)
                + _line(budget, middle - 5, budget, middle + 5, _INK, 2)
                + f'<circle cx="{error:.1f}" cy="{middle}" r="3.6" fill="{colour}"/></g>'
            )
    legend = [(_dot(colour), f"error, {name}") for name, colour in DTYPE_COLOURS.items()]
    legend += [(_dot(_BAD), "error over its bound"), (_line(6, -9, 6, 1, _INK, 2), "bound")]
    parts += _legend(_LABEL, 12, legend)
    return _svg(_LABEL + len(_PANELS) * (width + gap), height, parts, "errors and bounds of every case")


def rows_chart(results: Sequence[Result]) -> str:
    """Return one row a case: the share of its rows by refinement passes, and its row mass error."""
    width, gap, mass_width = 470, 40, 290
    height = _TOP + _ROW * len(results) + _BOTTOM
    parts = _row_labels(results)
    mass_left = _LABEL + width + gap
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = _LABEL + width * share
        parts.append(_text(x, height - _BOTTOM + 14, f"{100 * share:.0f}", "middle", _INK, 10))
    parts.append(_text(_LABEL + width / 2, height - 4, "share of the rows, %", "middle", _INK, 11))
    parts += _log_axis(mass_left, mass_width, -8, -4, height, "row mass", "largest |mass - 1|")
    for row, result in enumerate(results):
        top = _TOP + _ROW * row
        total, left = sum(result.passes.values()), float(_LABEL)
        counts = [result.passes.get(step, 0) for step in (0, 1, 2)]
        for colour, name, count in zip(_PASS_COLOURS, _PASS_NAMES, [*counts, total - sum(counts)], strict=True):
            if count:
                size = width * count / total
                tip = f"{_label(result)}: {count} of {total} rows took {name} passes"
                parts.append(
                    f'<rect x="{left:.2f}" y="{top + 2}" width="{size:.2f}" height="{_ROW - 4}" fill="{colour}">'
                    f"<title>{html.escape(tip)}</title></rect>"
                )
                left += size
        mass = result.comparisons.get("mass")
        if mass is not None:
            limit = _place(mass.budget, mass_left, mass_width, -8, -4)
            parts.append(_line(limit, top, limit, top + _ROW, _INK, 2))
            x = _place(mass.error, mass_left, mass_width, -8, -4)
            colour = DTYPE_COLOURS[result.case.dtype] if mass.passed else _BAD
            parts.append(
                f'<circle cx="{x:.1f}" cy="{top + _ROW / 2}" r="3.6" fill="{colour}">'
                f"<title>{html.escape(_label(result))}: {mass.error:.1e}</title></circle>"
            )
    squares = [
        (_box(0, -10, 11, 11, colour, _FAINT), f"{name} passes")
        for colour, name in zip(_PASS_COLOURS, _PASS_NAMES, strict=True)
    ]
    parts += _legend(_LABEL, 12, squares)
    dots = [(_dot(colour), name) for name, colour in DTYPE_COLOURS.items()]
    parts += _legend(mass_left, 12, [*dots, (_line(6, -9, 6, 1, _INK, 2), "limit")])
    return _svg(mass_left + mass_width + 20, height, parts, "refinement passes and row mass of every case")


def mask_chart(picture: Picture) -> str:
    """Return the support of one head, and the blocks that the mask kept and skipped."""
    left, top, size = 46.0, 12.0, 430.0
    unit = size / max(picture.n_queries, picture.n_keys)
    high, wide = picture.n_queries * unit, picture.n_keys * unit
    parts = []
    for row, line in enumerate(picture.mask):
        for column, kept in enumerate(line):
            live = picture.live[row][column]
            colour = ("#cfe8d5" if live else "#fdf0c4") if kept else ("#f4a3a8" if live else "#ffffff")
            last_query = min((row + 1) * picture.block[0], picture.n_queries) - 1
            if picture.is_causal and column * picture.block[1] > last_query + picture.n_keys - picture.n_queries:
                colour = "#e3e6e9"
            x, y = column * picture.block[1] * unit, row * picture.block[0] * unit
            w, h = min(picture.block[1] * unit, wide - x), min(picture.block[0] * unit, high - y)
            parts.append(_box(left + x, top + y, w, h, colour, "#a9b4bd"))
    cell = picture.cell * unit
    runs = ""
    for row, first, end in picture.support:
        x, y, w = left + first * cell, top + row * cell, (end - first) * cell
        runs += f"M{x:.1f} {y:.1f}h{w:.1f}v{cell:.1f}h{-w:.1f}z"
    parts.append(f'<path d="{runs}" fill="#12355b"/>')
    parts.append(_box(left, top, wide, high, "none", _INK))
    parts.append(_text(left, top + high + 14, "0", "middle", _INK, 10))
    parts.append(_text(left + wide, top + high + 14, str(picture.n_keys), "middle", _INK, 10))
    parts.append(_text(left + wide / 2, top + high + 18, "key", "middle", _INK, 11))
    parts.append(_text(left - 5, top + 9, "0", "end", _INK, 10))
    parts.append(_text(left - 5, top + high, str(picture.n_queries), "end", _INK, 10))
    parts.append(_text(left - 8, top + high / 2, "query", "end", _INK, 11))
    squares = [("#12355b", "support (exact)"), ("#cfe8d5", "kept, holds support"), ("#fdf0c4", "kept, holds none")]
    squares += [("#ffffff", "skipped"), ("#f4a3a8", "holds support, skipped")]
    squares += [("#e3e6e9", "not visible")] if picture.is_causal else []
    for index, (colour, name) in enumerate(squares):
        y = top + 14 + 20 * index
        parts.append(_box(left + wide + 18, y - 10, 12, 12, colour, "#8b949e"))
        parts.append(_text(left + wide + 36, y, name, "start", _INK, 11))
    return _svg(left + wide + 180, top + max(high, 130) + 26, parts, "support and block mask of one head")


def _over(comparison: Comparison) -> str:
    if not isinstance(comparison, RowsComparison):
        return ""
    return f"; {comparison.over} of {comparison.rows} rows over"


def _label(result: Result) -> str:
    return f"{result.case.name} {result.case.dtype} {result.case.shape}"


def _row_labels(results: Sequence[Result]) -> list[str]:
    parts = []
    for row, result in enumerate(results):
        y = _TOP + _ROW * row
        if row % 2:
            parts.append(f'<rect x="0" y="{y}" width="100%" height="{_ROW}" fill="#f6f8fa"/>')
        colour = _INK if result.passed else _BAD
        parts.append(_text(2, y + 12, result.case.name, "start", colour, 11))
        parts.append(_text(126, y + 12, result.case.dtype, "start", DTYPE_COLOURS[result.case.dtype], 11))
        parts.append(_text(158, y + 12, result.case.shape, "start", colour, 11))
    return parts


def _place(value: float, left: float, width: float, low: int, high: int) -> float:
    """Return where a value lies on a logarithmic axis; what is outside lies on its end."""
    if math.isnan(value):
        return left + width
    exponent = math.log10(value) if value > 0.0 else low
    return left + width * (min(max(exponent, low), high) - low) / (high - low)


def _log_axis(left: float, width: float, low: int, high: int, height: float, title: str, unit: str) -> list[str]:
    bottom = height - _BOTTOM
    parts = [_text(left + width / 2, _TOP - 8, title, "middle", _INK, 12, bold=True)]
    for exponent in range(low, high + 1):
        x = left + width * (exponent - low) / (high - low)
        parts.append(_line(x, _TOP, x, bottom, _FAINT, 1))
        if (exponent - low) % 2 == 0:
            parts.append(_text(x, bottom + 14, f"1e{exponent}", "middle", _INK, 10))
    parts.append(_text(left + width / 2, height - 4, unit, "middle", _INK, 11))
    return parts


def _legend(left: float, y: float, entries: Sequence[tuple[str, str]]) -> list[str]:
    parts, x = [], left
    for mark, name in entries:
        parts.append(f'<g transform="translate({x:.0f} {y:.0f})">{mark}{_text(16, 0, name, "start", _INK, 11)}</g>')
        x += 32 + 6.2 * len(name)
    return parts


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: int) -> str:
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {place} stroke="{colour}" stroke-width="{width}"/>'


def _box(x: float, y: float, width: float, height: float, fill: str, edge: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{fill}" stroke="{edge}"/>'


def _dot(colour: str) -> str:
    return f'<circle cx="6" cy="-4" r="4" fill="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str, colour: str, size: int, *, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}"{weight}>'
        f"{html.escape(text)}</text>"
    )


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg role="img" aria-label="{html.escape(label)}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}">' + "".join(parts) + "</svg>"
    )
