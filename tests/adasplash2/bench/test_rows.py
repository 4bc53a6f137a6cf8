"""Are maps of rows timed and judged as said?  Errors that are planted are found, and the command keeps its record."""

import json

import pytest
import torch
from speed_records import MACHINE

import entmax_ref
from adasplash2 import cli
from adasplash2.bench.rows import measure as rows
from adasplash2.bench.rows import report as row_report
from adasplash2.bench.rows.accuracy import RowErrors, hard_rows, row_errors
from adasplash2.bench.rows.contenders import ENTMAX, NAMES, row_contenders
from adasplash2.bench.rows.measure import RowCase, RowEntry, RowRecord, RowResult
from adasplash2.bench.shared import hardware
from adasplash2.bench.shared.record import Header, read_record, write_record

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def run(*arguments):
    try:
        return cli.main(["bench", "rows", *arguments])
    except SystemExit as leaving:
        return leaving.code


class Planted(torch.autograd.Function):
    """The oracle's map, with a key too many, one too few, masses of 1.25 and gradients that are twice too large."""

    @staticmethod
    def forward(ctx, scores):
        probs = torch.from_numpy(entmax_ref.entmax(scores.double().numpy()))
        ctx.save_for_backward(scores)
        probs[0, probs[0].argmin()] = 0.25
        probs[1, probs[1].argmax()] = 0.0
        return probs.to(scores.dtype)

    @staticmethod
    def backward(ctx, d_probs):
        found = entmax_ref.entmax_vjp(ctx.saved_tensors[0].double().numpy(), d_probs.double().numpy())
        return 2.0 * torch.from_numpy(found).to(d_probs.dtype)


def test_planted_errors_are_found():
    hard = hard_rows("gauss4", 1.5, 4, 100, torch.float32, "cpu")
    found = row_errors(Planted.apply, hard)
    assert found.false_in == 1 and found.false_out == 1 and found.workload == "gauss4"
    assert abs(found.d_scores - 1.0) < 1e-6 and found.probs > 0.1
    assert found.mass >= 0.25
    ours = row_contenders(1.5, ["ours"])[0].map
    exact = row_errors(ours, hard_rows("gauss4", 1.5, 4, 100, torch.float32, DEVICE))
    # float32: some hundred roundings; a sensitivity feels those of a gap in full
    assert exact.mass <= 256 * 2.0**-24 and exact.probs <= 1e-5 and exact.d_scores <= 1e-4 and exact.false_in <= 1


@pytest.mark.parametrize("alpha", [1.25, 1.5, 2.0])
def test_a_case_has_every_contender(alpha):
    result = rows.measure_rows(RowCase(64, 4, "fp32", alpha), DEVICE, 2, hard_numbers=128)
    assert tuple(entry.name for entry in result.entries) == NAMES
    for entry in result.entries:
        if entry.status == "ok":
            assert len(entry.forward_ms) == len(entry.step_ms) == 2 and entry.first_call_s > 0.0
            assert len(entry.errors) == (len(rows.KINDS) if entry.name in ENTMAX else 0)
        else:
            assert entry.note
    assert result.entry("ours").status == result.entry("softmax").status == "ok"
    assert result.ratio("copy", "forward") > 0.0 and result.ratio("nobody", "step") is None


def result(ours=0.25, note=""):
    errors = (RowErrors("equal", 1e-7, 0, 2, 1e-6, 1e-5), RowErrors("ties", 2e-7, 1, 0, float("nan"), 1e-6))
    mine = RowEntry("ours", first_call_s=1.0, forward_ms=(ours,), step_ms=(3 * ours,), errors=errors)
    entries = (mine, RowEntry("copy", forward_ms=(0.2,), step_ms=(0.2,)), RowEntry("adasplash", "failed", "E: no"))
    if note:
        entries = (RowEntry("ours", "failed", note), *entries[1:])
    return RowResult(RowCase(1024, 65536, "fp32", 1.5), entries)


def record(*results, asked=1):
    return RowRecord(Header("2026-11-25T00:00:00+00:00", "adasplash2 bench rows", MACHINE), 3, asked, results)


def test_tables_and_figure():
    times, ratios, errors = row_report.row_tables(record(result()))
    assert times.headings == ("rows", "ours", "copy", "triton_entmax")
    assert times.rows == (("fp32 1024 alpha 1.5", "0.250 / 0.750", "0.200 / 0.200", "failed"),)
    assert ratios.rows == (("fp32 1024 alpha 1.5", "1.25", "-", "-"),)
    assert errors.rows == (("fp32 1024 alpha 1.5", "ours", "2.0e-07", "1", "2", "nan", "1.0e-05", "ties"),)
    text = row_report.row_text(record(result(), asked=2))
    assert "INCOMPLETE: 1 of 2" in text and "triton_entmax failed: E: no (fp32 1024 alpha 1.5)" in text
    assert len(row_report.row_figure(record(result())).axes) == 2


def test_the_legend_names_who_is_missing_in_the_first_panel():
    late = RowEntry("adasplash", forward_ms=(0.5,), step_ms=(0.9,))
    second = RowResult(RowCase(1024, 65536, "fp32", 2.0), (*result().entries[:2], late))
    figure = row_report.row_figure(record(result(), second, asked=2))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ours", "copy", "triton_entmax"]


def test_a_record_comes_back_the_same(tmp_path):
    made = record(result())
    write_record(tmp_path / "rows.json", made)
    # NaN is not equal to itself, its name is
    assert repr(read_record(tmp_path / "rows.json", RowRecord)) == repr(made)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--length", "0"], "--length must be 1 or more and below 2**31, got 0"),
        (["--alpha", "2.5"], "--alpha: must be a number above 1 and at most 2, got 2.5"),
        (["--alpha", "nan"], "--alpha: must be a number above 1 and at most 2, got nan"),
        (["--elements", "0"], "--elements must be 1 or more and below 2**40, got 0"),
        (["--rounds", "0"], "--rounds must be 1 or more, got 0"),
        (["--contender", "magma"], "invalid choice: 'magma'"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and message in printed.err and printed.err.count("\n") == 1


@pytest.mark.parametrize(("second", "code"), [(result(), 0), (result(note="E: x"), 1), (KeyboardInterrupt(), 130)])
def test_the_record_is_written_after_every_case(monkeypatch, tmp_path, capsys, second, code):
    found = [result(), second]

    def measure(case, device, rounds, names):
        given = found.pop(0)
        if isinstance(given, BaseException):
            raise given
        return given

    monkeypatch.setattr(hardware, "gpu", lambda: "cpu")
    monkeypatch.setattr("adasplash2.bench.rows.command.measure_rows", measure)
    monkeypatch.setattr("adasplash2.runs.machine.this_machine", lambda device: MACHINE)
    path, plot = tmp_path / "rows.json", tmp_path / "rows.svg"
    options = ("--length", "8", "--length", "16", "--dtype", "fp32", "--alpha", "1.5")
    assert run(*options, "--json", str(path), "--plot", str(plot)) == code
    kept = json.loads(path.read_text())
    assert len(kept["results"]) == 1 + (code != 130) and kept["asked"] == 2 and plot.is_file()
    printed = capsys.readouterr()
    assert "[1/2] fp32 1024 alpha 1.5: ours 0.250/0.750" in printed.err and "Our time over" in printed.out


@pytest.mark.gpu
def test_on_a_gpu(tmp_path):
    path = tmp_path / "rows.json"
    assert run("--length", "1024", "--elements", "1000000", "--rounds", "1", "--json", str(path)) == 0
    assert len(json.loads(path.read_text())["results"]) == 4
