"""Do the row kernels compile for a target, and within its registers and shared memory?  No GPU needed.

``python -m adasplash2.aot_rows`` compiles them for rows of each kind of length and prints what each uses, as `aot` does
for attention.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from . import launch, row_launch
from .aot import SPILL_LIMIT, TARGETS, report, resources
from .starts import Call

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# One length for each tile: short rows side by side, one row, the longest whole rows of backward and forward, blocks.
# Of 16 bits the middle ones are held as words.
LENGTHS = (64, 2048, 4096, 16384, 32768, 131072)
ALPHAS = (1.25, 1.5, 2.0)


@dataclasses.dataclass(frozen=True)
class RowUsage:
    """What one compiled row kernel uses."""

    stage: str
    target: str
    dtype: str
    n_keys: int
    alpha: float
    shared: int
    shared_limit: int
    registers: int
    spilled: int

    @property
    def fits(self) -> bool:
        """True if the registers and the shared memory suffice."""
        return self.spilled <= SPILL_LIMIT and self.shared <= self.shared_limit


def meta_calls(backend: str, dtype: torch.dtype, n_keys: int, alpha: float) -> list[Call]:
    """Return the calls of a forward and backward pass over rows without storage; an alpha of 1.25 wants a gradient."""
    rows = torch.empty(64, n_keys, dtype=dtype, device="meta")
    passes = torch.empty(64, dtype=torch.int32, device="meta")
    d_alpha = torch.empty(64, 1, device="meta")
    of_alpha = alpha not in (1.5, 2.0)
    values = torch.empty(64, 1, device="meta") if of_alpha else None
    order = row_launch.order_of(alpha, values, rows.device)
    return [
        row_launch.forward_call(rows, order, rows, passes, 2.0**-17, backend),
        row_launch.backward_call(rows, rows, order, rows, d_alpha, of_alpha, backend),
    ]


def usages(targets: list[str], dtypes: list[str], lengths: list[int], alphas: list[float]) -> Iterator[RowUsage]:
    """Compile both kernels for every combination and yield what they use."""
    if launch.INTERPRETED:
        raise RuntimeError("aot: kernels are interpreted in this process; unset TRITON_INTERPRET and start again.")
    for name, dtype, n_keys, alpha in itertools.product(targets, dtypes, lengths, alphas):
        target = TARGETS[name]
        for call in meta_calls(target.backend, DTYPES[dtype], n_keys, alpha):
            shared, registers, spilled = resources(call, target)
            yield RowUsage(call.stage, name, dtype, n_keys, alpha, shared, target.shared_limit, registers, spilled)


def main(arguments: list[str] | None = None) -> int:
    """Print a table of what every row kernel uses; exit code 1 if one does not fit."""
    parser = argparse.ArgumentParser(prog="python -m adasplash2.aot_rows", description=main.__doc__)
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="default: all")
    parser.add_argument("--dtype", action="append", choices=list(DTYPES), help="default: bf16, fp32")
    parser.add_argument("--length", action="append", type=int, help="default: one for each kind of tile")
    parser.add_argument("--alpha", action="append", type=float, help="default: 1.25 (any), 1.5, 2")
    parser.add_argument("--json", type=Path, help="write the table to a file as well")
    options = parser.parse_args(arguments)
    found = usages(
        options.target or list(TARGETS),
        options.dtype or ["bf16", "fp32"],
        options.length or list(LENGTHS),
        options.alpha or list(ALPHAS),
    )
    return report(found, lambda usage: f"n={usage.n_keys:<7}", options.json)


if __name__ == "__main__":
    sys.exit(main())
