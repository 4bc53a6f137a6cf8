"""Are the row kernels the oracle's answer, by whole rows and by blocks, and is their backward right on its own?"""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples
from staged import DEVICE, U, score_matrices

import entmax_ref
from adasplash2 import row_launch
from adasplash2.kernels.logarithm import log_of
from adasplash2.kernels.packed import packed, unpacked
from adasplash2.orders import MAX_PASSES
from adasplash2.reference.movement import jacobian_product, of_alpha

ALPHAS = (1.0 + 2.0**-20, 1.03125, 1.25, 1.5, 1.75, 2.0)
each_alpha = pytest.mark.parametrize("alpha", ALPHAS)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAUNCH = row_launch.ROW_LAUNCH[row_launch.BACKEND]
# Of 16 bits, 300 and the last are held as words in the interpreter, and the last three on a GPU.
LENGTHS = (1, 17, 300, LAUNCH.most[1] + 1, LAUNCH.packed[0].least, LAUNCH.packed[-1].most - 6)


def hard_rows(n, count=None, seed=0):
    """Return float64 rows that are hard for a threshold; the last of them is -inf but for one key."""
    rng = np.random.default_rng([seed, n])
    normal = rng.normal(size=n)
    found = [normal, 10.0 * normal, 0.01 * normal, 1e4 + normal, np.zeros(n), rng.integers(-8, 9, n) / 8.0]
    found += [rng.choice(rng.normal(size=3), n) + 1e-4 * normal, rng.standard_cauchy(n), np.full(n, -3e38)]
    found += [np.where(np.arange(n) == n // 2, 40.0, normal), np.where(np.arange(n) == n - 1, -5.0, -np.inf)]
    return np.stack(found)[:count]


def allowed(rows, alpha, dtype):
    """Bound the error of a probability.

    z has two roundings, its gap two more, each of numbers up to 1 where it counts; tau errs by the relative error of
    the mass (residual_bound), 20 roundings and the depth of a sum, and what the last step leaves is the square of the
    tolerance. A gap that is off by e moves a probability to (gap + e) ** power. Where that says less, as for alpha next
    to 1: the depth (1 - gap) / (alpha - 1) errs by 4 roundings of itself and by that of the mass, and moves the
    probability relatively by that over the gap. The power, the logarithm and their product add 4 roundings and 2 of
    abs(log(probs)); so do the sum and the quotient. Last the rounding to the dtype; a GPU makes 0 of a power below the
    smallest normal float32.
    """
    n, step = rows.shape[1], alpha - 1.0
    with np.errstate(invalid="ignore"):
        z = step * (rows - rows.max(-1, keepdims=True))
    tau = entmax_ref.threshold(rows - rows.max(-1, keepdims=True), alpha)[:, None]
    gap, wanted = np.maximum(z - tau, 0.0), entmax_ref.entmax(rows, alpha)
    of_mass = U * (24 + 2 * np.log2(n)) + 2.0**-34
    near = np.where(z - tau > -of_mass, np.maximum(z - tau, 0.0) + of_mass, 0.0) ** (1.0 / step)
    below = np.maximum(gap - of_mass, 0.0) ** (1.0 / step)
    spread = np.maximum(near - wanted, wanted - below)
    depth, inside = (1.0 - gap) / step, np.where(gap > 0.0, gap, 1.0)
    by_depth = np.where(gap > 0.0, (U * 4 * depth + of_mass) / inside, np.inf)
    few = by_depth < 0.01
    spread = np.where(few, np.minimum(spread, 1.01 * np.where(few, by_depth, 0.0) * wanted), spread)
    logs = np.abs(np.log(np.where(wanted > 0.0, wanted, 1.0)))
    info = torch.finfo(dtype)
    relative = U * (24 + 2 * np.log2(n) + 4 * logs) + 0.5 * info.eps
    tiny = max(info.smallest_normal * info.eps, 2.0**-126)
    return spread * (1.0 + relative) + relative * wanted + tiny


def assert_rows(rows, alpha, dtype, values=None):
    """Check what the forward kernel makes of float64 rows, rounded to the dtype."""
    scores = torch.from_numpy(rows).to(dtype).to(DEVICE)
    probs, passes = row_launch.forward(scores, alpha, values)
    exact_rows = scores.double().cpu().numpy()
    found = probs.double().cpu().numpy()
    assert probs.dtype == dtype and passes.max() < MAX_PASSES
    for row, p, order in zip(exact_rows, found, np.broadcast_to(alpha, len(rows)), strict=True):
        order = float(np.float32(order))
        error = np.abs(p - entmax_ref.entmax(row, order))
        assert (error <= allowed(row[None], order, dtype)[0]).all(), (row, error.max())
    return scores, probs, passes


@each_alpha
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", LENGTHS)
@lemma("newton_norm_left", "residual_bound", "normalised_output", "threshold_subset", "compensated_sum", "pair_exact")
def test_probabilities(alpha, dtype, n):
    rows = hard_rows(n)
    if dtype == torch.float16:
        # some of the heavy tails are beyond the dtype too
        rows = np.where(np.isfinite(rows), np.clip(rows, -6e4, 6e4), rows)
    _, probs, _ = assert_rows(rows, alpha, dtype)
    if dtype == torch.float32:
        # what is left of tau's rounding where rows are not divided by their sum
        slack = 2.0**-21 if n <= LAUNCH.most[alpha in (1.5, 2.0)] else 2.0**-18
        assert (probs.double().sum(-1) - 1.0).abs().max() <= slack


@each_alpha
@examples(15)
@given(scores=score_matrices())
def test_drawn_rows(alpha, scores):
    assert_rows(scores.astype(np.float64), alpha, torch.float32)


@pytest.mark.parametrize("n", [40, LAUNCH.most[1] + 1])
def test_an_alpha_for_each_row(n):
    rows, orders = hard_rows(n, 5), np.array([1.0625, 1.25, 1.5, 1.875, 2.0])
    for values in (torch.from_numpy(orders)[:, None], torch.from_numpy(orders)[None].T.repeat(1, 2)[:, :1]):
        scores = torch.from_numpy(rows).float().to(DEVICE)
        probs, _ = row_launch.forward(scores, 0.0, values.to(DEVICE))
        for row, p, order in zip(scores.double().cpu().numpy(), probs.double().cpu().numpy(), orders, strict=True):
            assert (np.abs(p - entmax_ref.entmax(row, order)) <= allowed(row[None], order, torch.float32)[0]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n", [5, LAUNCH.packed[0].least + 6, LAUNCH.most[1] + 1])
@pytest.mark.parametrize("alpha", [1.5, 2.0, 1.25, None])
def test_rows_by_the_contract(n, alpha, dtype):
    """NaN, +inf and no key at all, and an alpha that no kernel has; no other row is touched."""
    rows = torch.zeros(8, n, dtype=dtype)
    rows[0], rows[1, 2], rows[2, n - 1] = -torch.inf, torch.nan, torch.inf
    rows[3], rows[3, 1] = torch.nan, -torch.inf
    rows[1, 0] = rows[2, 0] = -torch.inf
    values = None if alpha else torch.tensor([1.5, 1.5, 1.5, 1.5, 1.0, 2.5, torch.nan, 1.25])[:, None].to(DEVICE)
    probs, _ = row_launch.forward(rows.to(DEVICE), alpha or 0.0, values)
    d_probs = torch.ones(8, n, dtype=dtype, device=DEVICE)
    d_probs[:, 0] = 2.0
    d_scores, d_alpha = row_launch.backward(d_probs, probs, alpha or 0.0, values, alpha is None)
    for found in (probs.cpu(), d_scores.cpu()):
        assert not found[0].any()
        assert found[1, 1:].isnan().all() and found[2, 1:].isnan().all() and not found[1:3, 0].any()
        assert found[3, [0, *range(2, n)]].isnan().all() and found[3, 1] == 0.0
        assert found[4:7].isnan().all() if alpha is None else found[4:7].isfinite().all()
        assert found[7].isfinite().all()
    if alpha is None:
        assert d_alpha[0] == 0.0 and d_alpha[1:7].isnan().all() and d_alpha[7].isfinite()


@each_alpha
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [1, 40, LAUNCH.most_backward[1] + 1])
@lemma("jacobian_form", "jacobian_rows_zero")
def test_backward_of_given_probabilities(alpha, dtype, n):
    """A sensitivity errs by 6 roundings and 2 of its logarithm, sums of m terms by their depth, here m / 512 and 10.

    That of a subnormal probability, whose logarithm the kernels do not have, is anything below 2 ** -120.
    """
    rows = hard_rows(n, 8)
    probs = torch.from_numpy(entmax_ref.entmax(rows, alpha)).to(dtype).to(DEVICE)
    generator = torch.Generator().manual_seed(n)
    d_probs = torch.randn(probs.shape, generator=generator).to(dtype).to(DEVICE)
    d_scores, d_alpha = row_launch.backward(d_probs, probs, alpha, None, True)
    p, d, order = probs.double(), d_probs.double(), torch.tensor([[alpha]], dtype=torch.float64, device=DEVICE)
    wanted = jacobian_product(p, order, d)
    live = p > 0.0
    logs = torch.where(live, p, 1.0).log().abs()
    spread = torch.where(live, d, 0.0).abs().amax(-1, keepdim=True)
    sensitivity = torch.where(live, p.pow(2.0 - alpha), 0.0)
    relative = U * (16 + 2 * 10 + n / 256 + 4 * logs.amax(-1, keepdim=True))
    limit = 4.0 * spread * (sensitivity * relative + torch.where(live, 2.0**-120, 0.0))
    half = torch.finfo(dtype).eps / 2.0
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    assert d_scores.dtype == dtype
    assert ((d_scores.double() - wanted).abs() <= limit * (1.0 + half) + half * wanted.abs() + tiny).all()
    by_alpha = of_alpha(p, order, wanted)
    # weights are at most log(p) ** 2 / 2, and err by some 20 roundings of themselves and of the logarithm
    weights = logs.amax(-1, keepdim=True).square() / 2.0 + logs.amax(-1, keepdim=True)
    carried = (limit + 64 * U * wanted.abs()).sum(-1, keepdim=True) * weights
    assert ((d_alpha.double() - by_alpha).abs() <= carried + 2.0**-126).all()


@lemma("skipped_keys_have_no_gradient")
def test_what_lies_outside_the_support_is_not_read():
    for n in (20, LAUNCH.most_backward[1] + 1):
        probs = torch.zeros(2, n, device=DEVICE)
        probs[:, :2] = 0.5
        d_probs = torch.full((2, n), torch.nan, device=DEVICE)
        d_probs[:, 0], d_probs[:, 1] = 1.0, 3.0
        for alpha in (1.5, 2.0, 1.25):
            d_scores, d_alpha = row_launch.backward(d_probs, probs, alpha, None, True)
            assert d_scores.isfinite().all() and not d_scores[:, 2:].any() and d_alpha.isfinite().all()


@pytest.mark.parametrize("alpha", [1.5, 1.25])
def test_strides(alpha):
    base = torch.from_numpy(hard_rows(64, 6)).float().to(DEVICE)
    plain, _ = row_launch.forward(base[:, :40].contiguous(), alpha, None)
    for scores in (base[:, :40], base[:, :40].T.contiguous().T, base[:, :40].repeat_interleave(2, 0)[::2]):
        # Rows that a thread loads in other portions are summed in another order.
        assert (row_launch.forward(scores, alpha, None)[0] - plain).abs().max() <= 8 * U
    shared = row_launch.forward(base[:1, :40].expand(6, 40), alpha, None)[0]
    assert (shared - plain[:1]).abs().max() <= 8 * U and torch.equal(shared, shared[:1].expand(6, 40))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_rows_that_begin_within_a_word_are_not_held_as_words(dtype):
    n = LAUNCH.packed[0].least
    base = torch.from_numpy(hard_rows(n + 5, 4)).clamp(-6e4, 6e4).to(dtype).to(DEVICE)
    for scores in (base[:, :n], base[:, 1 : n + 1], base[:, : n + 1], base[1:, 2 : n + 2], base[:1, 1 : n + 1]):
        wanted = row_launch.forward(scores.contiguous(), 1.5, None)[0]
        found = row_launch.forward(scores, 1.5, None)[0]
        # A rounding of 16 bits at most, where sums in another order differ.
        assert ((found.float() - wanted.float()).abs() <= torch.finfo(dtype).eps * wanted.float().abs()).all()


@pytest.mark.parametrize("dtype", [1, 2])
@given(numbers=st.lists(st.integers(-(2**15), 2**15 - 1), min_size=32, max_size=32))
@examples(20)
def test_words_hold_two_numbers(dtype, numbers):
    """Every number of 16 bits comes out of its word as it is, and goes back into it; NaN and subnormals as they can."""
    half = torch.tensor(numbers, dtype=torch.int16, device=DEVICE)
    first, second = torch.zeros(2, 16, device=DEVICE)
    again = torch.zeros(16, dtype=torch.int32, device=DEVICE)
    words_kernel[(1,)](half.view(torch.int32), first, second, again, dtype)
    plain = half.view({1: torch.bfloat16, 2: torch.float16}[dtype]).float().view(16, 2)
    for found, wanted in zip((first, second), plain.unbind(1), strict=True):
        assert (found.eq(wanted) | (found.isnan() & wanted.isnan())).all()
    back = again.view(torch.int16).view(16, 2)
    assert ((back == half.view(16, 2)) | plain.isnan() | (plain.abs() < 2.0**-126)).all()


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_a_row_does_not_depend_on_its_neighbours(alpha):
    rows = torch.from_numpy(hard_rows(50)).float().to(DEVICE)
    together, passes = row_launch.forward(rows, alpha, None)
    for row, probs, steps in zip(rows, together, passes, strict=True):
        alone, own = row_launch.forward(row[None], alpha, None)
        assert torch.equal(alone[0], probs) and own[0] == steps


@pytest.mark.gpu
@pytest.mark.parametrize("n", [131_072, 262_144, 1_000_003])
@pytest.mark.parametrize("alpha", [1.25, 1.5, 2.0])
def test_long_rows(n, alpha):
    _, probs, passes = assert_rows(hard_rows(n), alpha, torch.float32)
    assert passes.max() <= 8 and (probs.double().sum(-1) - 1.0).abs().max() <= 2.0**-18


@triton.jit
def words_kernel(words_ptr, first_ptr, second_ptr, again_ptr, DTYPE: tl.constexpr):
    places = tl.arange(0, 16)[None, :]
    first, second = unpacked(tl.load(words_ptr + places), tl.zeros([1], tl.float32), DTYPE)
    tl.store(first_ptr + places, first)
    tl.store(second_ptr + places, second)
    tl.store(again_ptr + places, packed(first, second, DTYPE))


@triton.jit
def logarithm_kernel(x_ptr, out_ptr):
    tl.store(out_ptr + tl.arange(0, 1), log_of(tl.load(x_ptr + tl.arange(0, 1))))


@given(x=st.floats(2.0**-100, 2.0**100, width=32))
@examples(200)
def test_logarithm(x):
    """Of the leaf that a power is made of: within 2 ** -23 of its size, and 2 ** -24 of its multiple of log(2)."""
    given_x, out = torch.tensor([x], device=DEVICE), torch.empty(1, device=DEVICE)
    logarithm_kernel[(1,)](given_x, out)
    wanted = np.log(np.float64(np.float32(x)))
    exponent = abs(np.round(np.log2(x)))
    assert abs(float(out) - wanted) <= 2.0**-23 * abs(wanted) + 2.0**-24 * exponent * np.log(2.0) + 2.0**-30 * (x != 1)
