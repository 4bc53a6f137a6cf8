"""Does `verify` see what is wrong, and pass what is right?  Planted faults must fail, one by one."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from verified import SMALL, gather

import entmax_ref
from adasplash2.verify.cases import DTYPES, Case
from adasplash2.verify.judge import Comparison, budget, relative_error
from adasplash2.verify.naive import naive_attention, row_gaps
from adasplash2.verify.truth import as_floats, live_blocks, truth_of


@pytest.fixture(scope="module")
def evidence():
    return gather(SMALL)


@pytest.fixture(scope="module")
def poisoned():
    return gather(dataclasses.replace(SMALL, name="nan", dtype="fp16", n_queries=70, n_keys=70))


@pytest.mark.parametrize("alpha", [1.5, 2.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_naive_errs_by_rounding_and_no_more(dtype, alpha):
    case = dataclasses.replace(SMALL, dtype=dtype, alpha=alpha, is_strided=True)
    load = case.load("cpu")
    truth = truth_of(load, alpha, 0)
    naive = naive_attention(
        load.query, load.key, load.value, truth.d_out, alpha=alpha, is_causal=True, scale=case.head_dim**-0.5
    )
    roundoff = torch.finfo(DTYPES[dtype]).eps / 2
    for name in ("out", "d_query", "d_key", "d_value"):
        error = relative_error(getattr(naive, name).numpy(), getattr(truth, name))
        # Scores of size z carry gamma_(head_dim + 2) * z in float32, the rest a few roundings.
        assert roundoff / 16 < error < 8 * roundoff + 2.0**-24 * (case.head_dim + 2) * 8, name


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_naive_gaps_are_the_best_that_float32_holds(alpha):
    z = torch.randn(20, 300, generator=torch.Generator().manual_seed(0)) * 2
    z[3, 40:] = -math.inf
    z[4], z[5, 7], z[6, 7] = -math.inf, math.nan, math.inf
    gaps = row_gaps(z, alpha).numpy()
    usual = [row for row in range(20) if row not in (4, 5, 6)]
    scores = z.double().numpy()[usual] / (alpha - 1)
    exact = np.maximum(z.double().numpy()[usual] - entmax_ref.threshold(scores, alpha)[:, None], 0)
    # z - row_max, tau, and their difference are each rounded once; all are below 16.
    assert np.abs(gaps[usual] - exact).max() <= 3 * 16 * 2.0**-24
    assert not gaps[4:7].any()


def test_what_is_right_passes(evidence, poisoned):
    assert evidence.failures() == ()
    assert poisoned.failures() == ()
    assert evidence.live.any() and not evidence.live.all()


@pytest.mark.parametrize("name", ["out", "d_query", "d_key", "d_value"])
@pytest.mark.parametrize("fault", ["zeros", "nan", "scaled", "one row"])
def test_a_wrong_result_fails(evidence, name, fault):
    right = getattr(evidence.answer, name)
    wrong = {"zeros": 0.0 * right, "nan": right.copy(), "scaled": right * (1 + 1e-4), "one row": right.copy()}[fault]
    if fault == "nan":
        wrong[0, 0, 1, 0] = np.nan
    if fault == "one row":
        wrong[0, 0, np.linalg.norm(right[0, 0], axis=-1).argmax()] = 0.0
    assert any(failure.startswith(name) for failure in evidence.failures(**{name: wrong}))


def test_a_gradient_without_its_scale_fails(evidence):
    assert evidence.failures(d_key=evidence.answer.d_key * SMALL.head_dim**0.5)


def test_mass_tau_residual_and_passes_off_fail(evidence):
    answer = evidence.answer
    for planted in (
        {"mass": answer.mass + 1e-3},
        {"mass": np.where(np.arange(130) == 3, np.nan, answer.mass)},
        {"tau": answer.tau + 1e-2},
        {"tau": np.where(np.arange(130) == 3, np.nan, answer.tau)},
        {"residual": answer.residual + 1e-4},
        {"passes": np.where(np.arange(130) == 3, answer.max_passes, answer.passes)},
    ):
        assert len(evidence.failures(**planted)) == 1, planted.keys()


def test_one_lost_block_fails(evidence):
    mask = evidence.answer.block_mask.copy()
    place = tuple(np.argwhere(evidence.live)[0])
    mask[place] = False
    assert any("live blocks lost" in failure for failure in evidence.failures(block_mask=mask))


def test_nan_swallowed_or_spilled_fails(evidence, poisoned):
    swallowed = np.nan_to_num(poisoned.answer.out)
    assert any("swallowed" in failure for failure in poisoned.failures(out=swallowed))
    spilled = poisoned.answer.out.copy()
    spilled[~poisoned.truth.nan_rows] = np.nan
    assert any("spilled" in failure for failure in poisoned.failures(out=spilled))


def test_a_row_without_a_key_must_be_zero():
    empty = gather(Case("no_key", "fp32", 1, 1, 30, 20, 16, True))
    assert empty.failures() == () and empty.truth.empty_rows.sum() == 10
    for name in ("out", "d_query"):
        wrong = getattr(empty.answer, name).copy()
        wrong[empty.truth.empty_rows] = 1e-30
        assert any("without a visible key" in failure for failure in empty.failures(**{name: wrong}))
    assert empty.failures(tau=np.where(empty.truth.empty_rows, 0.0, empty.answer.tau))


def test_errors_and_budgets():
    ones = np.ones(4)
    assert relative_error(ones, ones) == 0.0
    assert relative_error(0 * ones, ones) == 1.0
    assert relative_error(0 * ones, 0 * ones) == 0.0
    assert relative_error(ones, 0 * ones) == math.inf
    assert math.isnan(relative_error(np.array([1.0, np.nan]), ones[:2]))
    assert budget(ones * 1.5, ones, torch.bfloat16) == 1.0 + 2.0**-8
    assert not Comparison(math.nan, 1.0).passed and not Comparison(0.0, math.nan).passed


def test_sparsemax_gets_no_gradient_where_float32_cannot_tell_the_support():
    # Two keys whose z lies on tau: 1 - 1 = 0 is the threshold.
    load = dataclasses.replace(Case("gauss1", "fp32", 1, 1, 2, 3, 2, False).load("cpu"))
    query = torch.tensor([[[[1.0, 0.0], [2.0, 0.0]]]])
    key = torch.tensor([[[[2.0**0.5, 0.0], [0.0, 0.0], [-9.0, 0.0]]]])
    truth = truth_of(dataclasses.replace(load, query=query, key=key), 2.0, 0)
    assert truth.undecided_rows.tolist() == [[[True, False]]]
    assert not truth.d_out[0, 0, 0].any() and truth.d_out[0, 0, 1].all()


def test_live_blocks_are_those_of_the_exact_support(evidence):
    truth, load = evidence.truth, evidence.load
    exact = live_blocks(load, truth, SMALL.alpha, (64, 64), margin=0.0)
    scores = entmax_ref.attention_scores(as_floats(load.query), as_floats(load.key), is_causal=True, enable_gqa=True)
    support = entmax_ref.support(scores)
    for place in np.ndindex(exact.shape):
        rows, columns = (slice(64 * index, 64 * index + 64) for index in place[2:])
        assert exact[place] == support[(*place[:2], rows, columns)].any()
    assert (exact | ~live_blocks(load, truth, SMALL.alpha, (64, 64))).all()
