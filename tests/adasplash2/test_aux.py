"""Can the report be checked: does residual bound what it is said to, and what stands where a row has no number?"""

import numpy as np
import pytest
import torch
from lemmas import lemma
from staged import DEVICE, U

import entmax_ref
from adasplash2 import entmax_attention

BOTH = pytest.mark.parametrize("impl", ["triton", "reference"])


def one_term(scores, offset):
    """Return operands whose scores are ``scores + offset``, exactly if float32 holds that."""
    n_queries, n_keys = scores.shape
    query = torch.zeros(1, 1, n_queries, n_keys + 1)
    query[..., :n_keys], query[..., n_keys] = scores, 1.0
    key = torch.cat([torch.eye(n_keys), torch.full((n_keys, 1), offset)], dim=1)[None, None]
    return query.to(DEVICE), key.to(DEVICE)


@lemma("residual_bound")
@BOTH
@pytest.mark.parametrize("alpha", [1.5, 2.0])
@pytest.mark.parametrize("offset", [0.0, 1e4, -1e5])
def test_residual_bounds_the_error_of_tau_counted_from_the_maximum(offset, alpha, impl):
    # multiples of 1/16 stay exact under the offset
    scores = torch.randn(6, 70, generator=torch.Generator().manual_seed(0)).mul(8).round() / 16
    query, key = one_term(scores, offset)
    _, aux = entmax_attention(query, key, key, alpha=alpha, scale=1.0, impl=impl, return_aux=True)
    z = (alpha - 1.0) * scores.double().numpy()
    exact = entmax_ref.threshold(scores.double().numpy(), alpha) - z.max(-1)
    rows = {name: part[0, 0].double().cpu().numpy() for name, part in aux._asdict().items() if name != "skipped"}
    # the sum of n masses errs by as many roundings, and tau_from_max is rounded itself
    assert (abs(rows["tau_from_max"] - exact) <= rows["residual"] + (70 + 4) * U).all()
    np.testing.assert_array_equal(rows["row_max"], z.max(-1) + (alpha - 1.0) * offset)
    # what is absolute has one more rounding, of what may be large
    error = abs(rows["tau"] - (rows["row_max"] + rows["tau_from_max"]))
    assert (error <= U * (abs(rows["row_max"]) + 2.0)).all()
    if offset:
        truth = exact + rows["row_max"]
        assert (abs(rows["tau"] - truth) > rows["residual"] + (70 + 4) * U).any(), "residual does not bound this error"


@BOTH
def test_rows_without_a_number_say_so(impl):
    query, key = torch.ones(1, 1, 4, 8), torch.ones(1, 1, 2, 8)
    query[0, 0, 3] = torch.nan
    _, aux = entmax_attention(
        query.to(DEVICE), key.to(DEVICE), key.to(DEVICE), is_causal=True, impl=impl, return_aux=True
    )
    for part in (aux.tau, aux.tau_from_max):
        assert torch.isposinf(part[0, 0, :2]).all() and part[0, 0, 2].isfinite() and part[0, 0, 3].isnan()
    assert torch.isneginf(aux.row_max[0, 0, :2]).all() and not aux.row_max[0, 0, 3].isfinite()
    assert aux.residual[0, 0, :2].eq(0.0).all() and aux.residual[0, 0, 3].isnan()


def test_both_paths_report_the_same():
    query, key = (
        torch.randn(1, 2, 40, 16, generator=torch.Generator().manual_seed(seed)).to(DEVICE) for seed in range(2)
    )
    kernels, reference = (
        entmax_attention(query, key, key, is_causal=True, impl=impl, return_aux=True)[1]
        for impl in ("triton", "reference")
    )
    reach = 1.0 + 16 * float(query.abs().max() * key.abs().max())
    for name in ("tau", "row_max", "tau_from_max"):
        found, expected = getattr(kernels, name), getattr(reference, name)
        assert found.dtype == expected.dtype == torch.float32 and found.shape == (1, 2, 40)
        assert not found.requires_grad and (found - expected).abs().max() <= 2 * (16 + 4) * U * reach
