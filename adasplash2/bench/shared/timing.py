"""How long does it take?  Medians of repeated runs on a GPU, with contenders taking turns; wall time elsewhere."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch

from .faults import first_line, is_gpu, recover

Run = Callable[[], object]


class Stage(Protocol):
    """What `stages.forward_calls` and its like return."""

    @property
    def stage(self) -> str:
        """Its name."""

    def run(self) -> None:
        """Start it."""


def synchronize(device: torch.device | str) -> None:
    """Wait until the device has done what it was given."""
    if is_gpu(device):
        torch.cuda.synchronize(device)


def median_ms(run: Run, device: torch.device | str, *, milliseconds: int = 60) -> float:
    """Return the median time of a run, repeated for about that long with a cold cache, after a warm-up."""
    if is_gpu(device):
        from triton.testing import do_bench

        with torch.cuda.device(device):
            return float(do_bench(run, warmup=10, rep=milliseconds, return_mode="median"))
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def in_turns(runs: Mapping[str, Run], rounds: int, device: torch.device | str) -> dict[str, list[float] | str]:
    """Return one median a round for each run; they take turns, so that all see the same clock and temperature.

    A run that raises is left out from then on, and what it said is returned in place of its times.

    Raises
    ------
    DeviceLostError
        If a run leaves the device unusable.
    """
    found: dict[str, list[float] | str] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times = found[name]
            if isinstance(times, str):
                continue
            try:
                times.append(median_ms(run, device))
            except Exception as error:
                found[name] = first_line(error)
            if isinstance(found[name], str):
                recover(device, name)
    return found


def stage_times(
    prepare: Callable[[], Sequence[Stage]], device: torch.device | str, repeats: int = 7
) -> list[tuple[str, float]]:
    """Return (stage, median ms) of stages that run one after the other.

    Parameters
    ----------
    prepare : callable
        Returns the stages over fresh memory: a stage may read what it writes, so none is run twice on the same.
    device : torch.device or str
    repeats : int
        After one that does not count.
    """
    names: list[str] = []
    times: list[list[float]] = []
    for turn in range(repeats + 1):
        stages = prepare()
        if not turn:
            names = [stage.stage for stage in stages]
            times = [[] for _ in stages]
        taken = _gpu_times(stages) if is_gpu(device) else _wall_times(stages)
        if turn:
            for series, one in zip(times, taken, strict=True):
                series.append(one)
    return [(name, statistics.median(series)) for name, series in zip(names, times, strict=True)]


def _gpu_times(stages: Sequence[Stage]) -> list[float]:
    torch.cuda.synchronize()
    # The device idles for two or three milliseconds while the starts queue up: none of them waits for the host.
    torch.cuda._sleep(4_000_000)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(len(stages) + 1)]
    events[0].record()
    for stage, event in zip(stages, events[1:], strict=True):
        stage.run()
        event.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in itertools.pairwise(events)]


def _wall_times(stages: Sequence[Stage]) -> list[float]:
    taken = []
    for stage in stages:
        start = time.perf_counter()
        stage.run()
        taken.append(1e3 * (time.perf_counter() - start))
    return taken
