"""What holds for every test: the Hypothesis profile, the interpreter without a GPU, the gpu marker, the claims."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import executed
import pytest
from hypothesis import settings

# Workers of pytest-xdist share the cores; without this each of them starts a thread per core. NumPy and torch
# read it when they are first imported, hence here.
if "PYTEST_XDIST_WORKER" in os.environ:
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

HAS_TORCH = importlib.util.find_spec("torch") is not None
HAS_GPU = False
if HAS_TORCH:
    import torch

    HAS_GPU = torch.cuda.is_available()
    if not HAS_GPU:
        # Triton reads it when a kernel is decorated: it has to stand before any import of adasplash2.kernels.
        os.environ.setdefault("TRITON_INTERPRET", "1")

# The oracle's own tests run where torch is absent; nothing else can.
collect_ignore = [] if HAS_TORCH else ["adasplash2"]

# No deadline: the interpreter takes seconds where the oracle takes microseconds. On CI the draws are the same
# every time, so that a change is judged by its own merits; elsewhere they differ from run to run.
settings.register_profile("project", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("project")


def pytest_configure(config: pytest.Config) -> None:
    """After a complete run, name the claims that no test exercised; without torch no run is complete."""
    if HAS_TORCH:
        executed.watch(config, Path(__file__).resolve().parents[1])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked gpu, with the reason, where there is none."""
    if HAS_GPU:
        return
    reason = pytest.mark.skip(reason="needs a GPU, and torch finds none on this machine")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(reason)
