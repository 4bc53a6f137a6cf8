"""Is an alpha that is a tensor, one for each head, served and differentiated on every path, and with every option?"""

import numpy as np
import pytest
import torch
from staged import DEVICE
from torch.func import jacfwd, jacrev, jvp, vmap

import entmax_ref
from adasplash2 import entmax_attention, entmax_attention_varlen, nn
from adasplash2.reference import alphas as by_alphas
from adasplash2.verify.judge import relative_error

ORDERS = [1.125, 1.5, 2.0, 1.75]
# Some hundred roundings of float64, multiplied by a power of 8 for the weights; those of the report are not.
ROUNDINGS = 2.0**-53 * 2.0**10
EXACT = 8.0 * ROUNDINGS
on_paths = pytest.mark.parametrize("impl", ["reference", "triton"])


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def operands(n_queries=33, n_keys=40, dtype=torch.float64, batch=2, heads=4):
    query = draw(batch, heads, n_queries, 16, dtype=dtype, seed=1)
    key, value = (draw(batch, heads // 2, n_keys, 16, dtype=dtype, seed=seed) for seed in (2, 3))
    return [tensor.to(DEVICE).requires_grad_() for tensor in (query, key, value)]


def assert_exact(leaves, alpha, d_out, found, grads, **options):
    """Check output and gradients of float64 operands."""
    arrays = [tensor.detach().cpu().numpy() for tensor in (*leaves, d_out)]
    orders = alpha.detach().cpu().numpy()
    exact = entmax_ref.attention(*arrays[:3], alpha=orders, **options)
    wanted = entmax_ref.attention_vjp(*arrays, alpha=orders, return_d_alpha=True, **options)
    for one, other in zip((found, *grads), (exact, *wanted), strict=True):
        assert relative_error(one.detach().cpu().numpy(), other) <= EXACT


@pytest.mark.parametrize("at_once", [by_alphas.SCORES_AT_ONCE, 512])
@pytest.mark.parametrize("option", [{}, {"is_causal": True}, {"window_size": (9, 3)}, {"bias": True}], ids=str)
def test_the_reference_is_the_oracle(monkeypatch, option, at_once):
    monkeypatch.setattr(by_alphas, "SCORES_AT_ONCE", at_once)
    monkeypatch.setattr("adasplash2.reference.chunks.SCORES_AT_ONCE", at_once)
    leaves, d_out = operands(), draw(2, 4, 33, 16, seed=4).to(DEVICE)
    alpha = torch.tensor(ORDERS, dtype=torch.float64, device=DEVICE, requires_grad=True)
    bias = draw(2, 1, 33, 40, seed=5).to(DEVICE) if option.pop("bias", False) else None
    out, aux = entmax_attention(
        *leaves, bias, alpha=alpha, enable_gqa=True, impl="reference", return_aux=True, **option
    )
    grads = torch.autograd.grad(out, [*leaves, alpha], d_out)
    named = {"window": option["window_size"]} if "window_size" in option else option
    also = {} if bias is None else {"bias": bias.cpu().numpy()}
    assert_exact(leaves, alpha, d_out, out, grads, enable_gqa=True, **named, **also)
    for head, order in enumerate(ORDERS):
        single, report = entmax_attention(
            *leaves, bias, alpha=order, enable_gqa=True, impl="reference", return_aux=True, **option
        )
        torch.testing.assert_close(out[:, head], single[:, head], rtol=EXACT, atol=EXACT)
        assert torch.equal(aux.block_mask[:, head], report.block_mask[:, head])
        for name in ("tau", "mass", "row_max", "tau_from_max"):
            found, wanted = getattr(aux, name)[:, head], getattr(report, name)[:, head]
            torch.testing.assert_close(found, wanted, rtol=ROUNDINGS / 2, atol=ROUNDINGS / 2)


@on_paths
@pytest.mark.parametrize("shape", [(), (1,), (2,), (2, 1)], ids=str)
def test_shapes_that_broadcast_and_their_gradient(shape, impl):
    leaves, d_out = operands(9, 12, dtype=torch.bfloat16, heads=2), draw(2, 2, 9, 16, dtype=torch.bfloat16).to(DEVICE)
    each = torch.tensor([[1.125, 1.75], [1.5, 1.25]], device=DEVICE)
    alpha = each[tuple(slice(0, size) for size in (1, 1, *shape)[-2:])].reshape(shape).clone().requires_grad_()
    whole = alpha.detach().expand(2, 2).clone().requires_grad_()
    found, wanted = (
        entmax_attention(*leaves, alpha=one, impl=impl, enable_gqa=True, is_causal=True) for one in (alpha, whole)
    )
    assert torch.equal(found, wanted)
    *grads, d_alpha = torch.autograd.grad(found, [*leaves, alpha], d_out)
    *others, d_whole = torch.autograd.grad(wanted, [*leaves, whole], d_out)
    assert all(torch.equal(one, other) for one, other in zip(grads, others, strict=True))
    assert d_alpha.shape == alpha.shape and d_alpha.dtype == alpha.dtype
    torch.testing.assert_close(d_alpha, d_whole.sum_to_size(shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_kernels_give_the_bits_of_the_number(dtype):
    leaves = operands(20, 24, dtype=dtype, batch=1, heads=2)
    out, aux = entmax_attention(*leaves, alpha=1.75, enable_gqa=True, impl="triton", return_aux=True)
    alpha = torch.full((2,), 1.75, dtype=torch.float64, device=DEVICE)
    again, report = entmax_attention(*leaves, alpha=alpha, enable_gqa=True, impl="triton", return_aux=True)
    assert torch.equal(out, again)
    for name in aux._fields:
        assert torch.equal(getattr(aux, name), getattr(report, name)), name


def test_what_alpha_may_not_be():
    leaves = operands(dtype=torch.float32)
    alpha = torch.tensor([0.5, 1.0, 2.5, 1.5], device=DEVICE)
    few = [leaf[:1, :, :5] for leaf in leaves]
    out = entmax_attention(*few, alpha=alpha, enable_gqa=True, impl="triton")
    assert out[:, :3].isnan().all() and out[:, 3].isfinite().all()
    with pytest.raises(ValueError, match=r"alpha holds 0\.5; every entry must be a finite number above 1"):
        entmax_attention(*leaves, alpha=alpha, enable_gqa=True, impl="reference")
    above = torch.tensor([3.0, 2.5, 2.0, 1.5], device=DEVICE)
    assert entmax_attention(*leaves, alpha=above, enable_gqa=True, impl="reference").isfinite().all()


@on_paths
def test_queries_without_keys_and_operands_without_rows(impl):
    alpha = torch.tensor(ORDERS, device=DEVICE, requires_grad=True)
    for n_queries, n_keys, batch in [(5, 0, 1), (0, 5, 1), (5, 5, 0), (7, 3, 1)]:
        leaves = operands(n_queries, n_keys, dtype=torch.float32, batch=batch)
        out, aux = entmax_attention(*leaves, alpha=alpha, enable_gqa=True, is_causal=True, impl=impl, return_aux=True)
        blind = max(n_queries - n_keys, 0)
        assert (out[:, :, :blind] == 0.0).all() and (aux.tau[:, :, :blind] == torch.inf).all()
        assert (aux.mass[:, :, :blind] == 0.0).all() and (aux.row_max[:, :, :blind] == -torch.inf).all()
        (d_alpha,) = torch.autograd.grad(out.sum(), alpha)
        assert d_alpha.isfinite().all()


@on_paths
def test_nan_stays_in_the_rows_that_see_it(impl):
    query, key, value = operands(12, 12, dtype=torch.float32)
    with torch.no_grad():
        key[0, 0, 6] = torch.nan  # heads 0 and 1 of item 0, from query 6 on
    alpha = torch.tensor([ORDERS, ORDERS], device=DEVICE, requires_grad=True)
    out = entmax_attention(query, key, value, alpha=alpha, enable_gqa=True, is_causal=True, impl=impl)
    broken = torch.zeros_like(out, dtype=torch.bool)
    broken[0, :2, 6:] = True
    assert torch.equal(out.isnan(), broken)
    d_query, d_key, d_value, d_alpha = torch.autograd.grad(out.sum(), [query, key, value, alpha])
    assert torch.equal(d_query.isnan(), broken)
    seen = torch.zeros_like(key, dtype=torch.bool)
    seen[0, 0] = True  # by query 11
    assert torch.equal(d_key.isnan(), seen) and torch.equal(d_value.isnan(), seen)
    assert torch.equal(d_alpha.isnan().cpu(), torch.tensor([[True, True, False, False], [False] * 4]))


@on_paths
def test_more_leading_dimensions(impl):
    query, key, value = (draw(2, 1, 2, 9, 16, dtype=torch.float32, seed=seed).to(DEVICE) for seed in range(3))
    orders = torch.tensor([[[1.25, 1.125]], [[1.75, 1.5]]], device=DEVICE)
    out = entmax_attention(query, key, value, alpha=orders, impl=impl)
    for index in np.ndindex(2, 1):
        one = entmax_attention(query[index], key[index], value[index], alpha=orders[index], impl=impl)
        torch.testing.assert_close(out[index], one)
    alone = orders[0, 0, 0].clone().requires_grad_()
    bare = entmax_attention(query[0, 0, 0], key[0, 0, 0], value[0, 0, 0], alpha=alone, impl=impl)
    torch.testing.assert_close(bare, out[0, 0, 0])


@on_paths
def test_masks_and_packed_sequences(impl):
    leaves = operands(24, 24, dtype=torch.float32, batch=1, heads=2)
    alpha = torch.tensor([1.125, 1.75], device=DEVICE)
    offsets = torch.tensor([0, 10, 24], device=DEVICE)
    packed = [leaf[0].transpose(0, 1) for leaf in leaves]
    out = entmax_attention_varlen(*packed, offsets, offsets, is_causal=True, alpha=alpha, impl=impl)
    for start, end in ((0, 10), (10, 24)):
        parts = [leaf[:, :, start:end] for leaf in leaves]
        wanted = entmax_attention(*parts, alpha=alpha, enable_gqa=True, is_causal=True, impl=impl)
        torch.testing.assert_close(out[start:end].transpose(0, 1), wanted[0])
    mask = torch.ones(24, 24, dtype=torch.bool, device=DEVICE).tril().triu(-5)
    masked = entmax_attention(*leaves, mask, alpha=alpha, enable_gqa=True, impl=impl)
    window = entmax_attention(*leaves, alpha=alpha, enable_gqa=True, window_size=(5, 0), impl=impl)
    torch.testing.assert_close(masked, window)


def attend(query, key, value, alpha, impl="reference"):
    return entmax_attention(query, key, value, alpha=alpha, impl=impl)


@pytest.mark.parametrize("at_once", [by_alphas.SCORES_AT_ONCE, 4])
def test_derivatives_of_any_order(monkeypatch, at_once):
    monkeypatch.setattr(by_alphas, "SCORES_AT_ONCE", at_once)
    monkeypatch.setattr("adasplash2.reference.chunks.SCORES_AT_ONCE", at_once)
    leaves = [draw(1, 2, 3, 2, seed=seed).requires_grad_() for seed in range(3)]
    leaves.append(torch.tensor([1.25, 1.75], dtype=torch.float64, requires_grad=True))
    assert torch.autograd.gradcheck(attend, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(attend, leaves)


def test_transforms_of_the_reference():
    query, key, value = (draw(1, 2, 3, 4, seed=seed) for seed in range(3))
    alpha = torch.tensor([1.25, 1.75], dtype=torch.float64)
    by_rows, by_columns = (of(attend, 3)(query, key, value, alpha) for of in (jacrev, jacfwd))
    torch.testing.assert_close(by_rows, by_columns)
    many = torch.stack([alpha, alpha.flip(0), alpha / 2 + 0.75])
    found = vmap(attend, (None, None, None, 0))(query, key, value, many)
    torch.testing.assert_close(found, torch.stack([attend(query, key, value, one) for one in many]))
    # A number without dimensions is a tensor under a transform, which must not lose it.
    numbers = torch.tensor([1.25, 1.75], dtype=torch.float64)
    found = vmap(attend, (None, None, None, 0))(query, key, value, numbers)
    torch.testing.assert_close(found, torch.stack([attend(query, key, value, float(one)) for one in numbers]))
    _, slope = jvp(lambda one: attend(query, key, value, one), (numbers[0],), (torch.ones_like(numbers[0]),))
    torch.testing.assert_close(slope, jacrev(attend, 3)(query, key, value, numbers[0]), rtol=EXACT, atol=EXACT)
    biases = draw(3, 1, 2, 3, 3, seed=5)
    found = vmap(lambda bias: entmax_attention(query, key, value, bias, alpha=alpha))(biases)
    wanted = torch.stack([entmax_attention(query, key, value, bias, alpha=alpha) for bias in biases])
    torch.testing.assert_close(found, wanted)


def test_transforms_of_the_kernels():
    query, key, value = (draw(1, 2, 5, 16, dtype=torch.float32, seed=seed).to(DEVICE) for seed in range(3))
    alpha = torch.tensor([1.25, 1.75], device=DEVICE)

    def on_kernels(alpha):
        return attend(query, key, value, alpha, "triton")

    many = torch.stack([alpha, alpha.flip(0)])
    assert torch.equal(vmap(on_kernels)(many), torch.stack([on_kernels(one) for one in many]))
    found = jacrev(lambda one: on_kernels(one).sum((-1, -2)))(alpha)
    leaf = alpha.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(on_kernels(leaf).sum(), leaf)
    torch.testing.assert_close(found.sum((0, 1)), wanted)
    with pytest.raises(RuntimeError, match="forward-mode derivative was asked for"):
        jvp(on_kernels, (alpha,), (torch.ones_like(alpha),))


@on_paths
def test_graphs(impl):
    query, key, value = (draw(1, 2, 20, 16, dtype=torch.float32, seed=seed).to(DEVICE) for seed in range(3))
    alpha = torch.tensor([1.25, 1.75], device=DEVICE, requires_grad=True)
    compiled = torch.compile(attend, backend="aot_eager", fullgraph=True, dynamic=True)
    for length in (20, 13):
        parts = [part[:, :, :length] for part in (query, key, value)]
        out, wanted = compiled(*parts, alpha, impl), attend(*parts, alpha, impl)
        torch.testing.assert_close(out, wanted)
        for one, other in zip(
            torch.autograd.grad(out.sum(), alpha), torch.autograd.grad(wanted.sum(), alpha), strict=True
        ):
            torch.testing.assert_close(one, other)
    shapes = attend(*(part.to("meta") for part in (query, key, value)), alpha.to("meta"), impl)
    assert shapes.shape == query.shape and shapes.is_meta


def test_the_small_module_learns_one_for_each_head():
    leaves = [leaf.detach().cpu() for leaf in operands(dtype=torch.float32)]
    module = nn.EntmaxAttention(nn.AlphaParameter((4,)), enable_gqa=True)
    assert torch.equal(module(*leaves), entmax_attention(*leaves, alpha=module.alpha(), enable_gqa=True))
    module(*leaves).square().sum().backward()
    assert module.alpha.weight.grad.shape == (4,) and (module.alpha.weight.grad != 0.0).all()
    assert list(module.state_dict()) == ["alpha.weight"]
    assert "alpha=" not in nn.EntmaxAttention(torch.tensor(ORDERS)).extra_repr()
    held = nn.EntmaxAttention(torch.tensor(ORDERS)).double()
    assert held.alpha.dtype == torch.float64 and list(held.state_dict()) == ["alpha"]


def test_the_large_module_learns_one_for_each_head():
    module = nn.MultiheadEntmaxAttention(16, 4, batch_first=True, alpha=nn.AlphaParameter((4,)))
    fixed = nn.MultiheadEntmaxAttention(16, 4, batch_first=True)
    loaded = fixed.load_state_dict(module.state_dict(), strict=False)
    assert loaded.unexpected_keys == ["alpha.weight"] and not loaded.missing_keys
    with torch.no_grad():
        module.alpha.weight.copy_(torch.tensor([-1.0, 0.0, 1.0, 2.0]))
    x = draw(2, 9, 16, dtype=torch.float32)
    out, weights = module(x, x, x, need_weights=True, average_attn_weights=False)
    for head, order in enumerate(module.alpha().tolist()):
        fixed.alpha = order
        wanted = fixed(x, x, x, need_weights=True, average_attn_weights=False)[1]
        torch.testing.assert_close(weights[:, head], wanted[:, head])
    _, _, value = module._heads(x, x, x, True)
    torch.testing.assert_close(out, module.out_proj((weights @ value).transpose(1, 2).flatten(2)))
    out.square().sum().backward()
    assert (module.alpha.weight.grad != 0.0).all()


@pytest.mark.parametrize(
    "alpha, error, message",
    [
        (torch.full((3,), 1.5), ValueError, r"alpha has shape \(3,\); it must broadcast .*\(2, 4\).*for each head"),
        (torch.full((4, 1), 1.5), ValueError, r"alpha has shape \(4, 1\); it must broadcast"),
        (torch.full((1, 1, 1), 1.5), ValueError, r"alpha has shape \(1, 1, 1\); it must broadcast"),
        (torch.ones(4, dtype=torch.bool), TypeError, r"alpha has dtype torch.bool; it must be real"),
        (torch.ones(4, dtype=torch.complex64), TypeError, r"alpha has dtype torch.complex64; it must be real"),
        (torch.full((4,), 1.5, device="meta"), ValueError, r"alpha is on meta, query on .*one device"),
        (torch.tensor(1.5, device="meta"), ValueError, r"alpha is on meta, query on .*one device"),
        (np.full(4, 1.5), TypeError, r"alpha must be a real number or a tensor, got ndarray"),
        ([1.5] * 4, TypeError, r"alpha must be a real number or a tensor, got list"),
    ],
    ids=str,
)  # fmt: skip
@on_paths
def test_what_does_not_fit_is_told(impl, alpha, error, message):
    if isinstance(alpha, torch.Tensor) and not alpha.is_meta:
        alpha = alpha.to(DEVICE)
    with pytest.raises(error, match=message):
        entmax_attention(*operands(dtype=torch.float32), alpha=alpha, enable_gqa=True, impl=impl)
