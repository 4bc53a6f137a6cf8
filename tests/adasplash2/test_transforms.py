"""Do torch's transforms go through the kernels: vmap, reverse mode, compiled and exported graphs; or say why not?"""

import pytest
import torch
from staged import DEVICE
from torch._subclasses.fake_tensor import FakeTensorMode

from adasplash2 import entmax_attention

LENGTH, HEAD_DIM = 5, 8


def draw(*lead, seed=0, length=LENGTH):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*lead, length, HEAD_DIM, generator=generator).to(DEVICE)


def attend(query, key, value, **options):
    return entmax_attention(query, key, value, is_causal=True, impl="triton", **options)


def loss(query, key, value):
    return attend(query, key, value).square().sum()


def gradients(query, key, value):
    leaves = [tensor.detach().requires_grad_() for tensor in (query, key, value)]
    return torch.autograd.grad(loss(*leaves), leaves)


def equal(found, expected):
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("in_dims", [(0, 0, 0), (1, 0, 2), (0, None, None), (None, 2, 2), (None, None, 1)], ids=str)
def test_vmap_is_a_loop(in_dims):
    operands = [draw(1, 2, seed=seed) for seed in range(3)]
    mapped = [x if dim is None else torch.stack([x, x * 2.0], dim) for x, dim in zip(operands, in_dims, strict=True)]
    found = torch.vmap(attend, in_dims)(*mapped)
    slices = zip(
        *([x] * 2 if dim is None else x.unbind(dim) for x, dim in zip(mapped, in_dims, strict=True)), strict=True
    )
    assert torch.equal(found, torch.stack([attend(*one) for one in slices]))


class Marked(torch.Tensor):
    """A subclass that sees every operator called on it."""

    seen = ()

    @staticmethod
    def __new__(cls, tensor):
        return torch.Tensor._make_wrapper_subclass(cls, tensor.shape, dtype=tensor.dtype, device=tensor.device)

    def __init__(self, tensor):
        self.tensor = tensor

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), named=None):
        Marked.seen += (str(function),)
        return function(*(x.tensor if isinstance(x, Marked) else x for x in arguments), **(named or {}))


class Noted(torch.utils._python_dispatch.TorchDispatchMode):
    """A mode that sees every operator called under it."""

    def __init__(self):
        super().__init__()
        self.seen = ()

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        self.seen += (str(function),)
        return function(*arguments, **(named or {}))


def test_what_looks_at_operators_sees_ours():
    """The short way, past the dispatcher, is for calls that nothing looks at."""
    operands = [draw(1, 2, seed=seed) for seed in range(3)]
    expected = attend(*operands)
    with torch.no_grad():
        assert torch.equal(attend(*map(Marked, operands)), expected)
    assert "adasplash2.attention.default" in Marked.seen
    with Noted() as mode:
        assert all(map(torch.equal, gradients(*operands), gradients(*operands)))
    assert {"adasplash2.attention.default", "adasplash2.attention_backward.default"} <= set(mode.seen)


def test_a_negation_that_waits_is_carried_out():
    parts = [torch.complex(draw(1, 2, seed=seed), draw(1, 2, seed=seed + 3)).conj().imag for seed in range(3)]
    assert all(part.is_neg() for part in parts)
    assert torch.equal(attend(*parts), attend(*(part.resolve_neg() for part in parts)))


def test_vmap_maps_the_report():
    query, key, value = draw(2, 1, 1, length=70), draw(1, 1, seed=1, length=70), draw(1, 1, seed=2, length=70)
    out, aux = torch.vmap(lambda q: attend(q, key, value, return_aux=True))(query)
    for index, one in enumerate(query):
        expected, report = attend(one, key, value, return_aux=True)
        assert torch.equal(out[index], expected)
        assert all(torch.equal(found[index], part) for found, part in zip(aux, report, strict=True))
    assert aux.skipped.shape == (2,)


def test_vmap_in_vmap():
    operands = [draw(2, 2, 1, 1, seed=seed) for seed in range(3)]
    found = torch.vmap(torch.vmap(attend))(*operands)
    assert torch.equal(found, attend(*(x.flatten(0, 2) for x in operands)).view_as(operands[0]))


def test_grad_and_vjp_are_those_of_autograd():
    operands = [draw(1, 2, seed=seed) for seed in range(3)]
    assert equal(torch.func.grad(loss, argnums=(0, 1, 2))(*operands), gradients(*operands))
    out, vjp = torch.func.vjp(attend, *operands)
    assert equal(vjp(2.0 * out), gradients(*operands))


def test_gradients_per_sample():
    operands = [draw(2, 1, 1, seed=seed) for seed in range(3)]
    found = torch.vmap(torch.func.grad(loss, argnums=(0, 1, 2)))(*operands)
    expected = [
        torch.stack(parts) for parts in zip(*(gradients(*one) for one in zip(*operands, strict=True)), strict=True)
    ]
    assert equal(found, expected)
    query, key, value = operands[0], operands[1][0], operands[2][0]
    found = torch.vmap(torch.func.grad(loss, argnums=(0, 1, 2)), (0, None, None))(query, key, value)
    assert equal(found, [torch.stack(x) for x in zip(*(gradients(one, key, value) for one in query), strict=True)])


@pytest.mark.parametrize("argument", [0, 1, 2])
def test_jacrev_stacks_the_rows_of_autograd(argument):
    operands = [draw(1, 1, seed=seed) for seed in range(3)]
    found = torch.func.jacrev(attend, argnums=argument)(*operands)
    leaf = operands[argument].requires_grad_()
    out = attend(*operands)
    rows = [torch.autograd.grad(part, leaf, retain_graph=True)[0] for part in out.flatten()]
    assert torch.equal(found.flatten(0, 3), torch.stack(rows))


def test_gradients_of_autograd_in_batches():
    query, key, value = (draw(1, 1, seed=seed) for seed in range(3))
    leaf = query.clone().requires_grad_()
    out, weights = attend(leaf, key, value), draw(3, 1, 1, seed=5)
    (found,) = torch.autograd.grad(out, leaf, weights, is_grads_batched=True, retain_graph=True)
    rows = [torch.autograd.grad(out, leaf, weight, retain_graph=True)[0] for weight in weights]
    assert torch.equal(found, torch.stack(rows))


def dual(query, key, value):
    with torch.autograd.forward_ad.dual_level():
        return attend(torch.autograd.forward_ad.make_dual(query, query), key, value)


FORWARD_MODE = {
    "jvp": lambda q, k, v: torch.func.jvp(attend, (q, k, v), (q, k, v)),
    "jvp of the value": lambda q, k, v: torch.func.jvp(lambda x: attend(q, k, x), (v,), (v,)),
    "jacfwd": lambda q, k, v: torch.func.jacfwd(attend)(q, k, v),
    "dual numbers": dual,
    "functional": lambda q, k, v: torch.autograd.functional.jacobian(
        lambda x: attend(x, k, v), q, vectorize=True, strategy="forward-mode"
    ),
    "hessian": lambda q, k, v: torch.func.hessian(loss)(q, k, v),
    "vmap of jvp": lambda q, k, v: torch.vmap(lambda x: torch.func.jvp(attend, (x, k, v), (x, k, v)))(q[None]),
    "grad of jvp": lambda q, k, v: torch.func.grad(lambda x: torch.func.jvp(attend, (x, k, v), (x, k, v))[1].sum())(q),
    "jvp of vjp": lambda q, k, v: torch.func.jvp(torch.func.vjp(attend, q, k, v)[1], (q,), (q,)),
    "grad leaf": lambda q, k, v: dual(q.clone().requires_grad_(), k, v),
}


@pytest.mark.parametrize("name", FORWARD_MODE)
def test_forward_mode_is_refused(name):
    with pytest.raises(RuntimeError, match=r"forward-mode derivative.*reverse mode only.*impl='reference'"):
        FORWARD_MODE[name](*(draw(1, 1, seed=seed) for seed in range(3)))


def test_forward_mode_is_refused_when_compiled():
    compiled = torch.compile(lambda q, k, v: torch.func.jvp(attend, (q, k, v), (q, k, v)), backend="aot_eager")
    with pytest.raises(RuntimeError, match="forward-mode derivative"):
        compiled(*(draw(1, 1, seed=seed) for seed in range(3)))


def test_a_tangent_of_something_else_is_none_of_our_business():
    query, key, value = (draw(1, 1, seed=seed) for seed in range(3))
    out, tangent = torch.func.jvp(lambda x: attend(query, key, value) * x, (torch.tensor(2.0),), (torch.tensor(1.0),))
    assert torch.equal(out, 2.0 * tangent) and torch.equal(tangent, attend(query, key, value))


SECOND = {
    "torch.func": lambda q, k, v: torch.func.jacrev(torch.func.jacrev(loss))(q, k, v),
    "functional": lambda q, k, v: torch.autograd.functional.hessian(lambda x: loss(x, k, v), q),
}


@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives_are_refused(name):
    with pytest.raises(RuntimeError, match=r"gradient of a gradient.*impl='reference'"):
        SECOND[name](*(draw(1, 1, seed=seed) for seed in range(3)))


@pytest.mark.parametrize("impl", ["triton", "reference"])
def test_compiled_graphs_have_no_break(impl):
    def plain(*operands):
        return entmax_attention(*operands, is_causal=True, impl=impl)

    def reported(*operands):
        return entmax_attention(*operands, is_causal=True, impl=impl, return_aux=True)[0]

    def mapped(*operands):
        return torch.vmap(plain)(*(operand[None] for operand in operands))[0]

    operands = [draw(1, 2, seed=seed).requires_grad_() for seed in range(3)]
    expected = plain(*operands)
    gradients = torch.autograd.grad(expected.square().sum(), operands)
    # an operator of the kernels has a rule for vmap; the reference path breaks the graph there
    for function in (plain, reported, mapped) if impl == "triton" else (plain, reported):
        out = torch.compile(function, fullgraph=True, backend="aot_eager")(*operands)
        assert torch.equal(out, expected) and equal(torch.autograd.grad(out.square().sum(), operands), gradients)
    compiled = torch.compile(torch.func.grad(lambda *x: plain(*x).square().sum(), (0, 1, 2)), backend="aot_eager")
    assert equal(compiled(*(operand.detach() for operand in operands)), gradients)


class Model(torch.nn.Module):
    def forward(self, query, key, value):
        return attend(query, key, value)


@pytest.mark.parametrize("lead", [(1, 1), (2, 1)])
def test_export_with_a_length_that_varies(lead):
    length = torch.export.Dim("length", min=2, max=100_000)
    operands = tuple(draw(*lead, seed=seed, length=70) for seed in range(3))
    program = torch.export.export(Model(), operands, dynamic_shapes=({2: length},) * 3)
    for n in (3, 130):
        operands = tuple(draw(*lead, seed=seed, length=n) for seed in range(3))
        assert torch.equal(program.module()(*operands), attend(*operands))


def test_export_with_two_lengths_and_a_batch_that_vary():
    batch, n_queries, n_keys = (torch.export.Dim(name, min=2, max=5000) for name in ("batch", "n_queries", "n_keys"))
    example = draw(3, 1, length=66), draw(3, 1, seed=1, length=70), draw(3, 1, seed=2, length=70)
    kv = {0: batch, 2: n_keys}
    program = torch.export.export(Model(), example, dynamic_shapes=({0: batch, 2: n_queries}, kv, kv))
    operands = draw(2, 1, length=3), draw(2, 1, seed=1, length=65), draw(2, 1, seed=2, length=65)
    assert torch.equal(program.module()(*operands), attend(*operands))


@pytest.mark.parametrize("impl", ["triton", "reference", None])
@pytest.mark.parametrize("shape", [(1, 2, 70, 8), (5, 8), (2, 1, 1, 5, 8), (2, 2, 0, 8)], ids=str)
def test_meta_and_fake_tensors_give_shapes(impl, shape):
    query, value = torch.zeros(shape), torch.zeros(*shape[:-1], 16)
    expected = entmax_attention(query.to(DEVICE), query.to(DEVICE), value.to(DEVICE), impl=impl, return_aux=True)

    def check(found):
        for part, real in zip((found[0], *found[1]), (expected[0], *expected[1]), strict=True):
            assert part.shape == real.shape and part.dtype == real.dtype

    meta = [tensor.to("meta").requires_grad_() for tensor in (query, query, value)]
    if impl is not None or DEVICE == "cpu":
        out, aux = entmax_attention(*meta, impl=impl, return_aux=True)
        check((out, aux))
        assert out.is_meta and torch.autograd.grad(out.sum(), meta)[2].shape == value.shape
    placed = [tensor.to(DEVICE) for tensor in (query, query, value)]
    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(tensor) for tensor in placed]
        check(entmax_attention(*fake, impl=impl, return_aux=True))
