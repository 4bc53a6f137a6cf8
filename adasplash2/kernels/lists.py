"""Which blocks does a program visit?  Lists of block indices, which loops run over in step with their loads.

A list is ascending.  It comes with three numbers: how many of its blocks lie below the *limit* (the other tiles, or on
the side of the keys those below it, need a test of visibility), how many it holds, and ``first``: -1, or, where the
list has no room, the block from which on all are visited.  So no block is lost to a full list.
"""

import triton
import triton.language as tl

# Numbers per list: below the limit, in all, first, and the path that a block of queries takes.
NUMBERS = tl.constexpr(4)
# Paths.  By single keys; threshold by single keys, output by tiles, which are well filled; all by tiles, as the dense
# pass or `collect` decided; all by tiles, as `solve` found out.
FEW = tl.constexpr(0)
SHARED = tl.constexpr(1)
MANY = tl.constexpr(2)
FULL = tl.constexpr(3)


@triton.jit
def list_pointers(lists_ptr, numbers_ptr, row, capacity):
    """Return the pointers to the list of one block of rows and to its numbers; ``row`` is an int64 scalar."""
    return lists_ptr + row * capacity, numbers_ptr + row * NUMBERS


@triton.jit
def store_numbers(numbers_ptr, below, length, first):
    """Store the numbers of a list."""
    tl.store(numbers_ptr, below)
    tl.store(numbers_ptr + 1, length)
    tl.store(numbers_ptr + 2, first)


@triton.jit
def load_numbers(numbers_ptr):
    """Return how many blocks of a list lie below the limit, how many it holds, and its ``first``."""
    return tl.load(numbers_ptr), tl.load(numbers_ptr + 1), tl.load(numbers_ptr + 2)


@triton.jit
def listed(list_ptr, index, first):
    """Return the block at a place of a list."""
    return tl.load(list_ptr + index, mask=first < 0, other=first + index)


@triton.jit
def store_path(numbers_ptr, path):
    """Store the path of a block of queries."""
    tl.store(numbers_ptr + 3, path)


@triton.jit
def load_path(numbers_ptr):
    """Return the path of a block of queries."""
    return tl.load(numbers_ptr + 3)
