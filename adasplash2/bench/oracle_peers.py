"""On how many rows is a map wrong, ours and the package entmax?  ``python -m adasplash2.bench.oracle_peers --out FILE``

2,000 rows of the kinds of `adasplash2.bench.oracle_accuracy`, each certified, and 2,000 rows with hidden keys for the
losses. Counts rows, where that module records the worst of each.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import entmax_ref
from entmax_ref.arguments import Floats
from entmax_ref.certify import certify

from .oracle_accuracy import KINDS, draw, peers
from .oracle_record import write

COMMAND = "python -m adasplash2.bench.oracle_peers"
ALPHAS = (1.25, 1.5, 2.0)
ROWS = 2000
OFF = 1e-6  # an error of a probability that shows in float32
KEYS, HIDDEN = 32, 8  # of the rows of the losses

Counts = dict[str, int]


def wrong_rows(function: Callable[[Floats], Floats], alpha: float, seed: int) -> Counts:
    """Return how many of the rows have a key on the wrong side, and a probability off by more than ``OFF``."""
    found = {"support": 0, "probs": 0, "rows": 0}
    for block in range(len(KINDS)):
        scores = draw(alpha, block, seed)[: ROWS // len(KINDS)]
        proof = certify(scores, alpha)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            probs = function(scores)
        seen = proof.probs_lo >= np.finfo(np.float64).tiny  # a smaller one may come out as 0
        side = (proof.out_of_support & (probs > 0.0)) | (proof.in_support & seen & ~(probs > 0.0))
        error = np.where(np.isnan(probs), np.inf, proof.probs_error(probs)[1])
        found["support"] += int(np.count_nonzero(side.any(axis=-1)))
        found["probs"] += int(np.count_nonzero((error > OFF).any(axis=-1)))
        found["rows"] += len(scores)
    return found


def hidden_rows(seed: int) -> tuple[Floats, Any]:
    """Return Gaussian scores of which some are -inf, and a visible target of each."""
    scores = np.random.default_rng(seed).normal(size=(ROWS, KEYS))
    scores[:, -HIDDEN:] = -np.inf
    return scores, np.argmin(scores[:, :-HIDDEN], axis=-1)


def losses(alpha: float) -> dict[str, Callable[[Floats, Any], Floats]]:
    """Return the losses for this alpha, ours first."""
    found: dict[str, Callable[[Floats, Any], Floats]] = {
        "entmax_ref": lambda scores, target: entmax_ref.entmax_loss(scores, target, alpha)
    }
    other, torch = importlib.import_module("entmax"), importlib.import_module("torch")
    named = {"entmax_bisect": lambda x, y: other.entmax_bisect_loss(x, y, alpha)}
    if alpha == 1.5:
        named["entmax15 (sort)"] = other.entmax15_loss
    if alpha == 2.0:
        named["sparsemax (sort)"] = other.sparsemax_loss
    for name, loss in named.items():
        found[name] = lambda scores, target, loss=loss: loss(  # type: ignore[misc]
            torch.from_numpy(scores.copy()), torch.from_numpy(target.copy())
        ).numpy()
    return found


def measure(alpha: float, seed: int) -> dict[str, Counts]:
    """Return the counts of each implementation, ours first."""
    maps: dict[str, Callable[[Floats], Floats]] = {"entmax_ref": lambda scores: entmax_ref.entmax(scores, alpha)}
    maps |= peers(alpha)
    scores, target = hidden_rows(seed)
    of_losses = losses(alpha)
    return {
        name: wrong_rows(function, alpha, seed)
        | {"loss": int(np.count_nonzero(~np.isfinite(of_losses[name](scores, target))))}
        for name, function in maps.items()
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the counts and write the record."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    results = []
    for alpha in ALPHAS:
        found = measure(alpha, options.seed)
        results.append({"alpha": alpha, "implementations": found})
        for name, counts in found.items():
            print(f"{alpha:<6g}{name:<18}" + "  ".join(f"{key} {count}" for key, count in counts.items()), flush=True)
    write(options.out, COMMAND, arguments, ("numpy", "entmax", "torch", "python-flint"), results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
