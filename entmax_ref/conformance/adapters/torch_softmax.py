"""Is torch's softmax the map at alpha 1, and its attention that with softmax?"""

from typing import Any

from entmax_ref.conformance.adapters.attention_tensors import attention_target
from entmax_ref.conformance.adapters.tensors import missing_package, row_target, torch_module, version_of
from entmax_ref.conformance.target import AttentionTarget, Call, Known, RowTarget

_EMPTY = "softmax of a row of -inf alone is NaN by definition: 0 / 0"
_MASKED = "https://github.com/pytorch/pytorch/pull/131060"
_SWALLOWED = "https://github.com/pytorch/pytorch/issues/141128"
_DELTA = "delta is taken from the output, which 16 bits have rounded, so gradients are off where their terms cancel"


def rows() -> RowTarget:
    """Return ``torch.softmax`` as a target at alpha 1."""
    return row_target(
        lambda scores, alpha: torch_module().softmax(scores, -1),
        name="torch softmax",
        version=version_of("torch"),
        alphas=(1.0,),
        dtypes=("float64", "float32", "bfloat16", "float16"),
        twice=True,
        missing=missing_package("torch"),
        known=(
            Known("empty_row", _EMPTY, _MASKED),
            Known("empty_gradient", _EMPTY, _MASKED),
        ),
        call="torch.softmax(scores, -1)",
    )


def attention() -> AttentionTarget:
    """Return ``scaled_dot_product_attention`` at alpha 1; its causal mask is ours for as many queries as keys."""

    def attend(query: Any, key: Any, value: Any, call: Call) -> Any:
        return torch_module().nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=call.is_causal, scale=call.scale, enable_gqa=True
        )

    return attention_target(
        attend,
        name="torch SDPA",
        version=version_of("torch"),
        alphas=(1.0,),
        dtypes=("float64", "float32", "bfloat16", "float16"),
        square=True,
        lengths=(1, 2048),  # on a CPU it holds the scores
        missing=missing_package("torch"),
        known=(
            Known("attention_nonfinite", "on a CPU a row whose query is NaN comes out as numbers", _SWALLOWED),
            Known("query_gradient", _DELTA, dtypes=("bfloat16", "float16")),
            Known("key_gradient", _DELTA, dtypes=("bfloat16", "float16")),
        ),
        call="torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=is_causal, scale=scale)",
    )
