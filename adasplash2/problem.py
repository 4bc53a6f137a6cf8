"""What does one attention call ask of the kernels: shape, scale, tiles and tolerance?

Launch choices are data, not search: `LAUNCH` is the only place that holds them.
"""

from __future__ import annotations

import dataclasses
import functools

import torch

# Blocks per int32 word of a mask (WORD in kernels/tile.py).
WORD_BITS = 32
# Numbers per list of blocks (NUMBERS in kernels/lists.py).
LIST_NUMBERS = 4
# Places of a list of blocks, at most: a row of blocks that needs more of them visits all that it sees.
LIST_CAPACITY = 2048
# Rows that a program of `solve` takes; the keys that one may keep in registers, and in a second start, for the few
# programs with a row of more support.
SOLVE_ROWS = 16
ROW_KEYS = 64
WIDE_ROW_KEYS = 128
# Entries that a row may have (kernels/words.py), which is also its room for live keys behind them, by the length of the
# row, at most: the longer it is, the fewer of its keys share an entry.  Rows of float32 have none: their gradients go
# by tiles, which sum q.k in another order, and a threshold from single keys would be off by that, which 16 bits do not
# resolve and float32 does.  2026-11-30, H200, head_dim 64, step in ms: 131072 with 176, 256, 320 gauss1 57.4, 35.2,
# 35.2, gauss4 24.1, 25.4, 25.3, topic16 13.9, 14.0, 14.0; 65536 with 176, 208, 256 gauss1 26.8, 19.4, 20.2, topic16
# 8.02, 8.09, 8.26; 32768 with 176, 208 gauss1 12.3, 12.5, topic16 5.24, 5.33: more room is fewer heads in a part.
ROW_ENTRIES = {2**15: 176, 2**16: 208, 2**31: 256}
# Keys of a row that are gathered together.
KEYS_AT_ONCE = 4
# Programs of the second start, at most: two on each multiprocessor of any GPU of today, and they share what there is.
WIDE_PROGRAMS = 512
# Programs of a block that may have a row of more live keys than `solve` has room for: with more, it goes by tiles.
MOST_WIDE = 3
# Entries per candidate tile from which on its rows share so many keys that tiles make the output sooner.  2026-11-30,
# H200, head_dim 64, forward in ms with 110, 140, 180, 240: topic16 at 32768 3.68, 3.62, 3.59, 3.59, gauss1 at 8192
# 3.67, 3.55, 3.49, 3.44, gauss2 at 2048 1.30, 1.26, 1.25, 1.24.
SHARED_WORDS = 240
# Places for the support of a row, on average over a head: a head that needs more goes by tiles in the backward.
ROW_SUPPORT = 40
# A block of keys goes by tiles where one of its keys supports more rows than COLUMN_ROWS.  A block of queries or keys
# does where its tiles hold more pairs of row and support on average than gathers have done in the time of a tile; on
# the side of the keys, with what it takes to turn them over.  2026-11-30, H200, head_dim 64, backward in ms with 64,
# 96, 128, 192 of both: topic16 at 32768 1.74, 1.66, 1.64, 1.62, at 8192 1.14, 1.13, 1.12, 1.09; with 64, 80, 96, 128 on
# the side of the keys: gauss1 at 8192 3.17, 3.03, 3.19, 3.02, topic16 at 131072 3.67, 3.75, 3.85, 4.12, sink 2.24,
# 2.32, 2.31, 2.39.
COLUMN_ROWS = 1024
ROW_PAIRS = 160
COLUMN_PAIRS = 64
# Pairs of row and support that are turned over in the time of a tile: a head whose blocks of keys save fewer tiles by
# that goes by tiles on their side.
TURN_PAIRS = 128
# Parts of a column (PARTS in kernels/support.py).
COLUMN_PARTS = 8
# Query blocks without support in the pool that a block of keys may list (UNLISTED in kernels/column_paths.py).
UNLISTED = 32
# Tiles of a block of keys from which on several programs share them, the numbers of such a share (SEGMENT in
# kernels/column_segments.py), and blocks of keys for each share that a head has room for.
SPLIT_TILES = 256
SEGMENT_NUMBERS = 4
BLOCKS_PER_SEGMENT = 8
# Parts of SOLVE_ROWS keys that one program looks after where few need it (MIXED_PARTS in
# kernels/backward_dkdv_keys.py).
MIXED_PARTS = 16
# Rows that a program turns over, and keys whose columns one program finds the start of.
TURNED_ROWS = 64
START_KEYS = 1024
# The longest row whose indices fit into 16 bits.
SHORT_LENGTH = 2**16
# Entries are scratch of at most so many bytes, and so many halves of an operand, shared by one part of the queries
# after the other.  With 16 heads of 32768 tokens and head_dim 64 all that the forward allocates is 503 MiB.
SCRATCH_HALVES = 11
SCRATCH_BYTES = 11 * 2**25
# The alphas that kernels are compiled for, and their power, 1 / (alpha - 1); any other is loaded (kernels/power.py).
POWERS = {2.0: 1, 1.5: 2, 4.0 / 3.0: 3, 1.25: 4}
# The largest head_dim of the fused kernels.
MAX_HEAD_DIM = 256
# A row is refined until abs(mass - 1), which bounds the error of its tau, is within this.  It then takes one more step,
# which leaves an error of the order of the square.
TOLERANCE = {torch.float32: 2.0**-18, torch.bfloat16: 2.0**-17, torch.float16: 2.0**-17}
# A guard, not a parameter: in docs/results/passes.json rows take at most 3 at alpha 1.5 and 5 at 2; bisection takes 32.
MAX_PASSES = 40
# Registers of a CUDA multiprocessor, of every compute capability from 8.0 to 10.0: a program that asks for more of them
# does not start.
PROGRAM_REGISTERS = 65536
# Registers that a thread can have.
MOST_REGISTERS = 255
# Registers, at least, of a stage that reads which keys each query sees: two numbers a row that it holds besides.
RANGE_REGISTERS = 168


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


def check_order(caller: str, alpha: float) -> None:
    """Raise ValueError for an alpha above 1 that the kernels do not take."""
    if alpha > 2.0:
        raise ValueError(
            f"{caller}: alpha is {alpha}; the kernels take 1 < alpha <= 2. "
            f"Use impl='reference', which takes any alpha above 1."
        )
    if alpha <= 1.0 + 2.0**-24:
        raise ValueError(
            f"{caller}: alpha is {alpha}, which is 1 in float32, in which the kernels have it. Use impl='reference'."
        )


def tolerance_of(dtype: torch.dtype, alpha: float) -> float:
    """Return the residual that a row may stop at: `TOLERANCE`, or what a unit in the last place of its gaps is worth.

    That is more below alpha 1.016 in 16 bits, 1.03 in float32 (`least_tolerance` in kernels/power.py).
    """
    return TOLERANCE[dtype] if alpha in POWERS else max(TOLERANCE[dtype], 2.0**-23 / (alpha - 1.0))


def alphas_of(alpha: float | torch.Tensor, query: torch.Tensor) -> torch.Tensor | None:
    """Return alpha as the kernels load it, float32 (batch, heads), or None for one that they are compiled for.

    A tensor has the shape (batch, heads).
    """
    if isinstance(alpha, torch.Tensor):
        return alpha.float().contiguous()
    return None if alpha in POWERS else query.new_full(query.shape[:2], alpha, dtype=torch.float32)


def index_type(length: int) -> torch.dtype:
    """Return the type of indices below a length."""
    return torch.int16 if length <= SHORT_LENGTH else torch.int32


def entries_of(n_keys: int) -> int:
    """Return how many entries a row may have."""
    return next(entries for length, entries in ROW_ENTRIES.items() if n_keys <= length)


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
    itemsize: int
    backend: str
    launch: Launch
    # How much lists and rows hold (None: what `most_entries` says), and when a path is left; tests make them small.
    capacity: int = LIST_CAPACITY
    row_entries: int | None = None
    most_wide: int = MOST_WIDE
    shared_words: int = SHARED_WORDS
    row_support: int = ROW_SUPPORT
    column_rows: int = COLUMN_ROWS
    row_pairs: int = ROW_PAIRS
    column_pairs: int = COLUMN_PAIRS
    turn_pairs: int = TURN_PAIRS
    split_tiles: int = SPLIT_TILES

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
        arch: str | None = None,
    ) -> Problem:
        """Return the problem that these operands pose to "cuda", "hip" or the "interpreter".

        ``arch`` is that of the device that holds them, or the one to compile for.
        """
        batch, heads, n_queries, head_dim = query.shape
        launch = choose_launch(backend, query.dtype, head_dim, arch_of(query.device) if arch is None else arch)
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
            itemsize=query.dtype.itemsize,
            backend=backend,
            launch=launch,
            row_pairs=launch.row_pairs,
            column_pairs=launch.column_pairs,
        )

    def under(self, launch: Launch) -> Problem:
        """Return the same problem under another row of the launch table."""
        return dataclasses.replace(self, launch=launch, row_pairs=launch.row_pairs, column_pairs=launch.column_pairs)

    @property
    def power(self) -> int:
        """Power that the kernels are compiled for; 0 where they load alpha."""
        return POWERS.get(self.alpha, 0)

    @property
    def z_scale(self) -> float:
        """Multiplier of products that the kernels take: to the unit of tau, or of scores where alpha is loaded."""
        return self.scale * (self.alpha - 1.0) if self.power else self.scale

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
    def candidate_shape(self) -> tuple[int, int, int]:
        """Shape of the candidate lists: a row for ``dense_m`` queries, a place for ``dense_n`` keys."""
        rows, columns = ceil_div(self.n_queries, self.launch.dense_m), ceil_div(self.n_keys, self.launch.dense_n)
        return self.batch * self.heads, rows, min(columns, self.capacity)

    @property
    def list_shape(self) -> tuple[int, int, int]:
        """Shape of the lists of kept key blocks, a row for each query block."""
        return self.batch * self.heads, self.n_query_blocks, min(self.n_key_blocks, self.capacity)

    @property
    def transposed_list_shape(self) -> tuple[int, int, int]:
        """Shape of the lists of query blocks that keep a key block, a row for each key block."""
        return self.batch * self.heads, self.n_key_blocks, min(self.n_query_blocks, self.capacity)

    @property
    def by_keys(self) -> bool:
        """Whether rows have room for single keys at all."""
        return self.itemsize == 2 if self.row_entries is None else self.row_entries > 0

    @property
    def most_entries(self) -> int:
        """Entries that a row may have."""
        if self.row_entries is not None:
            return self.row_entries
        return entries_of(self.n_keys) if self.by_keys else 0

    @property
    def listed_shape(self) -> tuple[int, int, int]:
        """Shape of a number per row that may have its support in the pool."""
        return self.batch, self.heads, self.n_queries if self.by_keys else 0

    @property
    def row_places(self) -> int:
        """Places of the scratch of a row: for its entries, and behind few of them, or instead, for its keys."""
        return max(self.most_entries, 2 * ROW_KEYS, WIDE_ROW_KEYS) if self.by_keys else 0

    @property
    def support_capacity(self) -> int:
        """Places of the pool of a head for the support of its rows, and of that for its columns."""
        return self.n_queries * self.row_support if self.by_keys else 0

    @property
    def support_bytes(self) -> int:
        """Bytes of the pools of all heads for the support; an expression, so that lengths may be symbols."""
        index_bytes = 2 * torch.sym_min(ceil_div(self.n_keys, SHORT_LENGTH), 2)
        bytes_: int = self.batch * self.heads * self.support_capacity * index_bytes
        return bytes_

    @property
    def n_tiles(self) -> int:
        """Blocks of ``dense_m`` queries, over all heads."""
        return self.candidate_shape[0] * self.candidate_shape[1]

    @property
    def tiles_at_once(self) -> int:
        """How many of them share the scratch of `collect`.

        It takes no more than `SCRATCH_BYTES`, nor than `SCRATCH_HALVES` halves of an operand; but for one block.  They
        are those of whole heads, or of less than one.
        """
        of_tile = max(self.launch.dense_m * self.row_places * 8, 1)
        of_operand = self.batch * self.heads * self.n_queries * self.head_dim * self.itemsize
        most = max(1, min(self.n_tiles, min(SCRATCH_BYTES, SCRATCH_HALVES * of_operand // 2) // of_tile))
        # Parts of about equal size, of whole heads if one fits: then the short rows of all of them come last, and few
        # programs are left waiting for one of the longest.
        of_head = self.candidate_shape[1]
        unit = of_head if 1 <= of_head <= most else 1
        units = self.n_tiles // unit
        n_parts = max(1, ceil_div(units, most // unit))
        return max(1, unit * ceil_div(units, n_parts))

    @property
    def n_segments(self) -> int:
        """Shares of the tiles of long blocks of keys that a head has room for; 0 where no block can be as long."""
        of_longest = ceil_div(self.n_query_blocks * self.group, self.split_tiles)
        if of_longest <= 1:
            return 0
        return max(ceil_div(self.n_key_blocks, BLOCKS_PER_SEGMENT), 2 * of_longest)

    @property
    def row_shape(self) -> tuple[int, int, int]:
        """Shape of a number per row."""
        return self.batch, self.heads, self.n_queries
