"""What does the implementation under test answer?  Through the public call, forward and backward."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from adasplash2 import AttentionAux, entmax_attention
from adasplash2.launch_table import choose_launch
from adasplash2.orders import MAX_PASSES, tolerance_of
from adasplash2.reference import BLOCK
from adasplash2.workloads import Workload

from .truth import Booleans, Floats, as_floats


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came out, as NumPy arrays in float64; shapes as in `adasplash2.entmax_attention` and its aux.

    ``tolerance`` is the residual that a row may stop at, ``max_passes`` the count of passes that no row may reach,
    ``block`` the queries and keys of a cell of ``block_mask``.
    """

    out: Floats
    d_query: Floats
    d_key: Floats
    d_value: Floats
    tau: Floats
    mass: Floats
    residual: Floats
    passes: NDArray[np.int64]
    block_mask: Booleans
    skipped: float
    block: tuple[int, int]
    tolerance: float
    max_passes: int = MAX_PASSES


def answer_of(load: Workload, d_out: torch.Tensor, *, alpha: float, impl: str) -> Answer:
    """Run forward and backward of one workload through `adasplash2.entmax_attention`."""
    operands = [part.detach().requires_grad_() for part in (load.query, load.key, load.value)]
    query, key, value = operands
    out, aux = entmax_attention(
        query,
        key,
        value,
        alpha=alpha,
        is_causal=load.is_causal,
        key_ranges=load.key_ranges,
        enable_gqa=load.enable_gqa,
        impl="reference" if impl == "reference" else "triton",
        return_aux=True,
    )
    gradients = torch.autograd.grad(out, operands, d_out.to(out.device))
    return as_answer(load, out, gradients, aux, alpha=alpha, impl=impl)


def as_answer(
    load: Workload, out: torch.Tensor, gradients: Sequence[torch.Tensor], aux: AttentionAux, *, alpha: float, impl: str
) -> Answer:
    """Return what a call returned, and the gradients for query, key and value, as an answer to be judged."""
    d_query, d_key, d_value = (as_floats(gradient) for gradient in gradients)
    return Answer(
        out=as_floats(out),
        d_query=d_query,
        d_key=d_key,
        d_value=d_value,
        tau=as_floats(aux.tau),
        mass=as_floats(aux.mass),
        residual=as_floats(aux.residual),
        passes=aux.passes.long().cpu().numpy(),
        block_mask=aux.block_mask.cpu().numpy(),
        skipped=float(aux.skipped),
        block=_block(load, impl),
        tolerance=tolerance_of(load.query.dtype, alpha),
    )


def _block(load: Workload, impl: str) -> tuple[int, int]:
    """Return queries and keys of a cell of the block mask."""
    if impl == "reference":
        return BLOCK, BLOCK
    from adasplash2.launch import BACKEND  # needs triton

    launch = choose_launch(BACKEND, load.query.dtype, load.query.shape[-1])
    return launch.block_m, launch.block_n
