"""Are passes counted where they are taken?  Kernels and specification on the same rows, and the table that answers."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from speed_records import MACHINE

from adasplash2 import cli
from adasplash2.bench.passes import count as passes
from adasplash2.bench.passes import report as pass_report
from adasplash2.bench.passes.count import PassRecord, PassResult
from adasplash2.bench.passes.rows import NAMES, NOTES, as_z, draw
from adasplash2.bench.shared.record import Header, read_record, write_record
from entmax_ref import stages, threshold

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("length", [1, 2, 7, 300])
@pytest.mark.parametrize("name", NAMES)
def test_rows_are_seeded_and_of_their_kind(name, length):
    rows = draw(name, 4, length, seed=3)
    assert rows.dtype == np.float32 and rows.shape == (4, length) and np.isfinite(rows).all()
    assert (rows == draw(name, 4, length, seed=3)).all()
    assert name in NOTES or name.startswith("gauss")
    z = as_z(name, rows, 1.5)
    if name.startswith("gauss"):
        assert (z == rows / 2).all() and (as_z(name, rows, 2.0) == rows).all()
        spread = float(name.removeprefix("gauss"))
        assert length < 300 or 0.8 * spread <= rows.std() <= 1.2 * spread
    if name in ("equal", "ties"):
        assert all(len(set(row)) <= (1 if name == "equal" else 6) for row in rows.tolist())
    if name in ("equal", "ties", "uniform", "clusters"):
        assert (as_z(name, rows, 2.0) == z).all()


@pytest.mark.parametrize("alpha", [1.5, 2.0])
@pytest.mark.parametrize("name", ["gauss0.2", "ties", "uniform"])
def test_specification_is_counted_row_by_row(name, alpha, monkeypatch):
    monkeypatch.setattr(passes, "SCORES_AT_ONCE", 150)  # some rows at a time
    z = as_z(name, draw(name, 5, 60), alpha)
    found = passes.by_specification(z, alpha)
    for row, count in zip(z.astype(np.float64), found.passes, strict=True):
        refined = stages.refine(row, stages.histogram(row, alpha), alpha, tolerance=passes.tolerance())
        assert int(refined.passes) == count
        assert abs(refined.tau - threshold(row / (alpha - 1.0), alpha)) <= passes.tolerance()
    assert found.residual <= passes.tolerance() and found.mass_error <= 1e-5


@pytest.mark.parametrize("alpha", [1.5, 2.0])
@pytest.mark.parametrize("name", ["gauss0.02", "gauss4", "uniform"])
def test_kernels_see_the_rows_bit_by_bit(name, alpha):
    z = as_z(name, draw(name, 20, 37), alpha)  # two heads, of which the second is not full
    found = passes.by_kernels(z, alpha, DEVICE)
    assert found.passes.shape == (20,) and found.residual <= passes.tolerance() and found.mass_error <= 1e-5
    # float32 may end a pass sooner or later than float64 where a residual lies at the tolerance
    assert (np.abs(found.passes - passes.by_specification(z, alpha).passes) <= 1).all()


def record(*results, source="specification"):
    header = Header("2026-11-24T00:00:00+00:00", "adasplash2 bench passes", MACHINE)
    return PassRecord(header, source, 2.0**-18, results)


def result(workload, length, most, alpha=1.5, over_two=0):
    return PassResult(workload, length, alpha, 32, 1.25, most, over_two, 1e-6, 1e-7)


def test_the_table_has_lengths_across_and_says_what_is_missing():
    made = record(result("equal", 7, 1), result("ties", 7, 2), result("equal", 131072, 2), result("equal", 7, 1, 2.0))
    first, second = pass_report.pass_tables(made)
    assert first.headings == ("rows", "7", "131072")
    assert first.rows == (("equal", "1.25 / 1", "1.25 / 2"), ("ties", "1.25 / 2", "-"))
    assert second.headings == ("rows", "7") and second.rows == (("equal", "1.25 / 1"), ("ties", "-"))


def test_the_answer_names_what_takes_longer():
    within = record(result("equal", 131072, 2), result("ties", 1024, 9, over_two=3))
    assert pass_report.answers(within) == [
        "alpha 1.5, 32 rows longer than 32768: every row ends within 2 passes. One or two passes suffice."
    ]
    beyond = record(result("equal", 131072, 2), result("clusters", 1048576, 3, over_two=8))
    (answer,) = pass_report.answers(beyond)
    assert "64 rows" in answer and "8 take more than two passes, at most 3 (" in answer
    assert answer.endswith("from which length on: clusters 3 from 1048576).")
    assert pass_report.answers(record(result("equal", 7, 1))) == ["alpha 1.5: no row beyond 32768 was run."]
    assert "Worst residual 1.0e-06" in pass_report.pass_text(beyond)


def test_a_record_comes_back_and_is_drawn(tmp_path):
    made = record(result("equal", 7, 1), result("equal", 131072, 2), source="kernels")
    write_record(tmp_path / "passes.json", made)
    assert read_record(tmp_path / "passes.json", PassRecord) == made
    pytest.importorskip("matplotlib")
    for drawn in (made, record()):
        pass_report.pass_figure(drawn).savefig(tmp_path / "passes.svg")
        assert (tmp_path / "passes.svg").stat().st_size > 1000


def test_the_command_counts_and_keeps_a_record(tmp_path, capsys):
    path = tmp_path / "passes.json"
    arguments = ["--spec", "--length", "2", "--length", "50", "--workload", "equal", "--rows", "3", "--json", str(path)]
    assert cli.main(["bench", "passes", *arguments]) == 0
    printed, progress = capsys.readouterr()
    assert progress == "" and printed.startswith("Passes at alpha 1.5")
    assert "float64 specification" in printed and "Passes at alpha 2, mean / most" in printed
    kept = json.loads(path.read_text())
    assert [(one["length"], one["alpha"]) for one in kept["results"]] == [(2, 1.5), (2, 2.0), (50, 1.5), (50, 2.0)]
    assert read_record(path, PassRecord).source == "specification"


def test_more_than_memory_holds_is_one_line(monkeypatch, capsys):
    def too_much(*_, **__):
        raise MemoryError("Unable to allocate 3.64 TiB")

    monkeypatch.setattr("adasplash2.bench.passes.command.count_passes", too_much)
    assert cli.main(["bench", "passes", "--spec"]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("adasplash2 bench passes: out of memory. Unable to allocate")


def test_what_is_named_twice_is_counted_once(capsys):
    assert cli.main(["bench", "passes", "--spec", *["--workload", "equal", "--length", "7"] * 2]) == 0
    assert capsys.readouterr().out.count("\nequal ") == 2  # once for each alpha


def test_a_record_is_written_through_a_link_and_into_what_is_no_file(tmp_path):
    kept, link, pipe = tmp_path / "kept.json", tmp_path / "link.json", tmp_path / "pipe"
    link.symlink_to(kept)
    write_record(link, record(result("equal", 7, 1)))
    assert link.is_symlink() and read_record(kept, PassRecord) == record(result("equal", 7, 1))
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_record(pipe, record())
    assert pipe.is_fifo() and b"specification" in os.read(reader, 4096)
    os.close(reader)


def test_an_interrupted_count_says_that_it_is_one(monkeypatch, capsys):
    def two(*_, **__):
        yield result("equal", 131072, 2)
        raise KeyboardInterrupt

    monkeypatch.setattr("adasplash2.bench.passes.command.count_passes", two)
    assert cli.main(["bench", "passes", "--spec"]) == 130
    assert capsys.readouterr().out.splitlines()[-1].startswith("INTERRUPTED: 1 of 200 kinds of rows were counted")


def test_an_unconverged_row_gives_exit_code_1(monkeypatch, capsys):
    bad = dataclasses.replace(result("equal", 7, 40), residual=float("nan"))
    monkeypatch.setattr("adasplash2.bench.passes.command.count_passes", lambda *arguments, **options: iter([bad]))
    assert cli.main(["bench", "passes", "--spec"]) == 1
    assert "40" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--length", "0"], "--length must be 1 or more and below 2**31, got 0"),
        (["--rows", "0"], "--rows must be 1 or more and below 2**31, got 0"),
        (["--workload", "gauss3"], "--workload must be one of gauss0.001"),
        (["--alpha", "3"], "--alpha: must be a number above 1 and at most 2, got 3"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(arguments, message, capsys):
    try:
        code = cli.main(["bench", "passes", "--spec", *arguments])
    except SystemExit as leaving:
        code = leaving.code
    printed = capsys.readouterr()
    assert code == 2 and printed.out == "" and message in printed.err and printed.err.count("\n") == 1


def test_the_committed_record_is_of_this_schema():
    kept = read_record(Path(__file__).resolve().parents[3] / "docs" / "results" / "passes.json", PassRecord)
    assert {result.length for result in kept.results} == set(passes.LENGTHS)
    assert {result.workload for result in kept.results} == set(NAMES)
    assert all(result.residual <= kept.tolerance for result in kept.results)


@pytest.mark.gpu
def test_passes_on_a_gpu(tmp_path):
    path = tmp_path / "passes.json"
    arguments = [
        "--length",
        "7",
        "--length",
        "131072",
        "--workload",
        "gauss1",
        "--workload",
        "equal",
        "--json",
        str(path),
    ]
    assert cli.main(["bench", "passes", *arguments]) == 0
    assert read_record(path, PassRecord).source == "kernels"
