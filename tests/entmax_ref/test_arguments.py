"""Does every public function refuse what it cannot serve in one clear line, and honour the mask of a masked array?"""

import collections
import datetime
import itertools
import re
import sys
import types
import warnings
from fractions import Fraction

import numpy as np
import pytest

import entmax_ref
from entmax_ref import bounds, reading
from entmax_ref.certify import certify
from entmax_ref.solvers import solve

torch = pytest.importorskip("torch")

ROW = np.array([[1.0, 0.5, -2.0], [0.25, 0.0, 0.5]])
SPREAD = np.array([[0.5, -1.0, 2.0], [1.0, 0.0, 0.0]])
TARGET = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
OPERAND = np.arange(12.0).reshape(1, 2, 3, 2) / 8.0
PACKED = OPERAND[0].swapaxes(0, 1)
PACKS = {"query": PACKED, "key": PACKED, "value": PACKED, "cu_seqlens_q": [0, 1, 3], "cu_seqlens_k": [0, 2, 3]}
HEADS = {"query": OPERAND, "key": OPERAND, "value": OPERAND, "mask": np.ones((3, 3), bool), "bias": np.zeros((3, 3))}
PROOF = certify(ROW, 2.0)
ROWS = bounds.exact_rows(ROW, ROW, scale=1.0, dtype="float32")

# Each public function, the name that its messages begin with, and arguments that it takes.
CALLS = {
    **{
        name: (getattr(entmax_ref, name), {"scores": ROW, "where": ROW > -1.0})
        for name in ("entmax", "entmax15", "softmax", "sparsemax", "support", "threshold")
    },
    **{
        name: (getattr(entmax_ref, name), {"scores": ROW, "alpha": 1.25, "where": ROW > -1.0})
        for name in ("entmax_jacobian", "entmax_alpha_grad")
    },
    "entmax_vjp": (entmax_ref.entmax_vjp, {"scores": ROW, "d_probs": SPREAD, "alpha": 1.5}),
    "entmax_jvp": (entmax_ref.entmax_jvp, {"scores": ROW, "d_scores": SPREAD, "alpha": 1.5}),
    "entmax_second": (
        entmax_ref.entmax_second,
        {"scores": ROW, "d_probs": SPREAD, "d_scores": SPREAD, "alpha": [1.5, 2.0]},
    ),
    "entmax_loss": (entmax_ref.entmax_loss, {"scores": ROW, "target": TARGET, "alpha": 1.5}),
    "entmax_loss_grad": (entmax_ref.entmax_loss_grad, {"scores": ROW, "target": [0, 2], "alpha": 1.5}),
    "entmax15_loss": (entmax_ref.entmax15_loss, {"scores": ROW, "target": [0, 2]}),
    "sparsemax_loss": (entmax_ref.sparsemax_loss, {"scores": ROW, "target": TARGET}),
    "attention": (entmax_ref.attention, {**HEADS, "alpha": [1.5, 2.0], "scale": 0.5}),
    "attention_vjp": (entmax_ref.attention_vjp, {**HEADS, "d_out": OPERAND, "alpha": 1.5, "scale": 0.5}),
    "attention_scores": (
        entmax_ref.attention_scores,
        {name: HEADS[name] for name in ("query", "key", "mask", "bias")},
    ),
    "attention_varlen": (entmax_ref.attention_varlen, {**PACKS, "alpha": 1.5, "scale": 0.5}),
    "attention_varlen_vjp": (entmax_ref.attention_varlen_vjp, {**PACKS, "d_out": PACKED, "alpha": [1.5, 1.5]}),
    "certify": (certify, {"scores": ROW, "alpha": 2.0, "tau": [0.0, 0.0], "where": ROW > -1.0}),
    "solve": (lambda **options: solve("newton", **options), {"z": ROW, "alpha": 1.5}),
    "Certificate.tau_error": (PROOF.tau_error, {"found": [0.0, 0.0]}),
    "Certificate.probs_error": (PROOF.probs_error, {"found": TARGET}),
    "bounds.threshold": (bounds.threshold, {"scores": ROW, "alpha": 1.5, "where": ROW > -1.0}),
    "bounds.entmax": (bounds.entmax, {"scores": ROW, "alpha": 1.5, "where": ROW > -1.0}),
    "exact_rows": (bounds.exact_rows, {"query": ROW, "key": ROW, "scale": 1.0, "visible": np.ones((2, 2), bool)}),
    "scores": (lambda **options: bounds.scores(z_scale=1.0, dtype="float32", **options), {"query": ROW, "key": ROW}),
    "output": (lambda **options: bounds.output(ROWS, **options), {"value": ROW}),
    "centre": (lambda **options: bounds.centre(ROWS, **options), {"value": ROW}),
    "delta": (bounds.delta, {"centre": ROW, "d_out": ROW, "centre_error": ROW}),
    "d_query": (
        lambda **options: bounds.d_query(ROWS, **options),
        {"key": ROW, "value": ROW, "d_out": ROW, "scale": 1.0},
    ),
    "d_key": (
        lambda **options: bounds.d_key(ROWS, **options),
        {"query": ROW, "value": ROW, "d_out": ROW, "scale": 1.0},
    ),
    "d_value": (lambda **options: bounds.d_value(ROWS, **options), {"d_out": ROW}),
    "gamma": (bounds.gamma, {"roundings": [3]}),
    "sum_gamma": (bounds.sum_gamma, {"block": 64}),
    "product_gamma": (lambda **options: bounds.product_gamma(dtype="float32", **options), {"terms": [3]}),
}
MAY_BE_MASKED = {"scores", "z", "where", "mask", "bias", "visible"}


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
    "nested tensor": lambda: _nested(),
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
    "matrix": lambda: _quietly(np.asmatrix, ROW),
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
ARGUMENTS = [(function, name) for function, (_, taken) in CALLS.items() for name in taken]


def _quietly(make, given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(given)


def _nested():
    return _quietly(torch.nested.nested_tensor, [torch.ones(2), torch.ones(3)])


def message_of(function, error):
    """Return what is said without the name of the function, which must lead."""
    function = function.removeprefix("bounds.")
    text = str(error)
    assert text.startswith(f"{function}: ") and "\n" not in text and len(text) < 500, text
    return text.removeprefix(f"{function}: ")


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
            for part in _parts(found):
                assert type(part) in (np.ndarray, np.float64, float), (kind, type(part))


@pytest.mark.parametrize(("function", "name"), [one for one in ARGUMENTS if one[1] not in MAY_BE_MASKED])
def test_a_masked_entry_that_means_nothing_is_refused(function, name):
    call, taken = CALLS[function]
    given = np.ma.array(taken[name], mask=np.zeros(np.shape(taken[name]), bool))
    expected, found = call(**taken), call(**{**taken, name: given})
    for one, other in zip(_parts(expected), _parts(found), strict=True):
        np.testing.assert_array_equal(one, other)
    given[(0,) * given.ndim] = np.ma.masked
    with pytest.raises(ValueError, match=rf"{name} must have no masked entry; 1 of {given.size} are masked.* Fill "):
        call(**{**taken, name: given})


def _parts(found):
    if isinstance(found, tuple):
        return [part for one in found for part in _parts(one)]
    if hasattr(found, "__dataclass_fields__"):
        return [
            getattr(found, name) for name in found.__dataclass_fields__ if isinstance(getattr(found, name), np.ndarray)
        ]
    return [found]


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
    expected = _parts(call(**{**taken, name: np.where(HIDDEN, -np.inf, ROW)}))
    given = [masked, [np.ma.array(row, mask=hidden) for row, hidden in zip(bare, HIDDEN, strict=True)]]
    entries = [list(zip(*both, strict=True)) for both in zip(ROW, HIDDEN, strict=True)]
    given.append([[np.ma.masked if hides else value for value, hides in row] for row in entries])
    for one in given:
        found = _parts(call(**{**taken, name: one}))
        for part, wanted in zip(found, expected, strict=True):
            assert type(part) is np.ndarray
            np.testing.assert_array_equal(part, wanted)
    assert (masked.data == bare).all() and (masked.mask == HIDDEN).all()
    if "where" in taken:
        by_where = _parts(call(**{**taken, name: bare, "where": taken["where"] & ~HIDDEN}))
        for part, wanted in zip(by_where, _parts(call(**{**taken, name: masked})), strict=True):
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
        found, wanted = (_parts(call(**{**taken, **more, "bias": one})) for one in (bias, plain))
        for part, other in zip(found, wanted, strict=True):
            assert type(part) is np.ndarray
            np.testing.assert_array_equal(part, other)
    mask = np.ma.array(np.ones((3, 3), bool), mask=np.eye(3, dtype=bool))
    by_mask = entmax_ref.attention(OPERAND, OPERAND, OPERAND, mask=mask)
    np.testing.assert_array_equal(by_mask, entmax_ref.attention(OPERAND, OPERAND, OPERAND, bias=bias))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (lambda: torch.ones(3, requires_grad=True), "that requires grad. Pass scores.detach().numpy()."),
        (
            lambda: torch.ones(3, dtype=torch.bfloat16, requires_grad=True),
            "requires grad and has dtype torch.bfloat16, which NumPy lacks. Pass scores.detach().float().numpy().",
        ),
        (lambda: torch.ones(3).to_sparse(), "has the layout torch.sparse_coo. Pass scores.to_dense().numpy()."),
        (lambda: torch.ones(3, device="meta"), "lies on the meta device and holds no numbers. Make it on the CPU."),
        (_nested, "is nested. Pad it with torch.nested.to_padded_tensor, and hide the padding with a mask."),
    ],
)
def test_a_tensor_that_numpy_cannot_read_says_how_to_make_it_one(tensor, message):
    with pytest.raises(TypeError) as refused:
        entmax_ref.entmax(tensor())
    assert str(refused.value).startswith("entmax: scores must be an array of real numbers; it is a torch tensor that ")
    assert message.removeprefix("that ") in str(refused.value) and "ragged" not in str(refused.value)


def test_a_gpu_tensor_is_told_the_way_to_the_cpu():
    there = types.SimpleNamespace(
        is_nested=False,
        device=torch.device("cuda:0"),
        layout=torch.strided,
        requires_grad=True,
        is_quantized=False,
        dtype=torch.bfloat16,
    )
    said = reading._trouble("query", there)
    assert said.startswith("requires grad and lies on cuda:0 and has dtype torch.bfloat16, which NumPy lacks. ")
    assert said.endswith("Pass query.detach().cpu().float().numpy()")


def test_tensors_in_a_list_are_named_wherever_they_stand():
    named = r"it holds a torch tensor, t say, that .* Pass t\..*\(\), and so for each\."
    for later in (torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.bfloat16)):
        for first in (torch.ones(2), [1.0, 2.0]):
            with pytest.raises(TypeError, match=named):
                entmax_ref.entmax([first, later])
    with pytest.raises(TypeError, match=r"it has torch tensors in it, .* Pass plain tensors of one shape"):
        entmax_ref.entmax([torch.ones(2), torch.ones(3)])
    with pytest.raises(TypeError, match=r"outside of torch.func and torch.compile\."):
        torch.vmap(lambda row: torch.tensor(entmax_ref.entmax(row)))(torch.ones(2, 2))
    assert entmax_ref.sparsemax([torch.ones(2), torch.ones(2)]).tolist() == [[0.5, 0.5]] * 2


def test_a_tensor_is_read_like_its_array():
    scores = torch.tensor([2.0, 0.0], dtype=torch.float16)
    assert entmax_ref.entmax(scores, torch.tensor(2.0)).tolist() == [1.0, 0.0]


def test_torch_is_not_needed_to_read(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    assert entmax_ref.sparsemax([1.0, 1.0]).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("alpha", [2, np.float32(2.0), np.array(2), np.array(2.0, dtype=">f4"), np.longdouble(2.0)])
def test_a_number_without_axes_is_an_alpha_and_a_scale(alpha):
    for function, (call, taken) in CALLS.items():
        for name in {"alpha", "scale"} & taken.keys():
            found, wanted = _parts(call(**{**taken, name: alpha})), _parts(call(**{**taken, name: 2.0}))
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
