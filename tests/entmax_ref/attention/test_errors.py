"""Does every error of attention name the argument, the rule, the value and the way out?"""

import re

import numpy as np
import pytest

import entmax_ref

ONES = np.ones((2, 4, 3, 8))
BAD_OPERANDS = [
    (
        {"query": ONES[0]},
        ValueError,
        "query must have the four axes (batch, heads, length, head_dim); its shape is (4, 3",
    ),
    (
        {"key": ONES * 1j},
        TypeError,
        "key must be real and numeric; its dtype is complex128. Pass its real part",
    ),
    (
        {"query": ONES[..., :4]},
        ValueError,
        "query and key must share a head_dim of at least 1; their shapes are (2, 4, 3",
    ),
    (
        {"query": ONES[..., :0], "key": ONES[..., :0]},
        ValueError,
        "query and key must share a head_dim of at least 1;",
    ),
    (
        {"key": ONES[:1]},
        ValueError,
        "key must have the batch of query, 2; its shape is (1, 4, 3, 8). Repeat the smaller",
    ),
    (
        {"key": ONES[:, :2]},
        ValueError,
        "query and key must have the same number of heads; they have 4 and 2. Pass enable_",
    ),
    (
        {"key": ONES[:, :3], "enable_gqa": True},
        ValueError,
        "must be a multiple of those of key; they are 4 and 3. Repeat",
    ),
    (
        {"key": ONES[:, :0], "enable_gqa": True},
        ValueError,
        "must be a multiple of those of key; they are 4 and 0. Repeat",
    ),
    (
        {"enable_gqa": 1},
        TypeError,
        "enable_gqa must be True or False; it is 1 of type int. Pass enable_gqa=True or",
    ),
    (
        {"is_causal": ONES},
        TypeError,
        "is_causal must be True or False; it is array(",
    ),
    (
        {"scale": "1"},
        TypeError,
        "scale must be one real number or None; it is '1' of type str. Pass None for head_dim",
    ),
    ({"scale": True}, TypeError, "scale must be one real number or None; it is True of type bool."),
    (
        {"scale": np.inf},
        ValueError,
        "scale must be finite; it is inf. Pass None for head_dim ** -0.5 = 0.35355",
    ),
    (
        {"mask": np.ones((3, 3))},
        TypeError,
        "mask must be boolean, True where the key is visible; its dtype is float64.",
    ),
    (
        {"mask": np.ones(2, bool)},
        ValueError,
        "mask must broadcast to shape (2, 4, 3, 3); its shape is (2,). Insert axes",
    ),
]

BAD_VALUES = [
    (
        {"value": ONES[:, :, :2]},
        ValueError,
        "value must have the heads and the length of key, (4, 3); its shape is (2, 4, 2",
    ),
    (
        {"value": ONES[:, :2]},
        ValueError,
        "value must have the heads and the length of key, (4, 3); its shape is (2, 2, 3",
    ),
    ({"value": ONES[:1]}, ValueError, "value must have the batch of query, 2; its shape is (1, 4, 3, 8)."),
    ({"value": ["a"]}, TypeError, "value must be real and numeric; its dtype is <U1."),
    ({"alpha": 1.0}, ValueError, "alpha must be above 1; it is 1.0, and alpha=1 is softmax"),
    ({"alpha": np.nan}, ValueError, "alpha must be finite and above 1; it is nan."),
]


def assert_refused(function, arguments, error, message):
    with pytest.raises(error, match=f"^{function}: .*{re.escape(message)}"):
        getattr(entmax_ref, function)(**arguments)


@pytest.mark.parametrize("function", ["attention", "attention_vjp", "attention_scores"])
@pytest.mark.parametrize(("arguments", "error", "message"), BAD_OPERANDS)
def test_a_bad_operand_or_option_is_named_with_its_rule_its_value_and_a_way_out(function, arguments, error, message):
    rest = {"attention": ["value"], "attention_vjp": ["value", "d_out"], "attention_scores": []}[function]
    assert_refused(function, {**dict.fromkeys(["query", "key", *rest], ONES), **arguments}, error, message)


@pytest.mark.parametrize("function", ["attention", "attention_vjp"])
@pytest.mark.parametrize(("arguments", "error", "message"), BAD_VALUES)
def test_a_bad_value_or_alpha_is_named(function, arguments, error, message):
    rest = ["d_out"] if function == "attention_vjp" else []
    assert_refused(function, {**dict.fromkeys(["query", "key", "value", *rest], ONES), **arguments}, error, message)


def test_a_bad_d_out_or_return_aux_is_named():
    operands = dict.fromkeys(["query", "key", "value"], ONES)
    message = "d_out must have the shape of the output, (batch, heads, n_queries, value_dim), (2, 4, 3, 8); "
    assert_refused("attention_vjp", {**operands, "d_out": ONES[0]}, ValueError, message)
    assert_refused("attention_vjp", {**operands, "d_out": ONES * 1j}, TypeError, "d_out must be real and numeric;")
    assert_refused(
        "attention",
        {**operands, "return_aux": 1},
        TypeError,
        "return_aux must be True or False; it is 1 of type int",
    )


BAD_OPTIONS = [
    (
        {"bias": np.ones((3, 3), bool)},
        TypeError,
        "bias must hold numbers to add to the scores; its dtype is bool. Pass",
    ),
    ({"bias": np.ones((3, 3)) * 1j}, TypeError, "bias must be real and numeric; its dtype is complex128."),
    ({"bias": np.ones(2)}, ValueError, "bias must broadcast to shape (2, 4, 3, 3); its shape is (2,). Insert axes"),
    ({"window": 3}, TypeError, "window must be None or a pair (left, right); it is 3. Pass for example"),
    ({"window": (1, 2, 3)}, TypeError, "window must be None or a pair (left, right); it is (1, 2, 3)."),
    ({"window": (1.0, 2)}, TypeError, "window must hold integers or None; it is (1.0, 2)."),
    ({"window": (True, 2)}, TypeError, "window must hold integers or None; it is (True, 2)."),
    ({"window": (-1, 0)}, ValueError, "window must not be negative; it is (-1, 0). Pass None for a side without"),
]


@pytest.mark.parametrize("function", ["attention", "attention_vjp", "attention_scores"])
@pytest.mark.parametrize(("arguments", "error", "message"), BAD_OPTIONS)
def test_a_bad_bias_or_window_is_named(function, arguments, error, message):
    rest = {"attention": ["value"], "attention_vjp": ["value", "d_out"], "attention_scores": []}[function]
    assert_refused(function, {**dict.fromkeys(["query", "key", *rest], ONES), **arguments}, error, message)


@pytest.mark.parametrize(
    ("alpha", "error", "message"),
    [
        (np.full(3, 1.5), ValueError, "alpha must be one number or have one entry per head of query, shape (4,); its"),
        (np.full((1, 4), 1.5), ValueError, "alpha must be one number or have one entry per head of query, shape (4,)"),
        ([1.5, 1.5, 1.5, 1.0], ValueError, "head 3: alpha must be above 1; it is 1.0, and alpha=1 is softmax"),
        ([1.5, np.nan, 1.5, 1.5], ValueError, "head 1: alpha must be finite and above 1; it is nan."),
        (["a"] * 4, TypeError, "alpha must be real and numeric; its dtype is <U1."),
    ],
)
@pytest.mark.parametrize("function", ["attention", "attention_vjp"])
def test_a_bad_alpha_of_heads_is_named(function, alpha, error, message):
    rest = ["d_out"] if function == "attention_vjp" else []
    assert_refused(function, {**dict.fromkeys(["query", "key", "value", *rest], ONES), "alpha": alpha}, error, message)


def test_a_bad_flag_of_the_gradient_is_named():
    operands = dict.fromkeys(["query", "key", "value", "d_out"], ONES)
    message = "return_d_bias needs a bias; it is None. Pass that of the forward, or zeros."
    assert_refused("attention_vjp", {**operands, "return_d_bias": True}, ValueError, message)
    message = "return_d_alpha must be True or False; it is 1 of type int"
    assert_refused("attention_vjp", {**operands, "return_d_alpha": 1}, TypeError, message)
