"""Does the suite pass sound attention, and see each planted fault by the check that names it?"""

import dataclasses

import numpy as np
import planted_attention
import pytest
from contiguous import contiguous_only
from lemmas import lemma

import entmax_ref
from entmax_ref.conformance import BUDGETS, CHECKS, Budget, run_check, run_target
from entmax_ref.conformance.attention_truth import mask_of

QUICK = BUDGETS["quick"]
# The search ends with the first example that fails and its shrinking, so more examples cost little.
SEARCH = Budget(120, 1025, 16385, 40)


@lemma("block_mask_superset", "query_gradient", "key_gradient", "value_gradient", "normalised_output")
def test_sound_attention_passes():
    outcomes = list(run_target(planted_attention.sound(), QUICK))
    assert [outcome for outcome in outcomes if outcome.status != "passed"] == []
    assert {outcome.check for outcome in outcomes} == {
        name for name, check in CHECKS.items() if check.kind == "attention"
    }


@pytest.mark.parametrize("fault", planted_attention.FAULTS)
def test_each_fault_is_seen_by_the_check_that_names_it(fault):
    check, planted = planted_attention.FAULTS[fault]
    outcome = run_check(CHECKS[check], planted(), "float32", SEARCH)
    assert outcome.status == "failed" and outcome.share > 1.0, outcome
    assert outcome.case is not None and outcome.sentence


def test_every_check_of_attention_has_a_fault():
    assert {check for check, _ in planted_attention.FAULTS.values()} == {
        name for name, check in CHECKS.items() if check.kind == "attention"
    }


def test_what_is_not_claimed_is_skipped_with_its_reason():
    bare = dataclasses.replace(
        planted_attention.sound(),
        lengths=(1, 1024),
        vjp=None,
        exposes=(),
        causal=(False,),
        square=True,
        grouped=False,
        window=False,
        key_ranges=False,
        packed=None,
        packed_vjp=None,
        nonfinite=False,
        strides=False,
    )
    skipped = {outcome.check: outcome.sentence for outcome in run_target(bare, QUICK) if outcome.status == "skipped"}
    assert skipped["query_gradient"] == "a gradient is not claimed"
    assert skipped["block_mask_sound"] == "block_mask is not exposed"
    assert skipped["attention_strides"] == "an array with other strides is not claimed"
    assert skipped["window_output"] == skipped["window_gradient"] == "a sliding window is not claimed"
    assert skipped["ranges_output"] == "a range of keys for each query is not claimed"
    assert skipped["packed_output"] == "a call for packed sequences is not claimed"
    assert {"causal_future", "grouped_heads", "attention_empty", "attention_nonfinite", "passes"} < set(skipped)


def test_operands_are_contiguous_where_other_strides_are_not_claimed():
    target = contiguous_only(planted_attention.sound(strides=False), "attend", "vjp", "packed", "packed_vjp")
    bad = [outcome for outcome in run_target(target, Budget(8, 130, 1025, 40, conclusive=False)) if outcome.bad]
    assert bad == []


@pytest.mark.parametrize("is_causal", [False, True])
def test_no_row_is_without_a_key_where_that_is_not_claimed(is_causal):
    """A target that takes every mask, and no row without a key, meets none."""
    plain = planted_attention.sound(empty=False, causal=(is_causal,))

    def attend(query, key, value, call):
        scores = entmax_ref.attention_scores(
            query, np.repeat(key, query.shape[1] // key.shape[1], axis=1), is_causal=call.is_causal,
            window=call.window, mask=mask_of(call, key.shape[2]),
        )  # fmt: skip
        assert (scores.max(-1, initial=-np.inf) > -np.inf).all()
        return plain.attend(query, key, value, call)

    def packed(query, key, value, offsets, call):
        return planted_attention.packed(query, key, value, offsets, call, function=attend)

    target = dataclasses.replace(plain, attend=attend, packed=packed)
    names = ("window_output", "ranges_output", "packed_output", "attention_tau")
    assert [one for one in run_target(target, QUICK, names=names) if one.status != "passed"] == []
