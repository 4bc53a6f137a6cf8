"""Do the shared leaves hold their invariants: bits, compensated sums, products?"""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from lemmas import lemma
from staged import DEVICE, U

from adasplash2.kernels.tile import add_compensated, any_of, clear_lowest_bit, inner_products, lowest_bit


@triton.jit
def bits_kernel(words_ptr, found_ptr, n_words):
    position = 0
    for index in range(n_words):
        word = tl.load(words_ptr + index)
        while word != 0:
            tl.store(found_ptr + position, index * 32 + lowest_bit(word))
            word = clear_lowest_bit(word)
            position += 1


def test_set_bits_are_visited_once_and_in_order():
    words = np.array([0, 1, -1, -(2**31), 2**30 + 5, 0, 0x55555555], dtype=np.int32)
    expected = [32 * i + bit for i, word in enumerate(words.view(np.uint32)) for bit in range(32) if word >> bit & 1]
    found = torch.full((len(expected) + 2,), -1, dtype=torch.int32, device=DEVICE)
    bits_kernel[(1,)](torch.tensor(words, device=DEVICE), found, len(words))
    assert found.tolist() == [*expected, -1, -1]


@triton.jit
def sum_kernel(terms_ptr, total_ptr, plain_ptr, n_tiles, ROWS: tl.constexpr):
    rows = tl.arange(0, ROWS)
    total, error = tl.zeros([ROWS], tl.float32), tl.zeros([ROWS], tl.float32)
    plain = tl.zeros([ROWS], tl.float32)
    for tile in range(n_tiles):
        term = tl.load(terms_ptr + tile * ROWS + rows)
        total, error = add_compensated(total, error, term)
        plain += term
    tl.store(total_ptr + rows, total + error)
    tl.store(plain_ptr + rows, plain)


@lemma("compensated_sum")
def test_the_error_of_a_sum_does_not_grow_with_its_tiles():
    rows, tiles = 16, 3000
    rng = np.random.default_rng(0)
    terms = (rng.random((tiles, rows)) * 10.0 ** rng.integers(-6, 1, (1, rows))).astype(np.float32)
    terms[:, 0] = np.float32(1.0 / 3.0)
    terms[:, 1] = 0.0
    total, plain = torch.zeros(rows, device=DEVICE), torch.zeros(rows, device=DEVICE)
    sum_kernel[(1,)](torch.tensor(terms, device=DEVICE), total, plain, tiles, rows)
    exact = terms.astype(np.float64).sum(axis=0)
    relative = abs(total.double().cpu().numpy() - exact) / np.maximum(exact, 1e-30)
    assert (relative <= 2 * U).all()
    # the plain sum shows that the check can fail
    assert (abs(plain.double().cpu().numpy() - exact) / np.maximum(exact, 1e-30)).max() > 100 * U


@triton.jit
def any_kernel(flags_ptr, found_ptr, ROWS: tl.constexpr):
    flags = tl.load(flags_ptr + tl.arange(0, ROWS)) > 0
    tl.store(found_ptr, any_of(flags))


@pytest.mark.parametrize("flags", [[0] * 16, [1] + [0] * 15, [0] * 15 + [1], [1] * 16])
def test_any_of(flags):
    found = torch.full((1,), -1, dtype=torch.int32, device=DEVICE)
    any_kernel[(1,)](torch.tensor(flags, dtype=torch.int32, device=DEVICE), found, 16)
    assert found.item() == max(flags)


@triton.jit
def products_kernel(a_ptr, b_ptr, found_ptr, ROWS: tl.constexpr, DIM: tl.constexpr):
    rows, dims = tl.arange(0, ROWS), tl.arange(0, DIM)
    a = tl.load(a_ptr + rows[:, None] * DIM + dims[None, :])
    b = tl.load(b_ptr + rows[:, None] * DIM + dims[None, :])
    tl.store(found_ptr + rows[:, None] * ROWS + rows[None, :], inner_products(a, b))


@pytest.mark.parametrize("dim", [16, 64, 128, 256])
def test_float32_products_are_float32(dim):
    generator = torch.Generator().manual_seed(dim)
    a, b = (torch.randn(16, dim, generator=generator) for _ in range(2))
    found = torch.zeros(16, 16, device=DEVICE)
    products_kernel[(1,)](a.to(DEVICE), b.to(DEVICE), found, 16, dim)
    exact = a.double() @ b.double().T
    sizes = a.abs().double() @ b.abs().double().T
    # tf32 would err by about 2 ** -11 of the sizes
    assert ((found.cpu().double() - exact).abs() <= dim * U * sizes).all()
