"""Which implementation serves a call that names none?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch

Implementation = Literal["triton", "reference"]
IMPLEMENTATIONS: tuple[Implementation, ...] = ("triton", "reference")

_default: Implementation | None = None


@contextlib.contextmanager
def implementation(name: Implementation) -> Iterator[None]:
    """Let one implementation serve all calls that do not name one, within a ``with`` block or a decorated function.

    For models whose modules hold the calls: to run one on the reference path, to see that two paths agree, or to hear
    of what the kernels cannot serve.  As `torch.nn.attention.sdpa_kernel` does for SDPA.

    Parameters
    ----------
    name : {"triton", "reference"}
        As ``impl`` of `entmax_attention` and `entmax`.  A call that has an ``impl`` of its own keeps it.

    Yields
    ------
    None

    Raises
    ------
    ValueError
        For any other name.

    Notes
    -----
    It holds for the whole process, for all threads, from the forward pass on: the backward takes the implementation of
    its forward.  A compiled function is compiled once for each.

    Examples
    --------
    >>> import torch
    >>> from adasplash2 import entmax_attention, implementation
    >>> query, key, value = torch.randn(3, 1, 2, 64, 32).unbind()
    >>> with implementation("reference"):
    ...     out = entmax_attention(query, key, value)
    """
    global _default
    if name not in IMPLEMENTATIONS:
        raise ValueError(f"implementation: name must be 'triton' or 'reference', got {name!r}.")
    before, _default = _default, name
    try:
        yield
    finally:
        _default = before


def chosen_for(tensor: torch.Tensor, *, served: bool = True) -> Implementation:
    """Return the implementation of a call on a tensor that names none; ``served`` is whether the kernels serve it."""
    if _default is not None:
        return _default
    return "triton" if tensor.is_cuda and served else "reference"
