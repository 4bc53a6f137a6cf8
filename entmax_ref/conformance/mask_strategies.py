"""Which windows, key ranges and packed sequences are drawn?  What users of masks have, and rows without a key."""

from hypothesis import strategies as st

from entmax_ref.conformance.attention_strategies import Sizes, d_out_of, operands, options_of, sizes
from entmax_ref.conformance.case import Case
from entmax_ref.conformance.row_strategies import LENGTHS
from entmax_ref.conformance.target import AttentionTarget

_KINDS = ("gauss", "flat", "ties", "topics", "near")  # those whose support reaches past a mask
_SIDES = (0, 1, 5, 16, 17, None)


@st.composite
def masked_cases(
    draw: st.DrawFn, target: AttentionTarget, dtype: str, most: int, *, masks: tuple[str, ...], d_out: bool = False
) -> Case:
    """Return a call with one of the masks, ``window`` or ``key_ranges``, as `attention_cases` returns others."""
    mask, causal = draw(st.sampled_from(masks)), draw(st.sampled_from(target.causal))
    # As many keys as queries, or more: then no diagonal begins before the first key.
    size = draw(sizes(target, most, is_causal=causal or not target.empty))
    texts, options = draw(operands(size, _KINDS)), draw(options_of(target, is_causal=causal))
    if mask == "window":
        right = draw(st.sampled_from((0, None) if causal else _SIDES))
        hides = not causal and right is not None  # else the left side must, beyond what a causal mask does
        options["window"] = (draw(st.sampled_from(_SIDES if hides else _SIDES[:-1])), right)
    else:
        texts["key_ranges"] = draw(key_ranges(size, is_causal=causal, empty=target.empty))
    if d_out:
        texts["d_out"] = draw(d_out_of(size))
    return Case(draw(st.sampled_from(target.alphas)), dtype, texts, options)


@st.composite
def key_ranges(draw: st.DrawFn, size: Sizes, *, is_causal: bool, empty: bool) -> str:
    """Return an expression of shape (batch, n_queries, 2); no row is without a key unless ``empty``."""
    n = size.n_keys
    # What leaves a row without a key under a causal mask: keys that begin late.
    late = () if is_causal and not empty else ("left", "any")
    kind = draw(st.sampled_from(("right", "documents", "prefix", *late)))
    lengths = [[draw(st.integers(0 if empty else 1, n))] for _ in range(size.batch)]
    diagonal = f"np.maximum(np.arange({size.n_queries}) + {n - size.n_queries}, 0)"
    first, end = "0", f"{n}"
    if kind == "right":
        end = f"np.array({lengths})"
    elif kind == "left":
        first = f"{n} - np.array({lengths})"
    elif kind == "documents":
        long = draw(st.sampled_from((1, 3, 16, 17, 40)))
        first, end = f"{diagonal} // {long} * {long}", f"np.minimum(({diagonal} // {long} + 1) * {long}, {n})"
    elif kind == "prefix":
        end = f"np.maximum({diagonal} + 1, {draw(st.integers(1, n))})"
    else:
        drawn = f"np.random.default_rng({draw(st.integers(0, 99))}).integers"
        first = f"{drawn}(0, {n}, ({size.batch}, {size.n_queries}))"
        end = f"{drawn}(0, {n + 1}, ({size.batch}, {size.n_queries}))"
        end = f"np.maximum({first}, {end})" if empty else f"np.maximum({first} + 1, {end})"
    return f"np.stack(np.broadcast_arrays({first}, {end}, np.zeros(({size.batch}, {size.n_queries})))[:2], -1)"


@st.composite
def packed_cases(draw: st.DrawFn, target: AttentionTarget, dtype: str, most: int, *, d_out: bool = False) -> Case:
    """Return sequences that lie one behind the other; their lengths are among the options."""
    causal = draw(st.sampled_from(target.causal))
    least, longest = target.lengths
    pool = [n for n in target.only_lengths or LENGTHS if least <= n <= min(most // 2, longest)] or [least]
    lengths = draw(st.lists(st.tuples(st.sampled_from(pool), st.sampled_from(pool)), min_size=1, max_size=4))
    if target.square:
        lengths = [(n, n) for n, _ in lengths]
    elif not target.empty:  # no more queries than keys, or a causal mask leaves the first ones none
        lengths = [(min(pair), max(pair)) for pair in lengths]
    if target.empty and not target.square and draw(st.booleans()):
        lengths.insert(draw(st.integers(0, len(lengths))), draw(st.sampled_from(((0, 3), (3, 0), (0, 0)))))
    kv_heads, group = draw(st.integers(1, 2)), draw(st.sampled_from((1, 2, 3))) if target.grouped else 1
    n_queries, n_keys = (sum(pair[side] for pair in lengths) for side in (0, 1))
    size = Sizes(1, kv_heads * group, kv_heads, n_queries, n_keys, draw(st.sampled_from(target.head_dims)))
    texts, options = draw(operands(size, _KINDS)), draw(options_of(target, is_causal=causal))
    if d_out:
        texts["d_out"] = draw(d_out_of(size))
    options["lengths"] = lengths
    return Case(draw(st.sampled_from(target.alphas)), dtype, texts, options)
