"""What is the output of attention with alpha-entmax in place of softmax, and what are its scores?"""

from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entmax_ref.arguments import Floats, as_flag
from entmax_ref.attention.problem import Problem, accept
from entmax_ref.rows.jacobian import probs_of
from entmax_ref.rows.threshold import solve_rows


@dataclass(frozen=True)
class AttentionAux:
    """What the forward pass knows about each row besides its output.

    Attributes
    ----------
    tau : ndarray of float64, shape (batch, heads, n_queries)
        Threshold of each row, in the unit of ``z = (alpha - 1) * scores``; ``+inf`` where no key is visible,
        NaN where a visible score is NaN or ``+inf``. For packed sequences the shape is (heads, total_queries).
    support_size : ndarray of int64, the shape of ``tau``
        Number of keys with a positive probability; 0 where tau is not finite.
    """

    tau: Floats
    support_size: NDArray[np.int64]


@overload
def attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    alpha: float | ArrayLike = ...,
    is_causal: bool = ...,
    scale: float | None = ...,
    enable_gqa: bool = ...,
    mask: ArrayLike | None = ...,
    bias: ArrayLike | None = ...,
    window: tuple[int | None, int | None] | None = ...,
    return_aux: Literal[False] = ...,
) -> Floats: ...


@overload
def attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    alpha: float | ArrayLike = ...,
    is_causal: bool = ...,
    scale: float | None = ...,
    enable_gqa: bool = ...,
    mask: ArrayLike | None = ...,
    bias: ArrayLike | None = ...,
    window: tuple[int | None, int | None] | None = ...,
    return_aux: Literal[True],
) -> tuple[Floats, AttentionAux]: ...


def attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    alpha: float | ArrayLike = 1.5,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    mask: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    window: tuple[int | None, int | None] | None = None,
    return_aux: bool = False,
) -> Floats | tuple[Floats, AttentionAux]:
    """Return ``entmax(scale * query @ key.T, alpha) @ value`` for each head.

    Parameters
    ----------
    query : array_like of real numbers, shape (batch, heads, n_queries, head_dim)
        Converted to float64 and never modified, like all operands.
    key : array_like of real numbers, shape (batch, kv_heads, n_keys, head_dim)
        ``kv_heads`` is ``heads`` unless ``enable_gqa`` is set. ``n_keys`` may be 0.
    value : array_like of real numbers, shape (batch, kv_heads, n_keys, value_dim)
        ``value_dim`` may differ from ``head_dim``.
    alpha : float or array_like of real numbers, shape (heads,), default 1.5
        Order of the transform, above 1: one for all heads, or one for each head of ``query``.
    is_causal : bool, default False
        Query i sees key j iff ``j <= i + n_keys - n_queries``: the last query sees every key (bottom-right
        alignment, which differs from ``torch.nn.functional.scaled_dot_product_attention`` where the lengths
        do).
    scale : float, optional
        Multiplier of the products; ``head_dim ** -0.5`` by default.
    enable_gqa : bool, default False
        Allow ``heads`` to be a multiple of ``kv_heads``; query head h uses key head ``h // (heads //
        kv_heads)``.
    mask : array_like of bool, optional
        Broadcasts to (batch, heads, n_queries, n_keys); True where the key is visible. A key is seen if
        ``mask``, ``bias``, ``is_causal`` and ``window`` all let it be seen.
    bias : array_like of real numbers, optional
        Broadcasts to (batch, heads, n_queries, n_keys) and is added to the scaled products (an additive mask); the
        key is not visible where it is ``-inf`` or masked.
    window : pair of int or None, optional
        ``(left, right)``: query i sees key j iff ``d - left <= j <= d + right`` with ``d = i + n_keys - n_queries``,
        the diagonal of ``is_causal``. None in place of a length is no limit on that side.
    return_aux : bool, default False
        Also return tau and the size of each row's support.

    Returns
    -------
    out : ndarray of float64, shape (batch, heads, n_queries, value_dim)
        0 for a row that sees no key, NaN for a row that sees a score of NaN or ``+inf``.
    aux : AttentionAux
        Only if ``return_aux`` is set.

    Raises
    ------
    TypeError
        If an operand is not real and numeric, ``mask`` not boolean, ``bias`` not numeric, or an option not of
        its kind.
    ValueError
        If the shapes do not fit together, or ``alpha`` or ``scale`` is out of range.

    See Also
    --------
    attention_vjp : the gradients.
    attention_varlen : the same for packed sequences.
    attention_scores : the scores, dense.

    Notes
    -----
    Queries are taken in chunks of about half a million scores, so the memory does not grow with ``n_queries *
    n_keys`` (though one query of every head is always held whole). The order of summation is fixed.

    A key that a query does not see (by an option or a score of ``-inf``) loses its score before
    anything else is computed, so a NaN or inf in that key reaches neither the output nor a gradient of the
    query. ``value`` is multiplied as it is: 0 times a NaN of ``value`` is NaN, as in any matrix product, and
    reaches every query of its head.

    The scores carry the error of the product, at most ``(head_dim + 1) * 2**-53 * scale * sum(abs(q * k))`` to first
    order, and one rounding more if there is a ``bias``; tau moves by at most ``alpha - 1`` times the largest of those
    in the row, besides its own bound.

    Lemmas: threshold_shift, threshold_subset

    References
    ----------
    .. [1] Gonçalo M. Correia, V. Niculae and A. F. T. Martins, "Adaptively Sparse Transformers", EMNLP 2019.
    .. [2] Nuno Gonçalves, M. V. Treviso and A. F. T. Martins, "AdaSplash: Adaptive Sparse Flash Attention",
       ICML 2025.
    .. [3] Nuno M. T. Gonçalves et al., "AdaSplash-2: Faster Differentiable Sparse Attention", ICML 2026.
       The kernels that this oracle judges follow its method.

    Examples
    --------
    >>> import numpy as np
    >>> query = np.array([[[[1.0], [0.0]]]])
    >>> key = np.array([[[[8.0], [1.0]]]])
    >>> value = np.array([[[[10.0], [20.0]]]])
    >>> attention(query, key, value)[0, 0]
    array([[10.],
           [15.]])
    >>> attention(query, key, value, is_causal=True, return_aux=True)[1].support_size
    array([[[1, 2]]])
    >>> attention(query, key, value, window=(0, None))[0, 0]
    array([[10.],
           [20.]])
    """
    problem = accept(
        "attention",
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
    wants_aux = as_flag("attention", "return_aux", return_aux)
    out, aux = forward(problem)
    return (out, aux) if wants_aux else out


def forward(problem: Problem) -> tuple[Floats, AttentionAux]:
    """Return the output, (batch, heads, n_queries, value_dim), and what is known of each row."""
    grouped = problem.q.shape[:4]
    out = np.empty((*grouped, problem.v.shape[4]))
    tau = np.empty(grouped)
    support_size = np.empty(grouped, dtype=np.int64)
    for queries in problem.chunks():
        scores = problem.scores(queries)
        alpha = problem.orders(scores)
        rows = solve_rows(scores, alpha, None)
        with np.errstate(invalid="ignore", over="ignore"):
            out[..., queries, :] = probs_of(rows, alpha) @ problem.v
        tau[..., queries] = rows.tau
        support_size[..., queries] = np.count_nonzero(rows.gap > 0.0, axis=-1)
    shape = problem.rows_shape
    return out.reshape(*shape, out.shape[-1]), AttentionAux(tau.reshape(shape), support_size.reshape(shape))


def attention_scores(
    query: ArrayLike,
    key: ArrayLike,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    mask: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    window: tuple[int | None, int | None] | None = None,
) -> Floats:
    """Return the scores ``scale * query @ key.T`` of every head, dense, with -inf where a key is not visible.

    Parameters
    ----------
    query, key, is_causal, scale, enable_gqa, mask, bias, window
        As given to `attention`.

    Returns
    -------
    scores : ndarray of float64, shape (batch, heads, n_queries, n_keys)
        The argument of `entmax` that `attention` implies.

    Raises
    ------
    TypeError, ValueError
        As `attention` does.

    Notes
    -----
    It holds the whole score matrix, so it is meant for tests and small inputs.

    Examples
    --------
    >>> attention_scores([[[[1.0], [2.0]]]], [[[[3.0], [4.0]]]], is_causal=True)[0, 0]
    array([[  3., -inf],
           [  6.,   8.]])
    """
    problem = accept(
        "attention_scores",
        query,
        key,
        None,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=enable_gqa,
        mask=mask,
        bias=bias,
        window=window,
    )
    batch, heads, n_queries = problem.rows_shape
    return problem.scores(slice(0, n_queries)).reshape(batch, heads, n_queries, problem.k.shape[3])
