"""Who is timed?  One callable a contender, on (query, key, value) of one shape, and which cases it can take."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable, Sequence

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from adasplash2 import entmax_attention

from .cases import Case

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

# Names on the command line and in records, and what a table calls them.
TITLES = {"ours": "ours", "flash": "FA-2", "cudnn": "cuDNN", "adasplash": "AdaSplash-2"}
NAMES = tuple(TITLES)
# Those that compute entmax, so that their result can be held to the oracle.
ENTMAX = ("ours", "adasplash")


@dataclasses.dataclass(frozen=True)
class Contender:
    """A contender in one case.

    Attributes
    ----------
    name : str
        One of ``NAMES``.
    attention : callable
        From query, key and value to the output, differentiable.
    refusal : str
        Why it cannot take the case; empty if it can.
    """

    name: str
    attention: Attention
    refusal: str = ""


def contenders_of(case: Case, names: Sequence[str] = NAMES) -> list[Contender]:
    """Return the contenders of those names, for this case."""
    makers = {"ours": _ours, "flash": _flash, "cudnn": _cudnn, "adasplash": _adasplash}
    return [makers[name](case) for name in names]


def _ours(case: Case) -> Contender:
    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return entmax_attention(query, key, value, alpha=case.alpha, is_causal=case.is_causal, impl="triton")

    return Contender("ours", attention)


def _softmax(name: str, backend: SDPBackend, case: Case) -> Contender:
    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(query, key, value, is_causal=case.is_causal)

    return Contender(name, attention, "takes half precision only" if case.dtype == "fp32" else "")


def _flash(case: Case) -> Contender:
    return _softmax("flash", SDPBackend.FLASH_ATTENTION, case)


def _cudnn(case: Case) -> Contender:
    return _softmax("cudnn", SDPBackend.CUDNN_ATTENTION, case)


def _adasplash(case: Case) -> Contender:
    """PyPI's ``adasplash``, with its default of one refinement."""

    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        # Its submodule takes the name adasplash_v2 when it is first imported; this name stays the function.
        return importlib.import_module("adasplash").adasplash2(query, key, value)

    return Contender("adasplash", attention, _adasplash_refusal(case))


def _adasplash_refusal(case: Case) -> str:
    if importlib.util.find_spec("adasplash") is None:
        return "not installed"
    if not case.is_causal or case.alpha != 1.5:
        return "takes causal calls of alpha 1.5 only"
    if case.length < 64 or case.length & (case.length - 1):
        return f"takes lengths that are powers of two from 64 on, not {case.length}"
    if case.head_dim not in (16, 32, 64, 128, 256):
        return f"takes head_dim 16, 32, 64, 128 and 256, not {case.head_dim}"
    return ""
