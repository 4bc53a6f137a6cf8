"""How is a plot drawn without a library?  Pieces of inline SVG, for pages that load nothing."""

import html
import math
from collections.abc import Sequence

INK, FAINT, BAD = "#1b1f24", "#d9dee3", "#c1121f"
TOP, BOTTOM = 46, 34  # what a chart leaves above its rows for titles, and below for its axis


def place(value: float, left: float, width: float, low: int, high: int) -> float:
    """Return where a value lies on a logarithmic axis; what is outside lies on its end."""
    if math.isnan(value):
        return left + width
    exponent = math.log10(value) if value > 0.0 else low
    return left + width * (min(max(exponent, low), high) - low) / (high - low)


def log_axis(left: float, width: float, low: int, high: int, height: float, title: str, unit: str) -> list[str]:
    """Return title, grid and numbers of a logarithmic axis from ``10 ** low`` to ``10 ** high``."""
    bottom = height - BOTTOM
    parts = [text(left + width / 2, TOP - 8, title, "middle", INK, 12, bold=True)]
    for exponent in range(low, high + 1):
        x = left + width * (exponent - low) / (high - low)
        parts.append(line(x, TOP, x, bottom, FAINT, 1))
        if (exponent - low) % 2 == 0:
            parts.append(text(x, bottom + 14, f"1e{exponent}", "middle", INK, 10))
    parts.append(text(left + width / 2, height - 4, unit, "middle", INK, 11))
    return parts


def legend(left: float, y: float, entries: Sequence[tuple[str, str]]) -> list[str]:
    """Return marks and their names, one after the other."""
    parts, x = [], left
    for mark, name in entries:
        parts.append(f'<g transform="translate({x:.0f} {y:.0f})">{mark}{text(16, 0, name, "start", INK, 11)}</g>')
        x += 32 + 6.2 * len(name)
    return parts


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: int) -> str:
    """Return a line."""
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {place} stroke="{colour}" stroke-width="{width}"/>'


def box(x: float, y: float, width: float, height: float, fill: str, edge: str) -> str:
    """Return a rectangle."""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{fill}" stroke="{edge}"/>'


def dot(colour: str) -> str:
    """Return a disc for a legend."""
    return f'<circle cx="6" cy="-4" r="4" fill="{colour}"/>'


def text(x: float, y: float, text: str, anchor: str, colour: str, size: int, *, bold: bool = False) -> str:
    """Return a text."""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}"{weight}>'
        f"{html.escape(text)}</text>"
    )


def svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    """Return the whole drawing, with a label for those who cannot see it."""
    return (
        f'<svg role="img" aria-label="{html.escape(label)}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}">' + "".join(parts) + "</svg>"
    )
