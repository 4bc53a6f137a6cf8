"""Are the custom operators what torch expects: schema, shapes for tracing, gradient?"""

import pytest
import torch
from staged import DEVICE

from adasplash2 import entmax_attention, ops


def operands(requires_grad):
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, 4, 40, 16), (1, 2, 50, 16), (1, 2, 50, 16)]
    return [torch.randn(shape, generator=generator).to(DEVICE).requires_grad_(requires_grad) for shape in shapes]


@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(requires_grad):
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(ops.attention, (*operands(requires_grad), None, 1.5, True, 0.25), test_utils=tests)


def test_shapes_and_strides_without_running():
    from torch._subclasses.fake_tensor import FakeTensorMode

    for layout in (lambda tensor: tensor, lambda tensor: tensor.transpose(1, 2).contiguous().transpose(1, 2)):
        query, key, value = (layout(tensor) for tensor in operands(False))
        real = ops.attention(query, key, value, None, 1.5, True, 0.25)
        with FakeTensorMode() as mode:
            fake = ops.attention(*(mode.from_tensor(tensor) for tensor in (query, key, value)), None, 1.5, True, 0.25)
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
