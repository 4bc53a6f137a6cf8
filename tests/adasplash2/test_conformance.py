"""Do our own maps and our attention pass the suite, on the reference path, in the interpreter and on a GPU?"""

import dataclasses

import pytest

from adasplash2 import conformance
from entmax_ref.conformance import BUDGETS, Budget, run_target

QUICK = BUDGETS["quick"]


def bad(target, budget, **how):
    return [outcome for outcome in run_target(target, budget, **how) if outcome.bad]


@pytest.mark.slow
@pytest.mark.parametrize("make", [conformance.rows, conformance.attention], ids=lambda make: make.__name__)
def test_the_reference_path_passes(make):
    assert bad(make(), QUICK) == []


@pytest.mark.slow
@pytest.mark.parametrize("level", ["rows", "gradient", "long"])
def test_the_row_kernels_pass(level):
    """In the interpreter few examples of short rows; on a GPU as many as elsewhere."""
    target = conformance.row_kernels()
    budget = QUICK if target.device == "cuda" else Budget(6, 130, 1025)
    assert bad(target, budget, levels=(level,)) == []


@pytest.mark.gpu
@pytest.mark.slow
def test_the_attention_kernels_pass():
    assert bad(conformance.attention_kernels(), QUICK) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["attention_output", "block_mask_sound", "key_gradient", "window_output", "ranges_gradient", "packed_output"],
)
def test_the_attention_kernels_pass_in_the_interpreter(name):
    target = dataclasses.replace(conformance.attention_kernels(), head_dims=(8, 16), dtypes=("bfloat16",))
    if target.device == "cuda":
        pytest.skip("the compiled kernels have a test of their own")
    assert bad(target, Budget(5, 130, 1025, 40), names=(name,)) == []
