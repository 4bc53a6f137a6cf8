"""Are our maps and our attention held to the suite?  Their adapters, as in ``--target adasplash2.conformance:rows``."""

from __future__ import annotations

from typing import Any, Literal

from entmax_ref.conformance.adapters.attention_tensors import attention_target
from entmax_ref.conformance.adapters.tensors import alpha_gradient, loss_functions, row_target
from entmax_ref.conformance.target import Attended, AttentionTarget, Call, RowTarget

from . import __version__, entmax_attention, entmax_attention_varlen, reference
from .launch_table import choose_launch
from .losses import entmax_loss
from .maps import entmax
from .orders import MAX_PASSES

# Of what the reference path takes; the kernels go up to 2.
_ALPHAS = (1.001, 1.01, 1.1, 1.25, 4 / 3, 1.5, 1.75, 2.0, 2.5, 4.0)


def rows() -> RowTarget:
    """Return `adasplash2.entmax` on the reference path, on the CPU."""

    def reference(scores: Any, alpha: Any) -> Any:
        return entmax(scores, alpha, impl="reference")

    return row_target(
        reference,
        name="adasplash2.entmax, reference",
        version=__version__,
        alphas=_ALPHAS,
        dtypes=("float64", "float32", "bfloat16", "float16"),
        twice=True,
        d_alpha=alpha_gradient(reference),
        **loss_functions(
            lambda scores, keys, alpha: entmax_loss(scores, keys, alpha, reduction="none", impl="reference")
        ),
        call="adasplash2.entmax(scores, alpha, impl='reference')",
        imports="import adasplash2",
    )


def row_kernels() -> RowTarget:
    """Return `adasplash2.entmax` on the kernels: compiled on a GPU, else in the Triton interpreter if that is set."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"

    def kernels(scores: Any, alpha: Any) -> Any:
        return entmax(scores, alpha, impl="triton")

    return row_target(
        kernels,
        device=device,
        name="adasplash2.entmax, kernels",
        version=__version__,
        alphas=tuple(alpha for alpha in _ALPHAS if alpha <= 2.0),
        dtypes=("float32", "bfloat16", "float16"),
        d_alpha=alpha_gradient(kernels, device),
        call="adasplash2.entmax(scores, alpha, impl='triton')",
        imports="import adasplash2",
    )


def attention() -> AttentionTarget:
    """Return `adasplash2.entmax_attention` on the reference path, on the CPU."""
    return attention_target(
        _attend("reference"),
        packed=_packed("reference"),
        window=True,
        key_ranges=True,
        name="adasplash2.entmax_attention, reference",
        version=__version__,
        alphas=(1.01, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5),
        dtypes=("float64", "float32", "bfloat16", "float16"),
        head_dims=(3, 8, 16, 64),
        most_passes=0,
        exposes=("tau", "block_mask", "passes"),
    )


def attention_kernels() -> AttentionTarget:
    """Return `adasplash2.entmax_attention` on the kernels: compiled on a GPU, else in the interpreter."""
    import torch

    return attention_target(
        _attend("triton"),
        packed=_packed("triton"),
        window=True,
        key_ranges=True,
        device="cuda" if torch.cuda.is_available() else "cpu",
        name="adasplash2.entmax_attention, kernels",
        version=__version__,
        alphas=(1.5, 2.0),
        dtypes=("float32", "bfloat16", "float16"),
        head_dims=(8, 16, 24, 64, 128, 256),
        most_passes=MAX_PASSES,
        exposes=("tau", "block_mask", "passes"),
    )


def _packed(impl: Literal["triton", "reference"]) -> Any:
    def attend(query: Any, key: Any, value: Any, offsets: Any, call: Call) -> Any:
        return entmax_attention_varlen(
            query, key, value, *offsets, is_causal=call.is_causal, scale=call.scale, alpha=call.alpha, impl=impl
        )

    return attend


def _attend(impl: Literal["triton", "reference"]) -> Any:
    import torch

    def attend(query: Any, key: Any, value: Any, call: Call) -> Attended:
        out, aux = entmax_attention(
            query,
            key,
            value,
            is_causal=call.is_causal,
            scale=call.scale,
            enable_gqa=True,
            window_size=call.window,
            key_ranges=None if call.key_ranges is None else torch.from_numpy(call.key_ranges).to(query.device),
            alpha=call.alpha,
            impl=impl,
            return_aux=True,
        )
        block = (reference.BLOCK, reference.BLOCK) if impl == "reference" else _block_of_kernels(query)
        return Attended(out, tau=aux.tau, block_mask=aux.block_mask, block=block, passes=aux.passes)

    return attend


def _block_of_kernels(query: Any) -> tuple[int, int]:
    """Return queries and keys of a cell of the block mask of the kernels."""
    from .launch import BACKEND  # needs triton

    launch = choose_launch(BACKEND, query.dtype, query.shape[-1])
    return launch.block_m, launch.block_n
