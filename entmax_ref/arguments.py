"""Which arguments are accepted, and what is said about those that are not.

Every message names the function, the argument, the rule, the value found and the way out.
"""

import math
import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entmax_ref.reading import read, refuse_object, shown

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]


def as_numbers(function: str, name: str, array: ArrayLike) -> NDArray[Any]:
    """Return ``array`` as NumPy reads it; raise unless it is real and numeric and no entry is masked."""
    found, hidden = _read_real(function, name, array)
    refuse_masked(function, name, hidden)
    return found


def as_real(function: str, name: str, array: ArrayLike) -> Floats:
    """Return ``array`` as float64; raise unless it is real and numeric and no entry is masked."""
    return _as_float64(as_numbers(function, name, array))


def as_scores(function: str, name: str, array: ArrayLike) -> Floats:
    """Return ``array`` as float64, -inf where it is masked: that key is not visible; raise as `as_real` does."""
    found, hidden = _read_real(function, name, array)
    return _as_float64(found) if hidden is None else np.where(hidden, -np.inf, _as_float64(found))


def _as_float64(found: NDArray[Any]) -> Floats:
    with np.errstate(over="ignore"):  # a longdouble beyond float64 becomes inf
        return found.astype(np.float64, copy=False)


def _read_real(function: str, name: str, array: ArrayLike) -> tuple[NDArray[Any], Booleans | None]:
    """Return an array of integers or floats and its mask, None if nothing is masked."""
    found, hidden = read(function, name, array, "an array of real numbers")
    refuse_object(function, name, array, found)
    if found.dtype.kind not in "fiu":
        way_out = {
            "c": "Pass its real part, or the modulus, as you mean it.",
            "b": "A mask goes into where= or mask=; for numbers, convert with astype(float).",
        }.get(found.dtype.kind, "Convert it first, for example with numpy.asarray(..., dtype=float).")
        raise TypeError(f"{function}: {name} must be real and numeric; its dtype is {found.dtype}. {way_out}")
    return found, hidden


def refuse_masked(function: str, name: str, hidden: Booleans | None) -> None:
    """Raise ValueError for an array with masked entries, where they have no meaning."""
    if hidden is None:
        return
    first = tuple(map(int, np.argwhere(hidden)[0]))
    at = f", the first at {first[0] if len(first) == 1 else first}" if first else ""
    raise ValueError(
        f"{function}: {name} must have no masked entry; {np.count_nonzero(hidden)} of {hidden.size} are masked{at}. "
        f"Fill them with what you mean, with {name}.filled(...); to hide a key, mask its score, or use where= or "
        "mask=."
    )


def as_number(function: str, name: str, number: Any, rule: str, way_out: str) -> float:
    """Return one real number as a float, infinite if it is too large for one; raise TypeError for anything else.

    A 0-d array or tensor is the number that it holds.
    """
    found, hidden = read(function, name, number, rule)
    if found.ndim == 0 and isinstance(found.item(), int) and found.dtype == np.object_:  # beyond 64 bits
        return _as_float(found.item())
    if found.ndim or found.dtype.kind not in "fiu":
        raise TypeError(f"{function}: {name} must be {rule}; it is {_described(number, found)}. {way_out}")
    refuse_masked(function, name, hidden)
    return float(_as_float64(found))


def _as_float(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _described(given: Any, found: NDArray[Any]) -> str:
    if found.ndim:
        return f"of type {type(given).__name__}, and of shape {found.shape}"
    return f"{shown(given)} of type {type(given).__name__}"


def as_alpha(function: str, alpha: Any) -> float:
    """Return ``alpha`` as a float; raise unless it is one finite real number above 1."""
    value = as_number(
        function,
        "alpha",
        alpha,
        "one real number above 1",
        "Pass a float, for example alpha=1.5, and call once per value of alpha.",
    )
    if value == 1.0:
        raise ValueError(
            f"{function}: alpha must be above 1; it is {shown(alpha)}, and alpha=1 is softmax, which has no "
            "threshold. Use a softmax for it, or an alpha above 1 such as 1.5."
        )
    if not 1.0 < value < math.inf:
        raise ValueError(
            f"{function}: alpha must be finite and above 1; it is {shown(alpha)}{_beyond(alpha, value)}. "
            f"Use 1.5 (entmax), 2 (sparsemax) or another finite value above 1."
        )
    return value


def _beyond(given: Any, value: float) -> str:
    """Return a remark for a number that is finite until it becomes a float."""
    return ", beyond the largest float" if isinstance(given, int) and math.isinf(value) else ""


def as_orders(function: str, alpha: Any, rows_shape: tuple[int, ...], *, softmax: bool) -> float | Floats:
    """Return ``alpha`` as a float, or as an array of the shape of the rows if it differs between them.

    Raise unless it is real, finite and above 1 (or equal to 1 if ``softmax``), and broadcasts to ``rows_shape``.
    """
    rule = "at least 1" if softmax else "above 1"
    found, hidden = read(function, "alpha", alpha, f"one real number {rule}, or an array of them")
    if found.dtype == np.object_ and all(type(one) is int or isinstance(one, float) for one in found.flat):
        # Python integers beyond 64 bits
        found = np.array([_as_float(one) if type(one) is int else one for one in found.flat]).reshape(found.shape)
    if found.dtype.kind not in "fiu":
        described = _described(alpha, found) if found.ndim == 0 else f"an array of dtype {found.dtype}"
        raise TypeError(
            f"{function}: alpha must be one real number {rule}, or an array of them; it is {described}. Pass a float, "
            "for example alpha=1.5, or one float per row."
        )
    refuse_masked(function, "alpha", hidden)
    with np.errstate(over="ignore"):
        orders = found.astype(np.float64)
    bad = ~((orders >= 1.0 if softmax else orders > 1.0) & (orders < np.inf))
    if bad.any():
        value = float(orders[bad][0])
        text = shown(alpha) + _beyond(alpha, value) if found.ndim == 0 else repr(value)
        at = "" if found.ndim == 0 else f" at index {tuple(map(int, np.argwhere(bad)[0]))}"
        if value == 1.0:
            raise ValueError(
                f"{function}: alpha must be above 1; it is {text}{at}, and alpha=1 is softmax, which has no "
                "threshold: tau / (alpha - 1) tends to -inf there. Use an alpha above 1 such as 1.5, or, for the "
                "normaliser of softmax, the logarithm of the sum of exp(scores)."
            )
        raise ValueError(
            f"{function}: alpha must be finite and {rule}; it is {text}{at}. "
            f"Use 1.5 (entmax), 2 (sparsemax) or another finite value {rule}."
        )
    try:
        spread = np.broadcast_to(orders, rows_shape)
    except ValueError as error:
        raise ValueError(
            f"{function}: alpha must be one number or broadcast to one per row, shape {rows_shape} (that of scores "
            f"without axis); its shape is {orders.shape}. Insert axes of length 1 (alpha[:, None]) so that its axes "
            "line up from the right."
        ) from error
    if orders.size and (orders == orders.flat[0]).all():
        return float(orders.flat[0])
    return spread if spread.size else 1.5  # without a row there is no alpha to use


def as_axis(function: str, name: str, axis: Any, shape: tuple[int, ...]) -> int:
    """Return ``axis`` counted from the front; raise unless it names an axis of ``shape``, which may be empty."""
    try:
        if isinstance(axis, (bool, np.bool_)):
            raise TypeError("a bool names no axis")
        value = operator.index(axis)
    except (TypeError, ValueError) as error:  # a masked or a one-element array raises either
        raise TypeError(
            f"{function}: axis must be one integer; it is {shown(axis)}. Move or flatten the axes first to use several."
        ) from error
    if not -len(shape) <= value < len(shape):
        way_out = f"Use a value from {-len(shape)} to {len(shape) - 1}." if shape else "Give it an axis: array[None]."
        raise ValueError(
            f"{function}: axis must name an axis of {name}, of shape {shape}; it is {shown(value)}. {way_out}"
        )
    return value % len(shape)


def as_mask(function: str, name: str, mask: ArrayLike | None, shape: tuple[int, ...]) -> Booleans | None:
    """Return ``mask`` as a view of ``shape``, or None; raise unless it is boolean and broadcasts.

    An entry that is itself masked is not visible.
    """
    if mask is None:
        return None
    found, hidden = read(function, name, mask, "an array of booleans, True where the key is visible")
    if found.dtype != np.bool_:
        raise TypeError(
            f"{function}: {name} must be boolean, True where the key is visible; its dtype is {found.dtype}. "
            f"Convert with astype(bool), or add an additive mask to the scores (attention takes it as bias=)."
        )
    if hidden is not None:
        found = found & ~hidden
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


def as_target(
    function: str, target: ArrayLike, shape: tuple[int, ...], place: int
) -> tuple[Floats, NDArray[np.intp] | None]:
    """Return the target as probabilities of ``shape``, keys last, and the class indices if it came as such.

    ``place`` is the axis of the keys in the caller's arrays. Raise unless integers index the keys of each row, or
    floating numbers are one distribution per row.
    """
    rows_shape, n = shape[:-1], shape[-1]
    given = (*rows_shape[:place], n, *rows_shape[place:])
    found = as_numbers(function, "target", target)
    numbers = _as_float64(found)
    if found.dtype.kind in "iu":
        if found.shape != rows_shape:
            way_out = (
                "Convert probabilities with astype(float)."
                if found.shape == given
                else "Pass one index per row, or probabilities as floating numbers in the shape of scores."
            )
            raise ValueError(
                f"{function}: target, which is of integer dtype {found.dtype}, must hold one index per row, shape "
                f"{rows_shape}; its shape is {found.shape}. {way_out}"
            )
        bad = (found < 0) | (found >= n)
        if bad.any():
            raise ValueError(
                f"{function}: target must index the {n} keys of a row, from 0 to {n - 1}; it holds {found[bad][0]}. "
                + ("Rows without keys take an empty target of floating dtype. " if n == 0 else "")
                + "Replace indices that mean 'ignore' by any valid one and drop those rows from the result."
            )
        classes = found.astype(np.intp)
        probs = np.zeros(shape)
        np.put_along_axis(probs, classes[..., None], 1.0, axis=-1)
        return probs, classes
    if numbers.shape != given:
        way_out = (
            "Convert class indices with astype(int)."
            if numbers.shape == rows_shape
            else "Broadcast or transpose it to that shape, or pass one integer index per row."
        )
        raise ValueError(
            f"{function}: target, which is of floating dtype, must have the shape of scores, {given}; its shape is "
            f"{numbers.shape}. {way_out}"
        )
    probs = np.moveaxis(numbers, place, -1)
    wrong = ~(probs >= 0.0)
    if wrong.any():
        raise ValueError(
            f"{function}: target must hold probabilities, nonnegative; it holds {float(probs[wrong][0])!r}. "
            "Clip rounding errors with numpy.maximum(target, 0), and normalise."
        )
    total = probs.sum(axis=-1)
    off = ~(np.abs(total - 1.0) <= 2.0**-16) & (n > 0)  # rows without keys have an empty target
    if off.any():
        found_total = float(total[off][0])
        raise ValueError(
            f"{function}: target must sum to 1 over axis {place}, within 2**-16; a row sums to {found_total!r}. "
            "Divide it by its sum."
        )
    return probs, None


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
    value = as_number(
        function,
        "scale",
        scale,
        "one real number or None",
        "Pass None for head_dim ** -0.5, or multiply query by an array of scales and pass scale=1.",
    )
    if not math.isfinite(value):
        raise ValueError(
            f"{function}: scale must be finite; it is {shown(scale)}{_beyond(scale, value)}. "
            f"Pass None for head_dim ** -0.5 = {head_dim**-0.5!r}."
        )
    return value


def as_flag(function: str, name: str, flag: Any) -> bool:
    """Return ``flag`` as a bool; raise TypeError for anything else, so that no stray array is a True."""
    if not isinstance(flag, (bool, np.bool_)):
        raise TypeError(
            f"{function}: {name} must be True or False; it is {shown(flag)} of type {type(flag).__name__}. "
            f"Pass {name}=True or {name}=False; an array of visible keys goes into mask=."
        )
    return bool(flag)
