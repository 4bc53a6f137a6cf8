"""Do the row kernels compile for every target, within its registers and shared memory?  No GPU needed."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="the kernels need triton, which is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_row_kernels_fit(target, tmp_path):
    report = tmp_path / "usage.json"
    command = [sys.executable, "-m", "adasplash2.aot_rows", "--target", target, "--json", str(report)]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    usages = json.loads(report.read_text())
    # two dtypes, six lengths, three alphas, forward and backward
    assert len(usages) == 2 * 6 * 3 * 2 and all(usage["registers"] > 0 for usage in usages)
    stages = {usage["stage"] for usage in usages}
    packed = set() if target == "gfx942" else {"rows_packed"}
    assert stages == packed | {"rows_whole", "rows_blocks", "rows_backward_whole", "rows_backward_blocks"}


def test_an_interpreted_kernel_is_not_compiled():
    script = "from adasplash2 import aot_rows; aot_rows.main(['--length', '64'])"
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode != 0 and "unset TRITON_INTERPRET" in done.stderr
