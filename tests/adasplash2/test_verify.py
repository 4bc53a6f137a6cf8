"""Does `verify` see what is wrong, and pass what is right?  Planted faults must fail, one by one."""

from __future__ import annotations

import dataclasses
import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

import entmax_ref
from adasplash2.verify import record, report, runner, stage_checks, table
from adasplash2.verify.answer import answer_of
from adasplash2.verify.cases import DTYPES, Case, case_names, choose_cases
from adasplash2.verify.judge import Comparison, budget, judge, relative_error
from adasplash2.verify.machine import Machine
from adasplash2.verify.measure import Result, measure
from adasplash2.verify.naive import naive_attention, row_gaps
from adasplash2.verify.truth import as_floats, each_head, in_blocks, live_blocks, truth_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MACHINE = Machine("0.1.0", "3.11", "2.0", "2.11", "3.6", "cpu", "a CPU, 2 cores", "interpreter")
SMALL = Case("topic16", "fp32", 2, 1, 130, 150, 32, True)


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Everything that `judge` takes."""

    case: Case
    load: object
    truth: object
    answer: object
    naive: object
    live: np.ndarray

    def failures(self, **planted):
        answer = dataclasses.replace(self.answer, **planted)
        return judge(self.load, self.truth, answer, self.naive, self.live).failures


def gather(case):
    load = case.load(DEVICE)
    truth = truth_of(load, case.alpha, case.seed)
    answer = answer_of(load, truth.d_out, alpha=case.alpha, impl="triton")
    naive = naive_attention(
        load.query, load.key, load.value, truth.d_out.to(DEVICE), alpha=case.alpha, is_causal=case.is_causal,
        scale=case.head_dim**-0.5,
    )  # fmt: skip
    return Evidence(case, load, truth, answer, naive, live_blocks(load, truth, case.alpha, answer.block))


@pytest.fixture(scope="module")
def evidence():
    return gather(SMALL)


@pytest.fixture(scope="module")
def poisoned():
    return gather(dataclasses.replace(SMALL, name="nan", dtype="fp16", n_queries=70, n_keys=70))


@pytest.fixture(scope="module")
def stage_run(evidence):
    return stage_checks.run_stages(evidence.load, evidence.truth.d_out, SMALL.alpha)


@pytest.fixture(scope="module")
def key_run(evidence):
    """The stages by single keys, in float32, all the way."""
    fields = {"row_entries": 192, "tile_pairs": 2**20}
    return stage_checks.run_stages(evidence.load, evidence.truth.d_out, SMALL.alpha, **fields)


# The naive evaluation, which sets the budgets.


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


# The rules.


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


def test_the_error_of_z_covers_what_float32_does():
    load = dataclasses.replace(SMALL, name="offset", n_queries=50, n_keys=50).load("cpu")
    for head in each_head(load, 1.5):
        query, key = torch.from_numpy(head.query).float(), torch.from_numpy(head.key).float()
        z = (query @ key.T) * (0.5 * 32**-0.5)
        seen = head.z > -np.inf
        assert (np.abs(z.double().numpy() - head.z)[seen] <= head.z_error[seen]).all()
        assert head.z_error.max() < 0.1


# The stages.


def test_every_stage_passes(evidence):
    checks = stage_checks.check_stages(evidence.load, evidence.truth, evidence.answer, evidence.naive, SMALL.alpha)
    assert [check for check in checks if not check.passed] == []
    stages = {check.stage for check in checks}
    assert stages >= {"dense", "solve", "histogram", "refine", "block_mask", "block_mask_transpose", "block_list"}
    assert stages >= {"output", "backward_dq", "backward_dkdv", "columns", "column_order", "repeat"}


@pytest.mark.parametrize(
    ("rule", "name", "change"),
    [
        ("row_max", "row_max", lambda x: x + 1e-3),
        ("candidates missing", "candidates", np.zeros_like),
        ("candidates too many", "candidates", np.ones_like),
        ("lo <= tau", "lo", lambda x: x + 1.0),
        ("tau", "tau", lambda x: x + 1e-2),
        ("residual", "residual", lambda x: x + 1.0),
        ("rows at the cap of passes", "passes", lambda x: x + 40),
        ("bits outside the candidates", "block_mask", np.ones_like),
        ("bits too many", "block_mask", np.ones_like),
    ],
)
def test_a_wrong_stage_fails(evidence, stage_run, rule, name, change):
    forward = stage_run.forward | {name: change(stage_run.forward[name])}
    run = dataclasses.replace(stage_run, forward=forward)
    checks = stage_checks.check_rows(evidence.load, evidence.truth, run, SMALL.alpha)
    assert rule in {check.rule for check in checks if not check.passed}


@pytest.mark.parametrize(
    ("rule", "name", "change"),
    [
        ("lo <= tau", "tile_lo", lambda x: x + 0.25),
        ("tau <= hi", "hi", lambda x: x - 0.25),
        ("hi - lo", "hi", lambda x: x + 1.0),
        ("first tau outside the bracket", "first_tau", lambda x: x + 1.0),
        ("tau", "tau", lambda x: x + 1e-2),
    ],
)
def test_a_wrong_stage_of_rows_that_go_by_tiles_fails(evidence, rule, name, change):
    run = stage_checks.run_stages(evidence.load, evidence.truth.d_out, SMALL.alpha, row_entries=0)
    assert run.by_tiles.all()
    right = stage_checks.check_rows(evidence.load, evidence.truth, run, SMALL.alpha)
    assert all(check.passed for check in right)
    run = dataclasses.replace(run, forward=run.forward | {name: change(run.forward[name])})
    checks = stage_checks.check_rows(evidence.load, evidence.truth, run, SMALL.alpha)
    assert rule in {check.rule for check in checks if not check.passed}


@pytest.mark.parametrize(
    "rule, name", [("support missing", "rows"), ("support too many", "rows"), ("pairs that differ", "columns")]
)
def test_a_wrong_support_fails(evidence, key_run, rule, name):
    gathered = key_run.gathered
    assert gathered.has_rows.any() and gathered.has_columns.any()
    right = stage_checks.check_gathered(evidence.load, evidence.truth, key_run, SMALL.alpha)
    assert len(right) == 4 and all(check.passed for check in right)
    bits = getattr(gathered, name).copy()
    listed = (gathered.has_rows if name == "rows" else gathered.has_columns)[..., None]
    flipped = np.argwhere(listed & (bits if rule != "support too many" else ~bits))[0]
    bits[tuple(flipped)] ^= True
    wrong = dataclasses.replace(key_run, gathered=dataclasses.replace(gathered, **{name: bits}))
    checks = stage_checks.check_gathered(evidence.load, evidence.truth, wrong, SMALL.alpha)
    assert rule in {check.rule for check in checks if not check.passed}


def test_columns_out_of_order_fail(evidence, key_run):
    unordered = key_run.gathered.unordered.copy()
    unordered.flat[0] = True
    wrong = dataclasses.replace(key_run, gathered=dataclasses.replace(key_run.gathered, unordered=unordered))
    checks = stage_checks.check_gathered(evidence.load, evidence.truth, wrong, SMALL.alpha)
    assert [check.rule for check in checks if not check.passed] == ["columns that do not ascend"]


def test_a_bit_that_differs_in_the_second_run_fails(evidence, stage_run):
    assert stage_checks.same_bits(evidence.answer, stage_run).passed
    out = evidence.answer.out.copy()
    out[0, 0, 0, 0] = np.nextafter(out[0, 0, 0, 0], 1)
    assert not stage_checks.same_bits(dataclasses.replace(evidence.answer, out=out), stage_run).passed


def test_blocks_of_pairs():
    pairs = np.zeros((5, 7), dtype=bool)
    pairs[4, 6] = True
    assert in_blocks(pairs, (2, 4)).tolist() == [[False, False], [False, False], [False, True]]


# The cases.


@pytest.mark.parametrize("interpreted", [True, False])
def test_the_cases_cover_what_the_kernels_promise(interpreted):
    cases = choose_cases(interpreted=interpreted)
    assert {case.dtype for case in cases} == set(DTYPES)
    assert {case.alpha for case in cases} == {1.5, 2.0}
    assert {case.head_dim for case in cases} >= {32, 40, 64, 128}
    assert {case.is_causal for case in cases} == {case.is_strided for case in cases} == {True, False}
    assert any(case.heads != case.kv_heads for case in cases)
    assert any(case.n_queries != case.n_keys for case in cases)
    assert any(case.n_keys % 64 for case in cases) and any(case.batch > 1 for case in cases)
    assert any(case.stages for case in cases) and any(case.picture for case in cases)
    assert len(set(cases)) == len(cases)
    for case in cases:
        assert case.load("cpu").query.shape == (case.batch, case.heads, case.n_queries, case.head_dim)


def test_cases_are_chosen_by_name_and_dtype():
    assert {case.name for case in choose_cases(interpreted=True, names=("sink", "spike"))} == {"sink", "spike"}
    assert {case.dtype for case in choose_cases(interpreted=True, dtypes=("fp16",))} == {"fp16"}
    quick = choose_cases(interpreted=True, quick=True)
    assert 0 < len(quick) <= len(choose_cases(interpreted=True)) / 3
    assert {case.dtype for case in quick} == set(DTYPES)
    for name in case_names():
        assert choose_cases(interpreted=True, quick=True, names=(name,)), name


def test_a_transposed_case_is_not_contiguous():
    load = dataclasses.replace(SMALL, is_strided=True).load("cpu")
    assert not load.query.is_contiguous()
    torch.testing.assert_close(load.query, SMALL.load("cpu").query, rtol=0, atol=0)


def test_a_case_that_raises_is_a_failed_case(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("out of shared memory\nand more")

    monkeypatch.setattr("adasplash2.verify.measure.answer_of", broken)
    result = measure(SMALL, DEVICE, "triton")
    assert result.failures == ("RuntimeError: out of shared memory",)
    assert "NO" in table.body(MACHINE, [result], asked=1, seconds=1.0)


# What people and programs read.


@pytest.fixture(scope="module")
def results():
    return [
        measure(dataclasses.replace(SMALL, stages=True, picture=True), DEVICE, "triton"),
        measure(dataclasses.replace(SMALL, name="nan", dtype="bf16", n_keys=70), DEVICE, "triton"),
    ]


@pytest.fixture(scope="module")
def broken(results):
    bad = dict(results[0].comparisons, d_key=Comparison(math.nan, 1e-6), d_query=Comparison(2.5e9, 1e9))
    failures = ("d_key is off by nan, budget 1.00e-06 <&>",)
    return [dataclasses.replace(results[0], comparisons=bad, lost=2, failures=failures), results[1]]


def test_the_table_fits_and_says_it_all(results, broken):
    text = table.heading(MACHINE) + "\n" + table.body(MACHINE, results, asked=2, seconds=3.0)
    assert max(map(len, text.splitlines())) <= 119
    assert "interpreter on cpu" in text and "torch 2.11" in text and "triton 3.6" in text
    assert "ok topic16" in text and "unit roundoff 6.0e-08" in text and "ok histogram" in text
    assert text.splitlines()[-1].startswith("PASS (2 of 2 cases, 3 s)")
    assert text.count("median row fails at") == 2 and "every row (a query of a head; for d_k and d_v a key)" in text
    text = table.body(MACHINE, broken, asked=2, seconds=3.0)
    assert "NO topic16" in text and "nan/1.0e-6" in text and "d_key is off by nan" in text
    assert max(map(len, text.splitlines())) <= 119
    assert text.splitlines()[-1].startswith("FAIL (2 of 2")
    assert "INTERRUPTED (1 of 2" in table.body(MACHINE, results[:1], asked=2, seconds=3.0)
    assert "no kernel ran" in table.verdict(dataclasses.replace(MACHINE, mode="reference"), results, 2, 1.0)


def test_longest_names_and_shapes_fit_their_columns():
    comparisons = {name: Comparison(1.2e-3, 3.4e-3) for name in ("out", "d_query", "d_key", "d_value", "mass")}
    for interpreted in (True, False):
        for case in choose_cases(interpreted=interpreted):
            result = Result(case, "", comparisons, {0: 500, 1: 490, 2: 9, 3: 1}, 9, 0, 1.0, 9, 0, 0, 0, (), (), 1.0)
            assert max(map(len, table.body(MACHINE, [result], asked=1, seconds=1.0).splitlines())) <= 119, case


def test_passes_in_few_characters():
    assert table.passes_text({}) == "-"
    assert table.passes_text({0: 12, 1: 80, 2: 8}) == "12/80/8"
    assert table.passes_text({1: 999, 5: 1}) == "0/100/0/<1"


def test_json_holds_every_number(broken, tmp_path):
    record.write_json(tmp_path / "run.json", MACHINE, broken, asked=2, seconds=3.0)
    run = json.loads((tmp_path / "run.json").read_text(), parse_constant=pytest.fail)
    assert set(run) == {"schema", "date", "machine", "seconds", "cases_asked", "passed", "results"}
    assert run["schema"] == 2 and run["passed"] is False and run["machine"]["mode"] == "interpreter"
    first = run["results"][0]
    assert first["case"]["name"] == "topic16" and first["lost"] == 2 and first["passed"] is False
    assert first["comparisons"]["d_key"] == {"error": "nan", "budget": 1e-6, "passed": False}
    assert sum(first["passes"].values()) == 260 and len(first["stages"]) == len(broken[0].stages)
    assert {"stage", "rule", "error", "budget", "passed"} == set(first["stages"][0])


class Loads(HTMLParser):
    """Collects whatever would make a browser load something, and unbalanced tags."""

    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.found += [(tag, name) for name, _ in attrs if name in ("src", "href", "xlink:href", "action", "data")]
        self.found += [tag] if tag in ("script", "link", "iframe", "img", "object", "base") else []
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_loads_nothing(results, broken, tmp_path):
    report.write_report(tmp_path / "run.html", MACHINE, broken, asked=2, seconds=3.0)
    text = (tmp_path / "run.html").read_text(encoding="utf-8")
    parser = Loads()
    parser.feed(text)
    assert parser.found == [] and parser.open == []
    assert "http" not in text and "url(" not in text and "@import" not in text
    assert "FAIL" in text and "d_key is off by nan, budget 1.00e-06 &lt;&amp;&gt;" in text
    assert text.count("<svg") == 3 and "kept, holds support" in text and "2 of" in text
    assert "<h2>Row by row</h2>" in text and "0 of 260" in text and "; 0 of 260 rows over" in text
    assert 'class="verdict pass"' in report.page(MACHINE, results, asked=2, seconds=1.0)
    assert 'class="verdict fail"' in report.page(MACHINE, [], asked=2, seconds=1.0)


def test_spread_puts_what_compiles_anew_first():
    cases = choose_cases(interpreted=False)
    order = runner.spread(cases)
    assert sorted(order) == list(range(len(cases)))
    kinds = [(cases[index].dtype, cases[index].head_dim, cases[index].alpha) for index in order]
    assert len(set(kinds[: len(kinds) // 2])) == len(set(kinds))
