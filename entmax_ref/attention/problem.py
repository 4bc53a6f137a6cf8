"""What do all entry points of attention share?  Checked operands, which key each query sees, and the score chunks."""

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from entmax_ref.arguments import Booleans, Floats, as_alpha, as_flag, as_mask, as_operands, as_real, as_scale, as_scores
from entmax_ref.reading import read, shown

SCORES_PER_CHUNK = 2**19  # scores held at once, 4 MiB; a solve holds about ten arrays of that size


@dataclass(frozen=True)
class Problem:
    """Checked operands; q, k, v are (batch, kv_heads, group or 1, length, head_dim), so they broadcast."""

    q: Floats
    k: Floats
    v: Floats
    alpha: float | Floats  # an array has the shape (kv_heads, group, 1) and broadcasts to rows
    scale: float
    mask: Booleans | None  # (batch, heads, n_queries, n_keys)
    bias: Floats | None  # the same
    before: int | None  # how many keys before the one on its diagonal a query sees; None for all
    after: int | None

    @property
    def rows_shape(self) -> tuple[int, int, int]:
        """(batch, heads, n_queries)."""
        batch, kv_heads, group, n_queries, _ = self.q.shape
        return batch, kv_heads * group, n_queries

    def chunks(self) -> Iterator[slice]:
        """Yield ranges of queries, in order, whose scores fit the budget."""
        batch, heads, n_queries = self.rows_shape
        length = max(1, SCORES_PER_CHUNK // max(1, batch * heads * self.k.shape[3]))
        for start in range(0, n_queries, length):
            yield slice(start, min(start + length, n_queries))

    def orders(self, scores: Floats) -> float | Floats:
        """Return alpha for the rows of some scores: a float, or an array of the shape of the rows."""
        return self.alpha if isinstance(self.alpha, float) else np.broadcast_to(self.alpha, scores.shape[:-1])

    def scores(self, queries: slice) -> Floats:
        """Return (batch, kv_heads, group, queries, n_keys) scores of some queries, -inf if not visible."""
        n_queries, n_keys = self.q.shape[3], self.k.shape[3]
        with np.errstate(invalid="ignore", over="ignore"):  # the value contract says what NaN and inf become
            scores = self.scale * (self.q[..., queries, :] @ np.swapaxes(self.k, -1, -2))
            if self.bias is not None:
                bias = self.bias[:, :, queries].reshape(scores.shape)
                # -inf hides the key before its score is looked at, so NaN - inf is no NaN
                scores = np.where(bias == -np.inf, -np.inf, scores + bias)
        beyond = np.arange(n_keys) - (np.arange(queries.start, queries.stop)[:, None] + (n_keys - n_queries))
        if self.after is not None:
            scores = np.where(beyond <= self.after, scores, -np.inf)
        if self.before is not None:
            scores = np.where(beyond >= -self.before, scores, -np.inf)
        if self.mask is not None:
            scores = np.where(self.mask[:, :, queries].reshape(scores.shape), scores, -np.inf)
        return scores


def accept(
    function: str,
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike | None,
    *,
    alpha: Any = 1.5,
    is_causal: Any = False,
    scale: Any = None,
    enable_gqa: Any = False,
    mask: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    window: Any = None,
) -> Problem:
    """Check every argument that the entry points share and lay the heads out in groups."""
    heads_alpha = None if has_axes(alpha) else as_alpha(function, alpha)
    q, k, v = as_operands(function, as_flag(function, "enable_gqa", enable_gqa), query, key, value)
    v = k if v is None else v
    batch, heads, n_queries, head_dim = q.shape
    kv_heads, n_keys = k.shape[1:3]
    group = heads // max(1, kv_heads)
    before, after = as_window(function, window, as_flag(function, "is_causal", is_causal))
    shape = (batch, heads, n_queries, n_keys)
    order = as_head_alphas(function, alpha, heads) if heads_alpha is None else heads_alpha
    return Problem(
        q=q.reshape(batch, kv_heads, group, n_queries, head_dim),
        k=k[:, :, None],
        v=v[:, :, None],
        alpha=order if isinstance(order, float) else order.reshape(kv_heads, group, 1),
        scale=as_scale(function, scale, head_dim),
        mask=as_mask(function, "mask", mask, shape),
        bias=as_bias(function, bias, shape),
        before=before,
        after=after,
    )


def has_axes(alpha: Any) -> bool:
    """Return whether alpha has axes; what cannot be read is refused as the array that it tries to be."""
    return isinstance(alpha, (list, tuple)) or bool(getattr(alpha, "ndim", 0))


def as_head_alphas(function: str, alpha: ArrayLike, heads: int) -> Floats:
    """Return ``alpha`` as (heads,) float64; raise unless it has that shape and every entry is finite and above 1."""
    found = as_real(function, "alpha", alpha)
    if found.shape != (heads,):
        raise ValueError(
            f"{function}: alpha must be one number or have one entry per head of query, shape ({heads},); its shape is "
            f"{found.shape}. Pass alpha=1.5, or an array with an alpha for each head."
        )
    for head, order in enumerate(found):
        as_alpha(f"{function}: head {head}", float(order))
    return found


def as_bias(function: str, bias: ArrayLike | None, shape: tuple[int, ...]) -> Floats | None:
    """Return ``bias`` as a float64 view of ``shape``, or None; raise unless it is real and broadcasts."""
    if bias is None:
        return None
    if read(function, "bias", bias, "an array of real numbers")[0].dtype == np.bool_:
        raise TypeError(
            f"{function}: bias must hold numbers to add to the scores; its dtype is bool. Pass it as mask=, True where "
            "the key is visible."
        )
    found = as_scores(function, "bias", bias)  # a masked entry hides its key, as -inf does
    try:
        return np.broadcast_to(found, shape)
    except ValueError as error:
        raise ValueError(
            f"{function}: bias must broadcast to shape {shape}; its shape is {found.shape}. "
            f"Insert axes of length 1 (bias[..., None, :]) so that its axes line up from the right."
        ) from error


def as_window(function: str, window: Any, is_causal: bool) -> tuple[int | None, int | None]:
    """Return how many keys before and after its diagonal a query sees, None for all."""
    if window is None:
        return None, 0 if is_causal else None
    if not isinstance(window, tuple | list) or len(window) != 2:
        raise TypeError(
            f"{function}: window must be None or a pair (left, right); it is {shown(window)}. Pass for example "
            "window=(128, 0), with None for a side without a limit."
        )
    sides: list[int | None] = []
    for side in window:
        try:
            if isinstance(side, (bool, np.bool_)):
                raise TypeError("a bool is no length")
            length = None if side is None else operator.index(side)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{function}: window must hold integers or None; it is {shown(window)}. "
                "Pass for example window=(128, 0)."
            ) from error
        if length is not None and length < 0:
            raise ValueError(
                f"{function}: window must not be negative; it is {shown(window)}. Pass None for a side without a limit."
            )
        sides.append(length)
    left, right = sides
    return left, 0 if is_causal else right
