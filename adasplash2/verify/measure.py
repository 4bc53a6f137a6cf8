"""What does one case show?  Input, oracle, naive evaluation, the implementation under test, and the verdict on it."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import numpy as np

from adasplash2.workloads import Workload

from .answer import Answer, answer_of
from .cases import Case
from .judge import Comparison, judge
from .naive import naive_attention
from .truth import Truth, each_head, in_blocks, live_blocks, truth_of

if TYPE_CHECKING:
    from .stage_checks import StageCheck

# Cells a side, at most, in the picture of a support.
PICTURE_CELLS = 256


@dataclasses.dataclass(frozen=True)
class Picture:
    """One head's support and the block mask over it, for the report.

    ``support`` holds (row, first column, end column) of runs of cells with support, a cell being ``cell`` queries by as
    many keys; ``mask`` and ``live`` are rows of blocks of ``block`` (queries, keys).
    """

    n_queries: int
    n_keys: int
    is_causal: bool
    cell: int
    block: tuple[int, int]
    support: tuple[tuple[int, int, int], ...]
    mask: tuple[tuple[bool, ...], ...]
    live: tuple[tuple[bool, ...], ...]


@dataclasses.dataclass(frozen=True)
class Result:
    """What one case showed; plain numbers, so that it travels between processes and into JSON.

    Attributes
    ----------
    case : Case
    note : str
        What is hard about the input.
    comparisons : dict of Comparison
        out, d_query, d_key, d_value (those that mean something; of all their rows, `judge.RowsComparison`), mass, tau,
        residual.
    passes : dict of int to int
        How many rows took that many refinement passes.
    live, lost : int
        Blocks that hold support beyond doubt, and those among them that the block mask dropped.
    skipped : float
        Share of the visible blocks that the mask leaves out.
    rows, nan_rows, empty_rows, undecided_rows : int
        All rows, and those of each kind (`truth.Truth`).
    stages : tuple of StageCheck
        Empty where the case does not run the stages one by one.
    failures : tuple of str
        Every rule that was broken; empty if the case passed.
    seconds : float
    picture : Picture, optional
    """

    case: Case
    note: str
    comparisons: dict[str, Comparison]
    passes: dict[int, int]
    live: int
    lost: int
    skipped: float
    rows: int
    nan_rows: int
    empty_rows: int
    undecided_rows: int
    stages: tuple[StageCheck, ...]
    failures: tuple[str, ...]
    seconds: float
    picture: Picture | None = None

    @property
    def passed(self) -> bool:
        """Whether no rule was broken."""
        return not self.failures


def measure(case: Case, device: str, impl: str) -> Result:
    """Run one case and judge it.

    Parameters
    ----------
    case : Case
    device : str
        Where the operands lie.
    impl : {"triton", "reference"}
        The kernels, compiled or interpreted as the process is set up; or the eager reference.

    Returns
    -------
    Result
        Also where the implementation raised: then with that as its failure.
    """
    start = time.perf_counter()
    load = case.load(device)
    truth = truth_of(load, case.alpha, case.seed)
    # The interpreter divides by the zeros of rows that it discards afterwards, as a GPU does without a word.
    with np.errstate(all="ignore"):
        try:
            answer = answer_of(load, truth.d_out, alpha=case.alpha, impl=impl)
        except Exception as error:  # a case that raises is a failed case, not the end of the run
            return _raised(case, load, truth, error, time.perf_counter() - start)
        naive = naive_attention(
            load.query,
            load.key,
            load.value,
            truth.d_out.to(load.query.device),
            alpha=case.alpha,
            is_causal=load.is_causal,
            scale=load.query.shape[-1] ** -0.5,
            mask=load.mask,
        )
        live = live_blocks(load, truth, case.alpha, answer.block)
        found = judge(load, truth, answer, naive, live, is_kernel=impl == "triton")
        stages: tuple[StageCheck, ...] = ()
        if case.stages and impl == "triton":
            from .stage_checks import check_stages  # needs triton

            stages = check_stages(load, truth, answer, naive, case.alpha)
    broken = tuple(
        f"stage {check.stage}: {check.rule}: {check.error:.2e}, at most {check.budget:.2e}"
        for check in stages
        if not check.passed
    )
    return Result(
        case=case,
        note=load.note,
        comparisons=found.comparisons,
        passes=found.passes,
        live=found.live,
        lost=found.lost,
        skipped=answer.skipped,
        rows=truth.tau.size,
        nan_rows=int(truth.nan_rows.sum()),
        empty_rows=int(truth.empty_rows.sum()),
        undecided_rows=int(truth.undecided_rows.sum()),
        stages=stages,
        failures=found.failures + broken,
        seconds=time.perf_counter() - start,
        picture=_picture(case, load, truth, answer) if case.picture else None,
    )


def _raised(case: Case, load: Workload, truth: Truth, error: Exception, seconds: float) -> Result:
    lines = str(error).strip().splitlines() or [""]
    failure = f"{type(error).__name__}: {lines[0][:200]}"
    rows = truth.tau.size
    return Result(case, load.note, {}, {}, 0, 0, 0.0, rows, 0, 0, 0, (), (failure,), seconds)


def _picture(case: Case, load: Workload, truth: Truth, answer: Answer) -> Picture:
    """Return the first head's support, in cells, and its block mask."""
    head = next(each_head(load, case.alpha))
    support = head.z > truth.tau[head.place][:, None]
    cell = -(-max(support.shape) // PICTURE_CELLS)
    cells = np.pad(in_blocks(support, (cell, cell)), ((0, 0), (1, 1)))
    runs = []
    for row, line in enumerate(cells):
        changes = np.flatnonzero(line[1:] != line[:-1])
        runs += [(row, int(first), int(end)) for first, end in zip(changes[::2], changes[1::2], strict=True)]
    exact = live_blocks(load, truth, case.alpha, answer.block, margin=0.0)[head.place]
    return Picture(
        support.shape[0],
        support.shape[1],
        load.is_causal,
        cell,
        answer.block,
        tuple(runs),
        tuple(tuple(bool(bit) for bit in line) for line in answer.block_mask[head.place]),
        tuple(tuple(bool(bit) for bit in line) for line in exact),
    )
