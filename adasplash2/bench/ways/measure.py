"""Which way does each block go, by tiles or by single keys, and what would the other have cost?"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from adasplash2.bench.attention.cases import case_of
from adasplash2.bench.attention.contenders import contenders_of
from adasplash2.bench.attention.contest import leaves_of, step_of
from adasplash2.bench.attention.sparsity import Support, support_of, visible_blocks
from adasplash2.bench.shared.entries import first_call, with_times
from adasplash2.bench.shared.faults import first_line, recover
from adasplash2.bench.shared.record import SCHEMA, Header, Timed
from adasplash2.bench.shared.stages import random_like, whole_step
from adasplash2.bench.shared.timing import in_turns
from adasplash2.bench.shared.tuning import Tuning
from adasplash2.problem import SOLVE_ROWS, Problem, ceil_div
from adasplash2.state import BackwardState, ForwardState
from adasplash2.verify.cases import DTYPES
from adasplash2.workloads import Workload, captured, captured_names, workload

Step = Callable[[], tuple[Problem, ForwardState, BackwardState]]

LENGTHS = (8192, 32768)
# From rows of which every key is support to rows of a few; then those with structure.
WORKLOADS = (
    *("equal", "gauss0.02", "gauss0.3", "gauss0.5", "gauss1", "gauss2", "gauss4", "gauss16"),
    *("topic16", "sink_local1024"),
)
CONTENDERS = ("flash", "cudnn", "adasplash")
# More than a tile has pairs; times the tiles of a row it stays below 2**31.
ALWAYS = 2**16
_THRESHOLDS = ("shared_words", "many_words", "most_wide", "row_pairs", "column_pairs", "turn_pairs")
# What is replaced in the problem.  By keys goes every block that has room for them, and the other ones by tiles.
WAYS: dict[str, dict[str, int]] = {
    "chosen": {},
    "tiles": {"row_entries": 0},
    "keys": {name: ALWAYS for name in _THRESHOLDS},
}
# Rows of attention that all contenders take.
ALPHA = 1.5


@dataclasses.dataclass(frozen=True)
class Shares:
    """Share of the blocks of queries, and for d_key and d_value of keys, that a stage does by single keys."""

    threshold: float
    output: float
    d_query: float
    d_key: float


@dataclasses.dataclass(frozen=True)
class WayResult:
    """One workload.

    Attributes
    ----------
    workload : str
    shape : str
        Batch, heads, length and head_dim.
    length : int
    is_causal : bool
    support : Support
    pairs : int
        Of a query and a key that it sees.
    shares : Shares
        As chosen.
    keys_shares : Shares
        Where every block that has room goes by single keys.
    entries : tuple of Timed
        Of the step alone; of ours one for each of `WAYS`.
    seconds : float
    """

    workload: str
    shape: str
    length: int
    is_causal: bool
    support: Support
    pairs: int
    shares: Shares
    keys_shares: Shares
    entries: tuple[Timed, ...]
    seconds: float = 0.0

    @property
    def label(self) -> str:
        """What a table calls it."""
        return f"{self.workload} {self.length}"

    @property
    def live(self) -> float:
        """Share of the pairs that are support."""
        return self.support.keys / self.pairs if self.pairs else 0.0

    def ms(self, name: str) -> float | None:
        """Return the time of a step; None if there is none."""
        return next((entry.ms("step") for entry in self.entries if entry.name == name), None)


@dataclasses.dataclass(frozen=True)
class WayRecord:
    """A run of ``bench ways``; ``asked`` workloads were to run, fewer results mean that it was cut short."""

    header: Header
    rounds: int
    asked: int
    results: tuple[WayResult, ...]
    packages: dict[str, str] = dataclasses.field(default_factory=dict)
    schema: int = SCHEMA
    kind: str = "ways"


def loads(names: Sequence[str], lengths: Sequence[int], device: str) -> list[tuple[str, Callable[[], Workload]]]:
    """Return the workloads with their titles, each made when it is asked for: names by lengths, and recorded ones."""

    def synthetic(name: str, length: int) -> Callable[[], Workload]:
        case = case_of(name, length)
        sizes = {"batch": case.batch, "heads": case.heads, "n_queries": length, "head_dim": case.head_dim}
        return lambda: workload(name, **sizes, dtype=DTYPES["bf16"], device=device)  # type: ignore[arg-type]

    def recorded(name: str) -> Callable[[], Workload]:
        return lambda: captured(name, dtype=DTYPES["bf16"], device=device, is_causal=True)

    chosen = [name for name in names if name not in captured_names()]
    found = [(f"{name} {length}", synthetic(name, length)) for length in lengths for name in chosen]
    return found + [(name, recorded(name)) for name in names if name in captured_names()]


def measure_ways(
    load: Workload, device: str, rounds: int, names: Sequence[str] = CONTENDERS, tuning: Tuning | None = None
) -> WayResult:
    """Return the result of a workload; what raises has failed, and the others go on.

    ``tuning`` is what adasplash has left of it; no end if it is None.

    Raises
    ------
    DeviceLostError
        After which nothing more can be measured in this process.
    """
    start = time.perf_counter()
    batch, heads, length, head_dim = load.query.shape
    tuning = Tuning(math.inf) if tuning is None else tuning
    d_out, leaves = random_like(load.query, seed=1), leaves_of(load)
    ways = {way: whole_step(load, d_out, ALPHA, **fields) for way, fields in WAYS.items()}
    try:
        seen, fault = _seen(load, ways), ""
    except Exception as error:
        seen, fault = _Seen(), first_line(error)
    if fault:
        recover(device, "ours")
    found = {way: Timed(way, "failed", fault) if fault else Timed(way) for way in WAYS}
    steps: dict[str, Callable[[], object]] = dict(ways)
    case = dataclasses.replace(case_of(load.name, length, head_dim), is_causal=load.is_causal)
    for one in contenders_of(case, names):
        steps[one.name] = step_of(one, leaves, d_out)
        refusal = one.refusal or tuning.refusal(one.name, length, head_dim)
        with contextlib.nullcontext() if refusal else tuning.spending(one.name, length, head_dim):
            found[one.name] = first_call(Timed(one.name), refusal, steps[one.name], device)
    runs = {f"{name} step": steps[name] for name, entry in found.items() if entry.status == "ok"}
    times = in_turns(runs, rounds, device)
    pairs = visible_blocks(length, load.key.shape[2], load.is_causal, block=1)
    return WayResult(
        load.name,
        f"{batch}x{heads}x{length}x{head_dim}",
        length,
        load.is_causal,
        seen.support,
        batch * heads * pairs,
        seen.shares,
        seen.keys_shares,
        tuple(with_times(entry, times) for entry in found.values()),
        time.perf_counter() - start,
    )


@dataclasses.dataclass(frozen=True)
class _Seen:
    """What the first steps show, or nothing."""

    support: Support = dataclasses.field(default_factory=lambda: Support(0, 0, 0, 0))
    shares: Shares = Shares(0.0, 0.0, 0.0, 0.0)
    keys_shares: Shares = Shares(0.0, 0.0, 0.0, 0.0)


def _seen(load: Workload, steps: Mapping[str, Step]) -> _Seen:
    """Return where the support is, and which way the blocks go."""
    problem, state, after = steps["chosen"]()
    shares, tau = shares_of(problem, state, after), state.base + state.rest
    del state, after
    keys_shares = shares_of(*steps["keys"]())
    scale = load.query.shape[-1] ** -0.5
    support = support_of(load.query, load.key, tau, alpha=ALPHA, is_causal=load.is_causal, scale=scale)
    return _Seen(support, shares, keys_shares)


def shares_of(problem: Problem, state: ForwardState, after: BackwardState) -> Shares:
    """Return how many of the blocks went by single keys, from what the stages left."""
    if not problem.by_keys:
        return Shares(0.0, 0.0, 0.0, 0.0)
    # FEW, SHARED and beyond (kernels/lists.py).
    paths = state.candidates.numbers[..., 3]
    return Shares(
        _share(paths < 2),
        _share(paths < 1),
        _share(queries_by_keys(problem, state, after)),
        _share(after.column_paths > 0),
    )


def queries_by_keys(problem: Problem, state: ForwardState, after: BackwardState) -> torch.Tensor:
    """Return which blocks of queries get their gradient by single keys, bool (batch * heads, query blocks).

    As ``goes_by_keys`` in kernels/support.py decides it.
    """
    block_m, n_blocks = problem.launch.block_m, problem.n_query_blocks
    counts = state.support.counts.flatten(0, 1)
    padded = torch.nn.functional.pad(counts, (0, n_blocks * block_m - counts.shape[1]))
    longest = padded.unflatten(1, (n_blocks, ceil_div(block_m, SOLVE_ROWS), -1)).amax(dim=3)
    gathers = longest.clamp(min=0).sum(dim=2) * SOLVE_ROWS
    fits = (state.support.used.flatten() <= problem.support_capacity)[:, None]
    listed = padded.unflatten(1, (n_blocks, block_m)).amin(dim=2) >= 0
    return fits & listed & (gathers <= after.kept.numbers[..., 1] * problem.row_pairs)


def _share(blocks: torch.Tensor) -> float:
    return float(blocks.double().mean()) if blocks.numel() else 0.0
