"""Is the eager path the oracle's answer, for any alpha and dtype, and differentiable?"""

import numpy as np
import pytest
import torch
from staged import DEVICE

import entmax_ref
from adasplash2 import entmax_attention


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("alpha", [1.05, 1.25, 4 / 3, 1.5, 1.75, 2.0, 3.0])
@pytest.mark.parametrize("is_causal", [False, True])
def test_it_agrees_with_the_oracle_in_float64(alpha, is_causal):
    query, d_out = draw(2, 4, 33, 8, seed=1), draw(2, 4, 33, 8, seed=2)
    key, value = draw(2, 2, 40, 8, seed=3), draw(2, 2, 40, 8, seed=4)
    leaves = [tensor.requires_grad_() for tensor in (query, key, value)]
    options = {"alpha": alpha, "is_causal": is_causal, "enable_gqa": True}
    out, aux = entmax_attention(*leaves, impl="reference", return_aux=True, **options)
    arrays = [tensor.detach().numpy() for tensor in (*leaves, d_out)]
    exact, report = entmax_ref.attention(*arrays[:3], return_aux=True, **options)
    # float64: some hundred roundings of sums of 40 terms; for small alpha a power of 1 / (alpha - 1) multiplies them
    tolerance = 2.0**-53 * 512 / (alpha - 1.0)
    assert abs(aux.tau.numpy() - report.tau).max() <= tolerance * (1.0 + abs(report.tau).max())
    # above alpha 2 the power is below 1, and a gap that is off by e moves its probability by up to e ** power
    assert abs(out.detach().numpy() - exact).max() <= tolerance ** min(1.0, 1.0 / (alpha - 1.0)) * abs(arrays[2]).max()
    grads = torch.autograd.grad(out, leaves, d_out)
    for found, truth in zip(grads, entmax_ref.attention_vjp(*arrays, **options), strict=True):
        relative = np.linalg.norm(found.numpy() - truth) / np.linalg.norm(truth)
        assert relative <= 64 * tolerance ** min(1.0, 1.0 / (alpha - 1.0))


@pytest.mark.parametrize("scale", [-0.7, 0.0, 2.5])
def test_any_scale(scale):
    leaves = [draw(1, 2, 20, 8, seed=seed).requires_grad_() for seed in range(3)]
    d_out = draw(1, 2, 20, 8, seed=3)
    out = entmax_attention(*leaves, scale=scale, impl="reference")
    arrays = [tensor.detach().numpy() for tensor in (*leaves, d_out)]
    # float64: some hundred roundings of sums of 20 terms; a gradient is made of products of several such sums
    error = abs(out.detach().numpy() - entmax_ref.attention(*arrays[:3], scale=scale)).max()
    assert error <= 2.0**-53 * 256 * abs(arrays[2]).max()
    exact = entmax_ref.attention_vjp(*arrays, scale=scale)
    for found, truth in zip(torch.autograd.grad(out, leaves, d_out), exact, strict=True):
        assert np.linalg.norm(found.numpy() - truth) <= 2.0**-53 * 2**12 * (1.0 + np.linalg.norm(truth))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_lower_precision_costs_one_rounding_of_the_output(dtype):
    query, key, value = (draw(1, 2, 50, 16, dtype=dtype, seed=seed) for seed in range(3))
    out = entmax_attention(query, key, value)
    exact = entmax_ref.attention(*(tensor.double().numpy() for tensor in (query, key, value)))
    assert out.dtype == dtype
    error = np.linalg.norm(out.double().numpy() - exact) / np.linalg.norm(exact)
    assert error <= torch.finfo(dtype).eps / 2 + 64 * 2.0**-24


@pytest.mark.parametrize("alpha", [1.25, 1.5])
def test_first_and_second_derivatives(alpha):
    leaves = [draw(1, 1, 3, 2, seed=seed).requires_grad_() for seed in range(3)]

    def function(query, key, value):
        return entmax_attention(query, key, value, alpha=alpha, impl="reference")

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_no_gradient_is_asked_of_the_report():
    query = draw(1, 1, 5, 4).requires_grad_()
    out, aux = entmax_attention(query, query, query, return_aux=True)
    assert out.requires_grad and not aux.tau.requires_grad and not aux.mass.requires_grad
    assert (aux.passes == 0).all() and aux.block_mask.all()


def test_autocast_does_not_reach_inside():
    # of the dtype that autocast casts operands to, so that nothing is left for it but what is inside
    leaves = [draw(1, 2, 40, 16, dtype=torch.bfloat16, seed=seed).requires_grad_() for seed in range(3)]
    plain, before = entmax_attention(*leaves, return_aux=True)
    with torch.autocast("cpu", torch.bfloat16):
        out, aux = entmax_attention(*leaves, return_aux=True)
    assert torch.equal(out, plain) and torch.equal(aux.tau, before.tau)
    for found, expected in zip(
        torch.autograd.grad(out.sum(), leaves), torch.autograd.grad(plain.sum(), leaves), strict=True
    ):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_float32_stays_exact_on_long_clustered_rows(alpha):
    n = 20_000
    key = torch.zeros(1, 1, n, 8)
    key[..., 1:, 0] = -0.3 / (alpha - 1.0) - 1e-3 * torch.rand(n - 1, generator=torch.Generator().manual_seed(0))
    query = torch.zeros(1, 1, 2, 8)
    query[..., 0] = 1.0
    value = draw(1, 1, n, 8, dtype=torch.float32)
    out, aux = entmax_attention(query, key, value, alpha=alpha, scale=1.0, return_aux=True)
    exact = entmax_ref.attention(*(tensor.double().numpy() for tensor in (query, key, value)), alpha=alpha, scale=1.0)
    assert (aux.mass - 1.0).abs().max() <= 1e-5
    assert np.linalg.norm(out.double().numpy() - exact) <= 256 * 2.0**-24 * np.linalg.norm(exact)


@pytest.mark.parametrize("impl", ["triton", "reference"])
def test_no_heads(impl):
    nothing = torch.zeros(1, 0, 4, 16, device=DEVICE)
    assert entmax_attention(nothing, nothing, nothing, impl=impl).shape == nothing.shape
