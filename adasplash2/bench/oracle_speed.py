"""How long does the oracle take, next to one sort of the same array?

Times ``numpy.sort``, ``threshold`` and ``entmax`` on square arrays of several kinds, interleaved, and writes medians.

``python -m adasplash2.bench.oracle_speed --out docs/results/oracle_speed.json`` makes the record that the documentation
shows.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from entmax_ref.arguments import Floats
from entmax_ref.rows.threshold import threshold
from entmax_ref.transform import entmax

from .oracle_record import write

COMMAND = "python -m adasplash2.bench.oracle_speed"
ALPHAS = (1.25, 1.5, 2.0)
# What a row is made of: few keys may be supported, all may, or many are equal.
KINDS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "N(0, 1)": lambda rng, shape: rng.normal(size=shape),
    "N(0, 4^2)": lambda rng, shape: 4.0 * rng.normal(size=shape),
    "N(0, 0.1^2)": lambda rng, shape: 0.1 * rng.normal(size=shape),
    "multiples of 1/8": lambda rng, shape: np.round(8.0 * rng.normal(size=shape)) / 8.0,
    "N(0, 0.01^2)": lambda rng, shape: 0.01 * rng.normal(size=shape),
}


def measure(kind: str, n: int, repeats: int, seed: int) -> dict[str, float]:
    """Return median seconds of each contender on one (n, n) array of a kind of ``KINDS``; one warm-up before."""
    scores = KINDS[kind](np.random.default_rng(seed), (n, n))
    contenders: dict[str, Callable[[], object]] = {"sort": lambda: np.sort(scores, axis=-1)}
    for alpha in ALPHAS:
        contenders[f"threshold {alpha:g}"] = lambda alpha=alpha: threshold(scores, alpha)  # type: ignore[misc]
        contenders[f"entmax {alpha:g}"] = lambda alpha=alpha: entmax(scores, alpha)  # type: ignore[misc]
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken[1:]) for name, taken in seconds.items()}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table of ratios to the sort, and write the record."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--n", type=int, default=4096, help="rows, and keys of a row")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    results = []
    for kind in KINDS:
        seconds = measure(kind, options.n, options.repeats, options.seed)
        results.append({"kind": kind, "seconds": seconds})
        ratios = (f"{name} {taken / seconds['sort']:.2f}" for name, taken in seconds.items() if name != "sort")
        print(f"{kind:<18}sort {seconds['sort']:.3f} s, times as long: " + ", ".join(ratios), flush=True)
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    write(options.out, COMMAND, arguments, ("numpy",), results, machine=machine, n=options.n)
    return 0


if __name__ == "__main__":
    sys.exit(main())
