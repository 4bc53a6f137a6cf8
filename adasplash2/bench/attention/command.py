"""What does ``adasplash2 bench attention`` do?  Chooses cases and contenders, and keeps the record case by case."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from adasplash2.bench.shared import hardware
from adasplash2.bench.shared.checks import check_counts, check_rounds, check_tuning_time, check_workloads
from adasplash2.bench.shared.figure import save
from adasplash2.bench.shared.keeping import keep_results, ours_missing, packages_of
from adasplash2.bench.shared.record import Header, read_record
from adasplash2.bench.shared.table import number
from adasplash2.runs import machine
from adasplash2.usage import Files, UsageError

from . import cases
from .cases import Case
from .contenders import NAMES
from .contest import Contest
from .measure import Bench
from .plot import speed_figure
from .readings import present, time_of
from .record import CaseResult, SpeedRecord
from .report import as_text


def run_attention(options: argparse.Namespace, typed: str) -> int:
    """Run the benchmark, and return the exit code."""
    chosen = _chosen_cases(options)
    rounds = options.rounds if options.rounds is not None else 1 if options.quick else 3
    check_rounds(rounds, 3)
    if options.list:
        for case in chosen:
            print(f"{case.label}  ({case.shape})")
        return 0
    device = hardware.gpu()
    names = _contender_names(options)

    bench = Bench(device, Contest(device, names, rounds, options.tuning_time), flex=options.flex)
    header = Header.now(typed, machine.this_machine(device))
    record = SpeedRecord(header, rounds, bench.rates, len(chosen), (), packages_of(names))
    if options.resume:
        record, chosen = _taken_up(options.json, record, chosen, names, has_flex=options.flex)
        bench.rates.update(record.matrix_rate)
        # The bench goes on adding to it.
        record = dataclasses.replace(record, matrix_rate=bench.rates)
    files, results = Files(), map(bench.measure, chosen)
    record, code = keep_results("attention", _titles(chosen), results, record, files, options.json, _case_line)
    files.write("--plot", options.plot, lambda path: save(speed_figure(record), path))
    print(as_text(record))
    files.close()
    return code or int(any(ours_missing(result.entries) for result in record.results))


def _taken_up(
    path: Path | None, record: SpeedRecord, chosen: list[Case], names: Sequence[str], *, has_flex: bool
) -> tuple[SpeedRecord, list[Case]]:
    """Return the record in a file, as what a new one goes on with, and the cases that it lacks."""
    if path is None or not path.is_file():
        raise UsageError("--resume goes on with the record in --json, and there is none. Leave it out to begin one.")
    try:
        earlier = read_record(path, SpeedRecord)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"--resume goes on with the record in --json, and this is none: {error}") from error
    for name in ("rounds", "asked", "packages"):
        before, now = getattr(earlier, name), getattr(record, name)
        if before != now:
            raise UsageError(f"--resume: {name} was {before}, and is {now}. Ask for the same run, or begin another.")
    if earlier.header.machine != record.header.machine:
        raise UsageError(
            f"--resume: the record was begun with {earlier.header.machine}, this is {record.header.machine}. "
            "Go on with the same card and versions, or begin another."
        )
    done = [result.case for result in earlier.results]
    if any(case not in chosen for case in done):
        raise UsageError("--resume: the record has cases that are not asked for now. Ask for the same cases.")
    if any({entry.name for entry in result.entries} != set(names) for result in earlier.results):
        raise UsageError(f"--resume: the record has other contenders than {', '.join(names)}. Ask for the same ones.")
    for result in earlier.results:
        had_flex = result.flex is not None or any(failure.startswith("flex") for failure in result.failures)
        if had_flex != has_flex:
            raise UsageError("--resume: the record was begun with another --flex. Ask for the same run.")
    kept = dataclasses.replace(earlier, resumed=(*earlier.resumed, record.header.date))
    return kept, [case for case in chosen if case not in done]


def _chosen_cases(options: argparse.Namespace) -> list[Case]:
    """Return the cases that the options ask for."""
    check_tuning_time(options.tuning_time, 120)
    for name in ("workload", "length", "head_dim", "mask", "alpha", "dtype"):
        setattr(options, name, list(dict.fromkeys(getattr(options, name))))
    axes = (options.workload, options.length, options.head_dim, options.mask, options.alpha)
    check_counts("--length", options.length, "for the default")
    check_counts("--head-dim", options.head_dim, "for the default", least=2)
    check_workloads(options.workload)
    if any(axes):
        if options.quick:
            raise UsageError("--quick has its own cases, and others are named too. Leave out --quick, or the others.")
        return cases.chosen_cases(
            workloads=options.workload,
            lengths=options.length,
            head_dims=options.head_dim,
            masks=options.mask,
            alphas=options.alpha,
            dtypes=options.dtype,
        )
    of_dtype = cases.quick_cases if options.quick else cases.default_cases
    return [case for dtype in options.dtype or ["bf16"] for case in of_dtype(dtype)]


def _contender_names(options: argparse.Namespace) -> list[str]:
    """Return the contenders to run, ours first."""
    if options.contender:
        return [name for name in NAMES if name in options.contender]
    return [name for name in NAMES if name != "adasplash" or not options.quick]


def _titles(chosen: list[Case]) -> list[str]:
    return [f"{case.label} {case.dtype}" for case in chosen]


def _case_line(result: CaseResult) -> str:
    """Return what is shown when a case is done."""
    names = present([result])
    times = (
        f"{name} {number(time_of(result, name, 'forward'))}/{number(time_of(result, name, 'step'))}" for name in names
    )
    return f"{result.case.label}: {', '.join(times)} ms, {result.seconds:.0f} s"
