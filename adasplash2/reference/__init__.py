"""What does entmax attention compute, in plain torch?  Any alpha above 1, any device, in float64 inside.

``attention`` (what is called, and its derivatives) -> ``passes`` (one walk over the chunks for each of them) ->
``chunks`` (which queries at a time, and their scores) -> ``support`` (the few keys of a row that matter) ->
``threshold`` (the root on those keys); ``jacobian`` holds the products with the Jacobian on the supported keys.
``alphas`` serves an alpha that is a tensor: ``rows``, which has its derivative, between products of the factors that
``finite`` makes.
"""

from .alphas import attention_by_alphas
from .attention import ReferenceResult, reference_attention, reference_output
from .chunks import BLOCK

__all__ = [
    "BLOCK",
    "ReferenceResult",
    "attention_by_alphas",
    "reference_attention",
    "reference_output",
]
