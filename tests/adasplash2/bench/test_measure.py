"""Are the parts of a measurement right?  Cases, floor, support, errors, turns; then the whole, on small cases."""

import dataclasses
import doctest
import math

import pytest
import torch

import entmax_ref
from adasplash2.bench.attention import floor, sparsity
from adasplash2.bench.attention.accuracy import ROWS, choose_windows, sample_of
from adasplash2.bench.attention.cases import Case, case_of, chosen_cases, default_cases, quick_cases
from adasplash2.bench.attention.contenders import contenders_of
from adasplash2.bench.attention.contest import Contest
from adasplash2.bench.attention.flex import flex_check
from adasplash2.bench.attention.measure import Bench
from adasplash2.bench.shared import faults, timing
from adasplash2.bench.shared.stages import random_like
from adasplash2.reference import reference_attention
from adasplash2.workloads import workload


def load_of(name, n_queries=200, n_keys=None, *, is_causal=True, dtype=torch.float32, **sizes):
    sizes = {"batch": 2, "heads": 2, "head_dim": 16, "segment": 32} | sizes
    return workload(name, n_queries=n_queries, n_keys=n_keys, is_causal=is_causal, dtype=dtype, **sizes)


def test_every_case_has_32768_tokens_or_one_sequence():
    cases = default_cases()
    assert cases[0] == case_of("topic16", 32768) and cases[-1] == dataclasses.replace(cases[0], run=2)
    for case in cases:
        assert case.batch * case.length == max(32768, case.length)
        assert case.batch * case.heads * case.length == 16 * 32768
    assert {case.length for case in cases} == {8192, 32768, 131072}
    assert {case.workload for case in cases} == {"topic16", "gauss1", "gauss4", "sink_local1024"}
    assert {(case.head_dim, case.mask) for case in cases} == {(64, "causal"), (128, "causal"), (64, "full")}
    assert sum(case.alpha == 2.0 for case in cases) == 1
    assert len({case.label for case in cases}) == len(cases)
    assert len(quick_cases()) == 4 and {case.head_dim for case in quick_cases()} == {64}


def test_choices_are_combined():
    cases = chosen_cases(workloads=["topic16", "gauss1"], lengths=[1000, 2000], masks=["full"], dtypes=["fp16"])
    assert [case.label for case in cases[:2]] == ["topic16 1000 d64 full fp16", "gauss1 1000 d64 full fp16"]
    assert len(cases) == 4 and cases[0].batch == 32
    assert len(chosen_cases(head_dims=[128])) == 4


def test_examples_run():
    assert doctest.testmod(floor).failed == 0


def test_floor_counts_products():
    case = Case("topic16", 1024, 2, 4, 64)
    found = floor.floor_of(case, live_blocks=100, rate=1e12)
    assert math.isclose(found.dense_ms, 1e3 * 2 * 4 * 1024**2 * 64 / 1e12)
    product = 1e3 * 100 * 2 * 64 * 64 * 64 / 1e12
    assert math.isclose(found.forward_ms, found.dense_ms + floor.FORWARD_PRODUCTS * product)
    assert math.isclose(found.step_ms, found.dense_ms + 10 * product)
    full = floor.floor_of(dataclasses.replace(case, is_causal=False), 100, 1e12)
    assert math.isclose(full.dense_ms, 2 * found.dense_ms)
    of_stages = [found.stage_ms(stage) for stage in ("dense", "output", "backward_dq", "backward_dkdv")]
    assert math.isclose(sum(of_stages), found.step_ms)
    assert found.stage_ms("refine") is None


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(("n_queries", "n_keys"), [(200, 200), (70, 200), (200, 70), (64, 64), (1, 65)])
def test_support_is_that_of_the_reference(n_queries, n_keys, is_causal, monkeypatch):
    monkeypatch.setattr(sparsity, "SCORES_AT_ONCE", 64 * 65)  # several chunks
    load = load_of("topic4", n_queries, n_keys, is_causal=is_causal, kv_heads=1)
    query, key, value = (x.double() for x in (load.query, load.key, load.value))
    _, tau, _, kept, *_ = reference_attention(query, key, value, alpha=1.5, is_causal=is_causal, scale=0.25)
    arrays = [x.numpy() for x in (query, key, value)]
    options = {"is_causal": is_causal, "scale": 0.25, "enable_gqa": True, "return_aux": True}
    _, exact = entmax_ref.attention(*arrays, alpha=1.5, **options)
    found = sparsity.support_of(load.query, load.key, tau.float(), alpha=1.5, is_causal=is_causal, scale=0.25)
    assert found.live_blocks == int(kept.sum())
    assert found.keys == exact.support_size.sum() and found.rows == 4 * n_queries
    seen = torch.ones(n_queries, n_keys)
    if is_causal:
        seen = seen.tril(n_keys - n_queries)
    blocks = torch.nn.functional.max_pool2d(seen[None, None], 64, ceil_mode=True)
    assert found.visible_blocks == 4 * int(blocks.sum())


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_sampled_rows_are_judged_as_all_rows_would_be(alpha, is_causal):
    load = load_of("gauss4", 300, dtype=torch.bfloat16, is_causal=is_causal)
    d_out = random_like(load.query, seed=1)
    sample = sample_of(load, d_out, alpha)
    leaves = [x.double().requires_grad_() for x in (load.query, load.key, load.value)]
    out, tau, *_ = reference_attention(*leaves, alpha=alpha, is_causal=is_causal, scale=0.25)
    d_query, _, _ = torch.autograd.grad(out, leaves, d_out.double())
    errors = sample.errors(out, d_query)
    assert errors["out"] <= 1e-12 and errors["d_query"] <= 1e-9 and sample.tau_error(tau) <= 1e-12
    # rounding alone is what bfloat16 costs, and naive adds little to it
    rounded = sample.errors(out.bfloat16(), d_query.bfloat16())
    for name in ("out", "d_query"):
        assert 5e-4 <= rounded[name] <= sample.naive[name] <= 10.0 * rounded[name]
    assert math.isnan(sample.errors(out * math.nan, d_query)["out"])
    assert math.isnan(sample.tau_error(tau * math.nan))


def test_windows_hold_the_first_and_the_last_head_and_the_last_rows():
    windows = choose_windows(load_of("gauss1", 300))
    assert {(w.item, w.head) for w in windows} == {(0, 0), (1, 1)}
    assert all(w.stop - w.start == ROWS and w.n_keys == w.stop for w in windows)
    assert sum(w.stop == 300 for w in windows) == 2
    (short,) = choose_windows(load_of("gauss1", 10, 20, is_causal=False, batch=1, heads=1))
    assert (short.start, short.stop, short.n_keys) == (0, 10, 20)


def test_flex_finds_the_mass_and_a_wrong_tau():
    load = load_of("topic4", 150)
    out, tau, *_ = reference_attention(load.query, load.key, load.value, alpha=1.5, is_causal=True, scale=0.25)
    right = flex_check(load, out, tau, 1.5, compiled=False)
    assert right.log_mass <= 1e-5 and right.out <= 1e-5
    assert flex_check(load, out, tau - 0.1, 1.5, compiled=False).log_mass >= 0.05


def test_contenders_say_what_they_refuse():
    refusals = {one.name: one.refusal for one in contenders_of(case_of("topic16", 1000, dtype="fp32"))}
    assert refusals["ours"] == "" and "half precision" in refusals["flash"] == refusals["cudnn"]
    assert refusals["adasplash"]


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (case_of("topic16", 1000), "powers of two from 64 on, not 1000"),
        (case_of("topic16", 32), "powers of two from 64 on, not 32"),
        (case_of("topic16", 1024, mask="full"), "causal calls of alpha 1.5"),
        (case_of("topic16", 1024, alpha=2.0), "causal calls of alpha 1.5"),
        (case_of("topic16", 1024, 96), "not 96"),
    ],
)
def test_adasplash_is_not_asked_for_what_it_cannot_do(monkeypatch, case, says):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    (one,) = contenders_of(case, ["adasplash"])
    assert says in one.refusal


def test_turns_go_round_and_a_failure_ends_one_contender_only(monkeypatch):
    order = []

    def failing():
        order.append("b")
        raise RuntimeError("no room\nat all")

    found = timing.in_turns({"a": lambda: order.append("a"), "b": failing, "c": lambda: order.append("c")}, 2, "cpu")
    assert order == ["a", "b", "c", "a", "c"]
    assert len(found["a"]) == len(found["c"]) == 2 and found["b"] == "RuntimeError: no room"


def test_stages_are_timed_in_their_order_over_fresh_memory():
    made = []

    @dataclasses.dataclass
    class Stage:
        stage: str

        def run(self):
            made.append(self.stage)

    found = timing.stage_times(lambda: [Stage("first"), Stage("second"), Stage("first")], "cpu", repeats=2)
    assert [name for name, _ in found] == ["first", "second", "first"]
    assert made == ["first", "second", "first"] * 3


def test_tuning_time_is_not_overdrawn(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    contest = Contest("cpu", ["adasplash"], 1, tuning_s=0.0)
    load = load_of("gauss1", 64)
    case = Case("gauss1", 64, 2, 2, 16)
    (entry,) = contest.entries(case, load, random_like(load.query, 1), None)
    assert entry.status == "refused" and "--tuning-time" in entry.note
    # it is not installed here: it fails, the others are not touched, and the time is counted
    contest = Contest("cpu", ["flash", "adasplash"], 1, tuning_s=1e-9)
    flash, first = contest.entries(case, load, random_like(load.query, 1), None)
    assert flash.status == "ok" and first.status == "failed" and "adasplash" in first.note
    (_, other) = contest.entries(dataclasses.replace(case, length=128), load, random_like(load.query, 1), None)
    assert other.status == "refused" and "took 0 s so far" in other.note


def test_a_lost_device_is_told_from_an_error(monkeypatch):
    faults.recover("cpu", "ours")

    def lost(device):
        raise RuntimeError("an illegal memory access was encountered\nmore")

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    with pytest.raises(faults.DeviceLostError, match="adasplash left the device unusable: RuntimeError: an illegal"):
        faults.recover("cuda:0", "adasplash")


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels of this process are compiled")
@pytest.mark.parametrize(
    "case", [Case("topic16", 100, 1, 1, 16), Case("sink_local16", 70, 1, 1, 16, False, 2.0, "fp32")], ids=str
)
def test_a_small_case_from_end_to_end(case):
    contest = Contest("cpu", ["ours", "flash", "cudnn"], 1, 60.0)
    bench = Bench("cpu", contest, flex=True, rate_size=64)
    result = bench.measure(case)
    assert result.failures == ()
    ours, _, cudnn = result.entries
    assert ours.status == "ok" and len(ours.forward_ms) == len(ours.step_ms) == 1 and ours.first_call_s > 0.0
    assert cudnn.status == ("refused" if case.dtype == "fp32" else "failed") and cudnn.note
    for name in ("out", "d_query"):
        unit = torch.finfo(torch.bfloat16 if case.dtype == "bf16" else torch.float32).eps / 2
        assert ours.errors[name] <= 2.0 * result.naive[name] + unit
    assert sum(result.rows.passes.values()) == case.batch * case.heads * case.length == result.support.rows
    assert result.rows.mass_error <= 1e-5 and result.rows.tau_error <= 1e-5 and result.flex.log_mass <= 1e-4
    assert result.floor.step_ms > 0.0 and list(bench.rates) == [case.dtype]
    named = [stage.stage for stage in result.stages]
    assert "dense" in named and "backward_dkdv" in named


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels of this process are compiled")
def test_a_failure_of_ours_is_recorded_and_the_others_go_on(monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("out of resource: shared memory\nlong explanation")

    for module in ("contenders", "measure"):
        monkeypatch.setattr(f"adasplash2.bench.attention.{module}.entmax_attention", broken)
    bench = Bench("cpu", Contest("cpu", ["ours", "flash"], 1, 60.0), rate_size=64)
    result = bench.measure(Case("gauss1", 70, 1, 1, 16))
    ours, flash = result.entries
    assert (ours.status, ours.note) == ("failed", "RuntimeError: out of resource: shared memory")
    assert flash.status == "ok" and result.failures == ("rows: RuntimeError: out of resource: shared memory",)
    assert result.rows is None and result.stages == () and result.naive
