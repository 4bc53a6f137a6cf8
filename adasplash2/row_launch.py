"""Which kernels map rows of a tensor and their gradients, with which tiles?  Rows are (n_rows, n_keys)."""

from __future__ import annotations

import dataclasses

import torch

from . import starts
from .kernels.packed import PARTS
from .kernels.rows_backward import rows_backward_blocks_kernel, rows_backward_whole_kernel
from .kernels.rows_blocks import rows_blocks_kernel
from .kernels.rows_packed import rows_packed_kernel
from .kernels.rows_whole import rows_whole_kernel
from .launch import BACKEND, INTERPRETED
from .launch_table import PROGRAM_REGISTERS, Program
from .orders import MAX_PASSES, POWERS, TOLERANCE
from .problem import ceil_div
from .starts import Call


@dataclasses.dataclass(frozen=True)
class PackedLaunch:
    """Rows of 16 bits that are held as words of two keys: how many keys, and the words and registers of a thread.

    For an alpha of 1.5 or 2, which need few registers.
    """

    least: int
    most: int
    per_thread: int
    registers: int


@dataclasses.dataclass(frozen=True)
class RowLaunch:
    """Tiles of the row kernels: what a program holds, and from where on a row goes block by block.

    ``tile`` numbers are held by a program of short rows, ``per_thread`` by a thread of ``lanes`` in a warp, or more
    where ``most_warps`` would be too few; a row of more than ``most`` keys (forward) or ``most_backward`` goes in
    blocks of ``block`` by ``block_warps``.  Each of the three is a pair: for any alpha, whose arithmetic needs more
    registers, and for 1.5 and 2.  ``groups`` is how many keys a thread of a whole row takes the largest of before it
    starts, as far as it has as many.
    """

    tile: int
    per_thread: tuple[int, int]
    groups: int
    lanes: int
    most_warps: int
    most: tuple[int, int]
    most_backward: tuple[int, int]
    block: int
    block_warps: int
    block_stages: int
    packed: tuple[PackedLaunch, ...]
    why: str

    def whole(self, n_keys: int, power: int) -> tuple[int, int, Program]:
        """Return rows, keys and resources of a tile that holds whole rows."""
        keys = max(16, 1 << (n_keys - 1).bit_length())
        rows = max(1, self.tile // keys)
        warps = min(max(1, rows * keys // (self.per_thread[power > 0] * self.lanes)), self.most_warps)
        return rows, keys, _program(warps, 1)

    def packed_for(self, rows: torch.Tensor, power: int) -> PackedLaunch | None:
        """Return how rows are held as words, or None for those that are not, or do not begin and end at words."""
        n_keys = rows.shape[1]
        if power not in (1, 2) or rows.dtype not in PACKED or n_keys % 2 or rows.stride(0) % 2 or _is_odd(rows):
            return None
        return next((packed for packed in self.packed if packed.least <= n_keys <= packed.most), None)

    def blocks(self) -> Program:
        """Return the resources of a program that goes block by block."""
        return _program(self.block_warps, self.block_stages)


def _program(warps: int, stages: int) -> Program:
    return Program(warps, stages, min(255, PROGRAM_REGISTERS // (warps * 32)))


# Others were timed: at 32768 keys 32 words in 64 registers 1.37 of a copy; at 8192 keys 64 in 96 1.19.
_PACKED = (PackedLaunch(512, 8192, 32, 80), PackedLaunch(8194, 65536, 64, 128))
_TIMED = (
    "2026-11-25, H100, 2 ** 26 numbers N(0, 1), alpha 1.5, forward over a copy of the same bytes, bfloat16, float32: "
    "1024 keys 1.27, 1.02 (two rows a program 1.84, 1.05); 8192 keys 1.42, 1.03 (32 a thread 1.56, 1.04); 32768 keys "
    "1.78, 1.16 (by blocks of 4096 1.78, 1.96); without groups 1.41, 1.02; 1.74, 1.05; 2.11, 1.31. "
    "Blocks, bfloat16: 131072 keys 2.4 (32 a thread 3.1). 2026-11-30, H200, with a copy of 0.72 of the time: bfloat16 "
    "as words, 512 keys 1.96 (as numbers 2.39), 1024 1.44 (1.68), 4096 1.21 (1.77), 8192 1.17 (1.88), 16384 1.12 "
    "(2.80), 32768 1.27 (2.34), 65536 1.55 (2.47)"
)
_UNTIMED = "2026-11-25: fits the registers of gfx942; not timed"
_SMALL_PACKED = (PackedLaunch(64, 1024, 32, 64),)
_SMALL = "small, so that short rows take all ways"
# What the kernels call the dtypes of two numbers to a word (kernels/packed.py).
PACKED = {torch.bfloat16: 1, torch.float16: 2}
ROW_LAUNCH = {
    "cuda": RowLaunch(1024, (32, 64), 4, 32, 32, (16384, 32768), (8192, 16384), 8192, 16, 2, _PACKED, _TIMED),
    "hip": RowLaunch(4096, (32, 32), 4, 64, 8, (8192, 32768), (16384, 16384), 8192, 4, 2, (), _UNTIMED),
    "interpreter": RowLaunch(4096, (32, 32), 4, 32, 16, (1024, 1024), (1024, 1024), 512, 1, 1, _SMALL_PACKED, _SMALL),
}


@dataclasses.dataclass(frozen=True)
class Order:
    """alpha as the kernels take it: a power that they were compiled for, or float32 numbers with a stride."""

    power: int
    values: torch.Tensor | None
    stride: int

    def beside(self, *operands: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return operands, and the numbers behind them if there are any."""
        return operands if self.values is None else (*operands, self.values)

    def over(self, values: torch.Tensor | None = None) -> Order:
        """Return the same order with other numbers."""
        return dataclasses.replace(self, values=values)


def order_of(alpha: float, values: torch.Tensor | None, device: torch.device) -> Order:
    """Return alpha for the kernels: ``values``, (n_rows, 1), if there are any, or one number for all rows."""
    if values is not None:
        values = values.float()
        return Order(0, values, values.stride(0))
    if alpha in POWERS:
        return Order(POWERS[alpha], None, 0)
    return Order(0, torch.full((1,), alpha, dtype=torch.float32, device=device), 0)


def forward(scores: torch.Tensor, alpha: float, values: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the probabilities of rows, in the dtype of the scores, and the steps or passes that each took, int32."""
    operand = _operand(scores)
    probs = torch.empty(scores.shape, dtype=operand.dtype, device=scores.device)
    of_rows = torch.zeros if probs.numel() == 0 else torch.empty
    passes = of_rows(scores.shape[:1], dtype=torch.int32, device=scores.device)
    if probs.numel():
        order, tolerance = order_of(alpha, values, scores.device), TOLERANCE[scores.dtype]

        def calls_of(scores: torch.Tensor, *values: torch.Tensor) -> list[Call]:
            return [forward_call(scores, order.over(*values), probs, passes, tolerance)]

        starts.run(("rows", order.power, order.stride, tolerance), order.beside(operand), (probs, passes), calls_of)
    return probs.to(scores.dtype), passes


def forward_call(
    scores: torch.Tensor,
    order: Order,
    probs: torch.Tensor,
    passes: torch.Tensor,
    tolerance: float,
    backend: str = BACKEND,
) -> Call:
    """Return the start of the forward kernel for scores that `_operand` returned."""
    launch, (n_rows, n_keys) = ROW_LAUNCH[backend], scores.shape
    packed = launch.packed_for(scores, order.power)
    if packed is not None:
        return _packed_call(scores, packed, order, probs, passes, tolerance, backend)
    arguments = {
        "scores_ptr": scores,
        "alpha_ptr": scores if order.values is None else order.values,
        "probs_ptr": probs,
        "passes_ptr": passes,
        "n_rows": n_rows,
        "n_keys": n_keys,
        "row_stride": scores.stride(0),
        "alpha_stride": order.stride,
        "tolerance": tolerance,
        "max_passes": MAX_PASSES,
    }
    if n_keys > launch.most[order.power > 0]:
        constants = {"POWER": order.power, "BLOCK_N": launch.block}
        return Call("rows_blocks", rows_blocks_kernel, n_rows, launch.blocks(), backend, arguments, constants)
    rows, keys, program = launch.whole(n_keys, order.power)
    groups = max(1, min(launch.groups, rows * keys // (16 * program.warps * launch.lanes)))
    constants = {"POWER": order.power, "IS_FULL": rows == 1 and keys == n_keys, "GROUPS": groups}
    constants |= {"ROWS": rows, "BLOCK_N": keys}
    return Call("rows_whole", rows_whole_kernel, ceil_div(n_rows, rows), program, backend, arguments, constants)


def _packed_call(
    scores: torch.Tensor,
    packed: PackedLaunch,
    order: Order,
    probs: torch.Tensor,
    passes: torch.Tensor,
    tolerance: float,
    backend: str,
) -> Call:
    launch, n_words = ROW_LAUNCH[backend], scores.shape[1] // 2
    block = max(16, (1 << (n_words - 1).bit_length()) // PARTS.value)
    warps = min(max(1, PARTS.value * block // (packed.per_thread * launch.lanes)), launch.most_warps)
    arguments = {
        "scores_ptr": scores,
        "probs_ptr": probs,
        "passes_ptr": passes,
        "n_words": n_words,
        "row_stride": scores.stride(0) // 2,
        "tolerance": tolerance,
        "max_passes": MAX_PASSES,
    }
    is_full = PARTS.value * block == n_words
    constants = {"POWER": order.power, "DTYPE": PACKED[scores.dtype], "IS_FULL": is_full, "BLOCK_W": block}
    program = Program(warps, 1, packed.registers)
    return Call("rows_packed", rows_packed_kernel, scores.shape[0], program, backend, arguments, constants)


def backward(
    d_probs: torch.Tensor, probs: torch.Tensor, alpha: float, values: torch.Tensor | None, of_alpha: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of scores, in the dtype of probs, and of alpha, float32 (n_rows, 1), or (0, 1) if not asked
    for.
    """
    operand, d_operand = _operand(probs), _operand(d_probs)
    d_scores = torch.empty(probs.shape, dtype=operand.dtype, device=probs.device)
    of_rows = torch.zeros if probs.numel() == 0 else torch.empty
    d_alpha = of_rows((probs.shape[0] if of_alpha else 0, 1), dtype=torch.float32, device=probs.device)
    if d_scores.numel():
        order = order_of(alpha, values, probs.device)

        def calls_of(d_probs: torch.Tensor, probs: torch.Tensor, *values: torch.Tensor) -> list[Call]:
            return [backward_call(d_probs, probs, order.over(*values), d_scores, d_alpha, of_alpha)]

        given = order.beside(d_operand, operand)
        starts.run(("rows_backward", order.power, order.stride, of_alpha), given, (d_scores, d_alpha), calls_of)
    return d_scores.to(probs.dtype), d_alpha


def backward_call(
    d_probs: torch.Tensor,
    probs: torch.Tensor,
    order: Order,
    d_scores: torch.Tensor,
    d_alpha: torch.Tensor,
    of_alpha: bool,
    backend: str = BACKEND,
) -> Call:
    """Return the start of the backward kernel for tensors that `_operand` returned."""
    launch, (n_rows, n_keys) = ROW_LAUNCH[backend], probs.shape
    arguments = {
        "probs_ptr": probs,
        "d_probs_ptr": d_probs,
        "alpha_ptr": probs if order.values is None else order.values,
        "d_scores_ptr": d_scores,
        "d_alpha_ptr": d_alpha,
        "n_rows": n_rows,
        "n_keys": n_keys,
        "row_stride": probs.stride(0),
        "d_row_stride": d_probs.stride(0),
        "alpha_stride": order.stride,
    }
    constants = {"POWER": order.power, "OF_ALPHA": of_alpha}
    if n_keys > launch.most_backward[order.power > 0]:
        constants |= {"BLOCK_N": launch.block}
        kernel, stage = rows_backward_blocks_kernel, "rows_backward_blocks"
        return Call(stage, kernel, n_rows, launch.blocks(), backend, arguments, constants)
    rows, keys, program = launch.whole(n_keys, order.power)
    constants |= {"IS_FULL": rows == 1 and keys == n_keys, "ROWS": rows, "BLOCK_N": keys}
    kernel, stage = rows_backward_whole_kernel, "rows_backward_whole"
    return Call(stage, kernel, ceil_div(n_rows, rows), program, backend, arguments, constants)


def _operand(rows: torch.Tensor) -> torch.Tensor:
    """Return rows whose keys lie next to each other; the interpreter gets float32 for bfloat16 (`launch`)."""
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    return rows.float() if INTERPRETED and rows.dtype == torch.bfloat16 else rows


def _is_odd(rows: torch.Tensor) -> bool:
    """Return whether rows begin within a word, which memory without an address does not."""
    return not rows.is_meta and rows.data_ptr() % 4 != 0
