"""Do the row kernels take the place of the reference in the public call: gradients, transforms, graphs, errors?"""

import pytest
import torch
from staged import DEVICE
from torch.func import grad, jacrev, jvp, vmap

import entmax_ref
from adasplash2 import entmax, entmax15, row_ops, sparsemax

U = 2.0**-24
# Some hundred roundings of sums of a few terms, of numbers up to 4.
CLOSE = 256 * U * 4.0


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(DEVICE)


def kernels(scores, alpha=1.5, dim=-1):
    return entmax(scores, alpha, dim, impl="triton")


def reference(scores, alpha=1.5, dim=-1):
    return entmax(scores, alpha, dim, impl="reference")


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_any_dimension_and_strides(dim):
    base = draw(6, 5, 7)
    for scores in (base, base.transpose(0, 2), base[::2, 1:, ::3], base[:, :1].expand(6, 4, 7)):
        assert (kernels(scores, dim=dim) - reference(scores, dim=dim)).abs().max() <= CLOSE
    assert torch.equal(sparsemax(base, dim, impl="triton"), kernels(base, 2.0, dim))
    assert torch.equal(entmax15(base, dim, impl="triton"), kernels(base, dim=dim))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("alpha", [1.25, 1.5, 2.0, "tensor"])
def test_gradients(dtype, alpha):
    """Against float64 on the same input; the probabilities are rounded to the dtype, and so is the result."""
    # No key of seed 5 is within 3e-3 of a threshold, where gradients jump.
    scores = draw(3, 4, 20, seed=5, dtype=dtype).requires_grad_()
    vector = draw(3, 4, 20, seed=1, dtype=dtype)
    leaves, options = [scores], {"alpha": alpha}
    if alpha == "tensor":
        options = {}
        leaves.append(torch.tensor([1.25, 1.5, 1.75, 2.0], device=DEVICE)[:, None].requires_grad_())
    probs = kernels(*leaves, **options)
    found = torch.autograd.grad(probs, leaves, vector)
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    exact = torch.autograd.grad(reference(*wide, **options), wide, vector.double())
    eps = torch.finfo(dtype).eps
    assert probs.dtype == dtype
    for one, truth, leaf in zip(found, exact, leaves, strict=True):
        assert one.dtype == leaf.dtype and one.shape == leaf.shape
        # a probability's rounding moves its sensitivity and the mean, a gradient by as much; one more of the result
        assert (one.double() - truth).norm() <= (2.0 * eps + 512 * U) * truth.norm() + 1e-7


def test_autocast_raises_16_bits():
    scores = draw(4, 30, dtype=torch.bfloat16)
    with torch.autocast(DEVICE, torch.bfloat16):
        probs = kernels(scores)
    assert probs.dtype == torch.float32 and torch.equal(probs, kernels(scores.float()))


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4)])
def test_nothing_to_map(shape):
    scores = torch.zeros(shape, device=DEVICE, requires_grad=True)
    probs = kernels(scores, torch.tensor(1.5, device=DEVICE))
    (d_scores,) = torch.autograd.grad(probs.sum(), scores)
    assert probs.shape == d_scores.shape == scores.shape


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(requires_grad, dtype):
    scores = draw(5, 9, dtype=dtype).requires_grad_(requires_grad)
    values = torch.full((5, 1), 1.25, device=DEVICE, requires_grad=requires_grad)
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(row_ops.rows, (scores, None, 1.5), test_utils=tests)
    torch.library.opcheck(row_ops.rows, (scores, values, 0.0), test_utils=tests)
    probs = row_ops.rows(scores.detach(), None, 1.5)[0]
    torch.library.opcheck(row_ops.rows_backward, (probs, probs, None, 1.5, False), test_utils=tests)


def test_vmap_and_reverse_mode_of_torch_func():
    scores, alpha = draw(3, 4, 6), torch.tensor([1.25, 1.5, 2.0], device=DEVICE)
    assert torch.equal(vmap(kernels)(scores, alpha), kernels(scores, alpha[:, None, None]))
    assert torch.equal(vmap(lambda part: kernels(part, dim=0), in_dims=1)(scores), kernels(scores, dim=0).movedim(1, 0))
    found = vmap(grad(lambda x, a: kernels(x, a).square().sum(), argnums=(0, 1)))(scores, alpha)
    leaves = scores.clone().requires_grad_(), alpha.clone().requires_grad_()
    wanted = torch.autograd.grad(kernels(leaves[0], leaves[1][:, None, None]).square().sum(), leaves)
    assert torch.equal(found[0], wanted[0]) and (found[1] - wanted[1]).abs().max() <= CLOSE
    jacobian = jacrev(kernels)(scores[0, 0]).double().cpu().numpy()
    assert abs(jacobian - entmax_ref.entmax_jacobian(scores[0, 0].double().cpu().numpy())).max() <= CLOSE


def test_derivatives_that_the_kernels_do_not_have():
    scores = draw(3, 4)
    with pytest.raises(RuntimeError, match=r"forward-mode derivative.*impl='reference'"):
        jvp(kernels, (scores,), (scores,))
    leaf = scores.clone().requires_grad_()
    (d_scores,) = torch.autograd.grad(kernels(leaf).square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match=r"^entmax: the gradient of a gradient.*impl='reference'"):
        torch.autograd.grad(d_scores.sum(), leaf)


def test_a_compiled_graph_has_no_break():
    def function(scores, alpha):
        return kernels(scores, alpha) + kernels(scores, 2.0, dim=0)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    for n in (6, 9):
        leaves = draw(4, n, seed=n).requires_grad_(), torch.full((4, 1), 1.5, device=DEVICE, requires_grad=True)
        found, wanted = compiled(*leaves), function(*leaves)
        assert torch.equal(found, wanted)
        vector = draw(4, n, seed=1)
        pairs = zip(
            torch.autograd.grad(found, leaves, vector), torch.autograd.grad(wanted, leaves, vector), strict=True
        )
        assert all((one - other).abs().max() <= CLOSE for one, other in pairs)


def test_shapes_without_storage():
    meta = torch.empty(3, 4, device="meta", dtype=torch.bfloat16)
    found = kernels(meta, torch.empty(3, 1, device="meta"))
    assert found.shape == meta.shape and found.dtype == meta.dtype and found.is_meta


@pytest.mark.parametrize(
    ("error", "words", "scores", "options"),
    [
        (ValueError, "impl must be None, 'triton' or 'reference', got 'cuda'", torch.ones(3), {"impl": "cuda"}),
        (TypeError, "input is float64; the kernels take", torch.ones(3).double(), {"impl": "triton"}),
        (ValueError, "alpha is 1.00000001, which is 1 in", torch.ones(3), {"impl": "triton", "alpha": 1.00000001}),
        (ValueError, "alpha is 2.5; the kernels take 1 < alpha <= 2", torch.ones(3), {"impl": "triton", "alpha": 2.5}),
    ],
)
def test_bad_arguments(error, words, scores, options):
    with pytest.raises(error, match=f"^entmax: {words}"):
        entmax(scores.to(DEVICE), **options)


@pytest.mark.gpu
def test_gpu_tensors_go_to_the_kernels():
    scores = draw(5, 100)
    assert torch.equal(entmax(scores), kernels(scores))
    assert torch.equal(entmax(scores.double()), reference(scores.double()))
