"""What is kept of a run over attention?  Dataclasses that go to JSON and come back the same."""

from __future__ import annotations

import dataclasses

from adasplash2.bench.shared.record import SCHEMA, Header, Timed

from .cases import Case
from .flex import FlexCheck
from .floor import Floor
from .memory import Memory
from .sparsity import Support


@dataclasses.dataclass(frozen=True)
class Entry(Timed):
    """What a contender of attention did in a case.

    Attributes
    ----------
    memory : Memory or None
    errors : dict of float
        Relative errors of out and d_query in sampled rows, where it computes entmax.
    """

    memory: Memory | None = None
    errors: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class StageTime:
    """One stage of ours; the floor is None for a stage that the count of operations does not know."""

    stage: str
    ms: float
    floor_ms: float | None


@dataclasses.dataclass(frozen=True)
class RowReport:
    """What our forward says of its rows, and how far the sampled ones are from the oracle.

    Attributes
    ----------
    passes : dict of int to int
        How many rows took that many refinement passes.
    residual, mass_error : float
        Largest residual, and largest ``abs(mass - 1)``.
    tau_error : float or None
        Largest distance of tau from the oracle's, in the sampled rows.
    skipped : float
        Share of the visible blocks that our own block mask leaves out.
    """

    passes: dict[int, int]
    residual: float
    mass_error: float
    tau_error: float | None
    skipped: float


@dataclasses.dataclass(frozen=True)
class CaseResult:
    """One case; what could not be measured is None or empty, and ``failures`` says why."""

    case: Case
    entries: tuple[Entry, ...]
    floor: Floor | None = None
    support: Support | None = None
    rows: RowReport | None = None
    stages: tuple[StageTime, ...] = ()
    naive: dict[str, float] = dataclasses.field(default_factory=dict)
    flex: FlexCheck | None = None
    failures: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class SpeedRecord:
    """A run of ``bench attention``.

    Attributes
    ----------
    header : Header
    rounds : int
    matrix_rate : dict of str to float
        Operations a second of an 8192 by 8192 by 8192 product, by dtype.
    asked : int
        Cases of the whole run; fewer results mean that it was cut short.
    results : tuple of CaseResult
    packages : dict of str
        Versions of the contenders that are packages of their own.
    resumed : tuple of str
        When the run was taken up again, if it was cut short.
    schema : int
    kind : str
    """

    header: Header
    rounds: int
    matrix_rate: dict[str, float]
    asked: int
    results: tuple[CaseResult, ...]
    packages: dict[str, str] = dataclasses.field(default_factory=dict)
    resumed: tuple[str, ...] = ()
    schema: int = SCHEMA
    kind: str = "attention"
