"""What does ``adasplash2 bench passes`` do?  Counts passes length by length, in the kernels where there is a GPU."""

from __future__ import annotations

import argparse
import itertools
from functools import partial

from adasplash2.bench.shared import hardware
from adasplash2.bench.shared.checks import check_counts
from adasplash2.bench.shared.figure import save
from adasplash2.bench.shared.record import Header, write_record
from adasplash2.runs import machine
from adasplash2.runs.progress import Progress
from adasplash2.usage import INTERRUPTED, Files, UsageError

from .count import ALPHAS, LENGTHS, PassRecord, count_passes, tolerance
from .report import pass_figure, pass_text
from .rows import NAMES

SHORT = 4096  # keys that take about as long as what rows of any length cost; only the time left is guessed from it


def run_passes(options: argparse.Namespace, typed: str) -> int:
    """Run the benchmark, and return the exit code: 1 if a row was left unconverged."""
    for name in options.workload:
        if name not in NAMES:
            raise UsageError(f"--workload must be one of {', '.join(NAMES)}, got {name!r}. Leave it out for all.")
    check_counts("--length", options.length, "for all")
    check_counts("--rows", [options.rows], "for 32")
    device = None if options.spec or not hardware.has_gpu() else hardware.gpu()
    header = Header.now(typed, machine.this_machine(device or "cpu"))
    source = "specification" if device is None else "kernels"
    record = PassRecord(header, source, tolerance(), ())
    lengths = tuple(sorted(set(options.length))) or LENGTHS
    names = tuple(dict.fromkeys(options.workload)) or NAMES
    alphas = tuple(dict.fromkeys(options.alpha)) or ALPHAS
    keys = list(itertools.product(lengths, names, alphas))
    steps = {key: "{1} {0} alpha {2:g}".format(*key) for key in keys}
    weights = {key: key[0] + SHORT for key in keys}
    files, code = Files(), 0
    try:
        with Progress("adasplash2 bench passes", steps, unit="kinds", weights=weights) as progress:
            for result in count_passes(names, lengths, alphas, rows=options.rows, device=device):
                record = PassRecord(header, source, record.tolerance, (*record.results, result))
                files.write("--json", options.json, partial(write_record, record=record))
                progress.advance()
    except KeyboardInterrupt:
        code = INTERRUPTED
    files.write("--plot", options.plot, lambda path: save(pass_figure(record), path))
    print(pass_text(record))
    if code == INTERRUPTED:
        print(
            f"INTERRUPTED: {len(record.results)} of {len(keys)} kinds of rows were counted; what is said is of those."
        )
    files.close()
    return code or int(any(not result.residual <= record.tolerance for result in record.results))
