"""Are jagged nested tensors attended to sequence by sequence, and come back jagged, with their gradients?"""

import pytest
import torch
from staged import DEVICE

from adasplash2 import entmax_attention

QUERIES, KEYS = (3, 0, 20, 7), (5, 4, 20, 0)
on_paths = pytest.mark.parametrize("impl", ["reference", "triton"])


def parts(lengths, heads=2, head_dim=16, seed=0):
    """Return sequences (length, heads, head_dim), each with its own memory."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, heads, head_dim, generator=generator).to(DEVICE) for n in lengths]


def jagged(sequences, requires_grad=False):
    """Return sequences as (batch, heads, jagged length, head_dim)."""
    tensor = torch.nested.as_nested_tensor([part.detach() for part in sequences], layout=torch.jagged)
    return tensor.detach().requires_grad_(requires_grad)


@on_paths
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"window_size": (2, 1)}], ids=str)
def test_each_sequence_is_attended_to_alone(options, impl):
    given = [parts(QUERIES, 4, seed=1), parts(KEYS, seed=2), parts(KEYS, seed=3)]
    leaves = [jagged(one, requires_grad=True) for one in given]
    operands = [leaf.transpose(1, 2) for leaf in leaves]
    options = {"enable_gqa": True, "alpha": 1.5, "impl": impl, **options}
    out, aux = entmax_attention(*operands, return_aux=True, **options)
    assert out.is_nested and out.layout == torch.jagged and out.shape == operands[0].shape
    assert aux.tau.shape == out.values().shape[:-1]
    d_out = parts(QUERIES, 4, seed=4)
    out.backward(torch.nested.nested_tensor_from_jagged(torch.cat(d_out), out.offsets()).transpose(1, 2))
    found = [leaf.grad.unbind() for leaf in leaves]
    for item, one in enumerate(out.unbind()):
        alone = [part[item].transpose(0, 1)[None].clone().requires_grad_() for part in given]
        wanted = entmax_attention(*alone, **options)
        torch.testing.assert_close(one, wanted[0])
        grads = torch.autograd.grad(wanted, alone, d_out[item].transpose(0, 1)[None])
        for mine, grad in zip(found, grads, strict=True):
            torch.testing.assert_close(mine[item].transpose(0, 1), grad[0])


def test_without_heads_and_with_an_alpha_for_each_head():
    query, key, value = (jagged([part[:, 0] for part in parts(KEYS, seed=seed)]) for seed in range(3))
    out = entmax_attention(query, key, value, impl="reference")
    assert out.shape == query.shape
    dense = [tensor.unbind()[2] for tensor in (query, key, value)]
    torch.testing.assert_close(out.unbind()[2], entmax_attention(*dense, impl="reference"))
    heads = [jagged(parts(KEYS, seed=seed)).transpose(1, 2) for seed in range(3)]
    alpha = torch.tensor([1.25, 1.75], device=DEVICE)
    out = entmax_attention(*heads, alpha=alpha, impl="reference")
    dense = [tensor.unbind()[2] for tensor in heads]
    torch.testing.assert_close(out.unbind()[2], entmax_attention(*dense, alpha=alpha, impl="reference"))


def test_what_lies_between_sequences_is_not_read():
    base = [torch.full((3, 9, 2, 16), torch.nan, device=DEVICE) for _ in range(3)]
    starts, lengths = torch.tensor([0, 2, 1], device=DEVICE), torch.tensor([4, 7, 0], device=DEVICE)
    for seed, one in enumerate(base):
        for item, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
            one[item, start : start + length] = parts([length], seed=seed)[0]
    holes = [torch.nested.narrow(one, 1, starts, lengths, layout=torch.jagged).transpose(1, 2) for one in base]
    out = entmax_attention(*holes, impl="reference")
    whole = [jagged(parts(lengths.tolist(), seed=seed)).transpose(1, 2) for seed in range(3)]
    assert [part.shape for part in out.unbind()] == [part.shape for part in whole[0].unbind()]
    assert all(part.isfinite().all() for part in out.unbind())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    "change, options, error, message",
    [
        (lambda q, k, v: (q, k.values(), v), {}, TypeError, "key is no nested tensor; query, key and value must all"),
        (lambda q, k, v: (q, k, None), {}, TypeError, "value must be a torch.Tensor, got NoneType"),
        (lambda q, k, v: (q.transpose(1, 2), k, v), {}, ValueError, r"query .*jagged in dimension 1; .*transpose"),
        (lambda q, k, v: (q, jagged(parts((2, 3))).transpose(1, 2), v), {}, ValueError, "key has .*2 sequences"),
        (lambda q, k, v: (q, k, jagged(parts((5, 4, 19, 1))).transpose(1, 2)), {}, ValueError, "key and value differ"),
        (
            lambda q, k, v: (torch.nested.nested_tensor(parts(QUERIES), layout=torch.strided), k, v),
            {}, TypeError, "query is a nested tensor of torch.strided; .*layout=torch.jagged",
        ),
        (lambda *all: all, {"attn_mask": torch.ones(2, 2, dtype=torch.bool)}, ValueError, "attn_mask is given beside"),
        (lambda *all: all, {"seqlens_k": torch.tensor([1])}, ValueError, "seqlens_k is given beside nested tensors"),
        (lambda *all: all, {"is_causal": 1}, TypeError, "is_causal must be True or False, got 1 of type int"),
        (lambda *all: all, {"alpha": 1.0}, ValueError, "alpha is 1.0, and 1 is softmax"),
    ],
    ids=[str(number) for number in range(10)],
)  # fmt: skip
def test_what_does_not_fit_is_told(change, options, error, message):
    operands = (jagged(parts(lengths)).transpose(1, 2) for lengths in (QUERIES, KEYS, KEYS))
    with pytest.raises(error, match=message):
        entmax_attention(*change(*operands), **options)


def test_a_nested_mask_is_told():
    query = torch.zeros(2, 3, 16, device=DEVICE)
    with pytest.raises(TypeError, match="attn_mask is a nested tensor; only query, key and value may be"):
        entmax_attention(query, query, query, jagged([torch.zeros(3, 3), torch.zeros(2, 3)]))
