"""Do records come back as they were written, and do tables show what is there and say what is not?"""

import dataclasses
import json
import math

import pytest
from speed_records import record, whole, with_gaps, without_ours

from adasplash2.bench import options
from adasplash2.bench.attention import contenders, plot, report
from adasplash2.bench.attention.record import SpeedRecord, StageTime
from adasplash2.bench.shared import table
from adasplash2.bench.shared.figure import save
from adasplash2.bench.shared.record import read_record, write_record
from adasplash2.runs.plain import from_plain, to_plain


def test_the_command_line_knows_the_contenders():
    assert options.CONTENDERS == contenders.NAMES


def test_a_record_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "speed.json"
    made = record(whole(), without_ours())
    write_record(path, made)
    assert read_record(path, SpeedRecord) == made
    assert [file.name for file in tmp_path.iterdir()] == ["speed.json"]


def test_nan_and_infinity_survive(tmp_path):
    plain = json.loads(json.dumps(to_plain(record(with_gaps())), allow_nan=False))
    errors = from_plain(SpeedRecord, plain).results[0].entries[0].errors
    assert math.isnan(errors["out"]) and errors["d_query"] == math.inf


@pytest.mark.parametrize(("field", "value"), [("schema", 0), ("kind", "passes")])
def test_another_schema_is_refused(tmp_path, field, value):
    path = tmp_path / "speed.json"
    path.write_text(json.dumps(to_plain(record()) | {field: value}))
    with pytest.raises(ValueError, match=f"speed.json: {field} must be"):
        read_record(path, SpeedRecord)


def tables(*results):
    return {table.name: table for table in report.speed_tables(record(*results))}


def test_every_table_shows_what_was_measured():
    found = tables(whole())
    assert list(found) == ["times", "ratios", "stages", "rows", "errors", "memory"]
    (times,) = found["times"].rows
    assert times[0] == "topic16 32768 d64 causal" and times[1] == "92.9" and times[2] == "11.4"
    assert times[3:8] == ("2.50", "7.30", "5.00", "15.0", "1.50") and times[8:13] == (
        "6.00",
        "26.2",
        "18.0",
        "17.0",
        "2.50",
    )
    assert times[13] == "8.0"  # (2.6 - 2.4) / 2.5
    (ratios,) = found["ratios"].rows
    assert ratios[1:] == ("1.67", "0.342", "0.500", "0.167", "2.40", "0.229", "0.333", "0.353")
    (stages,) = found["stages"].rows
    assert stages[1:] == ("1.50 (1.2x)", "0.500", "0.500 (1.3x)")
    several = (
        ("solve", 0.5, None),
        ("solve_wide", 0.25, None),
        ("backward_dkdv", 2.0, 1.0),
        ("backward_dkdv_sum", 0.1, None),
    )
    one = dataclasses.replace(whole(), stages=tuple(StageTime(*stage) for stage in several))
    (table,) = (table for table in report.speed_tables(record(one)) if table.name == "stages")
    assert table.headings == ("case", "solve", "backward_dkdv")
    assert table.rows[0][1:] == ("0.750", "2.10 (2.1x)")
    (rows,) = found["rows"].rows
    assert rows[1:] == ("2/97/1", "2", "7.0e-6", "3.0e-7", "4.0e-7", "7.1", "9.0", "3.0e-6", "4.0e-3", "20.0")
    (errors,) = found["errors"].rows
    assert errors[1:] == ("2.3e-3", "2.4e-3", "2.2e-3", "3.1e-3", "9.0e-3", "4.0e-3")
    (memory,) = found["memory"].rows
    assert memory[1:] == ("192", "70", "66", "66", "-", "300", "260", "262", "-")
    for one in found.values():
        assert all(len(row) == len(one.headings) for row in one.rows)


def test_gaps_are_dashes_and_are_explained():
    made = record(with_gaps(), with_gaps(), without_ours())
    text = report.as_text(made)
    assert "cuDNN failed: RuntimeError: no kernel (2 cases, first gauss1 32768 d64 full)" in text
    assert "AdaSplash-2 refused: takes causal calls of alpha 1.5 only" in text
    assert "not measured: sparsity: OutOfMemoryError: 3 GiB" in text
    found = {table.name: table for table in report.speed_tables(made)}
    (first, _, last) = found["times"].rows
    assert first[1:3] == ("-", "-") and "failed" in first and last[3] == "failed"
    # a case without our time has no ratio
    assert [row[0] for row in found["ratios"].rows] == ["gauss1 32768 d64 full"] * 2
    assert found["errors"].rows[0][1:] == ("nan", "2.2e-3", "inf", "4.0e-3")
    assert "stages" not in found and "rows" not in found and "memory" not in found


def test_a_record_cut_short_says_so():
    assert "INCOMPLETE: 1 of 5 cases." in report.as_text(dataclasses.replace(record(whole()), asked=5))
    assert "INCOMPLETE: 0 of 5 cases." in report.as_text(dataclasses.replace(record(), asked=5))


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (math.nan, "nan"), (0.1234, "0.123"), (1.0, "1.00"), (99.96, "100"), (1234.5, "1234"), (0.0, "0.00")],
)
def test_numbers(value, text):
    assert table.number(value) == text


@pytest.mark.parametrize("results", [(), (whole(),), (with_gaps(), without_ours())])
def test_a_plot_is_drawn_whatever_is_missing(tmp_path, results):
    pytest.importorskip("matplotlib")
    for name in ("speed.png", "speed.svg"):
        save(plot.speed_figure(record(*results)), tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
