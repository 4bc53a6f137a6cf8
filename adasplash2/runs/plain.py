"""How do dataclasses become what JSON knows, and come back the same?"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any


def to_plain(value: Any) -> Any:
    """Return dictionaries, lists, strings and numbers; NaN and infinities become strings."""
    if dataclasses.is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): to_plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def from_plain(kind: Any, plain: Any) -> Any:
    """Return the value of that type that `to_plain` made this of."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (part for part in parts if part is not type(None))
        return None if plain is None else from_plain(inner, plain)
    if origin is dict:
        return {from_plain(parts[0], name): from_plain(parts[1], part) for name, part in plain.items()}
    if origin is tuple:
        return tuple(from_plain(parts[0], part) for part in plain)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        # A field that this version does not know would be lost without a word.
        return kind(**{name: from_plain(hints[name], part) for name, part in plain.items()})  # type: ignore[operator]
    if kind in (float, int):
        return kind(plain)
    return plain
