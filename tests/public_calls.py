"""Which public functions take arrays, under which names, and what do they answer to valid arguments?"""

import warnings

import numpy as np
import pytest

import entmax_ref
from entmax_ref import bounds
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

ARGUMENTS = [(function, name) for function, (_, taken) in CALLS.items() for name in taken]


def quietly(make, given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(given)


def nested_tensor():
    return quietly(torch.nested.nested_tensor, [torch.ones(2), torch.ones(3)])


def message_of(function, error):
    """Return what is said without the name of the function, which must lead."""
    function = function.removeprefix("bounds.")
    text = str(error)
    assert text.startswith(f"{function}: ") and "\n" not in text and len(text) < 500, text
    return text.removeprefix(f"{function}: ")


def parts_of(found):
    if isinstance(found, tuple):
        return [part for one in found for part in parts_of(one)]
    if hasattr(found, "__dataclass_fields__"):
        return [
            getattr(found, name) for name in found.__dataclass_fields__ if isinstance(getattr(found, name), np.ndarray)
        ]
    return [found]
