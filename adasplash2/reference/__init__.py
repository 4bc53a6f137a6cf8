"""What does entmax attention compute, in plain torch?  Any alpha above 1, any device, in float64 inside.

``attention`` (what is called, and its derivatives) -> ``passes`` (one walk over the chunks for each of them) ->
``chunks`` (which queries at a time, and their scores) -> ``support`` (the few keys of a row that matter) ->
``threshold`` (the root on those keys); ``jacobian`` holds the products with the Jacobian on the supported keys.
"""

from .attention import ReferenceResult, reference_attention, reference_output
from .chunks import BLOCK

__all__ = ["BLOCK", "ReferenceResult", "reference_attention", "reference_output"]
