"""Does FlexAttention, given our tau, agree?  Softmax of ``log(gap) * power`` is entmax, and its normaliser the mass."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from adasplash2.bench.shared.timing import median_ms
from adasplash2.workloads import Workload

TILE = 128  # of FlexAttention's own block mask


@dataclasses.dataclass(frozen=True)
class FlexCheck:
    """What FlexAttention, which shares no code with the kernels, makes of a tau.

    Attributes
    ----------
    log_mass : float
        Largest ``abs(log(mass))`` of a row at that tau.
    out : float
        Largest difference from our output, over its largest component.
    forward_ms : float
        Time of its forward, which visits every visible block.
    """

    log_mass: float
    out: float
    forward_ms: float


def flex_check(
    load: Workload, out: torch.Tensor, tau: torch.Tensor, alpha: float, *, compiled: bool = True
) -> FlexCheck:
    """Return how far FlexAttention's mass and output are from 1 and from ``out``.

    Parameters
    ----------
    load : Workload
        Every row sees a key; as many queries as keys.
    out : Tensor, shape of query
    tau : Tensor, float32, shape (batch, heads, n_queries)
    alpha : float
    compiled : bool
        False holds a score matrix, and is for tests.

    Returns
    -------
    FlexCheck
    """

    def score_mod(score: torch.Tensor, b: Any, h: Any, i: Any, j: Any) -> torch.Tensor:
        return torch.log(torch.clamp((alpha - 1.0) * score - tau[b, h, i], min=0.0)) / (alpha - 1.0)

    attend: Any = flex_attention
    if compiled:
        torch.compiler.reset()  # or it would give up compiling after some cases, and hold a score matrix instead
        attend = torch.compile(flex_attention, dynamic=False)
    block_mask = causal_blocks(load.query.shape[2], load.query.device) if load.is_causal else None

    def run() -> Any:
        with torch.no_grad():
            return attend(
                load.query,
                load.key,
                load.value,
                score_mod=score_mod,
                block_mask=block_mask,
                return_aux=AuxRequest(lse=True),
            )

    found, report = run()
    log_mass = report.lse
    difference = (found.float() - out.float()).abs().max() / out.float().abs().max()
    return FlexCheck(float(log_mass.abs().max()), float(difference), median_ms(run, load.query.device))


def causal_blocks(length: int, device: torch.device) -> BlockMask:
    """Return FlexAttention's causal mask; the library's own way to it forms a matrix of length by length."""
    n_blocks = -(-length // TILE)
    count = torch.arange(n_blocks, dtype=torch.int32, device=device)
    full = torch.arange(n_blocks, dtype=torch.int32, device=device).expand(1, 1, n_blocks, n_blocks)
    # One block, on the diagonal, is seen in part; those before it are seen whole.
    partial = torch.zeros(1, 1, n_blocks, n_blocks, dtype=torch.int32, device=device)
    partial[..., 0] = count
    return BlockMask.from_kv_blocks(
        torch.ones(1, 1, n_blocks, dtype=torch.int32, device=device),
        partial,
        count[None, None].contiguous(),
        full.contiguous(),
        BLOCK_SIZE=TILE,
        mask_mod=lambda b, h, i, j: i >= j,
        seq_lengths=(length, length),
    )
