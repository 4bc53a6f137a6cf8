"""Where does the package ``adasplash`` stand?  Its rows and both attentions are targets at their defaults, on a GPU.

What an adapter claims is what the package's description says that the function takes. Operands with other strides are
not claimed: the functions assert that theirs are contiguous, or do not ask for strides.
"""

import importlib
from typing import Any

from entmax_ref.conformance.adapters.attention_tensors import attention_target
from entmax_ref.conformance.adapters.tensors import missing_package, row_target, version_of
from entmax_ref.conformance.target import AttentionTarget, Call, RowTarget

_POWERS_OF_TWO = tuple(2**k for k in range(6, 21))


def rows() -> RowTarget:
    """Return ``triton_entmax``."""
    return row_target(
        lambda scores, alpha: importlib.import_module("adasplash").triton_entmax(scores, alpha=alpha),
        device="cuda",
        name="adasplash.triton_entmax",
        version=version_of("adasplash"),
        alphas=(1.25, 1.5, 1.75, 2.0),
        dtypes=("float32", "bfloat16", "float16"),
        strides=False,
        missing=missing_package("adasplash", gpu=True),
        call="adasplash.triton_entmax(scores.cuda(), alpha=alpha)",
        imports="import adasplash",
    )


def attention() -> list[AttentionTarget]:
    """Return ``adasplash_v2``, causal at alpha 1.5, and ``adasplash_v1``, which takes any alpha and mask."""
    return [_second(), _first()]


def _second() -> AttentionTarget:
    return attention_target(
        lambda query, key, value, call: importlib.import_module("adasplash").adasplash(query, key, value),
        name="adasplash 2 (causal, alpha 1.5)",
        causal=(True,),
        only_lengths=_POWERS_OF_TWO,
        **_claims(),
    )


def _first() -> AttentionTarget:
    def attend(query: Any, key: Any, value: Any, call: Call) -> Any:
        package = importlib.import_module("adasplash")
        return package.adasplash_v1(query, key, value, alpha=call.alpha, is_causal=call.is_causal)

    return attention_target(attend, name="adasplash 1", lengths=(64, 2**20), **_claims())


def _claims() -> dict[str, Any]:
    return {
        "device": "cuda",
        "version": version_of("adasplash"),
        "dtypes": ("bfloat16", "float16"),
        "square": True,
        "strides": False,
        "grouped": False,
        "scales": False,
        "head_dims": (16, 32, 64, 128),
        "missing": missing_package("adasplash", gpu=True),
    }
