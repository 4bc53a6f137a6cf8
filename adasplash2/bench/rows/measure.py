"""How long do the contenders take for rows of one length, and how exact are they?"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import torch

from adasplash2.bench.passes.rows import NAMES as KINDS
from adasplash2.bench.shared.entries import first_call, with_times
from adasplash2.bench.shared.faults import first_line, recover
from adasplash2.bench.shared.record import SCHEMA, Header, Timed
from adasplash2.bench.shared.timing import in_turns
from adasplash2.verify.cases import DTYPES

from .accuracy import RowErrors, hard_rows, row_errors
from .contenders import ENTMAX, NAMES, RowContender, row_contenders

LENGTHS = (1024, 8192, 32768, 131072)
ALPHAS = (1.5, 2.0)
ELEMENTS = 2**26
HARD_NUMBERS = 2**18  # of each kind of hard rows, or two rows


@dataclasses.dataclass(frozen=True)
class RowCase:
    """Rows N(0, 1) of one length, dtype and alpha."""

    length: int
    rows: int
    dtype: str
    alpha: float

    @property
    def label(self) -> str:
        """What a table calls it."""
        return f"{self.dtype} {self.length} alpha {self.alpha:g}"


@dataclasses.dataclass(frozen=True)
class RowEntry(Timed):
    """What a contender did in a case; errors on rows of each kind that is hard."""

    errors: tuple[RowErrors, ...] = ()


@dataclasses.dataclass(frozen=True)
class RowResult:
    """One case."""

    case: RowCase
    entries: tuple[RowEntry, ...]
    seconds: float = 0.0

    def entry(self, name: str) -> RowEntry | None:
        """Return a contender's entry; None if it was not to run."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def ratio(self, name: str, part: str) -> float | None:
        """Return our time over a contender's."""
        ours, other = (None if entry is None else entry.ms(part) for entry in (self.entry("ours"), self.entry(name)))
        return ours / other if ours is not None and other else None


@dataclasses.dataclass(frozen=True)
class RowRecord:
    """A run of ``bench rows``; ``asked`` cases were to run, fewer results mean that it was cut short."""

    header: Header
    rounds: int
    asked: int
    results: tuple[RowResult, ...]
    packages: dict[str, str] = dataclasses.field(default_factory=dict)
    schema: int = SCHEMA
    kind: str = "rows"


def measure_rows(
    case: RowCase, device: str, rounds: int, names: Sequence[str] = NAMES, *, hard_numbers: int = HARD_NUMBERS
) -> RowResult:
    """Return the result of a case; a contender that raises has failed, and the others go on.

    Raises
    ------
    DeviceLostError
        After which nothing more can be measured in this process.
    """
    start = time.perf_counter()
    dtype = DTYPES[case.dtype]
    generator = torch.Generator(device=device).manual_seed(0)
    scores, d_probs = (
        torch.randn(case.rows, case.length, generator=generator, device=device).to(dtype) for _ in range(2)
    )
    contenders = row_contenders(case.alpha, names)
    leaf = scores.detach().requires_grad_()
    found = {
        one.name: first_call(RowEntry(one.name), one.refusal, _step(one, leaf, d_probs), device) for one in contenders
    }
    runs: dict[str, Callable[[], object]] = {}
    for one in contenders:
        if found[one.name].status == "ok":
            runs[f"{one.name} forward"] = _forward(one, scores)
            runs[f"{one.name} step"] = _step(one, leaf, d_probs)
    times = in_turns(runs, rounds, device)
    found = {name: with_times(entry, times) for name, entry in found.items()}
    del scores, d_probs, leaf, runs
    for name in KINDS:
        count = max(2, min(hard_numbers // case.length, 64))
        rows = hard_rows(name, case.alpha, count, case.length, dtype, device)
        for one in contenders:
            entry = found[one.name]
            if one.name in ENTMAX and entry.status == "ok":
                try:
                    errors = (*entry.errors, row_errors(one.map, rows))
                    found[one.name] = dataclasses.replace(entry, errors=errors)
                except Exception as error:
                    found[one.name] = dataclasses.replace(entry, status="failed", note=first_line(error))
                if found[one.name].status != "ok":
                    recover(device, one.name)
    return RowResult(case, tuple(found.values()), time.perf_counter() - start)


def _forward(one: RowContender, scores: torch.Tensor) -> Callable[[], object]:
    def run() -> None:
        with torch.no_grad():
            one.map(scores)

    return run


def _step(one: RowContender, leaf: torch.Tensor, d_probs: torch.Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad(one.map(leaf), leaf, d_probs)
