"""Is a key within rounding of tau supported?  It is if the mass at its score is below 1, and that is decided exactly.

alpha and the scores are the exact values of their float64. What float64 cannot tell goes on to sums without error where
the power is an integer or a root, then to numbers of a hundred bits, then to decimals of up to 700 digits.
"""

from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal

import numpy as np
from numpy.typing import NDArray

from entmax_ref.arguments import Booleans, Floats
from entmax_ref.rows.exact_support.twofold import (
    LN2,
    ONE,
    Twofold,
    add,
    exponential,
    logarithm,
    multiply,
    reciprocal,
    scale,
    sign_of_sum,
    total,
    two_product,
    two_sum,
)
from entmax_ref.rows.roots.form import power_of_step

Signs = NDArray[np.int8]  # of mass - 1: -1, 0 or 1, or OPEN where it is not known
OPEN = 2
U = 2.0**-53
LEAST_FACTOR = 2.0**-480  # products of numbers from here on keep all their bits
DIGITS = (60, 120, 240, 700)  # more than the 2200 bits that `entmax_ref.certify.certify` tries


def support_size(
    scores: Floats, fewest: NDArray[np.intp], most: NDArray[np.intp], step: float | Floats
) -> NDArray[np.intp]:
    """Return how many keys of each row are supported, exactly.

    Parameters
    ----------
    scores : ndarray of float64, shape (m, w)
        Each row descends; ``-inf`` fills it up.
    fewest, most : ndarray of int, shape (m,)
        Between these numbers lies the answer, and ``fewest`` is at least 1.
    step : float or ndarray of float64, shape (m, 1)
        ``alpha - 1``, above 0.

    Returns
    -------
    size : ndarray of int, shape (m,)

    Notes
    -----
    The mass at the k-th key does not decrease with k, so the test mass < 1 holds up to one place and fails after it.
    Lemma: threshold_unique
    """
    fewest, most = fewest.copy(), most.copy()
    middle = most.copy()  # nearly always the window holds one score, and one look decides it
    while (rows := np.flatnonzero(fewest < most)).size:
        part = scores[rows, : int(middle[rows].max())]
        at = np.take_along_axis(part, middle[rows, None] - 1, axis=-1)
        below = sign_of_excess(part, at, step[rows] if isinstance(step, np.ndarray) else step) < 0
        fewest[rows] = np.where(below, middle[rows], fewest[rows])
        higher = np.count_nonzero(part > at, axis=-1)  # a tie is in or out as one
        most[rows] = np.where(below, most[rows], np.maximum(higher, fewest[rows]))
        middle = (fewest + most + 1) // 2
    return fewest


def sign_of_excess(scores: Floats, at: Floats, step: float | Floats) -> Signs:
    """Return the sign of ``mass - 1`` at the score ``at``, (m, 1), of rows of scores.

    A mass that is 1 to 700 digits counts as 1.
    """
    head, rest = two_sum(np.where(scores > at, scores, at), -at)
    sign = np.full(head.shape[0], OPEN, dtype=np.int8)
    for decide in (_in_float64, _in_exact_sums, _in_twofold, _in_decimals):
        rows = np.flatnonzero(sign == OPEN)
        if rows.size == 0:
            break
        sign[rows] = decide(Twofold(head[rows], rest[rows]), step[rows] if isinstance(step, np.ndarray) else step)
    return sign


def _judged(excess: Floats, slack: Floats | float) -> Signs:
    """Return the sign of a number known to within ``slack``."""
    return np.where(np.abs(excess) > slack, np.sign(excess), OPEN).astype(np.int8)


def _in_float64(distance: Twofold, step: float | Floats) -> Signs:
    """Decide rows by the mass as float64 has it, where it is far enough from 1 or without error."""
    n = distance.head.shape[-1]
    terms = power_of_step(step * distance.head, step)
    mass = terms.sum(axis=-1)
    # By term: three roundings of the gap, raised to the power; one of the result and one of the exponent.
    power = 1.0 / np.asarray(step).reshape(-1)
    slack = U * (3.0 * power + 25.0 + 2.0 * np.log(n) + np.log2(n)) * np.maximum(mass, 1.0)
    if not isinstance(step, np.ndarray) and step in (0.5, 1.0):
        # Distances on a grid of 2**-25 have squares and sums, below 2, that float64 holds.
        grid = distance.head * 2.0**25
        coarse = np.all((grid == np.rint(grid)) & (distance.rest == 0.0), axis=-1) & (mass < 2.0)
        slack = np.where(coarse, -1.0, slack)
    return _judged(mass - 1.0, slack)


def _in_exact_sums(distance: Twofold, step: float | Floats) -> Signs:
    """Decide rows whose step is a power of two, and whose terms are sums of float64 without error.

    Nowhere else can the mass be exactly 1. Terms are then sums of radicals with positive coefficients, so all of them
    would be rational; for a step of ``odd / 2**k`` with odd > 1 their numerators would all be multiples of a prime of
    ``odd``, and so would that of their sum.
    """
    sign = np.full(distance.head.shape[0], OPEN, dtype=np.int8)
    mantissa, exponent = np.frexp(np.broadcast_to(np.asarray(step).reshape(-1), sign.shape))
    for doublings in np.unique(exponent[mantissa == 0.5]).tolist():
        rows = np.flatnonzero((mantissa == 0.5) & (exponent == doublings))
        terms, exact = _exact_terms(Twofold(distance.head[rows], distance.rest[rows]), doublings - 1)
        rows, less_one = rows[exact], np.full((np.count_nonzero(exact), 1), -1.0)
        sign[rows] = sign_of_sum(np.concatenate([less_one, *(term[exact] for term in terms)], axis=-1))
    return sign


def _exact_terms(distance: Twofold, doublings: int) -> tuple[list[Floats], Booleans]:
    """Return arrays that add up to ``(step * distance) ** (1 / step)``, and for which rows; step is 2**doublings."""
    if doublings == 0:
        return list(distance), np.ones(distance.head.shape[0], dtype=np.bool_)
    head, rest = scale(distance, doublings)
    exact = np.all((np.ldexp(head, -doublings) == distance.head) & (np.ldexp(rest, -doublings) == distance.rest), -1)
    for _ in range(abs(doublings) - (doublings < 0)):
        if doublings > 0:
            whole, head = head, np.sqrt(head)
            square = two_product(head, head)
        else:
            whole, square = None, two_product(head, head)
        exact &= np.all((rest == 0.0) & (square.rest == 0.0) & _is_large(head), axis=-1)
        if whole is None:
            head = square.head
        else:
            exact &= np.all(square.head == whole, axis=-1)
    if doublings > 0:
        return [head], exact
    exact &= np.all(_is_large(head) & _is_large(rest), axis=-1)
    return [*two_product(head, head), *two_product(2.0 * head, rest), *two_product(rest, rest)], exact


def _is_large(factor: Floats) -> Booleans:
    return np.asarray((np.abs(factor) >= LEAST_FACTOR) | (factor == 0.0))


def _in_twofold(distance: Twofold, step: float | Floats) -> Signs:
    """Decide rows by the mass to a hundred bits or so."""
    positive = distance.head > 0.0
    head, places = np.frexp(np.where(positive, distance.head, 1.0))
    rest = np.ldexp(np.where(positive, distance.rest, 0.0), -places)
    factor, more = np.frexp(np.asarray(step))
    gap, places = multiply(Twofold(head, rest), Twofold(factor, np.zeros_like(factor))), places + more
    # around 1, so that a gap close to 1 has a logarithm without cancellation
    up = np.where(gap.head < np.sqrt(0.125), 2, np.where(gap.head < np.sqrt(0.5), 1, 0))
    gap, places = scale(gap, up), (places - up).astype(np.float64)
    log_gap = add(logarithm(gap), multiply(Twofold(places, np.zeros_like(places)), LN2))
    log_term = scale(multiply(log_gap, reciprocal(factor)), -more)
    lost = log_term.head < -100.0  # below 2**-144
    log_term = Twofold(np.where(lost, -100.0, log_term.head), np.where(lost, 0.0, log_term.rest))
    term = exponential(log_term)
    counted = positive & ~lost
    mass = total(Twofold(np.where(counted, term.head, 0.0), np.where(counted, term.rest, 0.0)))
    excess = add(mass, Twofold(-ONE.head, ONE.rest)).head[:, 0]
    # By term: 2**-99 of the logarithm of the gap, times the power, and 2**-96 of its own logarithm and sums.
    slack = 2.0**-96 * (1.0 / np.asarray(step).reshape(-1) + 4.0) * np.maximum(mass.head[:, 0], 1.0)
    return _judged(excess, slack + head.shape[-1] * 2.0**-144)


def _in_decimals(distance: Twofold, step: float | Floats) -> Signs:
    """Decide rows one by one: what arrives here is closer to 1 than chance brings it."""
    steps = np.broadcast_to(np.asarray(step).reshape(-1), distance.head.shape[:1]).tolist()
    rows = zip(distance.head.tolist(), distance.rest.tolist(), steps, strict=True)
    return np.array([_sign_in_decimals(*row) for row in rows], dtype=np.int8)


def _sign_in_decimals(head: list[float], rest: list[float], step: float) -> int:
    """Return the sign of ``mass - 1``, and 0 where 700 digits do not tell."""
    for digits in DIGITS:
        context = Context(prec=digits, Emin=MIN_EMIN, Emax=MAX_EMAX)
        mass = _mass_in_decimals(head, rest, Decimal(step), context)
        excess = context.subtract(mass, Decimal(1))
        # Each operation errs by a unit of the last digit, of gaps that the power magnifies and of log(term) < 10**4.
        slack = context.multiply(Decimal(10) ** (6 - digits), Decimal(len(head)) * (1 + 1 / Decimal(step)))
        if abs(excess) > slack * max(mass, Decimal(1)):
            return 1 if excess > 0 else -1
    return 0


def _mass_in_decimals(head: list[float], rest: list[float], step: Decimal, context: Context) -> Decimal:
    mass = Decimal(0)
    for high, low in zip(head, rest, strict=True):
        if high > 0.0:
            gap = context.multiply(context.add(Decimal(high), Decimal(low)), step)
            mass = context.add(mass, context.exp(context.divide(context.ln(gap), step)))
    return mass
