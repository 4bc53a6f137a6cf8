"""How does a report look in a browser?  One page that holds everything it shows, in one style, and loads nothing."""

import html
from collections.abc import Sequence

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #1b1f24; background: #fff;
  margin: 0 auto; padding: 1.5rem 2rem 4rem; max-width: 1240px; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; font-weight: 600; }
p { max-width: 76ch; margin: .4rem 0; }
.verdict { padding: .7rem 1rem; border-radius: 6px; font-weight: 600; max-width: none; }
.pass { background: #dff3e3; color: #0b5323; } .fail { background: #fde2e4; color: #8a0d18; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 12.5px; font-variant-numeric: tabular-nums; }
th, td { padding: .18rem .42rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #e6e9ec; }
th { border-bottom: 2px solid #1b1f24; font-weight: 600; } td.name, th.name { text-align: left; }
tr.broken td { color: #c1121f; } td small { color: #6a737d; }
svg { display: block; font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
"""


def document(title: str, parts: Sequence[str]) -> str:
    """Return the page, without scripts, links or anything to load."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{safe(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def safe(text: str) -> str:
    """Return a text as HTML shows it."""
    return html.escape(text)


def row(cells: Sequence[str], tag: str, *, broken: bool = False, names: int = 3) -> str:
    """Return a row of a table: cells that are HTML already, the first ``names`` of them aligned to the left."""
    style = ' class="broken"' if broken else ""
    kinds = [' class="name"' if index < names else "" for index in range(len(cells))]
    texts = [f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)]
    return f"<tr{style}>{''.join(texts)}</tr>"
