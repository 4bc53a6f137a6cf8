"""What did the run find, for a person in front of a terminal?  One table, what broke, the stages, and a verdict."""

from __future__ import annotations

import dataclasses
import math
import statistics
import textwrap
from collections.abc import Iterable, Sequence

import torch

from adasplash2.runs.machine import Machine

from .cases import DTYPES
from .judge import RowsComparison
from .measure import Result

_ERRORS = {"out": "out", "d_query": "d_q", "d_key": "d_k", "d_value": "d_v"}
LEGEND = (
    "out, d_q, d_k, d_v: every row (a query of a head; for d_k and d_v a key) is judged by a bound of its own, and",
    "the worst is shown: its error/bound, as shares of its size. Bound: twice what a plain dense evaluation in this",
    "dtype loses on the scale of the rounding errors that this row must expect, plus one rounding. The oracle is",
    "float64. The tensor as a whole is held to twice the error of the plain evaluation as well. -: it holds 0 * inf.",
    "row mass: largest |mass - 1|, at most the tolerance of the dtype (float32 4e-6, else 8e-6).",
    "passes: % of the rows that took 0, 1, 2, and 3 or more.",
    "lost: live blocks that the mask dropped, must be 0. skip: visible blocks that later stages did not visit.",
    "2*4/2 100x100x64: batch 2 * 4 heads / 2 kv_heads, 100 queries x 100 keys x head_dim 64; no 2*: batch 1; no /2: as",
    "many kv_heads as heads. mask: c causal, f full; 2: alpha 2, else 1.5; t: transposed strides.",
)
_WIDTHS = (2, 14, 19, 13, 13, 13, 13, 4, 10, 4, 4)


def body(machine: Machine, results: list[Result], *, asked: int, seconds: float) -> str:
    """Return what the command prints after `heading`, at most 119 columns wide.

    Parameters
    ----------
    machine : Machine
    results : list of Result
        In the order of the table; those of an interrupted run are some of them.
    asked : int
        Cases of the whole run.
    seconds : float
        Time of the run.
    """
    parts = ["", *_table(results), ""]
    parts += _failures(results)
    parts += _stage_lines(results)
    parts.append(verdict(machine, results, asked, seconds))
    return "\n".join(parts)


def heading(machine: Machine) -> str:
    """Return the lines that say where and with what."""
    versions = f"python {machine.python}, torch {machine.torch}, triton {machine.triton}, numpy {machine.numpy}"
    return "\n".join(
        [
            f"adasplash2 {machine.adasplash2} verify: {machine.mode} on {machine.device} ({machine.device_name})",
            versions,
            machine.sentence,
        ]
    )


def passes_text(passes: dict[int, int]) -> str:
    """Return the rows, in percent, that took 0, 1, 2, and 3 or more passes: ``12/80/8``, ``<1`` for a few."""
    total = sum(passes.values())
    if not total:
        return "-"
    counts = [passes.get(step, 0) for step in (0, 1, 2)]
    counts.append(total - sum(counts))
    shares = [100.0 * count / total for count in counts]
    # Not one row may vanish in rounding: a few slow ones are what the column is for.
    texts = ["<1" if 0.0 < share < 0.5 else f"{share:.0f}" for share in shares]
    while len(texts) > 1 and texts[-1] == "0":
        texts.pop()
    return "/".join(texts)


def _table(results: list[Result]) -> list[str]:
    lines = [
        _line("", "", "", *_ERRORS.values(), "row", "passes", "", ""),
        _line("", "case", "heads, sizes, mask", *("error/bound",) * 4, "mass", "% 0/1/2/3+", "lost", "skip"),
    ]
    for dtype in DTYPES:
        of_dtype = [result for result in results if result.case.dtype == dtype]
        if not of_dtype:
            continue
        roundoff = torch.finfo(DTYPES[dtype]).eps / 2.0
        title = f"-- {dtype}, unit roundoff {roundoff:.1e}{_noticed(of_dtype)} "
        lines.append(title + "-" * (len(lines[1]) - len(title)))
        lines += [_row(result) for result in of_dtype]
    lines += ["", *LEGEND]
    return lines


def _noticed(results: list[Result]) -> str:
    """Return from which error on the median row fails, as the median over the cases."""
    parts = []
    for name, title in _ERRORS.items():
        found = [result.comparisons.get(name) for result in results]
        values = [one.sensitivity for one in found if isinstance(one, RowsComparison) and one.sensitivity > 0.0]
        if values:
            parts.append(f"{short(statistics.median(values))} ({title})")
    return f"; median row fails at {', '.join(parts)}" if parts else ""


def _row(result: Result) -> str:
    errors = [_pair(result, name) for name in _ERRORS]
    mass = result.comparisons.get("mass")
    return _line(
        "ok" if result.passed else "NO",
        result.case.name.replace("_layer", "_l"),
        result.case.shape,
        *errors,
        "-" if mass is None else short(mass.error, 0),
        passes_text(result.passes),
        str(result.lost),
        f"{100.0 * result.skipped:.0f}%",
    )


def _line(*cells: str) -> str:
    """Return one line; the words are aligned to the left, the numbers to the right."""
    texts = [
        cell.ljust(width) if index < 3 else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True))
    ]
    return " ".join(texts).rstrip() if not cells[1] and not cells[0] else " ".join(texts)


def _pair(result: Result, name: str) -> str:
    comparison = result.comparisons.get(name)
    return "-" if comparison is None else f"{short(comparison.error)}/{short(comparison.budget)}"


def short(value: float, digits: int = 1) -> str:
    """Return a number in few characters: ``1.7e-3``."""
    if value == 0.0:
        return "0"
    text = f"{value:.{digits}e}"
    if "e" not in text:
        return text
    mantissa, exponent = text.split("e")
    # Of a number above 1000 the first digits say nothing.
    return f"{mantissa if value < 1e3 else mantissa.split('.')[0]}e{int(exponent)}"


def _failures(results: list[Result]) -> list[str]:
    lines = []
    for result in results:
        for failure in result.failures:
            lines += _wrapped(f"NO  {result.case.name} {result.case.dtype} {result.case.shape}: {failure}")
    return [*lines, ""] if lines else []


@dataclasses.dataclass(frozen=True)
class StageLine:
    """One rule of one stage over all cases: ``worst`` is a share of the bound, or a number of exceptions."""

    stage: str
    rule: str
    passed: int
    checked: int
    worst: str


def stage_summary(results: Sequence[Result]) -> list[StageLine]:
    """Return one line for each rule of each stage."""
    checks = [check for result in results for check in result.stages]
    lines = []
    for stage, rule in dict.fromkeys((check.stage, check.rule) for check in checks):
        of_rule = [check for check in checks if (check.stage, check.rule) == (stage, rule)]
        passed = sum(check.passed for check in of_rule)
        worst = _worst((check.error, check.budget) for check in of_rule)
        lines.append(StageLine(stage, rule, passed, len(of_rule), worst))
    return lines


def _stage_lines(results: list[Result]) -> list[str]:
    """Return one line a stage."""
    summary = stage_summary(results)
    if not summary:
        return []
    cases = sum(1 for result in results if result.stages)
    lines = [f"stage by stage, on {cases} cases (worst error as a share of its bound, or the number of exceptions):"]
    for stage in dict.fromkeys(line.stage for line in summary):
        of_stage = [line for line in summary if line.stage == stage]
        passed, checked = sum(line.passed for line in of_stage), sum(line.checked for line in of_stage)
        head = f"{'ok' if passed == checked else 'NO'} {stage:<13} {f'{passed}/{checked}':>7}  "
        lines += _wrapped(head + ", ".join(f"{line.rule} {line.worst}" for line in of_stage), indent=len(head))
    return [*lines, ""]


def _worst(pairs: Iterable[tuple[float, float]]) -> str:
    shares: list[float] = []
    exceptions = 0.0
    for error, bound in pairs:
        # An error below 0 is on the right side of its bound.
        size = max(error, 0.0) if error == error else math.inf
        if bound > 0.0:
            shares.append(size / bound)
        else:
            exceptions += size
    return f"{max(shares):.2f}" if shares else f"{exceptions:.0f}"


def verdict(machine: Machine, results: list[Result], asked: int, seconds: float) -> str:
    """Return the one line that says whether everything passed."""
    failed = sum(not result.passed for result in results)
    what = "the reference path (no kernel ran)" if machine.impl == "reference" else "the kernels"
    how = {"compiled": " as compiled", "interpreter": " in the interpreter"}.get(machine.mode, "")
    took = f"{len(results)} of {asked} cases, {seconds:.0f} s"
    if len(results) < asked:
        return f"INTERRUPTED ({took}): {failed} failed so far. No verdict."
    if failed:
        return f"FAIL ({took}): {what}{how} broke a rule in {failed} of them."
    return f"PASS ({took}): {what}{how} kept every budget and lost no live block."


def _wrapped(text: str, indent: int = 4) -> list[str]:
    following = " " * indent
    return textwrap.wrap(text, 119, subsequent_indent=following, break_long_words=False, break_on_hyphens=False)
