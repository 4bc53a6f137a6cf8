"""How is a measurement of the oracle kept?  As JSON, with its command, its date, and what it was made with."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path


def write(
    path: Path,
    command: str,
    arguments: Sequence[str] | None,
    packages: Sequence[str],
    results: Sequence[object],
    *,
    machine: str = platform.machine(),
    **about: object,
) -> None:
    """Write the record of a run; arguments of None are those of this program, ``about`` is what else matters."""
    record = {
        "command": f"{command} {shlex.join(sys.argv[1:] if arguments is None else arguments)}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        **about,
        "versions": {"python": platform.python_version(), **versions(packages)},
        "machine": machine,
        "results": results,
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the releases of those distributions that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
