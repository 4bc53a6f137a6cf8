"""Does the eager path honour attn_mask and a value of its own head_dim, as the oracle does on the same scores?"""

import numpy as np
import pytest
import torch

import entmax_ref
from adasplash2.reference import reference_attention

SHAPES = [(2, 4, 33, 40), (1, 4, 33, 40), (2, 1, 33, 40), (1, 1, 1, 40), (33, 1), (4, 1, 40)]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(query, key, value, mask, *, alpha, is_causal, scale):
    """Return out by the oracle's map on dense scores, with the mask applied to them."""
    group = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(group, dim=1) for tensor in (key, value))
    scores = scale * query @ key.transpose(-1, -2)
    scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(scores.shape[-1] - scores.shape[-2])
        scores = scores.masked_fill(~seen, -torch.inf)
    return torch.from_numpy(entmax_ref.entmax(scores.numpy(), alpha)) @ value


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["bool", "float", "hiding"])
def test_mask_and_value_head_dim(shape, kind, is_causal):
    query, key, value = draw(2, 4, 33, 8, seed=1), draw(2, 2, 40, 8, seed=2), draw(2, 2, 40, 5, seed=3)
    mask = draw(*shape, seed=4)
    if kind == "bool":
        mask = mask > -0.5
    elif kind == "hiding":
        mask = mask.masked_fill(mask < -0.5, -torch.inf)
    options = {"alpha": 1.5, "is_causal": is_causal, "scale": 0.4}
    out, tau, mass, block_mask, *_ = reference_attention(query, key, value, attn_mask=mask, **options)
    expected = dense(query, key, value, mask, **options)
    assert out.shape == (2, 4, 33, 5) and block_mask.shape == (2, 4, 1, 1)
    assert (out - expected).abs().max() <= 512 * 2.0**-53 * value.abs().max()
    ordinary = tau < torch.inf
    assert torch.equal(ordinary, mass > 0.0) and (mass[ordinary] - 1.0).abs().max() <= 40 * 2.0**-53
    assert not out[~ordinary].any()


def test_a_hidden_nan_reaches_nothing():
    query, key, value = draw(1, 1, 3, 4, seed=1), draw(1, 1, 6, 4, seed=2), draw(1, 1, 6, 4, seed=3)
    key[0, 0, 2] = torch.nan
    mask = torch.ones(6, dtype=torch.bool)
    mask[2] = False
    options = {"alpha": 1.5, "is_causal": False, "scale": 1.0}
    for hiding in (mask, torch.zeros(6).masked_fill(~mask, -torch.inf)):
        out = reference_attention(query, key, value, attn_mask=hiding, **options).out
        few = [tensor[:, :, mask] for tensor in (key, value)]
        assert np.allclose(out, reference_attention(query, *few, **options).out, rtol=0.0, atol=64 * 2.0**-53)


@pytest.mark.parametrize("shape", [(2, 2, 3, 4), (2, 1, 1, 4), (3, 1), (4,)], ids=str)
def test_gradient_of_an_additive_mask_has_its_shape(shape):
    leaves = [draw(2, 2, 3, 2, seed=1), draw(2, 1, 4, 2, seed=2), draw(2, 1, 4, 3, seed=3), draw(*shape, seed=4)]
    leaves = [leaf.requires_grad_() for leaf in leaves]

    def function(query, key, value, mask):
        return reference_attention(query, key, value, attn_mask=mask, alpha=1.5, is_causal=True, scale=0.7).out

    assert torch.autograd.gradcheck(function, leaves)
