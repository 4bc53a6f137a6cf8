"""Who maps rows?  One callable a contender, on rows of one shape, at its own defaults, and which cases it can take."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable, Sequence

import torch

from adasplash2 import entmax

Map = Callable[[torch.Tensor], torch.Tensor]

# Names on the command line and in records, and what a table calls them.
TITLES = {
    "ours": "ours",
    "copy": "copy",
    "softmax": "softmax",
    "entmax_sort": "entmax, sort",
    "entmax_bisect": "entmax, bisection",
    "adasplash": "triton_entmax",
}
NAMES = tuple(TITLES)
# Those that compute entmax, so that their result can be held to the oracle.
ENTMAX = ("ours", "entmax_sort", "entmax_bisect", "adasplash")


@dataclasses.dataclass(frozen=True)
class RowContender:
    """A contender at one alpha; ``refusal`` says why it cannot take it, and is empty if it can."""

    name: str
    map: Map
    refusal: str = ""


def row_contenders(alpha: float, names: Sequence[str] = NAMES) -> list[RowContender]:
    """Return the contenders of those names, in that order."""
    makers: dict[str, Callable[[float], RowContender]] = {
        "ours": lambda alpha: RowContender("ours", lambda rows: entmax(rows, alpha, impl="triton")),
        # What a map cannot beat: it reads every number once, and writes one.
        "copy": lambda alpha: RowContender("copy", torch.clone),
        "softmax": lambda alpha: RowContender("softmax", lambda rows: torch.softmax(rows, -1)),
        "entmax_sort": _sort,
        "entmax_bisect": _bisection,
        "adasplash": _adasplash,
    }
    return [makers[name](alpha) for name in names]


def _missing(package: str) -> str:
    return "" if importlib.util.find_spec(package) is not None else "not installed"


def _sort(alpha: float) -> RowContender:
    def sort(rows: torch.Tensor) -> torch.Tensor:
        package = importlib.import_module("entmax")
        return package.entmax15(rows, dim=-1) if alpha == 1.5 else package.sparsemax(rows, dim=-1)

    return RowContender("entmax_sort", sort, _missing("entmax") or ("" if alpha in (1.5, 2.0) else "1.5 and 2 only"))


def _bisection(alpha: float) -> RowContender:
    def bisection(rows: torch.Tensor) -> torch.Tensor:
        return importlib.import_module("entmax").entmax_bisect(rows, alpha, dim=-1)

    return RowContender("entmax_bisect", bisection, _missing("entmax"))


def _adasplash(alpha: float) -> RowContender:
    def triton_entmax(rows: torch.Tensor) -> torch.Tensor:
        return importlib.import_module("adasplash").triton_entmax(rows, alpha=alpha)

    return RowContender("adasplash", triton_entmax, _missing("adasplash"))
