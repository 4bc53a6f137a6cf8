"""What must hold for the loss of a row?  Its value and its gradient; each judges one example."""

import numpy as np

import entmax_ref
from entmax_ref.conformance.case import Case
from entmax_ref.conformance.check import Finding, answer, asked, worst
from entmax_ref.conformance.precision import FORMATS
from entmax_ref.conformance.row_truth import row_truth
from entmax_ref.conformance.target import RowTarget


def loss(target: RowTarget, case: Case) -> Finding:
    """The Fenchel-Young loss of a row and a right key is the oracle's, within its bound.

    The loss is ``sum((p - e) * s) + (1 - sum(p ** alpha)) / (alpha * (alpha - 1))``, e the right key: an error of p
    counts by the derivative of both terms, and each term rounds a few times.
    """
    assert target.loss is not None
    scores, key = case["scores"], int(case.options["index"])
    found = float(
        answer(asked(target.loss, scores[None], np.array([key]), case.alpha, case.dtype), (1,), "the loss")[0]
    )
    wanted = float(entmax_ref.entmax_loss(scores, key, case.alpha))
    truth, form, step = row_truth(scores, case.alpha, case.dtype), FORMATS[case.dtype], case.alpha - 1.0
    inside = truth.probs > 0.0
    logs = np.log(np.where(inside, truth.probs, 1.0))
    # The derivative of the second term, and its size; at alpha 1 it is the entropy.
    slope = np.exp(step * logs) / step if step else np.abs(logs) + 1.0
    size = (1.0 + float(np.sum(truth.probs**case.alpha))) / (case.alpha * step) if step else float(-truth.probs @ logs)
    size += float(np.abs(scores) @ truth.probs) + abs(float(scores[key]))
    reach = np.where(truth.allowed > 0.0, np.abs(scores - scores.max()) + slope, 0.0)
    limit = float(truth.allowed @ reach) + (8.0 * form.working + form.roundoff) * size + form.tiny
    return Finding(abs(found - wanted), limit, f"the loss with key {key} right is {found:.9g}, exactly {wanted:.9g}")


def loss_gradient(target: RowTarget, case: Case) -> Finding:
    """The gradient of the loss is the probabilities, less 1 at the right key."""
    assert target.loss_grad is not None
    scores, key = case["scores"], int(case.options["index"])
    found = answer(
        asked(target.loss_grad, scores[None], np.array([key]), case.alpha, case.dtype), (1, len(scores)), "the gradient"
    )[0]
    truth, form = row_truth(scores, case.alpha, case.dtype), FORMATS[case.dtype]
    wanted = truth.probs - (np.arange(len(scores)) == key)
    return worst(
        np.abs(found - wanted),
        truth.allowed + 2.0 * form.roundoff * (np.abs(wanted) + (np.arange(len(scores)) == key)),
        lambda at: f"key {at[0]} has gradient {found[at]:.9g}, exactly {wanted[at]:.9g}",
    )
