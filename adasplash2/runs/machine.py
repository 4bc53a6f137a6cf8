"""Where does this run take place, and with what?  Said plainly at the top of every table and file."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import platform

import numpy as np
import torch

import adasplash2


@dataclasses.dataclass(frozen=True)
class Machine:
    """Versions, device, and how the kernels run.

    ``mode`` is "compiled", "interpreter" or "reference"; ``device`` what torch calls it, ``device_name`` what its maker
    does.
    """

    adasplash2: str
    python: str
    numpy: str
    torch: str
    triton: str
    device: str
    device_name: str
    mode: str

    @property
    def impl(self) -> str:
        """The ``impl`` of `adasplash2.entmax_attention`."""
        return "reference" if self.mode == "reference" else "triton"

    @property
    def sentence(self) -> str:
        """What the mode means for what is shown."""
        if self.mode == "compiled":
            return "The compiled kernels run on this GPU."
        if self.mode == "interpreter":
            return (
                "No GPU is used: the same kernels run in the Triton interpreter, on small cases, with bf16 products "
                "done in fp32."
            )
        return "Triton is not installed: NO KERNEL RUNS. What is judged is the eager reference path."


def has_triton() -> bool:
    """Return whether the kernels can be imported."""
    return importlib.util.find_spec("triton") is not None


def this_machine(device: str) -> Machine:
    """Describe this machine for a run on ``device``, "cpu" or "cuda:N"."""
    triton = importlib.metadata.version("triton") if has_triton() else "absent"
    if device != "cpu":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{platform.machine()} CPU, {len(usable_cores())} cores"
    return Machine(
        adasplash2.__version__,
        platform.python_version(),
        np.__version__,
        torch.__version__,
        triton,
        device,
        name,
        "reference" if triton == "absent" else "interpreter" if device == "cpu" else "compiled",
    )


def usable_cores() -> set[int]:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
