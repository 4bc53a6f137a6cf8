"""What must hold for every call of attention?  One function a rule; each judges one example."""

from typing import Any, Literal

import numpy as np

import entmax_ref
from entmax_ref.conformance.attention_truth import Gradients, attention_truth, gradients_truth, repeated, undecided
from entmax_ref.conformance.case import Case, evaluated
from entmax_ref.conformance.check import BadAnswer, Finding, answer, asked, exact, worst
from entmax_ref.conformance.precision import Floats
from entmax_ref.conformance.target import Attended, AttentionTarget, Call

Operands = tuple[Floats, Floats, Floats]


def call_of(case: Case) -> Call:
    """Return how a case calls attention."""
    options = case.options
    window = options.get("window")
    ranges = evaluated(case.texts["key_ranges"]).astype(np.int64) if "key_ranges" in case.texts else None
    return Call(case.alpha, case.dtype, options["is_causal"], options.get("scale"), window and tuple(window), ranges)


def operands_of(case: Case) -> Operands:
    """Return query, key and value of a case."""
    return case["query"], case["key"], case["value"]


def attended(
    target: AttentionTarget, operands: Operands, call: Call, *, order: Literal["C", "K"] = "C"
) -> tuple[Floats, Attended]:
    """Return the target's output, and all of its answer; it gets copies, contiguous ones unless ``order`` is ``K``."""
    query, key, value = (operand.copy(order=order) for operand in operands)
    found = asked(target.attend, query, key, value, call)
    if not isinstance(found, Attended):
        raise BadAnswer(f"attend returned {type(found).__name__}, not an Attended")
    return answer(found.out, (*query.shape[:3], value.shape[-1]), "the output"), found


def compare(found: Floats, wanted: Floats, allowed: Floats, what: str) -> Finding:
    """Compare an answer with the truth, entry by entry."""
    return worst(
        np.abs(found - wanted), allowed, lambda at: f"{what}{list(at)} is {found[at]:.9g}, exactly {wanted[at]:.9g}"
    )


def _same(one: Floats, other: Floats, allowed: Floats, words: str) -> Finding:
    """Compare two answers, each of which may be off by ``allowed``; ``words`` has a place for either number."""
    return worst(np.abs(other - one), 2.0 * allowed, lambda at: f"out{list(at)} {words.format(one[at], other[at])}")


def attention_output(target: AttentionTarget, case: Case) -> Finding:
    """Every entry of the output is the oracle's, within its bound."""
    operands, call = operands_of(case), call_of(case)
    truth = attention_truth(*operands, call)
    return compare(attended(target, operands, call)[0], truth.out, truth.out_allowed, "out")


def attention_mass(target: AttentionTarget, case: Case) -> Finding:
    """Values of 1 come out as 1: the weights of every row with a key sum to 1."""
    query, key, value = operands_of(case)
    ones = np.ones_like(value)
    truth = attention_truth(query, key, ones, call_of(case))
    return compare(
        attended(target, (query, key, ones), call_of(case))[0], truth.out, truth.out_allowed, "with values of 1 out"
    )


def attention_tau(target: AttentionTarget, case: Case) -> Finding:
    """tau of every row is the oracle's: as exact as the scores are, and as float32 holds it."""
    operands, call = operands_of(case), call_of(case)
    truth = attention_truth(*operands, call)
    wanted = entmax_ref.threshold(truth.scores, call.alpha)
    found = answer(attended(target, operands, call)[1].tau, wanted.shape, "tau")
    sees = np.isfinite(wanted)
    step = call.alpha - 1.0
    size = np.max(np.where(truth.scores > -np.inf, np.abs(truth.scores), 0.0), axis=-1)
    own = 2.0**-23 if call.dtype != "float64" else 2.0**-52
    allowed = truth.rows.gap_error[..., 0] + 2.0 * own * step * size + own * np.abs(np.where(sees, wanted, 0.0))
    wrong = np.where(sees, np.abs(found - np.where(sees, wanted, 0.0)), np.where(found == wanted, 0.0, np.inf))
    return worst(wrong, allowed, lambda at: f"tau{list(at)} is {found[at]:.9g}, exactly {wanted[at]:.9g}")


def attention_long_mass(target: AttentionTarget, case: Case) -> Finding:
    """At default arguments the weights of long flat rows sum to 1: values of 1 come out as 1 in the last rows."""
    query, key, value = operands_of(case)
    call = call_of(case)
    found = attended(target, (query, key, value), call)[0][:, :, -4:]
    truth = attention_truth(query[:, :, -4:], key, value, call)
    return compare(found, truth.out, truth.out_allowed, "the last rows of out, with values of 1,")


def causal_future(target: AttentionTarget, case: Case) -> Finding:
    """Under the causal mask no row reads a key or a value after its own."""
    query, key, value = operands_of(case)
    call = call_of(case)
    n_queries, n_keys = query.shape[2], key.shape[2]
    cut = n_keys // 2
    last = np.arange(n_queries) + n_keys - n_queries < cut
    moved_key, moved_value = key.copy(), value.copy()
    moved_key[:, :, cut:] *= -4.0
    moved_value[:, :, cut:] += 100.0
    truth = attention_truth(query, key, value, call)
    before, after = (attended(target, (query, k, v), call)[0] for k, v in ((key, value), (moved_key, moved_value)))
    before, after, allowed = (values[:, :, last] for values in (before, after, truth.out_allowed))
    return _same(before, after, allowed, "changes from {:.9g} to {:.9g} with later keys")


def grouped_heads(target: AttentionTarget, case: Case) -> Finding:
    """Heads that share keys answer as if each had a copy of them."""
    query, key, value = operands_of(case)
    call, heads = call_of(case), query.shape[1]
    truth = attention_truth(query, key, value, call)
    shared = attended(target, (query, key, value), call)[0]
    copied = attended(target, (query, repeated(key, heads), repeated(value, heads)), call)[0]
    return _same(shared, copied, truth.out_allowed, "is {:.9g} with shared keys, {:.9g} with copies of them")


def key_order(target: AttentionTarget, case: Case) -> Finding:
    """Without a mask the order of the keys does not matter."""
    query, key, value = operands_of(case)
    call, order = call_of(case), np.random.default_rng(1).permutation(key.shape[2])
    truth = attention_truth(query, key, value, call)
    found = attended(target, (query, key, value), call)[0]
    moved = attended(target, (query, key[:, :, order], value[:, :, order]), call)[0]
    return _same(found, moved, truth.out_allowed, "is {:.9g}, and {:.9g} with the keys in another order")


def _blocks(target: AttentionTarget, case: Case) -> tuple[Any, Floats, Floats]:
    """Return the block mask, and the largest margin of a block and of the error of a gap in it."""
    operands, call = operands_of(case), call_of(case)
    truth = attention_truth(*operands, call)
    found = attended(target, operands, call)[1]
    rows, keys = found.block
    batch, heads, n_queries, n_keys = truth.scores.shape
    shape = (batch, heads, -(-n_queries // rows), -(-n_keys // keys))
    mask = answer(found.block_mask, shape, "the block mask") != 0.0
    error = np.broadcast_to(truth.rows.gap_error, truth.scores.shape)
    pad = ((0, 0), (0, 0), (0, -n_queries % rows), (0, -n_keys % keys))
    folded = (batch, heads, shape[2], rows, shape[3], keys)

    def of_blocks(values: Floats) -> Floats:
        return np.asarray(np.pad(values, pad, constant_values=-np.inf).reshape(folded).max(axis=(3, 5)))

    return mask, of_blocks(truth.rows.margin - error), of_blocks(truth.rows.margin)


def block_mask_sound(target: AttentionTarget, case: Case) -> Finding:
    """A block that the mask leaves out holds no support."""
    mask, sure, _ = _blocks(target, case)
    lost = np.where(mask, 0.0, np.maximum(sure, 0.0))
    return worst(
        lost, np.zeros_like(lost), lambda at: f"block {list(at)} is left out, a key in it lies {sure[at]:.3g} above tau"
    )


def block_mask_tight(target: AttentionTarget, case: Case) -> Finding:
    """A block that the mask keeps has a key within 1 of tau: none is kept that the row maximum alone rules out."""
    mask, _, most = _blocks(target, case)
    below = np.where(mask, np.maximum(-most, 0.0), 0.0)
    return worst(
        below,
        np.full(below.shape, 1.0 + 2.0**-10),
        lambda at: f"block {list(at)} is kept, its best key lies {below[at]:.3g} below tau",
    )


def passes(target: AttentionTarget, case: Case) -> Finding:
    """No row takes more refinement passes than claimed, or fewer than none."""
    query = case["query"]
    found = answer(attended(target, operands_of(case), call_of(case))[1].passes, query.shape[:3], "passes")
    if (found < 0.0).any():
        return exact(found < 0.0, f"a row took {found.min():g} passes")
    return Finding(float(found.max()), float(target.most_passes), f"a row took {found.max():g} passes")


def attention_deterministic(target: AttentionTarget, case: Case) -> Finding:
    """The same call gives the same bits."""
    first, second = (attended(target, operands_of(case), call_of(case))[0] for _ in range(2))
    return exact(~(first == second), f"{np.count_nonzero(~(first == second))} entries differ between two equal calls")


def batch_independence(target: AttentionTarget, case: Case) -> Finding:
    """An item of a batch answers alone as it does among others."""
    query, key, value = operands_of(case)
    call = call_of(case)
    truth = attention_truth(query, key, value, call)
    alone = attended(target, (query, key, value), call)[0]
    pairs = [
        np.concatenate([operand[::-1] * factor, operand])
        for operand, factor in ((query, -2.0), (key, 1.0), (value, 8.0))
    ]
    among = attended(target, (pairs[0], pairs[1], pairs[2]), call)[0][len(query) :]
    return _same(alone, among, truth.out_allowed, "is {:.9g} alone, {:.9g} in a larger batch")


def attention_strides(target: AttentionTarget, case: Case) -> Finding:
    """Operands laid out as (batch, length, heads, head_dim) are the same operands."""
    call, plain = call_of(case), operands_of(case)
    query, key, value = (np.swapaxes(np.swapaxes(operand, 1, 2).copy(), 1, 2) for operand in plain)
    truth = attention_truth(*plain, call)
    before, after = attended(target, plain, call)[0], attended(target, (query, key, value), call, order="K")[0]
    return _same(before, after, truth.out_allowed, "is {:.9g}, and {:.9g} from operands with other strides")


def attention_empty(target: AttentionTarget, case: Case) -> Finding:
    """A row without a visible key is 0, and so is its gradient."""
    operands, call = operands_of(case), call_of(case)
    none = np.arange(operands[0].shape[2]) + operands[1].shape[2] - operands[0].shape[2] < 0
    found = attended(target, operands, call)[0][:, :, none]
    if (found != 0.0).any() or target.vjp is None:
        return exact(~(found == 0.0), "a row without a visible key is not 0")
    d_query = answer(
        gradients_by_name(asked(target.vjp, *operands, np.ones_like(operands[0]), call))["query"],
        operands[0].shape,
        "d_query",
    )
    return exact(~(d_query[:, :, none] == 0.0), "the query of a row without a visible key has a gradient")


def attention_nonfinite(target: AttentionTarget, case: Case) -> Finding:
    """A query of NaN makes its row NaN, and no other."""
    query, key, value = operands_of(case)
    call = call_of(case)
    at = query.shape[2] - 1
    query[0, 0, at] = np.nan
    found = attended(target, (query, key, value), call)[0]
    wanted = np.zeros(found.shape, dtype=np.bool_)
    wanted[0, 0, at] = True
    return exact(np.isnan(found) != wanted, "NaN of a query is swallowed, or reaches other rows")


def gradients_by_name(found: Any) -> dict[str, Any]:
    """Return what a target gave as its gradients by ``query``, ``key`` and ``value``."""
    if not isinstance(found, tuple | list) or len(found) != 3:
        many = f" of {len(found)}" if isinstance(found, tuple | list) else ""
        raise BadAnswer(f"vjp returned {type(found).__name__}{many}, not the gradients of query, key and value")
    return dict(zip(("query", "key", "value"), found, strict=True))


def gradients(target: AttentionTarget, case: Case) -> tuple[dict[str, Any], Gradients]:
    """Return what a target gave as its gradients, by name, and the truth; rows on the edge of two have none."""
    assert target.vjp is not None
    operands, call = operands_of(case), call_of(case)
    unsure = undecided(attention_truth(*operands, call), call.alpha)
    d_out = np.where(unsure[..., None], 0.0, case["d_out"])
    truth = gradients_truth(*operands, d_out, call)
    return gradients_by_name(asked(target.vjp, *operands, d_out, call)), truth


def compare_gradient(name: str, found: Any, wanted: Floats, allowed: Floats) -> Finding:
    """Compare a target's gradient of ``query``, ``key`` or ``value`` with the truth."""
    return compare(answer(found, wanted.shape, f"the gradient of {name}"), wanted, allowed, f"d_{name}")


def gradient_of(name: str) -> Any:
    """Return the check of the gradient of ``query``, ``key`` or ``value``."""

    def judged(target: AttentionTarget, case: Case) -> Finding:
        found, truth = gradients(target, case)
        return compare_gradient(name, found[name], truth.exact[name], truth.allowed[name])

    judged.__doc__ = f"Every entry of the gradient of {name} is the oracle's, within its bound."
    return judged
