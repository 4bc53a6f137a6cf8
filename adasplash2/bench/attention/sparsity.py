"""Where is the support?  Counted from the thresholds, over all scores, a few rows at a time."""

from __future__ import annotations

import dataclasses

import torch

from .floor import BLOCK

SCORES_AT_ONCE = 2**26


@dataclasses.dataclass(frozen=True)
class Support:
    """Counts over all heads and batch items; blocks are 64 by 64.

    Attributes
    ----------
    live_blocks, visible_blocks : int
        Blocks with support, and blocks that some query may see.
    keys : int
        Pairs of a query and a key in its support.
    rows : int
    """

    live_blocks: int
    visible_blocks: int
    keys: int
    rows: int

    @property
    def sparsity(self) -> float:
        """Share of the visible blocks without support."""
        return 1.0 - self.live_blocks / self.visible_blocks if self.visible_blocks else 0.0

    @property
    def keys_per_row(self) -> float:
        """Mean size of the support."""
        return self.keys / self.rows if self.rows else 0.0


def visible_blocks(n_queries: int, n_keys: int, is_causal: bool, block: int = BLOCK) -> int:
    """Return how many blocks of a head, of ``block`` queries and keys, some query may see; pairs, if it is 1."""
    query_blocks, key_blocks = -(-n_queries // block), -(-n_keys // block)
    if not is_causal:
        return query_blocks * key_blocks
    ends = (min((row + 1) * block, n_queries) + n_keys - n_queries for row in range(query_blocks))
    return sum(max(-(-end // block), 0) for end in ends)


def support_of(
    query: torch.Tensor, key: torch.Tensor, tau: torch.Tensor, *, alpha: float, is_causal: bool, scale: float
) -> Support:
    """Return where ``(alpha - 1) * scores > tau``.

    Parameters
    ----------
    query : Tensor, shape (batch, heads, n_queries, head_dim)
    key : Tensor, shape (batch, kv_heads, n_keys, head_dim)
    tau : Tensor, float32, shape (batch, heads, n_queries)
        In the unit of ``(alpha - 1) * scores``.
    alpha : float
    is_causal : bool
        Aligned to the bottom right.
    scale : float

    Returns
    -------
    Support
        Scores are formed in float32, as the kernels do.
    """
    batch, heads, n_queries, _ = query.shape
    n_keys, group = key.shape[2], heads // key.shape[1]
    chunk = max(SCORES_AT_ONCE // max(n_keys, 1) // BLOCK, 1) * BLOCK
    live = torch.zeros((), dtype=torch.int64, device=query.device)
    keys = torch.zeros_like(live)
    for item in range(batch):
        for head in range(heads):
            wide_key = key[item, head // group].float() * (scale * (alpha - 1.0))
            for start in range(0, n_queries, chunk):
                stop = min(start + chunk, n_queries)
                end = min(max(stop + n_keys - n_queries, 0), n_keys) if is_causal else n_keys
                z = query[item, head, start:stop].float() @ wide_key[:end].T
                inside = z > tau[item, head, start:stop, None]
                if is_causal:
                    # Every row sees what lies left of the first one's last key.
                    first = max(start + n_keys - n_queries, 0)
                    columns = torch.arange(first, end, device=query.device)
                    rows = torch.arange(start, stop, device=query.device) + (n_keys - n_queries)
                    inside[:, first:] &= columns[None, :] <= rows[:, None]
                keys += inside.sum()
                live += _blocks(inside).sum()
    visible = batch * heads * visible_blocks(n_queries, n_keys, is_causal)
    return Support(int(live), visible, int(keys), batch * heads * n_queries)


def _blocks(inside: torch.Tensor) -> torch.Tensor:
    """Return which blocks hold a True."""
    rows, columns = inside.shape
    padded = torch.nn.functional.pad(inside, (0, -columns % BLOCK, 0, -rows % BLOCK))
    parts = padded.view(padded.shape[0] // BLOCK, BLOCK, padded.shape[1] // BLOCK, BLOCK)
    return parts.any(dim=3).any(dim=1)
