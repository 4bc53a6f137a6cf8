"""Does a list hold the set bits of its row, with the numbers that tell which tiles need a test of visibility?"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from staged import DEVICE, read_lists

from adasplash2.kernels.block_list import block_list_kernel
from adasplash2.problem import ceil_div
from adasplash2.state import empty_lists
from entmax_ref import stages


def pack(bits):
    """Return booleans (heads, rows, blocks) as int32 words."""
    padded = np.pad(bits, [(0, 0), (0, 0), (0, -bits.shape[2] % 32)]).reshape(*bits.shape[:2], -1, 32)
    words = (padded.astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(-1).astype(np.uint32).view(np.int32)
    return torch.tensor(words, device=DEVICE)


def lists_of(bits, n_queries, n_keys, block, *, is_causal, by_keys, capacity, ranges=None):
    lists = empty_lists((bits.shape[0], bits.shape[1], capacity), torch.device(DEVICE))
    words = pack(bits)
    block_list_kernel[(bits.shape[0] * bits.shape[1],)](
        words, lists.places, lists.numbers, ranges, bits.shape[0], n_queries, n_keys,
        words.shape[2], bits.shape[2], bits.shape[1], capacity,
        IS_CAUSAL=is_causal, BY_KEYS=by_keys, BLOCK_M=block, BLOCK_N=block,
    )  # fmt: skip
    return lists


@examples(30)
@given(
    n_queries=st.integers(1, 700), n_keys=st.integers(1, 700), is_causal=st.booleans(), by_keys=st.booleans(),
    seed=st.integers(0, 99), capacity=st.sampled_from([1, 3, 64]),
)  # fmt: skip
def test_lists_are_the_set_blocks_that_can_be_seen(n_queries, n_keys, is_causal, by_keys, seed, capacity):
    block = 16
    rows, keys = np.arange(n_queries)[:, None], np.arange(n_keys)
    seen = keys <= rows + n_keys - n_queries if is_causal else np.ones((n_queries, n_keys), dtype=bool)
    padded = np.pad(seen, [(0, -n_queries % block), (0, -n_keys % block)])
    cells = padded.reshape(ceil_div(n_queries, block), block, ceil_div(n_keys, block), block)
    visible = cells.any(axis=(1, 3))
    kept = visible & (np.random.default_rng(seed).random(visible.shape) < 0.4)
    bits, may = (part.T if by_keys else part for part in (kept, visible))
    lists = lists_of(
        np.stack([bits, may]), n_queries, n_keys, block, is_causal=is_causal, by_keys=by_keys, capacity=capacity
    )
    # A query that does not exist needs no test, nor does, on the side of the keys, a key that does not exist.
    exists = np.pad(np.ones_like(seen), [(0, -n_queries % block), (0, -n_keys % block)]).reshape(cells.shape)
    missing = ~exists.any(axis=(2, 3), keepdims=True) if not by_keys else ~exists
    whole = (cells | missing).all(axis=(1, 3))
    whole = whole.T if by_keys else whole
    for head, wanted in enumerate((bits, may)):
        found, numbers = read_lists(lists, head=head)
        specified = stages.block_list(wanted)
        for row, (listed, (below, length, first)) in enumerate(zip(found, numbers, strict=True)):
            if first < 0:
                np.testing.assert_array_equal(listed, specified[row])
            else:
                assert len(specified[row]) > capacity
                np.testing.assert_array_equal(listed, np.flatnonzero(may[row]))
            assert len(listed) == length
            without_test = listed[below:] if by_keys else listed[:below]
            assert whole[row][without_test].all()
            if not by_keys:
                assert not whole[row][listed[below:]].any()


@pytest.mark.parametrize("n_blocks", [1, 31, 32, 33, 511, 512, 513, 1100])
def test_long_rows_are_read_to_their_end(n_blocks):
    bits = np.random.default_rng(n_blocks).random((1, 2, n_blocks)) < 0.5
    bits[0, 1] = True
    lists = lists_of(bits, 32, n_blocks * 16, 16, is_causal=False, by_keys=False, capacity=n_blocks)
    found, numbers = read_lists(lists)
    for row in range(2):
        np.testing.assert_array_equal(found[row], np.flatnonzero(bits[0, row]))
    assert numbers[1].tolist() == [n_blocks, n_blocks, -1]
