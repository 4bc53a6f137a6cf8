"""How does a record look?  Bars of times, one group a case; matplotlib draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adasplash2.bench.shared.figure import legend_below

from .contenders import TITLES
from .readings import present, time_of
from .record import CaseResult, SpeedRecord

# Okabe and Ito's, which also differ for colour-blind readers.
COLOURS = {"ours": "#0072b2", "flash": "#e69f00", "cudnn": "#009e73", "adasplash": "#cc79a7"}


def speed_figure(record: SpeedRecord, results: Sequence[CaseResult] | None = None) -> Any:
    """Return a figure: forward and step of every contender in every case, over cuDNN's, or else the first other's."""
    from matplotlib.figure import Figure

    results = record.results if results is None else results
    names = present(results)
    base = _base(results)
    figure = Figure(figsize=(8.6, 1.2 + 0.42 * len(results)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    height = 0.84 / (len(names) or 1)
    for panel, part in zip(panels, ("forward", "step"), strict=True):
        for place, name in enumerate(names):
            for row, result in enumerate(results):
                time, unit = time_of(result, name, part), time_of(result, base, part)
                if time is None or unit is None:
                    continue
                at = row + (place - (len(names) - 1) / 2) * height
                panel.barh(at, time / unit, height, color=COLOURS[name], label=TITLES[name])
                panel.text(time / unit, at, f" {time:.3g}", va="center", fontsize=6)
        for row, result in enumerate(results):
            unit = time_of(result, base, part)
            if result.floor is not None and unit is not None:
                floor = (result.floor.forward_ms if part == "forward" else result.floor.step_ms) / unit
                panel.plot([floor, floor], [row - 0.45, row + 0.45], color="black", linewidth=1.2, label="floor")
        panel.axvline(1.0, color="#8b949e", linewidth=0.8, zorder=0)
        panel.set_title(f"{part}: time over {TITLES[base]}'s (numbers: ms)", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(results)), [result.case.label for result in results], fontsize=7)
    if results:
        panels[0].invert_yaxis()
    legend_below(figure, panels)
    return figure


def _base(results: Sequence[CaseResult]) -> str:
    """Return whose time is 1: the contender that was timed most often, cuDNN before the others."""

    def timed(name: str) -> int:
        return sum(time_of(result, name, "step") is not None for result in results)

    return max(("cudnn", "flash", "adasplash", "ours"), key=timed)
