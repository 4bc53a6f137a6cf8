"""Does the command answer as a command should?  Exit codes, one clear line for a wrong option, files, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import torch

from adasplash2 import cli
from adasplash2.verify.cases import Case
from adasplash2.verify.table import LEGEND

ROOT = Path(__file__).resolve().parents[2]
ON_CPU = ["--device", "cpu", "--jobs", "1"]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    # The command sets it for its own process; this one goes on to other tests.
    monkeypatch.setenv("TRITON_INTERPRET", os.environ.get("TRITON_INTERPRET", "0"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["--json", "verify"], "unrecognized arguments: --json"),
        (["verify", "--jason", "x.json"], "unrecognized arguments: --jason x.json"),
        (["verify", "gauss1"], "unrecognized arguments: gauss1"),
        (["check"], "invalid choice: 'check'"),
        (["verify", "--dtype", "fp8"], "invalid choice: 'fp8'"),
        (["verify", "--seed", "x"], "invalid int value: 'x'"),
        (["verify", "--seed", "-1"], "--seed must be 0 or more and below 2**63, got -1"),
        (["verify", "--seed", str(2**63)], "--seed must be 0 or more and below 2**63, got 9223372036854775808"),
        (["verify", "--json", "x", "--report", "./x"], "--json and --report must name two files"),
        (["verify", "--jobs", "0"], "--jobs must be 1 or more, got 0"),
        (["verify", "--device", "tpu"], "--device must be cpu, cuda or cuda:N, got 'tpu'"),
        (["verify", "--case", "gauss"], "--case must be one of gettysburg_layer4"),
        (["verify", "--json", "no/such/folder/x.json"], "its folder does not exist"),
        (["verify", "--report", "."], "--report must name a file"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(arguments, message, capsys):
    help_of = "adasplash2 verify" if arguments[:1] == ["verify"] else "adasplash2"
    if arguments[:1] == ["verify"] and "--device" not in arguments:
        arguments = [*arguments, "--device", "cpu"]
    try:
        code = cli.main(arguments)
    except SystemExit as leaving:
        code = leaving.code
    printed = capsys.readouterr()
    assert code == 2 and printed.out == ""
    assert message in printed.err and printed.err.count("\n") == 1
    assert printed.err.startswith(f"{help_of}: ") and printed.err.endswith(f" See {help_of} --help.\n")


def test_the_legend_explains_the_column_of_sizes():
    case = Case("gauss1", "bf16", 4, 2, 100, 100, 64, is_causal=True, batch=2)
    sizes = case.shape.rpartition(" ")[0]
    assert f"{sizes}: batch 2 * 4 heads / 2 kv_heads, 100 queries x 100 keys x head_dim 64" in " ".join(LEGEND)
    assert "skip: " in " ".join(LEGEND)


def test_version(capsys):
    with pytest.raises(SystemExit) as leaving:
        cli.main(["--version"])
    assert leaving.value.code == 0
    name, number = capsys.readouterr().out.split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (name, number) == ("adasplash2", project["version"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to ask for")
def test_a_gpu_that_is_not_there(capsys):
    assert cli.main(["verify", "--device", "cuda:1"]) == 2
    assert "torch finds no GPU" in capsys.readouterr().err


def test_list(capsys):
    assert cli.main(["verify", "--list", "--device", "cpu", "--case", "spike", "--dtype", "fp16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 case:") and "2*4/2 100x100x64" in lines[1]
    assert "spike" in lines[2] and "fp16" in lines[2]


def run(*arguments):
    command = [sys.executable, "-m", "adasplash2", "verify", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)


def test_a_run_in_a_fresh_process(tmp_path):
    """TRITON_INTERPRET is not set outside; the command sees to it."""
    files = ["--json", str(tmp_path / "run.json"), "--report", str(tmp_path / "run.html")]
    done = run("--quick", "--case", "no_key", *ON_CPU, *files)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "interpreter on cpu" in done.stdout and "no_key" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("PASS (1 of 1 cases")
    assert json.loads((tmp_path / "run.json").read_text())["passed"] is True
    assert "<svg" in (tmp_path / "run.html").read_text(encoding="utf-8")


def test_without_triton_the_reference_runs_and_says_so():
    program = (
        "import sys; sys.modules['triton'] = None\n"
        "from adasplash2.cli import main\n"
        "sys.exit(main(['verify', '--quick', '--device', 'cpu', '--jobs', '1', '--case', 'equal', '--case', 'gauss1']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NO KERNEL RUNS" in done.stdout and "triton absent" in done.stdout
    assert "no kernel ran" in done.stdout.splitlines()[-1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels of this process are compiled")
def test_a_fault_gives_exit_code_1(monkeypatch, capsys):
    from adasplash2.verify import measure

    answer_of = measure.answer_of

    def lossy(*arguments, **options):
        answer = answer_of(*arguments, **options)
        answer.block_mask[:] = False
        return answer

    monkeypatch.setattr(measure, "answer_of", lossy)
    assert cli.main(["verify", "--quick", "--case", "sink", "--dtype", "bf16", *ON_CPU]) == 1
    printed = capsys.readouterr().out
    assert "NO sink" in printed and "live blocks lost by the block mask" in printed
    assert printed.splitlines()[-1].startswith("FAIL (1 of 1 cases")


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels of this process are compiled")
def test_an_interrupt_leaves_the_partial_table(monkeypatch, capsys):
    from adasplash2.verify import runner

    measured = []

    def interrupted(case, device, impl):
        if measured:
            raise KeyboardInterrupt
        measured.append(case)
        return measure(case, device, impl)

    measure = runner.measure
    monkeypatch.setattr(runner, "measure", interrupted)
    assert cli.main(["verify", "--case", "sink", *ON_CPU]) == 130
    printed = capsys.readouterr().out
    assert "ok sink" in printed and printed.splitlines()[-1].startswith("INTERRUPTED (1 of 2 cases")


def alive(group):
    """Return the processes of a group that still run; one that waits to be collected does not."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[2] == str(group) and fields[0] != "Z":
            found.append(status.parent.name)
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the list of processes as Linux shows it")
def test_ctrl_c_ends_all_processes():
    # Every case: one alone may be judged before the signal comes.
    command = [sys.executable, "-m", "adasplash2", "verify", "--device", "cpu", "--jobs", "2"]
    # A session of its own, so that the signal reaches the command and its processes as Ctrl-C does, and nobody else.
    child = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(2.0)
    os.killpg(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert "INTERRUPTED" in out and "Traceback" not in err
    deadline = time.monotonic() + 20.0
    while alive(child.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert alive(child.pid) == []
