"""What does ``adasplash2 bench`` do?  Checks what all benchmarks share, and runs one."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
from collections.abc import Sequence
from pathlib import Path

from adasplash2.usage import UsageError, check_file


def run_bench(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Run the benchmark that the options name, and return the exit code.

    Raises
    ------
    UsageError
    """
    command = shlex.join(["adasplash2", *arguments])
    if options.bench == "tune":
        from .tune.command import run_tune

        return run_tune(options)
    check_file("--json", options.json)
    _check_plot(options.plot)
    if options.bench == "passes":
        from .passes.command import run_passes

        return run_passes(options, command)
    if options.bench == "rows":
        from .rows.command import run_rows

        return run_rows(options, command)
    if options.bench == "ways":
        from .ways.command import run_ways

        return run_ways(options, command)
    from .attention.command import run_attention

    return run_attention(options, command)


def _check_plot(path: Path | None) -> None:
    check_file("--plot", path)
    if path is not None and path.suffix not in (".png", ".svg"):
        raise UsageError(f"--plot must end in .png or .svg, got {path.name}. Rename it.")
    if path is not None and importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "--plot needs matplotlib, which is not installed. Install the extra plot (pip install '.[plot]' in the "
            "checkout, or pip install matplotlib), or use --json and plot later."
        )
