"""How do the results look?  Inline SVG made by hand, so that the report needs no library and loads nothing."""

from __future__ import annotations

import html
from collections.abc import Sequence

from entmax_ref.drawing import BAD, BOTTOM, FAINT, INK, TOP, box, dot, legend, line, log_axis, place, svg, text

from .judge import Comparison, RowsComparison
from .measure import Picture, Result

# Colours that also differ for colour-blind readers (Okabe and Ito), and a ramp from light to dark.
DTYPE_COLOURS = {"bf16": "#0072b2", "fp16": "#d55e00", "fp32": "#009e73"}
_PASS_COLOURS = ("#deebf7", "#9ecae1", "#4292c6", "#08306b")
_PASS_NAMES = ("0", "1", "2", "3 or more")
_PANELS = {"out": "out", "d_query": "d_query", "d_key": "d_key", "d_value": "d_value"}
_ROW, _LABEL = 16, 290


def errors_chart(results: Sequence[Result]) -> str:
    """Return one row a case: error (dot) and bound (bar) of the worst row of each tensor, on a logarithmic axis."""
    width, gap = 184, 34
    low, high = -8, 1
    height = TOP + _ROW * len(results) + BOTTOM
    parts = _row_labels(results)
    for index, (name, title) in enumerate(_PANELS.items()):
        left = _LABEL + index * (width + gap)
        parts += log_axis(left, width, low, high, height, title, "worst row, share of its size")
        for row, result in enumerate(results):
            comparison = result.comparisons.get(name)
            middle = TOP + _ROW * row + _ROW / 2
            if comparison is None:
                parts.append(text(left + width / 2, middle + 4, "not compared", "middle", "#8b949e", 10))
                continue
            colour = DTYPE_COLOURS[result.case.dtype] if comparison.passed else BAD
            error = place(comparison.error, left, width, low, high)
            budget = place(comparison.budget, left, width, low, high)
            tip = f"{_label(result)}: {name} {comparison.error:.2e}, bound {comparison.budget:.2e}{_over(comparison)}"
            parts.append(
                f"<g><title>{html.escape(tip)}</title>"
                + line(error, middle, budget, middle, colour, 1)
                + line(budget, middle - 5, budget, middle + 5, INK, 2)
                + f'<circle cx="{error:.1f}" cy="{middle}" r="3.6" fill="{colour}"/></g>'
            )
    marks = [(dot(colour), f"error, {name}") for name, colour in DTYPE_COLOURS.items()]
    marks += [(dot(BAD), "error over its bound"), (line(6, -9, 6, 1, INK, 2), "bound")]
    parts += legend(_LABEL, 12, marks)
    return svg(_LABEL + len(_PANELS) * (width + gap), height, parts, "errors and bounds of every case")


def rows_chart(results: Sequence[Result]) -> str:
    """Return one row a case: the share of its rows by refinement passes, and its row mass error."""
    width, gap, mass_width = 470, 40, 290
    height = TOP + _ROW * len(results) + BOTTOM
    parts = _row_labels(results)
    mass_left = _LABEL + width + gap
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = _LABEL + width * share
        parts.append(text(x, height - BOTTOM + 14, f"{100 * share:.0f}", "middle", INK, 10))
    parts.append(text(_LABEL + width / 2, height - 4, "share of the rows, %", "middle", INK, 11))
    parts += log_axis(mass_left, mass_width, -8, -4, height, "row mass", "largest |mass - 1|")
    for row, result in enumerate(results):
        top = TOP + _ROW * row
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
            limit = place(mass.budget, mass_left, mass_width, -8, -4)
            parts.append(line(limit, top, limit, top + _ROW, INK, 2))
            x = place(mass.error, mass_left, mass_width, -8, -4)
            colour = DTYPE_COLOURS[result.case.dtype] if mass.passed else BAD
            parts.append(
                f'<circle cx="{x:.1f}" cy="{top + _ROW / 2}" r="3.6" fill="{colour}">'
                f"<title>{html.escape(_label(result))}: {mass.error:.1e}</title></circle>"
            )
    squares = [
        (box(0, -10, 11, 11, colour, FAINT), f"{name} passes")
        for colour, name in zip(_PASS_COLOURS, _PASS_NAMES, strict=True)
    ]
    parts += legend(_LABEL, 12, squares)
    dots = [(dot(colour), name) for name, colour in DTYPE_COLOURS.items()]
    parts += legend(mass_left, 12, [*dots, (line(6, -9, 6, 1, INK, 2), "limit")])
    return svg(mass_left + mass_width + 20, height, parts, "refinement passes and row mass of every case")


def mask_chart(picture: Picture) -> str:
    """Return the support of one head, and the blocks that the mask kept and skipped."""
    left, top, size = 46.0, 12.0, 430.0
    unit = size / max(picture.n_queries, picture.n_keys)
    high, wide = picture.n_queries * unit, picture.n_keys * unit
    parts = []
    for row, kept_blocks in enumerate(picture.mask):
        for column, kept in enumerate(kept_blocks):
            live = picture.live[row][column]
            colour = ("#cfe8d5" if live else "#fdf0c4") if kept else ("#f4a3a8" if live else "#ffffff")
            last_query = min((row + 1) * picture.block[0], picture.n_queries) - 1
            if picture.is_causal and column * picture.block[1] > last_query + picture.n_keys - picture.n_queries:
                colour = "#e3e6e9"
            x, y = column * picture.block[1] * unit, row * picture.block[0] * unit
            w, h = min(picture.block[1] * unit, wide - x), min(picture.block[0] * unit, high - y)
            parts.append(box(left + x, top + y, w, h, colour, "#a9b4bd"))
    cell = picture.cell * unit
    runs = ""
    for row, first, end in picture.support:
        x, y, w = left + first * cell, top + row * cell, (end - first) * cell
        runs += f"M{x:.1f} {y:.1f}h{w:.1f}v{cell:.1f}h{-w:.1f}z"
    parts.append(f'<path d="{runs}" fill="#12355b"/>')
    parts.append(box(left, top, wide, high, "none", INK))
    parts.append(text(left, top + high + 14, "0", "middle", INK, 10))
    parts.append(text(left + wide, top + high + 14, str(picture.n_keys), "middle", INK, 10))
    parts.append(text(left + wide / 2, top + high + 18, "key", "middle", INK, 11))
    parts.append(text(left - 5, top + 9, "0", "end", INK, 10))
    parts.append(text(left - 5, top + high, str(picture.n_queries), "end", INK, 10))
    parts.append(text(left - 8, top + high / 2, "query", "end", INK, 11))
    squares = [("#12355b", "support (exact)"), ("#cfe8d5", "kept, holds support"), ("#fdf0c4", "kept, holds none")]
    squares += [("#ffffff", "skipped"), ("#f4a3a8", "holds support, skipped")]
    squares += [("#e3e6e9", "not visible")] if picture.is_causal else []
    for index, (colour, name) in enumerate(squares):
        y = top + 14 + 20 * index
        parts.append(box(left + wide + 18, y - 10, 12, 12, colour, "#8b949e"))
        parts.append(text(left + wide + 36, y, name, "start", INK, 11))
    return svg(left + wide + 180, top + max(high, 130) + 26, parts, "support and block mask of one head")


def _over(comparison: Comparison) -> str:
    if not isinstance(comparison, RowsComparison):
        return ""
    return f"; {comparison.over} of {comparison.rows} rows over"


def _label(result: Result) -> str:
    return f"{result.case.name} {result.case.dtype} {result.case.shape}"


def _row_labels(results: Sequence[Result]) -> list[str]:
    parts = []
    for row, result in enumerate(results):
        y = TOP + _ROW * row
        if row % 2:
            parts.append(f'<rect x="0" y="{y}" width="100%" height="{_ROW}" fill="#f6f8fa"/>')
        colour = INK if result.passed else BAD
        parts.append(text(2, y + 12, result.case.name, "start", colour, 11))
        parts.append(text(126, y + 12, result.case.dtype, "start", DTYPE_COLOURS[result.case.dtype], 11))
        parts.append(text(158, y + 12, result.case.shape, "start", colour, 11))
    return parts
