"""What does NumPy read from what a caller gives, which entries does a mask hide, and how is a value shown in a message?

A masked entry is no number: what lies under the mask is never used. torch is not imported here; a tensor can only come
from a caller who has.
"""

import itertools
import math
import reprlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Booleans = NDArray[np.bool_]

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_DEEPEST = 64  # axes of an array, and so levels of lists, that NumPy takes


def shown(value: Any) -> str:
    """Return one short line for any value, also one whose own repr is long or fails."""
    if type(value) is int and abs(value) >= 10**20:
        return f"an integer of about {math.floor(value.bit_length() * math.log10(2.0)) + 1} digits"
    try:
        return " ".join(_SHORT.repr(value).split())
    except Exception:
        return f"an object of type {type(value).__name__}"


def read(function: str, name: str, array: Any, rule: str) -> tuple[NDArray[Any], Booleans | None]:
    """Return ``array`` as a plain array of whatever dtype, and which entries its mask hides, None for none.

    Raise TypeError, which states ``rule``, if NumPy cannot read it.
    """
    _refuse_tensor(function, name, array, rule, next(_tensors(array), None))
    try:
        hidden = _hidden(array, 0)
        with warnings.catch_warnings():
            if hidden is not None:  # numpy.ma.masked in a list is read as NaN, with a warning that does not matter here
                warnings.simplefilter("ignore")
            found = np.asarray(np.ma.getdata(array) if isinstance(array, np.ma.MaskedArray) else array)
    except MemoryError:
        raise
    except Exception as error:  # ragged lists, and whatever the __array__ of an object raises
        tensors = list(_tensors(array, thorough=True))
        for tensor in tensors:
            _refuse_tensor(function, name, array, rule, tensor)
        if tensors:
            raise TypeError(
                f"{function}: {name} must be {rule}; it has torch tensors in it, and NumPy cannot read it: "
                f"{_one_line(error)} Pass plain tensors of one shape, outside of torch.func and torch.compile."
            ) from error
        raise TypeError(
            f"{function}: {name} must be {rule}; NumPy cannot read it as a rectangular array: {_one_line(error)} Pad "
            "ragged rows to one length and hide the padding with a mask; convert other objects to NumPy arrays first."
        ) from error
    if hidden is None or not hidden.any():
        return found, None
    return found, hidden


def refuse_object(function: str, name: str, array: Any, found: NDArray[Any]) -> None:
    """Raise TypeError for an array of dtype object; say what was found in it."""
    if found.dtype != np.object_:
        return
    if found.ndim == 0:
        way_out = f"Pass {name}.toarray()." if hasattr(array, "toarray") else "Pass an array or a list of numbers."
        found_is = f"{shown(array)} of type {type(array).__name__}"
        raise TypeError(f"{function}: {name} must be real and numeric; it is {found_is}. {way_out}")
    culprit = ""
    for index, entry in zip(itertools.product(*map(range, found.shape)), found.flat, strict=True):
        if not isinstance(entry, (int, float, np.integer, np.floating)) or (type(entry) is int and abs(entry) >= 2**63):
            at = index[0] if len(index) == 1 else index
            culprit = f", and entry {at} is {shown(entry)} of type {type(entry).__name__}"
            break
    raise TypeError(
        f"{function}: {name} must be real and numeric; its dtype is object{culprit}. Convert it first, for example "
        "with numpy.asarray(..., dtype=float), with NaN where a value is missing."
    )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith(".") else text + "."


def _hidden(array: Any, level: int) -> Booleans | None:
    """Return which entries are masked, in the shape that NumPy reads; None if there is no mask."""
    if isinstance(array, np.ma.MaskedArray):
        mask = np.ma.getmask(array)
        # The mask of a structured array is structured too; its dtype is refused by whoever asked.
        return None if mask is np.ma.nomask or mask.dtype != np.bool_ else np.asarray(mask)
    if not isinstance(array, (list, tuple)) or level == _DEEPEST:
        return None
    if not any(issubclass(kind, (np.ma.MaskedArray, list, tuple)) for kind in set(map(type, array))):
        return None
    parts = [_hidden(part, level + 1) for part in array]
    if all(part is None for part in parts):
        return None
    pairs = zip(array, parts, strict=True)
    return np.stack([np.zeros(np.shape(part), np.bool_) if mask is None else mask for part, mask in pairs])


def _tensors(array: Any, level: int = 0, thorough: bool = False) -> Iterator[Any]:
    """Yield the tensor given, or those in a list, at any depth, one after the other."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "Tensor"):
        return
    if isinstance(array, torch.Tensor):
        yield array
    elif isinstance(array, (list, tuple)) and level < _DEEPEST and array:
        # Lists are of one kind: one that begins with a number or a list of numbers may be long, and holds no tensor.
        if thorough or isinstance(array[0], (torch.Tensor, list, tuple)):
            for part in array:
                yield from _tensors(part, level + 1, thorough)


def _refuse_tensor(function: str, name: str, array: Any, rule: str, tensor: Any) -> None:
    """Raise TypeError for a tensor that NumPy cannot read."""
    trouble = None if tensor is None else _trouble("t" if tensor is not array else name, tensor)
    if trouble is not None and tensor is array:
        raise TypeError(f"{function}: {name} must be {rule}; it is a torch tensor that {trouble}.")
    if trouble is not None:
        raise TypeError(
            f"{function}: {name} must be {rule}; it holds a torch tensor, t say, that {trouble}, and so for each."
        )


def _trouble(name: str, tensor: Any) -> str | None:
    """Return why NumPy cannot read a tensor and how to make it, or None if it can."""
    torch = sys.modules["torch"]
    if tensor.is_nested:
        return "is nested. Pad it with torch.nested.to_padded_tensor, and hide the padding with a mask"
    if tensor.device.type == "meta":
        return "lies on the meta device and holds no numbers. Make it on the CPU"
    causes, steps = [], ""
    if tensor.layout != torch.strided:
        causes, steps = [f"has the layout {tensor.layout}"], ".to_dense()"
    if tensor.requires_grad:
        causes, steps = [*causes, "requires grad"], steps + ".detach()"
    if tensor.device.type != "cpu":
        causes, steps = [*causes, f"lies on {tensor.device}"], steps + ".cpu()"
    if tensor.is_quantized:
        causes, steps = [*causes, "is quantized"], steps + ".dequantize()"
    elif tensor.dtype.is_floating_point and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        causes, steps = [*causes, f"has dtype {tensor.dtype}, which NumPy lacks"], steps + ".float()"
    return f"{' and '.join(causes)}. Pass {name}{steps}.numpy()" if causes else None
