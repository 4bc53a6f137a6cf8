"""Is the text that everything is tested against right itself, within what is published of it, and on its own?"""

import ast
import math
import re
from pathlib import Path

import hard
import numpy as np
import pytest
from drawn import ALPHAS, EXTREME_ALPHAS, edge_rows, finite_rows, shifted_rows
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples

import entmax_ref
from entmax_ref import bounds, oracle
from entmax_ref.certify import certify

EVERY_ALPHA = (*ALPHAS, *EXTREME_ALPHAS)
each_alpha = pytest.mark.parametrize("alpha", EVERY_ALPHA)


def assert_certified(scores, alpha):
    """Hold threshold, probabilities and support of a row to proven bounds."""
    if alpha != 2.0:
        pytest.importorskip("flint", reason="ball arithmetic comes with the extra certify")
    proof = certify(scores, alpha)
    tau, probs, inside = oracle.threshold(scores, alpha), oracle.entmax(scores, alpha), oracle.support(scores, alpha)
    assert proof.tau_error(tau)[0] <= bounds.threshold(scores, alpha)
    assert (proof.probs_error(probs)[0] <= bounds.entmax(scores, alpha)).all()
    assert not ((probs > 0.0) & ~inside).any()
    # A key that is on the wrong side lies within rounding of tau, counted without the offset of the row.
    wrong = inside & proof.out_of_support | ~inside & proof.in_support
    margin = (alpha - 1.0) * (scores - np.max(scores)) - entmax_ref.threshold(scores - np.max(scores), alpha)
    assert (np.abs(margin[wrong]) <= 2.0**-45 * max(1.0, alpha - 1.0)).all()


@each_alpha
@lemma("threshold_unique")
@lemma("threshold_bracket")
@examples(20)
@given(scores=shifted_rows())
def test_within_proven_bounds(alpha, scores):
    assert_certified(scores, alpha)


@pytest.mark.parametrize("alpha", ALPHAS)
@examples(20)
@given(data=st.data())
def test_with_a_key_within_rounding_of_the_threshold(alpha, data):
    assert_certified(data.draw(edge_rows(alpha, entmax_ref.threshold)), alpha)


@each_alpha
@pytest.mark.parametrize("n", [33, 4096])
def test_the_fast_path_on_rows_that_are_hard(alpha, n):
    """Both err by their bound at most, on flat and long rows too."""
    names, rows = hard.rows(n)
    scores = rows / max(alpha - 1.0, 0.1)
    tau, probs = entmax_ref.threshold(scores, alpha), entmax_ref.entmax(scores, alpha)
    of_tau, of_probs = bounds.threshold(scores, alpha), bounds.entmax(scores, alpha)
    inside = entmax_ref.support(scores, alpha)
    for index, name in enumerate(names):
        assert abs(oracle.threshold(scores[index], alpha) - tau[index]) <= 2.0 * of_tau[index], name
        assert (np.abs(oracle.entmax(scores[index], alpha) - probs[index]) <= 2.0 * of_probs[index]).all(), name
        differs = oracle.support(scores[index], alpha) != inside[index]
        margin = (alpha - 1.0) * scores[index] - tau[index]
        assert (np.abs(margin[differs]) <= 2.0**-45 * max(1.0, alpha - 1.0)).all(), name


@examples(50)
@given(scores=finite_rows())
def test_softmax_at_alpha_1_and_as_alpha_tends_to_it(scores):
    softmax = entmax_ref.softmax(scores)
    assert (np.abs(oracle.entmax(scores, 1.0) - softmax) <= 2.0 * bounds.entmax(scores, 1.0)).all()
    # The probabilities move by at most alpha - 1 times half the square of a depth, which is that of a key of weight.
    depth = np.minimum(np.max(scores) - scores, 40.0) + math.log(len(scores))
    near = oracle.entmax(scores, 1.0 + 2.0**-40)
    assert (np.abs(near - softmax) <= 2.0**-40 * (1.0 + depth) ** 2 + 2.0**-48).all()


def test_hidden_keys_empty_rows_and_undefined_ones():
    np.testing.assert_array_equal(oracle.entmax([1.0, -math.inf, 0.0], 2.0), [1.0, 0.0, 0.0])
    np.testing.assert_array_equal(oracle.support([1.0, -math.inf, 0.5], 2.0), [True, False, True])
    for empty in ([], [-math.inf, -math.inf]):
        assert oracle.threshold(empty) == math.inf
        np.testing.assert_array_equal(oracle.entmax(empty), np.zeros(len(empty)))
        assert not oracle.support(empty).any()
    for bad in (math.nan, math.inf):
        row = [0.0, bad, -math.inf]
        assert math.isnan(oracle.threshold(row))
        np.testing.assert_array_equal(oracle.entmax(row), [math.nan, math.nan, 0.0])
        assert not oracle.support(row).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: oracle.entmax([[0.0]]), "oracle: scores have shape (1, 1); they must be one row"),
        (lambda: oracle.threshold([0.0], 1.0), "oracle: alpha is 1, which is softmax"),
        (lambda: oracle.support([0.0], 0.5), "oracle: alpha is 0.5; it must be finite and at least 1"),
        (lambda: oracle.entmax([0.0], math.nan), "oracle: alpha is nan"),
        (lambda: oracle.entmax([0.0], math.inf), "oracle: alpha is inf"),
    ],
)
def test_what_it_does_not_take(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_it_stands_alone():
    """So that what is tested against it cannot be wrong in the same way, and that it can be taken by itself."""
    tree = ast.parse(Path(oracle.__file__).read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert modules == {"math", "numpy", "numpy.typing"}
