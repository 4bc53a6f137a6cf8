"""Does every bad argument give one error that names the argument, the rule, the value and the way out?"""

import re
import subprocess
import sys

import pytest
import torch

from adasplash2 import entmax_attention


def tensors(query=(1, 2, 8, 16), key=(1, 2, 8, 16), value=(1, 2, 8, 16), dtype=torch.float32):
    return tuple(torch.zeros(shape, dtype=dtype) for shape in (query, key, value))


BAD = [
    (tensors(query=(2, 8, 16)), {}, ValueError, r"query must have shape .*\(2, 8, 16\).*unsqueeze"),
    (([[1.0]], *tensors()[1:]), {}, TypeError, r"query must be a torch.Tensor, got list"),
    (tensors(dtype=torch.int64), {}, TypeError, r"query has dtype torch.int64.*\.to\("),
    (tensors(dtype=torch.complex64), {}, TypeError, r"query has dtype torch.complex64"),
    ((*tensors()[:2], tensors(dtype=torch.float16)[2]), {}, TypeError, r"value has dtype torch.float16.*float32"),
    (tensors(key=(3, 2, 8, 16)), {}, ValueError, r"key has batch 3, query has 1"),
    (tensors(value=(1, 2, 8, 8)), {}, ValueError, r"value has head_dim 8, query has 16.*Pad"),
    (tensors(key=(1, 2, 8, 8)), {}, ValueError, r"key has head_dim 8, query has 16.*[Cc]heck"),
    (tensors(), {"scale": 1e39}, ValueError, r"scale must be finite in float32.*got 1e.39"),
    (tensors(*[(1, 2, 8, 0)] * 3), {}, ValueError, r"head_dim is 0"),
    (tensors(value=(1, 2, 9, 16)), {}, ValueError, r"key has length 8, value has 9"),
    (tensors(value=(1, 1, 8, 16)), {}, ValueError, r"key has 2 heads, value has 1"),
    (tensors(query=(1, 4, 8, 16)), {}, ValueError, r"query has 4 heads, key has 2.*enable_gqa=True"),
    (tensors(query=(1, 3, 8, 16)), {"enable_gqa": True}, ValueError, r"3 heads, key has 2.*multiple"),
    (tensors(), {"alpha": 1.0}, ValueError, r"alpha is 1, which is softmax.*scaled_dot_product_attention"),
    (tensors(), {"alpha": 0.5}, ValueError, r"alpha must be a finite number above 1, got 0.5"),
    (tensors(), {"alpha": float("nan")}, ValueError, r"alpha must be a finite number above 1, got nan"),
    (tensors(), {"alpha": "1.5"}, TypeError, r"alpha must be a real number, got str"),
    (tensors(), {"alpha": True}, TypeError, r"alpha must be a real number, got bool"),
    (tensors(), {"scale": float("inf")}, ValueError, r"scale must be finite.*got inf"),
    (tensors(), {"scale": "1"}, TypeError, r"scale must be a real number or None, got str"),
    (tensors(), {"impl": "cuda"}, ValueError, r"impl must be None, 'triton' or 'reference', got 'cuda'"),
    (tensors(), {"impl": "triton", "alpha": 1.25}, ValueError, r"alpha is 1.25.*1.5 and 2.0.*impl='reference'"),
    (tensors(dtype=torch.float64), {"impl": "triton"}, TypeError, r"query is float64.*impl='reference'"),
    (tensors(*[(1, 1, 8, 257)] * 3), {"impl": "triton"}, ValueError, r"head_dim 257.*1 to 256.*impl='reference'"),
]


@pytest.mark.parametrize("operands, options, error, message", BAD, ids=[entry[3][:40] for entry in BAD])
def test_bad_arguments(operands, options, error, message):
    with pytest.raises(error, match=message) as caught:
        entmax_attention(*operands, **options)
    assert str(caught.value).startswith("entmax_attention: ")
    assert re.search(r"[.!] \S", str(caught.value)), "the message ends with a way out"


def test_devices_must_agree():
    query, key, value = tensors()
    with pytest.raises(ValueError, match=r"key is on meta, query on cpu"):
        entmax_attention(query, key.to("meta"), value)


def test_kernels_on_cpu_tensors_name_the_interpreter():
    script = (
        "import torch; from adasplash2 import entmax_attention; x = torch.zeros(1, 1, 4, 16)\n"
        "try: entmax_attention(x, x, x, impl='triton')\n"
        "except ValueError as error: print(error)"
    )
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert "TRITON_INTERPRET=1" in done.stdout and "impl='reference'" in done.stdout
