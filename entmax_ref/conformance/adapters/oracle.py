"""Is the oracle held to its own suite?  It is, in float64."""

from typing import Any

import numpy as np

import entmax_ref
from entmax_ref.conformance.attention_truth import mask_of
from entmax_ref.conformance.precision import Floats
from entmax_ref.conformance.target import Attended, AttentionTarget, Call, RowTarget

ALPHAS = (1.0, 1.001, 1.01, 1.1, 1.25, 4 / 3, 1.5, 1.75, 2.0, 2.5, 4.0)


def rows() -> RowTarget:
    """Return `entmax_ref.entmax` and its derivatives as a target."""
    return RowTarget(
        name="entmax_ref",
        version="",
        alphas=ALPHAS[1:],
        dtypes=("float64",),
        probs=lambda scores, alpha, dtype: entmax_ref.entmax(scores, alpha),
        vjp=lambda scores, d_probs, alpha, dtype: entmax_ref.entmax_vjp(scores, d_probs, alpha),
        threshold=lambda scores, alpha, dtype: entmax_ref.threshold(scores, alpha),
        second=lambda scores, d_probs, way, alpha, dtype: entmax_ref.entmax_second(scores, d_probs, way, alpha),
        d_alpha=_d_alpha,
        loss=lambda scores, keys, alpha, dtype: entmax_ref.entmax_loss(scores, keys, alpha),
        loss_grad=lambda scores, keys, alpha, dtype: entmax_ref.entmax_loss_grad(scores, keys, alpha),
        call="entmax_ref.entmax(scores, alpha)",
        imports="import entmax_ref",
    )


def _d_alpha(scores: Floats, d_probs: Floats, alpha: float, dtype: str) -> Floats:
    return np.asarray(np.sum(entmax_ref.entmax_alpha_grad(scores, alpha) * d_probs))


def attention() -> AttentionTarget:
    """Return `entmax_ref.attention` and its gradients as a target."""

    def attend(query: Floats, key: Floats, value: Floats, call: Call) -> Attended:
        out, aux = entmax_ref.attention(
            query,
            key,
            value,
            alpha=call.alpha,
            is_causal=call.is_causal,
            scale=call.scale,
            enable_gqa=True,
            window=call.window,
            mask=mask_of(call, key.shape[2]),
            return_aux=True,
        )
        return Attended(out, tau=aux.tau)

    def vjp(query: Floats, key: Floats, value: Floats, d_out: Floats, call: Call) -> tuple[Floats, ...]:
        return entmax_ref.attention_vjp(
            query, key, value, d_out, alpha=call.alpha, is_causal=call.is_causal, scale=call.scale, enable_gqa=True,
            window=call.window, mask=mask_of(call, key.shape[2]),
        )  # fmt: skip

    def packed(query: Floats, key: Floats, value: Floats, offsets: Any, call: Call) -> Floats:
        return entmax_ref.attention_varlen(
            query, key, value, *offsets, alpha=call.alpha, is_causal=call.is_causal, scale=call.scale, enable_gqa=True
        )

    def packed_vjp(
        query: Floats, key: Floats, value: Floats, d_out: Floats, offsets: Any, call: Call
    ) -> tuple[Floats, ...]:
        return entmax_ref.attention_varlen_vjp(
            query, key, value, d_out, *offsets, alpha=call.alpha, is_causal=call.is_causal, scale=call.scale,
            enable_gqa=True,
        )  # fmt: skip

    return AttentionTarget(
        name="entmax_ref.attention",
        version="",
        alphas=(1.1, 1.25, 1.5, 2.0),
        dtypes=("float64",),
        attend=attend,
        vjp=vjp,
        packed=packed,
        packed_vjp=packed_vjp,
        window=True,
        key_ranges=True,
        head_dims=(1, 3, 8, 64),
        exposes=("tau",),
        call="entmax_ref.attention(query, key, value, alpha=alpha, is_causal=is_causal, scale=scale, enable_gqa=True)",
        imports="import entmax_ref",
    )
