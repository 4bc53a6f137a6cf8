"""What does ``adasplash2 bench tune`` do?  Times candidates and prints the line that a person may commit."""

from __future__ import annotations

import argparse
import datetime
import sys

from adasplash2.bench.attention.cases import case_of
from adasplash2.bench.shared import hardware, stages
from adasplash2.bench.shared.faults import DeviceLostError
from adasplash2.bench.shared.table import text_lines
from adasplash2.runs import machine
from adasplash2.runs.progress import Progress
from adasplash2.usage import INTERRUPTED, UsageError
from adasplash2.verify.cases import DTYPES
from adasplash2.workloads import workload

from . import measure as tune


def run_tune(options: argparse.Namespace) -> int:
    """Run the benchmark, and return the exit code: 1 if no candidate ran."""
    vary = parse_vary(options.vary) or {
        name: tune.CANDIDATES[name] for name in tune.CANDIDATES if name in tune.fields()
    }
    names = options.workload or ["topic16", "gauss1"]
    shapes = [
        case_of(name, options.length, options.head_dim, options.mask, alpha=options.alpha, dtype=options.dtype)
        for name in names
    ]
    device, dtype = hardware.gpu(), DTYPES[options.dtype]
    current = stages.launch_row(dtype, options.head_dim)
    try:
        loads = [
            workload(
                case.workload,
                batch=case.batch,
                heads=case.heads,
                n_queries=case.length,
                head_dim=case.head_dim,
                dtype=dtype,
                device=device,
                is_causal=case.is_causal,
            )
            for case in shapes
        ]
    except ValueError as error:
        raise UsageError(str(error)) from error
    rows = tune.candidates(current, vary)
    found: list[tune.Trial] = []
    code = 0
    try:
        steps = {place: tune.describe(row) for place, row in enumerate(rows)}
        with Progress("adasplash2 bench tune", steps, unit="candidates", every_s=60.0) as progress:
            for trial in tune.trials(loads, options.alpha, rows, device):
                found.append(trial)
                took = trial.failure or f"{trial.total_ms:.3g} ms"
                progress.advance()
                progress.note(f"[{len(found)}/{len(rows)}] {tune.describe(trial.row)}: {took}")
    except DeviceLostError as error:
        print(f"adasplash2 bench tune: {error}. What was measured before is kept.", file=sys.stderr)
    except KeyboardInterrupt:
        code = INTERRUPTED
    if not found:
        return code or 1
    this = machine.this_machine(device)
    where = f"{datetime.date.today().isoformat()}, {this.device_name}, torch {this.torch}, triton {this.triton}"
    what = f"{' + '.join(names)} {shapes[0].shape} {shapes[0].mask} {options.dtype} alpha {options.alpha:g}"
    line = tune.proposal(found, stages.launch_key(dtype, options.head_dim), where, what)
    print(*text_lines(tune.trial_table(found)), "", "Best of each stage:", *tune.stage_bests(found), sep="\n")
    print(f"\nProposed row of LAUNCH in adasplash2/launch_table.py:\n    {line}" if line else "\nNo candidate ran.")
    return code or int(not line)


def parse_vary(asked: list[str]) -> dict[str, tuple[int, ...]]:
    """Return fields and values from ``FIELD=V,V,...``."""
    found = {}
    for text in asked:
        name, _, values = text.partition("=")
        try:
            found[name] = tuple(int(value) for value in values.split(","))
        except ValueError:
            raise UsageError(
                f"--vary must be FIELD=V,V,... with whole numbers, got {text!r}. Try dense.warps=4,8."
            ) from None
        if name not in tune.fields():
            raise UsageError(f"--vary must name one of {', '.join(tune.fields())}, got {name!r}.")
    return found
