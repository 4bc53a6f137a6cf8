"""How far is the run?  One line on stderr, redrawn in place; nothing where stderr is not a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

_BAR = 24


class Progress:
    """A bar with a count, the time gone and the time left; use as a context."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._shown = self._stream.isatty()
        self._total = total
        self._done = 0
        self._start = time.monotonic()

    def __enter__(self) -> Progress:
        self._draw("")
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def advance(self, label: str) -> None:
        """Count one case as done."""
        self._done += 1
        self._draw(label)

    def _draw(self, label: str) -> None:
        if not self._shown:
            return
        gone = time.monotonic() - self._start
        left = f", about {gone / self._done * (self._total - self._done):.0f} s left" if self._done else ""
        full = _BAR * self._done // max(self._total, 1)
        line = f"[{'#' * full}{'.' * (_BAR - full)}] {self._done}/{self._total} cases, {gone:.0f} s{left}  {label}"
        width = shutil.get_terminal_size().columns
        self._stream.write("\r\x1b[K" + line[: width - 1])
        self._stream.flush()
