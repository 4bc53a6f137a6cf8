"""How do stages pass on what they share: operands, numbers, ranges of keys and lists?"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from adasplash2.launch_table import Launch, Program, block_d
from adasplash2.problem import Problem
from adasplash2.state import BackwardState, Lists

# Stages that only turn bits over, those that handle indices, and the one that sorts lists of them.
SMALL = Program(1, 1)
INDICES = Program(4, 1)
LISTS = Program(2, 1)


def operand(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Return a tensor as the kernels take it: any strides, no copy."""
    return (tensor, *tensor.stride())


def shape_of(problem: Problem) -> dict[str, Any]:
    """Return the numbers that stages over query heads share."""
    return {
        "z_scale": problem.z_scale,
        "heads": problem.heads,
        "group": problem.group,
        "n_queries": problem.n_queries,
        "n_keys": problem.n_keys,
    }


def key_shape_of(problem: Problem) -> dict[str, Any]:
    """Return the numbers that stages over key heads share."""
    of_queries = shape_of(problem)
    return {name: of_queries[name] for name in of_queries if name != "heads"} | {"kv_heads": problem.kv_heads}


def width_of(problem: Problem) -> dict[str, Any]:
    """Return the constants of a row of an operand."""
    return {"BLOCK_D": block_d(problem.head_dim), "HEAD_DIM": problem.head_dim}


def tile_of(problem: Problem) -> dict[str, Any]:
    """Return the constants of the tile that is a cell of the block mask."""
    block = {"BLOCK_M": problem.launch.block_m, "BLOCK_N": problem.launch.block_n}
    return {"IS_CAUSAL": problem.is_causal} | block | width_of(problem)


def ranges_of(ranges: torch.Tensor | None) -> dict[str, Any]:
    """Return the ranges of the queries as kernels take them (kernels/visible.py)."""
    return {"ranges": None if ranges is None else (ranges, ranges.stride(0))}


def lists_of(lists: Lists) -> dict[str, Any]:
    """Return lists of blocks as kernels take them (kernels/lists.py)."""
    return {"lists_ptr": lists.places, "numbers_ptr": lists.numbers, "capacity": lists.places.shape[2]}


def key_gradients_of(state: BackwardState) -> dict[str, Any]:
    """Return the gradients of keys and values as kernels write them."""
    return {"d_key": operand(state.d_key), "d_value": operand(state.d_value)}


def launch_of(problem: Problem, ranges: torch.Tensor | None) -> Launch:
    """Return the launch row of the forward stages, with registers for ranges in those that read them."""
    launch = problem.launch
    if ranges is None:
        return launch
    names = ("dense", "collect", "histogram", "refine", "output")
    return dataclasses.replace(launch, **{name: getattr(launch, name).with_ranges() for name in names})
