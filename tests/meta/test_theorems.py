"""Would we notice if a theorem were missing, unfinished, or no longer said what it did?  No Coq is needed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import ledger
import pytest
import theorems

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of all that the ledger's check reads."""
    for folder in ("proofs", *ledger.PACKAGES, "tests"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.vo*", "*.glob")
        )
    assert ledger.problems(tmp_path) == []
    return tmp_path


def test_theorems_are_read():
    stated = theorems.statements(ROOT)
    assert stated["threshold.residual_bound"].endswith("Rabs (t - tau) <= Rabs (mass p z t - 1)")
    proved = [claim for claim in ledger.claims(ROOT) if claim.status in ledger.PROVED]
    assert proved and all(claim.theorem in stated for claim in proved)


def test_every_theorem_can_be_shown():
    for name, statement in theorems.statements(ROOT, kinds=("Theorem",)).items():
        assert theorems.sentences(theorems.shown(ROOT, name)) == [f"Theorem {name.split('.')[1]} {statement}"]


@pytest.mark.parametrize("stage", theorems.stages(ROOT))
def test_a_reader_sees_all_of_a_file(stage):
    shown = theorems.blocks(ROOT, stage)
    text = (ROOT / "proofs" / f"{stage}.v").read_text(encoding="utf-8")
    pieces = [piece for block in shown for piece in (block.text, block.proof) if piece]
    assert "\n".join(pieces).splitlines() == [line for line in text.splitlines() if line.strip()]
    stated = [f"{stage}.{block.name}" for block in shown if block.kind in theorems.STATED]
    assert stated == [name for name in theorems.statements(ROOT) if name.split(".")[0] == stage]
    assert all(block.proof for block in shown if block.kind in theorems.STATED)


def test_comments_are_no_sentences():
    text = "(* a. (* b. *) c. *) Lemma one : 1 = 1.\nProof. (** so. *) reflexivity. Qed.\n"
    assert theorems.sentences(text) == ["Lemma one : 1 = 1", "Proof", "reflexivity", "Qed"]


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        ("threshold.v", "Theorem residual_bound", "Theorem residual_bond", "no theorem threshold.residual_bound"),
        ("ledger.toml", "threshold.residual_bound", "threshold.residual_bond", "no theorem threshold.residual_bond"),
        ("ledger.toml", "threshold.residual_bound", "threshold.tau_unique", "must have the name of the claim"),
        ("ledger.toml", '"threshold.residual_bound"', '""', "no theorem is named"),
        ("threshold.v", "t <= m -> Rabs (t - tau)", "t < m -> Rabs (t - tau)", "a statement changed"),
        ("specification.v", "mass p z tau = 1.", "mass p z tau >= 1.", "a statement changed"),
        ("specification.v", "Open Scope R_scope.", "Open Scope R_scope.\nOpen Scope Z_scope.", "a statement changed"),
        ("threshold.v", "Open Scope R_scope.", "Open Scope R_scope.\nAxiom all : forall P : Prop, P.", "unproved"),
        ("threshold.v", "Open Scope R_scope.", "Open Scope R_scope.\nParameter x : R.", "no place here"),
        ("threshold.v", "Open Scope R_scope.", "Open Scope R_scope.\nSection S.", "no place here"),
        ("threshold.v", "Open Scope R_scope.", "Open Scope R_scope.\nDefinition mass := 1.", "no place here"),
        ("threshold.v", "Open Scope R_scope.", 'Open Scope R_scope.\nNotation "a <= b" := True.', "no place here"),
        ("threshold.v", "Open Scope R_scope.", "Open Scope R_scope.\nUnset Guard Checking.", "unproved"),
        ("threshold.v", "Proof. apply sum_app. Qed.", "Proof. Admitted.", "unproved"),
        ("threshold.v", "Proof. apply sum_app. Qed.", "Proof. admit. Qed.", "unproved"),
        ("threshold.v", "Proof. apply sum_app. Qed.", "apply sum_app. Qed.", "must be 'Proof'"),
        ("_CoqProject", "power.v\n", "", "proofs/power.v: in only one"),
    ],
)
def test_a_planted_fault_is_found(project, file, old, new, complaint):
    path = project / "proofs" / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    found = ledger.problems(project)
    assert any(complaint in line for line in found), found


@pytest.fixture
def check():
    """Return proofs/check.py as a module."""
    specification = importlib.util.spec_from_file_location("check_proofs", ROOT / "proofs" / "check.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_axioms_are_read_from_what_coq_prints(check):
    printed = "Axioms:\nClassical_Prop.classic : forall P : Prop, P \\/ ~ P\nlong.name\n  : forall x,\n    x = x\n"
    assert check.axioms(printed) == {"Classical_Prop.classic", "long.name"}
    assert check.axioms("Closed under the global context\n") == set()


def test_without_coq_the_proofs_are_skipped_aloud_or_required():
    command = [sys.executable, str(ROOT / "proofs" / "check.py")]
    nowhere = {"PATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    for arguments, code in (([], 0), (["--required"], 1)):
        done = subprocess.run([*command, *arguments], env=nowhere, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert "no Coq here" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("coqc") is None, reason="there is no Coq here")
@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("Lemma mass_app", "Axiom cheat : 1 <= 0.\nLemma mass_app", "cheat   NOT ALLOWED"),
        ("Lemma mass_app", "Axiom unused : 1 <= 0.\nLemma mass_app", "leaves something unproved"),
        ("Proof. apply sum_app. Qed.", "Proof. Admitted.", "mass_app   NOT ALLOWED"),
        ("Theorem residual_bound", "Theorem residual_bond", "threshold.residual_bound"),
    ],
)
def test_coq_finds_what_is_planted(project, old, new, complaint):
    path = project / "proofs" / "threshold.v"
    text = path.read_text(encoding="utf-8").replace(old, new, 1)
    if "cheat" in new:  # an axiom that a proof uses
        text = text.replace("Proof. apply sum_app. Qed.", "Proof. pose proof cheat. exfalso. lra. Qed.", 1)
    path.write_text(text, encoding="utf-8")
    # What the planted fault does not concern need not be built again for each of them.
    (project / "proofs" / "_CoqProject").write_text("-Q . Entmax\nspecification.v\npower.v\nthreshold.v\n")
    done = subprocess.run(
        [sys.executable, str(project / "proofs" / "check.py"), "--required"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert complaint in done.stdout + done.stderr
