"""What does one attention call ask of the kernels: shape, scale, tiles and tolerance?

Launch choices are data, not search: `LAUNCH` is the only place that holds them.
"""

from __future__ import annotations

import dataclasses

import torch

# Blocks per int32 word of a mask (WORD in kernels/tile.py).
WORD_BITS = 32
# The alphas that the fused kernels take and their power, 1 / (alpha - 1), as kernels/power.py knows it.
POWERS = {1.5: 2, 2.0: 1}
# The largest head_dim of the fused kernels.
MAX_HEAD_DIM = 256
# A row is refined until abs(mass - 1), which bounds the error of its tau, is within this, or within what one unit in
# the last place of tau is worth.  It then takes one more step, which leaves an error of the order of the square.
TOLERANCE = {torch.float32: 2.0**-18, torch.bfloat16: 2.0**-17, torch.float16: 2.0**-17}
# A guard, not a parameter: where tests looked, rows take 3 passes at alpha 1.5 and 7 at alpha 2; bisection takes 32.
MAX_PASSES = 40


@dataclasses.dataclass(frozen=True)
class Launch:
    """Tile shape, which is also the cell of the block mask, and resources of the kernels."""

    block_m: int
    block_n: int
    warps: int
    backward_warps: int
    why: str


_UNTIMED = "2026-11-21: a square tile that fits the registers of sm_80, sm_90, sm_100 (cuda), gfx942 (hip); not timed"

# (backend, bytes of an operand element, head_dim rounded up to a power of two) -> Launch
LAUNCH = {
    ("cuda", 2, 16): Launch(64, 64, 4, 4, _UNTIMED),
    ("cuda", 2, 32): Launch(64, 64, 4, 4, _UNTIMED),
    ("cuda", 2, 64): Launch(64, 64, 4, 4, _UNTIMED),
    ("cuda", 2, 128): Launch(64, 64, 8, 8, _UNTIMED),
    ("cuda", 2, 256): Launch(32, 32, 8, 4, _UNTIMED),
    ("cuda", 4, 16): Launch(32, 32, 4, 4, _UNTIMED),
    ("cuda", 4, 32): Launch(32, 32, 8, 8, _UNTIMED),
    ("cuda", 4, 64): Launch(32, 32, 8, 8, _UNTIMED),
    ("cuda", 4, 128): Launch(16, 16, 8, 8, _UNTIMED),
    ("cuda", 4, 256): Launch(16, 16, 8, 8, _UNTIMED),
    ("hip", 2, 16): Launch(64, 64, 4, 4, _UNTIMED),
    ("hip", 2, 32): Launch(64, 64, 4, 4, _UNTIMED),
    ("hip", 2, 64): Launch(64, 64, 4, 4, _UNTIMED),
    ("hip", 2, 128): Launch(64, 64, 4, 4, _UNTIMED),
    ("hip", 2, 256): Launch(32, 32, 4, 4, _UNTIMED),
    ("hip", 4, 16): Launch(32, 32, 4, 4, _UNTIMED),
    ("hip", 4, 32): Launch(32, 32, 4, 4, _UNTIMED),
    ("hip", 4, 64): Launch(32, 32, 4, 4, _UNTIMED),
    ("hip", 4, 128): Launch(16, 16, 4, 4, _UNTIMED),
    ("hip", 4, 256): Launch(16, 16, 4, 4, _UNTIMED),
}
# Without a compiler the tile only sets how much a NumPy call does.
INTERPRETER = Launch(64, 64, 4, 4, "the tile of the 16 bit operands; the interpreter has no registers to spill")


def block_d(head_dim: int) -> int:
    """Return the width of a tile that holds ``head_dim``: the next power of two, at least 16 (a matrix unit's)."""
    return max(16, 1 << (head_dim - 1).bit_length())


def choose_launch(backend: str, dtype: torch.dtype, head_dim: int) -> Launch:
    """Return the launch row for operands of ``dtype`` and ``head_dim`` on "cuda", "hip" or the "interpreter"."""
    if backend == "interpreter":
        return INTERPRETER
    return LAUNCH[backend, dtype.itemsize, block_d(head_dim)]


def ceil_div(value: int, by: int) -> int:
    """Return ``value / by`` rounded up."""
    return -(-value // by)


@dataclasses.dataclass(frozen=True)
class Problem:
    """The numbers that every stage shares; shapes are (batch, heads, length, head_dim)."""

    batch: int
    heads: int
    kv_heads: int
    n_queries: int
    n_keys: int
    head_dim: int
    alpha: float
    scale: float
    is_causal: bool
    tolerance: float
    backend: str
    launch: Launch

    @classmethod
    def of(
        cls,
        query: torch.Tensor,
        key: torch.Tensor,
        *,
        alpha: float,
        scale: float,
        is_causal: bool,
        backend: str,
    ) -> Problem:
        """Return the problem that these operands pose to "cuda", "hip" or the "interpreter"."""
        batch, heads, n_queries, head_dim = query.shape
        return cls(
            batch=batch,
            heads=heads,
            kv_heads=key.shape[1],
            n_queries=n_queries,
            n_keys=key.shape[2],
            head_dim=head_dim,
            alpha=alpha,
            scale=scale,
            is_causal=is_causal,
            tolerance=TOLERANCE[query.dtype],
            backend=backend,
            launch=choose_launch(backend, query.dtype, head_dim),
        )

    @property
    def group(self) -> int:
        """Query heads per key head."""
        return self.heads // max(self.kv_heads, 1)

    @property
    def n_query_blocks(self) -> int:
        """Rows of the block mask."""
        return ceil_div(self.n_queries, self.launch.block_m)

    @property
    def n_key_blocks(self) -> int:
        """Columns of the block mask."""
        return ceil_div(self.n_keys, self.launch.block_n)

    @property
    def mask_shape(self) -> tuple[int, int, int]:
        """Shape of the block mask in int32 words, one bit per key block."""
        return self.batch * self.heads, self.n_query_blocks, ceil_div(self.n_key_blocks, WORD_BITS)

    @property
    def transposed_shape(self) -> tuple[int, int, int]:
        """Shape of the transposed block mask in int32 words, one bit per query block."""
        return self.batch * self.heads, self.n_key_blocks, ceil_div(self.n_query_blocks, WORD_BITS)

    @property
    def row_shape(self) -> tuple[int, int, int]:
        """Shape of a number per row."""
        return self.batch, self.heads, self.n_queries
