"""What does ``adasplash2 verify --target`` do?  It runs the conformance suite on any implementation of entmax."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
from importlib.metadata import version

from adasplash2.runs.progress import Progress

from ..usage import INTERRUPTED, Files, UsageError, check_file

_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
# Options of the cases of verify, which targets do not have.
_OTHERS = ("case", "device", "jobs", "list")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what only targets have."""
    parser.add_argument(
        "--target",
        metavar="MODULE:FUNCTION",
        action="append",
        help="run the conformance suite instead, on the target or targets that this function returns; repeat for more",
    )
    parser.add_argument("--thorough", action="store_true", help="with --target: draw more examples, of longer rows")
    parser.add_argument(
        "--level", action="append", help="with --target: run checks of this level only; repeat for more"
    )
    parser.add_argument("--check", action="append", help="with --target: run this check only; repeat for more")


def run_targets(options: argparse.Namespace) -> int:
    """Run the suite on the targets that were named; return the exit code."""
    _check(options)
    # Before anything of a target is imported: Triton reads it when a kernel is defined.
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")
    from entmax_ref.conformance import BUDGETS, LEVELS, Outcome, TargetError, load, run_check
    from entmax_ref.conformance.outcome import write_json
    from entmax_ref.conformance.page import write_page
    from entmax_ref.conformance.running import cells, unknown
    from entmax_ref.conformance.table import summary

    levels, names = options.level or (), options.check or ()
    wrong = unknown(levels, names)
    if wrong:
        raise UsageError(f"--{wrong}")
    try:
        targets = [target for name in options.target for target in load(name)]
    except TargetError as error:
        raise UsageError(f"--{error}") from error
    dtypes = [_DTYPES[name] for name in options.dtype or ()]
    budget = "quick" if options.quick else "thorough" if options.thorough else "default"
    chosen = cells(targets, levels or LEVELS, names, dtypes)
    if not chosen:
        raise UsageError("--target, --level, --check and --dtype leave nothing to run. Leave one out.")
    found: list[Outcome] = []
    steps = {index: f"{target.name} {check.name} {dtype}" for index, (target, check, dtype) in enumerate(chosen)}
    is_whole = True
    with Progress("adasplash2 verify", steps, weights=dict.fromkeys(steps, 1.0), at_once=1) as progress:
        try:
            for index, (target, check, dtype) in enumerate(chosen):
                found.append(run_check(check, target, dtype, BUDGETS[budget], options.seed))
                progress.advance(index)
        except KeyboardInterrupt:
            is_whole = False
    about = {"budget": budget, "seed": options.seed, "python": platform.python_version()}
    about |= {name: version(name) for name in ("numpy", "torch", "hypothesis")}
    files = Files()
    files.write("--json", options.json, lambda path: write_json(path, found, about))
    files.write("--report", options.report, lambda path: write_page(path, found, about))
    print(summary(found))
    files.close()
    if not is_whole:
        return INTERRUPTED
    return 1 if any(outcome.bad for outcome in found) else 0


def _check(options: argparse.Namespace) -> None:
    """Refuse options that do not go together, and a suite that is not installed."""
    for name in _OTHERS:
        if getattr(options, name):
            raise UsageError(f"--{name} does not go with --target, which has its own cases. Leave it out.")
    if options.quick and options.thorough:
        raise UsageError("--quick and --thorough are two budgets. Leave one out.")
    if importlib.util.find_spec("hypothesis") is None:
        raise UsageError("--target needs hypothesis, which is not installed. pip install 'adasplash2[conformance]'.")
    if not 0 <= options.seed < 2**63:
        raise UsageError(f"--seed must be 0 or more and below 2**63, got {options.seed}. Leave it out for 0.")
    check_file("--json", options.json)
    check_file("--report", options.report)
