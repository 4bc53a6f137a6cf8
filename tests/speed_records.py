"""Records of attention speed made up by hand: a case with everything, one with gaps, one in which ours failed."""

from adasplash2.bench.attention.cases import case_of
from adasplash2.bench.attention.flex import FlexCheck
from adasplash2.bench.attention.floor import Floor
from adasplash2.bench.attention.memory import Memory
from adasplash2.bench.attention.record import CaseResult, Entry, RowReport, SpeedRecord, StageTime
from adasplash2.bench.attention.sparsity import Support
from adasplash2.bench.shared.record import Header
from adasplash2.runs.machine import Machine

MACHINE = Machine("0.1.0", "3.12.3", "2.4.6", "2.11.0", "3.6.0", "cuda:0", "a card", "compiled")


def record(*results):
    """Return a record of these results."""
    header = Header("2026-11-24T00:00:00+00:00", "adasplash2 bench attention", MACHINE)
    return SpeedRecord(header, 3, {"bf16": 8e14}, len(results), results, {"adasplash": "0.2.2"})


def whole():
    """Return a case in which everything was measured; ours takes half of cuDNN's forward and a third of its step."""
    errors = {"out": 2.3e-3, "d_query": 3.1e-3}
    mib = 2**20
    return CaseResult(
        case_of("topic16", 32768),
        (
            Entry(
                "ours", "ok", "", 9.5, (2.5, 2.6, 2.4), (6.0, 6.2, 5.9), Memory(70 * mib, 80 * mib, 300 * mib), errors
            ),
            Entry("flash", "ok", "", 0.1, (7.3, 7.3, 7.2), (26.0, 26.4, 26.2), Memory(66 * mib, 66 * mib, 260 * mib)),
            Entry("cudnn", "ok", "", 0.2, (5.0, 5.1, 4.9), (18.0, 18.1, 17.9), Memory(66 * mib, 66 * mib, 262 * mib)),
            Entry("adasplash", "ok", "", 242.0, (15.0,) * 3, (17.0,) * 3, None, {"out": 2.4e-3, "d_query": 9e-3}),
        ),
        Floor(1.25, 0.125),
        Support(150_000, 2_101_248, 6_000_000, 524_288),
        RowReport({0: 10_000, 1: 510_000, 2: 4_288}, 7e-6, 3e-7, 4e-7, 0.91),
        (StageTime("row_max", 1.5, 1.25), StageTime("histogram", 0.5, None), StageTime("output", 0.5, 0.375)),
        {"out": 2.2e-3, "d_query": 4e-3},
        FlexCheck(3e-6, 4e-3, 20.0),
        (),
        12.5,
    )


def with_gaps():
    """Return a case in which contenders refused and failed, and parts of the measurement did."""
    return CaseResult(
        case_of("gauss1", 32768, mask="full"),
        (
            Entry("ours", "ok", "", 1.0, (20.0,), (70.0,), None, {"out": float("nan"), "d_query": float("inf")}),
            Entry("cudnn", "failed", "RuntimeError: no kernel"),
            Entry("adasplash", "refused", "takes causal calls of alpha 1.5 only"),
        ),
        naive={"out": 2.2e-3, "d_query": 4e-3},
        failures=("sparsity: OutOfMemoryError: 3 GiB",),
    )


def without_ours():
    """Return a case in which our own kernels failed."""
    return CaseResult(
        case_of("gauss4", 8192, 128),
        (Entry("ours", "failed", "RuntimeError: out of resource"), Entry("flash", "ok", "", 0.1, (2.0,), (7.0,))),
        failures=("rows: RuntimeError: out of resource",),
    )
