"""Does ``verify --target`` run the suite, refuse what makes no sense, and leave a JSON file and a page?"""

import json
import re

import pytest

from adasplash2 import cli

OURS = ["verify", "--target", "adasplash2.conformance:rows", "--quick"]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def test_our_rows_pass_and_leave_files(tmp_path, capsys):
    files = [tmp_path / "found.json", tmp_path / "page.html"]
    arguments = [*OURS, "--target", "entmax_ref.conformance.adapters.torch_softmax:rows", "--dtype", "fp32"]
    chosen = ["--check", "row_sum", "--check", "empty_row", "--check", "threshold"]
    code = cli.main([*arguments, *chosen, "--json", str(files[0]), "--report", str(files[1])])
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "PASS: 3 passed, 1 known failure, 2 skipped." in printed
    found = json.loads(files[0].read_text())
    assert found["about"]["budget"] == "quick"
    assert [one["status"] for one in found["outcomes"]].count("passed") == 3
    text = files[1].read_text()
    assert "torch softmax" in text and "adasplash2.entmax, reference" in text and "<svg" in text
    # What names an address is text: the page loads nothing.
    assert not re.search(r"""(src|href)\s*=\s*["']?http|url\(|@import""", text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--case", "gauss1"], "--case does not go with --target"),
        (["--jobs", "2"], "--jobs does not go with --target"),
        (["--thorough"], "--quick and --thorough are two budgets"),
        (["--level", "columns"], "--level must be one of rows, gradient, long, attention, attention_gradient"),
        (["--check", "sums"], "--check must be one of probabilities, row_sum"),
        (["--level", "attention"], "leave nothing to run"),
        (["--target", "adasplash2.conformance:nothing"], "--target 'adasplash2.conformance:nothing' does not import"),
        (["--target", "adasplash2"], "--target must be package.module:function"),
    ],
)
def test_a_wrong_option_is_one_line(arguments, message, capsys):
    assert cli.main([*OURS, *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and message in printed.err and printed.err.count("\n") == 1


def test_options_of_targets_need_one(capsys):
    assert cli.main(["verify", "--thorough"]) == 2
    assert "--thorough is for --target" in capsys.readouterr().err


def test_a_failure_is_exit_code_1(monkeypatch, capsys):
    import entmax_ref
    from adasplash2 import conformance
    from entmax_ref.conformance import RowTarget

    def wrong():
        return RowTarget(name="wrong", version="", probs=lambda s, alpha, dtype: entmax_ref.entmax(s, alpha + 0.1))

    monkeypatch.setattr(conformance, "rows", wrong)
    assert cli.main([*OURS, "--check", "probabilities"]) == 1
    assert "failed: wrong, probabilities (threshold_unique) in float32" in capsys.readouterr().out
