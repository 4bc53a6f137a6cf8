"""Is the whole right: output, gradients and report of entmax_attention against the oracle, on every path?"""

import dataclasses

import numpy as np
import pytest
import torch
from judged import judged
from lemmas import lemma
from staged import DEVICE

import entmax_ref
from adasplash2 import entmax_attention, launch
from adasplash2.launch_table import LAUNCH, Launch
from adasplash2.orders import TOLERANCE
from adasplash2.problem import SOLVE_ROWS
from adasplash2.verify.naive import naive_attention
from adasplash2.workloads import workload

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclasses.dataclass(frozen=True)
class Shape:
    n_queries: int
    n_keys: int
    head_dim: int = 32
    heads: int = 2
    kv_heads: int = 2
    batch: int = 1


def operands(shape, dtype, *, amplitude=1.5, seed=0):
    """Return query, key, value, d_out on the device, as a model lays them out: heads next to last in memory."""
    generator = torch.Generator().manual_seed(seed)

    def draw(heads, length, size):
        drawn = torch.randn(shape.batch, length, heads, shape.head_dim, generator=generator)
        return (size * drawn).to(dtype).to(DEVICE).transpose(1, 2)

    query = draw(shape.heads, shape.n_queries, amplitude)
    key, value = draw(shape.kv_heads, shape.n_keys, 1.0), draw(shape.kv_heads, shape.n_keys, 1.0)
    return query, key, value, draw(shape.heads, shape.n_queries, 1.0)


def run(query, key, value, d_out, **options):
    """Return out, gradients and aux of the kernels."""
    leaves = [tensor.detach().requires_grad_() for tensor in (query, key, value)]
    out, aux = entmax_attention(*leaves, impl="triton", return_aux=True, enable_gqa=True, **options)
    grads = torch.autograd.grad(out, leaves, d_out)
    return out.detach(), *grads, aux


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("is_causal", [False, True])
def test_defaults(dtype, is_causal):
    judged(*operands(Shape(150, 150), dtype), is_causal=is_causal)


@pytest.mark.parametrize(
    "shape",
    [
        Shape(1, 1),
        Shape(1, 200),
        Shape(64, 64),
        Shape(65, 63, head_dim=16),
        Shape(129, 127, head_dim=1),
        Shape(30, 100, head_dim=40, heads=4, kv_heads=2, batch=2),
        Shape(100, 30, head_dim=8, heads=3, kv_heads=1),
        Shape(70, 70, head_dim=128),
        Shape(40, 70, head_dim=200),
        Shape(33, 33, head_dim=256),
    ],
    ids=str,
)
def test_shapes(shape):
    judged(*operands(shape, torch.float32), is_causal=True)
    judged(*operands(shape, torch.bfloat16, seed=1), is_causal=False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sparsemax(dtype):
    judged(*operands(Shape(100, 90), dtype), alpha=2.0, is_causal=True)


@pytest.mark.parametrize("scale", [0.02, 3.0, 0.0, -0.5])
def test_any_scale(scale):
    judged(*operands(Shape(70, 70), torch.float32), scale=scale)


@pytest.mark.parametrize("name", ["equal", "near0.02", "ties", "clusters", "spike", "offset", "large_negative", "sink"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_hard_rows(name, dtype):
    load = workload(name, batch=1, heads=1, n_queries=130, head_dim=32, dtype=dtype, device=DEVICE, segment=32)
    d_out = torch.randn(load.query.shape, generator=torch.Generator().manual_seed(2)).to(dtype).to(DEVICE)
    judged(load.query, load.key, load.value, d_out, is_causal=load.is_causal)


@lemma("block_mask_superset")
def test_sparse_blocks_are_skipped_and_none_with_support():
    load = workload(
        "topic4", batch=1, heads=2, n_queries=384, head_dim=32, dtype=torch.float32, device=DEVICE, segment=64
    )
    d_out = torch.randn(load.query.shape, generator=torch.Generator().manual_seed(3)).to(DEVICE)
    aux = judged(load.query, load.key, load.value, d_out, is_causal=True)
    assert aux.skipped > 0.3
    wide = [tensor.double().cpu().numpy() for tensor in (load.query, load.key)]
    scores = entmax_ref.attention_scores(*wide, is_causal=True)
    live = entmax_ref.entmax(scores) > 1e-9
    tile = 384 // aux.block_mask.shape[-1]
    blocks = live.reshape(1, 2, 384 // tile, tile, 384 // tile, tile).any(axis=(3, 5))
    assert (aux.block_mask.cpu().numpy() | ~blocks).all()


def test_strides_do_not_matter():
    query, key, value, d_out = operands(Shape(70, 90, head_dim=24), torch.float32)
    compact = [tensor.contiguous() for tensor in (query, key, value, d_out)]
    every_other = [torch.stack([tensor, tensor], dim=-1).flatten(-2)[..., ::2] for tensor in compact]

    def close(found, expected):
        # a compiler may order the sums of a tile by the strides, so equal up to the rounding of sums of 90 terms
        for a, b in zip(found[:4], expected[:4], strict=True):
            assert (a - b).norm() <= 90 * 2.0**-24 * b.norm()

    broadcast = [*compact[:3], torch.ones((), device=DEVICE).expand_as(query)]
    for strided, same in ((operands(Shape(70, 90, head_dim=24), torch.float32), compact), (every_other, compact)):
        close(run(*strided), run(*same))
    close(run(*broadcast), run(*compact[:3], torch.ones_like(query)))


def test_same_inputs_same_bits_and_no_row_depends_on_the_batch():
    many = operands(Shape(100, 100, batch=3, heads=4, kv_heads=2), torch.bfloat16)
    first, second = run(*many, is_causal=True), run(*many, is_causal=True)
    one = run(*(tensor[1:2] for tensor in many), is_causal=True)
    for a, b, c in zip(first[:4], second[:4], one[:4], strict=True):
        assert torch.equal(a, b) and torch.equal(a[1:2], c)
    assert torch.equal(first[4].tau[1:2], one[4].tau) and torch.equal(first[4].passes[1:2], one[4].passes)


@pytest.mark.parametrize("impl", ["triton", "reference"])
def test_rows_without_a_key_are_zero(impl):
    query, key, value, d_out = operands(Shape(90, 20), torch.float32)
    leaves = [tensor.detach().requires_grad_() for tensor in (query, key, value)]
    out, aux = entmax_attention(*leaves, is_causal=True, impl=impl, return_aux=True)
    d_query, d_key, d_value = torch.autograd.grad(out, leaves, d_out)
    assert (out[:, :, :70] == 0).all() and (d_query[:, :, :70] == 0).all()
    assert torch.isposinf(aux.tau[:, :, :70]).all() and (aux.mass[:, :, :70] == 0).all()
    assert (out[:, :, 70:] != 0).any(dim=-1).all()
    assert torch.isfinite(d_key).all() and torch.isfinite(d_value).all()


@pytest.mark.parametrize("impl", ["triton", "reference"])
@pytest.mark.parametrize("n_queries, n_keys, batch", [(0, 5, 1), (5, 0, 1), (5, 5, 0)])
def test_empty_axes(impl, n_queries, n_keys, batch):
    query = torch.randn(batch, 2, n_queries, 16, device=DEVICE, requires_grad=True)
    key = torch.randn(batch, 2, n_keys, 16, device=DEVICE, requires_grad=True)
    out, aux = entmax_attention(query, key, key, impl=impl, return_aux=True)
    assert out.shape == query.shape and (out == 0).all() and aux.skipped == 0.0
    d_query, d_key = torch.autograd.grad(out.sum(), (query, key))
    assert (d_query == 0).all() and (d_key == 0).all()


@pytest.mark.parametrize("impl", ["triton", "reference"])
@pytest.mark.parametrize("name", ["nan_query", "nan_key", "inf"])
def test_poison_stays_in_its_rows(impl, name):
    load = workload(name, batch=1, heads=2, n_queries=100, head_dim=16, dtype=torch.float32, device=DEVICE)
    out, aux = entmax_attention(load.query, load.key, load.value, is_causal=load.is_causal, impl=impl, return_aux=True)
    expected = load.nan_rows.to(DEVICE)
    assert expected.any() and not expected.all()
    assert torch.isnan(out).all(dim=-1).equal(expected) and torch.isnan(out).any(dim=-1).equal(expected)
    # tau, mass and residual say so too: nothing on the way takes a NaN for a number
    assert all(torch.isnan(part).equal(expected) for part in (aux.tau, aux.mass, aux.residual))


@pytest.mark.parametrize("impl", ["triton", "reference"])
@pytest.mark.parametrize("where", ["query", "key"])
def test_poisoned_gradients_are_those_of_the_oracle(impl, where):
    operand = dict(zip(("query", "key", "value"), operands(Shape(80, 80), torch.float32)[:3], strict=True))
    d_out = operands(Shape(80, 80), torch.float32, seed=1)[3]
    operand[where] = operand[where].clone()
    operand[where][0, 0, 40, 3] = torch.nan
    leaves = [tensor.detach().requires_grad_() for tensor in operand.values()]
    grads = torch.autograd.grad(entmax_attention(*leaves, is_causal=True, impl=impl), leaves, d_out)
    wide = [tensor.detach().double().cpu().numpy() for tensor in (*leaves, d_out)]
    for found, exact in zip(grads, entmax_ref.attention_vjp(*wide, is_causal=True), strict=True):
        np.testing.assert_array_equal(np.isnan(found.cpu().numpy()), np.isnan(exact))
        assert np.isnan(exact).any() and not np.isnan(exact).all()


def test_a_key_of_minus_infinite_score_is_invisible():
    load = workload("minus_inf", batch=1, heads=1, n_queries=70, head_dim=16, dtype=torch.float32, device=DEVICE)
    found = entmax_attention(load.query, load.key, load.value, is_causal=load.is_causal, impl="triton")
    reference = entmax_attention(load.query, load.key, load.value, is_causal=load.is_causal, impl="reference")
    exact = entmax_ref.attention(
        *(tensor.double().cpu().numpy() for tensor in (load.query, load.key, load.value)), is_causal=load.is_causal
    )
    for out in (found, reference):
        wide = out.double().cpu().numpy()
        assert np.isfinite(wide).all()
        assert np.linalg.norm(wide - exact) <= 32 * 2.0**-24 * np.linalg.norm(exact) * load.key.shape[-1] ** 0.5


@lemma("threshold_shift")
@pytest.mark.parametrize("offset", [1e2, 1e4, -1e5])
def test_an_offset_of_all_scores_changes_nothing_but_tau(offset):
    query, key, value, _ = operands(Shape(60, 100, head_dim=16), torch.float32)
    # multiples of 1/16 stay exact under the offset
    query, key = ((tensor * 4).round() / 4 for tensor in (query, key))
    query, key = query.clone(), key.clone()
    query[..., 0], key[..., 0] = 1.0, 0.0
    plain, before = entmax_attention(query, key, value, scale=1.0, impl="triton", return_aux=True)
    key[..., 0] = offset
    moved, after = entmax_attention(query, key, value, scale=1.0, impl="triton", return_aux=True)
    # A gap rounds twice, z - base and the difference from rest, wherever its row lies; both thresholds are within their
    # residuals of that of the very same gaps.  A weight is off by twice the error of its gap, and so is the output.
    unit = 2.0**-24
    gap = 2.0 * (before.residual + after.residual) + 8 * unit
    assert ((plain - moved).abs().amax(-1) <= 2.0 * gap * 100 * value.abs().max()).all()
    assert ((before.mass - after.mass).abs() <= 2.0 * 100 * 8 * unit + before.residual + after.residual).all()
    assert (before.tau_from_max - after.tau_from_max).abs().max() <= gap.max()
    ulp = np.spacing(np.float32(abs(offset)))
    assert ((after.tau.double() - before.tau.double() - 0.5 * offset).abs() <= ulp).all()


def test_report_of_both_paths_agrees():
    query, key, value, _ = operands(Shape(128, 192, heads=4, kv_heads=2), torch.float32, amplitude=4.0)
    options = {"is_causal": True, "enable_gqa": True, "return_aux": True}
    out, aux = entmax_attention(query, key, value, impl="triton", **options)
    plain, reference = entmax_attention(query, key, value, impl="reference", **options)
    assert aux.tau.shape == reference.tau.shape == aux.mass.shape == aux.passes.shape == (1, 4, 128)
    assert aux.passes.dtype == reference.passes.dtype == torch.int32
    # two float32 evaluations, each within some roundings of 192 scores of the exact one
    assert (aux.tau - reference.tau).abs().max() <= 192 * 2.0**-24 * 16
    assert (out - plain).norm() <= 192 * 2.0**-24 * plain.norm()
    assert not aux.tau.requires_grad and not aux.mass.requires_grad


def test_every_launch_row_is_one_that_the_mask_and_counters_allow():
    for (backend, itemsize, width), row in LAUNCH.items():
        assert isinstance(row, Launch) and backend in ("cuda", "hip", "sm_90", "sm_100") and itemsize in (2, 4)
        if backend.startswith("sm_"):
            of_backend = LAUNCH["cuda", itemsize, width]
            names = ("block_m", "block_n", "dense_m", "dense_n")
            assert all(getattr(row, name) == getattr(of_backend, name) for name in names), "fakes know no device"
        assert row.block_n <= 128, "a packed counter of 8 bits holds the keys of one tile"
        assert min(row.block_m, row.block_n, width) >= 16 and row.why
        assert row.dense_m % SOLVE_ROWS == 0


@lemma("pair_exact")
@pytest.mark.parametrize("alpha, n, depth", [(2.0, 1000, 0.5), (2.0, 3000, 0.3), (1.5, 20_000, 0.5)])
def test_a_crowd_just_above_tau_converges_further_than_a_single_float32_can(alpha, n, depth):
    """One key leads by ``depth``, n keys share the rest: a unit in the last place of tau is worth 1e-5 of mass."""
    key = torch.zeros(1, 1, n + 1, 16, device=DEVICE)
    key[..., 1:, 0] = -depth / (alpha - 1.0)
    query = torch.zeros(1, 1, 3, 16, device=DEVICE)
    query[..., 0] = 1.0
    value = torch.randn(1, 1, n + 1, 16, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    out, aux = entmax_attention(query, key, value, alpha=alpha, scale=1.0, impl="triton", return_aux=True)
    exact = entmax_ref.attention(
        *(tensor.double().cpu().numpy() for tensor in (query, key, value)), alpha=alpha, scale=1.0
    )
    assert aux.passes.max() <= 3
    assert ((aux.mass - 1.0).abs() <= TOLERANCE[torch.float32]).all()
    assert (aux.residual <= TOLERANCE[torch.float32]).all()
    plain = naive_attention(query, key, value, query, alpha=alpha, is_causal=False, scale=1.0).out.numpy()
    budget = 2.0 * np.linalg.norm(plain - exact) + 2.0**-24 * np.linalg.norm(exact)
    assert np.linalg.norm(out.double().cpu().numpy() - exact) <= budget


def test_equal_values_give_that_value_in_half_precision():
    """16 bits hold the probabilities of a long flat row badly; their sum is corrected all the same."""
    for dtype in (torch.float16, torch.bfloat16):
        query, key = torch.zeros(1, 1, 2, 16, dtype=dtype), torch.zeros(1, 1, 20_000, 16, dtype=dtype)
        value = torch.full_like(key, 3.0)
        out = entmax_attention(*(tensor.to(DEVICE) for tensor in (query, key, value)), impl="triton")
        assert (out == 3.0).all()


def test_second_derivatives_name_the_reference_path():
    query, key, value, d_out = operands(Shape(10, 10, head_dim=16), torch.float32)
    query.requires_grad_()
    (d_query,) = torch.autograd.grad(
        entmax_attention(query, key, value, impl="triton"), query, d_out, create_graph=True
    )
    with pytest.raises(RuntimeError, match="impl='reference'"):
        d_query.sum().backward()


def test_a_layout_that_spreads_a_tile_too_far_is_copied():
    """Offsets within a tile are 32 bit; only such a layout is copied."""
    near = torch.empty(2, 3, 5, 64, device="meta")
    assert launch.as_operand(near) is near
    for strides in ((1, 1, 2**24, 1), (1, 1, 64, 2**25)):
        far = torch.empty_strided((2, 3, 5, 64), strides, device="meta")
        assert launch.as_operand(far).is_contiguous()
    just = torch.empty_strided((2, 3, 5, 64), (1, 1, 2**24 - 1, 1), device="meta")
    assert launch.as_operand(just) is just
