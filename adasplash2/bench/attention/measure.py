"""What does one case show?  Every contender on the same tensors: time, memory, error; and where our own time goes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from adasplash2 import AttentionAux, entmax_attention
from adasplash2.bench.shared import stages
from adasplash2.bench.shared.faults import first_line, is_gpu, recover
from adasplash2.bench.shared.stages import random_like
from adasplash2.bench.shared.timing import stage_times
from adasplash2.verify.cases import DTYPES
from adasplash2.workloads import Workload, workload

from .accuracy import Sample, sample_of
from .cases import Case
from .contest import Contest
from .flex import flex_check
from .floor import Floor, floor_of, matrix_rate
from .record import CaseResult, RowReport, StageTime
from .sparsity import Support, support_of

Found = TypeVar("Found")


class Bench:
    """Measures cases; what they share is kept between them.

    Parameters
    ----------
    device : str
    contest : Contest
    flex : bool
        Also check tau with FlexAttention.
    rate_size : int
        Rows of the matrices of the product that tells the rate of the matrix units.

    Attributes
    ----------
    rates : dict of str to float
        Operations a second, by dtype, as far as they were needed.
    """

    def __init__(self, device: str, contest: Contest, *, flex: bool = False, rate_size: int = 8192) -> None:
        self._device = device
        self._contest = contest
        self._flex = flex
        self._rate_size = rate_size
        self._load: tuple[tuple[object, ...], Workload] | None = None
        self.rates: dict[str, float] = {}

    def measure(self, case: Case) -> CaseResult:
        """Return the result of one case; what a part of it raises is recorded, and the others go on.

        Raises
        ------
        DeviceLostError
            After which nothing more can be measured in this process.
        """
        start = time.perf_counter()
        failures: list[str] = []

        def attempt(what: str, part: Callable[[], Found]) -> Found | None:
            try:
                return part()
            except Exception as error:
                failures.append(f"{what}: {first_line(error)}")
            recover(self._device, what)
            return None

        load = self._operands(case)
        d_out = random_like(load.query, seed=1)
        sample = attempt("oracle", lambda: sample_of(load, d_out, case.alpha))
        entries = self._contest.entries(case, load, d_out, sample)
        result = CaseResult(case, entries, naive={} if sample is None else sample.naive)
        found = attempt("rows", lambda: _rows(load, case.alpha, sample))
        if found is not None:
            out, aux, rows = found
            support = attempt("sparsity", lambda: _support(load, case.alpha, aux.tau))
            floor = None if support is None else attempt("floor", lambda: self._floor(case, support))
            result = dataclasses.replace(result, rows=rows, support=support, floor=floor)
            if self._flex:
                compiled = is_gpu(self._device)
                check = attempt("flex", lambda: flex_check(load, out, aux.tau, case.alpha, compiled=compiled))
                result = dataclasses.replace(result, flex=check)
            times = attempt("stages", lambda: _stages(load, d_out, case.alpha, floor, self._device))
            result = dataclasses.replace(result, stages=times or ())
        return dataclasses.replace(result, failures=tuple(failures), seconds=time.perf_counter() - start)

    def _operands(self, case: Case) -> Workload:
        """Return the operands, which cases of another mask or alpha share."""
        key = (case.workload, case.dtype, case.shape)
        if self._load is None or self._load[0] != key:
            self._load = None  # before the next one needs the room
            load = workload(
                case.workload,
                batch=case.batch,
                heads=case.heads,
                n_queries=case.length,
                head_dim=case.head_dim,
                dtype=DTYPES[case.dtype],
                device=self._device,
            )
            self._load = key, load
        return dataclasses.replace(self._load[1], is_causal=case.is_causal)

    def _floor(self, case: Case, support: Support) -> Floor:
        if case.dtype not in self.rates:
            self.rates[case.dtype] = matrix_rate(DTYPES[case.dtype], self._device, self._rate_size)
        return floor_of(case, support.live_blocks, self.rates[case.dtype])


def _rows(load: Workload, alpha: float, sample: Sample | None) -> tuple[torch.Tensor, AttentionAux, RowReport]:
    """Return our output, its report, and a summary of that."""
    with torch.no_grad():
        out, aux = entmax_attention(
            load.query, load.key, load.value, alpha=alpha, is_causal=load.is_causal, impl="triton", return_aux=True
        )
    steps, counts = torch.unique(aux.passes, return_counts=True)
    report = RowReport(
        passes={int(step): int(count) for step, count in zip(steps.tolist(), counts.tolist(), strict=True)},
        residual=float(aux.residual.max()),
        mass_error=float((aux.mass - 1.0).abs().max()),
        tau_error=None if sample is None else sample.tau_error(aux.tau),
        skipped=float(aux.skipped),
    )
    return out, aux, report


def _support(load: Workload, alpha: float, tau: torch.Tensor) -> Support:
    scale = load.query.shape[-1] ** -0.5
    return support_of(load.query, load.key, tau, alpha=alpha, is_causal=load.is_causal, scale=scale)


def _stages(
    load: Workload, d_out: torch.Tensor, alpha: float, floor: Floor | None, device: str
) -> tuple[StageTime, ...]:
    """Return our stages, forward and then backward, with their floors."""
    forward = stages.forward_stages(load, alpha)
    times = stage_times(lambda: forward()[0], device)
    times += stage_times(stages.backward_stages(load, d_out, alpha), device)
    return tuple(StageTime(name, ms, None if floor is None else floor.stage_ms(name)) for name, ms in times)
