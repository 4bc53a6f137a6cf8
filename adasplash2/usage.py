"""How does a command say that it was used wrongly, or could not end?  Exit codes 2 and 1, one line each."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

# The exit code of a run that was interrupted.
INTERRUPTED = 130


class UsageError(Exception):
    """An option that cannot be served; the message says which, the rule, the value and the way out."""


class RunError(Exception):
    """The run could not be brought to its end."""


class Files:
    """Writes what a run leaves in files; one that cannot be written does not keep the others or the table.

    Attributes
    ----------
    failures : list of str
        What could not be written, and why.
    """

    def __init__(self) -> None:
        self.failures: list[str] = []

    def write(self, option: str, path: Path | None, writer: Callable[[Path], object]) -> None:
        """Let ``writer`` write the file; None is an option that was left out."""
        if path is None:
            return
        try:
            writer(path)
        except OSError as error:
            failure = f"{option} is {path}, which cannot be written: {error.strerror or error}."
            self.failures += [] if failure in self.failures else [failure]

    def close(self) -> None:
        """Raise RunError if a file could not be written."""
        if self.failures:
            raise RunError(" ".join([*self.failures, "Name another file."]))


def check_file(option: str, path: Path | None) -> None:
    """Raise unless a file can be written there; None is an option that was left out."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{option} must name a file, and {path} is a folder. Add a file name.")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{option} is {path}, and its folder does not exist. Make it first.")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise UsageError(f"{option} is {path}, which may not be written. Name another file.")


def exit_codes(right: str, wrong: str = "not") -> str:
    """Return what the help of a command says of its exit codes: when 0, and when 1."""
    return (
        f"Exit code: 0 if {right}, 1 if {wrong}, 2 for a wrong command, 130 if interrupted, 141 if the output was cut "
        f"short."
    )
