"""What if a contender fails?  It is reported in one line, room is made, and a lost device is told from a mere error."""

from __future__ import annotations

import torch


class DeviceLostError(Exception):
    """Something left the device unusable for this process: nothing more can be measured in it."""


def is_gpu(device: torch.device | str) -> bool:
    """Return whether work on the device is asynchronous and can be timed by events."""
    return torch.device(device).type == "cuda"


def first_line(error: BaseException) -> str:
    """Return what an exception says, in one line; not the exception, whose traceback would hold tensors."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}"


def recover(device: torch.device | str, what: str) -> None:
    """Make room after a failure.

    Raises
    ------
    DeviceLostError
        If the device did not survive it.
    """
    if not is_gpu(device):
        return
    try:
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
    except Exception as error:
        raise DeviceLostError(f"{what} left the device unusable: {first_line(error)}") from error
