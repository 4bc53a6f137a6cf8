"""Which targets does ``package.module:function`` name?  Imported and called; what is wrong is said in one line."""

import dataclasses
import importlib
from collections.abc import Callable, Iterable
from typing import Any

from entmax_ref.conformance.precision import FORMATS
from entmax_ref.conformance.target import Target


class TargetError(Exception):
    """A target cannot be used; the message says why, and how to write one."""


def load(name: str) -> list[Target]:
    """Return the targets that a function makes.

    Parameters
    ----------
    name : str
        ``package.module:function``. The function takes no argument and returns a target, or a list of them.

    Returns
    -------
    list of Target

    Raises
    ------
    TargetError
        If the name has another form, the module cannot be imported, or what it makes is not a target.

    Examples
    --------
    >>> [target.name for target in load("entmax_ref.conformance.adapters.oracle:rows")]
    ['entmax_ref']
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise TargetError(f"target must be package.module:function, got {name!r}. Put a colon before the function.")
    try:
        made: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise TargetError(f"target {name!r} does not import: {error}. Try python -c 'import {module}'.") from error
    return [dataclasses.replace(target, source=target.source or name) for target in made_by(made, name)]


def made_by(function: Callable[[], Any] | Any, name: str) -> list[Target]:
    """Return the targets that a function makes, after a look at what they claim."""
    try:
        made = function() if callable(function) else function
    except Exception as error:
        raise TargetError(
            f"target {name!r} raised {type(error).__name__}: {error}. Have it return a target."
        ) from error
    targets = list(made) if isinstance(made, Iterable) else [made]
    for target in targets:
        if not isinstance(target, Target):
            raise TargetError(
                f"target {name!r} returned {type(target).__name__}, not a target. Return a RowTarget or an "
                "AttentionTarget of entmax_ref.conformance, or a list of them."
            )
        wrong = [dtype for dtype in target.dtypes if dtype not in FORMATS]
        if wrong or not target.dtypes or not target.alphas:
            raise TargetError(
                f"target {target.name!r} must claim one or more of the dtypes {', '.join(FORMATS)} and one or more "
                f"alphas; it has the dtypes {target.dtypes} and the alphas {target.alphas}. Name what it takes."
            )
        if not all(1.0 <= alpha < float("inf") for alpha in target.alphas):
            raise TargetError(
                f"target {target.name!r} has the alphas {target.alphas}; they must be finite and at least 1."
            )
    return targets
