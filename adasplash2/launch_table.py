"""In which tiles, and with which resources, do the stages run?

Launch choices are data, not search: `LAUNCH` is the only place that holds them.
"""

from __future__ import annotations

import dataclasses
import functools

import torch

# The largest head_dim of the fused kernels.
MAX_HEAD_DIM = 256
# Registers of a CUDA multiprocessor, of every compute capability from 8.0 to 10.0: a program that asks for more of them
# does not start.
PROGRAM_REGISTERS = 65536
# Registers that a thread can have.
MOST_REGISTERS = 255
# Registers, at least, of a stage that reads which keys each query sees: two numbers a row that it holds besides.
RANGE_REGISTERS = 168
# Pairs of row and support that a tile of a block of queries, or of keys, may hold on average if the block is to go by
# single keys: as many as gathers have done in the time of a tile, on the side of the keys with what it takes to turn
# them over.  2026-11-30, H200, head_dim 64, backward in ms with 64, 96, 128, 192 of both: topic16 at 32768 1.74, 1.66,
# 1.64, 1.62, at 8192 1.14, 1.13, 1.12, 1.09; with 64, 80, 96, 128 on the side of the keys: gauss1 at 8192 3.17, 3.03,
# 3.19, 3.02, topic16 at 131072 3.67, 3.75, 3.85, 4.12, sink 2.24, 2.32, 2.31, 2.39.
ROW_PAIRS = 160
COLUMN_PAIRS = 64


@dataclasses.dataclass(frozen=True)
class Program:
    """Warps of a program, loads in flight, registers of a thread at most (cuda)."""

    warps: int
    stages: int
    registers: int = MOST_REGISTERS

    def __post_init__(self) -> None:
        if self.warps * 32 * self.registers > PROGRAM_REGISTERS:
            raise ValueError(
                f"launch: {self.warps} warps of {self.registers} registers a thread need more than the "
                f"{PROGRAM_REGISTERS} registers of a multiprocessor. Lower one of the two."
            )

    def with_ranges(self) -> Program:
        """Return the program for a stage that reads ranges of keys."""
        return dataclasses.replace(self, registers=max(self.registers, RANGE_REGISTERS))


@dataclasses.dataclass(frozen=True)
class Launch:
    """Tiles and resources of the stages.

    ``block_m`` queries by ``block_n`` keys are the cell of the block mask and the tile of every stage but the dense
    pass, whose tile, ``dense_m`` by ``dense_n``, is a multiple of it.  ``row_pairs`` and ``column_pairs`` are what a
    tile holds at most, in pairs of row and support, on the side of queries and on that of keys, where single ones are
    taken.
    """

    block_m: int
    block_n: int
    dense_m: int
    dense_n: int
    dense: Program
    collect: Program
    score_keys: Program
    solve: Program
    solve_wide: Program
    histogram: Program
    refine: Program
    output: Program
    backward_dq: Program
    backward_dkdv: Program
    backward_dq_keys: Program
    backward_dkdv_keys: Program
    backward_dkdv_mixed: Program
    why: str
    row_pairs: int = ROW_PAIRS
    column_pairs: int = COLUMN_PAIRS

    @property
    def is_timed(self) -> bool:
        """Whether a measurement chose the row, and not only what fits."""
        return self.why != _UNTIMED

    def __post_init__(self) -> None:
        if self.dense_m % self.block_m or self.dense_n % self.block_n:
            raise ValueError(
                f"launch: the dense tile, {self.dense_m} x {self.dense_n}, must be a multiple of the block, "
                f"{self.block_m} x {self.block_n}. Change one of them."
            )


def _square(
    size: int, program: Program, solve: Program, why: str, *, dense: tuple[int, int, Program] | None = None
) -> Launch:
    """Return a row whose stages share one square tile and its resources, but for the dense pass and `solve`."""
    dense_m, dense_n, of_dense = dense or (size, size, program)
    return Launch(
        size,
        size,
        dense_m,
        dense_n,
        of_dense,
        dataclasses.replace(of_dense, registers=MOST_REGISTERS),
        Program(2 * solve.warps, 1),
        solve,
        Program(max(4, 2 * solve.warps), 1),
        program,
        program,
        program,
        program,
        program,
        Program(2 * solve.warps, 1),
        Program(2 * solve.warps, 1),
        Program(4, 1),
        why,
    )


_UNTIMED = "2026-11-25: fits the registers of sm_80, sm_90, sm_100 (cuda), gfx942 (hip); not timed"
_TIMED_64 = Launch(
    block_m=64,
    block_n=64,
    dense_m=128,
    dense_n=128,
    dense=Program(4, 2, 128),
    collect=Program(4, 2, 128),
    score_keys=Program(2, 1, 80),
    solve=Program(2, 1, 96),
    solve_wide=Program(4, 1),
    histogram=Program(4, 2, 168),
    refine=Program(4, 2),
    output=Program(4, 2, 128),
    backward_dq=Program(4, 3),
    backward_dkdv=Program(4, 2),
    backward_dq_keys=Program(2, 1, 168),
    backward_dkdv_keys=Program(4, 1, 128),
    backward_dkdv_mixed=Program(4, 1),
    why=(
        "2026-11-25, one H100, torch 2.11, triton 3.6, length 32768, 16 heads, bf16, causal, topic16 / gauss1, ms: "
        "dense 2.08 / 2.65 (8 warps 2.24 / 3.10; 128 x 64 2.4 / 3.7); collect 0.65 / 3.88 (3 stages 0.69 / 4.13); "
        "score_keys (2026-11-26) 0.39 / 0.76 (1 warp of 96 registers 0.43 / 0.86; 8 keys at once, 4 warps of 64 0.39 / "
        "0.75); solve (2026-11-26) 0.47 / 0.96 (1 warp of 168 registers 0.58 / 1.09); output 0.41 (168 0.46); "
        "backward_dq 0.79 / 9.06 (3 stages 0.81 / 9.26, 8 warps 2.4 / 29); backward_dkdv 0.95 / 11.2 (168 registers "
        "0.98 / 11.1); histogram, refine and output on gauss0.02 12.0, 14.1, 4.64 (255 registers 12.7, 14.1, 5.08); "
        "these two gradients all by tiles; gathers on gauss1: backward_dq_keys 1.12 (1 warp 1.14, 4 warps 1.08, 128 "
        "registers 1.02); backward_dkdv_keys, without the code of mixed blocks, 1.91 (2 warps 2.12, 1 warp 2.88); "
        "backward_dkdv_mixed not timed. 2026-11-30, H200, ms: backward_dq 3 stages 0.38 (2 stages 0.40; gauss1 at 8192 "
        "0.270, 0.287); backward_dkdv_keys with 128 registers and four rows at once 1.76 on gauss1 (255 1.92, one at "
        "once 1.95); q, k and v as left factors in registers instead of shared memory: dense 2.16 instead of 2.06, "
        "backward_dq 0.41 instead of 0.40, backward_dkdv 0.93 instead of 0.86"
    ),
)
_TIMED_128 = Launch(
    block_m=64,
    block_n=64,
    dense_m=128,
    dense_n=64,
    dense=Program(4, 3),
    collect=Program(4, 2, 128),
    score_keys=Program(4, 1, 80),
    solve=Program(2, 1, 128),
    solve_wide=Program(8, 1),
    histogram=Program(8, 2),
    refine=Program(8, 2),
    output=Program(4, 2),
    backward_dq=Program(4, 2),
    backward_dkdv=Program(4, 2),
    backward_dq_keys=Program(2, 1),
    backward_dkdv_keys=Program(4, 1),
    backward_dkdv_mixed=Program(4, 1),
    why=(
        "2026-11-25, one H100, torch 2.11, triton 3.6, length 32768, 8 heads, bf16, causal, topic16 / gauss1, ms: "
        "dense 1.96 (8 warps of 128 registers 2.13); collect 0.42 / 2.98 (8 warps 0.38 / 3.02, 3 stages 0.40 / 3.26); "
        "score_keys and solve not timed; "
        "output 0.40 (8 warps 0.83); backward_dq 0.91 / 9.39 (1 stage "
        "0.92 / 10.1, 8 warps 1.24 / 14.1); backward_dkdv 0.84 / 9.43 (1 stage 0.89 / 10.7, 8 warps 1.42 / 17.7), "
        "both all by tiles; gathers on gauss1: backward_dq_keys 1.09, backward_dkdv_keys 1.74 with 2 warps, 4 not "
        "timed. 2026-11-30, H200, topic16, all of the backward with 96, 64, 128 and 192 row_pairs 1.740, 1.754, 1.760, "
        "1.776"
    ),
    row_pairs=96,
)
_DENSE = (128, 128, Program(8, 3))

# (backend or architecture, bytes of an operand element, head_dim rounded up to a power of two) -> Launch.  The row of
# an architecture, where there is one, comes before that of its backend; it has the same blocks.
LAUNCH = {
    ("cuda", 2, 16): _square(64, Program(4, 3), Program(1, 1), _UNTIMED, dense=_DENSE),
    ("cuda", 2, 32): _square(64, Program(4, 3), Program(1, 1), _UNTIMED, dense=_DENSE),
    ("cuda", 2, 64): _square(64, Program(4, 2), Program(1, 1), _UNTIMED, dense=_DENSE),
    ("sm_90", 2, 64): _TIMED_64,
    ("cuda", 2, 128): dataclasses.replace(
        _square(64, Program(8, 2), Program(4, 1), _UNTIMED, dense=(128, 64, Program(8, 3))), backward_dq=Program(8, 3)
    ),
    ("sm_90", 2, 128): _TIMED_128,
    ("cuda", 2, 256): dataclasses.replace(
        _square(32, Program(8, 1), Program(4, 1), _UNTIMED, dense=(64, 64, Program(8, 2))),
        backward_dq=Program(8, 2),
        backward_dkdv_mixed=Program(8, 1),
    ),
    ("cuda", 4, 16): _square(32, Program(4, 1), Program(1, 1), _UNTIMED),
    ("cuda", 4, 32): _square(32, Program(8, 1), Program(1, 1), _UNTIMED),
    ("cuda", 4, 64): _square(32, Program(8, 1), Program(2, 1), _UNTIMED),
    ("cuda", 4, 128): _square(16, Program(8, 1), Program(4, 1), _UNTIMED),
    ("cuda", 4, 256): _square(16, Program(8, 1), Program(4, 1), _UNTIMED),
    ("hip", 2, 16): _square(64, Program(4, 1), Program(1, 1), _UNTIMED),
    ("hip", 2, 32): _square(64, Program(4, 1), Program(1, 1), _UNTIMED),
    ("hip", 2, 64): _square(64, Program(4, 1), Program(1, 1), _UNTIMED),
    ("hip", 2, 128): _square(64, Program(4, 1), Program(2, 1), _UNTIMED),
    ("hip", 2, 256): _square(32, Program(4, 1), Program(4, 1), _UNTIMED),
    ("hip", 4, 16): _square(32, Program(4, 1), Program(1, 1), _UNTIMED),
    ("hip", 4, 32): _square(32, Program(4, 1), Program(1, 1), _UNTIMED),
    ("hip", 4, 64): _square(32, Program(4, 1), Program(1, 1), _UNTIMED),
    ("hip", 4, 128): _square(16, Program(4, 1), Program(2, 1), _UNTIMED),
    ("hip", 4, 256): _square(16, Program(4, 1), Program(4, 1), _UNTIMED),
}
# The powers of an alpha that is loaded, and the ranges of keys, leave fewer registers to the tile that is in these.
LAUNCH["sm_100", 2, 16] = dataclasses.replace(LAUNCH["cuda", 2, 16], backward_dkdv=Program(8, 3))
LAUNCH["sm_100", 2, 64] = dataclasses.replace(LAUNCH["cuda", 2, 64], backward_dkdv=Program(8, 2))
LAUNCH["sm_100", 2, 128] = dataclasses.replace(LAUNCH["cuda", 2, 128], backward_dkdv=Program(8, 1))
# Without a compiler the tile only sets how much a NumPy call does.
INTERPRETER = _square(64, Program(4, 1), Program(4, 1), "the interpreter has no registers to spill")


def block_d(head_dim: int) -> int:
    """Return the width of a tile that holds ``head_dim``: the next power of two, at least 16 (a matrix unit's)."""
    return max(16, 1 << (head_dim - 1).bit_length())


def choose_launch(backend: str, dtype: torch.dtype, head_dim: int, arch: str = "") -> Launch:
    """Return the launch row for operands of ``dtype`` and ``head_dim`` on "cuda", "hip" or the "interpreter".

    ``arch`` is the architecture of the device (`arch_of`), if it is known.
    """
    if backend == "interpreter":
        return INTERPRETER
    key = dtype.itemsize, block_d(head_dim)
    return LAUNCH.get((arch, *key)) or LAUNCH[(backend, *key)]


def arch_of(device: torch.device) -> str:
    """Return the architecture of a CUDA device, "sm_90"; "" for any other."""
    if device.type != "cuda" or torch.version.cuda is None or not _has_cuda():
        return ""
    return _cuda_arch(torch.cuda.current_device() if device.index is None else device.index)


@functools.cache
def _has_cuda() -> bool:
    return torch.cuda.is_available()


@functools.cache
def _cuda_arch(index: int) -> str:
    major, minor = torch.cuda.get_device_capability(index)
    return f"sm_{major}{minor}"
