"""How does a run keep its record, case by case, however it ends?"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from adasplash2.runs.progress import Progress
from adasplash2.usage import INTERRUPTED, Files

from .faults import DeviceLostError
from .record import Timed, write_record

Kept = TypeVar("Kept")


def keep_results(
    name: str,
    titles: Sequence[str],
    results: Iterable[Any],
    record: Kept,
    files: Files,
    path: Path | None,
    line: Callable[[Any], str],
) -> tuple[Kept, int]:
    """Return the record with the results, and the exit code: 1 if the device was lost, 130 if interrupted.

    Parameters
    ----------
    name : str
        Of the benchmark.
    titles : sequence of str
        Of the cases.
    results : iterable
        One for each case, measured as they are asked for.
    record : dataclass
        Its ``results`` grow, from those that it has; it is written after every one.
    files : Files
    path : Path or None
        Where the record goes.
    line : callable
        Says what came out of a case.
    """
    kept: tuple[Any, ...] = record.results  # type: ignore[attr-defined]
    known = len(kept)
    try:
        with Progress(f"adasplash2 bench {name}", dict(enumerate(titles)), every_s=60.0) as progress:
            for result in results:
                kept = (*kept, result)
                record = dataclasses.replace(record, results=kept)  # type: ignore[type-var]
                files.write("--json", path, partial(write_record, record=record))
                progress.advance()
                progress.note(f"[{len(kept) - known}/{len(titles)}] {line(result)}")
    except DeviceLostError as error:
        print(f"adasplash2 bench {name}: {error}. What was measured before is kept.", file=sys.stderr)
        return record, 1
    except KeyboardInterrupt:
        return record, INTERRUPTED
    return record, 0


def ours_missing(entries: Iterable[Timed]) -> bool:
    """Return whether our kernels were to run in a case and did not."""
    return any(entry.name == "ours" and entry.status != "ok" for entry in entries)


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    return {name: importlib.metadata.version(name) for name in packages if importlib.util.find_spec(name) is not None}


def packages_of(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of what contenders of attention come from."""
    found = versions([name for name in ("adasplash",) if name in names])
    if "cudnn" in names and torch.backends.cudnn.is_available():
        found["cuDNN"] = str(torch.backends.cudnn.version())
    return found
