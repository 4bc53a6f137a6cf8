"""Does every bad argument give, on both paths, one error that names argument, rule, value and way out?"""

import fractions
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from staged import DEVICE

from adasplash2 import entmax_attention


def tensors(query=(2, 2, 8, 16), key=(2, 2, 8, 16), value=(2, 2, 8, 16), dtype=torch.float32):
    return tuple(torch.zeros(shape, dtype=dtype) for shape in (query, key, value))


BAD = [
    (tensors(query=(16,)), {}, ValueError, r"query must have shape .*\(16,\).*unsqueeze"),
    (([[1.0]], *tensors()[1:]), {}, TypeError, r"query must be a torch.Tensor, got list"),
    (tensors(dtype=torch.int64), {}, TypeError, r"query has dtype torch.int64.*\.to\("),
    (tensors(dtype=torch.complex64), {}, TypeError, r"query has dtype torch.complex64"),
    ((*tensors()[:2], tensors(dtype=torch.float16)[2]), {}, TypeError, r"value has dtype torch.float16.*float32"),
    (tensors(key=(3, 2, 8, 16)), {}, ValueError, r"key has size 3 in dimension -4, query has 2"),
    (tensors(value=(3, 2, 8, 16)), {}, ValueError, r"value has size 3 in dimension -4, query has 2"),
    (
        tensors((5, 2, 2, 8, 16), (4, 1, 2, 8, 16), (4, 1, 2, 8, 16)),
        {},
        ValueError,
        r"key has size 4 in dimension -5, query has 5",
    ),
    (tensors(key=(2, 2, 8, 8)), {}, ValueError, r"key has head_dim 8, query has 16.*[Cc]heck"),
    (tensors(*[(1, 2, 8, 0)] * 3), {}, ValueError, r"head_dim is 0"),
    (tensors(value=(2, 2, 9, 16)), {}, ValueError, r"key has length 8, value has 9"),
    (tensors(value=(2, 3, 8, 16)), {}, ValueError, r"query has 2 heads, value has 3"),
    (tensors(value=(2, 1, 8, 16)), {"enable_gqa": True}, ValueError, r"key has 2 heads, value has 1"),
    (tensors(query=(2, 4, 8, 16)), {}, ValueError, r"query has 4 heads, key has 2.*enable_gqa=True"),
    (tensors(query=(2, 3, 8, 16)), {}, ValueError, r"query has 3 heads, key has 2.*or one of them 1"),
    (tensors(query=(2, 3, 8, 16)), {"enable_gqa": True}, ValueError, r"3 heads, key has 2.*multiple"),
    (tensors(*[(8, 16)] * 3), {"enable_gqa": True}, ValueError, r"query has shape \(8, 16\).*must have heads"),
    (tensors(), {"alpha": 1.0}, ValueError, r"alpha is 1.0, and 1 is softmax.*scaled_dot_product_attention"),
    (tensors(), {"alpha": 0.5}, ValueError, r"alpha must be a finite number above 1, got 0.5"),
    (tensors(), {"alpha": float("nan")}, ValueError, r"alpha must be a finite number above 1, got nan"),
    (tensors(), {"alpha": 10**400}, ValueError, r"alpha must be a finite number above 1, got 1000"),
    (
        tensors(),
        {"alpha": 10**5000},
        ValueError,
        r"alpha must be a finite number above 1, got an integer of 16610 bits",
    ),
    (tensors(), {"alpha": fractions.Fraction(10**400)}, ValueError, r"alpha must be a finite number above 1"),
    (tensors(), {"alpha": "1.5"}, TypeError, r"alpha must be a real number or a tensor, got str"),
    (tensors(), {"alpha": True}, TypeError, r"alpha must be a real number or a tensor, got bool"),
    (tensors(), {"alpha": None}, TypeError, r"alpha must be a real number or a tensor, got NoneType"),
    (tensors(), {"alpha": np.array([1.5])}, TypeError, r"alpha must be a real number or a tensor, got ndarray"),
    (tensors(), {"alpha": torch.tensor(True)}, TypeError, r"alpha must be a real number or a tensor, got bool"),
    (tensors(), {"alpha": np.bool_(True)}, TypeError, r"alpha must be a real number or a tensor, got bool"),
    (tensors(), {"alpha": torch.tensor(1.5j)}, TypeError, r"alpha must be a real number or a tensor, got complex"),
    (tensors(), {"scale": torch.tensor(1.5, device="meta")}, TypeError, r"scale is a meta tensor"),
    (tensors(), {"scale": torch.tensor(1.5, requires_grad=True)}, TypeError, r"requires grad.*float\(scale.detach"),
    (tensors(), {"scale": float("inf")}, ValueError, r"scale must be finite.*got inf"),
    (tensors(), {"scale": float("nan")}, ValueError, r"scale must be finite.*got nan"),
    (tensors(), {"scale": 1e39}, ValueError, r"scale must be finite in float32.*got 1e.39"),
    (tensors(), {"scale": -(10**400)}, ValueError, r"scale must be finite in float32.*got -1000"),
    (tensors(), {"scale": "1"}, TypeError, r"scale must be a real number or None, got str"),
    (tensors(), {"scale": np.zeros(2)}, TypeError, r"scale must be a real number or None, got ndarray"),
    (tensors(), {"dropout_p": 0.1}, ValueError, r"dropout_p is 0.1; it must be 0: no implementation draws"),
    (tensors(), {"dropout_p": float("nan")}, ValueError, r"dropout_p is nan; it must be 0"),
    (tensors(), {"dropout_p": None}, TypeError, r"dropout_p must be a real number, got NoneType"),
    (tensors(), {"dropout_p": False}, TypeError, r"dropout_p must be a real number, got bool"),
    *(
        (tensors(), {name: flag}, TypeError, rf"{name} must be True or False, got .* of type {type(flag).__name__}")
        for name in ("is_causal", "enable_gqa", "return_aux")
        for flag in ("no", 1, None, np.bool_(True), torch.tensor(True))
    ),
    (tensors(), {"impl": "cuda"}, ValueError, r"impl must be None, 'triton' or 'reference', got 'cuda'"),
    (tensors(), {"impl": torch.zeros(2)}, ValueError, r"impl must be None, 'triton' or 'reference', got tensor"),
    (tensors(), {"attn_mask": [[True]]}, TypeError, r"attn_mask must be a torch.Tensor, got list"),
    (tensors(), {"attn_mask": torch.zeros(8, 8).to_sparse()}, TypeError, r"attn_mask has layout .*to_dense"),
    (tensors(), {"attn_mask": torch.zeros(8, 8, dtype=torch.int32)}, TypeError, r"attn_mask has dtype torch.int32"),
    (tensors(), {"attn_mask": torch.zeros(8, 8).double()}, TypeError, r"attn_mask has dtype torch.float64.*bool"),
    (tensors(), {"attn_mask": torch.zeros(7, 8)}, ValueError, r"attn_mask has shape \(7, 8\).*\(2, 2, 8, 8\)"),
    (tensors(), {"attn_mask": torch.zeros(8)}, ValueError, r"attn_mask has shape \(8,\).*two dimensions"),
    (tensors(), {"attn_mask": torch.zeros(3, 1, 1, 8, 8)}, ValueError, r"attn_mask has shape \(3, 1, 1, 8, 8\)"),
    (tensors(), {"attn_mask": torch.zeros(8, 8), "is_causal": True}, ValueError, r"attn_mask and is_causal.*Combine"),
    (tensors(), {"attn_mask": torch.zeros(8, 8, device="meta")}, ValueError, r"attn_mask is on meta, query on cpu"),
    ((*tensors()[:2], tensors()[2].to_sparse()), {}, TypeError, r"value has layout torch.sparse_coo.*\.to_dense"),
    ((tensors()[0][0, 0].to_sparse_csr(), *tensors()[1:]), {}, TypeError, r"query has layout torch.sparse_csr"),
]

ON_KERNELS = [
    (tensors(), {"alpha": 2.25}, ValueError, r"alpha is 2.25; the kernels take 1 < alpha <= 2.*impl='reference'"),
    (tensors(), {"alpha": 1.0 + 2.0**-30}, ValueError, r"alpha is 1.0.*which is 1 in float32.*impl='reference'"),
    (tensors(dtype=torch.float64), {}, TypeError, r"query is float64.*impl='reference'"),
    (tensors(*[(1, 1, 8, 257)] * 3), {}, ValueError, r"query has head_dim 257.*1 to 256.*impl='reference'"),
    (tensors(value=(2, 2, 8, 257)), {}, ValueError, r"value has head_dim 257.*1 to 256.*impl='reference'"),
    (
        tensors(),
        {"attn_mask": torch.eye(8).flip(0).logical_not()},
        ValueError,
        r"attn_mask of shape \(8, 8\).*impl='reference'",
    ),
]


def refused(operands, options, error, message):
    with pytest.raises(error, match=message) as caught:
        entmax_attention(*operands, **options)
    assert str(caught.value).startswith("entmax_attention: ")
    assert re.search(r"[.!] \S", str(caught.value)), "the message ends with a way out"


@pytest.mark.parametrize("impl", ["reference", "triton"])
@pytest.mark.parametrize("operands, options, error, message", BAD, ids=[entry[3][:40] for entry in BAD])
def test_bad_arguments(operands, options, error, message, impl):
    refused(operands, {"impl": impl} | options, error, message)


@pytest.mark.parametrize("operands, options, error, message", ON_KERNELS, ids=[entry[3][:40] for entry in ON_KERNELS])
def test_what_only_the_reference_path_takes(operands, options, error, message):
    refused(operands, {"impl": "triton"} | options, error, message)
    assert entmax_attention(*operands, impl="reference", **options).shape == (
        *operands[0].shape[:-1],
        operands[2].shape[-1],
    )


def test_devices_must_agree():
    query, key, value = tensors()
    with pytest.raises(ValueError, match=r"key is on meta, query on cpu"):
        entmax_attention(query, key.to("meta"), value)


@pytest.mark.parametrize("impl", ["reference", "triton"])
@pytest.mark.parametrize(
    "number", [2, np.float32(2), np.array(2.0), np.int64(2), torch.tensor(2.0), torch.tensor(2), fractions.Fraction(2)]
)
def test_numbers_are_numbers_whatever_holds_them(impl, number):
    query, key, value = torch.randn(3, 1, 1, 4, 8, generator=torch.Generator().manual_seed(0)).to(DEVICE).unbind()
    expected = entmax_attention(query, key, value, alpha=2.0, scale=2.0, impl=impl)
    assert torch.equal(entmax_attention(query, key, value, alpha=number, scale=number, impl=impl), expected)
    assert torch.equal(entmax_attention(query, key, value, None, 0, False, number, alpha=number, impl=impl), expected)


def test_kernels_on_cpu_tensors_name_the_interpreter():
    script = (
        "import torch; from adasplash2 import entmax_attention; x = torch.zeros(1, 1, 4, 16)\n"
        "try: entmax_attention(x, x, x, impl='triton')\n"
        "except ValueError as error: print(error)"
    )
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert "TRITON_INTERPRET=1" in done.stdout and "impl='reference'" in done.stdout
