"""How do the contenders do in one case?  Each by itself first, then in turns on the same tensors."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import torch

from adasplash2.bench.shared.faults import first_line, recover
from adasplash2.bench.shared.timing import in_turns, synchronize
from adasplash2.workloads import Workload

from .accuracy import Sample
from .cases import Case
from .contenders import ENTMAX, Contender, contenders_of
from .memory import measure_memory
from .record import Entry


class Contest:
    """Times contenders, case after case.

    Parameters
    ----------
    device : str
    names : sequence of str
        Contenders.
    rounds : int
        Turns that they take in each case.
    tuning_s : float
        Seconds that adasplash may spend on tuning itself. It does so at its first call of each length and head_dim;
        once they are spent, no such call is made.
    """

    def __init__(self, device: str, names: Sequence[str], rounds: int, tuning_s: float) -> None:
        self._device = device
        self._names = names
        self._rounds = rounds
        self._tuning_s = tuning_s
        self._tuned: dict[tuple[int, int], float] = {}

    def entries(self, case: Case, load: Workload, d_out: torch.Tensor, sample: Sample | None) -> tuple[Entry, ...]:
        """Return what each contender did; one that raises has failed, and the others go on."""
        contenders = contenders_of(case, self._names)
        found = {one.name: self._first(case, one, load, d_out, sample) for one in contenders}
        leaves = _leaves(load)
        runs: dict[str, Callable[[], object]] = {}
        for one in contenders:
            if found[one.name].status == "ok":
                runs[f"{one.name} forward"] = _forward(one, load)
                runs[f"{one.name} step"] = _step(one, leaves, d_out)
        times = in_turns(runs, self._rounds, self._device)
        for one in contenders:
            entry = found[one.name]
            if entry.status == "ok":
                forward, step = times[f"{one.name} forward"], times[f"{one.name} step"]
                if isinstance(forward, str) or isinstance(step, str):
                    note = forward if isinstance(forward, str) else str(step)
                    found[one.name] = dataclasses.replace(entry, status="failed", note=note)
                else:
                    found[one.name] = dataclasses.replace(entry, forward_ms=tuple(forward), step_ms=tuple(step))
        return tuple(found.values())

    def _first(self, case: Case, one: Contender, load: Workload, d_out: torch.Tensor, sample: Sample | None) -> Entry:
        """Return the entry of a contender's first forward and backward, with errors and memory."""
        refusal = one.refusal or self._tuning_refusal(case, one)
        if refusal:
            return Entry(one.name, "refused", refusal)
        leaves = _leaves(load)
        start = time.perf_counter()
        try:
            out = one.attention(*leaves)
            gradients = torch.autograd.grad(out, leaves, d_out)
            synchronize(self._device)
            seconds = time.perf_counter() - start
            errors = sample.errors(out, gradients[0]) if sample is not None and one.name in ENTMAX else {}
            del out, gradients
            memory = measure_memory(
                lambda: one.attention(*leaves),
                lambda result: torch.autograd.grad(result, leaves, d_out),
                self._device,
            )
        except Exception as error:
            failed = Entry(one.name, "failed", first_line(error))
        else:
            return Entry(one.name, first_call_s=seconds, memory=memory, errors=errors)
        finally:
            if one.name == "adasplash":
                self._tuned.setdefault((case.length, case.head_dim), time.perf_counter() - start)
        recover(self._device, one.name)
        return failed

    def _tuning_refusal(self, case: Case, one: Contender) -> str:
        spent = sum(self._tuned.values())
        if one.name != "adasplash" or (case.length, case.head_dim) in self._tuned or spent < self._tuning_s:
            return ""
        return f"not run: it tunes itself for each length and head_dim, and took {spent:.0f} s so far (--tuning-time)"


def _leaves(load: Workload) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    query, key, value = (part.detach().requires_grad_() for part in (load.query, load.key, load.value))
    return query, key, value


def _forward(one: Contender, load: Workload) -> Callable[[], object]:
    def run() -> None:
        with torch.no_grad():
            one.attention(load.query, load.key, load.value)

    return run


def _step(
    one: Contender, leaves: tuple[torch.Tensor, torch.Tensor, torch.Tensor], d_out: torch.Tensor
) -> Callable[[], object]:
    return lambda: torch.autograd.grad(one.attention(*leaves), leaves, d_out)
