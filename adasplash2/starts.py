"""How is a kernel started?  The only file that starts kernels, and it keeps those that it found compiled.

Triton reads every argument of a start to find the kernel that was compiled for its like, and the stages of one step of
attention have hundreds.  Between calls on tensors of the same dtypes, shapes, strides and alignment only the tensors
differ: a `_Plan` keeps the compiled kernels and all other arguments, and is handed the tensors.
"""

from __future__ import annotations

import contextlib
import dataclasses
import operator
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from triton.runtime import driver
from triton.runtime.interpreter import InterpretedFunction

from .launch_table import Program

# Plans kept: a program that meets more kinds of calls, one for each length say, forgets all and begins again.
MOST_PLANS = 1024
# On AMD Triton also asks whether the memory behind a tensor is small enough for 32 bit offsets.
_SMALL_MEMORY = 2**31
_ASKS_SIZES = torch.version.hip is not None


@dataclasses.dataclass(frozen=True)
class Call:
    """One kernel start: everything but the device."""

    stage: str
    kernel: Any
    programs: int
    program: Program
    backend: str
    arguments: dict[str, Any]
    constants: dict[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        """Compiler options; without a limit of registers the CUDA assembler spills a few to fit one more program."""
        options = {"num_warps": self.program.warps, "num_stages": self.program.stages}
        return options | {"maxnreg": self.program.registers} if self.backend == "cuda" else options

    def run(self) -> Any:
        """Start the kernel on the current device and return it compiled; an empty grid does nothing."""
        if self.programs == 0:
            return None
        # Rows without a key divide zero by zero before they are set aside; NumPy would warn of it in the interpreter.
        with np.errstate(all="ignore"):
            return self.kernel[(self.programs,)](**self.arguments, **self.constants, **self.options)

    def compile(self) -> None:
        """Compile the kernel for the current device and load it, without starting it."""
        compiled = self.kernel.warmup(grid=(self.programs,), **self.arguments, **self.constants, **self.options)
        if compiled is not None:  # which a hook of Triton's may have kept from compiling
            compiled[self.programs, 1, 1]  # where Triton 3.6 also builds the C module that hands over arguments


def run(
    numbers: tuple[Hashable, ...],
    given: Sequence[torch.Tensor | None],
    fresh: Iterable[torch.Tensor],
    calls_of: Callable[..., Sequence[Call]],
) -> None:
    """Start calls one after the other, on the device of the first tensor.

    Parameters
    ----------
    numbers : tuple
        All that decides the calls besides the tensors.
    given : sequence of Tensor or None
        Tensors from outside, in any layout; the first is there, any other may not be.
    fresh : iterable of Tensor
        Tensors allocated for these calls, whose layouts follow from the numbers and the layouts of ``given``.
    calls_of : callable
        Returns the calls when it is given tensors in the place of ``given``, each another object.
    """
    first = given[0]
    assert first is not None
    with device_of(first):
        tensors = (*given, *fresh)
        key = (first.device, numbers, *map(_layout, given))
        plan = _plans.get(key)
        if plan is not None:
            plan.run(tensors)
            return
        # A tensor that is given twice has one place in a plan for each.
        distinct = [None if tensor is None else tensor.detach() for tensor in given]
        calls = calls_of(*distinct)
        is_compiled = not any(isinstance(call.kernel, InterpretedFunction) for call in calls)
        if is_compiled:
            compile_side_by_side(calls, first.device)
        compiled = [call.run() for call in calls]
        if is_compiled:
            if len(_plans) >= MOST_PLANS:
                _plans.clear()
            _plans[key] = _Plan.of(calls, compiled, (*distinct, *tensors[len(given) :]))


def compile_side_by_side(calls: Sequence[Call], device: torch.device) -> None:
    """Compile what these calls start, each kernel in a thread, unless their likes have been here before.

    Compiler, assembler and C compiler, which take nearly all of the time, leave Python to the other threads. This only
    saves time: a call that is not compiled yet is compiled when it is run.
    """
    fresh = {kind: call for call in calls if call.programs and (kind := _kind_of_call(call, device)) not in _compiled}
    by_kernel: dict[int, list[Call]] = {}
    for call in fresh.values():
        by_kernel.setdefault(id(call.kernel), []).append(call)

    def compile_all(calls: list[Call]) -> None:
        with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            for call in calls:
                call.compile()

    if len(by_kernel) > 1:
        driver.active.get_current_device()  # Triton makes its driver when it is first asked for, and that once
        with ThreadPoolExecutor() as pool:
            list(pool.map(compile_all, by_kernel.values()))
    _compiled.update(fresh)


def forget() -> None:
    """Forget all plans, and what was compiled."""
    _plans.clear()
    _compiled.clear()


def device_of(tensor: torch.Tensor) -> contextlib.AbstractContextManager[Any]:
    """Kernels start on the device that holds the tensor, whichever is current."""
    if not tensor.is_cuda or tensor.device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(tensor.device)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Compiled kernels with the arguments that stay.

    The arguments of a start are picked from one sequence: the tensors; those with their strides behind, as kernels
    take them (`stages.arguments.operand`), each described by its place and the strides; and what stays.
    """

    starts: tuple[tuple[Callable[..., Any], Callable[[Sequence[Any]], tuple[Any, ...]]], ...]
    operands: tuple[tuple[int, tuple[Any, ...]], ...]
    stays: tuple[Any, ...]

    @classmethod
    def of(cls, calls: Sequence[Call], compiled: Sequence[Any], tensors: Sequence[torch.Tensor | None]) -> _Plan:
        places = {id(tensor): place for place, tensor in enumerate(tensors)}
        begun = [(call, kernel) for call, kernel in zip(calls, compiled, strict=True) if call.programs]
        arguments = [
            [(call.constants if name in call.constants else call.arguments)[name] for name in call.kernel.arg_names]
            for call, _ in begun
        ]
        # Argument -> what it is; the same operand or number may be asked for by many starts.
        operands: dict[tuple[int, tuple[Any, ...]], None] = {}
        stays: dict[tuple[type, Any], None] = {}
        for value in (value for values in arguments for value in values):
            if isinstance(value, tuple):
                operands[places[id(value[0])], value[1:]] = None
            elif not isinstance(value, torch.Tensor):
                stays[type(value), value] = None
        operand_at = {operand: len(tensors) + place for place, operand in enumerate(operands)}
        stays_at = {what: len(tensors) + len(operands) + place for place, what in enumerate(stays)}

        def place_of(value: Any) -> int:
            if isinstance(value, tuple):
                return operand_at[places[id(value[0])], value[1:]]
            return places[id(value)] if isinstance(value, torch.Tensor) else stays_at[type(value), value]

        starts = tuple(
            (kernel[call.programs, 1, 1], operator.itemgetter(*map(place_of, values)))
            for (call, kernel), values in zip(begun, arguments, strict=True)
        )
        return cls(starts, tuple(operands), tuple(value for _, value in stays))

    def run(self, tensors: Sequence[torch.Tensor | None]) -> None:
        """Start the kernels on tensors in the places of those that the plan was made of."""
        values = [*tensors, *[(tensors[place], *strides) for place, strides in self.operands], *self.stays]
        stream = driver.active.get_current_stream(driver.active.get_current_device())
        for start, pick in self.starts:
            start(*pick(values), stream=stream)


_plans: dict[Hashable, _Plan] = {}
_compiled: set[Hashable] = set()


def _kind_of_call(call: Call, device: torch.device) -> Hashable:
    """Return what calls that start the same compiled kernel share."""
    arguments = tuple(_kind(value) for value in call.arguments.values())
    return id(call.kernel), device, arguments, tuple(call.constants.values()), tuple(call.options.values())


def _kind(value: Any) -> Hashable:
    """Return what Triton compiles for, of an argument."""
    if isinstance(value, tuple):
        return tuple(map(_kind, value))
    if isinstance(value, torch.Tensor):
        return value.dtype, value.data_ptr() % 16 == 0
    if isinstance(value, int):
        return value == 1, value % 16 == 0, -(2**31) <= value < 2**31
    return (type(value),)


def _layout(tensor: torch.Tensor | None) -> tuple[Hashable, ...]:
    """Return what Triton compiles for, of a tensor, and what decides grids and numbers; nothing if it is not there."""
    if tensor is None:
        return ()
    layout = tensor.dtype, tensor.shape, tensor.stride(), tensor.data_ptr() % 16
    return (*layout, tensor.untyped_storage().nbytes() < _SMALL_MEMORY) if _ASKS_SIZES else layout
