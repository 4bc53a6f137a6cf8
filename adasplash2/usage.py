"""How does a command say that it was used wrongly, or could not end?  Exit codes 2 and 1, one line each."""

from __future__ import annotations

from pathlib import Path


class UsageError(Exception):
    """An option that cannot be served; the message says which, the rule, the value and the way out."""


class RunError(Exception):
    """The run could not be brought to its end."""


def check_file(option: str, path: Path | None) -> None:
    """Raise unless a file can be written there; None is an option that was left out."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{option} must name a file, and {path} is a folder. Add a file name.")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{option} is {path}, and its folder does not exist. Make it first.")
