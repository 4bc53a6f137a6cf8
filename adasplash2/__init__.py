"""Exact alpha-entmax attention and row-wise maps: histogram kernels in Triton, and torch, held to an exact oracle."""

from .api import AttentionAux, entmax_attention
from .choice import implementation
from .losses import entmax_loss
from .maps import entmax, entmax15, sparsemax
from .varlen import entmax_attention_varlen
from .weights import attention_weights

__version__ = "0.1.0"
__all__ = [
    "AttentionAux",
    "__version__",
    "attention_weights",
    "entmax",
    "entmax15",
    "entmax_attention",
    "entmax_attention_varlen",
    "entmax_loss",
    "implementation",
    "sparsemax",
]
