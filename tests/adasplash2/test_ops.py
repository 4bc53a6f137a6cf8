"""Are the custom operators what torch expects: schema, shapes for tracing, gradient?"""

import numpy as np
import pytest
import torch
from staged import DEVICE

import entmax_ref
from adasplash2 import entmax_attention, ops


def operands(requires_grad):
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, 4, 40, 16), (1, 2, 50, 16), (1, 2, 50, 16)]
    return [torch.randn(shape, generator=generator).to(DEVICE).requires_grad_(requires_grad) for shape in shapes]


@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(requires_grad):
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(ops.attention, (*operands(requires_grad), None, None, 1.5, True, 0.25), test_utils=tests)


def test_shapes_and_strides_without_running():
    from torch._subclasses.fake_tensor import FakeTensorMode

    for layout in (lambda tensor: tensor, lambda tensor: tensor.transpose(1, 2).contiguous().transpose(1, 2)):
        query, key, value = (layout(tensor) for tensor in operands(False))
        real = ops.attention(query, key, value, None, None, 1.5, True, 0.25)
        with FakeTensorMode() as mode:
            fake = ops.attention(
                *(mode.from_tensor(tensor) for tensor in (query, key, value)), None, None, 1.5, True, 0.25
            )
        for found, expected in zip(fake, real, strict=True):
            assert found.shape == expected.shape and found.stride() == expected.stride()
            assert found.dtype == expected.dtype


def test_only_the_output_carries_a_gradient():
    query, key, value = operands(True)
    out, aux = entmax_attention(query, key, value, impl="triton", enable_gqa=True, return_aux=True)
    assert out.requires_grad
    assert not any(part.requires_grad for part in (aux.tau, aux.mass, aux.residual))
    with torch.no_grad():
        assert torch.equal(entmax_attention(query, key, value, impl="triton", enable_gqa=True), out)


@pytest.mark.gpu
def test_compiled_graph_has_no_break():
    query, key, value = operands(True)
    compiled = torch.compile(
        lambda *x: entmax_attention(*x, is_causal=True, enable_gqa=True, impl="triton"), fullgraph=True
    )
    expected = entmax_attention(query, key, value, is_causal=True, enable_gqa=True, impl="triton")
    assert torch.equal(compiled(query, key, value), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_each_head_has_its_alpha_and_its_gradient(dtype):
    """By tiles and, in 16 bits, by single keys; against differences of the oracle."""
    generator = torch.Generator().manual_seed(3)
    query, d_out = (torch.randn(2, 4, 70, 16, generator=generator).to(dtype).to(DEVICE) for _ in range(2))
    key, value = (torch.randn(2, 2, 90, 16, generator=generator).to(dtype).to(DEVICE) for _ in range(2))
    alphas = torch.tensor([[1.125, 1.5, 1.75, 1.0625], [1.25, 1.375, 1.5, 1.9375]], device=DEVICE, requires_grad=True)
    out, *_ = ops.differentiable_attention(query, key, value, None, alphas, 0.0, True, 1.0)
    (d_alphas,) = torch.autograd.grad(out, alphas, d_out)
    arrays = [tensor.double().cpu().numpy() for tensor in (query, key, value, d_out)]

    def loss(item, moved):
        q, k, v, grad = (array[item : item + 1] for array in arrays)
        order = alphas[item].detach().double().cpu().numpy() + moved
        found = entmax_ref.attention(q, k, v, alpha=order, is_causal=True, scale=1.0, enable_gqa=True)
        return (found * grad).sum(axis=(0, 2, 3)), found

    for item in range(2):
        unit = torch.finfo(dtype).eps
        assert abs(out[item].detach().double().cpu().numpy() - loss(item, 0.0)[1][0]).max() <= 64 * max(unit, 2.0**-20)
        exact = (loss(item, 1e-5)[0] - loss(item, -1e-5)[0]) / 2e-5
        # The terms of a head are some tens times as large as their sum.
        np.testing.assert_allclose(d_alphas[item].cpu().numpy(), exact, rtol=2e-3, atol=2e-2)
