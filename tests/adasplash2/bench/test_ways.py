"""Are the ways told apart, timed and counted as said?"""

from __future__ import annotations

import dataclasses
import json
import time

import numpy as np
import pytest
import torch
from speed_records import MACHINE

from adasplash2 import cli, entmax_attention, starts
from adasplash2.bench.attention.contenders import Contender
from adasplash2.bench.attention.sparsity import Support, visible_blocks
from adasplash2.bench.shared import hardware, stages
from adasplash2.bench.shared.record import Header, Timed, read_record, write_record
from adasplash2.bench.shared.stages import random_like
from adasplash2.bench.shared.tuning import Tuning
from adasplash2.bench.ways import command as way_command
from adasplash2.bench.ways import measure as ways
from adasplash2.bench.ways import report as way_report
from adasplash2.bench.ways.measure import Shares, WayRecord, WayResult
from adasplash2.stages import backward_calls
from adasplash2.state import empty_backward
from adasplash2.workloads import captured_names, workload

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def load_of(name="topic16", length=150, heads=2):
    return workload(
        name, batch=1, heads=heads, n_queries=length, head_dim=32, dtype=torch.bfloat16, device=DEVICE, segment=32
    )


@pytest.mark.parametrize("way", ["chosen", "keys"])
def test_a_whole_step_is_that_of_a_call(way):
    load = load_of()
    d_out = random_like(load.query, seed=1)
    leaves = [part.detach().requires_grad_() for part in (load.query, load.key, load.value)]
    out = entmax_attention(*leaves, is_causal=True, impl="triton")
    gradients = torch.autograd.grad(out, leaves, d_out)
    step = stages.whole_step(load, d_out, 1.5, **ways.WAYS[way])
    for _ in range(2):
        _, state, after = step()
        if way == "chosen":
            assert torch.equal(state.out.to(out.dtype), out)
        # The interpreter raises what is between forward and backward, and the gradients, to float32.
        found = state.out, after.d_query, after.d_key, after.d_value
        for one, expected in zip(found, (out, *gradients), strict=True):
            assert (one.float() - expected.float()).norm() <= 0.01 * expected.float().norm()


def test_shares_are_those_of_the_way():
    d_out = random_like(load_of().query, seed=1)
    tiles, keys = (
        ways.shares_of(*stages.whole_step(load_of(), d_out, 1.5, **ways.WAYS[way])()) for way in ("tiles", "keys")
    )
    assert tiles == Shares(0.0, 0.0, 0.0, 0.0)
    assert keys.threshold == keys.output == keys.d_query == keys.d_key == 1.0
    flat = load_of("equal")
    full = ways.shares_of(*stages.whole_step(flat, d_out, 1.5, **ways.WAYS["keys"])())
    assert 0.0 < full.threshold < 1.0 and full.d_key == 0.0, "the first rows see few keys, the last have no room"


@pytest.mark.parametrize(("name", "row_pairs"), [("gauss4", 100), ("equal", 160)])
def test_blocks_of_queries_by_keys_are_those_that_the_kernel_writes(name, row_pairs):
    load = load_of(name)
    problem, state, after = stages.whole_step(load, random_like(load.query, seed=1), 1.5, row_pairs=row_pairs)()
    told = ways.queries_by_keys(problem, state, after)
    operands = [part.float() if DEVICE == "cpu" else part for part in (load.query, load.key, load.value)]
    fresh = empty_backward(problem, *operands)
    fresh.delta.fill_(float("nan"))
    left = (state.out, state.base, state.rest, state.block_mask, state.support)
    with starts.device_of(load.query):
        for call in backward_calls(problem, operands[0], *operands, *left, fresh, None, None):
            if call.stage in ("block_list", "backward_dq_keys"):
                call.run()
    wrote = torch.isfinite(fresh.delta).flatten(0, 1).cpu().numpy()
    block_m = problem.launch.block_m
    if name == "gauss4":
        assert told.any() and not told.all()
    for head, block in np.ndindex(*told.shape):
        assert wrote[head, block * block_m : (block + 1) * block_m].all() == bool(told[head, block])


def test_a_workload_has_every_way_and_contender():
    result = ways.measure_ways(load_of(length=64), DEVICE, 1)
    assert {entry.name for entry in result.entries} == {*ways.WAYS, *ways.CONTENDERS}
    assert all(entry.step_ms for entry in result.entries if entry.name in ways.WAYS)
    assert all(entry.note for entry in result.entries if entry.status != "ok")
    assert result.pairs == 2 * 64 * 65 // 2 and 0.0 < result.live < 1.0
    refused = ways.measure_ways(load_of(length=64), DEVICE, 1, ("adasplash",), Tuning(0.0))
    (entry,) = (entry for entry in refused.entries if entry.name == "adasplash")
    assert entry.status == "refused" and ("--tuning-time" in entry.note or entry.note == "not installed")


def test_a_step_of_ours_that_fails_is_recorded_and_the_others_go_on(monkeypatch):
    def broken(*arguments, **fields):
        def run():
            raise RuntimeError("out of resource: shared memory\nlong explanation")

        return run

    monkeypatch.setattr(ways, "whole_step", broken)
    monkeypatch.setattr(ways, "contenders_of", lambda case, names: [Contender("flash", lambda q, k, v: q + k + v)])
    result = ways.measure_ways(load_of(length=64), DEVICE, 1)
    found = {entry.name: entry for entry in result.entries}
    assert {found[way].status for way in ways.WAYS} == {"failed"} and found["flash"].step_ms
    assert found["chosen"].note == "RuntimeError: out of resource: shared memory" and result.live == 0.0
    assert found["flash"].first_call_s > 0.0


def test_pairs_that_see_each_other():
    for n_queries, n_keys in ((5, 5), (5, 3), (3, 5)):
        seen = np.tril(np.ones((n_queries, n_keys)), n_keys - n_queries).sum()
        assert visible_blocks(n_queries, n_keys, True, block=1) == seen
        assert visible_blocks(n_queries, n_keys, False, block=1) == n_queries * n_keys


def result(name, length, live, *, by_keys=1.0, **times):
    shares = Shares(by_keys, by_keys, by_keys, by_keys)
    entries = tuple(Timed(way, step_ms=(ms, ms)) for way, ms in times.items())
    return WayResult(
        name, f"1x16x{length}x64", length, True, Support(1, 4, live, 10), 1000, shares, shares, entries, 1.0
    )


def record(*results):
    return WayRecord(Header("2026-11-30T00:00:00+00:00", "adasplash2 bench ways", MACHINE), 2, len(results), results)


def test_tables_and_figure(tmp_path):
    kept = record(
        result("gauss1", 8192, 10, chosen=3.0, tiles=6.0, keys=3.5, flash=7.0),
        result("equal", 8192, 900, by_keys=0.1, chosen=6.0, tiles=5.0, keys=6.0, flash=7.0),
        result("topic16", 8192, 5, chosen=2.0, tiles=2.5, keys=2.6, flash=7.0),
        result("declaration_layer0", 512, 5, chosen=0.2, tiles=0.2, keys=0.2),
    )
    refused = Timed("adasplash", "refused", "not installed")
    kept = dataclasses.replace(
        kept,
        results=(dataclasses.replace(kept.results[0], entries=(*kept.results[0].entries, refused)), *kept.results[1:]),
    )
    times, shares = way_report.way_tables(kept)
    assert times.rows[0] == ("gauss1 8192", "1.00", "1.00", "3.00", "6.00", "3.50", "7.00", "refused", "0.500")
    assert times.rows[3][-3:] == ("-", "-", "1.00")
    assert shares.rows[1] == ("equal 8192", "1x16x8192x64", "75", *["10"] * 8)
    assert "AdaSplash-2 refused: not installed (gauss1 8192)" in way_report.way_text(kept)
    figure = way_report.way_figure(kept)
    (panel,) = figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in panel.get_lines()}
    assert lines["as chosen"] == [[1.0, 3.0], [90.0, 6.0]]
    assert lines["all by keys"] == [[1.0, 3.5]], "equal had no room"
    path = tmp_path / "ways.json"
    write_record(path, kept)
    assert read_record(path, WayRecord) == kept


def run(*arguments):
    try:
        return cli.main(["bench", "ways", *arguments])
    except SystemExit as leaving:
        return leaving.code


@pytest.mark.parametrize(
    "arguments",
    [
        ("--rounds", "0"),
        ("--length", "0"),
        ("--workload", "nonsense"),
        ("--tuning-time", "-1"),
        ("--contender", "ours"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(arguments, capsys):
    assert run(*arguments) == 2
    assert arguments[0] in capsys.readouterr().err


def test_the_command_measures_and_keeps_every_workload(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(hardware, "gpu", lambda: DEVICE)
    path = tmp_path / "ways.json"

    def measure(load, device, rounds, names, tuning):
        assert tuning.refusal("adasplash", load.query.shape[2], 64) == ""
        return result(load.name, load.query.shape[2], 10, chosen=3.0, tiles=6.0, keys=3.5)

    monkeypatch.setattr(way_command, "measure_ways", measure)
    recorded = captured_names()[-1]
    assert run("--workload", "gauss1", "--workload", recorded, "--length", "128", "--json", str(path)) == 0
    kept = json.loads(path.read_text())
    assert [one["workload"] for one in kept["results"]] == ["gauss1", recorded] and kept["asked"] == 2
    assert "Milliseconds of a step" in capsys.readouterr().out


def test_adasplash_is_refused_once_its_time_is_spent(capsys, monkeypatch):
    monkeypatch.setattr(hardware, "gpu", lambda: DEVICE)
    said = []

    def measure(load, device, rounds, names, tuning):
        shape = "adasplash", load.query.shape[2], load.query.shape[3]
        said.append(tuning.refusal(*shape))
        if not said[-1]:
            with tuning.spending(*shape):
                time.sleep(0.002)
        tuned = Timed("adasplash", step_ms=(1.0,))
        entries = Timed("adasplash", "refused", said[-1]) if said[-1] else tuned
        kept = result(load.name, load.query.shape[2], 10, chosen=3.0)
        return dataclasses.replace(kept, entries=(*kept.entries, entries))

    monkeypatch.setattr(way_command, "measure_ways", measure)
    arguments = ("--workload", "gauss1", "--workload", "gauss4", "--length", "64", "--length", "128")
    assert run(*arguments, "--tuning-time", "0.001") == 0
    assert said[:2] == ["", ""] and all("--tuning-time" in line for line in said[2:])
