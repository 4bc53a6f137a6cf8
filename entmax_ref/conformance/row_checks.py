"""What must hold for every row of probabilities?  One function a rule; each judges one example."""

import numpy as np

import entmax_ref
from entmax_ref.conformance.case import Case, evaluated
from entmax_ref.conformance.check import Finding, answer, asked, exact, worst
from entmax_ref.conformance.precision import FORMATS, Floats, rounded
from entmax_ref.conformance.row_truth import row_truth
from entmax_ref.conformance.target import RowTarget


def mapped(target: RowTarget, scores: Floats, case: Case) -> Floats:
    """Return the target's probabilities of rows (rows, n), or of one row."""
    rows = np.atleast_2d(scores)
    found = answer(asked(target.probs, rows.copy(), case.alpha, case.dtype), rows.shape, "the result")
    return found.reshape(scores.shape)


def probabilities(target: RowTarget, case: Case) -> Finding:
    """Every probability is the oracle's, within its bound."""
    scores = case["scores"]
    found, truth = mapped(target, scores, case), row_truth(scores, case.alpha, case.dtype)
    return worst(
        np.abs(found - truth.probs),
        truth.allowed,
        lambda at: f"key {at[0]} has probability {found[at]:.9g}, exactly {truth.probs[at]:.9g}",
    )


def probabilities_at_an_offset(target: RowTarget, case: Case) -> Finding:
    """Around a large number, as float scores are, every probability is the oracle's, within its bound."""
    return probabilities(target, case)


def row_sum(target: RowTarget, case: Case) -> Finding:
    """The probabilities sum to 1."""
    scores = case["scores"]
    found, truth = mapped(target, scores, case), row_truth(scores, case.alpha, case.dtype)
    total = float(found.sum())
    return Finding(abs(total - 1.0), float(truth.allowed.sum()), f"the row sums to {total:.9g}")


def nonnegative(target: RowTarget, case: Case) -> Finding:
    """No probability is negative, or NaN."""
    found = mapped(target, case["scores"], case)
    bad = found[~(found >= 0.0)]
    return exact(
        ~(found >= 0.0), f"{bad.size} probabilities are not >= 0" + (f", such as {bad[0]}" if bad.size else "")
    )


def support(target: RowTarget, case: Case) -> Finding:
    """Keys above tau have a probability, keys below have none; the margin is how wrong it is, in the unit of a gap."""
    scores = case["scores"]
    found, truth = mapped(target, scores, case), row_truth(scores, case.alpha, case.dtype)
    # A probability that its dtype cannot hold is no key lost.
    lost = (found == 0.0) & (truth.margin > 0.0) & (truth.probs > truth.allowed)
    wrong = np.where((found > 0.0) & (truth.margin < 0.0), -truth.margin, np.where(lost, truth.margin, 0.0))
    wrong = np.where(np.isnan(found), np.nan, wrong)
    return worst(
        wrong,
        np.broadcast_to(truth.gap_error, wrong.shape),
        lambda at: (
            f"key {at[0]} is {'in' if found[at] > 0.0 else 'not in'} the support, its margin is {truth.margin[at]:.3g}"
        ),
    )


def shift(target: RowTarget, case: Case) -> Finding:
    """A number added to all scores changes nothing: here the sum is exact, so no rounding is to blame."""
    scores = case["scores"]
    offset = float(evaluated(case.texts["offset"]))
    moved = rounded(scores + offset, case.dtype)
    if not (moved - offset == scores).all():
        return Finding(0.0, 0.0, "the shift is not exact in this dtype")
    truth = row_truth(scores, case.alpha, case.dtype)
    before, after = mapped(target, scores, case), mapped(target, moved, case)
    return worst(
        np.abs(after - before),
        2.0 * truth.allowed,
        lambda at: f"adding {offset:g} to all scores turns probability {before[at]:.9g} into {after[at]:.9g}",
    )


def permutation(target: RowTarget, case: Case) -> Finding:
    """The order of the keys does not matter."""
    scores = case["scores"]
    order = np.random.default_rng(len(scores)).permutation(len(scores))
    truth = row_truth(scores, case.alpha, case.dtype)
    found, moved = mapped(target, scores, case), mapped(target, scores[order], case)
    return worst(
        np.abs(moved - found[order]),
        2.0 * truth.allowed[order],
        lambda at: f"key {order[at]} has {found[order][at]:.9g}, and {moved[at]:.9g} with the keys in another order",
    )


def monotone(target: RowTarget, case: Case) -> Finding:
    """A key with a higher score has no lower probability; equal scores have equal ones."""
    scores = case["scores"]
    found, truth = mapped(target, scores, case), row_truth(scores, case.alpha, case.dtype)
    order = np.argsort(scores, kind="stable")
    falls = found[order][:-1] - found[order][1:]
    limits = truth.allowed[order][:-1] + truth.allowed[order][1:]
    return worst(
        np.where(np.isnan(falls), np.nan, np.maximum(falls, 0.0)),
        limits,
        lambda at: (
            f"keys {order[at[0]]} and {order[at[0] + 1]}: the score rises, the probability falls by {falls[at]:.3g}"
        ),
    )


def softmax_limit(target: RowTarget, case: Case) -> Finding:
    """As alpha tends to 1 the row tends to softmax: no further from it than the exact row, within the bound."""
    scores = case["scores"]
    found, truth = mapped(target, scores, case), row_truth(scores, case.alpha, case.dtype)
    limit = entmax_ref.softmax(scores)
    beyond = np.abs(found - limit) - np.abs(truth.probs - limit)
    return worst(
        np.where(np.isnan(beyond), np.nan, np.maximum(beyond, 0.0)),
        truth.allowed,
        lambda at: f"at alpha {case.alpha} key {at[0]} has {found[at]:.9g}; softmax has {limit[at]:.9g}",
    )


def threshold(target: RowTarget, case: Case) -> Finding:
    """tau is the root of the mass: it is within the bound of a gap's error, counted from the maximum."""
    assert target.threshold is not None
    scores = case["scores"]
    found = answer(asked(target.threshold, scores[None], case.alpha, case.dtype), (1,), "tau")[0]
    truth, wanted = row_truth(scores, case.alpha, case.dtype), float(entmax_ref.threshold(scores, case.alpha))
    form = FORMATS[case.dtype]
    own = max(form.roundoff if case.dtype == "float64" else form.working, form.roundoff)
    limit = float(truth.gap_error[0]) + 2.0 * own * (abs(wanted) + (case.alpha - 1.0) * float(np.abs(scores).max()))
    return Finding(abs(found - wanted), limit, f"tau is {found:.9g}, exactly {wanted:.9g}")


def hidden_keys(target: RowTarget, case: Case) -> Finding:
    """A key of ``-inf`` has probability 0, and the others have what they have without it."""
    scores = case["scores"]
    visible = scores > -np.inf
    found = mapped(target, scores, case)
    if found[~visible].any() or np.isnan(found).any():
        return exact(~(found == 0.0) & ~visible | np.isnan(found), "a key of -inf has a probability, or NaN")
    truth, alone = row_truth(scores[visible], case.alpha, case.dtype), mapped(target, scores[visible], case)
    return worst(
        np.abs(found[visible] - alone),
        2.0 * truth.allowed,
        lambda at: f"visible key {at[0]} has {found[visible][at]:.9g}, and {alone[at]:.9g} without the hidden ones",
    )


def empty_row(target: RowTarget, case: Case) -> Finding:
    """A row without a visible key is 0."""
    found = mapped(target, case["scores"], case)
    return exact(~(found == 0.0), f"a row of -inf alone is {found[:4].tolist()}, not 0")


def nonfinite_row(target: RowTarget, case: Case) -> Finding:
    """A row with NaN or ``+inf`` is NaN on its visible keys: it is neither swallowed nor turned into a number."""
    scores = case["scores"]
    found = mapped(target, scores, case)
    bad = ~np.isnan(found) & (scores != -np.inf)
    return exact(
        bad, f"a row with {scores[~np.isfinite(scores)][:1]} has the probabilities {found[:4].tolist()}, not NaN"
    )


def neighbours(target: RowTarget, case: Case) -> Finding:
    """A row has the same probabilities alone and among other rows."""
    scores = case["scores"]
    others = case["others"]
    alone, truth = mapped(target, scores, case), row_truth(scores, case.alpha, case.dtype)
    batch = np.stack([others, scores, others[::-1], scores])
    among = mapped(target, batch, case)[[1, 3]]
    return worst(
        np.abs(among - alone),
        np.broadcast_to(2.0 * truth.allowed, among.shape),
        lambda at: f"key {at[1]} has {alone[at[1]]:.9g} alone and {among[at]:.9g} among other rows",
    )


def deterministic(target: RowTarget, case: Case) -> Finding:
    """The same call gives the same bits."""
    first, second = mapped(target, case["scores"], case), mapped(target, case["scores"], case)
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    return exact(~same, f"{np.count_nonzero(~same)} keys differ between two equal calls")


def strides(target: RowTarget, case: Case) -> Finding:
    """Rows that do not lie one after the other in memory are the same rows."""
    scores = case["scores"]
    rows = np.asfortranarray(np.stack([scores, scores[::-1], scores]))
    truth, plain = row_truth(rows, case.alpha, case.dtype), mapped(target, np.ascontiguousarray(rows), case)
    found = answer(asked(target.probs, rows, case.alpha, case.dtype), rows.shape, "the result")
    return worst(
        np.abs(found - plain),
        2.0 * truth.allowed,
        lambda at: (
            f"key {at[1]} of row {at[0]} has {plain[at]:.9g}, and {found[at]:.9g} in an array with other strides"
        ),
    )


def iterations(target: RowTarget, case: Case) -> Finding:
    """The default number of iterations is enough: with more of them no probability moves by more than its bound."""
    assert target.more_iterations is not None
    scores = case["scores"]
    found, truth = mapped(target, scores, case), row_truth(scores, case.alpha, case.dtype)
    given = scores[None].copy()
    more = answer(asked(target.more_iterations, given, case.alpha, case.dtype), given.shape, "the result")[0]
    return worst(
        np.abs(more - found),
        truth.allowed,
        lambda at: f"key {at[0]} has {found[at]:.9g}, and {more[at]:.9g} with more iterations than by default",
    )


def operands_kept(target: RowTarget, case: Case) -> Finding:
    """The scores are not written to."""
    rows = case["scores"][None]
    given = rows.copy()
    answer(asked(target.probs, given, case.alpha, case.dtype), rows.shape, "the result")
    return exact(given != rows, "the call changed its scores")
