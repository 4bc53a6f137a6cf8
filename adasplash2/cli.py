"""What does the command ``adasplash2`` do?  Reads options, runs ``verify`` or ``bench``, and answers with an exit code.

0: everything passed; 1: something did not; 2: the command was wrong; 130: interrupted; 141: the output was cut short.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import errno
import importlib.util
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__
from .bench.command import run_bench
from .bench.options import add_bench
from .usage import INTERRUPTED, Files, RunError, UsageError, check_file, exit_codes
from .verify.target_command import add_options as add_target_options

if TYPE_CHECKING:
    from .verify.cases import Case
    from .verify.measure import Result

CUT_SHORT = 141  # as a shell reports a program that a closed pipe ended


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, which names the help of the command that was used wrongly."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}. {_see(self.prog)}\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse here what is not known; argparse would leave that to the parser above, whose help does not help."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def _see(name: str) -> str:
    return f"See {name} --help."


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = _Parser(
        prog="adasplash2",
        description="Alpha-entmax attention, and the means to know that it is right. Results go to stdout, progress to "
        "stderr.",
        epilog="Exit code: 0 if everything passed, 1 if not, 2 for a wrong command, 130 if interrupted, 141 if the "
        "reader of the output left before its end (as head does).",
    )
    parser.add_argument("--version", action="version", version=f"adasplash2 {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    verify = commands.add_parser(
        "verify",
        help="run every stage, forward and backward against the float64 oracle",
        description="Run every stage of the kernels, and the whole of forward and backward, against the float64 "
        "oracle, on queries, keys and values of a real transformer, on synthetic ones, and on rows made to be hard. "
        "With a GPU the compiled kernels run; without one, the same kernels in the Triton interpreter, on small cases.",
        epilog=exit_codes("everything passed")
        + " Progress goes to stderr: a bar on a terminal, else a line every ten seconds.",
    )
    verify.add_argument("--json", metavar="FILE", type=Path, help="also write every number found to this file")
    verify.add_argument("--report", metavar="FILE.html", type=Path, help="also write a self-contained page with plots")
    verify.add_argument("--device", metavar="DEVICE", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    verify.add_argument(
        "--dtype",
        action="append",
        choices=("bf16", "fp16", "fp32"),
        help="run every case in this dtype only; repeat for more (default: all on a GPU, one to three a case without)",
    )
    verify.add_argument("--seed", type=int, default=0, help="seed of the synthetic input (default: 0)")
    verify.add_argument("--quick", action="store_true", help="run about a quarter of the cases")
    verify.add_argument("--case", metavar="NAME", action="append", help="run cases of this name only; repeat for more")
    verify.add_argument("--jobs", metavar="N", type=int, help="processes to spread the cases over (default: by cores)")
    verify.add_argument("--list", action="store_true", help="list the cases that would run, and end")
    add_target_options(verify)
    add_bench(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of this process.

    Returns
    -------
    int
        The exit code.
    """
    try:
        try:
            return _run_command(sys.argv[1:] if arguments is None else arguments)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _give_up_stdout()
        return CUT_SHORT
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        _give_up_stdout()
        print(f"adasplash2: the output cannot be written: {error.strerror}.", file=sys.stderr)
        return 1


def _give_up_stdout() -> None:
    """Python flushes once more at its end, and would complain about what cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run_command(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name."""
    options = build_parser().parse_args(arguments)
    name = "adasplash2 verify" if options.command == "verify" else f"adasplash2 bench {options.bench}"
    try:
        return _verify(options) if options.command == "verify" else run_bench(options, arguments)
    except UsageError as error:
        print(f"{name}: {error} {_see(name)}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except MemoryError as error:
        print(f"{name}: out of memory. {error or 'Ask for less at once'}. {_see(name)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted.", file=sys.stderr)
        return INTERRUPTED


def _verify(options: argparse.Namespace) -> int:
    """Run ``adasplash2 verify``."""
    if options.target:
        from .verify.target_command import run_targets

        return run_targets(options)
    for name in ("thorough", "level", "check"):
        if getattr(options, name):
            raise UsageError(f"--{name} is for --target. Leave it out, or name a target.")
    device = _choose_device(options.device)
    # Nothing of ours that imports Triton has been imported yet: Triton reads the variable when a kernel is defined.
    if device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
    from .runs.machine import this_machine
    from .verify import table
    from .verify.cases import case_names, choose_cases
    from .verify.record import write_json
    from .verify.report import write_report

    _check_values(options, case_names())
    cases = choose_cases(
        interpreted=device == "cpu",
        quick=options.quick,
        dtypes=tuple(dict.fromkeys(options.dtype or ())),
        names=tuple(options.case or ()),
        seed=options.seed,
    )
    if options.list:
        _print_list(cases)
        return 0
    machine = this_machine(device)
    print(table.heading(machine), flush=True)
    start = time.perf_counter()
    results, is_whole = _run(cases, device, machine.impl, options.jobs)
    seconds = time.perf_counter() - start
    # Before the table: whoever reads that may leave.
    files, asked = Files(), len(cases)
    files.write("--json", options.json, lambda path: write_json(path, machine, results, asked=asked, seconds=seconds))
    files.write(
        "--report", options.report, lambda path: write_report(path, machine, results, asked=asked, seconds=seconds)
    )
    print(table.body(machine, results, asked=asked, seconds=seconds))
    files.close()
    if not is_whole:
        return INTERRUPTED
    return 0 if all(result.passed for result in results) else 1


def _choose_device(asked: str | None) -> str:
    """Return "cpu" or "cuda:N"."""
    import torch

    is_interpreting = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")
    if asked is None:
        return "cuda:0" if torch.cuda.is_available() and not is_interpreting else "cpu"
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", asked)
    if match is None:
        raise UsageError(f"--device must be cpu, cuda or cuda:N, got {asked!r}. Leave it out to use a GPU if any.")
    if asked == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        raise UsageError(f"--device is {asked}, and torch finds no GPU. Use --device cpu, or leave it out.")
    if is_interpreting:
        raise UsageError(f"--device is {asked}, and TRITON_INTERPRET is set. Unset it, or use --device cpu.")
    if importlib.util.find_spec("triton") is None:
        raise UsageError(f"--device is {asked}, and triton is not installed. Install it, or use --device cpu.")
    number = int(match.group(1) or 0)
    if number >= torch.cuda.device_count():
        raise UsageError(f"--device is {asked}, and torch finds {torch.cuda.device_count()} GPUs. Count them from 0.")
    return f"cuda:{number}"


def _check_values(options: argparse.Namespace, names: tuple[str, ...]) -> None:
    for name in options.case or ():
        if name not in names:
            raise UsageError(f"--case must be one of {', '.join(names)}, got {name!r}. --list shows them.")
    if not 0 <= options.seed < 2**63:
        raise UsageError(f"--seed must be 0 or more and below 2**63, got {options.seed}. Leave it out for 0.")
    if options.jobs is not None and options.jobs < 1:
        raise UsageError(f"--jobs must be 1 or more, got {options.jobs}. Leave it out for one a core.")
    check_file("--json", options.json)
    check_file("--report", options.report)
    if options.json is not None and options.json == options.report:
        raise UsageError(f"--json and --report must name two files, got {options.json} for both. Rename one.")


def _run(cases: list[Case], device: str, impl: str, jobs: int | None) -> tuple[list[Result], bool]:
    """Return the results in the order of the cases, and whether that is all of them."""
    from .runs.progress import Progress
    from .verify.runner import default_jobs, order, run_cases, scores_of

    found: dict[int, Result] = {}
    is_whole = True
    jobs = jobs or default_jobs(device)
    steps = {index: f"{cases[index].name} {cases[index].dtype} {cases[index].shape}" for index in order(cases, jobs)}
    # The interpreter takes time by the score, compiled kernels by the compilation. The time left is guessed from it.
    weights = {index: scores_of(cases[index]) + 20_000.0 if device == "cpu" else 1.0 for index in steps}
    with Progress("adasplash2 verify", steps, weights=weights, at_once=jobs) as progress:

        def keep(index: int, result: Result) -> None:
            found[index] = result
            progress.advance(index)

        try:
            run_cases(cases, device, impl, jobs, keep)
        except KeyboardInterrupt:
            is_whole = False
        except concurrent.futures.BrokenExecutor as error:
            raise RunError("a process died, perhaps for want of memory. Use --jobs 1, or --quick.") from error
    return [found[index] for index in sorted(found)], is_whole


def _print_list(cases: list[Case]) -> None:
    plural = "" if len(cases) == 1 else "s"
    print(
        f"{len(cases)} case{plural}: name, dtype, heads and sizes and mask (c causal, f full, 2 alpha 2, t transposed)"
    )
    print("2*4/2 100x100x64: batch 2 * 4 heads / 2 kv_heads, 100 queries x 100 keys x head_dim 64")
    for case in cases:
        print(f"  {case.name:<18} {case.dtype}  {case.shape}{'  + every stage by itself' if case.stages else ''}")


if __name__ == "__main__":
    sys.exit(main())
