"""Do the README and the tutorial still say what works?"""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

AS_TEXT = {"capture_output": True, "text": True}
ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NAMES = re.findall(r"^<!-- block: (\w+) -->$", README, flags=re.MULTILINE)


def block(name: str, readme: Path = ROOT / "README.md") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / ".ci" / "readme_block"), name, str(readme)]
    return subprocess.run(command, capture_output=True, text=True)


def test_every_code_block_is_named_and_run():
    # A block without a name would be neither run here nor in .ci/run.
    assert NAMES == ["verify", "tests", "entmax_ref", "adasplash2", "interpreter"]
    assert len(re.findall(r"^```\w+$", README, flags=re.MULTILINE)) == len(NAMES)


@pytest.mark.parametrize("name", ["verify", "tests"])
def test_command_sets_up_everything_in_one_line(name):
    (command,) = block(name).stdout.splitlines()
    assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -c constraints-cpu.txt ")
    assert (ROOT / "constraints-cpu.txt").is_file()


def test_ci_runs_the_commands_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(r"^step .* readme verify$", script, flags=re.MULTILINE)
    assert re.search(r"^step .* readme tests$", script, flags=re.MULTILINE)


def test_the_kernels_skip_blocks_on_a_cpu_as_shown():
    """Counts may differ by release, words may not, and the numbers have to show what they are there for."""
    found = subprocess.run([sys.executable, "-c", block("interpreter").stdout], cwd=ROOT, check=True, **AS_TEXT).stdout
    (shown,) = re.findall(r"<!-- output: interpreter -->\n```\n(.*?)```\n", README, flags=re.DOTALL)
    assert re.sub(r"\d+", "0", found).split()[:7] == re.sub(r"\d+", "0", shown).split()[:7]
    for text in (found, shown):
        (skipped,) = re.findall(r"skipped (\d+)%", text)
        counts = {int(passes): int(rows) for passes, rows in re.findall(r"(\d+): (\d+)", text)}
        assert int(skipped) > 50 and sum(counts.values()) == 1024 and counts[1] > 512 and max(counts) <= 3


@pytest.mark.parametrize("name", ["entmax_ref", "adasplash2"])
def test_python_block_runs(name):
    code = block(name).stdout
    assert 8 <= len(code.splitlines()) <= 14
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_tutorial_examples_run():
    failed, tried = doctest.testfile(str(ROOT / "docs" / "tutorial.rst"), module_relative=False)
    assert tried >= 10 and failed == 0


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)\s]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).is_file(), target


def test_a_missing_or_doubled_block_is_refused(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- block: once -->\n```bash\ntrue\n```\n" + "<!-- block: twice -->\n```bash\nx\n```\n" * 2)
    assert block("once", readme).stdout == "true\n"
    for name in ("none", "twice"):
        assert block(name, readme).returncode != 0
