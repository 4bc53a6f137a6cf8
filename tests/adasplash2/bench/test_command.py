"""Does ``adasplash2 bench`` answer as a command should?  Exit codes, one clear line, files after every case."""

import dataclasses
import importlib.util
import json
import tomllib
from pathlib import Path

import pytest
import torch
from speed_records import MACHINE, whole, without_ours

from adasplash2 import cli
from adasplash2.bench.shared import hardware
from adasplash2.bench.shared.faults import DeviceLostError

ROOT = Path(__file__).resolve().parents[3]


def run(*arguments):
    try:
        return cli.main(["bench", *arguments])
    except SystemExit as leaving:
        return leaving.code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: BENCH"),
        (["speed"], "invalid choice: 'speed'"),
        (["passes", "--lenght", "7"], "unrecognized arguments: --lenght 7"),
        (["attention", "--length", "x"], "invalid int value: 'x'"),
        (["attention", "--length", "0"], "--length must be 1 or more and below 2**31, got 0"),
        (["attention", "--head-dim", "1"], "--head-dim must be 2 or more and below 2**31, got 1"),
        (["attention", "--tuning-time", "nan"], "--tuning-time must be 0 or more, got nan"),
        (["attention", "--rounds", "0"], "--rounds must be 1 or more, got 0"),
        (["attention", "--workload", "gauss"], "name must be one of gauss{S}"),
        (["attention", "--workload", "nan"], "--workload must be finite and as long as its keys, got 'nan'"),
        (["attention", "--workload", "no_key"], "--workload must be finite and as long as its keys, got 'no_key'"),
        (["attention", "--quick", "--length", "64"], "--quick has its own cases"),
        (["attention", "--contender", "magma"], "invalid choice: 'magma'"),
        (["attention", "--json", "."], "--json must name a file"),
        (["attention", "--json", "no/such/folder/x.json"], "its folder does not exist"),
        (["attention", "--plot", "x.pdf"], "--plot must end in .png or .svg, got x.pdf"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and message in printed.err and printed.err.count("\n") == 1
    help_of = " ".join(["adasplash2", "bench", *(name for name in arguments[:1] if name != "speed")])
    assert printed.err.startswith(f"{help_of}: ") and printed.err.endswith(f" See {help_of} --help.\n")


def test_a_plot_without_matplotlib_names_the_extra(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run("passes", "--plot", "x.svg") == 2
    assert "pip install '.[plot]'" in capsys.readouterr().err
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert extras["plot"] == ["matplotlib"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_is_needed(capsys):
    assert run("attention", "--quick") == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("adasplash2 bench attention: ") and "torch finds no GPU" in printed.err


def test_list(capsys):
    assert run("attention", "--list", "--workload", "gauss1", "--length", "8192", "--mask", "full") == 0
    assert capsys.readouterr().out == "gauss1 8192 d64 full  (4x16x8192x64)\n"
    assert run("attention", "--list", "--dtype", "fp16") == 0
    assert len(capsys.readouterr().out.splitlines()) == 25


@pytest.fixture
def measured(monkeypatch):
    """Let the command believe in a GPU; return the results that it is to find, or the exceptions."""
    found = []

    def measure(bench, case):
        result = found.pop(0)
        if isinstance(result, BaseException):
            raise result
        bench.rates[f"{len(found)} cases later"] = 1e12
        return result

    monkeypatch.setattr(hardware, "gpu", lambda: "cpu")
    monkeypatch.setattr("adasplash2.bench.attention.measure.Bench.measure", measure)
    monkeypatch.setattr("adasplash2.runs.machine.this_machine", lambda device: MACHINE)
    return found


ONE = ("--workload", "topic16", "--length", "32768", "--length", "8192")


@pytest.mark.parametrize(
    ("second", "code"),
    [(whole(), 0), (without_ours(), 1), (DeviceLostError("adasplash left the device"), 1), (KeyboardInterrupt(), 130)],
)
def test_the_record_is_written_after_every_case(measured, tmp_path, capsys, second, code):
    path = tmp_path / "speed.json"
    measured += [whole(), second]
    assert run("attention", *ONE, "--json", str(path)) == code
    record = json.loads(path.read_text())
    assert record["header"]["command"].startswith("adasplash2 bench attention --workload topic16")
    is_result = not isinstance(second, BaseException)
    assert len(record["results"]) == 1 + is_result and record["asked"] == 2
    printed = capsys.readouterr()
    assert "[1/2] topic16 32768 d64 causal: ours 2.50/6.00" in printed.err and "[1/2]" not in printed.out
    assert ("INCOMPLETE" in printed.out) == (not is_result)
    assert "Our time over the floor" in printed.out


def test_a_run_that_was_cut_short_is_taken_up(measured, tmp_path, capsys):
    path = tmp_path / "speed.json"
    asked = ("attention", *ONE, "--flex", "--json", str(path))
    other = dataclasses.replace(whole(), case=dataclasses.replace(whole().case, length=8192, batch=4))
    measured += [whole(), KeyboardInterrupt(), other]
    assert run(*asked) == 130
    begun = json.loads(path.read_text())
    assert run(*asked, "--resume") == 0
    kept = json.loads(path.read_text())
    assert kept["results"][:1] == begun["results"] and len(kept["results"]) == 2 and kept["header"] == begun["header"]
    assert len(kept["resumed"]) == 1 and kept["matrix_rate"] == {"2 cases later": 1e12, "0 cases later": 1e12}
    printed = capsys.readouterr()
    assert "[1/1] topic16 8192" in printed.err and "taken up again" in printed.out and not measured
    assert run(*asked, "--resume") == 0, "nothing is missing"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda record: record | {"rounds": 9}, "rounds was 9", id="rounds"),
        pytest.param(lambda record: record | {"kind": "rows"}, "this is none", id="another kind"),
        pytest.param(lambda record: [record], "this is none", id="a list"),
        pytest.param(
            lambda record: record | {"results": [one | {"flex": None} for one in record["results"]]},
            "another --flex",
            id="without flex",
        ),
        pytest.param(lambda record: record | {"asked": 3}, "asked was 3", id="another list"),
        pytest.param(
            lambda record: (
                record | {"header": record["header"] | {"machine": record["header"]["machine"] | {"triton": "0"}}}
            ),
            "the same card and versions",
            id="another version",
        ),
        pytest.param(
            lambda record: record | {"results": [one | {"entries": one["entries"][:1]} for one in record["results"]]},
            "other contenders",
            id="other contenders",
        ),
        pytest.param(
            lambda record: (
                record | {"results": [one | {"case": one["case"] | {"alpha": 2.0}} for one in record["results"]]}
            ),
            "not asked for now",
            id="another case",
        ),
    ],
)
def test_another_run_is_not_taken_up(measured, tmp_path, capsys, change, said):
    path = tmp_path / "speed.json"
    measured += [whole(), KeyboardInterrupt()]
    assert run("attention", *ONE, "--flex", "--json", str(path)) == 130
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    assert run("attention", *ONE, "--flex", "--json", str(path), "--resume") == 2
    assert said in capsys.readouterr().err


def test_there_must_be_a_run_to_take_up(measured, tmp_path, capsys):
    for arguments in ((), ("--json", str(tmp_path / "none.json"))):
        assert run("attention", *ONE, *arguments, "--resume") == 2
        assert "there is none" in capsys.readouterr().err


@pytest.mark.gpu
def test_quick_on_a_gpu(tmp_path, capsys):
    path = tmp_path / "speed.json"
    assert run("attention", "--quick", "--json", str(path)) == 0
    record = json.loads(path.read_text())
    assert len(record["results"]) == 4
    for result in record["results"]:
        assert result["failures"] == [] and all(entry["status"] == "ok" for entry in result["entries"])
        assert result["stages"] and result["rows"]["mass_error"] <= 1e-5
