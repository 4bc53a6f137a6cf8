"""Does every stage by itself do what ``entmax_ref.stages`` specifies?  Run one by one, judged in float64."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from adasplash2 import launch, starts
from adasplash2.orders import MAX_PASSES, alphas_of, tolerance_of
from adasplash2.problem import Problem, ceil_div
from adasplash2.stages import backward_calls, forward_calls
from adasplash2.state import Lists, empty_backward, empty_forward, unpack_mask
from adasplash2.workloads import Workload
from entmax_ref import stages

from .answer import Answer
from .judge import compared_gradients, judge_results, tau_comparison
from .naive import NaiveResult
from .support_checks import Gathered, read_gathered
from .truth import ROUNDOFF, Booleans, Floats, Head, Truth, as_floats, each_head, in_blocks, visible_blocks

# The relative margin of the roots of the histogram (kernels/histogram.py, ROOT_ERROR).
ROOT_MARGIN = 2.0**-16
# Blocks of queries on this path or beyond go by tiles (kernels/lists.py, MANY).
MANY = 2
_FORWARD = ("row_max", "lo", "tile_lo", "hi", "first_tau", "mass", "residual")


@dataclasses.dataclass(frozen=True)
class StageCheck:
    """One rule of one stage.  For a rule that counts exceptions the budget is 0."""

    stage: str
    rule: str
    error: float
    budget: float

    @property
    def passed(self) -> bool:
        """Whether the error is a number within the budget."""
        return self.error <= self.budget


@dataclasses.dataclass(frozen=True)
class StageRun:
    """What the stages wrote, moved to NumPy; masks and lists as booleans (batch, heads, blocks, blocks).

    ``by_tiles`` says of each row whether its threshold was found by tiles, ``visible`` of each block of the mask
    whether a query of it sees one of its keys: a tile of the dense pass keeps all of its blocks, also those that none
    sees.
    """

    forward: dict[str, Any]
    backward: dict[str, Any]
    by_tiles: Booleans
    visible: Booleans
    gathered: Gathered
    problem: Problem


def run_stages(load: Workload, d_out: torch.Tensor, alpha: float, **fields: int) -> StageRun:
    """Run the calls of `adasplash2.stages` in their order, each by itself, and keep what each stage wrote.

    Other keywords replace fields of the problem: how much its lists hold.
    """
    query, key, value, grad = load.query, load.key, load.value, d_out.to(load.query.device)
    problem = Problem.of(
        query,
        key,
        alpha=alpha,
        scale=query.shape[-1] ** -0.5,
        is_causal=load.is_causal,
        backend=launch.BACKEND,
    )
    problem = dataclasses.replace(problem, **fields)  # type: ignore[arg-type]
    q, k, v, d_o = (launch.as_operand(part) for part in (query, key, value, grad))
    state = empty_forward(problem, q)
    with starts.device_of(query):
        for call in forward_calls(problem, q, k, v, state, load.key_ranges, alphas_of(alpha, q)):
            call.run()
        after = empty_backward(problem, q, k, v)
        # As the backward of a call gets it: rounded to the dtype, also where the interpreter raised that.
        out = launch.as_operand(state.out.to(query.dtype))
        left = (out, state.base, state.rest, state.block_mask, state.support)
        for call in backward_calls(problem, d_o, q, k, v, *left, after, load.key_ranges, alphas_of(alpha, q)):
            call.run()
    heads, launch_row = (problem.batch, problem.heads), problem.launch
    forward: dict[str, Any] = {name: as_floats(getattr(state, name)) for name in _FORWARD}
    forward |= {"out": as_floats(state.out.to(query.dtype)), "tau": as_floats(state.base) + as_floats(state.rest)}
    forward["passes"] = state.passes.long().cpu().numpy()
    bits = unpack_mask(state.block_mask, problem.n_key_blocks)
    forward["block_mask"] = bits.unflatten(0, heads).cpu().numpy()
    n_tiles = ceil_div(problem.n_keys, launch_row.dense_n)
    forward["candidates"] = _listed(state.candidates, n_tiles, heads, at_end=True)
    forward["kept"] = _listed(state.kept, problem.n_key_blocks, heads)
    backward: dict[str, Any] = {
        name: as_floats(getattr(after, name).to(query.dtype)) for name in ("d_query", "d_key", "d_value")
    }
    backward["transposed"] = unpack_mask(after.transposed, problem.n_query_blocks).unflatten(0, heads).cpu().numpy()
    backward["keeping"] = _listed(after.keeping, problem.n_query_blocks, heads)
    paths = state.candidates.numbers[..., 3].unflatten(0, heads).cpu().numpy()
    by_tiles = np.repeat(paths >= MANY, launch_row.dense_m, axis=-1)[..., : problem.n_queries]
    visible = visible_blocks(load, (launch_row.block_m, launch_row.block_n))
    return StageRun(forward, backward, by_tiles, visible, read_gathered(problem, state.support, after), problem)


def _listed(lists: Lists, n_blocks: int, heads: tuple[int, int], *, at_end: bool = False) -> Booleans:
    """Return lists of blocks as booleans (batch, heads, rows, n_blocks)."""
    places, numbers = lists.places.cpu().numpy(), lists.numbers.cpu().numpy()
    found: Booleans = np.zeros((*places.shape[:2], n_blocks), dtype=np.bool_)
    for place in np.ndindex(*places.shape[:2]):
        _, length, first, _ = (int(number) for number in numbers[place])
        if first >= 0:
            found[place][first : first + length] = True
        elif length:
            found[place][places[place][-length:] if at_end else places[place][:length]] = True
    return found.reshape(*heads, *found.shape[1:])


def check_stages(
    load: Workload, truth: Truth, answer: Answer, naive: NaiveResult, alpha: float
) -> tuple[StageCheck, ...]:
    """Run and judge every stage of one case, and demand the bits that ``answer`` has."""
    run = run_stages(load, truth.d_out, alpha)
    checks = check_rows(load, truth, run, alpha)
    checks += check_gathered(load, truth, run, alpha)
    checks += _check_products(load, truth, run, naive)
    mask = run.forward["block_mask"]
    checks.append(
        _count("block_mask_transpose", "bits that differ", mask.swapaxes(-1, -2) != run.backward["transposed"])
    )
    # A list without room visits what can be seen: never less than the bits.
    missing = (mask & ~run.forward["kept"], run.backward["transposed"] & ~run.backward["keeping"])
    checks.append(_count("block_list", "bits without a place", *missing))
    checks.append(same_bits(answer, run))
    return tuple(checks)


def check_rows(load: Workload, truth: Truth, run: StageRun, alpha: float) -> list[StageCheck]:
    """Judge what the stages say of each row, and of the blocks that it may need."""
    wrote, launch_row = run.forward, run.problem.launch
    block, tile = (launch_row.block_m, launch_row.block_n), (launch_row.dense_m, launch_row.dense_n)
    rows = ~truth.nan_rows & ~truth.empty_rows
    by_tiles = run.by_tiles
    highest = np.zeros(truth.tau.shape)
    wrong_bits: dict[str, list[Booleans]] = {name: [] for name in ("missing", "loose", "outside", "mask_loose")}
    for head in each_head(load, alpha):
        highest[head.place] = stages.block_max(np.where(np.isnan(head.z), np.inf, head.z), head.z.shape[-1])[:, 0]
        kept, needed = _candidate_bounds(head, tile, truth.row_error[head.place])
        candidates = wrote["candidates"][head.place]
        # Blocks that some query sees and another does not are listed without a look at their scores.
        seen = head.z > -np.inf
        partly = in_blocks(seen | np.isnan(head.z), tile) & in_blocks(_padded(~seen, tile), tile)
        wrong_bits["missing"].append(needed & ~candidates)
        wrong_bits["loose"].append(candidates & ~kept & ~partly)
        mask = wrote["block_mask"][head.place]
        fine = np.repeat(np.repeat(candidates, tile[0] // block[0], axis=0), tile[1] // block[1], axis=1)
        fine = fine[: mask.shape[0], : mask.shape[1]]
        bound = truth.tau[head.place] - 2.0 * truth.row_error[head.place] - 2.0**-20
        allowed = in_rows(stages.block_mask(head.z, bound, block[1]), block[0])
        allowed |= fine & in_rows(by_tiles[head.place][:, None], block[0])
        wrong_bits["outside"].append(mask & ~fine)
        wrong_bits["mask_loose"].append(mask & ~allowed)
    tau = truth.tau
    special = np.where(truth.nan_rows, np.inf, -np.inf)
    wrong = np.where(rows, False, wrote["row_max"] != special)
    # lo is rounded once more, when it is counted from 0.
    below = truth.row_error + np.spacing(np.abs(np.where(rows, tau, 0.0)).astype(np.float32)).astype(np.float64)
    tiled, single = rows & by_tiles, rows & ~by_tiles
    reference = np.where(np.isfinite(wrote["row_max"]), wrote["row_max"], 0.0)
    # A difference from row_max rounds once more, by at most the roundoff of a number up to 1.
    slack = (truth.row_error + 2.0 * ROUNDOFF)[tiled]
    lo, hi, first = ((wrote[name] + reference)[tiled] for name in ("tile_lo", "hi", "first_tau"))
    widest = -np.diff(stages.bin_edges(alpha=alpha)).min()
    checks = [
        _bounded("dense", "row_max", np.abs(wrote["row_max"] - highest)[rows], truth.row_error[rows]),
        _bounded("dense", "lo <= tau", (wrote["lo"] - tau)[rows], below[rows]),
        _count("dense", "rows without a key, or with NaN", wrong),
        _count("dense", "candidates missing", *wrong_bits["missing"]),
        _count("dense", "candidates too many", *wrong_bits["loose"]),
        _bounded("histogram", "lo <= tau", lo - tau[tiled], slack),
        _bounded("histogram", "tau <= hi", tau[tiled] - hi, slack),
        _bounded(
            "histogram",
            "hi - lo",
            hi - lo,
            np.full(lo.shape, widest + ROOT_MARGIN),
        ),
        _count("histogram", "first tau outside the bracket", (first < lo) | (first > hi)),
    ]
    for stage, of_stage in (("solve", single), ("refine", tiled)):
        tolerance = tolerance_of(load.query.dtype, alpha)
        found = tau_comparison(truth, wrote["tau"], tolerance, of_stage)
        checks += [
            StageCheck(stage, "tau", found.error, found.budget),
            StageCheck(stage, "residual", _largest(wrote["residual"][of_stage]), tolerance),
            _count(stage, "rows at the cap of passes", wrote["passes"][of_stage] >= MAX_PASSES),
        ]
    return [
        *checks,
        _count("block_mask", "bits outside the candidates", *wrong_bits["outside"]),
        _count("block_mask", "bits too many", *wrong_bits["mask_loose"]),
    ]


def _padded(hidden: Booleans, tile: tuple[int, int]) -> Booleans:
    """Return which pairs no query or no key makes up, up to whole tiles along the keys: those that do not exist too."""
    return np.pad(hidden, ((0, 0), (0, -hidden.shape[1] % tile[1])), constant_values=True)


def _candidate_bounds(head: Head, block: tuple[int, int], row_error: Floats) -> tuple[Booleans, Booleans]:
    """Return which blocks may be candidates and which must be, both (n_query_blocks, n_key_blocks).

    Two z and the difference of one of them and 1 are rounded.
    """
    blocks = stages.block_max(np.where(np.isnan(head.z), np.inf, head.z), block[1])
    running = np.maximum.accumulate(blocks[:, ::-1], axis=1)[:, ::-1]
    finite = np.where(np.isfinite(running), running, 0.0)
    margin = 2.0 * row_error[:, None] + np.spacing(np.abs(finite).astype(np.float32) + 1)
    seen = blocks > -np.inf
    poisoned = (running[:, :1] == np.inf) & np.ones(blocks.shape, dtype=np.bool_)
    with np.errstate(invalid="ignore"):
        above = np.where(poisoned | ~seen, np.inf, blocks - (running - 1.0))
    may, must = seen & (above > -margin), seen & (above > margin)
    # A tile with a poisoned row keeps every block that some row of it sees.
    spoiled = in_rows(poisoned, block[0])
    return in_rows(may, block[0]) | (spoiled & in_rows(seen, block[0])), in_rows(must, block[0])


def in_rows(per_row: Booleans, rows: int) -> Booleans:
    """Return which blocks of rows hold a True, column by column."""
    return in_blocks(per_row, (rows, 1))


def check_gathered(load: Workload, truth: Truth, run: StageRun, alpha: float) -> list[StageCheck]:
    """Judge the support that the gathering stages look up, where float32 can tell what is supported."""
    gathered = run.gathered
    missing, extra = [], []
    for head in each_head(load, alpha):
        listed = gathered.has_rows[head.place]
        gap = head.z[listed] - truth.tau[head.place][listed][:, None]
        margin = (2.0 * truth.row_error[head.place][listed] + 2.0**-20)[:, None]
        held = gathered.rows[head.place][listed]
        missing.append((gap > margin) & ~held)
        extra.append(held & ~(gap > -margin))
    turned = gathered.has_columns[..., None]
    differ = turned & (gathered.columns != gathered.rows.swapaxes(-1, -2))
    return [
        _count("solve", "support missing", *missing),
        _count("solve", "support too many", *extra),
        _count("columns", "pairs that differ", differ),
        _count("column_order", "columns that do not ascend", gathered.unordered),
    ]


def _check_products(load: Workload, truth: Truth, run: StageRun, naive: NaiveResult) -> list[StageCheck]:
    """Judge every row that the product stages wrote, as `judge` does; the worst row of each tensor is what is shown."""
    exact = {name: getattr(truth, name) for name in ("out", "d_query", "d_key", "d_value")}
    found = judge_results(
        run.forward | run.backward,
        exact,
        naive,
        truth.expected,
        load.query.dtype,
        names=("out", *compared_gradients(load)),
        rows=~truth.nan_rows,
    )
    owners = {"out": "output", "d_query": "backward_dq", "d_key": "backward_dkdv", "d_value": "backward_dkdv"}
    return [StageCheck(owners[name], name, one.error, one.budget) for name, one in found.items()]


def same_bits(answer: Answer, run: StageRun) -> StageCheck:
    """Count the numbers in which this run differs from the one through the public call."""
    names = ("out", "mass", "residual", "passes", "block_mask", "d_query", "d_key", "d_value")
    # The public call clears what no query sees.
    wrote = run.forward | run.backward | {"block_mask": run.forward["block_mask"] & run.visible}
    pairs = [(wrote[name], getattr(answer, name)) for name in names]
    return _count("repeat", "bits that differ", *((a != b) & ~((a != a) & (b != b)) for a, b in pairs))


def _bounded(stage: str, rule: str, error: Floats, bound: Floats) -> StageCheck:
    """Return the entry that comes closest to its bound, or exceeds it most; NaN is worse than anything."""
    if error.size == 0:
        return StageCheck(stage, rule, 0.0, 0.0)
    excess = np.where(np.isnan(error), np.inf, error - bound)
    worst = np.unravel_index(int(np.argmax(excess)), excess.shape)
    return StageCheck(stage, rule, float(error[worst]), float(bound[worst]))


def _count(stage: str, rule: str, *exceptions: Booleans) -> StageCheck:
    """Return a rule that allows no exception."""
    return StageCheck(stage, rule, float(sum(int(np.count_nonzero(part)) for part in exceptions)), 0.0)


def _largest(values: Floats) -> float:
    return float(values.max()) if values.size else 0.0
