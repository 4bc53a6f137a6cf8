"""Are the gradients of attention those of its output, for the operands and for alpha?"""

import exact
import numpy as np
import pytest
from attention_problems import (
    HEAD_DIM,
    assert_close,
    each_shape,
    per_query_head,
    problem,
    scores_by_the_definition,
    seed_away_from_edges,
)
from exact import U
from lemmas import lemma

from entmax_ref import attention, attention_scores, attention_vjp


def exact_loss(query, key, value, d_out, alpha, options):
    """Return sum(out * d_out) in high precision, for object arrays of Fractions."""
    scores = scores_by_the_definition_in_fractions(query, key, options)
    values = per_query_head(value, query.shape[1])
    loss = exact.CONTEXT.mpf(0)
    for b, h, i in np.ndindex(query.shape[:3]):
        row = scores[b, h, i]
        if all(score == -np.inf for score in row):
            continue
        d_probs = [exact.exact(sum(d_out[b, h, i] * values[b, h, j])) for j in range(len(row))]
        loss += exact.CONTEXT.fdot(exact.probs(row, alpha, bits=210), d_probs)
    return loss


def scores_by_the_definition_in_fractions(query, key, options):
    """Return the scores as Fractions, and -inf where not visible, which the float scores decide."""
    hidden = scores_by_the_definition(query.astype(float), key.astype(float), **options) == -np.inf
    keys = per_query_head(key, query.shape[1])
    scale = exact.Fraction(options.get("scale", 0.5))
    scores = np.empty(hidden.shape, dtype=object)
    for b, h, i, j in np.ndindex(hidden.shape):
        scores[b, h, i, j] = -np.inf if hidden[b, h, i, j] else scale * sum(query[b, h, i] * keys[b, h, j])
    return scores


@pytest.mark.parametrize("shape", ["causal", "groups", "mask and causal", "scale"])
@pytest.mark.parametrize("alpha", [1.25, 1.5, 2.0])
@lemma("jacobian_form", "query_gradient", "key_gradient", "value_gradient")
def test_gradients_against_finite_differences(shape, alpha):
    """The derivative of the exact loss along one direction of all operands at once, with a step of 2**-60."""
    query, key, value, d_out, options, _, rows = seed_away_from_edges(shape, alpha)
    operands = query, key, value
    rng = np.random.default_rng(9)
    directions = [rng.integers(-8, 9, array.shape) / 8 for array in operands]
    step = exact.Fraction(1, 2**60)
    to_fractions = np.vectorize(exact.Fraction, otypes=[object])
    ends = []
    for sign in (1, -1):
        moved = [
            to_fractions(array) + sign * step * to_fractions(direction)
            for array, direction in zip(operands, directions, strict=True)
        ]
        ends.append(exact_loss(*moved, to_fractions(d_out), alpha, options))
    quotient = (ends[0] - ends[1]) / (2 * exact.exact(step))

    gradients = attention_vjp(*operands, d_out, alpha=alpha, **options)
    found = exact.CONTEXT.fsum(
        exact.exact(float(g)) * exact.exact(float(d))
        for gradient, direction in zip(gradients, directions, strict=True)
        for g, d in zip(gradient.flat, direction.flat, strict=True)
    )
    # The bounds of the test above, with operands at most 2 and directions at most 1 in every entry; the
    # quotient itself is off by a third derivative times 2**-120, which is nothing beside them.
    probs, d_scores, probs_error, d_scores_error = rows
    terms = query.shape[1] * (query.shape[2] + key.shape[2])
    carried = 2 * 2 * HEAD_DIM * 2 * d_scores_error.sum() + 2 * value.shape[3] * probs_error.sum()
    rounded = (2 * terms + 3) * U * (2 * 2 * HEAD_DIM * 2 * np.abs(d_scores).sum() + 2 * value.shape[3] * probs.sum())
    assert float(abs(found - quotient)) <= carried + rounded


@each_shape
@pytest.mark.parametrize("alpha", [1.5, 1.75, 2.0])
@lemma("delta_is_centre")
def test_the_mean_that_the_gradient_subtracts_is_centre_times_d_out(shape, alpha):
    """What lets a kernel save one vector per row: delta = centre . d_out, with centre known in the forward."""
    query, key, value, d_out, options, _, (probs, _, _, d_scores_error) = seed_away_from_edges(shape, alpha)
    heads, n_keys = query.shape[1], key.shape[2]
    keys, values = per_query_head(key, heads), per_query_head(value, heads)
    sensitivity = np.where(probs > 0, np.where(probs > 0, probs, 1.0) ** (2 - alpha), 0.0)
    total = sensitivity.sum(axis=-1, keepdims=True)
    centre = sensitivity @ values / np.where(total > 0, total, 1.0)
    delta = np.sum(centre * d_out, axis=-1, keepdims=True)
    d_scores = sensitivity * (d_out @ np.swapaxes(values, -1, -2) - delta)
    size = sensitivity * 2 * np.max(np.abs(d_out) @ np.swapaxes(np.abs(values), -1, -2), axis=-1, keepdims=True)
    scale = options.get("scale", 0.5)
    d_query = attention_vjp(query, key, value, d_out, alpha=alpha, **options)[0]
    carried, magnitude = (abs(scale) * part @ np.abs(keys) for part in (d_scores_error, size))
    # sums over the keys for total and centre, over value_dim for delta, 4 U for each sensitivity in all of them
    terms = 3 * n_keys + value.shape[3] + 4 * 4
    assert_close(d_query, scale * d_scores @ keys, carried, magnitude, terms)


MIXED_ALPHAS = np.array([1.25, 1.5, 2.0, 2.5])


def test_one_alpha_per_head():
    """Head by head the results of that alpha alone; a power computed for an array may round otherwise."""
    query, key, value, d_out, options = problem("groups")
    out, aux = attention(query, key, value, alpha=MIXED_ALPHAS, return_aux=True, **options)
    found = attention_vjp(query, key, value, d_out, alpha=MIXED_ALPHAS, return_d_alpha=True, **options)
    assert found[3].shape == (4,)
    d_key, d_value = np.zeros_like(key), np.zeros_like(value)
    limit = 64 * U
    for head, alpha in enumerate(MIXED_ALPHAS):
        of_key = slice(head // 2, head // 2 + 1)
        alone = query[:, head : head + 1], key[:, of_key], value[:, of_key]
        one, one_aux = attention(*alone, alpha=alpha, return_aux=True)
        np.testing.assert_array_equal(aux.tau[:, head], one_aux.tau[:, 0])
        assert np.max(np.abs(out[:, head] - one[:, 0])) <= limit
        gradients = attention_vjp(*alone, d_out[:, head : head + 1], alpha=alpha, return_d_alpha=True)
        assert gradients[3].shape == () and isinstance(gradients[3], np.ndarray)
        assert np.max(np.abs(found[0][:, head] - gradients[0][:, 0])) <= 64 * limit
        assert abs(found[3][head] - gradients[3]) <= 256 * limit * (1.0 + abs(gradients[3]))
        d_key[:, of_key] += gradients[1]
        d_value[:, of_key] += gradients[2]
    assert np.max(np.abs(found[1] - d_key)) <= 64 * limit and np.max(np.abs(found[2] - d_value)) <= 64 * limit
    same = attention_vjp(query, key, value, d_out, alpha=np.full(4, 1.5), return_d_alpha=True, **options)
    scalar = attention_vjp(query, key, value, d_out, alpha=1.5, return_d_alpha=True, **options)
    assert abs(same[3].sum() - scalar[3]) <= 64 * U * np.abs(same[3]).sum()


@pytest.mark.parametrize("shape", ["causal", "mask and causal", "plain"])
@pytest.mark.parametrize("alpha", [1.0625, 1.25, 1.5, 1.75, 2.0, 2.5])
def test_d_alpha_against_high_precision_differences(shape, alpha):
    """The exact loss at alpha +- 2**-60, with scores held fixed: the quotient is off by 2**-120 times a derivative."""
    query, key, value, d_out, options, scores, rows = seed_away_from_edges(shape, alpha)
    step = exact.Fraction(1, 2**60)
    values = per_query_head(value, query.shape[1])
    d_probs = d_out @ np.swapaxes(values, -1, -2)  # exact
    ends, bound = [], 0.0
    for sign in (1, -1):
        order = exact.Fraction(alpha) + sign * step
        loss = exact.CONTEXT.mpf(0)
        for row in np.ndindex(scores.shape[:-1]):
            if np.all(scores[row] == -np.inf):
                continue
            probs = exact.probs(scores[row], order, bits=210)
            loss += exact.CONTEXT.fdot(probs, [exact.exact(float(d)) for d in d_probs[row]])
        ends.append(loss)
    quotient = (ends[0] - ends[1]) / (2 * exact.exact(step))
    # d_alpha = -sum(d_scores * w) with w = (1 - gap * (1 - log(gap))) / (alpha - 1) ** 2, whose derivative for the gap
    # is log(gap) / (alpha - 1) ** 2: what the bounds of d_scores and of the gap carry into it, and n roundings a sum.
    n = scores.shape[-1]
    for row in np.ndindex(scores.shape[:-1]):
        if np.all(scores[row] == -np.inf):
            continue
        gap = np.array([max(float(g), 0.0) for g in exact.gaps(scores[row], alpha)])
        live = gap > 0.0
        log = np.log(np.where(live, gap, 1.0))
        w = np.where(live, (1.0 - gap * (1.0 - log)) / (alpha - 1.0) ** 2, 0.0)
        w_error = np.abs(log) * exact.gap_bound(n, alpha) / (alpha - 1.0) ** 2 + 16 * U * w
        bound += np.sum(rows[3][row] * w.max() + np.abs(rows[1][row]) * w_error)
        spread = np.ptp(d_probs[row][live])
        # the other order of summation, d_probs times d probs / d alpha, has terms of this size
        sensitivity = np.where(live, np.where(live, gap, 1.0) ** ((2.0 - alpha) / (alpha - 1.0)), 0.0)
        relative = np.abs(2.0 - alpha) / (alpha - 1.0) * exact.gap_bound(n, alpha) / np.where(live, gap, 1.0)
        bound += 2.0 * spread * np.sum(sensitivity * (w_error.max() + (relative + 4 * n * U) * w.max()))
    found = attention_vjp(query, key, value, d_out, alpha=alpha, return_d_alpha=True, **options)[3]
    assert found.shape == ()
    assert float(abs(exact.exact(float(found)) - quotient)) <= 2.0 * bound + 2.0**-100


@pytest.mark.parametrize("alpha", [1.0 + 2.0**-10, 1.0 + 2.0**-20, 1.0 + 2.0**-30])
def test_d_alpha_keeps_its_digits_near_softmax(alpha):
    """It tends to -sum(d_scores * log(p) ** 2) / 2, off by a multiple of alpha - 1; naive forms lose it altogether."""
    query, key, value, d_out, _ = problem("default options, square")
    scores = attention_scores(query, key)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    d_probs = d_out @ np.swapaxes(value, -1, -2)
    d_scores = p * (d_probs - np.sum(p * d_probs, axis=-1, keepdims=True))
    limit = -0.5 * np.sum(d_scores * np.log(p) ** 2)
    found = attention_vjp(query, key, value, d_out, alpha=alpha, return_d_alpha=True)[3]
    cubes = np.sum(np.abs(d_scores) * (1.0 + np.abs(np.log(p))) ** 4) + np.sum(p * (1.0 + np.log(p) ** 4)) * 64
    assert abs(found - limit) <= (alpha - 1.0) * cubes + 1e-12 * cubes
