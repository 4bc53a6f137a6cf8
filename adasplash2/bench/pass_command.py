"""What does ``adasplash2 bench passes`` do?  Counts passes length by length, in the kernels where there is a GPU."""

from __future__ import annotations

import argparse
import time

from adasplash2.usage import UsageError
from adasplash2.verify import machine

from . import command
from .pass_report import pass_figure, pass_text
from .pass_rows import NAMES
from .passes import ALPHAS, LENGTHS, PassRecord, count_passes, tolerance
from .plot import save
from .record import Header, write_record


def run_passes(options: argparse.Namespace, typed: str) -> int:
    """Run the benchmark, and return the exit code: 1 if a row was left unconverged."""
    for name in options.workload:
        if name not in NAMES:
            raise UsageError(f"--workload must be one of {', '.join(NAMES)}, got {name!r}. Leave it out for all.")
    for length in options.length:
        if length < 1:
            raise UsageError(f"--length must be 1 or more, got {length}. Leave it out for all.")
    if options.rows < 1:
        raise UsageError(f"--rows must be 1 or more, got {options.rows}. Leave it out for 32.")
    device = None if options.spec or not command.has_gpu() else command.gpu()
    header = Header.now(typed, machine.this_machine(device or "cpu"))
    source = "specification" if device is None else "kernels"
    print("Counting in the float64 specification." if device is None else "Counting in the kernels.", flush=True)
    record = PassRecord(header, source, tolerance(), ())
    lengths = tuple(sorted(set(options.length))) or LENGTHS
    code, start = 0, time.perf_counter()
    try:
        for result in count_passes(
            tuple(options.workload) or NAMES,
            lengths,
            tuple(options.alpha) or ALPHAS,
            rows=options.rows,
            device=device,
        ):
            if not record.results or record.results[-1].length != result.length:
                print(f"length {result.length} ({time.perf_counter() - start:.0f} s)", flush=True)
            record = PassRecord(header, source, record.tolerance, (*record.results, result))
            if options.json is not None:
                write_record(options.json, record)
    except KeyboardInterrupt:
        code = command.INTERRUPTED
    print(f"\n{pass_text(record)}")
    if options.plot is not None:
        save(pass_figure(record), options.plot)
    return code or int(any(not result.residual <= record.tolerance for result in record.results))
