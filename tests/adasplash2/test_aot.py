"""Do all kernels compile for every target, within its registers and shared memory?  No GPU needed."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="the kernels need triton, which is not installed")

# One process a target: Triton decides at import whether it interprets, and the tests' own process may.
CASES = [
    (target, dtype, alpha)
    for target in ("sm_80", "sm_90", "sm_100", "gfx942")
    for dtype, alpha in (("bf16", "1.5"), ("fp32", "1.5"), ("bf16", "2.0"), ("bf16", "1.125"))
]
# Different calls that ask which keys a query sees.
READ_RANGES = 13


@pytest.mark.slow
@pytest.mark.parametrize("target, dtype, alpha", CASES)
def test_kernels_fit(target, dtype, alpha, tmp_path):
    head_dims = {"2.0": [64], "1.125": [64, 128]}.get(alpha, [16, 64, 128, 256])
    usages = compiled(target, dtype, alpha, head_dims, tmp_path)
    # float32 has no stages by single keys, and only an alpha that is loaded has a gradient
    assert len(usages) == ((12 if dtype == "fp32" else 26) + (alpha == "1.125")) * len(head_dims)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_kernels_with_ranges_fit(target, tmp_path):
    # on CDNA 3 the key gradients of head_dim 128 spill 220 bytes with ranges: they run, but not fast
    head_dims = [64] if target == "gfx942" else [64, 128]
    usages = compiled(target, "bf16", "1.5", head_dims, tmp_path, "--ranges")
    assert len(usages) == READ_RANGES * len(head_dims)
    assert not any(usage["is_causal"] for usage in usages)


def compiled(target, dtype, alpha, head_dims, tmp_path, *options):
    """Return what every kernel uses, all of which must fit."""
    report = tmp_path / "usage.json"
    command = [sys.executable, "-m", "adasplash2.aot", "--target", target, "--dtype", dtype, "--alpha", alpha, *options]
    command += ["--json", str(report)] + [part for d in head_dims for part in ("--head-dim", str(d))]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    usages = json.loads(report.read_text())
    assert all(usage["registers"] > 0 for usage in usages)
    return usages


def test_what_does_not_fit_is_said():
    script = (
        "from adasplash2 import aot\n"
        "fits = dict(stage='x', target='sm_90', dtype='bf16', head_dim=64, alpha=1.5, is_causal=True,"
        " shared=1, shared_limit=2, registers=9, spilled=0, is_timed=False)\n"
        "print(*(aot.Usage(**fits | change).fits for change in ({}, {'spilled': 400}, {'shared': 3},"
        " {'spilled': 400, 'is_timed': True})))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False", "True"]
