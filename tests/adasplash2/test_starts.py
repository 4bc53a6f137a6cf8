"""Does a call whose like ran before start the same kernels with the same arguments, and only such a call?"""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest
import torch

from adasplash2 import starts
from adasplash2.launch_table import Program
from adasplash2.stages.arguments import operand
from adasplash2.starts import Call


class Compiled:
    """Takes what Triton's compiled kernels take, and notes it."""

    def __init__(self, noted: list[Any]) -> None:
        self.noted = noted

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *arguments, stream: self.noted.append(("again", grid, arguments, stream))


class Kernel:
    """Takes what Triton's kernels take, and notes it in the order of the parameters."""

    arg_names = ("query", "scale", "out", "twice", "BLOCK")

    def __init__(self, meeting: threading.Barrier | None = None, fault: Exception | None = None) -> None:
        self.noted: list[Any] = []
        self.compiled: list[Any] = []
        self.loads: list[Any] = []
        self.meeting = meeting
        self.fault = fault

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def start(**named: Any) -> Compiled:
            self.noted.append(("first", grid, tuple(named[name] for name in self.arg_names), None))
            return Compiled(self.noted)

        return start

    def warmup(self, *, grid: tuple[int, ...], **named: Any) -> Loaded:
        self.compiled.append((grid, threading.get_ident()))
        if self.fault is not None:
            raise self.fault
        if self.meeting is not None:
            self.meeting.wait(timeout=60.0)
        return Loaded(self.loads)


class Loaded:
    """Takes what is asked of a compiled kernel to load it, and notes it."""

    def __init__(self, loads: list[Any]) -> None:
        self.loads = loads

    def __getitem__(self, grid: tuple[int, ...]) -> None:
        self.loads.append(grid)


class Driver:
    """Answers what a plan asks of Triton's driver."""

    def get_current_device(self) -> int:
        return 3

    def get_current_stream(self, device: int) -> int:
        return 100 + device


@pytest.fixture(autouse=True)
def no_plans(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A test begins and ends without plans, and with a driver that needs no GPU."""
    starts.forget()
    monkeypatch.setattr(starts.driver, "set_active", lambda _: None, raising=False)
    monkeypatch.setattr(starts, "driver", type("Holder", (), {"active": Driver()}))
    yield
    starts.forget()


def begin(kernel: Kernel, query: torch.Tensor, other: torch.Tensor, *, scale: float = 0.5, programs: int = 7) -> Any:
    """Run one call over two given tensors and a fresh one, and return what the kernel got."""
    out = torch.empty_like(query)

    def calls_of(query: torch.Tensor, other: torch.Tensor) -> list[Call]:
        arguments = {"out": out, "query": operand(query), "scale": scale, "twice": other}
        one = Call("stage", kernel, programs, Program(1, 1), "cuda", arguments, {"BLOCK": 64})
        return [one, dataclasses.replace(one, programs=0)]

    starts.run(("test", scale), (query, other), (out,), calls_of)
    return kernel.noted[-1], out


def same(found: tuple[Any, ...], expected: tuple[Any, ...]) -> bool:
    """Return whether arguments are the same objects or equal numbers; a tensor handed on is on the same memory."""
    if isinstance(found, tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(found, torch.Tensor):
        return found.data_ptr() == expected.data_ptr() and found.stride() == expected.stride()
    return type(found) is type(expected) and found == expected


def test_a_second_call_hands_its_own_tensors_to_the_compiled_kernel() -> None:
    kernel = Kernel()
    a, b, c, d = (torch.randn(4, 6) for _ in range(4))
    (how, grid, found, _), out = begin(kernel, a, b)
    assert (how, grid) == ("first", (7,))
    assert same(found, ((a, 6, 1), 0.5, out, b, 64))
    (how, grid, found, stream), out = begin(kernel, c, d)
    assert (how, grid, stream) == ("again", (7, 1, 1), 103)
    assert same(found, ((c, 6, 1), 0.5, out, d, 64))
    assert len(kernel.noted) == 2, "the empty grid starts nothing"


def test_a_tensor_given_twice_leaves_two_places() -> None:
    kernel = Kernel()
    a, b, c = (torch.randn(4, 6) for _ in range(3))
    begin(kernel, a, a)
    (how, _, found, _), out = begin(kernel, b, c)
    assert how == "again"
    assert same(found, ((b, 6, 1), 0.5, out, c, 64))


def test_numbers_of_equal_value_and_another_type_stay_apart() -> None:
    kernel = Kernel()
    a, b = torch.randn(4, 6), torch.randn(4, 6)
    begin(kernel, a, b, scale=1.0)  # 1.0 is a float; the stride is the int 1
    (how, _, found, _), out = begin(kernel, a, b, scale=1.0)
    assert how == "again"
    assert same(found, ((a, 6, 1), 1.0, out, b, 64))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda t: torch.randn(6, 4).T, id="strides"),
        pytest.param(lambda t: torch.randn(5, 6), id="shape"),
        pytest.param(lambda t: t.half(), id="dtype"),
        pytest.param(lambda t: torch.randn(25)[1:].view(4, 6), id="alignment"),
    ],
)
def test_another_layout_is_compiled_anew(change: Any) -> None:
    kernel = Kernel()
    a, b = torch.randn(4, 6), torch.randn(4, 6)
    begin(kernel, a, b)
    for given in ((change(a), b), (a, change(b))):
        (how, *_), _ = begin(kernel, *given)
        assert how == "first"
        (how, *_), _ = begin(kernel, *given)
        assert how == "again"


def test_another_number_is_compiled_anew() -> None:
    kernel = Kernel()
    a, b = torch.randn(4, 6), torch.randn(4, 6)
    begin(kernel, a, b, scale=0.5)
    (how, _, found, _), _ = begin(kernel, a, b, scale=0.25)
    assert how == "first"
    assert found[1] == 0.25


def test_plans_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "MOST_PLANS", 3)
    kernel = Kernel()
    for n in range(1, 9):
        begin(kernel, torch.randn(n, 6), torch.randn(n, 6))
        assert len(starts._plans) <= 3
    (how, *_), _ = begin(kernel, torch.randn(8, 6), torch.randn(8, 6))
    assert how == "again"


def test_a_tensor_from_nowhere_is_refused() -> None:
    """A plan would go on using it."""
    kernel, stray = Kernel(), torch.randn(3)

    def calls_of(query: torch.Tensor) -> list[Call]:
        arguments = {"out": stray, "query": operand(query), "scale": 0.5, "twice": query}
        return [Call("stage", kernel, 1, Program(1, 1), "cuda", arguments, {"BLOCK": 64})]

    with pytest.raises(KeyError):
        starts.run((), (torch.randn(4, 6),), (), calls_of)


def call_of(kernel: Kernel, query: torch.Tensor, **changes: Any) -> Call:
    """Return a call of a kernel."""
    arguments = {"query": operand(query), "scale": 0.5, "out": query, "twice": query}
    return dataclasses.replace(Call("stage", kernel, 5, Program(1, 1), "cuda", arguments, {"BLOCK": 64}), **changes)


def test_kernels_are_compiled_and_loaded_at_the_same_time() -> None:
    """Each of three waits in its compilation until the others are in theirs."""
    meeting, query = threading.Barrier(3), torch.randn(4, 6)
    kernels = [Kernel(meeting) for _ in range(3)]
    starts.compile_side_by_side([call_of(kernel, query) for kernel in kernels], query.device)
    assert all(len(kernel.compiled) == 1 and kernel.loads == [(5, 1, 1)] for kernel in kernels)
    assert not any(kernel.noted for kernel in kernels), "nothing is started"


def test_calls_of_one_kernel_are_compiled_one_after_the_other() -> None:
    kernel, other, query = Kernel(), Kernel(), torch.randn(4, 6)
    calls = [call_of(kernel, query, constants={"BLOCK": block}) for block in (16, 32, 64, 32)]
    starts.compile_side_by_side([*calls, call_of(other, query)], query.device)
    assert len(kernel.compiled) == 3, "the second of 32 is the first again"
    assert len({thread for _, thread in kernel.compiled}) == 1


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        pytest.param({}, 0, id="the same"),
        pytest.param({"programs": 9}, 0, id="another grid"),
        pytest.param({"programs": 0}, 0, id="an empty grid"),
        pytest.param({"constants": {"BLOCK": 128}}, 1, id="another constant"),
        pytest.param({"program": Program(2, 1)}, 1, id="other warps"),
        pytest.param({"arguments": {"query": operand(torch.randn(16, 32)[::2])}}, 1, id="another divisibility"),
        pytest.param({"arguments": {"query": operand(torch.randn(8, 7))}}, 0, id="another stride"),
        pytest.param({"arguments": {"query": operand(torch.randn(8, 6).half())}}, 1, id="another dtype"),
        pytest.param({"arguments": {"query": None}}, 1, id="nothing"),
        pytest.param({"arguments": {"query": 2**40}}, 1, id="a long number"),
    ],
)
def test_only_calls_of_a_new_kind_are_compiled(changes: Any, again: int) -> None:
    kernels, query = [Kernel(), Kernel()], torch.randn(8, 6)
    calls = [dataclasses.replace(call_of(kernel, query), arguments={"query": operand(query)}) for kernel in kernels]
    starts.compile_side_by_side(calls, query.device)
    starts.compile_side_by_side([dataclasses.replace(call, **changes) for call in calls], query.device)
    assert [len(kernel.compiled) - 1 for kernel in kernels] == [again, again]


def test_a_failed_compilation_is_raised_and_tried_again() -> None:
    query = torch.randn(4, 6)
    kernels = [Kernel(), Kernel(fault=ValueError("too many registers"))]
    for _ in range(2):
        with pytest.raises(ValueError, match="too many registers"):
            starts.compile_side_by_side([call_of(kernel, query) for kernel in kernels], query.device)
    assert len(kernels[1].compiled) == 2
