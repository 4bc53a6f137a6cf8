"""Does the suite find what the package entmax gets wrong without being told, where that package is installed?"""

import dataclasses

import pytest

pytest.importorskip("torch")
pytest.importorskip("entmax")

from entmax_ref.conformance import BUDGETS, CHECKS, run_check
from entmax_ref.conformance.adapters import entmax_package

QUICK = BUDGETS["quick"]


@pytest.mark.parametrize(
    ("make", "check", "dtype"),
    [
        (entmax_package.entmax15, "empty_row", "float32"),
        (entmax_package.sparsemax, "empty_row", "float32"),
        (entmax_package.entmax15, "long_flat_mass", "float16"),
        (entmax_package.entmax_bisect, "offset", "float32"),
        (entmax_package.sparsemax_bisect, "offset", "float32"),
        (entmax_package.entmax15, "second_order", "float32"),
    ],
)
def test_a_failure_is_found_unprompted(make, check, dtype):
    told = make()
    untold = dataclasses.replace(told, known=())
    assert run_check(CHECKS[check], untold, dtype, QUICK).status == "failed"
    assert run_check(CHECKS[check], told, dtype, QUICK).status == "known failure"
