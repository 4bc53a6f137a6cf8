"""Do the kernels compile for a target, and within its registers and shared memory?  No GPU needed.

``python -m adasplash2.aot`` compiles every stage for every row of the launch table and prints what each
uses.  Triton decides at import whether it interprets, so ``TRITON_INTERPRET`` must not be set.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from . import launch
from .launch_table import LAUNCH, choose_launch
from .orders import POWERS, alphas_of
from .problem import Problem
from .stages import backward_calls, forward_calls
from .starts import Call
from .state import empty_backward, empty_forward


@dataclasses.dataclass(frozen=True)
class Target:
    """A GPU to compile for and the shared memory that one program may take there, in bytes."""

    gpu: GPUTarget
    shared_limit: int

    @property
    def backend(self) -> str:
        """Key of the launch table."""
        return str(self.gpu.backend)


# Shared memory per block: the CUDA programming guide's table of compute capabilities; the CDNA 3 guide's LDS size.
TARGETS = {
    "sm_80": Target(GPUTarget("cuda", 80, 32), 163 * 1024),
    "sm_90": Target(GPUTarget("cuda", 90, 32), 227 * 1024),
    "sm_100": Target(GPUTarget("cuda", 100, 32), 227 * 1024),
    "gfx942": Target(GPUTarget("hip", "gfx942", 64), 64 * 1024),
}

# Bytes of local memory per thread: sixteen scalars parked across a loop cost nothing that can be measured, and which
# scalars the assembler parks changes with its version.  A tile that does not fit spills hundreds.
SPILL_LIMIT = 64
# Where a measurement chose the row of the launch table, more programs at a time were worth it.
TIMED_SPILL_LIMIT = 512

# With the stages of long columns, and without.
LENGTHS = (32768, 1024)
# Any alpha in (1, 2] that kernels load.
LOADED = 1.125

_TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
_TYPES |= {torch.int16: "i16", torch.int32: "i32", torch.int64: "i64"}


@dataclasses.dataclass(frozen=True)
class Usage:
    """What one compiled kernel uses."""

    stage: str
    target: str
    dtype: str
    head_dim: int
    alpha: float
    is_causal: bool
    shared: int
    shared_limit: int
    registers: int
    spilled: int
    is_timed: bool

    @property
    def fits(self) -> bool:
        """True if the registers and the shared memory suffice."""
        limit = TIMED_SPILL_LIMIT if self.is_timed else SPILL_LIMIT
        return self.spilled <= limit and self.shared <= self.shared_limit


def _describe(value: Any, path: tuple[int, ...], constants: dict, attributes: dict) -> Any:
    """Return the type of a kernel argument as the compiler writes it, noting constants and divisibility by 16."""
    if isinstance(value, tuple):
        return tuple(_describe(item, (*path, i), constants, attributes) for i, item in enumerate(value))
    if isinstance(value, torch.Tensor):
        attributes[path] = [["tt.divisibility", 16]]
        return "*" + _TYPES[value.dtype]
    if isinstance(value, float):
        return "fp32"
    if value is None:
        constants[path] = None
        return "constexpr"
    if value == 1:
        constants[path] = 1
        return "constexpr"
    if value % 16 == 0:
        attributes[path] = [["tt.divisibility", 16]]
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def compile_call(call: Call, target: Target) -> Any:
    """Compile one call for a target, specialised as a start with these arguments would be."""
    signature: dict[str, Any] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for index, name in enumerate(call.kernel.arg_names):
        if name in call.constants:
            signature[name] = "constexpr"
            constants[(index,)] = call.constants[name]
        else:
            signature[name] = _describe(call.arguments[name], (index,), constants, attributes)
    source = ASTSource(call.kernel, signature=signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=target.gpu, options=call.options)


def _cuda_usage(compiled: Any) -> tuple[int, int]:
    """Return registers and spilled bytes per thread of a CUDA binary, as its assembler's own dump reports them."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        report = subprocess.run(
            [tool, "--dump-resource-usage", file.name], check=True, capture_output=True, text=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", report)
    if found is None:
        raise RuntimeError(f"aot: cuobjdump reported no resource usage:\n{report}")
    registers, stack, local = map(int, found.groups())
    return registers, max(stack, local)


def _hip_usage(compiled: Any) -> tuple[int, int]:
    """Return vector registers and scratch bytes per thread of an AMD kernel, from the metadata in its assembly.

    Scalar registers spill into vector registers, which costs no memory and is not counted.
    """
    text = compiled.asm["amdgcn"]
    registers, scratch = (
        int(re.search(rf"\.{field}:\s+(\d+)", text).group(1))  # type: ignore[union-attr]
        for field in ("vgpr_count", "private_segment_fixed_size")
    )
    return registers, scratch


def resources(call: Call, target: Target) -> tuple[int, int, int]:
    """Compile one call for a target and return its shared memory, registers and spilled bytes per thread."""
    compiled = compile_call(call, target)
    registers, spilled = (_cuda_usage if target.backend == "cuda" else _hip_usage)(compiled)
    return compiled.metadata.shared, registers, spilled


def meta_calls(
    backend: str,
    dtype: torch.dtype,
    head_dim: int,
    *,
    alpha: float = 1.5,
    is_causal: bool = True,
    has_ranges: bool = False,
    arch: str = "",
    length: int = LENGTHS[0],
) -> list[Call]:
    """Return every call of a forward and backward pass over tensors without storage, with grouped heads.

    With ranges of keys, a query's own stand in the place of ``is_causal``.
    """
    query = torch.empty(2, 8, length, head_dim, dtype=dtype, device="meta")
    key = torch.empty(2, 4, length, head_dim, dtype=dtype, device="meta")
    ranges = torch.empty(2, length, 2, dtype=torch.int32, device="meta") if has_ranges else None
    is_causal = is_causal and not has_ranges
    problem = Problem.of(query, key, alpha=alpha, scale=head_dim**-0.5, is_causal=is_causal, backend=backend, arch=arch)
    forward = empty_forward(problem, query)
    # The gradient of alpha is the larger kernel, and only a loaded one has it.
    backward = empty_backward(problem, query, key, key, of_alpha=problem.power == 0)
    left = (forward.out, forward.base, forward.rest, forward.block_mask, forward.support)
    besides = ranges, alphas_of(alpha, query)
    calls = forward_calls(problem, query, key, key, forward, *besides)
    return calls + backward_calls(problem, query, query, key, key, *left, backward, *besides)


def _different(calls: list[Call]) -> list[Call]:
    """Return the calls without those that start a kernel again with the same constants, on other data.

    What is not there, is constant as well.
    """
    found: dict[Any, Call] = {}
    for call in calls:
        missing = tuple(name for name, argument in call.arguments.items() if argument is None)
        found.setdefault((call.stage, missing, *call.constants.items()), call)
    return list(found.values())


def usages(
    targets: list[str], dtypes: list[torch.dtype], head_dims: list[int], alphas: list[float], *, has_ranges: bool
) -> Iterator[Usage]:
    """Compile every stage for every combination and yield what it uses; with ranges those stages that read them."""
    if launch.INTERPRETED:
        raise RuntimeError("aot: kernels are interpreted in this process; unset TRITON_INTERPRET and start again.")
    for name, dtype, head_dim, alpha in itertools.product(targets, dtypes, head_dims, alphas):
        target = TARGETS[name]
        row = choose_launch(target.backend, dtype, head_dim, name)
        calls = [
            call
            for length in LENGTHS
            for call in meta_calls(
                target.backend, dtype, head_dim, alpha=alpha, has_ranges=has_ranges, arch=name, length=length
            )
        ]
        for call in _different([call for call in calls if not has_ranges or "ranges" in call.arguments]):
            shared, registers, spilled = resources(call, target)
            yield Usage(
                stage=call.stage,
                target=name,
                dtype=_TYPES[dtype],
                head_dim=head_dim,
                alpha=alpha,
                is_causal=not has_ranges,
                shared=shared,
                shared_limit=target.shared_limit,
                registers=registers,
                spilled=spilled,
                is_timed=row.is_timed,
            )


def report(found: Iterator[Any], size_of: Callable[[Any], str], path: Path | None) -> int:
    """Print what every kernel uses, as it is compiled, and write it to a JSON file if one is named.

    Returns the exit code.  ``size_of`` says of a usage for which size it was compiled.
    """
    usages = []
    for usage in found:
        usages.append(usage)
        print(
            f"{'ok' if usage.fits else 'NO':3}{usage.stage:21}{usage.target:8}{usage.dtype:5}"
            f" {size_of(usage)} alpha={usage.alpha:<4} shared={usage.shared:>7}/{usage.shared_limit:<7}"
            f" registers={usage.registers:<4} spilled={usage.spilled}",
            flush=True,
        )
    if path:
        path.write_text(json.dumps([dataclasses.asdict(usage) for usage in usages], indent=1))
    return 0 if all(usage.fits for usage in usages) else 1


def main(arguments: list[str] | None = None) -> int:
    """Print a table of what every kernel uses; exit code 1 if one does not fit."""
    parser = argparse.ArgumentParser(prog="python -m adasplash2.aot", description=main.__doc__)
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="default: all")
    parser.add_argument("--dtype", action="append", choices=["bf16", "fp16", "fp32"], help="default: bf16, fp32")
    parser.add_argument("--head-dim", action="append", type=int, help="default: every row of the launch table")
    parser.add_argument("--alpha", action="append", type=float, help="default: those compiled for and one loaded")
    parser.add_argument("--ranges", action="store_true", help="with a range of keys for each query, as windows need")
    parser.add_argument("--json", type=Path, help="write the table to a file as well")
    options = parser.parse_args(arguments)
    names = {name: dtype for dtype, name in _TYPES.items()}
    found = usages(
        options.target or list(TARGETS),
        [names[name] for name in options.dtype or ["bf16", "fp32"]],
        options.head_dim or sorted({head_dim for _, _, head_dim in LAUNCH}),
        options.alpha or [*POWERS, LOADED],
        has_ranges=options.ranges,
    )
    return report(found, lambda usage: f"d={usage.head_dim:<4}", options.json)


if __name__ == "__main__":
    sys.exit(main())
