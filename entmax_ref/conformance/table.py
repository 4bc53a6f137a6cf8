"""What did the run find, for a person in front of a terminal?  A table of checks by dtype, then what failed and how."""

import textwrap
from collections.abc import Sequence

from entmax_ref.conformance.outcome import Outcome

_WIDTH = 119
_MARKS = {"passed": "ok", "failed": "FAIL", "known failure": "known", "unexpected pass": "PASS?", "skipped": "-"}
LEGEND = (
    "The number is the largest error as a share of its limit, over all examples. known: fails as the adapter says it "
    "does. PASS?: was expected to fail, and did not. -: not claimed."
)


def mark(outcome: Outcome) -> str:
    """Return what a cell of the table shows."""
    text = _MARKS[outcome.status]
    if outcome.status in ("skipped", "unexpected pass"):
        return text
    return f"{text} {share_text(outcome.share)}"


def share_text(share: float) -> str:
    """Return a share in few characters.

    Examples
    --------
    >>> share_text(0.1234), share_text(31.2), share_text(1e9)
    ('0.12', '31', '>1e6')
    """
    if share > 1e6:
        return ">1e6"
    return f"{share:.2f}" if share < 10.0 else f"{share:.0f}"


def dtypes_of(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the dtypes of some outcomes, in the order in which they came."""
    return list(dict.fromkeys(outcome.dtype for outcome in outcomes))


def summary(outcomes: Sequence[Outcome], *, details: bool = True) -> str:
    """Return the table of each target, what was skipped, what failed with a reproduction, and a verdict."""
    lines: list[str] = []
    for name in dict.fromkeys(outcome.target for outcome in outcomes):
        lines += [*_of_target([outcome for outcome in outcomes if outcome.target == name]), ""]
    if details:
        # One program a check: the other dtypes fail alike.
        first = {(outcome.target, outcome.check): outcome for outcome in reversed(outcomes) if outcome.bad}
        for outcome in reversed(first.values()):
            lines += [told(outcome), ""]
    lines += textwrap.wrap(LEGEND, _WIDTH)
    return "\n".join([*lines, verdict(outcomes)])


def verdict(outcomes: Sequence[Outcome]) -> str:
    """Return how many checks there were, and what came of them."""
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in _MARKS}
    parts = [f"{count} {status}" for status, count in counts.items() if count]
    return f"{'FAIL' if any(outcome.bad for outcome in outcomes) else 'PASS'}: {', '.join(parts)}."


def _of_target(outcomes: Sequence[Outcome]) -> list[str]:
    dtypes = dtypes_of(outcomes)
    head = f"{outcomes[0].target} {outcomes[0].version}".strip()
    lines = [head, f"  {'check':<26}" + "".join(f"{dtype:>13}" for dtype in dtypes)]
    for check in dict.fromkeys(outcome.check for outcome in outcomes):
        cells = {outcome.dtype: outcome for outcome in outcomes if outcome.check == check}
        shown = [mark(cells[dtype]) if dtype in cells else "" for dtype in dtypes]
        lines.append(f"  {check:<26}" + "".join(f"{text:>13}" for text in shown))
    known = dict.fromkeys((one.check, one.sentence) for one in outcomes if one.status == "known failure")
    said = [f"known: {check}: {sentence}" for check, sentence in known]
    # A missing claim leaves out several checks: it is said once.
    reasons: dict[str, dict[str, None]] = {}
    for one in outcomes:
        if one.status == "skipped":
            reasons.setdefault(one.sentence, {})[one.check] = None
    said += [f"skipped: {', '.join(left_out)}: {sentence}" for sentence, left_out in reasons.items()]
    for text in said:
        lines += textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")
    return lines


def told(outcome: Outcome) -> str:
    """Return what failed and, if an example did, a program that shows it."""
    head = (
        f"{outcome.status}: {outcome.target}, {outcome.check} ({outcome.claim}) in {outcome.dtype}: {outcome.sentence}"
    )
    lines = textwrap.wrap(head, _WIDTH, subsequent_indent="    ", break_long_words=False)
    if outcome.case is not None and repr(outcome.case) not in outcome.reproduction:
        lines.append(f"    {outcome.case!r}")
    return "\n".join([*lines, *(f"    >>> {line}" for line in outcome.reproduction.splitlines())])
