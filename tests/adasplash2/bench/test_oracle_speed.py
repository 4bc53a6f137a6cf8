"""Does the timing command time what it says, and is the committed record one of its own?"""

import json
from pathlib import Path

from adasplash2.bench import oracle_speed

RECORD = Path(__file__).resolve().parents[3] / "docs" / "results" / "oracle_speed.json"
CONTENDERS = {"sort"} | {f"{name} {alpha:g}" for name in ("threshold", "entmax") for alpha in oracle_speed.ALPHAS}


def test_the_command_writes_what_it_measured(tmp_path, capsys):
    out = tmp_path / "speed.json"
    assert oracle_speed.main(["--out", str(out), "--n", "64", "--repeats", "1"]) == 0
    record = json.loads(out.read_text(encoding="utf-8"))
    assert [result["kind"] for result in record["results"]] == list(oracle_speed.KINDS)
    assert record["n"] == 64
    for result in record["results"]:
        assert set(result["seconds"]) == CONTENDERS
        assert all(taken > 0.0 for taken in result["seconds"].values())
    assert capsys.readouterr().out.count("times as long") == len(oracle_speed.KINDS)


def test_the_committed_record_is_of_the_size_that_was_promised():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert record["n"] == 4096
    assert {result["kind"] for result in record["results"]} == set(oracle_speed.KINDS)
    assert all(set(result["seconds"]) == CONTENDERS for result in record["results"])
