"""How far is the run, and what is it doing?  A bar on stderr, redrawn in place; where that is piped, some lines."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Hashable, Mapping
from typing import Any, TextIO

_BAR, _SHORT_BAR = 24, 12  # cells; the short one leaves room for words on a narrow terminal
_NARROW = 100
_TICK_S = 1.0
# Before this share of the work is done, the time that is left is a guess that misleads.
_LEAST_SHARE = 0.02


class Progress:
    """A count of what is done, the time gone and left, and what runs now; use as a context.

    Parameters
    ----------
    name : str
        The command, which leads every line that is not redrawn.
    steps : mapping of hashable to str
        What there is to do, by a key of the caller's, in the order in which it begins; the text says what it is.
    unit : str
        What the steps are, in the plural.
    weights : mapping of hashable to float, optional
        How long each step takes, in any unit; equally long by default.
    at_once : int, default 1
        Steps that run side by side.
    every_s : float, default 10
        Seconds between two lines where ``stream`` is no terminal; there a shorter run says nothing.
    stream : text stream, optional
        Default: stderr.

    Notes
    -----
    A thread draws, so that a long step does not look like a halt. A stream that cannot be written is given up, and the
    run goes on.
    """

    def __init__(
        self,
        name: str,
        steps: Mapping[Any, str],
        *,
        unit: str = "cases",
        weights: Mapping[Any, float] | None = None,
        at_once: int = 1,
        every_s: float = 10.0,
        stream: TextIO | None = None,
    ) -> None:
        self._name, self._unit, self._at_once = name, unit, at_once
        self._stream: TextIO | None = sys.stderr if stream is None else stream
        self._drawn = self._stream is not None and self._stream.isatty()
        self._left = dict(steps)
        self._weights = {key: 1.0 if weights is None else weights[key] for key in steps}
        self._total = len(self._left)
        self._all = sum(self._weights.values())
        self._interval = min(_TICK_S, every_s) if self._drawn else every_s
        self._start = time.monotonic()
        self._advanced_s = 0.0  # when the last step ended
        self._width = 0  # of what stands on the line
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Progress:
        self._start = time.monotonic()
        if self._drawn:
            self._draw()
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._ticker.join()
        with self._lock:
            self._clear()

    def advance(self, key: Hashable | None = None) -> None:
        """Count a step as done: that of the key, or else the one that began first."""
        with self._lock:
            if self._left:
                self._left.pop(next(iter(self._left)) if key is None else key, None)
            self._advanced_s = time.monotonic() - self._start
        if self._drawn:
            self._draw()

    def note(self, text: str) -> None:
        """Write a line that stays, above the bar."""
        with self._lock:
            self._clear()
            self._write(text + "\n")
        if self._drawn:
            self._draw()

    def text(self) -> str:
        """Return how far the run is, without what runs now."""
        done = self._total - len(self._left)
        gone = time.monotonic() - self._start
        share = self._share()
        seconds = self._advanced_s / share - gone if _LEAST_SHARE <= share < 1.0 else 0.0
        # A step that takes longer than the others did leaves nothing to say.
        left = f", about {about(seconds)} left" if seconds > 0.0 else ""
        return f"{done} of {self._total} {self._unit}, {duration(gone)}{left}"

    def running(self) -> str:
        """Return what runs now: what began first of what is not done."""
        return ", ".join(list(self._left.values())[: self._at_once])

    def _share(self) -> float:
        return 1.0 - sum(self._weights[key] for key in self._left) / self._all if self._all else 1.0

    def _tick(self) -> None:
        while not self._ended.wait(self._interval):
            if self._drawn:
                self._draw()
            else:
                with self._lock:
                    now = self.running()
                    self._write(f"{self._name}: {self.text()}{f'; now {now}' if now else ''}\n")

    def _draw(self) -> None:
        with self._lock:
            if self._stream is None or self._ended.is_set():
                return
            columns = _columns(self._stream)
            cells = _SHORT_BAR if columns < _NARROW else _BAR
            full = int(cells * self._share() + 1e-9)
            line = f"[{'#' * full}{'.' * (cells - full)}] {self.text()}  {self.running()}"[: columns - 1]
            # Blanks rather than a control sequence: they clear the rest of the line on any terminal.
            self._write("\r" + line.ljust(self._width))
            self._width = len(line)

    def _clear(self) -> None:
        if self._width:
            self._write("\r" + " " * self._width + "\r")
            self._width = 0

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # whoever read it has left
            self._stream = None


def duration(seconds: float) -> str:
    """Return a time that has gone: ``87 s``, ``5 min 07 s``."""
    whole = int(seconds)
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60:02d} s"


def about(seconds: float) -> str:
    """Return a time to come, as far as one knows it: ``40 s``, ``5 min``."""
    return f"{seconds:.0f} s" if seconds < 99.5 else f"{seconds / 60.0:.0f} min"


def _columns(stream: TextIO) -> int:
    """Return the width of the terminal; stderr may be one where stdout is not."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
