"""Do the adapters of other implementations work where these are installed, and say why they cannot where not?"""

import pytest

pytest.importorskip("torch")

from entmax_ref.conformance import BUDGETS, Budget, load, run_target

ADAPTERS = "entmax_ref.conformance.adapters"
FEW = Budget(12, 130, 1025, 40, conclusive=False)


@pytest.mark.parametrize(
    "name", ["oracle:rows", "oracle:attention", "torch_softmax:rows", "torch_softmax:attention", "flex:attention"]
)
def test_sound_implementations_pass(name):
    for target in load(f"{ADAPTERS}.{name}"):
        outcomes = list(run_target(target, FEW))
        assert [outcome for outcome in outcomes if outcome.bad] == []
        assert any(outcome.status == "passed" for outcome in outcomes)


@pytest.mark.parametrize("name", ["entmax_package:rows", "adasplash_package:rows", "adasplash_package:attention"])
def test_what_cannot_run_is_skipped_with_the_reason(name):
    for target in load(f"{ADAPTERS}.{name}"):
        if target.missing:
            outcomes = list(run_target(target, BUDGETS["quick"]))
            assert {outcome.status for outcome in outcomes} == {"skipped"}
            assert {outcome.sentence for outcome in outcomes} == {target.missing}
            assert "not installed" in target.missing or "needs a GPU" in target.missing
