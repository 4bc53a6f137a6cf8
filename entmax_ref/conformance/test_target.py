"""Does the target pass?  One test for each check and dtype; `plugin` says which, and reads the options."""

from typing import Any

import pytest

from entmax_ref.conformance.outcome import as_record
from entmax_ref.conformance.running import run_check
from entmax_ref.conformance.table import told


def test_target(entmax_cell: Any, entmax_budget: Any, record_property: Any, request: pytest.FixtureRequest) -> None:
    """Run one check; what a target does not claim is skipped, what is expected to fail is reported as such."""
    target, check, dtype = entmax_cell
    outcome = run_check(check, target, dtype, entmax_budget, request.config.getoption("--entmax-seed"))
    record_property("entmax_outcome", as_record(outcome))
    if outcome.status == "skipped":
        pytest.skip(outcome.sentence)
    if outcome.status == "known failure":
        pytest.xfail(outcome.sentence)
    if outcome.status != "passed":
        pytest.fail(told(outcome), pytrace=False)
