"""What has been proven so far?  The arrays that a method fills, row by row, and the certificate made of them."""

import dataclasses
from typing import Any

import numpy as np

from entmax_ref.arguments import Booleans, Floats
from entmax_ref.certify.certificate import Certificate
from entmax_ref.certify.split import outward


@dataclasses.dataclass(frozen=True)
class Found:
    """The arrays that the solvers fill, one row after the other; rows are flat."""

    tau: Floats  # (rows, 3): head, rest, radius
    probs: Floats  # (rows, n, 3)
    in_support: Booleans
    out_of_support: Booleans
    guess: Floats | None  # tau as it was given
    error: Floats  # (rows, 3) of guess - tau
    is_lower: Booleans
    is_upper: Booleans

    @staticmethod
    def empty(rows: Floats, undefined: Booleans, guess: Floats | None) -> "Found":
        """Return what holds before any row is solved; rows without a key and undefined ones stay that way."""
        count, n = rows.shape
        tau = np.zeros((count, 3))
        tau[:, 0] = np.where(undefined, np.nan, np.inf)
        probs = np.zeros((count, n, 3))
        hidden = rows == -np.inf
        probs[..., 0] = np.where(undefined[:, None] & ~hidden, np.nan, 0.0)
        error = np.zeros((count, 3))
        proven = np.zeros(count, dtype=np.bool_)
        if guess is None:
            return Found(tau, probs, np.zeros_like(hidden), hidden.copy(), None, error, proven, proven.copy())
        with np.errstate(invalid="ignore"):
            equal = ~undefined & (guess == np.inf)  # right where no key is visible, replaced where one is
            error[:, 0] = np.where(equal, 0.0, guess - tau[:, 0])
            is_lower, is_upper = ~undefined & (guess <= np.inf), equal
        return Found(tau, probs, np.zeros_like(hidden), hidden.copy(), guess, error, is_lower, is_upper)

    def certificate(self, alpha: float, shape: tuple[int, ...], n: int) -> Certificate:
        """Return the certificate, with the leading axes that the scores had."""
        tau = self.tau.reshape(*shape, 3)
        probs = self.probs.reshape(*shape, n, 3)
        tau_lo, tau_hi = outward(tau)
        probs_lo, probs_hi = outward(probs)
        proof: dict[str, Any] = {}
        if self.guess is not None:
            low, high = outward(np.stack([np.abs(self.error[:, 0]), self._turned(), self.error[:, 2]], axis=-1))
            proof = {
                "error_lo": np.maximum(low, 0.0).reshape(shape),
                "error_hi": high.reshape(shape),
                "is_lower": self.is_lower.reshape(shape),
                "is_upper": self.is_upper.reshape(shape),
            }
        return Certificate(
            alpha=alpha,
            tau_lo=tau_lo,
            tau_hi=tau_hi,
            tau=tau[..., 0],
            tau_rest=tau[..., 1],
            tau_radius=tau[..., 2],
            probs_lo=np.maximum(probs_lo, 0.0),
            probs_hi=np.minimum(probs_hi, 1.0),
            probs=probs[..., 0],
            probs_rest=probs[..., 1],
            probs_radius=probs[..., 2],
            in_support=self.in_support.reshape(*shape, n),
            out_of_support=self.out_of_support.reshape(*shape, n),
            **proof,
        )

    def _turned(self) -> Floats:
        """Return the rest of ``abs(error)``."""
        turned: Floats = np.where(self.error[:, 0] < 0.0, -self.error[:, 1], self.error[:, 1])
        return turned
