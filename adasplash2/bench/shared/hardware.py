"""On which device is measured, if there is one?"""

from __future__ import annotations

import importlib.util
import os

from adasplash2.usage import UsageError


def has_gpu() -> bool:
    """Return whether torch finds a GPU."""
    import torch

    return torch.cuda.is_available()


def gpu() -> str:
    """Return the device to measure on.

    Raises
    ------
    UsageError
        If there is none that the kernels are compiled for.
    """
    import torch

    if not has_gpu():
        raise UsageError("compiled kernels are timed, and torch finds no GPU. Run it on a machine with one.")
    if importlib.util.find_spec("triton") is None:
        raise UsageError("Triton kernels are timed, and triton is not installed. Install it.")
    if os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes"):
        raise UsageError("compiled kernels are timed, and TRITON_INTERPRET is set. Unset it.")
    return f"cuda:{torch.cuda.current_device()}"
