"""Does a target get contiguous arrays alone?"""

import dataclasses
from typing import Any

import numpy as np


def contiguous_only(target: Any, *fields: str) -> Any:
    """Return the target with functions that assert that every array they are given is contiguous."""

    def only(function: Any) -> Any:
        def checked(*arguments: Any) -> Any:
            assert all(one.flags.c_contiguous for one in arguments if isinstance(one, np.ndarray))
            return function(*arguments)

        return checked

    return dataclasses.replace(target, **{name: only(getattr(target, name)) for name in fields})
