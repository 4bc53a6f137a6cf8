"""Which blocks does the bit mask keep, as lists that loops run over?"""

from __future__ import annotations

import torch

from adasplash2.kernels.block_list import block_list_kernel
from adasplash2.problem import Problem
from adasplash2.starts import Call
from adasplash2.state import Lists

from .arguments import SMALL, lists_of, ranges_of, tile_of


def kept_lists(problem: Problem, block_mask: torch.Tensor, kept: Lists, ranges: torch.Tensor | None) -> Call:
    """Return the stage that lists the key blocks that each query block keeps."""
    return block_lists(problem, block_mask, kept, ranges, by_keys=False)


def block_lists(
    problem: Problem, mask: torch.Tensor, lists: Lists, ranges: torch.Tensor | None, *, by_keys: bool
) -> Call:
    """Return the stage that turns the bits of a mask, as it is or transposed (``by_keys``), into lists."""
    tile = tile_of(problem)
    return Call(
        "block_list",
        block_list_kernel,
        mask.shape[0] * mask.shape[1],
        SMALL,
        problem.backend,
        {
            "mask_ptr": mask,
            "heads": problem.heads,
            "n_queries": problem.n_queries,
            "n_keys": problem.n_keys,
            "n_words": mask.shape[2],
            "n_blocks": problem.n_query_blocks if by_keys else problem.n_key_blocks,
            "n_rows": mask.shape[1],
        }
        | ranges_of(ranges)
        | lists_of(lists),
        {name: tile[name] for name in ("IS_CAUSAL", "BLOCK_M", "BLOCK_N")} | {"BY_KEYS": by_keys},
    )
