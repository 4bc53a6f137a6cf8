"""Exact alpha-entmax in NumPy float64: the oracle that the kernels are held to.

Rows are solved by sorting the keys that may be supported, so there is no iteration count and no tolerance to choose.
Importing this package imports NumPy and nothing else.

Examples
--------
>>> import entmax_ref
>>> entmax_ref.entmax([2.0, 1.0, -1.0], alpha=2.0)
array([1., 0., 0.])
>>> entmax_ref.entmax([0.5, 0.25, -1.0], alpha=2.0)
array([0.625, 0.375, 0.   ])
"""

from entmax_ref.alpha_gradient import entmax_alpha_grad
from entmax_ref.attention import (
    AttentionAux,
    attention,
    attention_scores,
    attention_varlen,
    attention_varlen_vjp,
    attention_vjp,
)
from entmax_ref.derivatives import entmax_jacobian, entmax_jvp, entmax_second, entmax_vjp
from entmax_ref.losses import entmax15_loss, entmax_loss, entmax_loss_grad, sparsemax_loss
from entmax_ref.rows.threshold import threshold
from entmax_ref.transform import entmax, entmax15, softmax, sparsemax, support

__all__ = [
    "AttentionAux",
    "attention",
    "attention_scores",
    "attention_varlen",
    "attention_varlen_vjp",
    "attention_vjp",
    "entmax",
    "entmax15",
    "entmax15_loss",
    "entmax_alpha_grad",
    "entmax_jacobian",
    "entmax_jvp",
    "entmax_loss",
    "entmax_loss_grad",
    "entmax_second",
    "entmax_vjp",
    "softmax",
    "sparsemax",
    "sparsemax_loss",
    "support",
    "threshold",
]
