"""Which options does ``adasplash2 bench`` take?  Parsers only: asking for help should not import what runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CONTENDERS = ("ours", "flash", "cudnn", "adasplash")


def add_bench(commands: Any) -> None:
    """Add ``bench`` and its commands to the subparsers of ``adasplash2``."""
    bench = commands.add_parser(
        "bench",
        help="measure speed, memory and error next to other kernels, and count refinement passes",
        description="Measure the kernels on this machine.",
    )
    benches = bench.add_subparsers(dest="bench", metavar="BENCH", required=True)
    _add_attention(benches)


def _add_attention(benches: Any) -> None:
    parser = benches.add_parser(
        "attention",
        help="time attention next to FlashAttention-2, cuDNN and adasplash, on the same tensors",
        description="Time forward and step (forward and backward) of entmax attention next to the softmax attention of "
        "FlashAttention-2 and cuDNN, through torch, and to the package adasplash where it is installed, on the same "
        "tensors; measure memory, errors against the float64 oracle, our stages, and the floor. Needs a GPU. Without a "
        "choice of cases, runs a list of them in which length, head_dim, mask and alpha differ from 32768, 64, causal "
        "and 1.5 one at a time, with 16 heads and 32768 tokens (131072: one sequence, 4 heads); with one, every "
        "combination of what is named, the rest being that.",
        epilog="Exit code: 0 if our kernels ran in every case, 1 if not, 2 for a wrong command, 130 if interrupted.",
    )
    several = {"action": "append", "default": []}
    parser.add_argument("--quick", action="store_true", help="four cases, one round, without adasplash")
    parser.add_argument("--workload", metavar="NAME", help="such as topic16; repeat for more", **several)
    parser.add_argument("--length", metavar="N", type=int, help="queries and keys; repeat for more", **several)
    parser.add_argument("--head-dim", metavar="D", type=int, help="repeat for more", **several)
    parser.add_argument("--mask", choices=("causal", "full"), help="repeat for more", **several)
    parser.add_argument("--alpha", type=float, choices=(1.5, 2.0), help="repeat for more", **several)
    parser.add_argument("--dtype", choices=("bf16", "fp16", "fp32"), help="repeat for more", **several)
    parser.add_argument(
        "--contender",
        choices=CONTENDERS,
        help="time this one only; repeat for more (default: all there are)",
        **several,
    )
    parser.add_argument("--flex", action="store_true", help="also check tau with FlexAttention, which torch compiles")
    parser.add_argument("--rounds", metavar="N", type=int, help="turns of the contenders (default: 3, with --quick 1)")
    parser.add_argument(
        "--tuning-time",
        metavar="SECONDS",
        type=float,
        default=120.0,
        help="adasplash tunes itself for each length and head_dim, minutes each; begin none after this long "
        "(default: 120)",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the record to this file, after every case")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw the times to this file, .png or .svg")
    parser.add_argument("--list", action="store_true", help="list the cases that would run, and end")
