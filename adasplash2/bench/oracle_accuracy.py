"""How exact is the oracle, measured?  ``python -m adasplash2.bench.oracle_accuracy --rows 100000 --out FILE``

Draws rows, certifies each (`entmax_ref.certify`), and records the worst error of the oracle next to its published
bound. The package ``entmax`` is measured on the same rows if it is installed.
"""

import argparse
import importlib
import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from entmax_ref import bounds
from entmax_ref.arguments import Booleans, Floats
from entmax_ref.certify import Certificate, certify
from entmax_ref.rows.threshold import threshold
from entmax_ref.transform import entmax, support

from .oracle_record import write

COMMAND = "python -m adasplash2.bench.oracle_accuracy"
ALPHAS = (1.001, 1.1, 1.25, 4 / 3, 1.5, 1.75, 2.0, 2.5, 4.0)
KINDS = ("gaussian", "grid", "near", "wide", "equal", "clusters", "offset", "edge")
SHORT_ROWS, LONG_ROWS = 500, 20  # of one block, which are of one kind and one length
LONG = (100, 300, 1000, 3000)  # one block in eleven, so that every kind has some
ULP = 2.0**-52

Worst = dict[str, float]


def rows_of(block: int) -> int:
    """Return how many rows a block has."""
    return LONG_ROWS if block % 11 == 10 else SHORT_ROWS


def draw(alpha: float, block: int, seed: int) -> Floats:
    """Return the rows of one block, all of one kind and one length.

    Parameters
    ----------
    alpha : float
        Decides where the edge of the support is, and nothing else.
    block : int
        The kind cycles with it, and every eleventh block is of long rows.
    seed : int

    Returns
    -------
    scores : ndarray of float64, shape (rows, n)
        ``edge`` rows have one key within 8 units in the last place of where tau is without it; ``offset`` rows lie
        around 3 to 1e15; the others are what their names say.

    Examples
    --------
    >>> draw(1.5, 0, seed=1).shape[0]
    500
    """
    rng = np.random.default_rng([seed, block])
    kind, count = KINDS[block % len(KINDS)], rows_of(block)
    n = int(rng.choice(LONG)) if count == LONG_ROWS else int(rng.integers(1, 33))
    scale: Floats = rng.choice(np.array([0.01, 0.3, 1.0, 4.0]), size=(count, 1))
    plain: Floats = rng.normal(size=(count, n)) * scale
    steps: Floats = rng.integers(-4, 5, size=(count, n)).astype(np.float64)
    if kind == "grid":
        return rng.integers(-16, 17, size=(count, n)).astype(np.float64) / 8.0
    if kind == "near":
        return steps * 2.0**-50
    if kind == "wide":
        return rng.uniform(-1e3, 1e3, size=(count, n))
    if kind == "equal":
        return np.repeat(plain[:, :1], n, axis=1)
    if kind == "clusters":
        return np.round(plain, 1) + steps * 2.0**-50
    if kind == "offset":
        offset: Floats = rng.choice(np.array([3.0, -1e4, 1e8, -1e15]), size=(count, 1))
        return plain + offset
    if kind == "edge":
        edge = threshold(plain, alpha) / (alpha - 1.0)
        nudge = rng.integers(-8, 9, size=count) * np.spacing(np.maximum(1.0, np.abs(edge)))
        return np.concatenate([plain, (edge + nudge)[:, None]], axis=1)
    return plain


def peers(alpha: float) -> dict[str, Callable[[Floats], Floats]]:
    """Return the maps of the package ``entmax`` for this alpha, from and to float64; none if it is not installed."""
    try:
        other, torch = importlib.import_module("entmax"), importlib.import_module("torch")
    except ImportError:
        return {}
    torch.set_num_threads(1)
    found: dict[str, Any] = {"entmax_bisect": lambda rows: other.entmax_bisect(rows, alpha=alpha, dim=-1)}
    if alpha == 1.5:
        found["entmax15 (sort)"] = lambda rows: other.entmax15(rows, dim=-1)
    if alpha == 2.0:
        found["sparsemax (sort)"] = lambda rows: other.sparsemax(rows, dim=-1)
    return {name: _through_torch(torch, function) for name, function in found.items()}


def _through_torch(torch: Any, function: Any) -> Callable[[Floats], Floats]:
    def call(scores: Floats) -> Floats:
        found: Floats = function(torch.from_numpy(scores.copy())).numpy()
        return found

    return call


def measure(task: tuple[float, int, int]) -> dict[str, Worst]:
    """Draw and certify one block, and return the worst errors of each implementation.

    Parameters
    ----------
    task : (alpha, block, seed)

    Returns
    -------
    worst : dict
        By implementation, ``entmax_ref`` first. Errors are upper ends of certified enclosures; those that end in
        ``_centred`` leave out the rows at an offset.
    """
    alpha, block, seed = task
    scores = draw(alpha, block, seed)
    start = time.perf_counter()
    proof = certify(scores, alpha)
    seconds = time.perf_counter() - start
    row_max = (alpha - 1.0) * scores.max(axis=-1)
    unit = np.spacing(np.maximum(1.0, np.abs(row_max)))
    tau_error, tau_bound = proof.tau_error(threshold(scores, alpha))[1], bounds.threshold(scores, alpha)
    probs = entmax(scores, alpha)
    probs_error, probs_bound = proof.probs_error(probs)[1], bounds.entmax(scores, alpha)
    worst, worst_prob = int(np.argmax(tau_error / unit)), int(np.argmax(probs_error))
    own = _of_probs(scores, probs, support(scores, alpha), proof)
    own |= {
        "tau_ulps": float(tau_error[worst] / unit[worst]),
        "tau_bound_ulps": float(tau_bound[worst] / unit[worst]),
        "tau_of_bound": _share(tau_error, tau_bound),
        "probs_bound_ulps": float(probs_bound.flat[worst_prob] / ULP),
        "probs_of_bound": _share(probs_error, probs_bound),
        "undecided": float(np.count_nonzero(proof.undecided)),
        "decided": float(np.count_nonzero(~proof.undecided)),
        "rows": float(scores.shape[0]),
        "certify_seconds": seconds,
    }
    found = {"entmax_ref": own}
    for name, function in peers(alpha).items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other = function(scores)
        found[name] = _of_probs(scores, other, other > 0.0, proof)
        found[name]["tau_ulps"] = float(np.max(_implied_tau_error(other, alpha, proof) / unit))
    is_centred = KINDS[block % len(KINDS)] != "offset"
    for values in found.values():
        values |= {f"{name}_centred": values[name] if is_centred else 0.0 for name in ("tau_ulps", "probs_ulps")}
    return found


def _share(error: Floats, bound: Floats) -> float:
    """Return the largest error over its bound; 0 / 0 is 0, and NaN counts as an error of infinity."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(error == 0.0, 0.0, error / bound)
    return float(np.max(np.where(np.isnan(share), np.inf, share)))


def _of_probs(scores: Floats, probs: Floats, inside: Booleans, proof: Certificate) -> Worst:
    """Return what can be said of probabilities alone. NaN counts as an error of infinity."""
    error = np.where(np.isnan(probs), np.inf, proof.probs_error(probs)[1])
    # A probability too small for a normal float64 may come out as 0.
    missing = proof.in_support & ~inside & (proof.probs_lo >= np.finfo(np.float64).tiny)
    wrong = missing | (proof.out_of_support & inside)
    total = np.abs(np.sum(probs, axis=-1, dtype=np.longdouble) - 1.0).astype(np.float64)
    return {
        "probs_ulps": float(np.max(error) / ULP),
        "sum_ulps": float(np.max(np.where(np.isnan(total), np.inf, total)) / (ULP * np.sqrt(scores.shape[1]))),
        "wrong_support": float(np.count_nonzero(wrong)),
        "wrong_probs": float(np.max(np.where(wrong, np.maximum(probs, proof.probs_hi), 0.0))),
    }


def _implied_tau_error(probs: Floats, alpha: float, proof: Certificate) -> Floats:
    """Return how far off tau is that the largest probability implies, ``row_max - max(probs) ** (alpha - 1)``.

    It is formed from the relative error of that probability, so nothing is lost to the offset of the row.
    """
    best = np.argmax(proof.probs, axis=-1)[:, None]
    exact, found = (np.take_along_axis(part, best, axis=-1)[:, 0] for part in (proof.probs, probs))
    rest = np.take_along_axis(proof.probs_rest, best, axis=-1)[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = np.log1p(((found - exact) - rest) / exact)
        error = np.abs(exact ** (alpha - 1.0) * np.expm1((alpha - 1.0) * moved))
    return np.where(np.isnan(error), np.inf, error)


def combine(parts: Iterator[dict[str, Worst]]) -> dict[str, Worst]:
    """Return the worst of several blocks: counts add up, errors are maximised, a bound follows its error."""
    counts = {"rows", "decided", "undecided", "wrong_support", "certify_seconds"}
    follows = {"tau_bound_ulps": "tau_ulps", "probs_bound_ulps": "probs_ulps"}
    total: dict[str, Worst] = {}
    for part in parts:
        for name, values in part.items():
            so_far = total.setdefault(name, dict.fromkeys(values, 0.0))
            for bound in follows.keys() & values.keys():
                if values[follows[bound]] > so_far[follows[bound]]:
                    so_far[bound] = values[bound]
            for key in values.keys() - follows.keys():
                so_far[key] = so_far[key] + values[key] if key in counts else max(so_far[key], values[key])
    return total


def blocks_for(rows: int) -> int:
    """Return how many blocks it takes to draw at least this many rows."""
    count, drawn = 0, 0
    while drawn < rows:
        drawn, count = drawn + rows_of(count), count + 1
    return count


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table and write the record."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--rows", type=int, default=100_000, help="rows to draw for each alpha, at least")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--alpha", type=float, nargs="+", default=list(ALPHAS), help="orders to measure")
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)

    results = []
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for alpha in options.alpha:
            tasks = [(alpha, block, options.seed) for block in range(blocks_for(options.rows))]
            found = combine(pool.imap(measure, tasks, chunksize=2))
            results.append({"alpha": alpha, "implementations": found})
            for name, values in found.items():
                print(f"{alpha:<8.4g}{name:<18}" + "  ".join(f"{key} {value:.3g}" for key, value in values.items()))
            sys.stdout.flush()
    packages = ("adasplash2", "numpy", "python-flint", "entmax", "torch")
    write(options.out, COMMAND, arguments, packages, results, seed=options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
