"""What must hold for the gradients of a row?  One function a rule; each judges one example."""

import numpy as np

import entmax_ref
from entmax_ref.conformance.case import Case
from entmax_ref.conformance.check import Finding, answer, asked, exact, worst
from entmax_ref.conformance.precision import FORMATS, Floats, rounded
from entmax_ref.conformance.row_checks import mapped
from entmax_ref.conformance.row_truth import GradientTruth, gradient_truth, row_truth
from entmax_ref.conformance.target import RowTarget

_NOT_JUDGED = Finding(0.0, 0.0, "rounding decides on which side of a jump the row lies")


def pulled(target: RowTarget, scores: Floats, d_probs: Floats, case: Case) -> Floats:
    """Return the target's gradient of one row of scores."""
    assert target.vjp is not None
    found = asked(target.vjp, scores[None].copy(), d_probs[None].copy(), case.alpha, case.dtype)
    return answer(found, (1, len(scores)), "the gradient").reshape(-1)


def _both(target: RowTarget, case: Case) -> tuple[Floats, GradientTruth]:
    scores, d_probs = case["scores"], case["d_probs"]
    truth = gradient_truth(scores, d_probs, case.alpha, case.dtype)
    return pulled(target, scores, d_probs, case), truth


def gradient(target: RowTarget, case: Case) -> Finding:
    """The gradient is the oracle's, within its bound."""
    found, truth = _both(target, case)
    if not truth.defined:
        return _NOT_JUDGED
    return worst(
        np.abs(found - truth.d_scores),
        truth.allowed,
        lambda at: f"key {at[0]} has gradient {found[at]:.9g}, exactly {truth.d_scores[at]:.9g}",
    )


def gradient_sum(target: RowTarget, case: Case) -> Finding:
    """The gradient of a row sums to 0: nothing changes if all scores are shifted."""
    found, truth = _both(target, case)
    if not truth.defined:
        return _NOT_JUDGED
    return Finding(
        abs(float(found.sum())), float(truth.sum_allowed), f"the gradient of the row sums to {found.sum():.6g}"
    )


def gradient_outside(target: RowTarget, case: Case) -> Finding:
    """Keys outside the support have no gradient."""
    scores = case["scores"]
    found, truth = pulled(target, scores, case["d_probs"], case), row_truth(scores, case.alpha, case.dtype)
    outside = truth.margin < -truth.gap_error
    return exact(outside & (found != 0.0), "keys outside the support have a gradient that is not 0")


def finite_differences(target: RowTarget, case: Case) -> Finding:
    """The gradient is the slope of the target's own forward.

    What the difference quotient misses is known: it is what the oracle's own quotient misses.
    """
    scores, d_probs, way = case["scores"], case["d_probs"], case["way"]
    h = 2.0**-12 if case.dtype == "float64" else 2.0**-5
    ahead, behind = (rounded(scores + sign * h * way, case.dtype) for sign in (1.0, -1.0))
    truths = [row_truth(row, case.alpha, case.dtype) for row in (ahead, behind)]
    slope = float(d_probs @ (mapped(target, ahead, case) - mapped(target, behind, case))) / 2.0
    exact_slope = float(d_probs @ (truths[0].probs - truths[1].probs)) / 2.0
    at = gradient_truth(scores, d_probs, case.alpha, case.dtype)
    if not at.defined:
        return _NOT_JUDGED
    step = (ahead - behind) / 2.0
    missed = abs(exact_slope - float(at.d_scores @ step))
    limit = float(np.abs(d_probs) @ (truths[0].allowed + truths[1].allowed)) / 2.0
    limit += float(at.allowed @ np.abs(step))
    found = float(pulled(target, scores, d_probs, case) @ step)
    error = abs(found - slope)
    sentence = f"the gradient predicts a change of {found:.6g}, the forward has {slope:.6g}"
    return Finding(max(error - missed, 0.0) if error == error else error, limit, sentence)


def empty_gradient(target: RowTarget, case: Case) -> Finding:
    """A row without a visible key has no gradient, and no NaN."""
    found = pulled(target, case["scores"], case["d_probs"], case)
    return exact(found != 0.0, f"the gradient of a row of -inf alone is {found[:4].tolist()}, not 0")


def second_order(target: RowTarget, case: Case) -> Finding:
    """The derivative of the gradient is the oracle's where no key is near tau."""
    assert target.second is not None
    scores, d_probs, way = case["scores"], case["d_probs"], case["way"]
    truth = row_truth(scores, case.alpha, case.dtype)
    inside = truth.probs > 0.0
    smallest = float(np.min(truth.margin[inside], initial=1.0)) if case.alpha > 1.0 else 1.0
    if smallest < 2.0**-4 or (np.abs(truth.margin[~inside]) < 2.0**-4).any():
        return Finding(0.0, 0.0, "a key is near tau, where second derivatives are large")
    found = answer(
        asked(target.second, scores[None], d_probs[None], way[None], case.alpha, case.dtype), (1, len(scores)), "second"
    )[0]
    wanted = entmax_ref.entmax_second(scores, d_probs, way, case.alpha)
    # A term is s * q with q = (2 - alpha) * a * b / gap, less the mean of q. s is the power (2 - alpha) / (alpha - 1)
    # of a gap, which may be off, as may the gap below; a, b and the mean are off as means under s are.
    form, step = FORMATS[case.dtype], case.alpha - 1.0
    s = np.where(inside, truth.probs ** (2.0 - case.alpha), 0.0)
    a, b = (np.abs(vector - s @ vector / s.sum()) + np.abs(vector).max() for vector in (d_probs, way))
    gap = np.where(inside, truth.probs**step, 1.0)
    q = np.where(inside, (2.0 - case.alpha) * a * b / gap, 0.0)
    of_gap = float(truth.gap_error[0]) / float(gap[inside].min())
    power = abs(2.0 - case.alpha) / step if step else 1.0
    relative = (3.0 * power + 1.0) * of_gap + 16.0 * (form.working + form.roundoff)
    limit = relative * s * (q + float(s @ q / s.sum())) + form.tiny
    return worst(
        np.abs(found - wanted),
        limit,
        lambda at: f"key {at[0]} has second derivative {found[at]:.9g}, exactly {wanted[at]:.9g}",
    )


def alpha_gradient(target: RowTarget, case: Case) -> Finding:
    """The gradient of alpha is the oracle's, also next to 1."""
    assert target.d_alpha is not None
    scores, d_probs = case["scores"], case["d_probs"]
    found = float(answer(asked(target.d_alpha, scores[None], d_probs[None], case.alpha, case.dtype), (), "d_alpha"))
    wanted = float(entmax_ref.entmax_alpha_grad(scores, case.alpha) @ d_probs)
    # The terms are s * log(p) ** 2 / 2 and below; each may be off as its probability may, and by a few roundings.
    truth, form = row_truth(scores, case.alpha, case.dtype), FORMATS[case.dtype]
    inside = truth.probs > 0.0
    logs = np.log(np.where(inside, truth.probs, 1.0))
    weight = np.where(inside, truth.probs ** (2.0 - case.alpha), 0.0) * (1.0 + logs**2)
    share = np.where(inside, np.minimum(truth.allowed / np.where(inside, truth.probs, 1.0), 1.0), 0.0)
    total = float(np.sum(weight)) / float(np.sum(np.where(inside, truth.probs ** (2.0 - case.alpha), 0.0)))
    terms = float(np.sum((weight + total * truth.probs) * (share + 16.0 * form.working) * np.abs(d_probs)))
    size = float(np.sum(weight * share)) * float(np.abs(d_probs).max())
    limit = 4.0 * (terms + size) + form.roundoff * abs(wanted) + form.tiny
    return Finding(abs(found - wanted), limit, f"d_alpha is {found:.9g}, exactly {wanted:.9g}")
