"""Does the suite pass a sound row map, and see each planted fault by the check that names it?"""

import dataclasses

import planted_rows
import pytest
from contiguous import contiguous_only
from lemmas import lemma

from entmax_ref.conformance import BUDGETS, CHECKS, Budget, run_check, run_target

QUICK = BUDGETS["quick"]
# The search ends with the first example that fails and its shrinking, so more examples cost little.
SEARCH = Budget(400, 1025, 16385)


@lemma(
    "threshold_unique", "threshold_shift", "threshold_subset", "jacobian_form", "jacobian_rows_zero", "alpha_derivative"
)
def test_a_sound_map_passes():
    outcomes = list(run_target(planted_rows.sound(), QUICK))
    assert [outcome for outcome in outcomes if outcome.status != "passed"] == []
    assert {outcome.check for outcome in outcomes} == {name for name, check in CHECKS.items() if check.kind == "rows"}


@pytest.mark.parametrize("fault", planted_rows.FAULTS)
def test_each_fault_is_seen_by_the_check_that_names_it(fault):
    check, planted = planted_rows.FAULTS[fault]
    outcome = run_check(CHECKS[check], planted(), "float32", SEARCH)
    assert outcome.status == "failed" and outcome.share > 1.0, outcome
    assert outcome.case is not None and outcome.sentence


def test_every_check_of_rows_has_a_fault():
    assert {check for check, _ in planted_rows.FAULTS.values()} == {
        name for name, check in CHECKS.items() if check.kind == "rows"
    }


def test_what_is_not_claimed_is_skipped_with_its_reason():
    bare = dataclasses.replace(
        planted_rows.sound(),
        vjp=None,
        threshold=None,
        second=None,
        d_alpha=None,
        more_iterations=None,
        loss=None,
        loss_grad=None,
        nonfinite=False,
        strides=False,
        alphas=(1.5,),
    )
    skipped = {outcome.check: outcome.sentence for outcome in run_target(bare, QUICK) if outcome.status == "skipped"}
    assert skipped["gradient"] == skipped["finite_differences"] == "a gradient is not claimed"
    assert skipped["iterations"] == "a number of iterations is not claimed"
    assert skipped["strides"] == "an array with other strides is not claimed"
    assert skipped["threshold"] == "tau is not claimed" and "alpha" in skipped["softmax_limit"]
    assert all(skipped.values())


def test_operands_are_contiguous_where_other_strides_are_not_claimed():
    fields = ("probs", "vjp", "threshold", "second", "d_alpha", "more_iterations", "loss", "loss_grad")
    target = contiguous_only(planted_rows.sound(strides=False), *fields)
    outcomes = list(run_target(target, Budget(8, 130, 1025, conclusive=False)))
    assert [outcome for outcome in outcomes if outcome.bad] == []
