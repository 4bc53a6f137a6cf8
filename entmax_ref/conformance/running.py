"""What comes of a check on a target?  Examples are drawn and judged; the smallest one that fails is kept."""

import dataclasses
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Unsatisfiable

from entmax_ref.conformance.attention_registry import ATTENTION_CHECKS
from entmax_ref.conformance.case import Case
from entmax_ref.conformance.check import LEVELS, BadAnswer, Check, Finding
from entmax_ref.conformance.outcome import Outcome, Status
from entmax_ref.conformance.reproduction import reproduction
from entmax_ref.conformance.row_registry import ROW_CHECKS
from entmax_ref.conformance.target import RowTarget, Target

CHECKS: dict[str, Check] = {check.name: check for check in (*ROW_CHECKS, *ATTENTION_CHECKS)}


@dataclass(frozen=True)
class Budget:
    """How many examples a check draws, of rows of how many keys: alone, at the level ``long``, and in attention.

    Where it is not ``conclusive``, a failure that was expected and did not show is no surprise.
    """

    examples: int
    keys: int
    long_keys: int
    attention_keys: int = 130
    conclusive: bool = True


BUDGETS = {
    "quick": Budget(60, 1025, 16385, 130, conclusive=False),
    "default": Budget(150, 8193, 131072, 260),
    "thorough": Budget(1000, 16385, 1048576, 1025),
}


class _Broken(Exception):
    """An example failed: raised so that Hypothesis looks for a smaller one."""


def judged(check: Check, target: Any, case: Case) -> Finding:
    """Return the judgement of an example; an error that the target raises is one too, in one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return check.judge(target, case)
    except BadAnswer as error:
        return Finding(math.nan, 0.0, str(error))


def run_check(check: Check, target: Target, dtype: str, budget: Budget, seed: int = 0) -> Outcome:
    """Return what comes of a check on a target in one dtype.

    Parameters
    ----------
    check : Check
    target : Target
    dtype : str
    budget : Budget
    seed : int

    Returns
    -------
    Outcome
        Equal arguments draw equal examples.
    """

    def outcome(status: Status, share: float, count: int, sentence: str, case: Case | None = None) -> Outcome:
        program = reproduction(target, check.name, case) if case else ""
        return Outcome(
            target.name, target.version, check.name, check.level, check.claim, dtype,
            status, share, count, sentence, program, case,
        )  # fmt: skip

    refusal = target.missing or check.refusal(target)
    if refusal:
        return outcome("skipped", 0.0, 0, refusal)
    most = budget.long_keys if check.level == "long" else budget.keys
    if check.kind == "attention" and check.level != "long":
        most = budget.attention_keys
    shares: list[float] = []
    broken: list[tuple[Finding, Case]] = []

    known = [one for one in target.known if one.check == check.name and (not one.dtypes or dtype in one.dtypes)]
    for one in known:
        if one.case is not None:
            case = dataclasses.replace(one.case, dtype=dtype)
            finding = judged(check, target, case)
            shares.append(finding.share)
            broken += [] if finding.passed else [(finding, case)]

    @seeded(seed)
    @settings(
        max_examples=max(5, int(budget.examples * check.share)),
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(check.draw(target, dtype, most))
    def hold(case: Case) -> None:
        finding = judged(check, target, case)
        shares.append(finding.share)
        if not finding.passed:
            # Hypothesis ends on the smallest one.
            broken.append((finding, case))
            raise _Broken

    try:
        if not broken:
            hold()
    except Unsatisfiable:
        return outcome("skipped", 0.0, 0, f"no example of {check.name} fits what the target takes")
    except _Broken:
        pass
    why = f"; expected: {known[0].reason}" + (f" ({known[0].link})" if known[0].link else "") if known else ""
    worst = max(shares, default=0.0)
    if broken:
        finding, case = broken[-1]
        return outcome("known failure" if known else "failed", worst, len(shares), said(finding) + why, case)
    if known and budget.conclusive:
        return outcome("unexpected pass", worst, len(shares), "no example failed" + why)
    return outcome("passed", worst, len(shares), "")


def said(finding: Finding) -> str:
    """Return a finding with its numbers, where it has some."""
    if finding.error != finding.error or finding.limit <= 0.0:
        return finding.sentence
    return f"{finding.sentence} (error {finding.error:.2g}, limit {finding.limit:.2g})"


def checks_for(target: Target, levels: Sequence[str] = LEVELS, names: Sequence[str] = ()) -> list[Check]:
    """Return the checks for targets of this kind, of those levels, and of those names if any are given."""
    kind = "rows" if isinstance(target, RowTarget) else "attention"
    return [
        check
        for check in CHECKS.values()
        if check.kind == kind and check.level in levels and (not names or check.name in names)
    ]


def cells(
    targets: Sequence[Target],
    levels: Sequence[str] = LEVELS,
    names: Sequence[str] = (),
    dtypes: Sequence[str] = (),
) -> list[tuple[Target, Check, str]]:
    """Return each of `checks_for` each target with each of its dtypes, or with those given that it has."""
    return [
        (target, check, dtype)
        for target in targets
        for check in checks_for(target, levels, names)
        for dtype in target.dtypes
        if not dtypes or dtype in dtypes
    ]


def unknown(levels: Sequence[str], names: Sequence[str]) -> str:
    """Return what is wrong with the first level or check that there is none of, empty if nothing is."""
    for option, asked, known in (("level", levels, LEVELS), ("check", names, tuple(CHECKS))):
        for name in asked:
            if name not in known:
                return f"{option} must be one of {', '.join(known)}, got {name!r}. Leave it out for all."
    return ""


def run_target(
    target: Target, budget: Budget, levels: Sequence[str] = LEVELS, names: Sequence[str] = (), seed: int = 0
) -> Iterator[Outcome]:
    """Yield what comes of each check of a target, in each of its dtypes."""
    for _, check, dtype in cells([target], levels, names):
        yield run_check(check, target, dtype, budget, seed)


def replay(target: Target, check: str, case: Case) -> str:
    """Return what a check says about one example."""
    finding = judged(CHECKS[check], target, case)
    return f"{'passed' if finding.passed else 'failed'}: {said(finding)}"
