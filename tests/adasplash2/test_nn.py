"""Do the modules call the functions with what they were given, and does an alpha that is learnt stay in its range?"""

import copy

import pytest
import torch

from adasplash2 import entmax, entmax15, entmax_loss, nn, sparsemax


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_modules_are_the_functions():
    scores, index = draw(3, 4, 5), torch.tensor([[0, 1, 2, 3], [3, 4, 4, -1], [0, 0, 0, 0]])
    assert torch.equal(nn.Entmax()(scores), entmax(scores))
    assert torch.equal(nn.Entmax(1.25, dim=1)(scores), entmax(scores, 1.25, 1))
    assert torch.equal(nn.Sparsemax(0)(scores), sparsemax(scores, 0))
    assert torch.equal(nn.Entmax15(1)(scores), entmax15(scores, 1))
    assert torch.equal(nn.EntmaxLoss(ignore_index=-1)(scores, index), entmax_loss(scores, index, ignore_index=-1))
    wanted = entmax_loss(scores, index[:, :1].expand(3, 5), 2.0, "none", -1, dim=1)
    assert torch.equal(nn.EntmaxLoss(2.0, "none", -1, dim=1)(scores, index[:, :1].expand(3, 5)), wanted)


def test_where_alpha_lives():
    fixed = nn.Entmax(torch.full((4, 1), 1.5))
    assert list(fixed.state_dict()) == ["alpha"] and not list(fixed.parameters())
    assert fixed.double().alpha.dtype == torch.float64
    learnt = nn.Entmax(torch.nn.Parameter(torch.full((4, 1), 1.5)))
    assert [name for name, _ in learnt.named_parameters()] == ["alpha"]
    bounded = nn.EntmaxLoss(nn.AlphaParameter())
    assert [name for name, _ in bounded.named_parameters()] == ["alpha.weight"]
    loss = bounded(draw(3, 5), torch.tensor([0, 1, 2]))
    loss.backward()
    assert bounded.alpha.weight.grad.abs() > 0.0
    assert torch.equal(copy.deepcopy(bounded)(draw(3, 5), torch.tensor([0, 1, 2])), loss)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_alpha_starts_where_asked_and_stays_in_range(dtype):
    alpha = nn.AlphaParameter((2, 1), 1.75, dtype=dtype)
    assert alpha().shape == (2, 1) and alpha().dtype == dtype
    # the weight, log(3), is rounded, and the sigmoid and the two operations after it
    assert (alpha().double() - 1.75).abs().max() <= 8.0 * torch.finfo(dtype).eps
    for extreme in (-6e4, -30.0, 30.0, 6e4):
        with torch.no_grad():
            alpha.weight.fill_(extreme)
        assert ((alpha() > 1.0) & (alpha() <= 2.0)).all()
        assert entmax(draw(3, 2, 4).to(dtype), alpha()).isfinite().all()


@pytest.mark.parametrize(("initial", "lowest"), [(2.0, 1.01), (1.0, 1.01), (1.5, 1.0), (1.5, 1.6), (float("nan"), 1.1)])
def test_a_range_that_alpha_cannot_start_in(initial, lowest):
    with pytest.raises(ValueError, match=r"^AlphaParameter: lowest is .* 1 < lowest < initial < 2"):
        nn.AlphaParameter(initial=initial, lowest=lowest)


def test_alpha_is_learnt():
    """From probabilities that alpha 1.3 made, by gradient descent."""
    scores = draw(64, 10)
    wanted = entmax(scores, 1.3)
    module = nn.Entmax(nn.AlphaParameter(initial=1.8))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        (module(scores) - wanted).square().sum().backward()
        optimizer.step()
    assert abs(module.alpha().item() - 1.3) < 1e-2


def test_what_is_shown():
    assert repr(nn.Entmax(1.25, dim=1)) == "Entmax(alpha=1.25, dim=1)"
    assert repr(nn.Sparsemax()) == "Sparsemax(dim=-1)" and repr(nn.Entmax15()) == "Entmax15(dim=-1)"
    assert "AlphaParameter(shape=(), lowest=1.01)" in repr(nn.EntmaxLoss(nn.AlphaParameter()))
    assert "alpha=1.5, reduction='mean', ignore_index=-100, dim=-1" in repr(nn.EntmaxLoss())
