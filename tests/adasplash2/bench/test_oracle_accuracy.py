"""Does the measurement run, would it notice a wrong answer, and does the committed record keep what is promised?"""

import json
from pathlib import Path

import numpy as np
import pytest

from adasplash2.bench import oracle_accuracy

pytest.importorskip("flint", reason="ball arithmetic comes with the extra certify")

ROOT = Path(__file__).resolve().parents[3]
RECORD = ROOT / "docs" / "results" / "oracle_accuracy.json"


def test_the_command_writes_a_record(tmp_path):
    out = tmp_path / "record.json"
    arguments = ["--rows", "600", "--alpha", "1.5", "--processes", "1", "--seed", "5", "--out", str(out)]
    assert oracle_accuracy.main(arguments) == 0
    record = json.loads(out.read_text(encoding="utf-8"))
    (result,) = record["results"]
    found = result["implementations"]["entmax_ref"]
    assert result["alpha"] == 1.5 and found["rows"] == 1000 and record["seed"] == 5
    assert record["command"].startswith("python -m adasplash2.bench.oracle_accuracy --rows 600")
    assert found["tau_of_bound"] <= 1.0 and found["probs_of_bound"] <= 1.0 and found["undecided"] == 0


@pytest.mark.parametrize("block", range(11))
def test_blocks_are_reproducible_and_of_their_kind(block):
    scores = oracle_accuracy.draw(1.5, block, seed=3)
    np.testing.assert_array_equal(scores, oracle_accuracy.draw(1.5, block, seed=3))
    assert scores.shape[0] == oracle_accuracy.rows_of(block) and np.isfinite(scores).all()


def test_a_wrong_answer_is_noticed(monkeypatch):
    right = oracle_accuracy.measure((1.5, 0, 3))["entmax_ref"]
    assert right["tau_of_bound"] <= 1.0 and right["wrong_support"] == 0.0
    threshold = oracle_accuracy.threshold
    monkeypatch.setattr(oracle_accuracy, "threshold", lambda scores, alpha: threshold(scores, alpha) + 1e-14)
    assert oracle_accuracy.measure((1.5, 0, 3))["entmax_ref"]["tau_of_bound"] > 1.0
    monkeypatch.setattr(oracle_accuracy, "entmax", lambda scores, alpha: np.full(scores.shape, np.nan))
    wrong = oracle_accuracy.measure((1.5, 0, 3))["entmax_ref"]
    assert wrong["probs_ulps"] == wrong["sum_ulps"] == wrong["probs_of_bound"] == np.inf
    monkeypatch.setattr(oracle_accuracy, "support", lambda scores, alpha: np.ones(scores.shape, dtype=bool))
    assert oracle_accuracy.measure((1.5, 0, 3))["entmax_ref"]["wrong_support"] > 0.0


def test_worst_errors_add_up_and_bounds_follow_them():
    parts = [
        {"entmax_ref": {"rows": 2.0, "tau_ulps": 1.0, "tau_bound_ulps": 9.0}},
        {"entmax_ref": {"rows": 3.0, "tau_ulps": 2.0, "tau_bound_ulps": 5.0}},
        {"entmax_ref": {"rows": 4.0, "tau_ulps": 1.5, "tau_bound_ulps": 8.0}},
    ]
    assert oracle_accuracy.combine(iter(parts)) == {"entmax_ref": {"rows": 9.0, "tau_ulps": 2.0, "tau_bound_ulps": 5.0}}


def test_the_committed_record_keeps_the_promises():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert [result["alpha"] for result in record["results"]] == list(oracle_accuracy.ALPHAS)
    for result in record["results"]:
        found = result["implementations"]["entmax_ref"]
        assert found["rows"] >= 100_000 and found["undecided"] == 0
        assert found["tau_of_bound"] <= 1.0 and found["probs_of_bound"] <= 1.0
        assert found["tau_ulps"] <= 4.0 and found["sum_ulps"] <= 4.0
        assert found["wrong_support"] == 0.0
        assert {"entmax_ref", "entmax_bisect"} <= result["implementations"].keys()
