"""Does every stage by itself do what ``entmax_ref.stages`` specifies?  Run one by one, judged in float64."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from adasplash2 import launch
from adasplash2.problem import MAX_PASSES, Problem
from adasplash2.state import empty_backward, empty_forward, unpack_mask
from adasplash2.workloads import Workload
from entmax_ref import stages

from .answer import Answer
from .judge import budget, compared_gradients, relative_error, tau_comparison
from .naive import NaiveResult
from .truth import ROUNDOFF, Booleans, Floats, Head, Truth, as_floats, each_head, gamma, in_blocks

# The widest bin of the histogram, and the relative margin of its roots (kernels/histogram.py, ROOT_ERROR).
WIDEST_BIN = 0.25
ROOT_MARGIN = 2.0**-16
_FORWARD = ("row_max", "lo", "hi", "tau", "mass", "residual", "centre")


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
    """What the stages wrote, moved to NumPy; masks as booleans (batch, heads, blocks, blocks)."""

    forward: dict[str, Any]
    backward: dict[str, Any]
    problem: Problem


def run_stages(load: Workload, d_out: torch.Tensor, alpha: float) -> StageRun:
    """Run the calls of `launch` in their order, each by itself, and keep what each stage wrote."""
    query, key, value, grad = load.query, load.key, load.value, d_out.to(load.query.device)
    problem = Problem.of(
        query,
        key,
        alpha=alpha,
        scale=query.shape[-1] ** -0.5,
        is_causal=load.is_causal,
        backend=launch.BACKEND,
    )
    q, k, v, d_o = (launch.as_operand_dtype(part) for part in (query, key, value, grad))
    state = empty_forward(problem, q)
    kept: dict[str, Any] = {}
    with launch.device_of(query):
        for call in launch.forward_calls(problem, q, k, v, state):
            call.run()
            if call.stage == "histogram":
                kept["first_tau"] = state.tau.clone()
        after = empty_backward(problem, q, k, v)
        left = (state.centre, state.row_max, state.tau, state.block_mask)
        for call in launch.backward_calls(problem, d_o, q, k, v, *left, after):
            call.run()
    rows, heads = problem.n_query_blocks, (problem.batch, problem.heads)
    forward = {name: as_floats(getattr(state, name)) for name in _FORWARD}
    forward |= {"out": as_floats(state.out.to(query.dtype))}
    forward |= {name: as_floats(tensor) for name, tensor in kept.items()}
    forward["passes"] = state.passes.long().cpu().numpy()
    for name in ("candidates", "block_mask"):
        forward[name] = unpack_mask(getattr(state, name), problem.n_key_blocks).unflatten(0, heads).cpu().numpy()
    backward = {"delta": as_floats(after.delta)}
    backward |= {name: as_floats(getattr(after, name).to(query.dtype)) for name in ("d_query", "d_key", "d_value")}
    backward["transposed"] = unpack_mask(after.transposed, rows).unflatten(0, heads).cpu().numpy()
    return StageRun(forward, backward, problem)


def check_stages(
    load: Workload, truth: Truth, answer: Answer, naive: NaiveResult, alpha: float
) -> tuple[StageCheck, ...]:
    """Run and judge every stage of one case, and demand the bits that ``answer`` has."""
    run = run_stages(load, truth.d_out, alpha)
    checks = check_rows(load, truth, run, alpha)
    checks += _check_products(load, truth, run, naive, alpha)
    checks.append(check_delta(truth, run))
    turned = np.swapaxes(run.forward["block_mask"], -1, -2)
    checks.append(_count("block_mask", "transpose, bit by bit", turned != run.backward["transposed"]))
    checks.append(same_bits(answer, run))
    return tuple(checks)


def check_rows(load: Workload, truth: Truth, run: StageRun, alpha: float) -> list[StageCheck]:
    """Judge what the stages say of each row, and of the blocks that it may need."""
    wrote, launch_row = run.forward, run.problem.launch
    block = (launch_row.block_m, launch_row.block_n)
    rows = ~truth.nan_rows & ~truth.empty_rows
    highest = np.zeros(truth.tau.shape)
    wrong_bits: dict[str, list[Booleans]] = {name: [] for name in ("missing", "loose", "outside", "mask_loose")}
    for head in each_head(load, alpha):
        highest[head.place], _ = stages.row_max(head.z, block[1])
        kept, needed = _candidate_bounds(head, block, truth.row_error[head.place])
        candidates = wrote["candidates"][head.place]
        wrong_bits["missing"].append(needed & ~candidates)
        wrong_bits["loose"].append(candidates & ~kept)
        bound = wrote["lo"] + wrote["row_max"] - truth.row_error - 2.0 * ROUNDOFF
        mask = wrote["block_mask"][head.place]
        allowed = in_rows(stages.block_mask(head.z, bound[head.place], block[1]), block[0])
        wrong_bits["outside"].append(mask & ~candidates)
        wrong_bits["mask_loose"].append(mask & ~allowed)
    reference = np.where(np.isfinite(wrote["row_max"]), wrote["row_max"], 0.0)
    # A shifted score rounds once more, by at most the roundoff of a number up to 1.
    slack = (truth.row_error + 2.0 * ROUNDOFF)[rows]
    lo, hi, first = ((wrote[name] + reference)[rows] for name in ("lo", "hi", "first_tau"))
    tau = truth.tau[rows]
    special = np.where(truth.nan_rows, np.inf, -np.inf)
    wrong = np.where(rows, False, wrote["row_max"] != special)
    refined = tau_comparison(truth, wrote["tau"] + reference, run.problem.tolerance, rows)
    return [
        _bounded("row_max", "row_max", np.abs(wrote["row_max"] - highest)[rows], truth.row_error[rows]),
        _count("row_max", "rows without a key, or with NaN", wrong),
        _count("row_max", "candidate bits missing", *wrong_bits["missing"]),
        _count("row_max", "candidate bits too many", *wrong_bits["loose"]),
        _bounded("histogram", "lo <= tau", lo - tau, slack),
        _bounded("histogram", "tau <= hi", tau - hi, slack),
        _bounded("histogram", "hi - lo", hi - lo, np.full(lo.shape, WIDEST_BIN + ROOT_MARGIN)),
        _count("histogram", "first tau outside the bracket", (first < lo) | (first > hi)),
        StageCheck("refine", "tau", refined.error, refined.budget),
        StageCheck("refine", "residual", _largest(wrote["residual"][rows]), run.problem.tolerance),
        _count("refine", "rows at the cap of passes", wrote["passes"][rows] >= MAX_PASSES),
        _count("refine", "mask outside the candidates", *wrong_bits["outside"]),
        _count("refine", "mask bits too many", *wrong_bits["mask_loose"]),
    ]


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


def _check_products(load: Workload, truth: Truth, run: StageRun, naive: NaiveResult, alpha: float) -> list[StageCheck]:
    """Compare what the product stages wrote with the specification at the exact threshold."""
    grad, scale = as_floats(truth.d_out), load.query.shape[-1] ** -0.5
    exact = {name: np.zeros(load.query.shape) for name in ("out", "centre", "d_query")}
    exact |= {name: np.zeros(load.key.shape) for name in ("d_key", "d_value")}
    with np.errstate(invalid="ignore", over="ignore"):
        for head in each_head(load, alpha):
            place, kv_place, tau = head.place, head.kv_place, truth.tau[head.place]
            exact["out"][place], exact["centre"][place], _ = stages.output(head.z, tau, head.value, alpha)
            delta = stages.delta(exact["centre"][place], grad[place])
            shared = (head.z, tau)
            exact["d_query"][place] = stages.backward_dq(
                *shared, head.key, head.value, grad[place], delta, scale, alpha
            )
            d_key, d_value = stages.backward_dkdv(*shared, head.query, head.value, grad[place], delta, scale, alpha)
            exact["d_key"][kv_place] += d_key
            exact["d_value"][kv_place] += d_value
    owners = {"out": "output", "centre": "output", "d_query": "backward_dq"}
    owners |= {"d_key": "backward_dkdv", "d_value": "backward_dkdv"}
    checks = []
    for name in ("out", "centre", *compared_gradients(load)):
        rows = slice(None) if name in ("d_key", "d_value") else ~truth.nan_rows
        result = (run.forward | run.backward)[name][rows]
        plain = getattr(naive, name).numpy()[rows]
        error = relative_error(result, exact[name][rows])
        checks.append(StageCheck(owners[name], name, error, budget(plain, exact[name][rows], load.query.dtype)))
    return checks


def check_delta(truth: Truth, run: StageRun) -> StageCheck:
    """Compare delta with the float64 product of the centre that the stage read: a float32 sum may be off by gamma."""
    rows = ~truth.nan_rows
    centre, grad = run.forward["centre"][rows], as_floats(truth.d_out)[rows]
    bound = gamma(centre.shape[-1]) * np.sum(np.abs(centre * grad), axis=-1)
    return _bounded("delta", "delta", np.abs(run.backward["delta"][rows] - stages.delta(centre, grad)), bound)


def same_bits(answer: Answer, run: StageRun) -> StageCheck:
    """Count the numbers in which this run differs from the one through the public call."""
    names = ("out", "mass", "residual", "passes", "block_mask", "d_query", "d_key", "d_value")
    wrote = run.forward | run.backward
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
