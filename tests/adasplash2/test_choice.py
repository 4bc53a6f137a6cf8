"""Does a context choose the implementation of the calls that name none, and of no others?"""

import pytest
import torch
from staged import DEVICE

from adasplash2 import api, entmax, entmax_attention, entmax_loss, implementation, nn, row_launch


@pytest.fixture
def served(monkeypatch):
    """List which implementation served each call."""
    names = []
    for name, function in (("triton", "_run_kernels"), ("reference", "_run_reference")):
        before = getattr(api, function)
        monkeypatch.setattr(api, function, lambda *a, n=name, f=before, **k: names.append(n) or f(*a, **k))
    rows = row_launch.forward
    monkeypatch.setattr(row_launch, "forward", lambda *a, **k: names.append("rows") or rows(*a, **k))
    return names


def operands():
    return torch.randn(3, 1, 1, 5, 16, generator=torch.Generator().manual_seed(0)).to(DEVICE).unbind()


def test_calls_that_name_none_take_it(served):
    query, key, value = operands()
    usual = "triton" if query.is_cuda else "reference"
    with implementation("triton"):
        entmax_attention(query, key, value)
        nn.EntmaxAttention()(query, key, value)
        entmax_attention(query, key, value, impl="reference")
        with implementation("reference"):
            entmax_attention(query, key, value)
            entmax(query)
        entmax(query)
        entmax_loss(query[0, 0], torch.zeros(5, dtype=torch.int64, device=DEVICE))
    entmax_attention(query, key, value)
    assert served == ["triton", "triton", "reference", "reference", "rows", "rows", usual]


def test_it_ends_with_an_error_and_decorates():
    query, key, value = operands()

    @implementation("triton")
    def attend(*all):
        return entmax_attention(*all, alpha=2.5)

    for _ in range(2):
        with pytest.raises(ValueError, match="alpha"):
            attend(query, key, value)
    if not query.is_cuda:
        assert entmax_attention(query, key, value, alpha=2.5).isfinite().all()


def test_a_compiled_function_is_compiled_for_each(served):
    query, key, value = operands()
    compiled = torch.compile(entmax_attention, backend="eager", fullgraph=True)
    outs = []
    for name in ("reference", "triton", "reference"):
        with implementation(name):
            outs.append(compiled(query, key, value))
    assert torch.equal(outs[0], outs[2]) and not torch.equal(outs[0], outs[1])
    torch.testing.assert_close(outs[0], outs[1])


def test_another_name_is_told():
    with pytest.raises(ValueError, match="name must be 'triton' or 'reference', got 'cuda'"), implementation("cuda"):
        pass
