"""What does `judge` take for a small case?  The load, the truth, the answer, and what a plain evaluation errs by."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from adasplash2.verify.answer import answer_of
from adasplash2.verify.cases import Case
from adasplash2.verify.judge import judge
from adasplash2.verify.naive import naive_attention
from adasplash2.verify.truth import live_blocks, truth_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMALL = Case("topic16", "fp32", 2, 1, 130, 150, 32, True)


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Everything that `judge` takes."""

    case: Case
    load: object
    truth: object
    answer: object
    naive: object
    live: np.ndarray

    def failures(self, **planted):
        answer = dataclasses.replace(self.answer, **planted)
        return judge(self.load, self.truth, answer, self.naive, self.live).failures


def gather(case):
    load = case.load(DEVICE)
    truth = truth_of(load, case.alpha, case.seed)
    answer = answer_of(load, truth.d_out, alpha=case.alpha, impl="triton")
    naive = naive_attention(
        load.query, load.key, load.value, truth.d_out.to(DEVICE), alpha=case.alpha, is_causal=case.is_causal,
        scale=case.head_dim**-0.5,
    )  # fmt: skip
    return Evidence(case, load, truth, answer, naive, live_blocks(load, truth, case.alpha, answer.block))
