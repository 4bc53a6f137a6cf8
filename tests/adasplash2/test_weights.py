"""Are the sparse weights those of attention: exact support, right values, for every option?"""

import numpy as np
import pytest
import torch
from staged import DEVICE

import entmax_ref
from adasplash2 import attention_weights, entmax_attention
from adasplash2.reference import alphas, chunks
from entmax_ref import bounds

# A score of 8 products, scaled, has ten roundings; a weight, the square of a gap of at most 1, four times as many.
ROUNDED = 2.0**-53 * 2.0**6


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE)


@pytest.mark.parametrize("at_once", [chunks.SCORES_AT_ONCE, 256])
@pytest.mark.parametrize("alpha", [1.5, 2.5, [1.25, 1.5, 1.75, 2.0]], ids=str)
@pytest.mark.parametrize("is_causal", [False, True])
def test_they_are_the_probabilities_of_the_oracle(monkeypatch, is_causal, alpha, at_once):
    monkeypatch.setattr(chunks, "SCORES_AT_ONCE", at_once)
    monkeypatch.setattr(alphas, "SCORES_AT_ONCE", at_once)
    # Multiples of 1/8: every sum of their products is exact, in any order, so both sides have the same scores.
    query, key = (part.mul(8.0).round().div(8.0) for part in (draw(2, 4, 30, 8, seed=1), draw(2, 2, 40, 8, seed=2)))
    order = torch.tensor(alpha, dtype=torch.float64, device=DEVICE) if isinstance(alpha, list) else alpha
    weights = attention_weights(query, key, is_causal=is_causal, enable_gqa=True, scale=0.5, alpha=order)
    assert weights.layout == torch.sparse_csr and weights.shape == (2 * 4 * 30, 40)
    scores = query.cpu().numpy() @ key.cpu().numpy().repeat(2, axis=1).swapaxes(-1, -2) * 0.5
    hidden = np.arange(40) > np.arange(30)[:, None] + 10
    scores = np.where(hidden & is_causal, -np.inf, scores)
    orders = np.broadcast_to(np.asarray(alpha), (4,))
    wanted = np.stack([entmax_ref.entmax(scores[:, head], orders[head]) for head in range(4)], axis=1)
    found = weights.to_dense().cpu().numpy().reshape(wanted.shape)
    assert ((found != 0.0) == (wanted != 0.0)).all()
    for head, order in enumerate(orders):
        # The oracle's error and ours, each within the bound of the same method.
        bound = 2.0 * bounds.entmax(scores[:, head].reshape(-1, 40), order)
        assert (np.abs(found - wanted)[:, head].reshape(-1, 40) <= bound).all()
    # Sorted along each row, as torch asks of a CSR tensor, and nothing twice.
    torch.sparse_csr_tensor(*(part() for part in (weights.crow_indices, weights.col_indices, weights.values)),
                            weights.shape, check_invariants=True)  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {"window_size": (3, 2)},
        {"seqlens_q": torch.tensor([9, 12]), "seqlens_k": torch.tensor([7, 12]), "is_causal": True},
        {"key_ranges": torch.tensor([[2, 9]]).expand(12, 2)},
        {"attn_mask": torch.ones(12, 12, dtype=torch.bool).tril(-1)},
        {"attn_mask": torch.randn(1, 2, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)},
        {"scale": -0.5, "alpha": 2.0},
    ],
    ids=lambda options: "-".join(options),
)
def test_they_times_the_values_are_the_output(options):
    options = {name: one.to(DEVICE) if isinstance(one, torch.Tensor) else one for name, one in options.items()}
    query, key, value = (draw(2, 2, 12, 8, seed=seed) for seed in range(3))
    dense = attention_weights(query, key, **options).to_dense().view(2, 2, 12, 12)
    out = entmax_attention(query, key, value, impl="reference", **options)
    torch.testing.assert_close(dense @ value, out)


def test_rows_without_weights_and_rows_of_nan():
    query, key = draw(1, 1, 4, 8, seed=1).float(), draw(1, 1, 3, 8, seed=2).float()
    query[0, 0, 2] = torch.nan
    weights = attention_weights(query.requires_grad_(), key, is_causal=True)
    assert weights.dtype == torch.float32 and not weights.requires_grad
    sizes = weights.crow_indices().diff().tolist()
    assert sizes[0] == 0 and sizes[2] == 2 and weights.to_dense()[2, :2].isnan().all()
    empty = attention_weights(query, key[:, :, :0])
    assert empty.shape == (4, 0) and empty.values().numel() == 0
    assert attention_weights(query[:, :, :0], key).shape == (0, 3)


def test_jagged_operands_have_the_rows_of_their_values():
    sequences = [[draw(length, 2, 8, seed=seed + length) for length in (3, 5)] for seed in (10, 20)]
    query, key = (torch.nested.as_nested_tensor(one, layout=torch.jagged).transpose(1, 2) for one in sequences)
    found = attention_weights(query, key, is_causal=True).to_dense().view(2, 8, 8)
    assert not found[:, :3, 3:].any() and not found[:, 3:, :3].any()
    for rows, item in ((slice(0, 3), 0), (slice(3, 8), 1)):
        alone = [one[item].transpose(0, 1)[None] for one in sequences]
        wanted = attention_weights(*alone, is_causal=True).to_dense()
        torch.testing.assert_close(found[:, rows, rows].reshape(wanted.shape), wanted, rtol=ROUNDED, atol=ROUNDED)


def test_wrong_arguments_are_told():
    query = draw(1, 1, 4, 8)
    with pytest.raises(ValueError, match=r"alpha is 1\.0, and 1 is softmax"):
        attention_weights(query, query, alpha=1.0)
    with pytest.raises(ValueError, match="key has head_dim 7"):
        attention_weights(query, query[..., :7])
