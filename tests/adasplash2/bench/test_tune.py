"""Does tuning try what it is told to, survive what does not run, and propose a line that the table can take?"""

import dataclasses

import pytest
import torch

from adasplash2 import cli, launch_table
from adasplash2.bench.shared import hardware, stages
from adasplash2.bench.tune import measure as tune
from adasplash2.bench.tune.command import parse_vary
from adasplash2.bench.tune.measure import Trial
from adasplash2.launch_table import Launch, Program
from adasplash2.usage import UsageError
from adasplash2.workloads import workload

CURRENT = next(iter(launch_table.LAUNCH.values()))
NAME = "solve.warps"  # of a number that can be varied


def with_value(value, row=CURRENT):
    return tune.with_value(row, NAME, value)


def test_candidates_are_the_current_row_and_every_other():
    value = tune.value_of(CURRENT, NAME)
    assert tune.candidates(CURRENT, {NAME: (value, value * 2)}) == [CURRENT, with_value(value * 2)]
    assert tune.candidates(CURRENT, {}) == [CURRENT]
    # more registers than a multiprocessor has: left out
    assert tune.candidates(CURRENT, {NAME: (64,)}) == [CURRENT]
    assert set(tune.CANDIDATES) <= set(tune.fields())
    assert len(tune.candidates(CURRENT, tune.CANDIDATES)) <= 32


def test_the_proposal_is_a_row_of_the_table_with_its_reason():
    found = [
        Trial(CURRENT, (("dense", 2.0), ("output", 3.0))),
        Trial(with_value(8), (("dense", 1.0), ("output", 3.5))),
        Trial(with_value(4), failure="OutOfResources: shared memory"),
    ]
    line = tune.proposal(found, ("cuda", 2, 64), "2026-11-24, a card", "topic16")
    ((key, row),) = eval("{" + line + "}", {"Launch": Launch, "Program": Program}).items()
    assert key == ("cuda", 2, 64) and dataclasses.replace(row, why=CURRENT.why) == with_value(8)
    assert row.why.startswith("2026-11-24, a card: topic16: 4.50 ms for all stages; next, 5.00 with")
    assert "; before, 5.00 with" in row.why
    table = tune.trial_table(found)
    assert [line[-1] for line in table.rows] == ["4.50", "5.00", "-"] and table.rows[2][1] == "failed"
    assert tune.stage_bests(found)[0].startswith("dense: 1.00 ms") and len(tune.stage_bests(found)) == 2


def test_nothing_is_proposed_where_nothing_ran():
    found = [Trial(CURRENT, failure="RuntimeError: no")]
    assert tune.proposal(found, ("cuda", 2, 64), "", "") == "" and tune.stage_bests(found) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels of this process are compiled")
def test_trials_run_the_stages_under_another_row(monkeypatch):
    loads = [
        workload(name, batch=1, heads=1, n_queries=70, head_dim=16, dtype=torch.float32) for name in ("gauss1",) * 2
    ]
    current = stages.launch_row(torch.float32, 16)
    monkeypatch.setattr(tune, "stage_times", lambda make, device: [(call.stage, 1.0) for call in make()])
    (trial,) = tune.trials(loads, 1.5, [current], "cpu")
    assert trial.failure == "" and trial.total_ms == 2.0 * len(trial.stages)

    def broken(make, device):
        raise RuntimeError("out of resource")

    monkeypatch.setattr(tune, "stage_times", broken)
    (trial,) = tune.trials(loads, 1.5, [current], "cpu")
    assert trial.failure == "RuntimeError: out of resource" and trial.total_ms == float("inf")


def test_an_interrupt_shows_what_was_timed_and_exits_130(monkeypatch, capsys):
    def one(loads, alpha, rows, device):
        yield Trial(rows[0], (("dense", 1.0),))
        raise KeyboardInterrupt

    monkeypatch.setattr(hardware, "gpu", lambda: "cpu")
    monkeypatch.setattr(tune, "trials", one)
    assert cli.main(["bench", "tune", "--length", "64", "--workload", "gauss1"]) == 130
    printed = capsys.readouterr()
    assert "Best of each stage" in printed.out and "[1/" in printed.err and "[1/" not in printed.out


def test_vary():
    assert parse_vary([f"{NAME}=4,8"]) == {NAME: (4, 8)}
    for asked, says in (
        ("x=1", "--vary must name one of"),
        (NAME, "--vary must be FIELD=V,V"),
        (f"{NAME}=a", "--vary must"),
    ):
        with pytest.raises(UsageError, match=says):
            parse_vary([asked])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_is_needed(capsys):
    assert cli.main(["bench", "tune"]) == 2
    assert "bench tune: compiled kernels are timed" in capsys.readouterr().err
