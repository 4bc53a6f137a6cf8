"""Is what the options of a benchmark ask for such that it can be measured?  One clear line if not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from adasplash2.usage import UsageError
from adasplash2.workloads import workload


def check_counts(option: str, values: Iterable[int], otherwise: str, *, least: int = 1, end: int = 2**31) -> None:
    """Raise for a number below ``least``, or not below ``end``; ``otherwise`` is what leaving the option out gives."""
    for value in values:
        if not least <= value < end:
            power = f"2**{end.bit_length() - 1}"
            raise UsageError(
                f"{option} must be {least} or more and below {power}, got {value}. Leave it out {otherwise}."
            )


def check_rounds(rounds: int, default: int) -> None:
    """Raise for fewer turns than one."""
    if rounds < 1:
        raise UsageError(f"--rounds must be 1 or more, got {rounds}. Leave it out for {default}.")


def check_tuning_time(seconds: float, default: int) -> None:
    """Raise for what is no number of seconds."""
    if not seconds >= 0.0:
        raise UsageError(f"--tuning-time must be 0 or more, got {seconds}. Leave it out for {default}.")


def check_workloads(names: Sequence[str]) -> None:
    """Raise for a name that `adasplash2.workloads` does not make, or makes with rows that say nothing about speed."""
    for name in names:
        try:
            load = workload(name, batch=1, heads=1, n_queries=6, head_dim=16, dtype=torch.float32)
        except ValueError as error:
            raise UsageError(f"--workload is {name!r}. {error}") from error
        if not load.is_finite or load.key.shape != load.query.shape:
            raise UsageError(f"--workload must be finite and as long as its keys, got {name!r}. Try topic16.")
