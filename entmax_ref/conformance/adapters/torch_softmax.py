"""Is torch's softmax the map at alpha 1?"""

from entmax_ref.conformance.adapters.tensors import missing_package, row_target, torch_module, version_of
from entmax_ref.conformance.target import Known, RowTarget


def rows() -> RowTarget:
    """Return ``torch.softmax`` as a target at alpha 1."""
    return row_target(
        lambda scores, alpha: torch_module().softmax(scores, -1),
        name="torch softmax",
        version=version_of("torch"),
        alphas=(1.0,),
        dtypes=("float64", "float32", "bfloat16", "float16"),
        twice=True,
        missing=missing_package("torch"),
        known=(
            Known("empty_row", "softmax of a row of -inf alone is NaN by definition: 0 / 0"),
            Known("empty_gradient", "softmax of a row of -inf alone is NaN by definition: 0 / 0"),
        ),
        call="torch.softmax(scores, -1)",
    )
