"""Which faults must the checks of attention see?  The oracle's attention with one thing wrong at a time, by name."""

import dataclasses
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

import entmax_ref
from entmax_ref.conformance.attention_truth import mask_of
from entmax_ref.conformance.precision import rounded
from entmax_ref.conformance.target import Attended, AttentionTarget

BLOCK = (16, 16)


def _of_blocks(pairs):
    batch, heads, n_queries, n_keys = pairs.shape
    pad = ((0, 0), (0, 0), (0, -n_queries % BLOCK[0]), (0, -n_keys % BLOCK[1]))
    whole = np.pad(pairs, pad)
    shape = (batch, heads, whole.shape[2] // BLOCK[0], BLOCK[0], whole.shape[3] // BLOCK[1], BLOCK[1])
    return whole.reshape(shape).any(axis=(3, 5))


def attend(
    query,
    key,
    value,
    call,
    *,
    top_left=False,
    last_tile=True,
    group_of=None,
    roll_tau=0,
    mask_from=0.0,
    keep_all=False,
    floor=-np.inf,
    nan=True,
    empty=0.0,
    scale=None,
    passes=0,
    wider=0,
    longer=0,
    one_for_all=False,
):
    """Return output, tau, block mask and passes, dense and in float64, rounded to the dtype at the end."""
    heads = query.shape[1]
    group = heads // key.shape[1]
    head_of = np.arange(heads) // group if group_of is None else group_of(np.arange(heads), key.shape[1])
    k, v = key[:, head_of], value[:, head_of]
    scale = (call.scale or query.shape[-1] ** -0.5) if scale is None else scale
    poisoned = np.isnan(query).any(-1)
    window, ranges = call.window, call.key_ranges
    if window is not None and window[0] is not None:
        window = (window[0] + wider, window[1])
    if ranges is not None:
        ranges = np.repeat(ranges[:1], len(query), axis=0) if one_for_all else ranges + np.array([0, longer])
    mask = mask_of(call._replace(key_ranges=ranges), key.shape[2])
    scores = entmax_ref.attention_scores(
        np.nan_to_num(query), k, is_causal=call.is_causal and not top_left, scale=scale, window=window, mask=mask
    )
    if top_left and call.is_causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    scores = np.where(scores == -np.inf, scores, np.maximum(scores, floor))
    if not last_tile and scores.shape[-1] > BLOCK[1]:
        scores[..., scores.shape[-1] // BLOCK[1] * BLOCK[1] :] = -np.inf
    step = call.alpha - 1.0
    tau = entmax_ref.threshold(scores, call.alpha)
    used = np.roll(tau, roll_tau, axis=1)
    probs = entmax_ref.entmax(scores, call.alpha)
    if roll_tau:
        probs = np.maximum(step * np.maximum(scores, -1e6) - used[..., None], 0.0) ** (1.0 / step)
    sees = scores.max(-1, initial=-np.inf) > -np.inf
    margin = np.where(scores > -np.inf, step * scores - np.where(sees, tau, 0.0)[..., None], -np.inf)
    mask = _of_blocks(margin > mask_from) | keep_all
    out = np.where(sees[..., None], probs @ v, empty)
    out[poisoned] = np.nan if nan else 0.0
    return Attended(rounded(out, call.dtype), rounded(used, "float32"), mask, BLOCK, np.full(tau.shape, passes))


def vjp(query, key, value, d_out, call, *, delta_dtype=None, scale_of_key=True, of_value="probs", unmasked=False):
    """Return the gradients, by the formulas of the proofs."""
    heads = query.shape[1]
    group, scale = heads // key.shape[1], call.scale or query.shape[-1] ** -0.5
    k, v = (np.repeat(operand, group, axis=1) for operand in (key, value))
    window, mask = (None, None) if unmasked else (call.window, mask_of(call, key.shape[2]))
    scores = entmax_ref.attention_scores(query, k, is_causal=call.is_causal, scale=scale, window=window, mask=mask)
    probs = entmax_ref.entmax(scores, call.alpha)
    s = np.where(probs > 0.0, np.where(probs > 0.0, probs, 1.0) ** (2.0 - call.alpha), 0.0)
    g = d_out @ np.swapaxes(v, -1, -2)
    total = s.sum(-1, keepdims=True)
    delta = (s * g).sum(-1, keepdims=True) / np.where(total > 0.0, total, 1.0)
    if delta_dtype:
        delta = rounded(delta, delta_dtype)
    d_scores = s * (g - delta)

    def of_group(gradient):
        return gradient.reshape(len(key), key.shape[1], group, *gradient.shape[2:]).sum(2)

    d_query = scale * d_scores @ k
    d_key = of_group((scale if scale_of_key else 1.0) * np.swapaxes(d_scores, -1, -2) @ query)
    d_value = of_group(np.swapaxes(probs if of_value == "probs" else s, -1, -2) @ d_out)
    return tuple(rounded(gradient, call.dtype) for gradient in (d_query, d_key, d_value))


def packed(query, key, value, offsets, call, *, bound=0, function=attend):
    """Return the output sequence by sequence; with ``bound`` the keys of each begin that much earlier."""
    out = np.zeros_like(query)
    for queries, keys in _sequences(offsets, bound):
        if len(query[queries]) and len(key[keys]):
            parts = (operand.swapaxes(0, 1)[None] for operand in (query[queries], key[keys], value[keys]))
            out[queries] = function(*parts, call).out[0].swapaxes(0, 1)
    return out


def packed_vjp(query, key, value, d_out, offsets, call, *, written=True):
    """Return the gradients sequence by sequence; without ``written`` those of keys are of the last one alone."""
    found = [np.zeros_like(operand) for operand in (query, key, value)]
    for queries, keys in _sequences(offsets, 0):
        if len(query[queries]) and len(key[keys]):
            parts = (part.swapaxes(0, 1)[None] for part in (query[queries], key[keys], value[keys], d_out[queries]))
            gradients = vjp(*parts, call)
            if not written:
                found[1][:] = found[2][:] = 0.0
            for whole, place, part in zip(found, (queries, keys, keys), gradients, strict=True):
                whole[place] = part[0].swapaxes(0, 1)
    return tuple(found)


def _sequences(offsets, bound):
    """Yield the places of the queries and the keys of each sequence."""
    of_queries, of_keys = (
        [slice(max(start - before, 0), end) for start, end in pairwise(cu)]
        for cu, before in zip(offsets, (0, bound), strict=True)
    )
    return zip(of_queries, of_keys, strict=True)


def sound(**claims: Any) -> AttentionTarget:
    """Return the attention without a fault; claims replace fields of the target."""
    plain = AttentionTarget(
        name="planted",
        version="",
        alphas=(1.25, 1.5, 2.0),
        dtypes=("float32", "bfloat16"),
        head_dims=(4, 16),
        attend=attend,
        vjp=vjp,
        packed=packed,
        packed_vjp=packed_vjp,
        window=True,
        key_ranges=True,
        exposes=("tau", "block_mask", "passes"),
    )
    return dataclasses.replace(plain, **claims)


def _attend(**how: Any) -> AttentionTarget:
    return sound(attend=lambda query, key, value, call: attend(query, key, value, call, **how))


def _without(**options: Any) -> AttentionTarget:
    """Return the attention that leaves an option out, in its call."""
    return sound(attend=lambda query, key, value, call: attend(query, key, value, call._replace(**options)))


def _vjp(**how: Any) -> AttentionTarget:
    return sound(vjp=lambda query, key, value, d_out, call: vjp(query, key, value, d_out, call, **how))


_calls = iter(range(10**9))


def _out(change: Callable[..., Any]) -> AttentionTarget:
    """Return the attention with its output changed by ``change(out, query, key, value, call)``."""

    def changed(query, key, value, call):
        found = attend(query, key, value, call)
        return found._replace(out=change(found.out, query, key, value, call))

    return sound(attend=changed)


def _strides_ignored(query, key, value, call):
    key = np.ravel(key, order="K").reshape(key.shape)
    return attend(query, key, value, call)


def _empty_gradient(query, key, value, d_out, call):
    d_query, d_key, d_value = vjp(query, key, value, d_out, call)
    return np.where(d_query == 0.0, np.nan, d_query), d_key, d_value


def _one_pass_from_the_left(out, query, key, value, call):
    """Return what weights sum to at the mean of all scores: right for equal ones in short rows only."""
    return out * (1.0 + 1e-4 * max(key.shape[2] - 1024, 0) ** 0.5)


# name: (the check that must see it, the target with the fault)
FAULTS: dict[str, tuple[str, Callable[[], AttentionTarget]]] = {
    "zeros returned": ("attention_output", lambda: _out(lambda out, *rest: 0.0 * out)),
    "scale ignored": ("attention_output", lambda: _attend(scale=0.25)),
    "causal mask aligned to the top left": ("attention_output", lambda: _attend(top_left=True)),
    "last tile of keys missing": ("attention_output", lambda: _attend(last_tile=False)),
    "output not normalised": ("attention_mass", lambda: _out(lambda out, *rest: out * 1.01)),
    "scores below -1000 clamped": ("attention_offset", lambda: _attend(floor=-1000.0)),
    "tau of the next head": ("attention_tau", lambda: _attend(roll_tau=1)),
    "the next key is visible": (
        "causal_future",
        lambda: sound(attend=lambda query, key, value, call: attend(query, key, value, call._replace(is_causal=False))),
    ),
    "heads take turns with the keys": (
        "grouped_heads",
        lambda: _attend(group_of=lambda head, kv_heads: head % kv_heads),
    ),
    "later keys favoured": (
        "key_order",
        lambda: _out(lambda out, query, key, value, call: out + 0.01 * value[:, :1, -1:, :]),
    ),
    "mask from an iterate above tau": ("block_mask_sound", lambda: _attend(mask_from=0.02)),
    "mask keeps everything": ("block_mask_tight", lambda: _attend(keep_all=True)),
    "a pass too many": ("passes", lambda: _attend(passes=1)),
    "passes below 0": ("passes", lambda: _attend(passes=-1)),
    "a random last bit": (
        "attention_deterministic",
        lambda: _out(lambda out, *rest: out * (1.0 + 2.0**-9 * (next(_calls) % 2))),
    ),
    "items of a batch share a maximum": (
        "batch_independence",
        lambda: _out(lambda out, query, key, value, call: out + 1e-3 * np.abs(query).max()),
    ),
    "strides ignored": ("attention_strides", lambda: sound(attend=_strides_ignored)),
    "a row without a key is not 0": ("attention_empty", lambda: _attend(empty=1.0)),
    "the gradient of a row without a key is NaN": ("attention_empty", lambda: sound(vjp=_empty_gradient)),
    "NaN swallowed": ("attention_nonfinite", lambda: _attend(nan=False)),
    "delta in bfloat16": ("query_gradient", lambda: _vjp(delta_dtype="bfloat16")),
    "scale of d_key forgotten": ("key_gradient", lambda: _vjp(scale_of_key=False)),
    "sensitivity in d_value": ("value_gradient", lambda: _vjp(of_value="sensitivity")),
    "window a key too wide": ("window_output", lambda: _attend(wider=1)),
    "window ignored": ("window_output", lambda: _without(window=None)),
    "the end of a range is seen": ("ranges_output", lambda: _attend(longer=1)),
    "the ranges of the first item for all": ("ranges_output", lambda: _attend(one_for_all=True)),
    "sequences see the end of the one before": (
        "packed_output",
        lambda: sound(packed=lambda *operands: packed(*operands, bound=1)),
    ),
    "mask of a sequence aligned to the top left": (
        "packed_output",
        lambda: sound(packed=lambda *operands: packed(*operands, function=partial(attend, top_left=True))),
    ),
    "gradient ignores the window": ("window_gradient", lambda: _vjp(unmasked=True)),
    "gradient ignores the ranges": ("ranges_gradient", lambda: _vjp(unmasked=True)),
    "gradients of all sequences but the last lost": (
        "packed_gradient",
        lambda: sound(packed_vjp=lambda *operands: packed_vjp(*operands, written=False)),
    ),
    "too few passes on long rows": ("attention_long_mass", lambda: _out(_one_pass_from_the_left)),
}
