"""Which modules attend by entmax: one that holds the options of a call, and one with torch's projections around it?"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch.nn.functional import linear, pad

from .alpha_module import Alpha, held_alpha, hold_alpha, shown_alpha
from .api import entmax_attention
from .choice import Implementation
from .maps import entmax
from .visible import Visibility, added, combined_mask, ranges_of

__all__ = ["EntmaxAttention", "MultiheadEntmaxAttention"]


class EntmaxAttention(torch.nn.Module):
    """`adasplash2.entmax_attention` with its options held by a module, to be named in a config or replaced by a hook.

    It has no parameters and no state but those of alpha.

    Parameters
    ----------
    alpha : float, Tensor or Module, default 1.5
        As in `adasplash2.entmax_attention`, like all that follow; a tensor is a buffer, or if it is one a parameter, of
        this module.  A module, such as ``AlphaParameter((heads,))``, is called without arguments.
    is_causal : bool, default False
        Hide later keys; the last query sees every key.
    scale : float, optional
        Of the products; ``head_dim**-0.5`` by default.
    enable_gqa : bool, default False
        Whether several query heads share a key head.
    window_size : tuple of int or None, optional
        Keys to the left and to the right of the diagonal that a query sees.
    impl : {"triton", "reference"}, optional
        Which implementation attends; by default the kernels on a GPU, the reference elsewhere.

    Examples
    --------
    >>> attend = EntmaxAttention(is_causal=True, enable_gqa=True)
    >>> query, key, value = torch.randn(2, 4, 10, 8), torch.randn(2, 2, 10, 8), torch.randn(2, 2, 10, 8)
    >>> attend(query, key, value).shape
    torch.Size([2, 4, 10, 8])
    """

    def __init__(
        self,
        alpha: Alpha = 1.5,
        *,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
        window_size: tuple[int | None, int | None] | None = None,
        impl: Implementation | None = None,
    ) -> None:
        super().__init__()
        hold_alpha(self, alpha)
        self.is_causal, self.scale, self.enable_gqa = is_causal, scale, enable_gqa
        self.window_size, self.impl = window_size, impl

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        *,
        seqlens_q: torch.Tensor | None = None,
        seqlens_k: torch.Tensor | None = None,
        padding_side: Literal["right", "left"] = "right",
        key_ranges: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend with the options of the module.

        Parameters
        ----------
        query, key, value : Tensor, shape (..., heads, length, head_dim)
            As in `adasplash2.entmax_attention`, like all that follow.
        attn_mask : Tensor, optional
            Boolean, True where a key is visible, or added to the scores.
        seqlens_q, seqlens_k : Tensor, optional
            Lengths of the items of a padded batch.
        padding_side : {"right", "left"}
            Where their padding lies.
        key_ranges : Tensor, optional
            First key and end of the keys that each query sees.

        Returns
        -------
        Tensor, shape (..., heads, n_queries, value_dim)
            Of the dtype of query.
        """
        return entmax_attention(
            query, key, value, attn_mask, 0.0, self.is_causal, self.scale, self.enable_gqa,
            window_size=self.window_size, seqlens_q=seqlens_q, seqlens_k=seqlens_k, padding_side=padding_side,
            key_ranges=key_ranges, alpha=held_alpha(self.alpha), impl=self.impl,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """Return what differs from the defaults."""
        defaults = {"is_causal": False, "scale": None, "enable_gqa": False, "window_size": None, "impl": None}
        changed = [f"{name}={getattr(self, name)!r}" for name, default in defaults.items()
                   if getattr(self, name) != default]  # fmt: skip
        return ", ".join([*shown_alpha(self), *changed])


class MultiheadEntmaxAttention(torch.nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention` whose weights are the alpha-entmax of the scores.

    Its parameters, their names and their first values are those of torch's module, so that each loads the state dict of
    the other, and it stands where that one stood: ``layer.self_attn = MultiheadEntmaxAttention(...)`` in a
    `torch.nn.TransformerEncoderLayer` or ``TransformerDecoderLayer``.  The fused softmax that those layers take while
    they are evaluated is never taken instead of it.

    Parameters
    ----------
    embed_dim : int
        Width of query and of the result; a multiple of num_heads.
    num_heads : int
        Number of heads.
    dropout : float, default 0.0
        Anything but 0 is an error: no implementation applies dropout to the weights.
    bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device, dtype
        As in `torch.nn.MultiheadAttention`.
    alpha : float, Tensor or Module, default 1.5
        As in `EntmaxAttention`; ``AlphaParameter((num_heads,))`` learns one for each head.  It then is in the state
        dict as well.
    impl : {"triton", "reference"}, optional
        As in `adasplash2.entmax_attention`.  The kernels take masks that leave each query one range of keys, the same
        for all heads; "reference" serves any.

    Raises
    ------
    ValueError
        If dropout is not 0.

    Examples
    --------
    >>> attend = MultiheadEntmaxAttention(16, 4, batch_first=True)
    >>> tokens = torch.randn(2, 10, 16)
    >>> out, weights = attend(tokens, tokens, tokens, is_causal=True, need_weights=True)
    >>> out.shape, weights.shape
    (torch.Size([2, 10, 16]), torch.Size([2, 10, 10]))
    >>> bool((weights == 0).any())
    True
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        alpha: Alpha = 1.5,
        impl: Implementation | None = None,
    ) -> None:
        if dropout:
            raise ValueError(f"dropout is {dropout}; it must be 0: no implementation applies dropout to the weights")
        super().__init__(
            embed_dim, num_heads, 0.0, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device, dtype
        )
        hold_alpha(self, alpha)
        self.impl = impl
        # The layers of torch ask for it before they attend by a fused softmax, past forward.
        self._qkv_same_embed_dim = False

    def _reset_parameters(self) -> None:
        """Draw the parameters as torch does, at any time: which ones there are shows in in_proj_weight."""
        mine, self._qkv_same_embed_dim = getattr(self, "_qkv_same_embed_dim", False), self.in_proj_weight is not None
        super()._reset_parameters()
        self._qkv_same_embed_dim = mine

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = False,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend, with the arguments of `torch.nn.MultiheadAttention` in their order.

        Parameters
        ----------
        query : Tensor, shape (n_queries, batch, embed_dim)
            (batch, n_queries, embed_dim) with batch_first; without a batch, (n_queries, embed_dim).
        key : Tensor, shape (n_keys, batch, kdim)
            The same way.
        value : Tensor, shape (n_keys, batch, vdim)
            The same way.
        key_padding_mask : Tensor, shape (batch, n_keys), optional
            Boolean: **True hides** a key, as in torch's module and unlike in `adasplash2.entmax_attention`.  Floating:
            added to the scores.  Without a batch, (n_keys,).
        need_weights : bool, default False
            Whether to return the weights.  They are a dense matrix, computed a second time, so that the default is not
            torch's True.
        attn_mask : Tensor, shape (n_queries, n_keys) or (batch * num_heads, n_queries, n_keys), optional
            The same kinds: Boolean, where True hides, or floating.
        average_attn_weights : bool, default True
            Whether weights are averaged over the heads.
        is_causal : bool, default False
            Hide later keys; the last query sees every key.  It needs no attn_mask beside it.  With one, and as many
            queries as keys, the mask must be the causal one and is not read, as in torch; with other lengths the mask
            alone counts.

        Returns
        -------
        out : Tensor, like query
            A query without a visible key has the bias of ``out_proj``: torch's is NaN.
        weights : Tensor or None
            (batch, n_queries, n_keys), or (batch, num_heads, n_queries, n_keys) if not averaged; without a batch,
            without the first dimension.  Keys of add_bias_kv and add_zero_attn come last.

        Raises
        ------
        ValueError
            If shapes do not fit, or an argument has a value that `adasplash2.entmax_attention` does not take.
        TypeError
            If a tensor is nested, or a mask is neither Boolean nor floating.
        """
        for name, x in (("query", query), ("key", key), ("value", value)):
            if x.is_nested:
                raise TypeError(f"{name} is a nested tensor; pass a padded one and key_padding_mask")
            if x.dim() != query.dim() or x.dim() not in (2, 3):
                raise ValueError(
                    f"{name} has shape {tuple(x.shape)}; query, key and value must all have three dimensions, or all "
                    f"two without a batch"
                )
        shared = query is key and key is value
        batched = query.dim() == 3
        batch_dim = 1 if batched and not self.batch_first else 0
        query, key, value = ((x if batched else x[None]).transpose(0, batch_dim) for x in (query, key, value))
        n_queries, n_keys = query.shape[1], key.shape[1]
        self._check(query, key, value)
        # A causal mask of as many queries as keys need not be read.
        causal = is_causal and (attn_mask is None or n_queries == n_keys)
        sizes = (query.shape[0], n_queries, n_keys)
        mask = self._mask(key_padding_mask, attn_mask, sizes, batched=batched, read=not causal)
        heads = self._heads(query, key, value, shared)
        first = heads[1].shape[2] - n_keys
        if mask is not None and first:
            mask = pad(mask, (first, 0), value=mask.dtype == torch.bool)
        # A window, because is_causal may not stand beside a mask; both count from the last query and key.
        visible: dict[str, Any] = {"window_size": (None, 0)} if causal and mask is not None else {"is_causal": causal}
        order = held_alpha(self.alpha)
        attended = entmax_attention(*heads, mask, alpha=order, impl=self.impl, **visible)
        out = self.out_proj(attended.transpose(1, 2).flatten(2))
        out = out.transpose(0, batch_dim) if batched else out[0]
        if not need_weights:
            return out, None
        weights = self._weights(heads[0], heads[1], mask, causal, order)
        weights = weights.roll(-first, -1) if first else weights
        weights = weights.mean(1) if average_attn_weights else weights
        return out, weights if batched else weights[0]

    def _check(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Raise for widths, batches and lengths that do not fit, under the names that a caller knows."""
        for name, x, width in (("query", query, self.embed_dim), ("key", key, self.kdim), ("value", value, self.vdim)):
            if x.shape[-1] != width:
                raise ValueError(f"{name} has width {x.shape[-1]}; this module was made for {width}")
            if x.shape[0] != query.shape[0]:
                raise ValueError(f"{name} has a batch of {x.shape[0]}, query one of {query.shape[0]}")
        if value.shape[1] != key.shape[1]:
            raise ValueError(f"value has length {value.shape[1]}, key {key.shape[1]}; they must be the same")

    def _mask(
        self,
        key_padding_mask: torch.Tensor | None,
        attn_mask: torch.Tensor | None,
        sizes: tuple[int, int, int],
        *,
        batched: bool,
        read: bool,
    ) -> torch.Tensor | None:
        """Return both masks as one for `entmax_attention`, True where a key is visible; attn_mask only if ``read``."""
        batch, n_queries, n_keys = sizes
        masks = []
        if key_padding_mask is not None:
            _check_mask("key_padding_mask", key_padding_mask, ((batch, n_keys) if batched else (n_keys,),))
            masks.append(key_padding_mask.view(batch, 1, 1, n_keys))
        if attn_mask is not None:
            per_head = (batch * self.num_heads, n_queries, n_keys)
            _check_mask("attn_mask", attn_mask, ((n_queries, n_keys), per_head))
            if read:
                masks.append(attn_mask if attn_mask.dim() == 2 else attn_mask.unflatten(0, (batch, self.num_heads)))
        masks = [~mask if mask.dtype == torch.bool else mask for mask in masks]
        if len(masks) < 2:
            return masks[0] if masks else None
        one, other = masks
        dtype = torch.promote_types(one.dtype, other.dtype)
        return one & other if dtype == torch.bool else added(one, dtype) + added(other, dtype)

    def _heads(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, shared: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the projections, each (batch, num_heads, length, head_dim), the keys that are added to all before."""
        width, biases = self.embed_dim, self.in_proj_bias
        if self.in_proj_weight is not None and shared:
            parts = linear(query, self.in_proj_weight, biases).split(width, -1)
        else:
            if self.in_proj_weight is None:
                weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
            else:
                weights = self.in_proj_weight.split(width)
            three = (None, None, None) if biases is None else biases.split(width)
            parts = tuple(map(linear, (query, key, value), weights, three))
        query, key, value = parts
        before: list[tuple[torch.Tensor, torch.Tensor]] = []
        if self.bias_k is not None and self.bias_v is not None:
            before.append((self.bias_k.expand(key.shape[0], 1, width), self.bias_v.expand(key.shape[0], 1, width)))
        if self.add_zero_attn:
            before.append((key.new_zeros(key.shape[0], 1, width),) * 2)
        if before:
            key = torch.cat([*(k.to(key.dtype) for k, _ in before), key], 1)
            value = torch.cat([*(v.to(value.dtype) for _, v in before), value], 1)
        query, key, value = (
            x.view(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2) for x in (query, key, value)
        )
        return query, key, value

    def _weights(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        mask: torch.Tensor | None,
        causal: bool,
        order: float | torch.Tensor,
    ) -> torch.Tensor:
        """Return the weights whole, (batch, num_heads, n_queries, n_keys)."""
        if causal:
            window = Visibility(window_size=(None, 0))
            ranges = ranges_of(type(self).__name__, window, query, key.shape[2], query.shape[:2], is_causal=False)
            assert ranges is not None
            mask = combined_mask(ranges, mask, key.shape[2])
        scores = query @ key.mT * self.head_dim**-0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
        return entmax(scores, order[..., None, None] if isinstance(order, torch.Tensor) else order)

    def extra_repr(self) -> str:
        """Return the options that the parameters do not show."""
        options = [f"num_heads={self.num_heads}", f"batch_first={self.batch_first}"]
        return ", ".join([*options, *shown_alpha(self), f"impl={self.impl!r}"])


def _check_mask(name: str, mask: torch.Tensor, shapes: tuple[tuple[int, ...], ...]) -> None:
    """Raise for a mask of another kind or shape than torch's module takes."""
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise TypeError(f"{name} has dtype {mask.dtype}; it must be bool, True where a key is hidden, or floating")
    if tuple(mask.shape) not in shapes:
        wanted = " or ".join(str(shape) for shape in shapes)
        raise ValueError(f"{name} has shape {tuple(mask.shape)}; it must be {wanted}")
