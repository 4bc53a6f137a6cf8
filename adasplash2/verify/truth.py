"""What is the right answer to a case, and how far may float32 scores move it?  Float64, from the oracle."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

import entmax_ref
from adasplash2.workloads import Workload

from .rounding import Expected, expected_errors

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

# Unit roundoff of float32, in which all kernels sum.
ROUNDOFF = 2.0**-24


def gamma(roundings: int) -> float:
    """Return the relative error bound of a sum or product with that many float32 roundings."""
    return roundings * ROUNDOFF / (1.0 - roundings * ROUNDOFF)


@dataclasses.dataclass(frozen=True)
class Head:
    """One (batch, head): its operands in float64 and what follows from them; rows are queries."""

    place: tuple[int, int]
    kv_place: tuple[int, int]
    query: Floats
    key: Floats
    value: Floats
    z: Floats  # -inf where not visible
    z_error: Floats  # (n_queries, n_keys): how far float32 may be off, at most; 0 where not visible


@dataclasses.dataclass(frozen=True)
class Truth:
    """The oracle's answer; shapes as in `adasplash2.entmax_attention`.

    Attributes
    ----------
    out, d_query, d_key, d_value, tau : ndarray of float64
    row_error : ndarray of float64, shape of tau
        The most that any visible z of the row may be off in float32, and so tau (it is 1-Lipschitz in z).
    nan_rows, empty_rows, undecided_rows : ndarray of bool, shape of tau
        Rows that must be NaN; rows that must be 0; for alpha above 1.5, rows with a z so near tau that float32 cannot
        tell whether it is support.  The gradient jumps there, so ``d_out`` is 0 in such rows.
    d_out : Tensor
        The gradient of the output that all implementations get, on the CPU.
    expected : dict of Expected
        The error that each row of ``out`` and of the gradients must expect from rounding alone.
    """

    out: Floats
    d_query: Floats
    d_key: Floats
    d_value: Floats
    tau: Floats
    row_error: Floats
    nan_rows: Booleans
    empty_rows: Booleans
    undecided_rows: Booleans
    d_out: torch.Tensor
    expected: dict[str, Expected]


def as_floats(tensor: torch.Tensor) -> Floats:
    """Return a tensor of any dtype and device as float64."""
    return tensor.detach().double().cpu().numpy()


def each_head(load: Workload, alpha: float, scale: float | None = None) -> Iterator[Head]:
    """Yield the heads one by one, so that no more than one score matrix is held; the scale as for `truth_of`."""
    query, key, value = (as_floats(part) for part in (load.query, load.key, load.value))
    batch, heads, _, head_dim = query.shape
    group = heads // key.shape[1]
    scale = head_dim**-0.5 if scale is None else scale
    mask = _mask_of(load)
    with np.errstate(invalid="ignore", over="ignore"):
        for item, head in np.ndindex(batch, heads):
            q, k, v = query[item, head], key[item, head // group], value[item, head // group]
            own_mask = None if mask is None else mask[item]
            scores = entmax_ref.attention_scores(
                q[None, None], k[None, None], is_causal=load.is_causal, scale=scale, mask=own_mask
            )[0, 0]
            # head_dim products and sums, the scale's own rounding, the product with it.
            size = np.abs(np.nan_to_num(q, posinf=0.0, neginf=0.0)) @ np.abs(np.nan_to_num(k, posinf=0.0, neginf=0.0)).T
            error = gamma(head_dim + 2) * abs(scale) * (alpha - 1.0) * size
            visible = scores != -np.inf
            yield Head(
                (item, head), (item, head // group), q, k, v, (alpha - 1.0) * scores, np.where(visible, error, 0.0)
            )


def _mask_of(load: Workload) -> Booleans | None:
    """Return the mask of a workload, (batch, 1, n_queries, n_keys), if it has one."""
    return None if load.mask is None else load.mask.cpu().numpy()


def visible_blocks(load: Workload, block: tuple[int, int]) -> Booleans:
    """Return which blocks hold a pair that may see each other, (1 or batch, 1, query blocks, key blocks)."""
    n_queries, n_keys = load.query.shape[2], load.key.shape[2]
    query, key = (np.zeros((1, 1, length, 1)) for length in (n_queries, n_keys))
    masks = _mask_of(load)
    scores = [
        entmax_ref.attention_scores(query, key, is_causal=load.is_causal, mask=mask)[0, 0]
        for mask in ([None] if masks is None else masks)
    ]
    return np.stack([in_blocks(one > -np.inf, block) for one in scores])[:, None]


def truth_of(
    load: Workload, alpha: float, seed: int, *, scale: float | None = None, drawn: torch.Tensor | None = None
) -> Truth:
    """Return the oracle's answer for a workload and for a gradient of its output.

    Parameters
    ----------
    load : Workload
    alpha : float
        1.5 or 2.
    seed : int
        Of the gradient, unless it is given.
    scale : float, optional
        Multiplier of q.k; ``head_dim ** -0.5`` by default.
    drawn : Tensor, shape of query, optional
        The gradient of the output; it is made 0 in undecided rows.

    Returns
    -------
    Truth
    """
    query, key, value = (as_floats(part) for part in (load.query, load.key, load.value))
    is_causal, enable_gqa, mask = load.is_causal, load.enable_gqa, _mask_of(load)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    with np.errstate(invalid="ignore", over="ignore"):
        out, aux = entmax_ref.attention(
            query, key, value,
            alpha=alpha, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa, mask=mask, return_aux=True,
        )  # fmt: skip
    nan_rows, empty_rows = load.nan_rows.numpy(), load.empty_rows.numpy()
    row_error = np.zeros(aux.tau.shape)
    undecided = np.zeros(aux.tau.shape, dtype=np.bool_)
    for head in each_head(load, alpha, scale):
        row_error[head.place] = head.z_error.max(axis=-1)
        if alpha > 1.5:
            with np.errstate(invalid="ignore"):
                near = np.abs(head.z - aux.tau[head.place][:, None]) <= 2.0 * head.z_error.max(axis=-1)[:, None]
            undecided[head.place] = near.any(axis=-1)
    if drawn is None:
        generator = torch.Generator().manual_seed(seed + 1)
        drawn = torch.randn(load.query.shape, generator=generator)
    d_out = torch.where(torch.from_numpy(undecided)[..., None], 0.0, drawn.cpu()).to(load.query.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        d_query, d_key, d_value = entmax_ref.attention_vjp(
            query, key, value, as_floats(d_out),
            alpha=alpha, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa, mask=mask,
        )  # fmt: skip
    expected = expected_errors(
        load.query, load.key, load.value, d_out.to(load.query.device), aux.tau,
        alpha=alpha, is_causal=is_causal, scale=scale, mask=load.mask,
    )  # fmt: skip
    return Truth(
        out, d_query, d_key, d_value, aux.tau, row_error, nan_rows, empty_rows, undecided & ~nan_rows, d_out, expected
    )


def live_blocks(
    load: Workload,
    truth: Truth,
    alpha: float,
    block: tuple[int, int],
    margin: float = 2.0,
    *,
    scale: float | None = None,
) -> Booleans:
    """Return which blocks hold support beyond doubt: an exact gap above ``margin`` times the error of its z.

    Parameters
    ----------
    load, truth, alpha
        The case.
    block : tuple of int
        Queries and keys of a block.
    margin : float
        2 for the kernels, whose z and row maximum may both be off; 0 for the exact support.
    scale : float, optional
        As for `truth_of`.

    Returns
    -------
    ndarray of bool, shape (batch, heads, n_query_blocks, n_key_blocks)
    """
    batch, heads, n_queries = truth.tau.shape
    live = np.zeros((batch, heads, -(-n_queries // block[0]), -(-load.key.shape[2] // block[1])), dtype=np.bool_)
    for head in each_head(load, alpha, scale):
        with np.errstate(invalid="ignore"):
            gap = head.z - truth.tau[head.place][:, None]
            sure = gap > margin * truth.row_error[head.place][:, None]
        live[head.place] = in_blocks(sure, block)
    return live


def in_blocks(pairs: Booleans, block: tuple[int, int]) -> Booleans:
    """Return which blocks hold a True, shape (ceil(rows / block[0]), ceil(columns / block[1]))."""
    rows, columns = pairs.shape
    padded = np.pad(pairs, ((0, -rows % block[0]), (0, -columns % block[1])))
    shape = (padded.shape[0] // block[0], block[0], padded.shape[1] // block[1], block[1])
    return np.asarray(padded.reshape(shape).any(axis=(1, 3)))
