"""Do the cases cover what is promised, and do table, record and report say what was found?"""

from __future__ import annotations

import dataclasses
import json
import math
from html.parser import HTMLParser

import pytest
import torch
from verified import DEVICE, SMALL

from adasplash2.runs.machine import Machine
from adasplash2.verify import record, report, runner, table
from adasplash2.verify.cases import DTYPES, case_names, choose_cases
from adasplash2.verify.judge import Comparison
from adasplash2.verify.measure import Result, measure

MACHINE = Machine("0.1.0", "3.11", "2.0", "2.11", "3.6", "cpu", "a CPU, 2 cores", "interpreter")


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
