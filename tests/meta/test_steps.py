"""Is the proof that the documentation goes through still the one in the development?"""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORDS = sorted((ROOT / "proofs" / "steps").glob("*.json"))

PRINTED = """2 goals (ID 5)
\x20\x20
  x, y : R
  H : 0 <=
      x
  ============================
  0 <= x /\\
  x = x

goal 2 (ID 6) is:
 1 <=
 1
"""

FOCUS = """<infomsg>
This subproof is complete, but there are some unfocused goals.
</infomsg>
1 goal

goal 1 (ID 6) is:
 1 <= 1
"""


@pytest.fixture(scope="module")
def stepper():
    """Return proofs/step_through.py as a module."""
    specification = importlib.util.spec_from_file_location("step_through", ROOT / "proofs" / "step_through.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(params=RECORDS, ids=lambda path: path.stem)
def record(request):
    """Return a record."""
    return json.loads(request.param.read_text(encoding="utf-8"))


def agrees(stepper, root: Path, record: dict) -> bool:
    """Return whether the proof in the development is the one on record."""
    sentences = [step["sentence"] for step in record["steps"]]
    name = record["theorem"]
    return sentences == stepper.split(stepper.source(root, name)) and record["source"] == stepper.fingerprint(
        root, name
    )


def test_there_is_a_record():
    assert RECORDS


def test_a_record_has_the_sentences_of_its_proof(stepper, record):
    assert agrees(stepper, ROOT, record)


def test_a_changed_proof_is_noticed(stepper, record, tmp_path):
    stage, name = record["theorem"].split(".")
    shutil.copytree(ROOT / "proofs", tmp_path / "proofs")
    path = tmp_path / "proofs" / f"{stage}.v"
    before, theorem, after = path.read_text(encoding="utf-8").partition(f"Theorem {name} ")
    path.write_text(before + theorem + after.replace("Proof.\n", "Proof.\n  idtac.\n", 1), encoding="utf-8")
    assert not agrees(stepper, tmp_path, record)


def test_every_record_is_shown(record):
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "proofs").glob("*.rst")]
    assert sum(f".. steps:: {record['theorem']}\n" in page for page in pages) == 1


def test_sentences_are_split_as_coq_reads_them(stepper):
    assert stepper.split("Proof. - split. { lra. } * - exact H. Qed.") == [
        *("Proof.", "-", "split.", "{", "lra.", "}", "*", "-", "exact H.", "Qed.")
    ]


def test_goals_are_read_from_what_coq_prints(stepper):
    assert stepper.state(PRINTED) == {
        "hypotheses": ["x, y : R", "H : 0 <= x"],
        "goal": "0 <= x /\\\nx = x",
        "others": ["1 <= 1"],
    }
    assert stepper.state(FOCUS) == {"hypotheses": [], "goal": "", "others": ["1 <= 1"]}
    assert stepper.state("No more goals.\n") == {"hypotheses": [], "goal": "", "others": []}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("coqtop") is None, reason="there is no Coq here")
def test_coq_shows_what_is_on_record(stepper, record):
    again = stepper.record(ROOT, record["theorem"])
    if again["coq"] != record["coq"]:
        pytest.skip(f"recorded with Coq {record['coq']}, here is {again['coq']}, which may print otherwise")
    assert again == record
