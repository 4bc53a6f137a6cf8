"""Do the shared leaves hold their invariants: bits, compensated sums, products?"""

import fractions

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from lemmas import lemma
from staged import DEVICE, U

from adasplash2 import problem
from adasplash2.kernels import backward_dkdv_keys, column_paths, column_segments, lists, support
from adasplash2.kernels.tile import WORD, above_single, add_compensated, add_exactly, any_of, inner_products, part_place
from adasplash2.verify import stage_checks


@pytest.mark.parametrize(
    "of_kernel, of_host",
    [
        (WORD, problem.WORD_BITS),
        (lists.NUMBERS, problem.LIST_NUMBERS),
        (lists.MANY, stage_checks.MANY),
        (support.PARTS, problem.COLUMN_PARTS),
        (support.ROWS, problem.SOLVE_ROWS),
        (column_paths.UNLISTED, problem.UNLISTED),
        (backward_dkdv_keys.MIXED_PARTS, problem.MIXED_PARTS),
        (column_segments.SEGMENT, problem.SEGMENT_NUMBERS),
    ],
)
def test_what_kernels_and_host_both_count_on_is_one_number(of_kernel, of_host):
    """The host makes the memory that the kernels divide."""
    assert of_kernel.value == of_host


@triton.jit
def place_kernel(found_ptr, first_tile, n_heads, n_blocks):
    head, block = part_place(first_tile, tl.program_id(0), n_heads, n_blocks)
    tl.store(found_ptr + tl.program_id(0) * 2, head)
    tl.store(found_ptr + tl.program_id(0) * 2 + 1, block)


@pytest.mark.parametrize(
    "n_heads, n_blocks, at_once", [(5, 3, 6), (4, 3, 3), (3, 4, 12), (2, 5, 3), (2, 5, 1), (3, 1, 2), (1, 7, 7)]
)
def test_parts_hold_every_block_of_queries_once_and_those_of_whole_heads_in_turns(n_heads, n_blocks, at_once):
    found = []
    for first in range(0, n_heads * n_blocks, at_once):
        now = min(at_once, n_heads * n_blocks - first)
        part_heads = now // n_blocks if at_once % n_blocks == 0 else 1
        places = torch.zeros(now, 2, dtype=torch.int32, device=DEVICE)
        place_kernel[(now,)](places, first, part_heads, n_blocks)
        blocks = places[:, 1].tolist()
        if at_once % n_blocks == 0:
            assert blocks == sorted(blocks, reverse=True)
        found += [tuple(place) for place in places.tolist()]
    assert sorted(found) == [(head, block) for head in range(n_heads) for block in range(n_blocks)]


@triton.jit
def pair_kernel(a_ptr, b_ptr, total_ptr, error_ptr, ROWS: tl.constexpr):
    rows = tl.arange(0, ROWS)
    total, error = add_exactly(tl.load(a_ptr + rows), tl.load(b_ptr + rows))
    tl.store(total_ptr + rows, total)
    tl.store(error_ptr + rows, error)


@lemma("pair_exact")
def test_a_sum_and_its_rounding_error_are_exact():
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=1024) * 2.0 ** rng.integers(-30, 30, 1024) for _ in range(2))
    a, b = a.astype(np.float32), b.astype(np.float32)
    a[0], b[0] = 1e4, -0.3
    total, error = torch.zeros(1024, device=DEVICE), torch.zeros(1024, device=DEVICE)
    pair_kernel[(1,)](torch.tensor(a, device=DEVICE), torch.tensor(b, device=DEVICE), total, error, 1024)
    np.testing.assert_array_equal(total.cpu().numpy(), a + b)
    # Two float32 numbers this near have a sum that float64 holds, but for a few; longdouble holds all.
    exact = a.astype(np.longdouble) + b.astype(np.longdouble)
    np.testing.assert_array_equal(total.cpu().numpy().astype(np.longdouble) + error.cpu().numpy(), exact)
    assert np.count_nonzero(error.cpu().numpy()) > 500


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


@triton.jit
def gap_kernel(products_ptr, base_ptr, rest_ptr, found_ptr, scale, ROWS: tl.constexpr):
    rows = tl.arange(0, ROWS)
    found = above_single(tl.load(products_ptr + rows), scale, tl.load(base_ptr + rows), tl.load(rest_ptr + rows))
    tl.store(found_ptr + rows, found)


@lemma("fused_gap")
def test_a_gap_next_to_tau_is_known_to_the_rounding_of_its_rest():
    rows = 4096
    rng = np.random.default_rng(0)
    # The interpreter does not fuse: there the product must be a float.
    bits = 24 if DEVICE == "cuda" else 12
    scale = (2**bits - 5) * 2.0 ** -(bits + 2)
    products = (
        rng.integers(2 ** (bits - 1), 2**bits, rows) * 2.0 ** rng.integers(-20, 8, rows) * rng.choice([-1, 1], rows)
    )
    products = products.astype(np.float32)
    z = [fractions.Fraction(float(product)) * fractions.Fraction(scale) for product in products]
    # tau within a few units in the last place of z, so that the parts cancel, for every second row
    near = np.array([float(score) for score in z])
    tau = near * (1.0 + rng.integers(-3, 4, rows) * U * np.where(np.arange(rows) % 2, 1.0, 2.0**20))
    base = tau.astype(np.float32)
    rest = ((tau - base) * rng.random(rows)).astype(np.float32)
    found = torch.zeros(rows, device=DEVICE)
    gap_kernel[(1,)](*(torch.tensor(each, device=DEVICE) for each in (products, base, rest)), found, scale, rows)
    found = found.cpu().numpy()
    dead, lost = 0, 0
    for score, one_base, one_rest, margin in zip(z, base, rest, found, strict=True):
        gap = score - fractions.Fraction(float(one_base)) - fractions.Fraction(float(one_rest))
        allowed = 2 * U * abs(float(one_rest)) + 2.0**-148
        assert abs(float(margin) - gap) <= 3 * U * abs(gap) + allowed
        dead += margin <= 0.0
        lost += one_rest != 0 and abs(float(margin) - gap) > 0
        assert margin > 0.0 or gap <= allowed
    assert 100 < dead < rows - 100
    assert lost > 100  # rounding did occur


@triton.jit
def fused_kernel(gaps_ptr, found_ptr, ROWS: tl.constexpr, KEYS: tl.constexpr):
    rows, keys = tl.arange(0, ROWS), tl.arange(0, KEYS)
    gaps = tl.load(gaps_ptr + rows[:, None] * KEYS + keys[None, :])
    tl.store(found_ptr + rows, tl.sum(gaps * gaps, axis=1))


@lemma("fused_sum")
@pytest.mark.parametrize("exponent", [0, -30, -72])
def test_a_sum_of_squares_is_near_whether_a_compiler_fuses_or_not(exponent):
    rows, keys = 16, 64
    rng = np.random.default_rng(exponent + 100)
    gaps = (rng.random((rows, keys)) * 2.0 ** (exponent - rng.integers(0, 4, (rows, keys)))).astype(np.float32)
    found = torch.zeros(rows, device=DEVICE)
    fused_kernel[(1,)](torch.tensor(gaps, device=DEVICE), found, rows, keys)
    for row, total in zip(gaps, found.cpu().tolist(), strict=True):
        exact = sum(fractions.Fraction(float(gap)) ** 2 for gap in row)
        # Where the product is rounded first, a term has one more rounding, and 2 ** -150 of its own.
        assert abs(total - exact) <= ((1 + U) ** keys - 1) * exact + 2 * keys * (1 + U) ** keys * 2.0**-150
    assert exponent != -72 or any(0 < total < 2.0**-126 for total in found.cpu().tolist())
