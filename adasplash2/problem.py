"""What does one attention call ask of the kernels: shape, scale and tolerance, and how much do its lists hold?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch

from .launch_table import COLUMN_PAIRS, ROW_PAIRS, Launch, arch_of, choose_launch
from .orders import POWERS, TOLERANCE

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
# Entries per candidate tile from which on a block goes by tiles altogether, by the length of the row, at most; of 512
# that the tile of head_dim 64 may have.  2026-12-01, H200, head_dim 64, step in ms without it, with 290, 340, 390 and
# all by tiles: gauss0.5 at 256 3.39, 2.04, 2.71, 2.71, 1.69, at 512 3.93, 2.51, 2.86, 2.86, 2.14, at 2048 5.33, 4.64,
# 4.81, 4.79, 4.31; gauss1 at 256 2.70, 2.04, 2.28, 2.33, 1.69, at 1024 3.39, 3.28, 3.40, 3.39, 2.80; topic16 at 512
# 1.95, 2.07, 1.99, 1.96, 1.80, at 1024 1.99, 2.17, 2.06, 1.98, 2.01.  Not for longer rows: those of their first blocks
# are crowded too, and without their support in the pool the first blocks of keys go by tiles (gauss1 with 340 at 8192
# 7.39 for 6.57, at 32768 15.5 for 12.2).
MANY_WORDS = {2**9: 290, 2**11: 340, 2**31: 2**16}
# Places for the support of a row, on average over a head: a head that needs more goes by tiles in the backward.
ROW_SUPPORT = 40
# A block of keys goes by tiles where one of its keys supports more rows than this.
COLUMN_ROWS = 1024
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


def index_type(length: int) -> torch.dtype:
    """Return the type of indices below a length."""
    return torch.int16 if length <= SHORT_LENGTH else torch.int32


def by_length(table: Mapping[int, int], n_keys: int) -> int:
    """Return the entry of the first length that is not exceeded."""
    return next(entry for length, entry in table.items() if n_keys <= length)


def entries_of(n_keys: int) -> int:
    """Return how many entries a row may have."""
    return by_length(ROW_ENTRIES, n_keys)


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
    many_words: int | None = None
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
    def most_words(self) -> int:
        """Entries per candidate tile from which on a block goes by tiles."""
        return by_length(MANY_WORDS, self.n_keys) if self.many_words is None else self.many_words

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
