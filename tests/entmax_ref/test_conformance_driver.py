"""Does the suite run from any directory, and does an adapter that is wrong give one clear line per check?"""

import os
import subprocess
import sys
from pathlib import Path

import ledger
import numpy as np
import pytest

import entmax_ref
from entmax_ref.conformance import (
    BUDGETS,
    CHECKS,
    Attended,
    AttentionTarget,
    Case,
    Known,
    RowTarget,
    TargetError,
    load,
    run_target,
)
from entmax_ref.conformance.outcome import as_record, from_record
from entmax_ref.conformance.precision import FORMATS, rounded
from entmax_ref.conformance.table import summary, told

ROOT = Path(entmax_ref.__file__).parents[1]
QUICK = BUDGETS["quick"]

MODULE = """
import numpy as np
import entmax_ref
from entmax_ref.conformance import Known, RowTarget

def sound():
    return RowTarget(
        name="sound", version="1", dtypes=("float64",), probs=lambda s, alpha, dtype: entmax_ref.entmax(s, alpha)
    )

def doubled():
    return RowTarget(
        name="doubled", version="2", dtypes=("float64",), nonfinite=False,
        known=(Known("nonnegative", "it is said to fail, and does not"), Known("row_sum", "the sum is 2", "a link")),
        probs=lambda s, alpha, dtype: 2.0 * entmax_ref.entmax(s, alpha),
    )

def number():
    return 1.5

def broken():
    raise RuntimeError("no device")
"""


def run(folder, *options, budget="quick"):
    (folder / "mine.py").write_text(MODULE)
    path = os.pathsep.join([str(ROOT), str(folder)])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "entmax_ref.conformance.plugin", "-p", "no:cacheprovider"]
    command += ["--pyargs", "entmax_ref.conformance", "--entmax-budget", budget, *options]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_sound_target_passes_from_any_directory(tmp_path):
    code, text = run(tmp_path, "--entmax-target", "mine:sound")
    assert code == 0, text
    said = "skipped: gradient, gradient_sum, gradient_outside, finite_differences, empty_gradient: a gradient is not"
    assert "sound 1" in text and said in " ".join(text.split()) and "PASS: " in text


def test_a_wrong_target_fails_with_a_reproduction(tmp_path):
    known = ["--entmax-target", "mine:doubled", "--entmax-check", "row_sum", "--entmax-check", "nonnegative"]
    code, text = run(tmp_path, *known, budget="default")
    assert code == 1, text
    assert "known: row_sum: the row sums to 2" in text and "a link" in text
    assert "unexpected pass: doubled, nonnegative" in text
    assert run(tmp_path, *known)[0] == 0  # few examples are no proof that a failure is gone
    code, text = run(tmp_path, "--entmax-target", "mine:doubled", "--entmax-check", "probabilities")
    assert code == 1 and "replay(target, 'probabilities', Case(1.5, 'float64'" in text, text
    assert "load('mine:doubled')" in text


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("mine.sound", "must be package.module:function"),
        ("mine:absent", "does not import"),
        ("nowhere.at_all:rows", "does not import"),
        ("mine:number", "returned float, not a target"),
        ("mine:broken", "raised RuntimeError: no device"),
    ],
)
def test_what_is_no_target_is_one_line(tmp_path, target, words):
    code, text = run(tmp_path, "--entmax-target", target)
    assert code == 4 and "Traceback" not in text
    assert next(line for line in text.splitlines() if line.startswith("ERROR: target")).count(words) == 1, text


@pytest.mark.parametrize(
    ("probs", "words"),
    [
        (lambda s, alpha, dtype: s[0], "the result has shape"),
        (lambda s, alpha, dtype: None, "not of real numbers"),
        (lambda s, alpha, dtype: s.astype(complex), "not of real numbers"),
        (lambda s, alpha, dtype: {}[alpha], "it raised KeyError: 1.5"),
    ],
)
def test_a_bad_answer_is_one_line_per_check(probs, words):
    target = RowTarget(name="bad", version="", probs=probs)
    outcomes = [one for one in run_target(target, QUICK) if one.status != "skipped"]
    assert outcomes and {one.status for one in outcomes} == {"failed"}
    assert all(words in one.sentence and "\n" not in one.sentence for one in outcomes)


@pytest.mark.parametrize("found", [np.zeros(3), (np.zeros(3), np.zeros(3)), None])
def test_gradients_that_are_not_three_are_one_line_per_check(found):
    target = AttentionTarget(
        name="bad", version="", window=True, attend=lambda *operands: Attended(0.0), vjp=lambda *operands: found
    )
    names = [name for name in CHECKS if name in ("query_gradient", "key_gradient", "window_gradient")]
    outcomes = list(run_target(target, QUICK, names=names))
    assert [one.check for one in outcomes] == names and {one.status for one in outcomes} == {"failed"}
    assert all("not the gradients of query, key and value" in one.sentence for one in outcomes)


def test_a_claim_that_makes_no_sense_is_refused():
    with pytest.raises(TargetError, match="one or more of the dtypes float64"):
        from entmax_ref.conformance.loading import made_by

        made_by(RowTarget(name="t", version="", dtypes=("float8",), probs=np.asarray), "here")
    with pytest.raises(TargetError, match="finite and at least 1"):
        made_by(RowTarget(name="t", version="", alphas=(0.5,), probs=np.asarray), "here")
    assert load("entmax_ref.conformance.adapters.oracle:rows")[0].dtypes == ("float64",)


def test_a_known_failure_is_found_on_its_own_example():
    """One that no example of a small budget shows."""
    case = Case(1.5, "float32", {"scores": "np.full(9000, 0.0)"})

    def probs(scores, alpha, dtype):
        return entmax_ref.entmax(scores, alpha) * (2.0 if scores.shape[-1] == 9000 else 1.0)

    target = RowTarget(name="t", version="", probs=probs, known=(Known("row_sum", "long rows", case=case),))
    (outcome,) = run_target(target, QUICK, names=("row_sum",))
    assert outcome.status == "known failure" and outcome.case == case


def test_outcomes_survive_a_file_and_show_in_a_table():
    target = RowTarget(name="halves", version="3", probs=lambda s, alpha, dtype: entmax_ref.entmax(s, alpha) / 2.0)
    outcomes = list(run_target(target, QUICK, names=("row_sum", "gradient")))
    assert [from_record(as_record(one)) for one in outcomes] == outcomes
    text = summary(outcomes)
    assert "halves 3" in text and "row_sum                     FAIL " in text and "FAIL: 1 failed, 1 skipped." in text
    assert max(map(len, told(outcomes[0]).splitlines())) <= 200 and told(outcomes[0]) in text


@pytest.mark.parametrize("dtype", FORMATS)
def test_rounding_is_the_library_s(dtype):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=500) * 10.0 ** rng.integers(-48, 5, 500), [0.0, np.inf, -np.inf]])
    values = values.astype(np.float32).astype(np.float64)  # torch rounds to 16 bits by way of float32
    wanted = torch.from_numpy(values).to(getattr(torch, dtype)).double().numpy()
    largest = FORMATS[dtype].largest
    np.testing.assert_array_equal(
        rounded(values, dtype), np.where(np.isinf(values), values, wanted.clip(-largest, largest))
    )


def test_every_check_is_named_after_a_claim_or_the_contract():
    claims = {claim.name for claim in ledger.claims(Path(__file__).resolve().parents[2])}
    assert {check.claim for check in CHECKS.values()} <= claims | {"contract"}
