"""Are the custom operators what torch expects: schema, shapes for tracing, gradient?"""

import numpy as np
import pytest
import torch
from staged import DEVICE

import entmax_ref
from adasplash2 import entmax_attention, ops
from adasplash2.verify.judge import budget, relative_error
from adasplash2.verify.naive import product, row_gaps


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


# So many heads that the norm of their errors is no accident of one or two.
BATCH = 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_each_head_has_its_alpha_and_its_gradient(dtype):
    """By tiles and, in 16 bits, by single keys; against differences of the oracle."""
    generator = torch.Generator().manual_seed(3)
    query, d_out = (torch.randn(BATCH, 4, 70, 16, generator=generator).to(dtype).to(DEVICE) for _ in range(2))
    key, value = (torch.randn(BATCH, 2, 90, 16, generator=generator).to(dtype).to(DEVICE) for _ in range(2))
    orders = torch.tensor([[1.125, 1.5, 1.75, 1.0625], [1.25, 1.375, 1.5, 1.9375]], device=DEVICE)
    alphas = orders.repeat(BATCH // 2, 1).requires_grad_()
    out, *_ = ops.differentiable_attention(query, key, value, None, alphas, 0.0, True, 1.0)
    (d_alphas,) = torch.autograd.grad(out, alphas, d_out)
    arrays = [tensor.double().cpu().numpy() for tensor in (query, key, value, d_out)]

    def loss(item, moved):
        q, k, v, grad = (array[item : item + 1] for array in arrays)
        order = alphas[item].detach().double().cpu().numpy() + moved
        found = entmax_ref.attention(q, k, v, alpha=order, is_causal=True, scale=1.0, enable_gqa=True)
        return (found * grad).sum(axis=(0, 2, 3)), found

    naive_out, naive_d_alphas = _naive(query, key, value, d_out, alphas.detach())
    exact_out = np.concatenate([loss(item, 0.0)[1] for item in range(BATCH)])
    # Central differences err by the square of their step, against a float32 that errs by its rounding.
    exact = np.stack([(loss(item, 1e-5)[0] - loss(item, -1e-5)[0]) / 2e-5 for item in range(BATCH)])
    for found, naive, wanted in ((out, naive_out, exact_out), (d_alphas, naive_d_alphas, exact)):
        error = relative_error(found.detach().double().cpu().numpy(), wanted)
        assert error <= budget(naive.double().cpu().numpy(), wanted, found.dtype)


def _naive(query, key, value, d_out, alphas):
    """Return output and gradient of alpha, evaluated densely in float32; what is stored is rounded to the dtype."""
    q, k, v, grad = (part.float() for part in (query, key, value, d_out))
    k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], 1) for part in (k, v))
    step = (alphas - 1.0)[..., None, None]
    hidden = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).triu(k.shape[2] - q.shape[2] + 1)
    z = (step * product(q, k.mT)).masked_fill(hidden, -torch.inf)
    heads = [row_gaps(rows, float(alpha)) for rows, alpha in zip(z.flatten(0, 1), alphas.flatten(), strict=True)]
    gap = torch.stack(heads).view(z.shape)
    probs, live = gap ** (1.0 / step), gap > 0.0
    sensitivity = torch.where(live, gap ** (1.0 / step - 1.0), 0.0)
    d_probs = product(grad, v.mT)
    delta = (sensitivity * d_probs).sum(-1, keepdim=True) / sensitivity.sum(-1, keepdim=True)
    weight = -(1.0 - gap + gap * torch.where(live, gap, 1.0).log()) / step**2
    d_alphas = (sensitivity * (d_probs - delta) * weight).sum((-1, -2))
    return product(probs.to(query.dtype).float(), v).to(query.dtype), d_alphas
