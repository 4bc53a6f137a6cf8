"""Which arguments are accepted, and what is said about those that are not.

Every message names the function, the argument, the rule, the value found and the way out.
"""

import math
import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]


def as_real(function: str, name: str, array: ArrayLike) -> Floats:
    """Return ``array`` as float64; raise TypeError unless its dtype is a real floating or integer one."""
    try:
        found = np.asarray(array)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists; tensors that NumPy cannot read
        raise TypeError(
            f"{function}: {name} must be a rectangular array of real numbers; NumPy says: {error}. Pad "
            "ragged rows to one length and hide the padding with a mask; detach and raise tensors to "
            "float32."
        ) from error
    if found.dtype.kind not in "fiu":
        way_out = {
            "c": "Pass its real part, or the modulus, as you mean it.",
            "b": "A mask goes into where= or mask=; for numbers, convert with astype(float).",
        }.get(found.dtype.kind, "Convert it first, for example with numpy.asarray(..., dtype=float).")
        raise TypeError(f"{function}: {name} must be real and numeric; its dtype is {found.dtype}. {way_out}")
    with np.errstate(over="ignore"):  # a longdouble beyond float64 becomes inf
        return found.astype(np.float64, copy=False)


def as_alpha(function: str, alpha: Any) -> float:
    """Return ``alpha`` as a float; raise unless it is one finite real number above 1."""
    if isinstance(alpha, np.ndarray) and alpha.ndim == 0:
        alpha = alpha[()]
    if isinstance(alpha, (bool, np.bool_)) or not isinstance(alpha, (int, float, np.integer, np.floating)):
        raise TypeError(
            f"{function}: alpha must be one real number above 1; it is {alpha!r} of type "
            f"{type(alpha).__name__}. Pass a float, for example alpha=1.5, and call once per value of alpha."
        )
    try:
        value = float(alpha)
    except OverflowError:
        value = math.inf
    if value == 1.0:
        raise ValueError(
            f"{function}: alpha must be above 1; it is {alpha!r}, and alpha=1 is softmax, which has no "
            "threshold. Use a softmax for it, or an alpha above 1 such as 1.5."
        )
    if not 1.0 < value < math.inf:
        raise ValueError(
            f"{function}: alpha must be finite and above 1; it is {alpha!r}. "
            f"Use 1.5 (entmax), 2 (sparsemax) or another finite value above 1."
        )
    return value


def as_axis(function: str, name: str, axis: Any, shape: tuple[int, ...]) -> int:
    """Return ``axis`` counted from the front; raise unless it names a non-empty axis of ``shape``."""
    try:
        value = operator.index(axis)
    except TypeError as error:
        raise TypeError(
            f"{function}: axis must be one integer; it is {axis!r}. Move or flatten the axes first to use several."
        ) from error
    if not -len(shape) <= value < len(shape):
        way_out = f"Use a value from {-len(shape)} to {len(shape) - 1}." if shape else "Give it an axis: array[None]."
        raise ValueError(f"{function}: axis must name an axis of {name}, of shape {shape}; it is {value}. {way_out}")
    if shape[value] == 0:
        raise ValueError(
            f"{function}: {name} must hold at least one key along axis {value}; its shape is {shape}. "
            f"For a row without a visible key pass one key and hide it (score -inf, or False in the mask)."
        )
    return value % len(shape)


def as_mask(function: str, name: str, mask: ArrayLike | None, shape: tuple[int, ...]) -> Booleans | None:
    """Return ``mask`` as a view of ``shape``, or None; raise unless it is boolean and broadcasts."""
    if mask is None:
        return None
    found = np.asarray(mask)
    if found.dtype != np.bool_:
        raise TypeError(
            f"{function}: {name} must be boolean, True where the key is visible; its dtype is {found.dtype}. "
            f"Convert with astype(bool), or add an additive mask to the scores yourself."
        )
    try:
        return np.broadcast_to(found, shape)
    except ValueError as error:
        raise ValueError(
            f"{function}: {name} must broadcast to shape {shape}; its shape is {found.shape}. "
            f"Insert axes of length 1 (mask[..., None, :]) so that its axes line up from the right."
        ) from error


def as_same_shape(function: str, name: str, array: ArrayLike, rule: str, shape: tuple[int, ...]) -> Floats:
    """Return ``array`` as float64; raise unless its shape is ``shape``, which ``rule`` describes in words."""
    found = as_real(function, name, array)
    if found.shape != shape:
        raise ValueError(
            f"{function}: {name} must have {rule}, {shape}; its shape is {found.shape}. "
            f"Broadcast or transpose it to that shape first."
        )
    return found


def as_operands(
    function: str, enable_gqa: bool, query: ArrayLike, key: ArrayLike, value: ArrayLike | None
) -> tuple[Floats, Floats, Floats | None]:
    """Return the operands of attention as float64; raise unless their shapes fit together."""
    operands = {"query": as_real(function, "query", query), "key": as_real(function, "key", key)}
    if value is not None:
        operands["value"] = as_real(function, "value", value)
    for name, array in operands.items():
        if array.ndim != 4:
            raise ValueError(
                f"{function}: {name} must have the four axes (batch, heads, length, head_dim); "
                f"its shape is {array.shape}. Insert axes of length 1 for those that are missing."
            )
    q, k, v = operands["query"], operands["key"], operands.get("value")
    if q.shape[3] == 0 or q.shape[3] != k.shape[3]:
        raise ValueError(
            f"{function}: query and key must share a head_dim of at least 1; their shapes are {q.shape} and "
            f"{k.shape}. Pad the shorter one with zeros and pass the scale that you mean."
        )
    for name, array in operands.items():
        if array.shape[0] != q.shape[0]:
            raise ValueError(
                f"{function}: {name} must have the batch of query, {q.shape[0]}; its shape is {array.shape}. "
                f"Repeat the smaller operand along axis 0: nothing broadcasts here."
            )
    if k.shape[2] == 0:
        raise ValueError(
            f"{function}: key must hold at least one key along axis 2; its shape is {k.shape}. "
            f"For queries that see no key pass one key and mask=False, and their output is 0."
        )
    heads, kv_heads = q.shape[1], k.shape[1]
    if not enable_gqa and heads != kv_heads:
        raise ValueError(
            f"{function}: query and key must have the same number of heads; they have {heads} and "
            f"{kv_heads}. Pass enable_gqa=True if each key head serves a group of query heads."
        )
    if enable_gqa and (kv_heads == 0 or heads % kv_heads):
        raise ValueError(
            f"{function}: with enable_gqa=True the heads of query must be a multiple of those of key; they "
            f"are {heads} and {kv_heads}. Repeat or drop heads so that each key head serves a whole group."
        )
    if v is not None and v.shape[1:3] != k.shape[1:3]:
        raise ValueError(
            f"{function}: value must have the heads and the length of key, {k.shape[1:3]}; its shape is "
            f"{v.shape}. Only its head_dim may differ: check the order (batch, heads, length, head_dim)."
        )
    return q, k, v


def as_scale(function: str, scale: Any, head_dim: int) -> float:
    """Return ``scale`` as a float, ``head_dim ** -0.5`` for None; raise unless it is finite and real."""
    if scale is None:
        return float(head_dim**-0.5)
    if isinstance(scale, np.ndarray) and scale.ndim == 0:
        scale = scale[()]
    if isinstance(scale, (bool, np.bool_)) or not isinstance(scale, (int, float, np.integer, np.floating)):
        raise TypeError(
            f"{function}: scale must be one real number or None; it is {scale!r} of type "
            f"{type(scale).__name__}. Pass None for head_dim ** -0.5, or multiply query by an array of "
            "scales and pass scale=1."
        )
    if not math.isfinite(scale):
        raise ValueError(
            f"{function}: scale must be finite; it is {scale!r}. Pass None for head_dim ** -0.5 = {head_dim**-0.5!r}."
        )
    return float(scale)


def as_flag(function: str, name: str, flag: Any) -> bool:
    """Return ``flag`` as a bool; raise TypeError for anything else, so that no stray array is a True."""
    if not isinstance(flag, (bool, np.bool_)):
        raise TypeError(
            f"{function}: {name} must be True or False; it is of type {type(flag).__name__}. "
            f"Pass {name}=True or {name}=False; an array of visible keys goes into mask=."
        )
    return bool(flag)
