"""Do torch's transforms go through the row-wise maps: derivatives of every order and mode, vmap, compiled graphs?"""

import numpy as np
import pytest
import torch
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

import entmax_ref
from adasplash2 import entmax
from adasplash2.reference.rows import _rows

ALPHAS = (1.0001, 1.25, 1.5, 1.75, 2.0, 2.5)
each_alpha = pytest.mark.parametrize("alpha", ALPHAS)
# Some hundred roundings of sums of a few terms, of numbers up to 8.
CLOSE = 256 * 2.0**-53 * 8.0


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orders(alpha, *shape):
    return torch.full(shape, alpha, dtype=torch.float64)


@each_alpha
@pytest.mark.parametrize("shape", [(), (3, 1)])
def test_first_and_second_derivatives_against_finite_differences(alpha, shape):
    leaves = draw(3, 5).requires_grad_(), orders(alpha, *shape).requires_grad_()
    assert torch.autograd.gradcheck(
        entmax, leaves, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )
    assert torch.autograd.gradgradcheck(
        entmax, leaves, check_fwd_over_rev=True, check_rev_over_rev=True, check_batched_grad=True
    )


@pytest.mark.parametrize("alpha", [1.25, 1.4])
def test_third_derivatives_against_finite_differences(alpha):
    vectors = [draw(5, seed=seed) for seed in (1, 2, 3)]

    def second(scores, order):
        (first,) = torch.autograd.grad(entmax(scores, order) @ vectors[0], scores, create_graph=True)
        (found,) = torch.autograd.grad(first @ vectors[1], scores, create_graph=True)
        return found @ vectors[2]

    assert torch.autograd.gradcheck(second, (draw(5).requires_grad_(), orders(alpha).requires_grad_()))


@each_alpha
def test_second_order_products_are_the_oracle_s(alpha):
    scores, one, other = draw(6, seed=1), draw(6, seed=2), draw(6, seed=3)
    _, found = jvp(lambda x: grad(lambda y: entmax(y, alpha) @ one)(x), (scores,), (other,))
    wanted = entmax_ref.entmax_second(scores.numpy(), one.numpy(), other.numpy(), alpha)
    gap = np.abs((alpha - 1.0) * scores.numpy() - entmax_ref.threshold(scores.numpy(), alpha)).min()
    assert np.abs(found.numpy() - wanted).max() <= CLOSE / min(gap, 1.0) ** 2


@each_alpha
def test_jacobians_of_both_modes_are_the_oracle_s(alpha):
    scores, order = draw(6, seed=4), orders(alpha)
    wanted = entmax_ref.entmax_jacobian(scores.numpy(), alpha)
    by_alpha = entmax_ref.entmax_alpha_grad(scores.numpy(), alpha)
    for mode in (jacrev, jacfwd):
        of_scores, of_alpha = mode(entmax, argnums=(0, 1))(scores, order)
        assert np.abs(of_scores.numpy() - wanted).max() <= CLOSE
        assert np.abs(of_alpha.numpy() - by_alpha).max() <= 200 * CLOSE
    forward, reverse = (
        mode(lambda x: (entmax(x, alpha) * scores).sum()) for mode in (hessian, lambda f: jacrev(jacrev(f)))
    )
    assert (forward(scores) - reverse(scores)).abs().max() <= 1e3 * CLOSE


def test_vmap_over_scores_and_alpha():
    scores, alpha = draw(3, 4, 6), torch.tensor([1.25, 1.5, 2.0], dtype=torch.float64)
    wanted = torch.stack([entmax(part, order) for part, order in zip(scores, alpha, strict=True)])
    assert torch.equal(vmap(entmax)(scores, alpha), wanted)
    assert torch.equal(vmap(entmax, in_dims=(1, 0), out_dims=1)(scores.movedim(0, 1), alpha), wanted.movedim(0, 1))
    assert torch.equal(vmap(lambda part: entmax(part, dim=0))(scores), entmax(scores, dim=1))
    wanted = torch.stack([entmax(scores[0], order) for order in alpha])
    assert torch.equal(vmap(entmax, in_dims=(None, 0))(scores[0], alpha), wanted)
    per_sample = vmap(grad(lambda part, order: entmax(part, order).square().sum(), argnums=(0, 1)))(scores, alpha)
    for index in range(3):
        leaves = scores[index].clone().requires_grad_(), alpha[index].clone().requires_grad_()
        single = torch.autograd.grad(entmax(*leaves).square().sum(), leaves)
        for found, expected in zip(per_sample, single, strict=True):
            assert (found[index] - expected).abs().max() <= CLOSE


@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(requires_grad):
    scores, alpha = draw(2, 3, 7).requires_grad_(requires_grad), orders(1.5, 1, 3, 1).requires_grad_(requires_grad)
    torch.library.opcheck(_rows, (scores, alpha))


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_compiled_graph_has_no_break(dynamic):
    def function(scores, alpha):
        return entmax(scores, alpha) + entmax(scores, 2.0, dim=0)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for n in (6, 9):
        leaves = draw(4, n, seed=n).float().requires_grad_(), orders(1.5, 4, 1).float().requires_grad_()
        found, wanted = compiled(*leaves), function(*leaves)
        assert torch.equal(found, wanted)
        vector = draw(4, n, seed=1).float()
        for one, other in zip(
            torch.autograd.grad(found, leaves, vector), torch.autograd.grad(wanted, leaves, vector), strict=True
        ):
            assert (one - other).abs().max() <= 2.0**-24 * 8.0


def test_shapes_without_storage():
    meta = torch.empty(3, 4, device="meta", dtype=torch.bfloat16)
    found = entmax(meta, torch.empty(3, 1, device="meta"))
    assert found.shape == meta.shape and found.dtype == meta.dtype and found.is_meta
