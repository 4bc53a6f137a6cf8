"""Do ledger, code, tests and proofs name the same claims, and would we notice if they did not?"""

from __future__ import annotations

from pathlib import Path

import ledger
import pytest

ROOT = Path(__file__).resolve().parents[2]

ENTRY = """
[[lemma]]
name = "{name}"
statement = "One is one."
status = "{status}"
theorem = ""
code = {code}
"""


def write(root: Path, file: str, text: str) -> None:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a small project in which everything agrees."""
    write(
        tmp_path,
        "proofs/ledger.toml",
        ENTRY.format(name="first", status="paper", code='["adasplash2/kernels/stage.py", "entmax_ref/map.py"]')
        + ENTRY.format(name="second", status="assumed", code='["entmax_ref/map.py"]'),
    )
    write(tmp_path, "proofs/README.md", "# Proofs\n\n### first\n\nObvious.\n")
    write(tmp_path, "proofs/REASONS.md", "# Reasons\n\n## map\n\n### first\n\nSee.\n\n### second\n\nSo.\n")
    write(tmp_path, "entmax_ref/map.py", '"""A map.  Lemmas: first,\nsecond\n"""\n')
    write(tmp_path, "adasplash2/kernels/stage.py", "# rounding is monotone. Lemma: first\n")
    write(
        tmp_path,
        "tests/sub/test_map.py",
        "from lemmas import lemma\n\n\n"
        '@lemma("first")\ndef test_one():\n    pass\n\n\n'
        '@lemma("second")\nclass TestTwo:\n    def test_two(self):\n        pass\n',
    )
    return tmp_path


def test_ledger_code_tests_and_proofs_agree():
    found = ledger.problems(ROOT)
    assert not found, "\n".join(["the ledger and the project disagree:", *found])


def test_agreement_is_recognised(project):
    assert ledger.problems(project) == []
    assert ledger.test_sites(project) == {
        "first": {"tests/sub/test_map.py::test_one"},
        "second": {"tests/sub/test_map.py::TestTwo::test_two"},
    }


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        ("adasplash2/kernels/stage.py", "Lemma: first", "Lemma: frist", "frist: named in code"),
        ("entmax_ref/map.py", "second", "secnod", "secnod: named in code"),
        ("tests/sub/test_map.py", '@lemma("first")', '@lemma("frist")', "frist: named in tests"),
        ("tests/sub/test_map.py", '@lemma("second")', "", "second: no test carries"),
        ("tests/sub/test_map.py", "def test_one", "def unused", "does not collect"),
        ("tests/sub/test_map.py", '@lemma("first")', "@lemma(NAME)", "plain strings"),
        ("tests/sub/test_map.py", '@lemma("first")', "@lemma", "plain strings"),
        ("entmax_ref/map.py", "Lemmas: first,\nsecond", "", "second: no code names it"),
        ("adasplash2/kernels/stage.py", "Lemma: first", "", "first: the ledger has code ="),
        ("proofs/README.md", "### first", "### fisrt", "first: no section"),
        ("proofs/README.md", "### first", "### fisrt", "fisrt: has a proof but no entry"),
        ("proofs/README.md", "Obvious.", "Obvious.\n\n### first", "first: proved more than once"),
        ("proofs/REASONS.md", "### first", "### fisrt", "first: 0 sections"),
        ("proofs/REASONS.md", "### first", "### fisrt", "fisrt: has a reason but no entry"),
        ("proofs/REASONS.md", "### second", "### first", "first: 2 sections"),
        ("proofs/REASONS.md", "See.", "", "first: proofs/REASONS.md has no text"),
        ("proofs/ledger.toml", 'theorem = ""', 'theorem = "other.first"', "first: under map in proofs/REASONS.md"),
        ("proofs/ledger.toml", '"second"', '"first"', "first: in the ledger more than once"),
        ("proofs/ledger.toml", '"assumed"', '"believed"', "second: status 'believed'"),
        ("proofs/ledger.toml", "One is one.", "", "the statement must be one line"),
        ("proofs/ledger.toml", 'theorem = ""\n', "", "has the keys"),
    ],
)
def test_disagreement_is_found(project, file, old, new, complaint):
    path = project / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    try:
        found = ledger.problems(project)
    except ValueError as error:
        found = [str(error)]
    assert any(complaint in line for line in found), found


def test_code_lists_are_filled_in(project):
    path = project / "proofs/ledger.toml"
    right = ledger.claims(project)
    path.write_text(path.read_text(encoding="utf-8").replace('"entmax_ref/map.py"', '"gone.py"'), encoding="utf-8")
    assert ledger.problems(project)
    ledger.write_code_lists(project)
    assert ledger.claims(project) == right
