"""Is the transposed block mask the transpose, bit by bit?"""

import numpy as np
import pytest
import torch
from staged import DEVICE

from adasplash2.kernels.block_mask_transpose import block_mask_transpose_kernel
from adasplash2.problem import ceil_div
from adasplash2.state import unpack_mask


@pytest.mark.parametrize("rows, columns", [(1, 1), (5, 40), (32, 32), (33, 31), (70, 65)])
def test_transpose_moves_every_bit(rows, columns):
    heads = 3
    bits = np.random.default_rng(rows).random((heads, rows, columns)) < 0.3
    bits[0, -1, -1] = True
    padded = np.pad(bits, [(0, 0), (0, 0), (0, -columns % 32)]).reshape(heads, rows, -1, 32)
    words = (padded.astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(-1).astype(np.uint32).view(np.int32)
    n_words, n_transposed_words = ceil_div(columns, 32), ceil_div(rows, 32)
    source = torch.tensor(words, device=DEVICE)
    target = torch.full((heads, columns, n_transposed_words), -1, dtype=torch.int32, device=DEVICE)
    block_mask_transpose_kernel[(heads * n_words * n_transposed_words,)](
        source, target, rows, columns, n_words, n_transposed_words
    )
    np.testing.assert_array_equal(unpack_mask(source, columns).cpu().numpy(), bits)
    np.testing.assert_array_equal(unpack_mask(target, rows).cpu().numpy(), bits.swapaxes(1, 2))
    beyond = unpack_mask(target, n_transposed_words * 32)[..., rows:]
    assert not beyond.any()
