"""Which keys of each row have a probability, and what is it?  Found on the largest few, without sorting the row.

The tau of some of the keys is never above that of all. So where the smallest of the k largest keys lies at or below the
tau of those k, all others do, and the answer is that of the row; the other rows are tried again with four times as
many, in the end sorted.  Lemma: threshold_subset
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from .threshold import Solution, Step, is_flat, solve, step_of

FIRST_WIDTH = 32  # keys looked at first


class Group(NamedTuple):
    """Some rows of a matrix of scores, and the same number of keys of each: all that may have a probability."""

    rows: torch.Tensor  # (m,) int64
    columns: torch.Tensor  # (m, w) int64
    probs: torch.Tensor  # (m, w) float64: NaN on the visible keys of a row that holds NaN or +inf
    gap: torch.Tensor  # (m, w) float64: z - tau on the support, 0 elsewhere, NaN as in probs


class Supported(NamedTuple):
    """What a matrix of scores, (m, n), comes to."""

    groups: list[Group]
    tau: torch.Tensor  # (m,): +inf without a visible key, NaN where a visible score is NaN or +inf
    mass: torch.Tensor  # (m,)
    row_max: torch.Tensor  # (m,): -inf without a visible key, NaN as tau
    tau_from_max: torch.Tensor  # (m,): tau - row_max without the rounding of either, +inf and NaN as tau
    width: int  # what sufficed for most rows: a good first width for rows of the same kind


def supported(scores: torch.Tensor, step: Step, width: int) -> Supported:
    """Solve the rows of float64 scores, of which the ``width`` largest keys are looked at first; step as of `solve`."""
    m, n = scores.shape
    tau, mass = scores.new_full((m,), torch.inf), scores.new_zeros((m,))
    row_max, tau_from_max = scores.new_full((m,), -torch.inf), scores.new_full((m,), torch.inf)
    groups: list[Group] = []
    if scores.numel() == 0:
        return Supported(groups, tau, mass, row_max, tau_from_max, width)
    rows, enough = torch.arange(m, device=scores.device), 0
    flat = is_flat(n, step)
    while rows.numel():
        part = scores if rows.numel() == m else scores[rows]
        whole = flat or 4 * width > n
        if flat:
            keys, index = part, torch.arange(n, device=scores.device).expand(part.shape)
            top = part.amax(-1)
        else:
            keys, index = part.sort(-1, descending=True) if whole else part.topk(width)
            top = keys[:, 0]  # NaN counts as the largest
        ordinary = top.isfinite()
        if not bool(ordinary.all()):
            broken = (top.isnan() | (top == torch.inf)).nonzero().squeeze(-1)
            if broken.numel():
                groups.append(_undefined(scores, rows[broken]))
                for of_rows in (tau, mass, row_max, tau_from_max):
                    of_rows[rows[broken]] = torch.nan
            rows, keys, index, top = rows[ordinary], keys[ordinary], index[ordinary], top[ordinary]
            if rows.numel() == 0:
                break
        found = solve(keys, step_of(step, rows))
        done = (found.size < keys.shape[1]) | (keys[:, -1:] == -torch.inf) if not whole else found.size > 0
        done = done.squeeze(-1)
        if bool(done.all()):
            own, left = rows, rows[:0]
        else:
            own, left, top = rows[done], rows[~done], top[done]
            found, index = Solution(*(of_rows[done] for of_rows in found)), index[done]
        if own.numel():
            most = n if flat else int(found.size.max())  # the support comes first
            groups.append(Group(own, index[:, :most], found.probs[:, :most], found.gap[:, :most]))
            tau[own], mass[own] = found.tau.squeeze(-1), found.probs.sum(-1)
            own_step = step if isinstance(step, float) else step[own, 0]
            row_max[own], tau_from_max[own] = own_step * top, -found.gap.amax(-1)
        if not enough and 2 * left.numel() <= m:
            enough = width
        rows, width = left, 4 * width
    return Supported(groups, tau, mass, row_max, tau_from_max, enough or width)


def _undefined(scores: torch.Tensor, rows: torch.Tensor) -> Group:
    """Return the group of rows that hold NaN or +inf: NaN on their visible keys."""
    n = scores.shape[1]
    own = scores[rows]
    values = torch.full_like(own, torch.nan).masked_fill_(own == -torch.inf, 0.0)
    return Group(rows, torch.arange(n, device=scores.device).expand_as(values), values, values)
