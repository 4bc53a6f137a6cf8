"""How do the models of Hugging Face Transformers attend by entmax?  ``attn_implementation="entmax"``, after a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch

from ..alpha_module import held_alpha
from ..api import entmax_attention
from ..mask_ranges import demand, of_rows
from ..visible import added, packed_ranges

__all__ = ["register"]

# What changes the scores or the weights, and has no place in entmax_attention.
_REFUSED = {
    "softcap": "Set attn_logit_softcapping=None in the config, if the model is to be trained without",
    "s_aux": "Use a model without attention sinks: entmax gives exact zeros without them",
    "head_mask": "Remove heads from the model instead",
    "layer_head_mask": "Remove heads from the model instead",
}

_NEEDED = "adasplash2.integrations.transformers.register needs transformers 5.4 or later"
_WAY_OUT = "Install it, for example as the extra 'transformers' of adasplash2."


def register(
    name: str = "entmax",
    *,
    alpha: float | torch.Tensor = 1.5,
    impl: Literal["triton", "reference"] | None = None,
) -> None:
    """Make ``attn_implementation=name`` stand for entmax attention in the models of Hugging Face Transformers.

    Every model whose attention goes through ``AttentionInterface`` can then be loaded, or made, or switched with
    ``model.set_attn_implementation(name)``.  Calling it again with the same name replaces alpha and impl.

    Parameters
    ----------
    name : str, default "entmax"
        Several names may be registered, say one for each alpha.
    alpha : float or Tensor, default 1.5
        Of the models that do not name their own: ``entmax_alpha`` of an attention module, or else of its config, goes
        before it.  The config saves it with the model; that of a module may be a parameter, or a module such as
        `adasplash2.nn.AlphaParameter` for one alpha that is learnt for each head.
    impl : {"triton", "reference"}, optional
        As in `adasplash2.entmax_attention`.  "reference" serves what the kernels do not: masks that are more than one
        range of keys for each query, and position biases (T5, from transformers 5.16).

    Raises
    ------
    ImportError
        If transformers is not installed, or is older than 5.4.

    Notes
    -----
    The mask that a model asks for (causal, from both sides, sliding window, chunks, padding on either side, packed
    sequences by their ``position_ids``, caches) becomes one range of keys for each query, made once for all layers, and
    is never held whole.  Where queries see no more than a causal mask hides, there is none at all.  A mask that is more
    (a hole in it, an additive bias) goes to ``attn_mask``.  A query without a visible key, such as one that is padding,
    has the output 0.  While a graph is traced, values cannot be read: a mask that is not one range is then an error
    when the graph runs.

    Attention modules raise ValueError for what would change the answer and cannot be served: dropout of the weights,
    ``softcap``, attention sinks, masks per head, ``output_attentions``.  Continuous batching is not served;
    Transformers refuses it, or takes another implementation and says so.

    Examples
    --------
    >>> from adasplash2.integrations.transformers import register
    >>> from transformers import AutoModelForCausalLM, LlamaConfig
    >>> register()
    >>> config = LlamaConfig(
    ...     vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    ... )
    >>> config.entmax_alpha = 1.5
    >>> model = AutoModelForCausalLM.from_config(config, attn_implementation="entmax")
    >>> tokens = torch.randint(64, (1, 10))
    >>> model(tokens).logits.shape
    torch.Size([1, 10, 64])
    """
    try:
        from transformers import AttentionInterface, AttentionMaskInterface, __version__
    except ImportError as error:
        raise ImportError(f"{_NEEDED}, which cannot be imported. {_WAY_OUT}") from error
    if tuple(int(part) for part in __version__.split(".")[:2]) < (5, 4):
        raise ImportError(f"{_NEEDED}; this is {__version__}. {_WAY_OUT}")
    AttentionInterface.register(name, _attention(alpha, impl))
    AttentionMaskInterface.register(name, _visible_keys)


def _attention(alpha: float | torch.Tensor, impl: Literal["triton", "reference"] | None) -> Callable[..., Any]:
    """Return the function that an attention module calls, with the defaults of a registration."""

    def attend(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool | None = None,
        position_bias: torch.Tensor | None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        """Return the output, (batch, n_queries, heads, value_dim), and no weights."""
        _refuse(module, attention_mask, dropout, options)
        n_queries = query.shape[2]
        causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
        visible: dict[str, Any] = {}
        if attention_mask is None:
            if options.get("cu_seq_lens_q") is not None:
                visible["key_ranges"] = _packed(options, n_queries, is_causal=causal)
            elif causal and n_queries > 1:
                # Rather than is_causal, next to which there may be no position_bias.
                visible |= {"is_causal": True} if position_bias is None else {"window_size": (None, 0)}
        elif attention_mask.dtype == torch.int32 and attention_mask.shape[-1] == 2:
            visible["key_ranges"] = attention_mask[:, 0]
        else:
            visible["attn_mask"] = attention_mask
        if position_bias is not None:
            mask = visible.get("attn_mask")
            visible["attn_mask"] = position_bias if mask is None else position_bias + added(mask, position_bias.dtype)
        config = getattr(module, "config", None)
        order = held_alpha(getattr(module, "entmax_alpha", getattr(config, "entmax_alpha", alpha)))
        out = entmax_attention(query, key, value, scale=scaling, enable_gqa=True, alpha=order, impl=impl, **visible)
        return out.transpose(1, 2).contiguous(), None

    return attend


def _visible_keys(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | torch.Tensor = 0,
    kv_offset: int = 0,
    *,
    mask_function: Callable[..., torch.Tensor],
    attention_mask: torch.Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **options: Any,
) -> torch.Tensor | None:
    """Return what queries see: None where that follows from ``is_causal``, ranges or, where those fail, a bool mask.

    Ranges are int32 (batch, 1, n_queries, 2): four dimensions, because models take any other number for a mask of
    padding that they have yet to make one of.  ``mask_function(batch, head, query, key)`` is true where a query sees a
    key, both counted from the offsets; ``attention_mask`` (batch, keys), in which more keys may be missing at the end
    than are hidden, is false at padding.
    """
    if attention_mask is not None:
        missing = max(0, kv_offset + kv_length - attention_mask.shape[1])
        attention_mask = torch.nn.functional.pad(attention_mask.bool(), (0, missing))
        attention_mask = attention_mask[:, kv_offset : kv_offset + kv_length]
        if not torch.compiler.is_compiling() and bool(attention_mask.all()):
            attention_mask = None
    if attention_mask is None and (local_size is None or kv_length < local_size):
        # The last query sees the last key, as is_causal has it; a static cache has an offset that is a tensor.
        ends_meet = isinstance(q_offset, int) and q_offset + q_length == kv_offset + kv_length
        if allow_is_bidirectional_skip or (allow_is_causal_skip and ends_meet):
            return None

    def rows(begin: int, end: int) -> torch.Tensor:
        """Return what some queries see, bool (batch, queries, keys)."""
        shape, offsets = (batch_size, end - begin, kv_length), (begin + q_offset, kv_offset)
        visible = _evaluated(mask_function, shape, offsets, one_by_one=use_vmap, device=device)
        return visible if attention_mask is None else visible & attention_mask[:, None]

    ranges, are_ranges = of_rows(rows, batch_size, q_length, kv_length)
    if not torch.compiler.is_compiling() and not bool(are_ranges):
        return rows(0, q_length)[:, None]
    demand(
        are_ranges,
        "entmax attention: the mask leaves some query keys with a gap between them, which a compiled graph does not "
        "take. Run the model without torch.compile.",
    )
    return ranges[:, None]


def _evaluated(
    mask_function: Callable[..., torch.Tensor],
    shape: tuple[int, int, int],
    offsets: tuple[int | torch.Tensor, int],
    *,
    one_by_one: bool,
    device: torch.device | str,
) -> torch.Tensor:
    """Return a mask function at every item, query and key, bool, of shape (batch, n_queries, n_keys).

    Functions of a user take single indices, ``one_by_one``; those of the library take any that broadcast.
    """
    (batch, n_queries, n_keys), (q_offset, kv_offset) = shape, offsets
    if one_by_one:
        from torch.nn.attention.flex_attention import create_mask

        def shifted(item: Any, head: Any, query: Any, key: Any) -> torch.Tensor:
            return mask_function(item, head, query + q_offset, key + kv_offset)

        return create_mask(shifted, batch, 1, n_queries, n_keys, device=str(device))[:, 0]
    items, queries, keys = (torch.arange(size, device=device) for size in shape)
    head = torch.zeros(1, 1, 1, 1, dtype=torch.int64, device=device)
    queries, keys = (queries + q_offset)[:, None], keys + kv_offset
    visible = mask_function(items[:, None, None, None], head, queries[None, None], keys[None, None, None])
    return visible.expand(batch, 1, n_queries, n_keys)[:, 0]


def _packed(options: dict[str, Any], n_queries: int, *, is_causal: bool) -> torch.Tensor:
    """Return the ranges of sequences that lie one behind the other, as FlashAttention is told of them."""
    of_queries = options["cu_seq_lens_q"].long()
    of_keys = options.get("cu_seq_lens_k")
    of_keys = of_queries if of_keys is None else of_keys.long()
    return packed_ranges(of_queries, of_keys, n_queries, (None, None), is_causal=is_causal)


def _refuse(module: torch.nn.Module, attention_mask: Any, dropout: float, options: dict[str, Any]) -> None:
    """Raise for what would change the answer and has no place in it."""
    caller = f"entmax attention in {type(module).__name__}"
    if dropout:
        raise ValueError(
            f"{caller}: the weights have dropout {dropout}, which no implementation applies. Set attention_dropout "
            f"(attention_probs_dropout_prob in some models) to 0 in the config."
        )
    for name, way_out in _REFUSED.items():
        if options.get(name) is not None:
            raise ValueError(f"{caller}: the model passes {name}, which entmax attention does not apply. {way_out}.")
    if options.get("output_attentions"):
        raise ValueError(
            f"{caller}: output_attentions asks for weights, which are never held whole. Omit it, or use "
            f"entmax_ref.attention for one layer."
        )
    if attention_mask is not None and not (isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 4):
        shape = f" of shape {tuple(attention_mask.shape)}" if isinstance(attention_mask, torch.Tensor) else ""
        raise ValueError(
            f"{caller}: attention_mask is a {type(attention_mask).__name__}{shape}; it must be None, what the "
            f"registered mask function made, or a tensor (batch, heads or 1, n_queries, n_keys). Pass the model a mask "
            f"of padding, (batch, keys)."
        )
