"""Is the mask of a masked array honoured where it means something, and refused where it does not?"""

import numpy as np
import pytest
from public_calls import ARGUMENTS, CALLS, OPERAND, ROW, parts_of

import entmax_ref

MAY_BE_MASKED = {"scores", "z", "where", "mask", "bias", "visible"}


@pytest.mark.parametrize(("function", "name"), [one for one in ARGUMENTS if one[1] not in MAY_BE_MASKED])
def test_a_masked_entry_that_means_nothing_is_refused(function, name):
    call, taken = CALLS[function]
    given = np.ma.array(taken[name], mask=np.zeros(np.shape(taken[name]), bool))
    expected, found = call(**taken), call(**{**taken, name: given})
    for one, other in zip(parts_of(expected), parts_of(found), strict=True):
        np.testing.assert_array_equal(one, other)
    given[(0,) * given.ndim] = np.ma.masked
    with pytest.raises(ValueError, match=rf"{name} must have no masked entry; 1 of {given.size} are masked.* Fill "):
        call(**{**taken, name: given})


HIDDEN = np.array([[True, False, False], [False, False, True]])
BY_SCORES = [name for name, (_, taken) in CALLS.items() if "scores" in taken and name != "certify"] + [
    "certify",
    "solve",
]


@pytest.mark.parametrize("function", BY_SCORES)
def test_a_masked_score_is_a_key_that_is_not_visible(function):
    call, taken = CALLS[function]
    name = "z" if function == "solve" else "scores"
    bare = np.where(HIDDEN, 1e6, ROW)  # would take all the weight
    masked = np.ma.array(bare, mask=HIDDEN)
    expected = parts_of(call(**{**taken, name: np.where(HIDDEN, -np.inf, ROW)}))
    given = [masked, [np.ma.array(row, mask=hidden) for row, hidden in zip(bare, HIDDEN, strict=True)]]
    entries = [list(zip(*both, strict=True)) for both in zip(ROW, HIDDEN, strict=True)]
    given.append([[np.ma.masked if hides else value for value, hides in row] for row in entries])
    for one in given:
        found = parts_of(call(**{**taken, name: one}))
        for part, wanted in zip(found, expected, strict=True):
            assert type(part) is np.ndarray
            np.testing.assert_array_equal(part, wanted)
    assert (masked.data == bare).all() and (masked.mask == HIDDEN).all()
    if "where" in taken:
        by_where = parts_of(call(**{**taken, name: bare, "where": taken["where"] & ~HIDDEN}))
        for part, wanted in zip(by_where, parts_of(call(**{**taken, name: masked})), strict=True):
            np.testing.assert_array_equal(part, wanted)


def test_masked_integers_and_a_shrunken_mask():
    scores = np.ma.array([9, 1, 0], mask=[True, False, False])
    assert entmax_ref.entmax(scores, 2.0).tolist() == [0.0, 1.0, 0.0]
    assert entmax_ref.support(np.ma.array([5.0, 1.0], mask=np.ma.nomask)).tolist() == [True, False]
    assert np.isposinf(entmax_ref.threshold(np.ma.masked_all(3)))


def test_a_masked_entry_of_a_mask_is_not_visible():
    where = np.ma.array([True, True, False], mask=[True, False, False])
    assert entmax_ref.entmax([9.0, 1.0, 0.0], where=where).tolist() == [0.0, 1.0, 0.0]


def test_a_masked_bias_hides_its_key_and_has_no_gradient():
    bias = np.ma.array(np.zeros((3, 3)), mask=np.eye(3, dtype=bool))
    plain = np.where(np.eye(3, dtype=bool), -np.inf, 0.0)
    for name in ("attention", "attention_scores", "attention_vjp"):
        call, taken = CALLS[name]
        more = {"return_d_bias": True} if name == "attention_vjp" else {}
        found, wanted = (parts_of(call(**{**taken, **more, "bias": one})) for one in (bias, plain))
        for part, other in zip(found, wanted, strict=True):
            assert type(part) is np.ndarray
            np.testing.assert_array_equal(part, other)
    mask = np.ma.array(np.ones((3, 3), bool), mask=np.eye(3, dtype=bool))
    by_mask = entmax_ref.attention(OPERAND, OPERAND, OPERAND, mask=mask)
    np.testing.assert_array_equal(by_mask, entmax_ref.attention(OPERAND, OPERAND, OPERAND, bias=bias))
