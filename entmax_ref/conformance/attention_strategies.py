"""Which operands of attention are drawn?  Heads whose rows are hard, as NumPy expressions that shrink to small ones."""

import dataclasses
from typing import Any

from hypothesis import strategies as st

from entmax_ref.conformance.case import Case
from entmax_ref.conformance.row_strategies import LENGTHS
from entmax_ref.conformance.target import AttentionTarget

_KINDS = ("gauss", "flat", "ties", "topics", "spike", "near", "local", "slope")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of one call."""

    batch: int
    heads: int
    kv_heads: int
    n_queries: int
    n_keys: int
    head_dim: int

    @property
    def of_query(self) -> str:
        """The shape of query, as an expression holds it."""
        return f"({self.batch}, {self.heads}, {self.n_queries}, {self.head_dim})"

    @property
    def of_key(self) -> str:
        """The shape of key and value."""
        return f"({self.batch}, {self.kv_heads}, {self.n_keys}, {self.head_dim})"


@st.composite
def sizes(draw: st.DrawFn, target: AttentionTarget, most: int, *, is_causal: bool, empty: bool = False) -> Sizes:
    """Return sizes that the target takes; with ``empty``, more queries than a causal mask has keys for."""
    least, longest = target.lengths
    pool = target.only_lengths or LENGTHS
    fitting = [n for n in pool if least <= n <= min(most, longest)] or [min(pool)]
    n_keys = draw(st.sampled_from(fitting))
    fewer = [n for n in fitting if (n > n_keys if empty else not is_causal or n <= n_keys)] or [n_keys]
    n_queries = n_keys if target.square else draw(st.sampled_from(fewer))
    if empty and n_queries == n_keys:
        n_queries = n_keys + 3
    kv_heads = draw(st.integers(1, 2))
    group = draw(st.sampled_from((1, 2, 3))) if target.grouped else 1
    return Sizes(
        draw(st.integers(1, 2)), kv_heads * group, kv_heads, n_queries, n_keys, draw(st.sampled_from(target.head_dims))
    )


@st.composite
def operands(draw: st.DrawFn, size: Sizes, kinds: tuple[str, ...] = _KINDS) -> dict[str, str]:
    """Return expressions for query, key and value."""
    seed, kind = draw(st.integers(0, 99)), draw(st.sampled_from(kinds))
    query = f"np.random.default_rng({seed}).normal(size={size.of_query})"
    key = f"np.random.default_rng({seed + 1}).normal(size={size.of_key})"
    value = f"np.random.default_rng({seed + 2}).normal(size={size.of_key})"
    if draw(st.integers(0, 3)) == 3:
        value += " + 4.0"  # so that delta is large where the gradient is not
    spread = draw(st.sampled_from((1.0, 0.25, 2.0, 4.0)))
    if kind == "gauss":
        return {"query": f"{query} * {spread}", "key": key, "value": value}
    if kind == "flat":
        return {"query": f"np.zeros({size.of_query})", "key": key, "value": value}
    if kind == "near":
        return {"query": f"{query} * 0.01", "key": key, "value": value}
    if kind == "ties":
        return {"query": f"np.rint({query} * 2.0) / 2.0", "key": f"np.rint({key} * 2.0) / 2.0", "value": value}
    if kind == "spike":
        at = draw(st.integers(0, size.n_keys - 1))
        peak = f"(1.0 + 7.0 * (np.arange({size.n_keys}) == {at}))[:, None]"
        return {"query": f"np.abs({query})", "key": f"np.abs({key}) * {peak}", "value": value}
    if kind == "local":  # scores fall with the distance from the end
        slope = f"(-0.5 * np.arange({size.n_keys})[::-1])[:, None] * (np.arange({size.head_dim}) == 0)"
        return {"query": f"np.abs({query}) + 1.0", "key": f"{key} * 0.5 + {slope}", "value": value}
    if kind == "slope":  # so slowly that the last key of the support is often the only one of its block
        slope = f"(np.arange({size.n_keys}) / 32.0)[:, None] * (np.arange({size.head_dim}) == 0)"
        steep = f"np.random.default_rng({seed}).uniform(0.5, 4.0, ({size.batch}, {size.heads}, 1, 1))"
        return {"query": f"np.zeros({size.of_query}) + {steep}", "key": f"{key} * 0.01 + {slope}", "value": value}
    # Tiles of 16 tokens share one of four directions, in queries and in keys.
    topic = "6.0 * (np.arange({n})[:, None] // 16 % 4 == np.arange({d}) % 4)"
    of_query, of_key = (topic.format(n=n, d=size.head_dim) for n in (size.n_queries, size.n_keys))
    return {"query": f"{query} + {of_query}", "key": f"{key} + {of_key}", "value": value}


def d_out_of(size: Sizes) -> st.SearchStrategy[str]:
    """Return expressions for the gradient of the output."""
    return st.integers(0, 99).map(lambda seed: f"np.random.default_rng({seed}).normal(size={size.of_query})")


@st.composite
def options_of(draw: st.DrawFn, target: AttentionTarget, *, is_causal: bool) -> dict[str, Any]:
    """Return how a call masks and scales."""
    options: dict[str, Any] = {"is_causal": is_causal}
    if target.scales and draw(st.booleans()):
        options["scale"] = draw(st.sampled_from((0.5, 0.125, 1.0)))
    return options


@st.composite
def attention_cases(
    draw: st.DrawFn,
    target: AttentionTarget,
    dtype: str,
    most: int,
    *,
    is_causal: bool | None = None,
    d_out: bool = False,
    empty: bool = False,
    kinds: tuple[str, ...] = _KINDS,
) -> Case:
    """Return a call of attention: ``query``, ``key``, ``value``, with ``d_out`` its gradient, and the options."""
    causal = draw(st.sampled_from(target.causal)) if is_causal is None else is_causal
    size = draw(sizes(target, most, is_causal=causal, empty=empty))
    texts = draw(operands(size, kinds))
    if d_out:
        texts["d_out"] = draw(d_out_of(size))
    options = draw(options_of(target, is_causal=causal))
    return Case(draw(st.sampled_from(target.alphas)), dtype, texts, options)
