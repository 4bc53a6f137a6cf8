"""Where is an implementation of entmax wrong?  Point this suite at it: properties, drawn examples, derived bounds.

``pytest --pyargs entmax_ref.conformance --entmax-target "package.module:function"`` or ``adasplash2 verify --target
package.module:function`` run the checks on what the function returns, a `RowTarget` or an `AttentionTarget`. It needs
the extra ``conformance``.

Examples
--------
>>> import entmax_ref
>>> from entmax_ref.conformance import BUDGETS, RowTarget, run_target
>>> target = RowTarget(
...     name="mine", version="1", probs=lambda scores, alpha, dtype: entmax_ref.entmax(scores, alpha)
... )
>>> [outcome.status for outcome in run_target(target, BUDGETS["quick"], names=("row_sum", "gradient"))]
['passed', 'skipped']
"""

from entmax_ref.conformance.case import Case
from entmax_ref.conformance.check import LEVELS, Check, Finding
from entmax_ref.conformance.loading import TargetError, load
from entmax_ref.conformance.outcome import Outcome
from entmax_ref.conformance.precision import rounded
from entmax_ref.conformance.running import BUDGETS, CHECKS, Budget, checks_for, replay, run_check, run_target
from entmax_ref.conformance.target import Attended, AttentionTarget, Call, Known, RowTarget, Target

__all__ = [
    "BUDGETS",
    "CHECKS",
    "LEVELS",
    "Attended",
    "AttentionTarget",
    "Budget",
    "Call",
    "Case",
    "Check",
    "Finding",
    "Known",
    "Outcome",
    "RowTarget",
    "Target",
    "TargetError",
    "checks_for",
    "load",
    "replay",
    "rounded",
    "run_check",
    "run_target",
]
