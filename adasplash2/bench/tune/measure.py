"""Which row of the launch table would be faster?  Times candidates stage by stage and proposes one; writes nothing."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch

from adasplash2.bench.shared import stages
from adasplash2.bench.shared.faults import first_line, recover
from adasplash2.bench.shared.stages import random_like
from adasplash2.bench.shared.table import Table, number
from adasplash2.bench.shared.timing import stage_times
from adasplash2.launch_table import Launch, Program
from adasplash2.workloads import Workload

# What is tried where nothing is named: fields of the launch table and their values.
CANDIDATES: dict[str, tuple[int, ...]] = {
    "dense.stages": (2, 3),
    "output.registers": (128, 255),
    "backward_dq.stages": (2, 3),
    "backward_dkdv.registers": (168, 255),
}


@dataclasses.dataclass(frozen=True)
class Trial:
    """A row of the launch table and what it took, over all workloads: (stage, ms) in their order, or why it failed."""

    row: Launch
    stages: tuple[tuple[str, float], ...] = ()
    failure: str = ""

    @property
    def total_ms(self) -> float:
        """All stages together; infinite if it failed."""
        return sum(ms for _, ms in self.stages) if self.stages else float("inf")


def fields() -> tuple[str, ...]:
    """Return the names that a candidate may vary: the numbers of `Launch`, and of its programs, ``dense.warps``."""
    names = []
    for field in dataclasses.fields(Launch):
        if field.type in ("Program", Program):
            names += [f"{field.name}.{part.name}" for part in dataclasses.fields(Program)]
        elif field.name != "why":
            names.append(field.name)
    return tuple(names)


def value_of(row: Launch, name: str) -> int:
    """Return a number of a row by its name."""
    program, _, part = name.partition(".")
    return int(getattr(getattr(row, program), part) if part else getattr(row, program))


def with_value(row: Launch, name: str, value: int) -> Launch:
    """Return a row with another number in the place of that name."""
    program, _, part = name.partition(".")
    other = dataclasses.replace(getattr(row, program), **{part: value}) if part else value
    return dataclasses.replace(row, **{program: other})  # type: ignore[arg-type]


def candidates(current: Launch, vary: Mapping[str, Sequence[int]]) -> list[Launch]:
    """Return the current row, and every combination of the values over it that a multiprocessor can hold."""
    rows = [current]
    for values in itertools.product(*vary.values()):
        row = current
        try:
            for name, value in zip(vary, values, strict=True):
                row = with_value(row, name, value)
        except ValueError:
            continue
        if row not in rows:
            rows.append(row)
    return rows


def trials(
    loads: Sequence[Workload], alpha: float, rows: Sequence[Launch], device: torch.device | str
) -> Iterator[Trial]:
    """Yield the trial of each row; one that does not compile or fit has failed, and the others go on."""
    for row in rows:
        try:
            trial = Trial(row, tuple(_stage_totals(loads, alpha, row, device)))
        except Exception as error:
            trial = Trial(row, failure=first_line(error))
        if trial.failure:
            recover(device, describe(row))
        yield trial


def _stage_totals(
    loads: Sequence[Workload], alpha: float, row: Launch, device: torch.device | str
) -> list[tuple[str, float]]:
    totals: list[tuple[str, float]] = []
    for load in loads:
        forward = stages.forward_stages(load, alpha, row)
        times = stage_times(lambda forward=forward: forward()[0], device)  # type: ignore[misc]
        times += stage_times(stages.backward_stages(load, random_like(load.query, 1), alpha, row), device)
        totals = (
            [(name, ms) for name, ms in times]
            if not totals
            else [(name, before + ms) for (name, before), (_, ms) in zip(totals, times, strict=True)]
        )
    return totals


def describe(row: Launch) -> str:
    """Return a row's numbers: ``block_m=64, block_n=64, ..., dense=4/2/128, ...``; warps/stages/registers."""
    texts = []
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        if isinstance(value, Program):
            texts.append(f"{field.name}={value.warps}/{value.stages}/{value.registers}")
        elif field.name != "why":
            texts.append(f"{field.name}={value}")
    return ", ".join(texts)


def trial_table(found: Sequence[Trial]) -> Table:
    """Return one line a trial, fastest first; a failed one says why."""
    names = list(dict.fromkeys(name for trial in found for name, _ in trial.stages))
    rows = []
    for trial in sorted(found, key=lambda one: one.total_ms):
        cells = [sum(ms for name, ms in trial.stages if name == column) for column in names]
        shown = [number(cell) for cell in cells] if trial.stages else ["failed"] * len(names)
        rows.append((describe(trial.row), *shown, number(trial.total_ms) if trial.stages else "-"))
    return Table("trials", "Milliseconds by launch row, summed over the workloads", ("row", *names, "all"), tuple(rows))


def stage_bests(found: Sequence[Trial]) -> list[str]:
    """Return, for each stage, its best time and the row that has it."""
    passed = [trial for trial in found if trial.stages]
    lines = []
    for place, (name, _) in enumerate(passed[0].stages if passed else ()):
        best = min(passed, key=lambda trial: trial.stages[place][1])
        lines.append(f"{name}: {number(best.stages[place][1])} ms with {describe(best.row)}")
    return lines


def proposal(found: Sequence[Trial], key: tuple[str, int, int], where: str, what: str) -> str:
    """Return the line for `adasplash2.launch_table.LAUNCH`, with the measurement as its reason; empty if all failed.

    Parameters
    ----------
    found : sequence of Trial
        The current row first.
    key : tuple
        Backend, bytes of an element, head_dim: the key of the row.
    where, what : str
        Date, card and versions; workloads and shape.
    """
    passed = sorted((trial for trial in found if trial.stages), key=lambda one: one.total_ms)
    if not passed:
        return ""
    best, current = passed[0], found[0]
    why = f"{where}: {what}: {number(best.total_ms)} ms for all stages"
    if len(passed) > 1:
        why += f"; next, {number(passed[1].total_ms)} with {describe(passed[1].row)}"
    if best is not current and current.stages:
        why += f"; before, {number(current.total_ms)} with {describe(current.row)}"
    values = ", ".join(
        f"{field.name}={getattr(best.row, field.name)!r}" for field in dataclasses.fields(Launch) if field.name != "why"
    )
    return f'{key!r}: Launch({values}, why="{why}"),'
