"""How much GPU memory does a call take beyond its operands?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from adasplash2.bench.shared.faults import is_gpu


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes beyond query, key, value and the gradient of the output.

    Attributes
    ----------
    saved : int
        Held between forward and backward: the output, and what is kept for the backward.
    forward : int
        Largest during the forward.
    step : int
        Largest during forward and backward; three gradients are part of it.
    """

    saved: int
    forward: int
    step: int


def measure_memory(
    forward: Callable[[], torch.Tensor], backward: Callable[[torch.Tensor], object], device: torch.device | str
) -> Memory | None:
    """Return what one forward, which builds a graph, and one backward take; None without a GPU."""
    if not is_gpu(device):
        return None
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    out = forward()
    torch.cuda.synchronize(device)
    saved = torch.cuda.memory_allocated(device) - before
    peak = torch.cuda.max_memory_allocated(device) - before
    gradients = backward(out)
    torch.cuda.synchronize(device)
    step = torch.cuda.max_memory_allocated(device) - before
    del out, gradients
    return Memory(saved, peak, step)
