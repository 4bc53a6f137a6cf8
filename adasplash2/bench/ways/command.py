"""What does ``adasplash2 bench ways`` do?  Chooses workloads and contenders, and keeps the record case by case."""

from __future__ import annotations

import argparse

from adasplash2.bench.shared import hardware
from adasplash2.bench.shared.checks import check_counts, check_rounds, check_tuning_time, check_workloads
from adasplash2.bench.shared.figure import save
from adasplash2.bench.shared.keeping import keep_results, packages_of
from adasplash2.bench.shared.record import Header
from adasplash2.bench.shared.table import number
from adasplash2.bench.shared.tuning import Tuning
from adasplash2.runs import machine
from adasplash2.usage import Files
from adasplash2.workloads import captured_names

from .measure import CONTENDERS, LENGTHS, WORKLOADS, WayRecord, WayResult, loads, measure_ways
from .report import TITLES, way_figure, way_text


def run_ways(options: argparse.Namespace, typed: str) -> int:
    """Run the benchmark, and return the exit code: 1 if our kernels did not run in every case."""
    check_counts("--length", options.length, "for all")
    check_rounds(options.rounds, 2)
    check_tuning_time(options.tuning_time, 60)
    names = tuple(dict.fromkeys(options.workload)) or (*WORKLOADS, *captured_names())
    check_workloads([name for name in names if name not in captured_names()])
    device = hardware.gpu()
    lengths = tuple(sorted(set(options.length))) or LENGTHS
    contenders = [name for name in CONTENDERS if not options.contender or name in options.contender]
    cases = loads(names, lengths, device)
    header = Header.now(typed, machine.this_machine(device))
    record = WayRecord(header, options.rounds, len(cases), (), packages_of(contenders))
    tuning = Tuning(options.tuning_time)
    results = (measure_ways(make(), device, options.rounds, contenders, tuning) for _, make in cases)
    files = Files()
    titles = [title for title, _ in cases]
    record, code = keep_results("ways", titles, results, record, files, options.json, _case_line)
    files.write("--plot", options.plot, lambda path: save(way_figure(record), path))
    print(way_text(record))
    files.close()
    return code or int(any(result.ms("chosen") is None for result in record.results))


def _case_line(result: WayResult) -> str:
    """Return what is shown when a case is done."""
    times = ", ".join(f"{TITLES[entry.name]} {number(entry.ms('step'))}" for entry in result.entries)
    return f"{result.label}: {100.0 * result.live:.3g}% live, step {times} ms, {result.seconds:.0f} s"
