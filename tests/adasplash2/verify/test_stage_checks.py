"""Does `verify` see a stage that is wrong by itself?  Planted faults must fail, one by one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from verified import SMALL, gather

from adasplash2 import launch_table
from adasplash2.verify import stage_checks
from adasplash2.verify.truth import each_head, in_blocks, visible_blocks


@pytest.fixture(scope="module")
def evidence():
    return gather(SMALL)


@pytest.fixture(scope="module")
def stage_run(evidence):
    return stage_checks.run_stages(evidence.load, evidence.truth.d_out, SMALL.alpha)


@pytest.fixture(scope="module")
def key_run(evidence):
    """The stages by single keys, in float32, all the way."""
    fields = {"row_entries": 192, "row_pairs": 2**20, "column_pairs": 2**20, "turn_pairs": 2**20}
    return stage_checks.run_stages(evidence.load, evidence.truth.d_out, SMALL.alpha, **fields)


def test_the_error_of_z_covers_what_float32_does():
    load = dataclasses.replace(SMALL, name="offset", n_queries=50, n_keys=50).load("cpu")
    for head in each_head(load, 1.5):
        query, key = torch.from_numpy(head.query).float(), torch.from_numpy(head.key).float()
        z = (query @ key.T) * (0.5 * 32**-0.5)
        seen = head.z > -np.inf
        assert (np.abs(z.double().numpy() - head.z)[seen] <= head.z_error[seen]).all()
        assert head.z_error.max() < 0.1


def test_every_stage_passes(evidence):
    checks = stage_checks.check_stages(evidence.load, evidence.truth, evidence.answer, evidence.naive, SMALL.alpha)
    assert [check for check in checks if not check.passed] == []
    stages = {check.stage for check in checks}
    assert stages >= {"dense", "solve", "histogram", "refine", "block_mask", "block_mask_transpose", "block_list"}
    assert stages >= {"output", "backward_dq", "backward_dkdv", "columns", "column_order", "repeat"}


@pytest.mark.parametrize(
    ("rule", "name", "change"),
    [
        ("row_max", "row_max", lambda x: x + 1e-3),
        ("candidates missing", "candidates", np.zeros_like),
        ("candidates too many", "candidates", np.ones_like),
        ("lo <= tau", "lo", lambda x: x + 1.0),
        ("tau", "tau", lambda x: x + 1e-2),
        ("residual", "residual", lambda x: x + 1.0),
        ("rows at the cap of passes", "passes", lambda x: x + 40),
        ("bits outside the candidates", "block_mask", np.ones_like),
        ("bits too many", "block_mask", np.ones_like),
    ],
)
def test_a_wrong_stage_fails(evidence, stage_run, rule, name, change):
    forward = stage_run.forward | {name: change(stage_run.forward[name])}
    run = dataclasses.replace(stage_run, forward=forward)
    checks = stage_checks.check_rows(evidence.load, evidence.truth, run, SMALL.alpha)
    assert rule in {check.rule for check in checks if not check.passed}


@pytest.mark.parametrize(
    ("rule", "name", "change"),
    [
        ("lo <= tau", "tile_lo", lambda x: x + 0.25),
        ("tau <= hi", "hi", lambda x: x - 0.25),
        ("hi - lo", "hi", lambda x: x + 1.0),
        ("first tau outside the bracket", "first_tau", lambda x: x + 1.0),
        ("tau", "tau", lambda x: x + 1e-2),
    ],
)
def test_a_wrong_stage_of_rows_that_go_by_tiles_fails(evidence, rule, name, change):
    run = stage_checks.run_stages(evidence.load, evidence.truth.d_out, SMALL.alpha, row_entries=0)
    assert run.by_tiles.all()
    right = stage_checks.check_rows(evidence.load, evidence.truth, run, SMALL.alpha)
    assert all(check.passed for check in right)
    run = dataclasses.replace(run, forward=run.forward | {name: change(run.forward[name])})
    checks = stage_checks.check_rows(evidence.load, evidence.truth, run, SMALL.alpha)
    assert rule in {check.rule for check in checks if not check.passed}


@pytest.mark.parametrize(
    "rule, name", [("support missing", "rows"), ("support too many", "rows"), ("pairs that differ", "columns")]
)
def test_a_wrong_support_fails(evidence, key_run, rule, name):
    gathered = key_run.gathered
    assert gathered.has_rows.any() and gathered.has_columns.any()
    right = stage_checks.check_gathered(evidence.load, evidence.truth, key_run, SMALL.alpha)
    assert len(right) == 4 and all(check.passed for check in right)
    bits = getattr(gathered, name).copy()
    listed = (gathered.has_rows if name == "rows" else gathered.has_columns)[..., None]
    flipped = np.argwhere(listed & (bits if rule != "support too many" else ~bits))[0]
    bits[tuple(flipped)] ^= True
    wrong = dataclasses.replace(key_run, gathered=dataclasses.replace(gathered, **{name: bits}))
    checks = stage_checks.check_gathered(evidence.load, evidence.truth, wrong, SMALL.alpha)
    assert rule in {check.rule for check in checks if not check.passed}


def test_columns_out_of_order_fail(evidence, key_run):
    unordered = key_run.gathered.unordered.copy()
    unordered.flat[0] = True
    wrong = dataclasses.replace(key_run, gathered=dataclasses.replace(key_run.gathered, unordered=unordered))
    checks = stage_checks.check_gathered(evidence.load, evidence.truth, wrong, SMALL.alpha)
    assert [check.rule for check in checks if not check.passed] == ["columns that do not ascend"]


def test_a_bit_that_differs_in_the_second_run_fails(evidence, stage_run):
    assert stage_checks.same_bits(evidence.answer, stage_run).passed
    out = evidence.answer.out.copy()
    out[0, 0, 0, 0] = np.nextafter(out[0, 0, 0, 0], 1)
    assert not stage_checks.same_bits(dataclasses.replace(evidence.answer, out=out), stage_run).passed


def test_blocks_that_no_query_sees_are_no_difference(monkeypatch):
    """As on a GPU, where a tile of the dense pass holds several blocks; here they lie beyond the diagonal."""
    row = launch_table.INTERPRETER
    monkeypatch.setattr(
        launch_table, "INTERPRETER", dataclasses.replace(row, dense_m=2 * row.block_m, dense_n=2 * row.block_n)
    )
    evidence = gather(dataclasses.replace(SMALL, name="equal", n_queries=4 * row.block_m, n_keys=4 * row.block_n))
    run = stage_checks.run_stages(evidence.load, evidence.truth.d_out, SMALL.alpha)
    beyond = run.forward["block_mask"] & ~run.visible
    assert beyond.any()
    assert stage_checks.same_bits(evidence.answer, run).passed
    wrong = dataclasses.replace(run, forward=run.forward | {"block_mask": beyond})
    assert not stage_checks.same_bits(evidence.answer, wrong).passed


@pytest.mark.parametrize("name", ["equal", "sink_local16", "no_key"])
def test_visible_blocks_are_those_with_a_pair_that_sees_each_other(name):
    load = dataclasses.replace(SMALL, name=name, n_queries=50, n_keys=33 if name == "no_key" else 50).load("cpu")
    found = visible_blocks(load, (8, 16))
    for head in each_head(load, SMALL.alpha):
        own = found[min(head.place[0], len(found) - 1), 0]
        np.testing.assert_array_equal(own, in_blocks(head.z > -np.inf, (8, 16)))


def test_blocks_of_pairs():
    pairs = np.zeros((5, 7), dtype=bool)
    pairs[4, 6] = True
    assert in_blocks(pairs, (2, 4)).tolist() == [[False, False], [False, False], [False, True]]
