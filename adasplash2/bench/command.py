"""What does ``adasplash2 bench`` do?  Checks options, runs a benchmark, prints its tables and keeps its record."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adasplash2.usage import UsageError, check_file

if TYPE_CHECKING:
    from .cases import Case
    from .record import CaseResult

INTERRUPTED = 130


def run_bench(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Run the benchmark that the options name, and return the exit code.

    Raises
    ------
    UsageError
    """
    check_file("--json", options.json)
    _check_plot(options.plot)
    return _attention(options, shlex.join(["adasplash2", *arguments]))


def _attention(options: argparse.Namespace, command: str) -> int:
    """Run ``adasplash2 bench attention``."""

    chosen = _chosen_cases(options)
    rounds = options.rounds if options.rounds is not None else 1 if options.quick else 3
    if rounds < 1:
        raise UsageError(f"--rounds must be 1 or more, got {rounds}. Leave it out for 3.")
    if options.list:
        for case in chosen:
            print(f"{case.label}  ({case.shape})")
        return 0
    device = gpu()
    names = _contender_names(options)

    from adasplash2.verify.machine import this_machine

    from .attention import Bench
    from .contest import Contest
    from .faults import DeviceLostError
    from .record import Header, SpeedRecord, write_record
    from .report import as_text

    bench = Bench(device, Contest(device, names, rounds, options.tuning_time), flex=options.flex)
    header = Header.now(command, this_machine(device))
    record = SpeedRecord(header, rounds, bench.rates, len(chosen), (), packages(names))
    code = 0
    try:
        for case in chosen:
            result = bench.measure(case)
            record = SpeedRecord(header, rounds, bench.rates, len(chosen), (*record.results, result), record.packages)
            _report_case(len(record.results), len(chosen), result)
            if options.json is not None:
                write_record(options.json, record)
    except DeviceLostError as error:
        print(f"adasplash2 bench: {error}. What was measured before is kept.", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = INTERRUPTED
    print(f"\n{as_text(record)}")
    if options.plot is not None:
        from .plot import save, speed_figure

        save(speed_figure(record), options.plot)
    return code or int(any(_ours_missing(result) for result in record.results))


def _chosen_cases(options: argparse.Namespace) -> list[Case]:
    """Return the cases that the options ask for."""
    from . import cases

    axes = (options.workload, options.length, options.head_dim, options.mask, options.alpha)
    for option, values, least in (("--length", options.length, 1), ("--head-dim", options.head_dim, 2)):
        for value in values:
            if value < least:
                raise UsageError(f"{option} must be {least} or more, got {value}. Leave it out for the default.")
    _check_workloads(options.workload)
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


def _check_workloads(names: Sequence[str]) -> None:
    """Raise for a name that `adasplash2.workloads` does not make, or makes with rows that say nothing about speed."""
    import torch

    from adasplash2.workloads import workload

    for name in names:
        try:
            load = workload(name, batch=1, heads=1, n_queries=6, head_dim=16, dtype=torch.float32)
        except ValueError as error:
            raise UsageError(f"--workload is {name!r}. {error}") from error
        if not load.is_finite or load.key.shape != load.query.shape:
            raise UsageError(f"--workload must be finite and as long as its keys, got {name!r}. Try topic16.")


def _contender_names(options: argparse.Namespace) -> list[str]:
    """Return the contenders to run, ours first."""
    from .contenders import NAMES

    if options.contender:
        return [name for name in NAMES if name in options.contender]
    return [name for name in NAMES if name != "adasplash" or not options.quick]


def gpu() -> str:
    """Return the device to measure on.

    Raises
    ------
    UsageError
        If there is none that the kernels are compiled for.
    """
    import torch

    if not torch.cuda.is_available():
        raise UsageError("compiled kernels are timed, and torch finds no GPU. Run it on a machine with one.")
    if importlib.util.find_spec("triton") is None:
        raise UsageError("Triton kernels are timed, and triton is not installed. Install it.")
    if os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes"):
        raise UsageError("compiled kernels are timed, and TRITON_INTERPRET is set. Unset it.")
    return f"cuda:{torch.cuda.current_device()}"


def packages(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of what the contenders come from."""
    import torch

    found = {}
    if "adasplash" in names and importlib.util.find_spec("adasplash") is not None:
        found["adasplash"] = importlib.metadata.version("adasplash")
    if "cudnn" in names and torch.backends.cudnn.is_available():
        found["cuDNN"] = str(torch.backends.cudnn.version())
    return found


def _check_plot(path: Path | None) -> None:
    check_file("--plot", path)
    if path is not None and path.suffix not in (".png", ".svg"):
        raise UsageError(f"--plot must end in .png or .svg, got {path.name}. Rename it.")
    if path is not None and importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib, which is not installed. Install it, or use --json and plot later.")


def _report_case(done: int, asked: int, result: CaseResult) -> None:
    """Print one line when a case is done."""
    from .report import number, present, time_of

    names = present([result])
    times = (
        f"{name} {number(time_of(result, name, 'forward'))}/{number(time_of(result, name, 'step'))}" for name in names
    )
    print(f"[{done}/{asked}] {result.case.label}: {', '.join(times)} ms, {result.seconds:.0f} s", flush=True)


def _ours_missing(result: CaseResult) -> bool:
    """Return whether our kernels were to run in a case and did not."""
    return any(entry.name == "ours" and entry.status != "ok" for entry in result.entries)
