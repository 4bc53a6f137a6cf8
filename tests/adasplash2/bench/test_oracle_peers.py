"""Does the comparison see a wrong map, and is the committed record one of its own?"""

import json
from pathlib import Path

import numpy as np
import pytest

import entmax_ref
from adasplash2.bench import oracle_peers

pytest.importorskip("flint", reason="ball arithmetic comes with the extra certify")

RECORD = Path(__file__).resolve().parents[3] / "docs" / "results" / "oracle_peers.json"


def test_a_wrong_map_is_noticed(monkeypatch):
    monkeypatch.setattr(oracle_peers, "ROWS", 80)
    right = oracle_peers.wrong_rows(lambda scores: entmax_ref.entmax(scores, 2.0), 2.0, seed=3)
    assert right == {"support": 0, "probs": 0, "rows": 80}
    for wrong in (entmax_ref.softmax, lambda scores: np.full(scores.shape, np.nan)):
        found = oracle_peers.wrong_rows(wrong, 2.0, seed=3)
        assert found["support"] > 20 and found["probs"] > 20


def test_the_losses_are_asked_for_visible_targets():
    scores, target = oracle_peers.hidden_rows(seed=1)
    assert scores.shape == (oracle_peers.ROWS, oracle_peers.KEYS)
    assert np.isfinite(np.take_along_axis(scores, target[:, None], axis=-1)).all()
    assert np.count_nonzero(scores == -np.inf) == oracle_peers.ROWS * oracle_peers.HIDDEN


def test_the_committed_record_is_of_these_rows():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert [result["alpha"] for result in record["results"]] == list(oracle_peers.ALPHAS)
    for result in record["results"]:
        assert result["implementations"]["entmax_ref"] == {"support": 0, "probs": 0, "rows": 2000, "loss": 0}
        assert all(counts["rows"] == oracle_peers.ROWS for counts in result["implementations"].values())
