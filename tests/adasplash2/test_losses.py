"""Is the loss the oracle's, with its gradients, for indices and distributions, any reduction, and under transforms?"""

import exact
import numpy as np
import pytest
import torch
from drawn import shifted_rows
from exact import U
from hypothesis import assume, given
from hypothesis import strategies as st
from profiles import examples
from staged import DEVICE
from torch.func import grad, hessian, jacrev, jvp, vmap

import entmax_ref
from adasplash2 import entmax, entmax_loss

ALPHAS = (1.0 + 1e-8, 1.001, 1.1, 1.5, 1.8, 2.0, 3.0)
each_alpha = pytest.mark.parametrize("alpha", ALPHAS)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def targets(*shape, seed=0):
    """Return an index for each row, and a distribution."""
    generator = torch.Generator().manual_seed(seed)
    soft = torch.rand(shape, generator=generator, dtype=torch.float64)
    soft = torch.where(soft < 0.5, 0.0, soft) + 2.0**-10
    return torch.randint(shape[-1], shape[:-1], generator=generator), soft / soft.sum(-1, keepdim=True)


@st.composite
def distributions(draw, n):
    """Return multiples of 2**-10 that sum to 1, so exactly a distribution, often with zeros."""
    cuts = sorted(draw(st.lists(st.integers(0, 1024), min_size=n - 1, max_size=n - 1)))
    return np.diff([0, *cuts, 1024]) / 1024


def loss_bound(scores, target, alpha):
    """Bound the error of a loss, None where first order will not do: as tests/entmax_ref/test_losses.py derives it.

    theta is here taken from the largest probability, whose relative error it has divided by its gap, and 3 U.
    """
    n, bounds = len(scores), exact.FirstOrder(scores, alpha)
    if not bounds.valid:
        return None
    wanted = float(exact.loss(scores, target, alpha))
    carried = np.sum(np.abs(bounds.probs - target) * bounds.gap * np.where(bounds.live, bounds.probs_error, 0.0))
    top = np.argmax(scores)
    depth = np.max(scores) - scores + np.log(n)  # theta <= log(n)
    logs = np.abs(np.log(np.where(target > 0, target, 1.0)))
    depth_error = 3 * U * depth + bounds.probs_error[top] * bounds.gap[top] + 6 * U
    outside = np.sum(target * (depth_error + 50 * U * (depth + logs + 2)))
    return 1.01 * (carried + outside + 50 * U * np.sum(bounds.probs)) + (n + 50) * U * wanted


@each_alpha
@examples(40)
@given(scores=shifted_rows(max_size=8), data=st.data())
def test_loss_against_its_definition(alpha, scores, data):
    n = len(scores)
    right = data.draw(st.integers(0, n - 1))
    for target in (data.draw(distributions(n)), np.eye(n)[right]):
        bound = loss_bound(scores, target, alpha)
        assume(bound is not None)
        wanted = exact.loss(scores, target, alpha)
        found = entmax_loss(torch.from_numpy(scores), torch.from_numpy(target), alpha)
        assert found >= 0.0 and exact.difference(found, wanted) <= bound
    by_index = entmax_loss(torch.from_numpy(scores), torch.tensor(right), alpha)
    assert by_index >= 0.0 and exact.difference(by_index, wanted) <= bound


@each_alpha
def test_gradients_are_the_oracle_s(alpha):
    scores = draw(6, 9, seed=1).requires_grad_()
    order = torch.full((6, 1), alpha, dtype=torch.float64, requires_grad=True)
    step = 2.0**-12
    for target in targets(6, 9):
        loss = entmax_loss(scores, target, order, "none")
        weights = torch.arange(1.0, 7.0, dtype=torch.float64)
        d_scores, d_alpha = torch.autograd.grad(loss, (scores, order), weights)
        arrays = scores.detach().numpy(), target.numpy()
        wanted = weights[:, None].numpy() * entmax_ref.entmax_loss_grad(*arrays, alpha)
        # 6 times the error of a probability, at most some 100 roundings for such scores, and its share of the power
        assert np.abs(d_scores.numpy() - wanted).max() <= 6 * 512 * U ** min(1.0, 1.0 / (alpha - 1.0))
        if alpha - 2 * step > 1.0:
            # central difference, whose error has the order of its step squared, and of rounding over the step
            ends = [entmax_ref.entmax_loss(*arrays, alpha + sign * step) for sign in (1, -1)]
            slope = weights.numpy() * (ends[0] - ends[1]) / (2 * step)
            assert np.abs(d_alpha[:, 0].numpy() - slope).max() <= 6 * (64 * step**2 + 2.0**-45 / step)


@pytest.mark.parametrize("alpha", [1.001, 1.25, 1.5, 1.75, 2.0])
def test_first_and_second_derivatives_against_finite_differences(alpha):
    leaves = draw(3, 5, seed=2).requires_grad_(), torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
    for target in targets(3, 5):

        def function(scores, order, target=target):
            return entmax_loss(scores, target, order, "none")

        options = {"check_batched_grad": True}
        assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True, **options)
        assert torch.autograd.gradgradcheck(function, leaves, check_fwd_over_rev=True, **options)


def test_the_hessian_is_the_jacobian_of_the_map():
    scores = draw(6, seed=3)
    for target in targets(6):
        found = [mode(lambda x: entmax_loss(x, target)) for mode in (hessian, lambda f: jacrev(grad(f)))]  # noqa: B023
        for second in found:
            assert np.abs(second(scores).numpy() - entmax_ref.entmax_jacobian(scores.numpy())).max() <= 256 * U
        _, moved = jvp(lambda x: entmax_loss(x, target), (scores,), (scores,))  # noqa: B023
        grad_found = grad(lambda x: entmax_loss(x, target))(scores)  # noqa: B023
        assert abs(moved - grad_found @ scores) <= 256 * U


def test_vmap():
    scores, alpha = draw(3, 4, 6), torch.tensor([1.25, 1.5, 2.0], dtype=torch.float64)
    for target in targets(3, 4, 6):
        wanted = torch.stack([entmax_loss(*parts) for parts in zip(scores, target, alpha, strict=True)])
        assert torch.equal(vmap(entmax_loss)(scores, target, alpha), wanted)
        found = vmap(grad(entmax_loss))(scores, target, alpha)
        leaf = scores.clone().requires_grad_()
        rows = entmax_loss(leaf, target, alpha[:, None, None], "none")
        (wanted,) = torch.autograd.grad(rows.mean(1).sum(), leaf)
        assert (found - wanted).abs().max() <= 16 * U


def test_reductions_and_ignored_rows():
    scores = draw(5, 7, seed=4)
    scores[3] = torch.nan
    index = torch.tensor([1, -100, 6, -100, 0])
    leaf = scores.clone().requires_grad_()
    rows = entmax_loss(leaf, index, reduction="none")
    kept = [0, 2, 4]
    wanted = entmax_ref.entmax_loss(scores[kept].numpy(), index[kept].numpy())
    assert np.abs(rows[kept].detach().numpy() - wanted).max() <= 256 * U and not rows[[1, 3]].any()
    assert torch.equal(entmax_loss(leaf, index, reduction="sum"), rows.sum())
    assert torch.equal(entmax_loss(leaf, index), rows.sum() / 3)
    (d_scores,) = torch.autograd.grad(entmax_loss(leaf, index), leaf)
    assert not d_scores[[1, 3]].any() and d_scores[kept].any(-1).all()
    assert torch.equal(entmax_loss(leaf, torch.where(index < 0, 7, index), ignore_index=7), rows.sum() / 3)
    assert entmax_loss(scores, torch.full((5,), -100)).isnan()


@pytest.mark.parametrize("dim", [0, 1, -2])
def test_any_dimension(dim):
    scores = draw(4, 5, 6, seed=5)
    index, soft = targets(*scores.movedim(dim, -1).shape)
    for target in (index, soft.movedim(-1, dim)):
        found = entmax_loss(scores, target, reduction="none", dim=dim)
        wanted = entmax_ref.entmax_loss(scores.numpy(), target.numpy(), axis=dim)
        assert found.shape == wanted.shape and np.abs(found.numpy() - wanted).max() <= 512 * U


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_low_precision_costs_one_rounding(dtype):
    scores = draw(30, 11, seed=6, dtype=dtype)
    index, soft = targets(30, 11)
    for target in (index, soft.float()):
        found = entmax_loss(scores, target)
        wanted = entmax_ref.entmax_loss(scores.double().numpy(), target.numpy()).mean()
        assert found.dtype == dtype
        assert abs(float(found) - wanted) <= (torch.finfo(dtype).eps / 2 + 256 * U) * wanted
        with torch.autocast("cpu", torch.bfloat16):
            raised = entmax_loss(scores, target)
        assert raised.dtype == torch.float32 and abs(float(raised) - wanted) <= 2.0**-23 * wanted


def test_rows_by_the_contract():
    inf, nan = torch.inf, torch.nan
    scores = torch.tensor([[-inf, -inf], [nan, 0.0], [inf, 0.0], [0.0, -inf], [8.0, 0.0]]).double().requires_grad_()
    order = torch.full((5, 1), 1.5, dtype=torch.float64, requires_grad=True)
    for target in (torch.tensor([0, 0, 0, 1, 0]), torch.eye(2, dtype=torch.float64)[[0, 0, 0, 1, 0]]):
        loss = entmax_loss(scores, target, order, "none")
        d_scores, d_alpha = torch.autograd.grad(loss.sum(), (scores, order))
        assert loss[0] == 0.0 and not d_scores[0].any() and d_alpha[0] == 0.0
        assert loss[1:3].isnan().all() and d_scores[1:3].isnan().all()
        assert loss[3] == inf and torch.equal(d_scores[3], torch.tensor([1.0, -1.0]).double())
        assert loss[4] == 0.0 and not d_scores[4].any() and d_alpha[4] == 0.0


def test_no_rows_and_no_keys():
    assert entmax_loss(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), reduction="sum") == 0.0
    assert torch.equal(entmax_loss(torch.zeros(2, 0), torch.zeros(2, 0), reduction="none"), torch.zeros(2))


@pytest.mark.parametrize("alpha", [1.25, 1.5, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_from_probabilities_of_the_kernels(alpha, dtype):
    """They err by some 100 roundings of float32 at most for such scores, and the loss is flat where they are right."""
    scores = draw(5, 40, seed=8, dtype=dtype).to(DEVICE).requires_grad_()
    order = torch.full((5, 1), alpha, device=DEVICE, requires_grad=True)
    for target in (part.to(DEVICE) for part in targets(5, 40)):
        found, wanted = (entmax_loss(scores, target, order, impl=impl) for impl in ("triton", "reference"))
        assert (found - wanted).abs() <= torch.finfo(dtype).eps * wanted + 2.0**-20
        grads = [torch.autograd.grad(loss, (scores, order)) for loss in (found, wanted)]
        for one, other in zip(*grads, strict=True):
            assert (one - other).abs().max() <= torch.finfo(dtype).eps * other.abs().max() + 2.0**-16


def test_zero_at_the_target():
    scores = draw(4, 6)
    assert entmax_loss(scores, entmax(scores)) == 0.0


def test_a_compiled_graph_has_no_break():
    index, soft = targets(4, 6)

    def function(scores, alpha):
        return entmax_loss(scores, index, alpha) + entmax_loss(scores, soft, alpha, "sum")

    leaves = draw(4, 6).requires_grad_(), torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    found, wanted = torch.compile(function, fullgraph=True, backend="aot_eager")(*leaves), function(*leaves)
    assert abs(found - wanted) <= 64 * U
    for one, other in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(wanted, leaves), strict=True):
        assert (one - other).abs().max() <= 64 * U


ROWS, INDEX = torch.zeros(2, 3), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("error", "words", "arguments", "options"),
    [
        (TypeError, "input has dtype torch.int64", (torch.ones(2, 3).long(), INDEX), {}),
        (TypeError, "target must be a torch.Tensor, got list", (ROWS, [0, 1]), {}),
        (TypeError, "target has dtype torch.bool", (ROWS, INDEX.bool()), {}),
        (ValueError, "target of dtype torch.int64 has shape \\(3,\\)", (ROWS, torch.zeros(3).long()), {}),
        (ValueError, "target of dtype torch.int64 has shape \\(2, 3\\)", (ROWS, torch.zeros(2, 3).long()), {}),
        (ValueError, "target of dtype torch.float32 has shape \\(2,\\)", (ROWS, torch.zeros(2)), {}),
        (ValueError, "target holds 3; it must index the 3 keys", (ROWS, torch.tensor([0, 3])), {}),
        (ValueError, "target holds -1", (ROWS, torch.tensor([0, -1])), {}),
        (ValueError, "target holds -0.5; prob", (ROWS, torch.tensor([[1.0, 0.0, 0.0], [0.75, 0.75, -0.5]])), {}),
        (ValueError, "target holds nan", (ROWS, torch.full((2, 3), torch.nan)), {}),
        (ValueError, "a row sums to 0.75", (ROWS, torch.full((2, 3), 0.25)), {}),
        (ValueError, "target requires grad", (ROWS, torch.full((2, 3), 1 / 3, requires_grad=True)), {}),
        (ValueError, "target is on meta", (ROWS, INDEX.to("meta")), {}),
        (ValueError, "alpha must be a finite number above 1", (ROWS, INDEX, 0.0), {}),
        (ValueError, "reduction must be 'none', 'mean' or 'sum', got 'avg'", (ROWS, INDEX), {"reduction": "avg"}),
        (TypeError, "ignore_index must be an integer, got float", (ROWS, INDEX), {"ignore_index": 0.5}),
        (ValueError, "dim is 5", (ROWS, INDEX), {"dim": 5}),
    ],
)
def test_bad_arguments(error, words, arguments, options):
    with pytest.raises(error, match=f"^entmax_loss: .*{words}"):
        entmax_loss(*arguments, **options)
