"""What does a user call in the place of softmax?  entmax of the rows of a tensor along any dimension."""

from __future__ import annotations

import torch

from .choice import Implementation
from .operands import raise_autocast
from .reference.rows import reference_rows
from .row_arguments import as_dim, as_impl, as_order, check_input


def entmax(
    input: torch.Tensor,
    alpha: float | torch.Tensor = 1.5,
    dim: int = -1,
    *,
    impl: Implementation | None = None,
) -> torch.Tensor:
    r"""Return the alpha-entmax probabilities of the rows of a tensor: exact zeros, chosen by the data.

    Takes the place of `torch.softmax`, to which it tends as alpha tends to 1.  With ``z = (alpha - 1) * input`` a row
    is ``max(z - tau, 0) ** (1 / (alpha - 1))``, where tau makes it sum to 1.

    Parameters
    ----------
    input : Tensor, shape (..., n, ...)
        float32, bfloat16, float16 or float64, any strides.  -inf hides a key.  Under `torch.autocast` a 16 bit input is
        raised to float32, as autocast raises that of softmax on a GPU.
    alpha : float or Tensor, default 1.5
        Order of the map, above 1.  A tensor broadcasts to the shape of ``input`` with size 1 in ``dim``, for example
        ``alpha[:, None, None]`` for one alpha per head of an input of shape (batch, heads, n_queries, n_keys); it may
        need a gradient.
    dim : int, default -1
        The dimension of the keys of a row.
    impl : {"triton", "reference"}, optional
        ``None`` takes the kernels for GPU tensors of 32 and 16 bits, which have alpha up to 2, and the reference for
        others, which has any.  ``"triton"`` with CPU tensors needs ``TRITON_INTERPRET=1`` in the environment before
        this package is imported.

    Returns
    -------
    probs : Tensor, dtype and shape of ``input``
        Nonnegative, with sum 1 along ``dim``.  A row without a visible key is 0, and so are its gradients.  A row that
        holds NaN or +inf is NaN on its visible keys; no other row is touched.

    Raises
    ------
    TypeError
        ``input`` that is no dense floating tensor, ``alpha`` that is not real, ``dim`` that is no integer.
    ValueError
        ``input`` without a dimension, ``dim`` out of range, ``alpha`` that is not finite and above 1, or of a shape or
        on a device that does not fit, an implementation that cannot serve the call.  The kernels do not have the host
        wait for what a tensor holds: rows whose alpha is not in (1, 2] are NaN.
    RuntimeError
        A derivative that the kernels do not have: in forward mode, or of a gradient.  The reference path has them.

    See Also
    --------
    sparsemax, entmax15 : alpha 2 and 1.5.
    entmax_ref.entmax : the oracle.

    Notes
    -----
    The reference path finds the threshold exactly, in float64, on the largest keys of a row, of which enough are
    sorted.  The result has the error of `entmax_ref.entmax` and one rounding to its dtype.  Gradients of ``input`` and
    ``alpha`` can be differentiated again, any number of times; forward mode and the transforms of `torch.func` work.
    Rows with the same alpha are solved together, so a tensor of a few different values costs little more than a float;
    with many values, rows without a closed form are.

    The kernels work in float32.  A row of up to 32768 keys (16384 for an alpha other than 1.5 and 2) is loaded once and
    stored once; a longer one is read once for its largest scores, whose threshold is a lower bound, and once for each
    step from there, one or two in the mean.
    Steps end when the sum of the probabilities is within 2 ** -18 of 1 (2 ** -17 in 16 bits), and one more follows.
    There is no iteration count to choose, and no digit is lost as alpha tends to 1.  The backward takes the
    probabilities as they were rounded to their dtype, so in float16 a key below 6e-8 has no gradient.  The same inputs
    give the same bits.

    A compiled graph has no break on either path.

    With p the probabilities, ``s = p ** (2 - alpha)`` and :math:`J = \operatorname{diag}(s) - s s^T / \sum s`, the
    probabilities move along scores d as ``J d``, and with alpha as ``J w``, where :math:`w = -(1 - g + g \log g) /
    (\alpha - 1)^2` and g is ``p ** (alpha - 1)``; w is evaluated so that it keeps its digits as alpha tends to 1.
    Where a key lies exactly at tau these are the derivatives on the side on which it stays outside.

    References
    ----------
    .. [1] Ben Peters, V. Niculae and A. F. T. Martins, "Sparse Sequence-to-Sequence Models", ACL 2019.
    .. [2] Gonçalo M. Correia, V. Niculae and A. F. T. Martins, "Adaptively Sparse Transformers", EMNLP 2019.  The
       gradient of alpha, in another form.

    Examples
    --------
    >>> import torch
    >>> from adasplash2 import entmax
    >>> entmax(torch.tensor([2.0, 1.5, 0.1, -1.0]))
    tensor([0.6740, 0.3260, 0.0000, 0.0000])
    >>> entmax(torch.tensor([[0.0, 0.5], [0.0, 0.5]]), alpha=torch.tensor([[1.5], [2.0]]))
    tensor([[0.3260, 0.6740],
            [0.2500, 0.7500]])
    """
    return _mapped("entmax", input, alpha, dim, impl)


def sparsemax(input: torch.Tensor, dim: int = -1, *, impl: Implementation | None = None) -> torch.Tensor:
    """Return the Euclidean projection of each row onto the simplex, `entmax` with alpha 2.

    Parameters
    ----------
    input, dim, impl
        As given to `entmax`.

    Returns
    -------
    probs : Tensor, dtype and shape of ``input``
        As `entmax` returns them.

    Raises
    ------
    TypeError, ValueError
        As `entmax` does.

    References
    ----------
    .. [1] André F. T. Martins and R. F. Astudillo, "From Softmax to Sparsemax: A Sparse Model of Attention and
       Multi-Label Classification", ICML 2016.

    Examples
    --------
    >>> import torch
    >>> from adasplash2 import sparsemax
    >>> sparsemax(torch.tensor([0.5, 0.25, -1.0]))
    tensor([0.6250, 0.3750, 0.0000])
    """
    return _mapped("sparsemax", input, 2.0, dim, impl)


def entmax15(input: torch.Tensor, dim: int = -1, *, impl: Implementation | None = None) -> torch.Tensor:
    """Return `entmax` with alpha 1.5.

    Parameters
    ----------
    input, dim, impl
        As given to `entmax`.

    Returns
    -------
    probs : Tensor, dtype and shape of ``input``
        As `entmax` returns them.

    Raises
    ------
    TypeError, ValueError
        As `entmax` does.

    References
    ----------
    .. [1] Ben Peters, V. Niculae and A. F. T. Martins, "Sparse Sequence-to-Sequence Models", ACL 2019.

    Examples
    --------
    >>> import torch
    >>> from adasplash2 import entmax15
    >>> entmax15(torch.tensor([1.0, 1.0, 1.0, 1.0]))
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    return _mapped("entmax15", input, 1.5, dim, impl)


def _mapped(
    caller: str, scores: torch.Tensor, alpha: float | torch.Tensor, dim: int, impl: Implementation | None
) -> torch.Tensor:
    """Return the probabilities for the arguments of a map."""
    check_input(caller, scores)
    place = as_dim(caller, dim, scores.dim())
    order = as_order(caller, alpha, scores, place)
    chosen = as_impl(caller, impl, scores, order)
    scores = raise_autocast(scores)
    if place == scores.dim() - 1:  # a view more is a step more for autograd
        return probs_of(scores, order, place, chosen).to(scores.dtype)
    return probs_of(scores.movedim(place, -1), order, place, chosen).to(scores.dtype).movedim(-1, place)


def probs_of(scores: torch.Tensor, order: float | torch.Tensor, dim: int, impl: Implementation) -> torch.Tensor:
    """Return the probabilities of rows on the last axis, which was ``dim``: float64, by the kernels of their dtype."""
    if impl == "reference":
        return reference_rows(scores.double(), orders_of(order, scores, dim))
    # Imported here: the reference path works where triton is not installed.
    from . import row_ops
    from .transforms import refuse_tangents

    lead, values, alpha = scores.shape[:-1], None, 0.0
    rows = scores if lead else scores[None]
    if isinstance(order, torch.Tensor):
        values = order.float().movedim(dim, -1).expand(*lead, 1).reshape(lead.numel(), 1)
        refuse_tangents(rows, values)
    else:
        alpha = order
        refuse_tangents(rows)
    probs: torch.Tensor = row_ops.differentiable_rows(rows, values, alpha)[0]
    return probs if lead else probs[0]


def orders_of(order: float | torch.Tensor, scores: torch.Tensor, dim: int) -> torch.Tensor:
    """Return alpha as float64, with as many dimensions as the scores and that of the keys, of size 1, at the end."""
    if isinstance(order, torch.Tensor):
        return order.double().movedim(dim, -1)
    return torch.full((1,) * scores.dim(), order, dtype=torch.float64, device=scores.device)
