"""How do the contenders do in one case?  Each by itself first, then in turns on the same tensors."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from adasplash2.bench.shared.entries import with_times
from adasplash2.bench.shared.faults import first_line, recover
from adasplash2.bench.shared.timing import in_turns, synchronize
from adasplash2.bench.shared.tuning import Tuning
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
        Seconds that adasplash may spend on tuning itself (`Tuning`).
    """

    def __init__(self, device: str, names: Sequence[str], rounds: int, tuning_s: float) -> None:
        self._device = device
        self._names = names
        self._rounds = rounds
        self._tuning = Tuning(tuning_s)

    def entries(self, case: Case, load: Workload, d_out: torch.Tensor, sample: Sample | None) -> tuple[Entry, ...]:
        """Return what each contender did; one that raises has failed, and the others go on."""
        contenders = contenders_of(case, self._names)
        found = {one.name: self._first(case, one, load, d_out, sample) for one in contenders}
        leaves = leaves_of(load)
        runs: dict[str, Callable[[], object]] = {}
        for one in contenders:
            if found[one.name].status == "ok":
                runs[f"{one.name} forward"] = _forward(one, load)
                runs[f"{one.name} step"] = step_of(one, leaves, d_out)
        times = in_turns(runs, self._rounds, self._device)
        return tuple(with_times(entry, times) for entry in found.values())

    def _first(self, case: Case, one: Contender, load: Workload, d_out: torch.Tensor, sample: Sample | None) -> Entry:
        """Return the entry of a contender's first forward and backward, with errors and memory."""
        refusal = one.refusal or self._tuning.refusal(one.name, case.length, case.head_dim)
        if refusal:
            return Entry(one.name, "refused", refusal)
        leaves = leaves_of(load)
        start = time.perf_counter()
        try:
            with self._tuning.spending(one.name, case.length, case.head_dim):
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
        recover(self._device, one.name)
        return failed


def leaves_of(load: Workload) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return query, key and value, of which gradients are asked."""
    query, key, value = (part.detach().requires_grad_() for part in (load.query, load.key, load.value))
    return query, key, value


def _forward(one: Contender, load: Workload) -> Callable[[], object]:
    def run() -> None:
        with torch.no_grad():
            one.attention(load.query, load.key, load.value)

    return run


def step_of(
    one: Contender, leaves: tuple[torch.Tensor, torch.Tensor, torch.Tensor], d_out: torch.Tensor
) -> Callable[[], object]:
    """Return what runs a contender's forward and backward."""
    return lambda: torch.autograd.grad(one.attention(*leaves), leaves, d_out)
