"""Are the synthetic inputs what their names and notes say?  Statistics within derived errors, hard rows in float64."""

import doctest
import math

import numpy as np
import pytest
import torch
from dense_scores import dense_scores, squared_excess, support

from adasplash2 import families, workloads
from adasplash2.workloads import workload

SIZES = dict(batch=2, heads=4, kv_heads=2, n_queries=96, head_dim=32)
SYNTHETIC = tuple(name.format(S="0.2" if name.startswith("near") else "1", T="4", W="64") for name in workloads.NAMES)


# A value within 5 standard errors of its mean: with seeds fixed, a failure is a change of distribution.
ERRORS = 5.0


@pytest.mark.parametrize("dtype", workloads.DTYPES)
@pytest.mark.parametrize("name", SYNTHETIC)
def test_shapes_and_dtypes(name, dtype):
    n_keys = 64 if name == "no_key" else 96
    w = workload(name, **SIZES, dtype=dtype)
    assert w.query.shape == (2, 4, 96, 32)
    assert w.key.shape == w.value.shape == (2, 2, n_keys, 32)
    assert {x.dtype for x in (w.query, w.key, w.value)} == {dtype}
    assert all(x.is_contiguous() for x in (w.query, w.key, w.value))
    assert w.enable_gqa and w.is_causal and w.note
    assert w.is_finite == (name not in {"nan", "nan_key", "nan_query", "inf", "minus_inf"})


@pytest.mark.parametrize("name", SYNTHETIC)
def test_seed_decides_the_bits(name):
    def words(seed, dtype=torch.float32):
        w = workload(name, **SIZES, dtype=dtype, seed=seed)
        return [x.float().view(torch.int32) for x in (w.query, w.key, w.value)]

    first, again, other = words(7), words(7), words(8)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    rounded = [x.view(torch.float32).to(torch.bfloat16).float().view(torch.int32) for x in first]
    assert all(torch.equal(a, b) for a, b in zip(words(7, torch.bfloat16), rounded, strict=True))


@pytest.mark.parametrize("name", ["gauss1", "topic4", "minus_inf"])
def test_sizes_that_stand_out(name):
    for n_queries, n_keys, head_dim in ((1, 1, 2), (1, 300, 24), (300, 1, 8), (257, 511, 256)):
        w = workload(name, batch=1, heads=1, n_queries=n_queries, n_keys=n_keys, head_dim=head_dim, dtype=torch.float16)
        assert w.query.shape == (1, 1, n_queries, head_dim) and w.key.shape == (1, 1, n_keys, head_dim)
        assert not w.enable_gqa


def score_variance_error(n_queries, n_keys, components, heads):
    """Return the standard error of the mean squared score, relative to the variance, of Gaussian q and k.

    That mean is trace(A B) / components, with A and B the second moments of q and k. Written as the identity
    plus errors, the two traces of the errors have variance 2 * components / n, the trace of their product
    2 * components * (components + 1) / (n_queries * n_keys).
    """
    linear = 2.0 / components * (1.0 / n_queries + 1.0 / n_keys)
    product = 2.0 * (components + 1) / components / (n_queries * n_keys)
    return math.sqrt((linear + product) / heads)


@pytest.mark.parametrize("spread", [0.25, 1.0, 4.0])
def test_gauss_scores_have_the_deviation_of_the_name(spread):
    w = workload(f"gauss{spread}", batch=1, heads=8, n_queries=256, head_dim=64, dtype=torch.float32)
    for x in (w.query, w.key):
        assert abs(x.double().square().mean() / spread - 1.0) <= ERRORS * math.sqrt(2.0 / x.numel())
    assert abs(w.value.double().square().mean() - 1.0) <= ERRORS * math.sqrt(2.0 / w.value.numel())
    scores, _ = dense_scores(w)
    assert abs((scores**2).mean() / spread**2 - 1.0) <= ERRORS * score_variance_error(256, 256, 64, 8)


@pytest.mark.parametrize("heads, kv_heads, n_queries, n_keys", [(4, 4, 512, 512), (4, 2, 512, 512), (2, 2, 256, 512)])
def test_topic_segments_share_a_direction(heads, kv_heads, n_queries, n_keys):
    length, head_dim = 64, 64
    w = workload(
        "topic3", batch=1, heads=heads, kv_heads=kv_heads, n_queries=n_queries, n_keys=n_keys,
        head_dim=head_dim, dtype=torch.float32, segment=length,
    )  # fmt: skip
    strength2 = 8.0 * math.sqrt(head_dim)
    queries = w.query[0].double().unflatten(1, (-1, length))
    keys = w.key[0].double().repeat_interleave(heads // kv_heads, dim=0).unflatten(1, (-1, length))
    for x in (queries, keys):
        about_mean = (x - x.mean(2, keepdim=True)).square().sum() / (x.numel() * (length - 1) / length)
        assert abs(about_mean - 1.0) <= ERRORS * math.sqrt(2.0 / x.numel())
        norm2 = x.mean(2).square().sum(-1)
        error = math.sqrt(4.0 * strength2 / length + 2.0 * head_dim / length**2)
        assert ((norm2 - strength2 - head_dim / length).abs() <= ERRORS * error).all()
    # Keys end where queries end. In a segment of both, the mean score is 8, the topic's share.
    last_keys = keys[:, keys.shape[1] - queries.shape[1] :]
    shared = (queries.mean(2) * last_keys.mean(2)).sum(-1) * head_dim**-0.5
    error = math.sqrt(2.0 * strength2 / length + head_dim / length**2) * head_dim**-0.5
    assert ((shared - families.TOPIC_SCORE).abs() <= ERRORS * error).all()
    # Means of one topic lie 2 * head_dim / length apart (squared), those of two topics some 2 * strength2.
    same = torch.cdist(keys.mean(2), keys.mean(2)).square() < strength2 / 2
    n_topics = [len({tuple(row) for row in of_head.tolist()}) for of_head in same]
    assert max(n_topics) <= 3 and min(n_topics) >= 2


def test_equal_and_ties_repeat_keys_bit_by_bit():
    w = workload("equal", **SIZES, dtype=torch.bfloat16)
    assert (w.key == w.key[:, :, :1]).all()
    assert np.ptp(dense_scores(w)[0], axis=-1).max() <= 1e-12

    w = workload("ties", batch=1, heads=2, n_queries=8, n_keys=4096, head_dim=48, dtype=torch.bfloat16)
    assert (w.key[..., 1:] == w.key[:, :, :1, 1:]).all() and (w.query[..., 0] > 0).all()
    level = w.key[..., 0].double()
    for value, share in zip(families.TIE_LEVELS, families.TIE_SHARES, strict=True):
        found = (level == value).double().mean(-1)
        assert ((found - share).abs() <= ERRORS * math.sqrt(share * (1.0 - share) / 4096)).all()
    assert torch.isin(level, torch.tensor(families.TIE_LEVELS).double()).all()
    scores, _ = dense_scores(w)
    depth = 0.5 * (scores.max(-1, keepdims=True) - scores)
    # The levels again, times sqrt(head_dim) rounded to bfloat16.
    expected = 0.5 * (2.0 - level.numpy()[:, :, None, :])
    assert np.abs(depth - expected).max() <= 2.0**-8


@pytest.mark.parametrize("name, spread", [("near0.02", 0.02), ("near0.2", 0.2), ("nearly_equal", 0.02)])
def test_near_scores_differ_by_their_deviation(name, spread):
    w = workload(name, batch=1, heads=8, n_queries=256, head_dim=32, dtype=torch.bfloat16)
    scores, _ = dense_scores(w)
    # The level's factor is rounded to bfloat16, by 2^-9 at most; the rest is a mean of 8 * 256^2 scores.
    rounding = families.NEAR_LEVEL * 2.0**-9
    assert abs(scores.mean() - families.NEAR_LEVEL) <= rounding + ERRORS * spread / math.sqrt(8 * 256**2)
    level = w.query[0, 0, 0, 0].double() * w.key[0, 0, 0, 0].double() * 32**-0.5
    # 31 components make the rest; rounding moves each factor by 2^-9 at most, a squared score by 2^-7.
    relative = ((scores - level.item()) ** 2).mean() / spread**2
    assert abs(relative - 1.0) <= ERRORS * score_variance_error(256, 256, 31, 8) + 2.0**-7


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name, level", [("offset", 1.0e4), ("large_negative", -2000.0)])
def test_shifted_rows_move_by_one_constant(name, level, dtype):
    w = workload(name, **SIZES, dtype=dtype)
    scores, _ = dense_scores(w)
    query, key = w.query.double(), w.key.double()
    moved = query[..., 0].unique() * key[..., 0].unique() * 32**-0.5
    assert moved.numel() == 1
    assert abs(moved.item() - level) <= abs(level) * torch.finfo(dtype).eps / 2
    # What is left are 73728 scores of gauss1: within 6 deviations of their row's, which reach 1.5.
    assert np.abs(scores - moved.item()).max() <= 9.0


def test_spike_towers_over_its_row():
    w = workload("spike", **SIZES, dtype=torch.float16)
    scores, visible = dense_scores(w)
    others = np.where(np.arange(96) == 32, -np.inf, scores)
    assert (scores[..., 32] - others.max(-1) >= 900.0).all()
    one_hot = support(scores, visible)[:, :, 32:]
    assert one_hot[..., 32].all() and (one_hot.sum(-1) == 1).all()


def test_clusters_crowd_round_few_centres():
    w = workload("clusters", batch=1, heads=2, n_queries=16, n_keys=400, head_dim=64, dtype=torch.bfloat16)
    key = w.key[0].double()
    together = torch.cdist(key, key) < 1.0
    for of_head in together:
        assert len({tuple(row) for row in of_head.tolist()}) == 8
    scores, _ = dense_scores(w)
    for scores_of_head, of_head in zip(scores[0], together, strict=True):
        one_cluster = scores_of_head[:, of_head[0].numpy()]
        # Jitter 0.02, and at most as much from rounding to bfloat16, times the query's norm over sqrt(64).
        assert (one_cluster.std(-1) <= 0.04 * w.query[0].double().norm(dim=-1).max().item() / 8.0).all()
        assert (scores_of_head.std(-1) >= 10.0 * one_cluster.std(-1)).all()


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_sink_is_kept_by_every_query(dtype, is_causal):
    w = workload("sink", batch=1, heads=4, kv_heads=2, n_queries=1500, head_dim=64, dtype=dtype, is_causal=is_causal)
    scores, visible = dense_scores(w)
    assert (squared_excess(scores, visible, 0.5 * scores[..., :1]) < 1.0).all()
    # It does not drown the others: in most rows it shares the mass.
    last = scores[:, :, -300:]
    assert np.median(support(last, visible[-300:]).sum(-1)) >= 2


def test_sink_local_keeps_the_sink_and_a_band():
    w = workload("sink_local256", batch=1, heads=4, kv_heads=2, n_queries=2000, head_dim=64, dtype=torch.bfloat16)
    scores, visible = dense_scores(w)
    live = support(scores, visible)[0]
    assert (live[:, :, 0].mean(-1) >= 0.9).all()
    # Odd keys compete by being near, and far ones by chance only. A near block of 64 rows by 32 odd keys is live.
    index = np.arange(2000)
    distance = index[:, None] - index[None, :]
    odd = (index % 2 == 1)[None, :] & (index >= 600)[:, None]
    near, far = (live[:, odd & (low <= distance) & (distance < low + 128)].mean(-1) for low in (0, 384))
    assert (near >= 8.0 * far).all() and (near * 64 * 32 >= 2.0).all()


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("n_keys", [96, 40, 150, 1])
@pytest.mark.parametrize("name", ["gauss1", "nan", "nan_key", "nan_query", "inf", "minus_inf"])
def test_contract_rows_follow_from_the_scores(name, n_keys, is_causal):
    w = workload(name, **SIZES, n_keys=n_keys, dtype=torch.bfloat16, is_causal=is_causal)
    scores, visible = dense_scores(w)
    nan_rows = (visible & (np.isnan(scores) | (scores == np.inf))).any(-1)
    empty_rows = ~(visible & (scores != -np.inf)).any(-1)
    assert (w.nan_rows.numpy() == nan_rows).all()
    assert (w.empty_rows.numpy() == empty_rows).all()


def test_each_hard_row_is_there():
    causal = {name: workload(name, **SIZES, dtype=torch.bfloat16) for name in workloads.NAMES if "{" not in name}
    assert causal["no_key"].empty_rows[:, :, :32].all() and not causal["no_key"].empty_rows[:, :, 32:].any()
    assert causal["minus_inf"].empty_rows[:, :, 0].all() and causal["minus_inf"].empty_rows.sum() == 8
    assert not causal["minus_inf"].nan_rows.any()
    assert causal["nan_query"].nan_rows.nonzero().tolist() == [[1, 3, 48]]
    assert causal["nan_key"].nan_rows.sum() == 2 * 32 and causal["nan_key"].nan_rows[0, :2, 64:].all()
    assert causal["nan"].nan_rows.sum() == 2 * 32 + 1
    assert causal["inf"].nan_rows[:, :, 48::2].all() and causal["inf"].nan_rows.sum() == 8 * 24
    for name, w in causal.items():
        assert w.nan_rows.any() == (name in {"nan", "nan_key", "nan_query", "inf"})
        assert w.empty_rows.any() == (name in {"no_key", "minus_inf"})


def valid(**changed):
    return {
        "name": "gauss1",
        "batch": 1,
        "heads": 2,
        "n_queries": 4,
        "head_dim": 8,
        "dtype": torch.float32,
    } | changed


@pytest.mark.parametrize(
    "changed, says",
    [
        ({"name": "gaus1"}, "name must be one of gauss{S}, .*got 'gaus1'"),
        ({"name": "gauss"}, "name must be one of"),
        ({"name": "equal3"}, "name must be one of"),
        ({"name": "captured"}, r"captured\(\)"),
        ({"name": "topic0"}, "whole number T >= 1, got 'topic0'"),
        ({"name": "topic2.5"}, "whole number T >= 1"),
        ({"name": "sink_local"}, "name must be one of"),
        ({"name": "sink_local0"}, "whole number W >= 1, got 'sink_local0'"),
        ({"batch": 0}, "batch must be an int >= 1, got 0"),
        ({"heads": -1}, "heads must be an int >= 1, got -1"),
        ({"n_queries": 2.0}, "n_queries must be an int >= 1, got 2.0"),
        ({"n_keys": True}, "n_keys must be an int >= 1, got True"),
        ({"segment": 0}, "segment must be an int >= 1, got 0"),
        ({"seed": -1}, "seed must be an int >= 0, got -1"),
        ({"kv_heads": 3}, "kv_heads must divide heads, got kv_heads 3 and heads 2"),
        ({"name": "spike", "head_dim": 1}, "head_dim must be >= 2 for spike.*got 1"),
        ({"name": "no_key", "n_keys": 4}, "n_queries > n_keys, got is_causal=True, n_queries 4, n_keys 4"),
        ({"name": "no_key", "is_causal": False}, "no_key needs is_causal=True"),
        ({"dtype": torch.int32}, "dtype must be one of torch.bfloat16, .*got torch.int32"),
        ({"dtype": "float32"}, "dtype must be one of"),
    ],
)
def test_bad_arguments_are_named(changed, says):
    with pytest.raises(ValueError, match=says):
        workload(**valid(**changed))


def test_examples_run():
    assert doctest.testmod(workloads).failed == 0
