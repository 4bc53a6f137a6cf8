"""Does every public function refuse what it cannot serve in one clear line?"""

import collections
import datetime
import itertools
import re
import warnings
from fractions import Fraction

import numpy as np
import pytest
from public_calls import ARGUMENTS, CALLS, OPERAND, PACKED, ROW, message_of, nested_tensor, parts_of, quietly, torch

import entmax_ref
from entmax_ref import bounds
from entmax_ref.certify import certify
from entmax_ref.solvers import solve


class Contrary:
    def __array__(self, *_, **__):
        raise RuntimeError("not today")

    def __repr__(self):
        raise RuntimeError("nor shown")


# What no argument that takes an array can be, made anew for each test; all but the first few as an array would be.
BAD = {
    "ragged": lambda: [[1.0], [1.0, 2.0]],
    "string": lambda: "1.0",
    "strings": lambda: np.array([["a", "b", "c"]] * 2),
    "bytes": lambda: b"12",
    "complex": lambda: ROW * 1j,
    "objects": lambda: ROW.astype(object),
    "a missing value": lambda: np.array([[1.0, None, 2.0]] * 2, dtype=object),
    "fractions": lambda: [[Fraction(1, 2)] * 3] * 2,
    "integers beyond 64 bits, and strings": lambda: [[10**400, "a", 0]] * 2,
    "dict": lambda: {"a": 1.0},
    "set": lambda: {1.0, 2.0},
    "generator": lambda: (x for x in (1.0, 2.0)),
    "function": lambda: len,
    "date": lambda: np.array([[datetime.date(2026, 1, 1)] * 3] * 2, dtype="datetime64[D]"),
    "record": lambda: np.zeros((2, 3), dtype=[("x", float)]),
    "masked record": lambda: np.ma.zeros((2, 3), dtype=[("x", float)]),
    "raises": Contrary,
    "nested lists": lambda: [[[[[[[1.0]]]], [2.0, 3.0]]]],
    "tensor that requires grad": lambda: torch.ones(2, 3, requires_grad=True),
    "list of tensors that require grad": lambda: [torch.ones(3, requires_grad=True)] * 2,
    "bfloat16 tensor": lambda: torch.ones(2, 3, dtype=torch.bfloat16),
    "sparse tensor": lambda: torch.ones(2, 3).to_sparse(),
    "jagged tensor": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    "nested tensor": lambda: nested_tensor(),
    "meta tensor": lambda: torch.ones(2, 3, device="meta"),
    "complex tensor": lambda: torch.ones(2, 3, dtype=torch.complex64).conj(),
    "tensor of another sign": lambda: (torch.ones(2, 3) * 1j).conj().imag,
}


# What NumPy reads as numbers or booleans: served if the function can, refused in our words if not.
ODD = {
    "None": lambda: None,
    "empty": lambda: [],
    "zero axes": lambda: np.float64(2.0),
    "integer beyond float": lambda: 10**400,
    "integer beyond printing": lambda: 10**5000,
    "no rows": lambda: np.zeros((0, 3)),
    "no keys": lambda: np.zeros((2, 0)),
    "many axes": lambda: np.zeros((1,) * 9),
    "NaN": lambda: np.full((2, 3), np.nan),
    "inf": lambda: np.full((2, 3), np.inf),
    "bool": lambda: True,
    "bools": lambda: np.ones((2, 3), bool),
    "longdouble": lambda: np.full((2, 3), np.finfo(np.longdouble).max),
    "float16": lambda: ROW.astype(np.float16),
    "uint8": lambda: np.ones((2, 3), np.uint8),
    "uint64": lambda: np.full((2, 3), 2**64 - 1, np.uint64),
    "other byte order": lambda: ROW.astype(">f8"),
    "matrix": lambda: quietly(np.asmatrix, ROW),
    "reversed": lambda: ROW[::-1, ::-1],
    "tensor": lambda: torch.ones(2, 3),
    "int tensor": lambda: torch.ones(2, 3, dtype=torch.int64),
    "bool tensor": lambda: torch.ones(2, 3, dtype=torch.bool),
    "float tensor without axes": lambda: torch.tensor(1.5),
    "mask without a masked entry": lambda: np.ma.masked_invalid(ROW),
    "masked": lambda: np.ma.masked_less(ROW, 0.0),
    "all masked": lambda: np.ma.masked_all((2, 3)),
    "the masked constant": lambda: np.ma.masked,
    "list with the masked constant": lambda: [1.0, np.ma.masked],
    "list of masked arrays": lambda: [np.ma.masked_less(row, 0.0) for row in ROW],
    "a deque": lambda: collections.deque([1.0, 2.0]),
    "huge": lambda: [1e308, -1e308],
}

OF_STAGES = ("exact_rows", "scores", "output", "centre", "delta", "d_query", "d_key", "d_value")


def test_every_public_function_is_here():
    functions = {name for name in entmax_ref.__all__ if name != "AttentionAux"}
    assert functions <= CALLS.keys()
    for call, taken in CALLS.values():
        call(**taken)


@pytest.mark.parametrize(("function", "name"), ARGUMENTS)
def test_what_is_no_array_of_numbers_is_refused_by_name(function, name):
    call, taken = CALLS[function]
    for kind, make in BAD.items():
        with pytest.raises((TypeError, ValueError)) as refused:
            call(**{**taken, name: make()})
        message = message_of(function, refused.value)
        assert re.match(rf"{name} must ", message), (kind, message)
        # rule; value. Way out.
        assert re.search(r"; (it|its|NumPy) .*\. [A-Z].*\.$", message), (kind, message)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("function", "name"), ARGUMENTS)
def test_what_is_odd_is_served_or_refused_by_name(function, name):
    call, taken = CALLS[function]
    if function in OF_STAGES:
        warnings.simplefilter("ignore")  # their model knows no NaN, no infinity and no overflow
    for kind, make in ODD.items():
        try:
            found = call(**{**taken, name: make()})
        except (TypeError, ValueError) as error:
            message = message_of(function, error)
            assert re.search(r"\b(must|share|needs)\b", message) and message.endswith("."), (kind, message)
            assert any(argument in message for argument in (*taken, "axis")), (kind, message)
        else:
            for part in parts_of(found):
                assert type(part) in (np.ndarray, np.float64, float), (kind, type(part))


@pytest.mark.parametrize("alpha", [2, np.float32(2.0), np.array(2), np.array(2.0, dtype=">f4"), np.longdouble(2.0)])
def test_a_number_without_axes_is_an_alpha_and_a_scale(alpha):
    for function, (call, taken) in CALLS.items():
        for name in {"alpha", "scale"} & taken.keys():
            found, wanted = parts_of(call(**{**taken, name: alpha})), parts_of(call(**{**taken, name: 2.0}))
            for part, other in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(part, other, err_msg=function)


@pytest.mark.parametrize(
    "number", [10**400, -(10**400), 10**5000, np.longdouble("1e4000"), np.array(np.inf)], ids=range(5)
)
def test_a_number_beyond_float_is_refused_with_its_size(number):
    for function, (call, taken) in CALLS.items():
        for name in {"alpha", "scale"} & taken.keys():
            with pytest.raises(ValueError, match=f"{name} must be finite") as refused:
                call(**{**taken, name: number})
            message = message_of(function, refused.value)
            if isinstance(number, int):
                assert "digits, beyond the largest float" in message


def test_rows_without_keys_are_rows_without_a_visible_key():
    none = np.zeros((2, 0))
    for alpha in (1.25, 1.5, 2.0, 3.0, [1.5, 2.0]):
        assert entmax_ref.threshold(none, alpha).tolist() == [np.inf, np.inf]
        for name in ("entmax", "support", "entmax_alpha_grad"):
            assert getattr(entmax_ref, name)(none, alpha).shape == (2, 0)
        assert entmax_ref.entmax_jacobian(none, alpha).shape == (2, 0, 0)
        assert entmax_ref.entmax_vjp(none, none, alpha).shape == (2, 0)
        assert entmax_ref.entmax_second(none, none, none, alpha).shape == (2, 0)
        assert entmax_ref.entmax_loss(none, none, alpha).tolist() == [0.0, 0.0]
        assert bounds.threshold(none, alpha).tolist() == [0.0, 0.0] and bounds.entmax(none, alpha).shape == (2, 0)
    assert entmax_ref.entmax(np.zeros((0, 2)), axis=0).shape == (0, 2)
    assert entmax_ref.support([]).shape == (0,) and entmax_ref.support([]).dtype == np.bool_
    assert entmax_ref.softmax(none).shape == (2, 0)
    proof = certify(none, 2.0, tau=np.inf)
    assert proof.tau_lo.tolist() == proof.tau_hi.tolist() == [np.inf, np.inf] and proof.probs.shape == (2, 0)
    assert proof.is_lower.all() and proof.is_upper.all()
    for name in entmax_ref.solvers.SOLVERS:
        assert np.isposinf(solve(name, none, passes=2).tau).all()
    with pytest.raises(ValueError, match="target must index the 0 keys of a row"):
        entmax_ref.entmax_loss(none, [0, 0])


def test_attention_without_keys_is_zero():
    key = OPERAND[:, :, :0]
    out, aux = entmax_ref.attention(OPERAND, key, key, return_aux=True)
    assert out.shape == OPERAND.shape and not out.any() and np.isposinf(aux.tau).all() and not aux.support_size.any()
    assert entmax_ref.attention_scores(OPERAND, key).shape == (1, 2, 3, 0)
    bias = np.zeros((1, 1, 3, 1))
    found = entmax_ref.attention_vjp(
        OPERAND, key, key, OPERAND, bias=bias, is_causal=True, return_d_alpha=True, return_d_bias=True
    )
    d_query, d_key, d_value, d_alpha, d_bias = found
    assert d_query.shape == OPERAND.shape and not d_query.any()
    assert d_key.shape == d_value.shape == key.shape and d_alpha == 0.0 and not d_bias.any()
    empty = PACKED[:0]
    packed = entmax_ref.attention_varlen(PACKED, empty, empty, [0, 3], [0, 0])
    assert packed.shape == PACKED.shape and not packed.any()
    kernels = pytest.importorskip("adasplash2").entmax_attention(
        *map(torch.from_numpy, (OPERAND, key.copy(), key.copy()))
    )
    assert kernels.shape == OPERAND.shape and not kernels.any()


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        ("entmax", {"axis": True}, "axis must be one integer; it is True."),
        ("entmax", {"axis": np.array([0, 1])}, "axis must be one integer; it is array([0, 1])."),
        ("entmax", {"axis": 10**5000}, "it is an integer of about 5001 digits."),
        ("solve", {"passes": True}, "passes must be an integer; it is True."),
        ("solve", {"passes": 10**400}, "passes must be at most 10000; it is an integer of about 401 digits."),
        ("certify", {"method": np.ones(2)}, "method must be 'ball', 'rational' or None; it is array([1., 1.])."),
        ("attention", {"window": np.ones(2)}, "window must be None or a pair (left, right); it is array([1., 1.])."),
        ("attention", {"window": (-(10**5000), 0)}, "window must not be negative; it is "),
        ("attention", {"is_causal": "no"}, "is_causal must be True or False; it is 'no' of type str."),
        ("attention", {"alpha": [[1.5], [1.5, 2.0]]}, "alpha must be an array of real numbers; NumPy cannot read it"),
        (
            "attention",
            {"scale": [0.5]},
            "one real number or None; it is of type list, and of shape (1,).",
        ),
        ("exact_rows", {"dtype": ["float32"]}, "dtype must be one of float32, bfloat16, float16; it is ['float32']."),
        ("exact_rows", {"alpha": [1.5]}, "alpha must be one real number above 1; it is of type list"),
        ("exact_rows", {"query": np.ones((2, 4))}, "query and key must share a head_dim of at least 1; their shapes"),
    ],
    ids=itertools.count(),
)
def test_an_odd_option_is_named(function, options, message):
    call, taken = CALLS[function]
    with pytest.raises((TypeError, ValueError)) as refused:
        call(**{**taken, **options})
    assert message_of(function, refused.value).startswith(message) or message in str(refused.value), refused.value


def test_a_window_beyond_any_integer_is_no_limit():
    for window in ((10**400, 10**400), (None, 2**70)):
        found = entmax_ref.attention(OPERAND, OPERAND, OPERAND, window=window)
        np.testing.assert_array_equal(found, entmax_ref.attention(OPERAND, OPERAND, OPERAND))


def test_a_name_that_no_solver_has_may_be_anything():
    with pytest.raises(ValueError, match="there is no solver"):
        solve(["newton"], ROW)
