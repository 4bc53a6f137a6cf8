"""How do the probabilities move with the scores?  Products with the Jacobian, on the supported keys of a group alone.

The Jacobian is ``diag(s) - s s.T / sum(s)`` with the sensitivity ``s = probs ** (2 - alpha)`` on the support.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from .support import Group


class Jacobian(NamedTuple):
    """The sensitivity of the keys of a group, (m, w), 0 off the support, and its sum by row."""

    sensitivity: torch.Tensor
    total: torch.Tensor
    origin: torch.Tensor  # (m, 1): the key of the largest sensitivity
    live: torch.Tensor
    gap: torch.Tensor
    step: float

    def centred(self, values: torch.Tensor) -> torch.Tensor:
        """Return values less their mean weighted by the sensitivity, on the support, and 0 elsewhere.

        Counted from the key with the largest sensitivity, which keeps the digits where it dwarfs the others.
        """
        return self._centred(values)[0]

    def _centred(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return that, and the sum of the other keys' sensitivities times their distance from the origin, (m, 1)."""
        apart = torch.where(self.live, values - values.gather(-1, self.origin), 0.0)
        # not 0 * inf: the sensitivity of the origin may overflow
        pull = torch.where(apart == 0.0, 0.0, self.sensitivity * apart).sum(-1, keepdim=True)
        return torch.where(self.live, apart - pull / self.total, 0.0), pull

    def times(self, values: torch.Tensor) -> torch.Tensor:
        """Return the product with values.  Lemmas: jacobian_form, jacobian_rows_zero

        Above alpha 2 the smallest probability may have a sensitivity that overflows. Its product does not: it is
        minus the pull of the others, times its share of all sensitivities.
        """
        centred, pull = self._centred(values)
        found = self.sensitivity * centred
        if self.step <= 1.0:
            return found
        largest = self.sensitivity.gather(-1, self.origin)
        share = torch.where(largest == torch.inf, 1.0, largest / self.total)
        return found.scatter(-1, self.origin, -pull * share)

    def moved(self, values: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the derivative by the scores of ``values . J(scores) . d_scores``, for a constant ``d_scores``.

        ``scores`` is that direction. Only the sensitivity moves to first order, the means do not, and ``d s / d probs``
        is ``(2 - alpha) * probs ** (1 - alpha) = (2 - alpha) / gap``.
        """
        if self.step == 1.0:
            return torch.zeros_like(values)
        rate = torch.where(self.live, (1.0 - self.step) / torch.where(self.live, self.gap, 1.0), 0.0)
        return self.times(rate * self.centred(values) * self.centred(scores))


def jacobian_of(group: Group, step: float) -> Jacobian:
    """Return the Jacobian of a group; NaN rows have NaN on their visible keys."""
    probs, gap = group.probs, group.gap
    live = probs != 0.0  # also NaN
    if step == 1.0:
        sensitivity = torch.where(live, torch.where(probs.isnan(), probs, 1.0), 0.0)
    elif step == 0.5:
        sensitivity = gap
    elif step > 1.0:
        sensitivity = torch.where(live, torch.where(live, probs, 1.0).pow(1.0 - step), 0.0)
    else:
        # A small gap holds its own digits, one close to 1 has lost some that the probability still holds.
        large = gap > 0.5
        small = torch.where(live & ~large, gap, 1.0).pow((1.0 - step) / step)
        sensitivity = torch.where(large, probs / torch.where(large, gap, 1.0), torch.where(live, small, 0.0))
    total = sensitivity.sum(-1, keepdim=True)
    total = torch.where(total == 0.0, 1.0, total)
    return Jacobian(sensitivity, total, sensitivity.argmax(-1, keepdim=True), live, gap, step)
