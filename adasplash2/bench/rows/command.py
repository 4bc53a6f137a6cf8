"""What does ``adasplash2 bench rows`` do?  Chooses lengths and contenders, and keeps the record case by case."""

from __future__ import annotations

import argparse
import itertools

from adasplash2.bench.shared import hardware
from adasplash2.bench.shared.checks import check_counts, check_rounds
from adasplash2.bench.shared.figure import save
from adasplash2.bench.shared.keeping import keep_results, ours_missing, versions
from adasplash2.bench.shared.record import Header
from adasplash2.bench.shared.table import number
from adasplash2.runs import machine
from adasplash2.usage import Files

from .contenders import NAMES
from .measure import ALPHAS, LENGTHS, RowCase, RowRecord, RowResult, measure_rows
from .report import row_figure, row_text


def run_rows(options: argparse.Namespace, typed: str) -> int:
    """Run the benchmark, and return the exit code: 1 if our kernels did not run in every case."""
    cases = _chosen_cases(options)
    check_rounds(options.rounds, 3)
    device = hardware.gpu()
    names = [name for name in NAMES if not options.contender or name in options.contender]
    record = RowRecord(
        Header.now(typed, machine.this_machine(device)),
        options.rounds,
        len(cases),
        (),
        versions(("entmax", "adasplash")),
    )
    files, results = Files(), (measure_rows(case, device, options.rounds, names) for case in cases)
    titles = [case.label for case in cases]
    record, code = keep_results("rows", titles, results, record, files, options.json, _case_line)
    files.write("--plot", options.plot, lambda path: save(row_figure(record), path))
    print(row_text(record))
    files.close()
    return code or int(any(ours_missing(result.entries) for result in record.results))


def _chosen_cases(options: argparse.Namespace) -> list[RowCase]:
    """Return the cases that the options ask for."""
    check_counts("--length", options.length, "for all")
    check_counts("--elements", [options.elements], "for 2**26", end=2**40)
    chosen = itertools.product(
        tuple(dict.fromkeys(options.dtype)) or ("fp32", "bf16"),
        tuple(dict.fromkeys(options.alpha)) or ALPHAS,
        tuple(sorted(set(options.length))) or LENGTHS,
    )
    return [RowCase(length, max(1, -(-options.elements // length)), dtype, alpha) for dtype, alpha, length in chosen]


def _case_line(result: RowResult) -> str:
    """Return what is shown when a case is done."""
    times = ", ".join(
        f"{entry.name} {number(entry.ms('forward'))}/{number(entry.ms('step'))}" for entry in result.entries
    )
    return f"{result.case.label}: {times} ms, {result.seconds:.0f} s"
