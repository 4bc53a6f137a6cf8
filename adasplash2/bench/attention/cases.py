"""Which attention calls are timed?  Workloads by length, head_dim and mask; the first ones matter most."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

WORKLOADS = ("topic16", "gauss1", "gauss4", "sink_local1024")
MASKS = ("causal", "full")
DTYPES = ("bf16", "fp16", "fp32")
TOKENS = 32768  # batch * length, as long as a batch item is no longer than that
HEADS = 16


@dataclasses.dataclass(frozen=True)
class Case:
    """One attention call that all contenders make.

    Attributes
    ----------
    workload : str
        A synthetic name of `adasplash2.workloads`.
    length : int
        Queries, and keys.
    batch, heads : int
        See `case_of`.
    head_dim : int
    is_causal : bool
    alpha : float
    dtype : str
        "bf16", "fp16" or "fp32".
    run : int
        2 for a case that is measured a second time, to show the noise.
    """

    workload: str
    length: int
    batch: int
    heads: int
    head_dim: int = 64
    is_causal: bool = True
    alpha: float = 1.5
    dtype: str = "bf16"
    run: int = 1

    @property
    def mask(self) -> str:
        """ "causal" or "full"."""
        return MASKS[not self.is_causal]

    @property
    def label(self) -> str:
        """The case in a few words, without what all cases of the default list share."""
        words = [self.workload, f"{self.length}", f"d{self.head_dim}", self.mask]
        words += [self.dtype] * (self.dtype != "bf16") + [f"alpha {self.alpha:g}"] * (self.alpha != 1.5)
        return " ".join(words + ["again"] * (self.run > 1))

    @property
    def shape(self) -> str:
        """Batch, heads, length and head_dim."""
        return f"{self.batch}x{self.heads}x{self.length}x{self.head_dim}"


def case_of(
    workload: str,
    length: int,
    head_dim: int = 64,
    mask: str = "causal",
    *,
    alpha: float = 1.5,
    dtype: str = "bf16",
    run: int = 1,
) -> Case:
    """Return the case with as many batch items as make 32768 tokens, and 16 heads.

    Beyond 32768 there is one batch item, and fewer heads the longer it is: 4 at 131072, which bounds memory and time.
    """
    heads = max(HEADS * TOKENS // max(length, TOKENS), 1)
    return Case(workload, length, max(TOKENS // length, 1), heads, head_dim, mask == "causal", alpha, dtype, run)


def default_cases(dtype: str = "bf16") -> list[Case]:
    """Return the base cases, what differs from them in one thing, topic16 at other alphas, and the first case again.

    Of the alphas 1.1 is one that the kernels are not compiled for.
    """
    base = [case_of(name, 32768, dtype=dtype) for name in WORKLOADS]
    cases = [*base]
    cases += [case_of(name, 8192, dtype=dtype) for name in WORKLOADS]
    cases += [case_of(name, 32768, 128, dtype=dtype) for name in WORKLOADS]
    cases += [case_of(name, 32768, mask="full", dtype=dtype) for name in WORKLOADS]
    cases += [case_of(name, 131072, dtype=dtype) for name in WORKLOADS]
    cases += [case_of("topic16", 32768, alpha=alpha, dtype=dtype) for alpha in (2.0, 4.0 / 3.0, 1.25, 1.1)]
    return [*cases, dataclasses.replace(base[0], run=2)]


def quick_cases(dtype: str = "bf16") -> list[Case]:
    """Return three cases of one kernel build, and the first of them again."""
    cases = [case_of("topic16", 8192, dtype=dtype), case_of("gauss1", 8192, dtype=dtype)]
    return [*cases, case_of("topic16", 32768, dtype=dtype), dataclasses.replace(cases[0], run=2)]


def chosen_cases(
    *,
    workloads: Sequence[str] = (),
    lengths: Sequence[int] = (),
    head_dims: Sequence[int] = (),
    masks: Sequence[str] = (),
    alphas: Sequence[float] = (),
    dtypes: Sequence[str] = (),
) -> list[Case]:
    """Return every combination of what is asked for; what is not is all workloads, 32768, 64, causal, 1.5, bf16."""
    combinations = itertools.product(
        lengths or (32768,), head_dims or (64,), masks or ("causal",), alphas or (1.5,), dtypes or ("bf16",)
    )
    return [
        case_of(name, length, head_dim, mask, alpha=alpha, dtype=dtype)
        for length, head_dim, mask, alpha, dtype in combinations
        for name in workloads or WORKLOADS
    ]
