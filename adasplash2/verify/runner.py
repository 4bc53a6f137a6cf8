"""In which process does each case run?  In this one, or spread over a few; the results do not depend on it."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
from collections.abc import Callable

import torch

from adasplash2.runs.machine import usable_cores

from .cases import Case
from .measure import Result, measure

_MOST_JOBS = 8


def default_jobs(device: str) -> int:
    """Return how many processes to use: one a core, up to a limit; a GPU waits for its compiler and its oracle."""
    cores = len(usable_cores())
    return max(1, min(_MOST_JOBS, cores if device == "cpu" else cores // 2))


def run_cases(cases: list[Case], device: str, impl: str, jobs: int, on_result: Callable[[int, Result], None]) -> None:
    """Run every case and hand each result over, with the index of its case, as it comes.

    Parameters
    ----------
    cases : list of Case
    device : str
    impl : {"triton", "reference"}
    jobs : int
        Processes; 1 runs everything in this one.
    on_result : callable
        Called in this process, in the order in which cases end.

    Raises
    ------
    KeyboardInterrupt
        After the processes were ended.
    concurrent.futures.BrokenExecutor
        If a process died, as it does when it is out of memory.
    """
    jobs = min(jobs, len(cases))
    if jobs <= 1:
        for index in order(cases, jobs):
            on_result(index, measure(cases[index], device, impl))
        return
    threads = max(1, len(usable_cores()) // jobs)
    # NumPy's and torch's libraries read it at import, so the processes that start from here see it in time.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # Spawned, not forked: a forked process cannot use CUDA.
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(jobs, context, torch.set_num_threads, (threads,))
    # The processes inherit that they ignore Ctrl-C; this one answers to it.
    answer = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        waiting = {pool.submit(measure, cases[index], device, impl): index for index in order(cases, jobs)}
    finally:
        signal.signal(signal.SIGINT, answer)
    try:
        for future in concurrent.futures.as_completed(waiting):
            on_result(waiting[future], future.result())
    except BaseException:
        processes = list(getattr(pool, "_processes", {}).values())
        for process in processes:
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.join()
        raise
    pool.shutdown()


def order(cases: list[Case], jobs: int) -> list[int]:
    """Return the order in which cases begin: as they come in one process, else as `spread` has them."""
    return spread(cases) if min(jobs, len(cases)) > 1 else list(range(len(cases)))


def scores_of(case: Case) -> int:
    """Return how many scores a case has, twice if every stage also runs by itself."""
    return case.batch * case.heads * case.n_queries * case.n_keys * (2 if case.stages else 1)


def spread(cases: list[Case]) -> list[int]:
    """Return the order to start cases in: one of each kind that compiles anew first, the largest before the smaller."""
    seen: dict[tuple[object, ...], int] = {}
    rank = []
    for index, case in enumerate(cases):
        kind = (case.dtype, case.head_dim, case.is_causal, case.alpha, case.heads, case.n_queries)
        seen[kind] = seen.get(kind, -1) + 1
        rank.append((seen[kind], -scores_of(case), index))
    return [index for *_, index in sorted(rank)]
