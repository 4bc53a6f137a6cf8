"""Is a claim noticed whose tests are there but did not run?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]

CONFTEST = """
from pathlib import Path
import executed

def pytest_configure(config):
    config.addinivalue_line("markers", "lemma(name): a claim")
    executed.watch(config, Path(__file__).resolve().parents[1])
"""

MODULE = """
import pytest
from lemmas import lemma

@lemma("first")
@pytest.mark.parametrize("case", [1, 2])
def test_first(case):
    pass

@lemma("second")
class TestSecond:
    def test_one(self):
        {second}

def test_no_claim():
    pass
"""

ENTRY = '[[lemma]]\nname = "{name}"\nstatement = "So."\nstatus = "paper"\ntheorem = ""\ncode = []\n'


def run(root: Path, second: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a project of two claims, the test of the second with this body."""
    for file, text in {
        "proofs/ledger.toml": ENTRY.format(name="first") + ENTRY.format(name="second"),
        "tests/conftest.py": CONFTEST,
        "tests/test_module.py": MODULE.format(second=second),
        "pytest.ini": "[pytest]\ntestpaths = tests\n",
    }.items():
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_text(text)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    settings = {"PYTHONPATH": str(TESTS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=root, env={**kept, **settings}, capture_output=True, text=True)


SKIPPED = 'pytest.skip("not here")'
XDIST = ("-p", "xdist.plugin", "-n", "2")


@pytest.mark.parametrize("arguments", [(), ("tests",), (".",), XDIST])
@pytest.mark.parametrize("second", ["pass", SKIPPED])
def test_a_complete_run_is_judged(tmp_path, arguments, second):
    if "-n" in arguments:
        pytest.importorskip("xdist")
    done = run(tmp_path, second, *arguments)
    named = done.stdout.partition("claims without a test that passed")[2]
    assert done.returncode == (second == SKIPPED), done.stdout + done.stderr
    assert ("\nsecond\n" in named, "\nfirst\n" in named) == (second == SKIPPED, False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("-k", "first"),
        ("-m", "lemma"),
        ("tests/test_module.py",),
        ("--deselect", "tests/test_module.py::test_no_claim"),
    ],
)
def test_a_partial_run_is_not(tmp_path, arguments):
    done = run(tmp_path, SKIPPED, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_run_that_was_stopped_is_not(tmp_path):
    done = run(tmp_path, "assert False", "-x")
    assert done.returncode == 1 and "claims without" not in done.stdout
