"""What is attention over sequences of different lengths that lie one after the other?  Output and gradients."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from entmax_ref.arguments import Floats, as_flag, as_real, as_same_shape, refuse_masked
from entmax_ref.attention.forward import AttentionAux, forward
from entmax_ref.attention.gradient import backward
from entmax_ref.attention.problem import Problem, accept, has_axes
from entmax_ref.reading import read, shown


@overload
def attention_varlen(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    cu_seqlens_q: ArrayLike,
    cu_seqlens_k: ArrayLike,
    *,
    alpha: float | ArrayLike = ...,
    is_causal: bool = ...,
    scale: float | None = ...,
    enable_gqa: bool = ...,
    window: tuple[int | None, int | None] | None = ...,
    return_aux: Literal[False] = ...,
) -> Floats: ...


@overload
def attention_varlen(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    cu_seqlens_q: ArrayLike,
    cu_seqlens_k: ArrayLike,
    *,
    alpha: float | ArrayLike = ...,
    is_causal: bool = ...,
    scale: float | None = ...,
    enable_gqa: bool = ...,
    window: tuple[int | None, int | None] | None = ...,
    return_aux: Literal[True],
) -> tuple[Floats, AttentionAux]: ...


def attention_varlen(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    cu_seqlens_q: ArrayLike,
    cu_seqlens_k: ArrayLike,
    *,
    alpha: float | ArrayLike = 1.5,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    window: tuple[int | None, int | None] | None = None,
    return_aux: bool = False,
) -> Floats | tuple[Floats, AttentionAux]:
    """Return `attention` of each of several sequences that are packed along one axis.

    Parameters
    ----------
    query : array_like of real numbers, shape (total_queries, heads, head_dim)
        The queries of all sequences; converted to float64 and never modified, like all operands.
    key : array_like of real numbers, shape (total_keys, kv_heads, head_dim)
        The keys.
    value : array_like of real numbers, shape (total_keys, kv_heads, value_dim)
        The values.
    cu_seqlens_q, cu_seqlens_k : array_like of int, shape (sequences + 1,)
        Offsets, from 0 to the total: sequence s holds queries ``cu_seqlens_q[s]`` to ``cu_seqlens_q[s + 1] - 1``,
        and keys likewise. A sequence may have no query, no key or neither.
    alpha, is_causal, scale, enable_gqa, window
        As given to `attention`; the diagonal of ``is_causal`` and ``window`` is that of each sequence.
    return_aux : bool, default False
        Also return tau and the size of each row's support.

    Returns
    -------
    out : ndarray of float64, shape (total_queries, heads, value_dim)
        0 for a query of a sequence without keys.
    aux : AttentionAux
        Only if ``return_aux`` is set; of shape (heads, total_queries).

    Raises
    ------
    TypeError, ValueError
        As `attention` does, and if the offsets are not integers that rise from 0 to the total.

    Notes
    -----
    The memory is that of the longest sequence, chunked as in `attention`. No sequence affects another.

    Examples
    --------
    >>> import numpy as np
    >>> value = np.array([10.0, 20.0, 30.0]).reshape(3, 1, 1)
    >>> attention_varlen(np.zeros((2, 1, 1)), np.zeros((3, 1, 1)), value, [0, 1, 2], [0, 2, 3]).ravel()
    array([15., 30.])
    """
    problem = _accept(
        "attention_varlen", query, key, value, alpha=alpha, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa,
        window=window,
    )  # fmt: skip
    wants_aux = as_flag("attention_varlen", "return_aux", return_aux)
    _, heads, total = problem.rows_shape
    out = np.zeros((total, heads, problem.v.shape[4]))
    tau = np.full((heads, total), np.inf)
    support_size = np.zeros((heads, total), dtype=np.int64)
    for queries, keys in _sequences("attention_varlen", cu_seqlens_q, cu_seqlens_k, total, problem.k.shape[3]):
        part, aux = forward(_sequence(problem, queries, keys))
        out[queries] = part[0].swapaxes(0, 1)
        tau[:, queries], support_size[:, queries] = aux.tau[0], aux.support_size[0]
    return (out, AttentionAux(tau, support_size)) if wants_aux else out


@overload
def attention_varlen_vjp(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    d_out: ArrayLike,
    cu_seqlens_q: ArrayLike,
    cu_seqlens_k: ArrayLike,
    *,
    alpha: float | ArrayLike = ...,
    is_causal: bool = ...,
    scale: float | None = ...,
    enable_gqa: bool = ...,
    window: tuple[int | None, int | None] | None = ...,
    return_d_alpha: Literal[False] = ...,
) -> tuple[Floats, Floats, Floats]: ...


@overload
def attention_varlen_vjp(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    d_out: ArrayLike,
    cu_seqlens_q: ArrayLike,
    cu_seqlens_k: ArrayLike,
    *,
    alpha: float | ArrayLike = ...,
    is_causal: bool = ...,
    scale: float | None = ...,
    enable_gqa: bool = ...,
    window: tuple[int | None, int | None] | None = ...,
    return_d_alpha: Literal[True],
) -> tuple[Floats, Floats, Floats, Floats]: ...


def attention_varlen_vjp(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    d_out: ArrayLike,
    cu_seqlens_q: ArrayLike,
    cu_seqlens_k: ArrayLike,
    *,
    alpha: float | ArrayLike = 1.5,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    window: tuple[int | None, int | None] | None = None,
    return_d_alpha: bool = False,
) -> tuple[Floats, Floats, Floats] | tuple[Floats, Floats, Floats, Floats]:
    """Return the gradients of `attention_varlen`, given that for its output.

    Parameters
    ----------
    query, key, value
        As given to `attention_varlen`.
    d_out : array_like of real numbers, shape (total_queries, heads, value_dim)
        Gradient of a scalar with respect to the output.
    cu_seqlens_q, cu_seqlens_k, alpha, is_causal, scale, enable_gqa, window
        As given to `attention_varlen`.
    return_d_alpha : bool, default False
        Also return the gradient for ``alpha``.

    Returns
    -------
    d_query, d_key, d_value : ndarray of float64, the shapes of ``query``, ``key`` and ``value``
        As those of `attention_vjp`.
    d_alpha : ndarray of float64, the shape of ``alpha``, () or (heads,)
        Only with ``return_d_alpha``.

    Raises
    ------
    TypeError, ValueError
        As `attention_varlen` does, and if ``d_out`` is not real and numeric or has another shape than the output.

    Notes
    -----
    As in `attention_vjp`, sequence by sequence.

    Examples
    --------
    >>> import numpy as np
    >>> ones = np.ones((3, 1, 1))
    >>> attention_varlen_vjp(ones, ones, ones, ones, [0, 1, 3], [0, 2, 3])[2].ravel()
    array([0.5, 0.5, 2. ])
    """
    problem = _accept(
        "attention_varlen_vjp", query, key, value, alpha=alpha, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa,
        window=window,
    )  # fmt: skip
    wants_d_alpha = as_flag("attention_varlen_vjp", "return_d_alpha", return_d_alpha)
    _, heads, total = problem.rows_shape
    shape = (total, heads, problem.v.shape[4])
    rule = "the shape of the output, (total_queries, heads, value_dim)"
    d_o = as_same_shape("attention_varlen_vjp", "d_out", d_out, rule, shape)
    d_query = np.zeros((total, heads, problem.q.shape[4]))
    d_key, d_value = (np.zeros((part.shape[3], part.shape[1], part.shape[4])) for part in (problem.k, problem.v))
    d_alpha = np.zeros(heads)
    for queries, keys in _sequences("attention_varlen_vjp", cu_seqlens_q, cu_seqlens_k, total, problem.k.shape[3]):
        found = backward(_sequence(problem, queries, keys), d_o[queries].swapaxes(0, 1)[None], wants_d_alpha)
        d_query[queries] = found.d_query[0].swapaxes(0, 1)
        d_key[keys], d_value[keys] = found.d_key[0].swapaxes(0, 1), found.d_value[0].swapaxes(0, 1)
        d_alpha += 0.0 if found.d_alpha is None else found.d_alpha
    if not wants_d_alpha:
        return d_query, d_key, d_value
    return d_query, d_key, d_value, d_alpha if has_axes(alpha) else np.array(d_alpha.sum())


def _accept(function: str, query: ArrayLike, key: ArrayLike, value: ArrayLike, **options: Any) -> Problem:
    """Check operands and options of all sequences at once, as those of one long sequence."""
    operands = []
    for name, array in (("query", query), ("key", key), ("value", value)):
        found = as_real(function, name, array)
        if found.ndim != 3:
            raise ValueError(
                f"{function}: {name} must have the three axes (total, heads, head_dim); its shape is {found.shape}. "
                f"Lay the sequences one after the other along axis 0, or use the batched function."
            )
        operands.append(found.swapaxes(0, 1)[None])
    q, k, v = operands
    return accept(function, q, k, v, **options)


def _sequence(problem: Problem, queries: slice, keys: slice) -> Problem:
    """Return the problem of one sequence."""
    return replace(problem, q=problem.q[..., queries, :], k=problem.k[..., keys, :], v=problem.v[..., keys, :])


def _sequences(
    function: str, cu_seqlens_q: ArrayLike, cu_seqlens_k: ArrayLike, total_queries: int, total_keys: int
) -> Iterator[tuple[slice, slice]]:
    """Yield the queries and the keys of each sequence that has both; raise unless the offsets fit."""
    offsets = []
    for name, array, total in (
        ("cu_seqlens_q", cu_seqlens_q, total_queries),
        ("cu_seqlens_k", cu_seqlens_k, total_keys),
    ):
        found, hidden = read(function, name, array, "one row of integers")
        if found.dtype.kind not in "iu":
            raise TypeError(
                f"{function}: {name} must hold integers; its dtype is {found.dtype}. Convert with astype(int)."
            )
        refuse_masked(function, name, hidden)
        rises = found.ndim == 1 and found.size > 0 and found[0] == 0 and bool(np.all(found[1:] >= found[:-1]))
        if not rises or found[-1] != total:
            raise ValueError(
                f"{function}: {name} must be one row of offsets that rise from 0 to {total}; it is {shown(found)}. "
                f"Pass the cumulative lengths with a leading 0."
            )
        offsets.append(found.astype(np.int64))
    of_queries, of_keys = offsets
    if of_queries.shape != of_keys.shape:
        raise ValueError(
            f"{function}: cu_seqlens_q and cu_seqlens_k must describe as many sequences; their shapes are "
            f"{of_queries.shape} and {of_keys.shape}. Repeat an offset for a sequence without queries or keys."
        )
    for s in range(len(of_queries) - 1):
        if of_queries[s] < of_queries[s + 1] and of_keys[s] < of_keys[s + 1]:
            yield slice(of_queries[s], of_queries[s + 1]), slice(of_keys[s], of_keys[s + 1])
