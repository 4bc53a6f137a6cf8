"""Is FlexAttention entmax attention, given tau?  Softmax of ``power * log(z - tau)`` is; the oracle gives it tau."""

import importlib
import importlib.util
from typing import Any

import numpy as np

import entmax_ref
from entmax_ref.conformance.adapters.attention_tensors import attention_target
from entmax_ref.conformance.adapters.tensors import missing_package, torch_module, version_of
from entmax_ref.conformance.target import AttentionTarget, Call


def attention() -> AttentionTarget:
    """Return torch's ``flex_attention``, forward only: a gradient would have to go through tau."""
    return attention_target(
        _attend,
        differentiable=False,
        device="cpu",
        name="FlexAttention given tau",
        version=version_of("torch"),
        alphas=(1.25, 1.5, 2.0),
        dtypes=("float32",),
        head_dims=(16, 32, 64),
        lengths=(1, 2048),  # without being compiled it holds the scores
        nonfinite=False,  # the row's tau would be NaN already
        empty=False,
        missing=missing_package("torch"),
    )


def _attend(query: Any, key: Any, value: Any, call: Call) -> Any:
    torch = torch_module()
    flex = importlib.import_module("torch.nn.attention.flex_attention")
    scale = query.shape[-1] ** -0.5 if call.scale is None else call.scale
    arrays = [operand.double().cpu().numpy() for operand in (query, key)]
    scores = entmax_ref.attention_scores(*arrays, is_causal=call.is_causal, scale=scale, enable_gqa=True)
    # Counted from the maximum, or float32 would lose the gaps of rows at an offset.
    top = np.max(scores, axis=-1, keepdims=True)
    tau = torch.from_numpy(entmax_ref.threshold(scores - top, call.alpha)).to(query)
    top = torch.from_numpy(top[..., 0]).to(query)
    step, offset = call.alpha - 1.0, key.shape[2] - query.shape[2]

    def score_mod(score: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
        gap = torch.clamp(step * (score - top[b, h, i]) - tau[b, h, i], min=0.0)
        weight = torch.log(gap) / step
        return torch.where((j <= i + offset) | (not call.is_causal), weight, -torch.inf)

    return flex.flex_attention(query, key, value, score_mod=score_mod, scale=scale, enable_gqa=True)
