"""Does every error of threshold, entmax and support name the argument, the rule, the value and the way out?"""

import re

import numpy as np
import pytest

import entmax_ref
from entmax_ref import threshold


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"alpha": 0.5}, ValueError, "alpha must be finite and {rule}; it is 0.5. Use 1.5 (entmax), 2"),
        ({"alpha": -2}, ValueError, "alpha must be finite and {rule}; it is -2."),
        ({"alpha": float("nan")}, ValueError, "alpha must be finite and {rule}; it is nan."),
        ({"alpha": float("inf")}, ValueError, "alpha must be finite and {rule}; it is inf."),
        (
            {"alpha": 10**400},
            ValueError,
            "it is an integer of about 401 digits, beyond the largest float. Use",
        ),
        ({"alpha": [[1.5, -1.0]]}, ValueError, "alpha must be finite and {rule}; it is -1.0 at index (0, 1)."),
        (
            {"alpha": "1.5"},
            TypeError,
            "alpha must be one real number {rule}, or an array of them; it is '1.5' of type str. Pass a float",
        ),
        ({"alpha": True}, TypeError, "or an array of them; it is True of type bool."),
        ({"alpha": None}, TypeError, "or an array of them; it is None of type NoneType."),
        ({"alpha": 1.5 + 0j}, TypeError, "or an array of them; it is (1.5+0j) of type complex."),
        ({"alpha": ["1.5", "2"]}, TypeError, "it is an array of dtype <U3. Pass a float"),
        (
            {"alpha": [[1.5], [2.0, 3.0]]},
            TypeError,
            "one real number {rule}, or an array of them; NumPy cannot",
        ),
        (
            {"alpha": [1.5, 2.0]},
            ValueError,
            "alpha must be one number or broadcast to one per row, shape () (that of scores without axis); its shape "
            "is (2,). Insert axes",
        ),
        (
            {"scores": [1j]},
            TypeError,
            "scores must be real and numeric; its dtype is complex128. Pass its real part",
        ),
        ({"scores": ["a"]}, TypeError, "scores must be real and numeric; its dtype is <U1. Convert it first"),
        (
            {"scores": [None]},
            TypeError,
            "real and numeric; its dtype is object, and entry 0 is None of type NoneType. Convert it first",
        ),
        (
            {"scores": [True]},
            TypeError,
            "scores must be real and numeric; its dtype is bool. A mask goes into where=",
        ),
        (
            {"scores": [[1.0], [1.0, 2.0]]},
            TypeError,
            "scores must be an array of real numbers; NumPy cannot read it as a rectangular array: ",
        ),
        (
            {"scores": 1.0},
            ValueError,
            "axis must name an axis of scores, of shape (); it is -1. Give it an axis",
        ),
        (
            {"scores": np.ones((2, 3)), "axis": 2},
            ValueError,
            "of shape (2, 3); it is 2. Use a value from -2 to 1.",
        ),
        (
            {"axis": -2},
            ValueError,
            "axis must name an axis of scores, of shape (2,); it is -2. Use a value from -1",
        ),
        (
            {"axis": (0, 1)},
            TypeError,
            "axis must be one integer; it is (0, 1). Move or flatten the axes first",
        ),
        ({"axis": None}, TypeError, "axis must be one integer; it is None."),
        (
            {"where": [1, 0]},
            TypeError,
            "where must be boolean, True where the key is visible; its dtype is int64.",
        ),
        (
            {"where": [True] * 3},
            ValueError,
            "where must broadcast to shape (2,); its shape is (3,). Insert axes",
        ),
        (
            {"where": np.ones((1, 1, 2), bool)},
            ValueError,
            "where must broadcast to shape (2,); its shape is (1, 1, 2)",
        ),
    ],
)
@pytest.mark.parametrize("function", ["threshold", "entmax", "support"])
def test_a_bad_argument_is_named_with_its_rule_its_value_and_a_way_out(function, arguments, error, message):
    arguments = {"scores": [1.0, 2.0], **arguments}
    message = message.replace("{rule}", "above 1" if function == "threshold" else "at least 1")
    with pytest.raises(error, match="^" + function + ": .*" + re.escape(message)):
        getattr(entmax_ref, function)(**arguments)


@pytest.mark.parametrize("alpha", [1, 1.0, [1.0, 1.5]])
def test_softmax_has_no_threshold(alpha):
    message = (
        "^threshold: alpha must be above 1; it is .*, and alpha=1 is softmax, which has no threshold: .* logarithm"
    )
    with pytest.raises(ValueError, match=message):
        threshold(np.ones((2, 2)), alpha)
