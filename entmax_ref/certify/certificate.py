"""What is proven of rows?  Float64 bounds, and a head with a rest and a radius, of tau and of every probability."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from entmax_ref.arguments import Booleans, Floats, as_real
from entmax_ref.certify.split import distance_to


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What is proven of the rows of ``scores``, shape (..., n); made by `certify`.

    A number is given twice: as float64 bounds ``lo <= exact <= hi``, and as the unevaluated sum ``head + rest`` with
    ``abs(exact - (head + rest)) <= radius``, which keeps the digits that the bounds round away.

    Attributes
    ----------
    alpha : float
        The order, taken as the exact value of the float64.
    tau_lo, tau_hi : ndarray of float64, shape (...)
        Bounds of tau, in the unit of ``z = (alpha - 1) * scores``. Both are ``+inf`` for a row without a visible key
        and NaN for a row with a visible NaN or ``+inf``.
    tau, tau_rest, tau_radius : ndarray of float64, shape (...)
        Head, rest and radius of tau.
    probs_lo, probs_hi : ndarray of float64, shape (..., n)
        Bounds of the probabilities; NaN on the visible keys of a row with a visible NaN or ``+inf``.
    probs, probs_rest, probs_radius : ndarray of float64, shape (..., n)
        Head, rest and radius of the probabilities.
    in_support, out_of_support : ndarray of bool, shape (..., n)
        Keys that provably have ``z > tau``, and keys that provably do not (also keys that are not visible). Neither
        holds for a key that could not be decided, nor for a visible key of a row with a visible NaN or ``+inf``.
    error_lo, error_hi : ndarray of float64, shape (...), or None
        Bounds of ``abs(t - tau)`` for the ``tau=t`` given to `certify`; None if none was given.
    is_lower, is_upper : ndarray of bool, shape (...), or None
        Whether ``t <= tau`` and ``t >= tau`` are proven; None if no ``tau`` was given.

    Examples
    --------
    >>> from entmax_ref.certify import certify
    >>> proof = certify([0.5, 0.25, -1.0], alpha=2.0, tau=-0.25)
    >>> proof.tau_lo, proof.tau_hi
    (array(-0.125), array(-0.125))
    >>> proof.in_support, proof.is_lower, proof.is_upper, proof.error_hi
    (array([ True,  True, False]), array(True), array(False), array(0.125))
    """

    alpha: float
    tau_lo: Floats
    tau_hi: Floats
    tau: Floats
    tau_rest: Floats
    tau_radius: Floats
    probs_lo: Floats
    probs_hi: Floats
    probs: Floats
    probs_rest: Floats
    probs_radius: Floats
    in_support: Booleans
    out_of_support: Booleans
    error_lo: Floats | None = None
    error_hi: Floats | None = None
    is_lower: Booleans | None = None
    is_upper: Booleans | None = None

    @property
    def undecided(self) -> Booleans:
        """Keys of which neither `in_support` nor `out_of_support` is proven."""
        return ~(self.in_support | self.out_of_support)

    def tau_error(self, found: ArrayLike) -> tuple[Floats, Floats]:
        """Return float64 bounds of ``abs(found - tau)``; ``found`` broadcasts to the shape of tau."""
        given = _as_found("tau_error", found, self.tau.shape)
        return distance_to(given, self.tau, self.tau_rest, self.tau_radius)

    def probs_error(self, found: ArrayLike) -> tuple[Floats, Floats]:
        """Return float64 bounds of ``abs(found - probs)``; ``found`` broadcasts to the shape of the probabilities."""
        given = _as_found("probs_error", found, self.probs.shape)
        return distance_to(given, self.probs, self.probs_rest, self.probs_radius)


def _as_found(method: str, found: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """Return somebody's numbers as float64; raise unless they broadcast to ``shape``."""
    given = as_real(f"Certificate.{method}", "found", found)
    try:
        return np.broadcast_to(given, shape)
    except ValueError as error:
        raise ValueError(
            f"Certificate.{method}: found must broadcast to shape {shape}; its shape is {given.shape}. "
            "Give one number for each that was certified."
        ) from error
