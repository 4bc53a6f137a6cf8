"""What do figures of several panels share?  A legend below with every label once, and the file they go to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any


def legend_below(figure: Any, panels: Iterable[Any], columns: int | None = None) -> None:
    """Draw the legend of all panels below a matplotlib figure, nothing if no panel has a label."""
    handles: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        columns = len(handles) if columns is None else columns
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, fontsize=8)


def save(figure: Any, path: Path) -> None:
    """Write a figure; the ending of the name decides the format."""
    figure.savefig(path, dpi=150)
