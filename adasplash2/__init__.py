"""Exact alpha-entmax attention: histogram kernels in Triton, forward and backward, held to an exact oracle."""

from .api import AttentionAux, entmax_attention

__version__ = "0.1.0"
__all__ = ["AttentionAux", "__version__", "entmax_attention"]
