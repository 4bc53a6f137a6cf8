"""What are the gradients of attention for query, key, value, alpha and bias?"""

from typing import Literal, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike

from entmax_ref.alpha_gradient import alpha_grad_of
from entmax_ref.arguments import Floats, as_flag, as_same_shape, as_scores
from entmax_ref.attention.problem import Problem, accept, has_axes
from entmax_ref.rows.jacobian import probs_of, vjp_of
from entmax_ref.rows.threshold import SolvedRows, solve_rows


class Gradients(NamedTuple):
    """Gradients for the operands in their shapes, and for alpha by head and the bias if they were asked for."""

    d_query: Floats
    d_key: Floats
    d_value: Floats
    d_alpha: Floats | None
    d_bias: Floats | None


@overload
def attention_vjp(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    d_out: ArrayLike,
    *,
    alpha: float | ArrayLike = ...,
    is_causal: bool = ...,
    scale: float | None = ...,
    enable_gqa: bool = ...,
    mask: ArrayLike | None = ...,
    bias: ArrayLike | None = ...,
    window: tuple[int | None, int | None] | None = ...,
    return_d_alpha: Literal[False] = ...,
    return_d_bias: Literal[False] = ...,
) -> tuple[Floats, Floats, Floats]: ...


@overload
def attention_vjp(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    d_out: ArrayLike,
    *,
    alpha: float | ArrayLike = ...,
    is_causal: bool = ...,
    scale: float | None = ...,
    enable_gqa: bool = ...,
    mask: ArrayLike | None = ...,
    bias: ArrayLike | None = ...,
    window: tuple[int | None, int | None] | None = ...,
    return_d_alpha: bool = ...,
    return_d_bias: bool = ...,
) -> tuple[Floats, ...]: ...


def attention_vjp(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    d_out: ArrayLike,
    *,
    alpha: float | ArrayLike = 1.5,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    mask: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    window: tuple[int | None, int | None] | None = None,
    return_d_alpha: bool = False,
    return_d_bias: bool = False,
) -> tuple[Floats, ...]:
    """Return the gradients of `attention` for query, key and value, given that for its output.

    Parameters
    ----------
    query, key, value : array_like of real numbers
        As given to `attention`.
    d_out : array_like of real numbers, shape (batch, heads, n_queries, value_dim)
        Gradient of a scalar with respect to the output.
    alpha, is_causal, scale, enable_gqa, mask, bias, window
        As given to `attention`.
    return_d_alpha : bool, default False
        Also return the gradient for ``alpha``.
    return_d_bias : bool, default False
        Also return the gradient for ``bias``, which must then be given.

    Returns
    -------
    d_query, d_key, d_value : ndarray of float64, the shapes of ``query``, ``key`` and ``value``
        A row that sees no key contributes nothing to any of them. A row with a visible score of NaN or
        ``+inf`` has the gradient NaN, and so do the keys and values that it sees; no other entry is touched.

    d_alpha : ndarray of float64, the shape of ``alpha``, () or (heads,)
        Only with ``return_d_alpha``. NaN for an alpha that a row with a visible score of NaN or ``+inf`` uses.
    d_bias : ndarray of float64, the shape of ``bias``
        Only with ``return_d_bias``, and last. 0 where ``bias`` hides the key.

    Raises
    ------
    TypeError, ValueError
        As `attention` does, and if ``d_out`` is not real and numeric or has another shape than the output, or
        ``return_d_bias`` is set without a ``bias``.

    Notes
    -----
    With s the sensitivity of a row (`entmax_vjp`), ``d_scores = s * (d_out @ value.T - delta)``, where delta
    is ``centre . d_out`` and centre the mean of ``value`` weighted by s. The rows are solved again rather
    than saved. Heads that share a key head add their gradients. A non-finite query or key enters the last
    products as 0: where it was visible its row is NaN already, and where it was not it must not leak.

    The gradient for alpha takes the scores as fixed: it is ``d_probs . (d probs / d alpha)`` summed over rows, with the
    derivative of `entmax_alpha_grad`, through tau included. It stays accurate as alpha approaches 1.

    Lemmas: jacobian_form, jacobian_rows_zero, delta_is_centre, query_gradient, key_gradient, value_gradient,
    alpha_derivative

    References
    ----------
    .. [1] Ben Peters, V. Niculae and A. F. T. Martins, "Sparse Sequence-to-Sequence Models", ACL 2019.
    .. [2] Nuno Gonçalves, M. V. Treviso and A. F. T. Martins, "AdaSplash: Adaptive Sparse Flash Attention",
       ICML 2025.
    .. [3] Gonçalo M. Correia, V. Niculae and A. F. T. Martins, "Adaptively Sparse Transformers",
       EMNLP 2019. The gradient
       for alpha, in another form.

    Examples
    --------
    >>> import numpy as np
    >>> query = np.array([[[[1.0], [0.0]]]])
    >>> key = np.array([[[[8.0], [1.0]]]])
    >>> value = np.array([[[[10.0], [20.0]]]])
    >>> d_query, d_key, d_value = attention_vjp(query, key, value, np.ones((1, 1, 2, 1)))
    >>> d_value[0, 0, :, 0]
    array([1.5, 0.5])
    """
    problem = accept(
        "attention_vjp",
        query,
        key,
        value,
        alpha=alpha,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=enable_gqa,
        mask=mask,
        bias=bias,
        window=window,
    )
    wants_d_alpha = as_flag("attention_vjp", "return_d_alpha", return_d_alpha)
    wants_d_bias = as_flag("attention_vjp", "return_d_bias", return_d_bias)
    if wants_d_bias and bias is None:
        raise ValueError("attention_vjp: return_d_bias needs a bias; it is None. Pass that of the forward, or zeros.")
    shape = (*problem.rows_shape, problem.v.shape[4])
    rule = "the shape of the output, (batch, heads, n_queries, value_dim)"
    d_o = as_same_shape("attention_vjp", "d_out", d_out, rule, shape)
    bias_shape = None if bias is None or not wants_d_bias else as_scores("attention_vjp", "bias", bias).shape
    gradients = backward(problem, d_o, wants_d_alpha, bias_shape)
    found: tuple[Floats, ...] = gradients[:3]
    if gradients.d_alpha is not None:
        found = (*found, gradients.d_alpha if has_axes(alpha) else np.array(gradients.d_alpha.sum()))
    return found if gradients.d_bias is None else (*found, gradients.d_bias)


def backward(
    problem: Problem, d_out: Floats, wants_d_alpha: bool, bias_shape: tuple[int, ...] | None = None
) -> Gradients:
    """Return the gradients, that of the bias summed to ``bias_shape`` unless it is None."""
    batch, heads, n_queries = problem.rows_shape
    n_keys = problem.k.shape[3]
    d_o = d_out.reshape(*problem.q.shape[:4], d_out.shape[3])
    finite_q = np.where(np.isfinite(problem.q), problem.q, 0.0)
    finite_k = np.where(np.isfinite(problem.k), problem.k, 0.0)
    d_q, d_k, d_v = np.empty_like(problem.q), np.zeros_like(problem.k), np.zeros_like(problem.v)
    d_alpha = np.zeros(problem.q.shape[1:3]) if wants_d_alpha else None
    d_bias = None if bias_shape is None else np.zeros((1,) * (4 - len(bias_shape)) + bias_shape)
    for queries in problem.chunks():
        scores = problem.scores(queries)
        alpha = problem.orders(scores)
        rows = solve_rows(scores, alpha, None)
        d_chunk = d_o[..., queries, :]
        with np.errstate(invalid="ignore", over="ignore"):
            d_probs = d_chunk @ np.swapaxes(problem.v, -1, -2)
            d_scores = vjp_of(rows, alpha, d_probs)
            d_products = problem.scale * d_scores
            d_q[..., queries, :] = d_products @ finite_k
            d_k += np.sum(np.swapaxes(d_products, -1, -2) @ finite_q[..., queries, :], axis=2, keepdims=True)
            d_v += np.sum(np.swapaxes(probs_of(rows, alpha), -1, -2) @ d_chunk, axis=2, keepdims=True)
            if d_alpha is not None:
                d_alpha += d_alpha_of(rows, alpha, d_probs).sum(axis=(0, 3))
        if d_bias is not None:
            part = d_scores.reshape(batch, heads, queries.stop - queries.start, n_keys)
            along = tuple(axis for axis in range(4) if d_bias.shape[axis] == 1)
            place = slice(None) if 2 in along else queries
            d_bias[:, :, place] += part.sum(axis=along, keepdims=True)
    d_query = d_q.reshape(batch, heads, n_queries, d_q.shape[4])
    by_shape = None if d_bias is None or bias_shape is None else d_bias.reshape(bias_shape)
    by_head = None if d_alpha is None else d_alpha.reshape(heads)
    return Gradients(d_query, d_k[:, :, 0], d_v[:, :, 0], by_head, by_shape)


def d_alpha_of(rows: SolvedRows, alpha: float | Floats, d_probs: Floats) -> Floats:
    """Return the gradient for alpha of each solved row, given that for its probabilities."""
    supported = rows.gap > 0.0
    shown = np.where(supported, d_probs, 0.0)
    # d probs / d alpha sums to 0 along a row: an offset of d_probs must cost no digits
    centred = np.where(supported, shown - np.sum(rows.probs * shown, axis=-1, keepdims=True), 0.0)
    moved = np.where(supported, alpha_grad_of(rows, alpha), 0.0)
    return np.where(rows.undefined, np.nan, np.sum(centred * moved, axis=-1))
