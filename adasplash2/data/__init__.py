"""Which recorded inputs ship with the package?  The cases of ``captured.npz``; NOTICE says what they are.

``capture.py`` made the file; nothing of it is needed to read the file.
"""

import functools
import importlib.resources
import json
from typing import Any

import numpy as np


@functools.cache
def _recorded() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what the file says of itself, and the words of each case, shape (3, heads, length, head_dim)."""
    source = importlib.resources.files(__name__) / "captured.npz"
    with source.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        about = json.loads(str(arrays["about"]))
        planes = {case["name"]: arrays[case["name"]].astype(np.uint16) for case in about["cases"]}
    words = {name: (high << 8) | low for name, (high, low) in planes.items()}
    return about, words


def recorded_words() -> dict[str, np.ndarray]:
    """Return the bfloat16 words of each case: uint16, shape (3, heads, length, head_dim)."""
    return {name: words.copy() for name, words in _recorded()[1].items()}


def recorded_sha256() -> str:
    """Return the SHA-256 that the file gives for its words, as ``capture.digest`` computes it."""
    return str(_recorded()[0]["sha256"])


def case_names() -> tuple[str, ...]:
    """Return the names of the recorded cases."""
    return tuple(_recorded()[1])


def case_note(name: str) -> str:
    """Return one line on the origin of a case."""
    about = _recorded()[0]
    case = next(case for case in about["cases"] if case["name"] == name)
    heads = ", ".join(str(head) for head in case["heads"])
    origin = f"{about['model']}, layer {case['layer']}, heads {heads}"
    return f"{origin}, on {case['length']} tokens of {case['text']}"


def read_case(name: str) -> np.ndarray:
    """Return query, key and value of a case: float32, shape (3, heads, length, head_dim)."""
    words = _recorded()[1][name]
    return (words.astype(np.uint32) << 16).view(np.float32)
