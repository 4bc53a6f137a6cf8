"""What becomes of a contender in a case?  Its first call, by itself, and then the times of its turns."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch

from .faults import first_line, recover
from .record import Timed
from .timing import synchronize

Kept = TypeVar("Kept", bound=Timed)


def first_call(entry: Kept, refusal: str, step: Callable[[], object], device: torch.device | str) -> Kept:
    """Return an entry after a first forward and backward: refused, failed, or with the seconds that they took."""
    if refusal:
        return dataclasses.replace(entry, status="refused", note=refusal)
    start = time.perf_counter()
    try:
        step()
        synchronize(device)
    except Exception as error:
        failed = dataclasses.replace(entry, status="failed", note=first_line(error))
    else:
        return dataclasses.replace(entry, first_call_s=time.perf_counter() - start)
    recover(device, entry.name)
    return failed


def with_times(entry: Kept, times: Mapping[str, Sequence[float] | str]) -> Kept:
    """Return an entry with what `timing.in_turns` found for "NAME forward" and "NAME step"; failed, if one raised."""
    forward, step = (times.get(f"{entry.name} {part}", ()) for part in ("forward", "step"))
    if isinstance(forward, str) or isinstance(step, str):
        return dataclasses.replace(entry, status="failed", note=forward if isinstance(forward, str) else str(step))
    return dataclasses.replace(entry, forward_ms=tuple(forward), step_ms=tuple(step))
