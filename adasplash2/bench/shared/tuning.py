"""May adasplash tune itself once more?  It does so at its first call of each length and head_dim, for minutes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Tuning:
    """What adasplash may spend on it.

    Parameters
    ----------
    seconds : float
        Once they are spent, no call is made for which it would tune itself.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._spent: dict[tuple[int, int], float] = {}

    def refusal(self, name: str, length: int, head_dim: int) -> str:
        """Return why a contender's call is not made; nothing if it may be."""
        spent = sum(self._spent.values())
        if name != "adasplash" or (length, head_dim) in self._spent or spent < self._seconds:
            return ""
        return f"not run: it tunes itself for each length and head_dim, and took {spent:.0f} s so far (--tuning-time)"

    @contextlib.contextmanager
    def spending(self, name: str, length: int, head_dim: int) -> Iterator[None]:
        """Count the time of a contender's first call, whether it fails or not."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if name == "adasplash":
                self._spent.setdefault((length, head_dim), time.perf_counter() - start)
