"""Which checks are there for attention, whom are they for, and on which examples?"""

from typing import Any

from hypothesis import strategies as st

from entmax_ref.conformance import attention_checks as judge
from entmax_ref.conformance import mask_checks as masks
from entmax_ref.conformance.attention_strategies import attention_cases
from entmax_ref.conformance.case import Case
from entmax_ref.conformance.check import Check, always, checks, unless
from entmax_ref.conformance.mask_strategies import masked_cases, packed_cases
from entmax_ref.conformance.row_strategies import LONG
from entmax_ref.conformance.target import AttentionTarget

_WINDOW, _RANGES = "a sliding window", "a range of keys for each query"
_no_gradient = unless("a gradient", "vjp")
_no_empty_row = unless("a row without a key", "empty")


def _exposed(name: str) -> Any:
    return lambda target: "" if name in target.exposes else f"{name} is not exposed"


def _causal(target: AttentionTarget) -> str:
    return "" if True in target.causal else "a causal mask is not claimed"


def _full(target: AttentionTarget) -> str:
    return "" if False in target.causal else "a call without a mask is not claimed"


def _empty(target: AttentionTarget) -> str:
    if target.square:
        return "as many queries as keys leave no row without a key"
    return _causal(target) or _no_empty_row(target)


def _of(**how: Any) -> Any:
    return lambda target, dtype, most: attention_cases(target, dtype, most, **how)


def _masked_gradient(what: str, claim: str) -> Any:
    return lambda target: unless(what, claim)(target) or _no_gradient(target)


def _under(mask: str, *, d_out: bool = False) -> Any:
    return lambda target, dtype, most: masked_cases(target, dtype, most, masks=(mask,), d_out=d_out)


@st.composite
def _seen_by(draw: st.DrawFn, target: AttentionTarget, dtype: str, most: int) -> Case:
    """Draw calls without a mask and, one in four, with one that is claimed."""
    claimed = tuple(mask for mask in ("window", "key_ranges") if getattr(target, mask))
    if claimed and draw(st.integers(0, 3)) == 3:
        return draw(masked_cases(target, dtype, most, masks=claimed))
    return draw(attention_cases(target, dtype, most))


@st.composite
def _of_edges(draw: st.DrawFn, target: AttentionTarget, dtype: str, most: int) -> Case:
    """Draw as `_seen_by`, and as often calls whose support ends just inside a block."""
    edges = attention_cases(target, dtype, most, kinds=("slope",))
    return draw(edges if draw(st.booleans()) else _seen_by(target, dtype, most))


def _packed(*, d_out: bool = False) -> Any:
    return lambda target, dtype, most: packed_cases(target, dtype, most, d_out=d_out)


@st.composite
def _offset(draw: st.DrawFn, target: AttentionTarget, dtype: str, most: int) -> Case:
    """Draw scores around a large negative or positive number, which one component of query and key makes."""
    case = draw(_of(kinds=("gauss",))(target, dtype, most))
    head_dim = case["query"].shape[-1]
    level = draw(st.sampled_from((-2000.0, 500.0, -10000.0, 4.0)))
    # 64 times the level over 64 is exact in every dtype; without a scale the products are divided by sqrt(head_dim).
    scale = case.options.get("scale") or head_dim**-0.5
    first = f"(np.arange({head_dim}) == 0)"
    texts = dict(case.texts)
    texts["query"] = f"np.where({first}, 64.0, {texts['query']})"
    texts["key"] = f"np.where({first}, {round(level / 64.0 / scale)}.0, {texts['key']})"
    return Case(case.alpha, dtype, texts, case.options)


@st.composite
def _long(draw: st.DrawFn, target: AttentionTarget, dtype: str, most: int) -> Case:
    """Draw few queries and many keys, flat or nearly so."""
    least, longest = target.lengths
    pool = [n for n in (target.only_lengths or (1024, *LONG)) if max(least, 1024) <= n <= min(most, longest)]
    pool = pool or [min(most, longest)]
    n, head_dim = draw(st.sampled_from(pool)), draw(st.sampled_from(target.head_dims))
    n_queries = n if target.square else 4
    spread = draw(st.sampled_from((0.0, 0.02, 0.2)))
    texts = {
        "query": f"np.random.default_rng(0).normal(size=(1, 1, {n_queries}, {head_dim})) * {spread}",
        "key": f"np.random.default_rng(1).normal(size=(1, 1, {n}, {head_dim}))",
        "value": f"np.ones((1, 1, {n}, {head_dim}))",
    }
    return Case(draw(st.sampled_from(target.alphas)), dtype, texts, {"is_causal": target.causal[0]})


def _make() -> tuple[Check, ...]:
    gradient = _of(d_out=True)
    rows = [
        ("attention_output", "normalised_output", always, _of(), judge.attention_output, 1.0),
        ("attention_mass", "threshold_unique", always, _of(), judge.attention_mass, 0.5),
        ("attention_offset", "threshold_shift", always, _offset, judge.attention_output, 0.5),
        ("attention_tau", "residual_bound", _exposed("tau"), _seen_by, judge.attention_tau, 1.0),
        ("causal_future", "contract", _causal, _of(is_causal=True), judge.causal_future, 0.5),
        ("grouped_heads", "contract", unless("a group of heads", "grouped"), _of(), judge.grouped_heads, 0.5),
        ("key_order", "contract", _full, _of(is_causal=False), judge.key_order, 0.3),
        ("block_mask_sound", "block_mask_superset", _exposed("block_mask"), _of_edges, judge.block_mask_sound, 2.0),
        ("block_mask_tight", "pruning_keeps_threshold", _exposed("block_mask"), _seen_by, judge.block_mask_tight, 0.5),
        ("passes", "refine_loop_certifies", _exposed("passes"), _seen_by, judge.passes, 0.5),
        ("attention_deterministic", "contract", always, _of(), judge.attention_deterministic, 0.2),
        ("batch_independence", "contract", always, _of(), judge.batch_independence, 0.3),
        (
            "attention_strides",
            "contract",
            unless("an array with other strides", "strides"),
            _of(),
            judge.attention_strides,
            0.2,
        ),
        ("attention_empty", "contract", _empty, _of(is_causal=True, empty=True), judge.attention_empty, 0.2),
        ("attention_nonfinite", "contract", unless("NaN", "nonfinite"), _of(), judge.attention_nonfinite, 0.2),
        ("window_output", "threshold_subset", unless(_WINDOW, "window"), _under("window"), masks.window_output, 0.5),
        ("ranges_output", "threshold_subset", unless(_RANGES, "key_ranges"), _under("key_ranges"),
         masks.ranges_output, 0.5),
        ("packed_output", "threshold_subset", unless("a call for packed sequences", "packed"), _packed(),
         masks.packed_output, 0.5),
    ]  # fmt: skip
    gradients = [
        (f"{name}_gradient", f"{name}_gradient", _no_gradient, gradient, judge.gradient_of(name), 0.7)
        for name in ("query", "key", "value")
    ]
    gradients += [
        ("window_gradient", "jacobian_form", _masked_gradient(_WINDOW, "window"), _under("window", d_out=True),
         masks.window_gradient, 0.3),
        ("ranges_gradient", "jacobian_form", _masked_gradient(_RANGES, "key_ranges"), _under("key_ranges", d_out=True),
         masks.ranges_gradient, 0.3),
        ("packed_gradient", "jacobian_form", unless("the gradient of packed sequences", "packed_vjp"),
         _packed(d_out=True), masks.packed_gradient, 0.3),
    ]  # fmt: skip
    flat = [("attention_long_mass", "refine_loop_certifies", always, _long, judge.attention_long_mass, 0.1)]
    return checks("attention", attention=rows, attention_gradient=gradients, long=flat)


ATTENTION_CHECKS = _make()
