"""Do torch's transforms go through the eager path: each against finite differences, a loop, or autograd, in float64?"""

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp

from adasplash2 import entmax_attention
from adasplash2.reference import reference_attention

ALPHAS = (1.01, 1.25, 1.5, 2.0, 2.5)
each_alpha = pytest.mark.parametrize("alpha", ALPHAS)
ALL = (0, 1, 2, 3)


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def operands():
    """Return query, key, value and an additive mask: two query heads share one key head, and values are narrower."""
    return draw(1, 2, 3, 4, seed=1), draw(1, 1, 5, 4, seed=2), draw(1, 1, 5, 3, seed=3), draw(1, 5, seed=4)


def attend(query, key, value, mask=None, *, alpha=1.5):
    return entmax_attention(query, key, value, mask, alpha=alpha, enable_gqa=True, impl="reference")


def loss(*leaves, alpha=1.5):
    return attend(*leaves, alpha=alpha).square().sum()


def leaves_of(*tensors):
    return [tensor.clone().requires_grad_() for tensor in tensors]


def gradients(*tensors, alpha=1.5):
    leaves = leaves_of(*tensors)
    return torch.autograd.grad(loss(*leaves, alpha=alpha), leaves)


def close(found, expected):
    """Compare results that differ by the order of some sums of a few terms."""
    return all(
        (a - b).abs().max() <= 256 * 2.0**-53 * (1.0 + b.abs().max()) for a, b in zip(found, expected, strict=True)
    )


@each_alpha
def test_every_order_and_mode_against_finite_differences(alpha):
    leaves = leaves_of(*operands())

    def function(*leaves):
        return attend(*leaves, alpha=alpha)

    assert torch.autograd.gradcheck(
        function, leaves, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )
    assert torch.autograd.gradgradcheck(
        function, leaves, check_fwd_over_rev=True, check_rev_over_rev=True, check_batched_grad=True
    )


@each_alpha
def test_a_tangent_can_be_differentiated(alpha):
    leaves, along = leaves_of(*operands()), [torch.full_like(x, 0.5) for x in operands()]

    def function(*leaves):
        return jvp(lambda *x: attend(*x, alpha=alpha), tuple(leaves), tuple(along))[1]

    assert torch.autograd.gradcheck(function, leaves)


def test_causal_masks_and_boolean_masks_take_every_mode():
    query, key, value, _ = operands()
    hidden = draw(3, 5, seed=5) > 0.5
    for mask, is_causal in ((~hidden, False), (None, True), (~hidden, True)):

        def function(query, key, value, mask=mask, is_causal=is_causal):
            return reference_attention(query, key, value, attn_mask=mask, is_causal=is_causal, alpha=1.5, scale=0.7).out

        leaves = leaves_of(query, key, value)
        assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(function, leaves, check_fwd_over_rev=True)


@each_alpha
def test_grad_vjp_and_jvp_are_those_of_autograd(alpha):
    tensors = operands()
    expected = gradients(*tensors, alpha=alpha)
    assert close(grad(lambda *x: loss(*x, alpha=alpha), argnums=ALL)(*tensors), expected)
    out, pull = vjp(lambda *x: attend(*x, alpha=alpha), *tensors)
    assert close(pull(2.0 * out), expected)
    along = [draw(*x.shape, seed=9 + i) for i, x in enumerate(tensors)]
    _, tangent = jvp(lambda *x: loss(*x, alpha=alpha), tensors, tuple(along))
    assert close([tangent], [sum((a * b).sum() for a, b in zip(along, expected, strict=True))])


def test_tangents_of_some_operands():
    tensors = operands()
    jacobians = jacrev(attend, argnums=ALL)(*tensors)
    for place, (tensor, jacobian) in enumerate(zip(tensors, jacobians, strict=True)):
        along = draw(*tensor.shape, seed=7)

        def of_one(x, place=place):
            return attend(*tensors[:place], x, *tensors[place + 1 :])

        _, tangent = jvp(of_one, (tensor,), (along,))
        assert close([tangent], [torch.tensordot(jacobian, along, tensor.dim())])


@each_alpha
def test_jacobians_and_hessians_agree_however_they_are_composed(alpha):
    tensors = operands()

    def function(*x):
        return attend(*x, alpha=alpha)

    def scalar(*x):
        return loss(*x, alpha=alpha)

    assert close(jacfwd(function, argnums=ALL)(*tensors), jacrev(function, argnums=ALL)(*tensors))
    one = torch.autograd.functional.hessian(scalar, tensors)
    for composed in (hessian(scalar, ALL), jacrev(jacrev(scalar, ALL), ALL), jacrev(jacfwd(scalar, ALL), ALL)):
        for found, expected in zip(composed(*tensors), one, strict=True):
            assert close(found, expected)


@pytest.mark.parametrize("in_dims", [(0, 0, 0, 0), (1, 0, 2, 1), (0, None, None, None), (None, None, 1, 0)], ids=str)
@pytest.mark.parametrize("alpha", [1.25, 1.5])
def test_vmap_is_a_loop(in_dims, alpha):
    query, key, value, mask = operands()
    # two items in the batch beside one mask for both, so that the mask broadcasts over the folded batch
    tensors = [torch.cat([x, 0.5 * x]) for x in (query, key, value)] + [mask]
    mapped = [x if dim is None else torch.stack([x, 2.0 * x, -x], dim) for x, dim in zip(tensors, in_dims, strict=True)]
    each = [[x] * 3 if dim is None else x.unbind(dim) for x, dim in zip(mapped, in_dims, strict=True)]
    found = torch.vmap(lambda *x: attend(*x, alpha=alpha), in_dims)(*mapped)
    assert close(found, [attend(*one, alpha=alpha) for one in zip(*each, strict=True)])
    found = torch.vmap(grad(lambda *x: loss(*x, alpha=alpha), argnums=ALL), in_dims)(*mapped)
    expected = [gradients(*one, alpha=alpha) for one in zip(*each, strict=True)]
    assert close(found, [torch.stack(parts) for parts in zip(*expected, strict=True)])


def test_vmap_maps_the_report_and_nests():
    query, key, value, mask = operands()
    queries = torch.stack([query, 3.0 * query])
    options = {"alpha": 1.5, "is_causal": False, "scale": 0.7, "attn_mask": mask}
    found = torch.vmap(lambda q: tuple(reference_attention(q, key, value, **options)))(queries)
    each = [reference_attention(q, key, value, **options) for q in queries]
    for part, expected in zip(found, zip(*each, strict=True), strict=True):
        assert torch.equal(part, torch.stack(expected))
    nested = torch.vmap(torch.vmap(attend, (0, None, None)), (None, 0, 0))
    found = nested(queries, torch.stack([key, -key]), torch.stack([value, value]))
    assert close(found[1], [attend(q, -key, value) for q in queries])


def test_vmap_grows_the_candidates_of_some_rows_only():
    """The search for the support loops until every row is proven, which no mapped tensor may decide."""
    query, key = draw(3, 1, 1, 2, 1, seed=1), torch.linspace(-1.0, 1.0, 700, dtype=torch.float64)[None, None, :, None]
    query[1] *= 0.01
    value = draw(1, 1, 700, 2, seed=2)
    for alpha in (1.05, 1.25, 1.5):
        found = torch.vmap(lambda q, alpha=alpha: attend(q, key, value, alpha=alpha))(query)
        assert close(found, [attend(q, key, value, alpha=alpha) for q in query])


def test_what_is_missing_is_named():
    tensors = operands()
    with pytest.raises(NotImplementedError, match="third derivatives"):
        jacrev(jacrev(jacrev(loss)))(*tensors)
    with pytest.raises(NotImplementedError, match=r"forward-mode derivative of a forward-mode.*hessian"):
        jacfwd(jacfwd(loss))(*tensors)


def test_compiled_graphs_have_no_break():
    leaves = leaves_of(*operands())
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    out, expected = compiled(*leaves), attend(*leaves)
    assert torch.equal(out, expected)
    found = torch.autograd.grad(out.sum(), leaves)
    assert all(torch.equal(a, b) for a, b in zip(found, torch.autograd.grad(expected.sum(), leaves), strict=True))


TRANSFORMED = {
    "jvp": lambda q, k, v, m: jvp(lambda x: attend(x, k, v, m), (q,), (q,))[1],
    "grad": lambda q, k, v, m: grad(lambda x: loss(x, k, v, m))(q),
    "vmap": lambda q, k, v, m: torch.vmap(lambda x: attend(x, k, v, m))(q[None]),
    "hessian": lambda q, k, v, m: hessian(lambda x: loss(x, k, v, m))(q),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transforms_in_a_compiled_function(name):
    torch.compiler.reset()
    compiled = torch.compile(TRANSFORMED[name], backend="aot_eager")
    assert close([compiled(*operands())], [TRANSFORMED[name](*operands())])


def test_a_compiled_function_keeps_tangents():
    query, key, value, mask = operands()
    torch.compiler.reset()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(query, query)
        out = torch.compile(attend, backend="aot_eager")(dual, key, value, mask)
        tangent = forward_ad.unpack_dual(out).tangent
    assert close([tangent], [jvp(lambda x: attend(x, key, value, mask), (query,), (query,))[1]])


class Model(torch.nn.Module):
    def forward(self, query, key, value):
        return attend(query, key, value)


def test_export_with_a_length_that_varies():
    length = torch.export.Dim("length", min=2, max=10_000)
    example = tuple(draw(1, 1, 70, 4, seed=seed) for seed in range(3))
    program = torch.export.export(Model(), example, dynamic_shapes=({2: length},) * 3)
    for n in (3, 200):
        tensors = tuple(draw(1, 1, n, 4, seed=seed) for seed in range(3))
        assert torch.equal(program.module()(*tensors), attend(*tensors))
