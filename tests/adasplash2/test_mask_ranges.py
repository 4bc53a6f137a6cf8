"""Is a mask told from one that is a range of keys for each query, and do the kernels take those that are?"""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from profiles import examples
from staged import DEVICE

from adasplash2 import entmax_attention
from adasplash2.mask_ranges import of_mask, of_rows

BATCH, HEADS, N_QUERIES, N_KEYS = 2, 2, 20, 26
LOWEST = torch.finfo(torch.float32).min


def bits_of(shape):
    size = int(np.prod(shape))
    return st.lists(st.booleans(), min_size=size, max_size=size).map(lambda bits: np.array(bits, bool).reshape(shape))


masks = st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(0, 6), st.integers(0, 7)).flatmap(bits_of)


@examples(200)
@example(visible=np.array([[[[1, 0, 1]]]], bool))
@example(visible=np.array([[[[0, 1, 1]]], [[[0, 0, 0]]]], bool))
@example(visible=np.array([[[[0, 1]], [[1, 1]]]], bool))
@given(visible=masks)
def test_ranges_are_told_from_other_masks(visible):
    mask = torch.from_numpy(visible)
    shape = visible.shape
    rows = [np.flatnonzero(row) for item in visible[:, 0] for row in item]
    no_gap = all(row.size == 0 or row[-1] - row[0] + 1 == row.size for row in rows)
    ranges, are_ranges = of_rows(lambda begin, end: mask[:, 0, begin:end], shape[0], *shape[2:])
    assert bool(are_ranges) == no_gap and ranges.dtype == torch.int32
    if no_gap:
        wanted = [[row[0], row[-1] + 1] if row.size else [0, 0] for row in rows]
        assert ranges.reshape(-1, 2).tolist() == wanted
    served = no_gap and bool((visible == visible[:, :1]).all())
    additive = (torch.zeros(shape).masked_fill(~mask, hidden) for hidden in (LOWEST, -torch.inf))
    for form in (mask, *additive):
        if served:
            assert torch.equal(of_mask("test", form, shape[-1]), ranges)
        else:
            with pytest.raises(ValueError, match="test: attn_mask of shape"):
                of_mask("test", form, shape[-1])


def test_long_masks_are_looked_at_in_chunks(monkeypatch):
    monkeypatch.setattr("adasplash2.mask_ranges._CHUNK", 64)
    mask = torch.ones(3, 1, 50, 40, dtype=torch.bool).tril(-3)
    assert of_mask("test", mask, 40)[0].tolist() == [[0, max(0, min(40, row - 2))] for row in range(50)]
    mask[1, 0, 41, 7] = False
    with pytest.raises(ValueError, match="a gap between them"):
        of_mask("test", mask, 40)


def some_masks():
    """Return masks of every form, each with what else it is passed with."""
    index = torch.arange(N_QUERIES)[:, None], torch.arange(N_KEYS)
    causal = index[1] <= index[0] + 6
    lengths = torch.tensor([N_KEYS, 9])[:, None, None, None]
    right, left = index[1] < lengths, index[1] >= N_KEYS - lengths
    documents = (index[0] // 7) == (index[1] // 9)
    return {
        "padding": (right, {}),
        "padding on the left": (left, {}),
        "causal": (causal, {}),
        "causal and padding": (causal & right, {}),
        "documents for each head": (documents.expand(BATCH, HEADS, -1, -1), {}),
        "copied for each head": (causal.repeat(HEADS, 1, 1), {}),
        "no query of some": (index[0] < 9, {}),
        "lowest": (torch.zeros(causal.shape).masked_fill(~causal, LOWEST), {}),
        "infinite": (torch.zeros(BATCH, 1, 1, N_KEYS).masked_fill(~left, -torch.inf), {}),
        "with a window": (right, {"window_size": (8, 0)}),
        "with lengths": (causal, {"seqlens_k": torch.tensor([20, 3])}),
    }


def operands(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((HEADS, N_QUERIES), (1, N_KEYS), (1, N_KEYS), (HEADS, N_QUERIES))
    return [2 * torch.randn(BATCH, *shape, 16, generator=generator).to(DEVICE) for shape in shapes]


def answers(mask, impl, **options):
    *inputs, d_out = operands()
    inputs = [tensor.requires_grad_() for tensor in inputs]
    options = {name: some.to(DEVICE) if isinstance(some, torch.Tensor) else some for name, some in options.items()}
    out = entmax_attention(*inputs, mask, enable_gqa=True, impl=impl, **options)
    return [out, *torch.autograd.grad(out, inputs, d_out)]


@pytest.mark.parametrize("kind", some_masks())
def test_the_kernels_take_masks_that_are_ranges(kind):
    mask, options = some_masks()[kind]
    found = answers(mask.to(DEVICE), "triton", **options)
    wanted = answers(mask.to(DEVICE), "reference", **options)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_other_masks_are_refused_by_the_kernels():
    hole = torch.ones(N_QUERIES, N_KEYS, dtype=torch.bool)
    hole[3, 5] = False
    by_head = torch.ones(HEADS, N_QUERIES, N_KEYS, dtype=torch.bool)
    by_head[1, :, 20:] = False
    bias = torch.linspace(0, 1, N_KEYS).expand(N_QUERIES, -1)
    for mask in (hole, by_head, bias, torch.full((1, N_KEYS), torch.nan)):
        with pytest.raises(ValueError, match="one range of keys"):
            answers(mask.to(DEVICE), "triton")
    with pytest.raises(ValueError, match="requires grad"):
        answers(torch.zeros(N_QUERIES, N_KEYS, device=DEVICE).requires_grad_(), "triton")


def test_a_compiled_call_takes_them_too():
    def attend(query, key, value, mask):
        return entmax_attention(query, key, value, mask, enable_gqa=True, impl="triton")

    *inputs, _ = operands()
    compiled = torch.compile(attend, backend="aot_eager", fullgraph=True)
    for kind in ("causal and padding", "infinite"):
        mask = some_masks()[kind][0].to(DEVICE)
        torch.testing.assert_close(compiled(*inputs, mask), attend(*inputs, mask))
    with pytest.raises(RuntimeError, match="a gap between them"):
        hole = some_masks()["causal and padding"][0].clone()
        hole[0, 0, :, 3] = False
        compiled(*inputs, hole.to(DEVICE))
