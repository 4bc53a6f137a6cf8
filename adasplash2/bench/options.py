"""Which options does ``adasplash2 bench`` take?  Parsers only: asking for help should not import what runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from adasplash2.usage import exit_codes

CONTENDERS = ("ours", "flash", "cudnn", "adasplash")
# Of an option that may be repeated.
_SEVERAL: dict[str, Any] = {"action": "append", "default": []}
ROW_CONTENDERS = ("ours", "copy", "softmax", "entmax_sort", "entmax_bisect", "adasplash")


def _order(text: str) -> float:
    """Return an alpha that the kernels take."""
    try:
        alpha = float(text)
    except ValueError:
        alpha = 0.0
    if not 1.0 < alpha <= 2.0:
        raise argparse.ArgumentTypeError(f"must be a number above 1 and at most 2, got {text}")
    return alpha


def add_bench(commands: Any) -> None:
    """Add ``bench`` and its commands to the subparsers of ``adasplash2``."""
    bench = commands.add_parser(
        "bench",
        help="measure speed, memory and error next to other kernels, and count refinement passes",
        description="Measure the kernels on this machine.",
    )
    benches = bench.add_subparsers(dest="bench", metavar="BENCH", required=True)
    _add_attention(benches)
    _add_passes(benches)
    _add_rows(benches)
    _add_ways(benches)
    _add_tune(benches)


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
        epilog=exit_codes("our kernels ran in every case"),
    )
    parser.add_argument("--quick", action="store_true", help="four cases, one round, without adasplash")
    parser.add_argument("--workload", metavar="NAME", help="such as topic16; repeat for more", **_SEVERAL)
    parser.add_argument("--length", metavar="N", type=int, help="queries and keys; repeat for more", **_SEVERAL)
    parser.add_argument("--head-dim", metavar="D", type=int, help="repeat for more", **_SEVERAL)
    parser.add_argument("--mask", choices=("causal", "full"), help="repeat for more", **_SEVERAL)
    parser.add_argument("--alpha", metavar="A", type=_order, help="above 1, up to 2; repeat for more", **_SEVERAL)
    parser.add_argument("--dtype", choices=("bf16", "fp16", "fp32"), help="repeat for more", **_SEVERAL)
    parser.add_argument(
        "--contender",
        choices=CONTENDERS,
        help="time this one only; repeat for more (default: all there are)",
        **_SEVERAL,
    )
    parser.add_argument("--flex", action="store_true", help="also check tau with FlexAttention, which torch compiles")
    parser.add_argument("--rounds", metavar="N", type=int, help="turns of the contenders (default: 3, with --quick 1)")
    _add_tuning_time(parser, 120.0)
    _add_files(parser, "times")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the record in --json, of the same run, that was cut short"
    )
    parser.add_argument(
        "--list", action="store_true", help="list the cases that would run (batch x heads x length x head_dim), and end"
    )


def _add_passes(benches: Any) -> None:
    parser = benches.add_parser(
        "passes",
        help="count refinement passes per row, for rows of length 1 to 1048576",
        description="Count the refinement passes that rows take until they meet the tolerance: flat and peaked rows, "
        "ties, clusters, supports of any size, and rows of a structured workload, of length 1 to 1048576, at alpha 1.5 "
        "and 2. On a GPU the kernels count, on float32 operands whose products are the rows bit by bit; elsewhere, or "
        "with --spec, the float64 specification of the same stages.",
        epilog=exit_codes("every row converged"),
    )
    parser.add_argument("--spec", action="store_true", help="count in the float64 specification, also where a GPU is")
    parser.add_argument("--workload", metavar="NAME", help="such as equal or gauss1; repeat for more", **_SEVERAL)
    parser.add_argument("--length", metavar="N", type=int, help="keys of a row; repeat for more", **_SEVERAL)
    parser.add_argument("--alpha", metavar="A", type=_order, help="above 1, up to 2; repeat for more", **_SEVERAL)
    parser.add_argument("--rows", metavar="N", type=int, default=32, help="rows of each kind and length (default: 32)")
    _add_files(parser, "passes")


def _add_rows(benches: Any) -> None:
    parser = benches.add_parser(
        "rows",
        help="time the maps of rows next to a copy, softmax, entmax and adasplash, and measure their errors",
        description="Time entmax of rows N(0, 1), forward and step (forward and backward), next to a copy of the same "
        "bytes, torch's softmax, and to the packages entmax (by sorting and by bisection) and adasplash where they are "
        "installed, each at its defaults; then measure errors on rows that are hard, against the float64 oracle. Needs "
        "a GPU. Runs every combination of the dtypes, alphas and lengths that are named.",
        epilog=exit_codes("our kernels ran in every case"),
    )
    parser.add_argument(
        "--length", metavar="N", type=int, help="keys of a row; repeat for more (default: 1024 to 131072)", **_SEVERAL
    )
    parser.add_argument(
        "--dtype", choices=("bf16", "fp16", "fp32"), help="repeat for more (default: fp32, bf16)", **_SEVERAL
    )
    parser.add_argument(
        "--alpha", metavar="A", type=_order, help="above 1, up to 2; repeat for more (default: 1.5, 2)", **_SEVERAL
    )
    parser.add_argument(
        "--contender",
        choices=ROW_CONTENDERS,
        help="time this one only; repeat for more (default: all there are)",
        **_SEVERAL,
    )
    parser.add_argument("--elements", metavar="N", type=int, default=2**26, help="numbers in all (default: 2**26)")
    parser.add_argument("--rounds", metavar="N", type=int, default=3, help="turns of the contenders (default: 3)")
    _add_files(parser, "times")


def _add_ways(benches: Any) -> None:
    parser = benches.add_parser(
        "ways",
        help="time a step by tiles, by single keys and as chosen, over the share of live scores",
        description="Time a step (forward and backward) of causal entmax attention of alpha 1.5, as chosen, with all "
        "blocks by tiles, and with all that have room by single keys, next to the softmax attention of "
        "FlashAttention-2 and cuDNN and to the package adasplash where it is installed; count how many scores are "
        "support, and which way each block goes. Needs a GPU. Workloads run from rows of which every key is support to "
        "rows of a few, with 16 heads and 32768 tokens of head_dim 64, and the queries and keys of a real transformer "
        "that come with the package.",
        epilog=exit_codes("our kernels ran in every case"),
    )
    parser.add_argument("--workload", metavar="NAME", help="synthetic or recorded; repeat for more", **_SEVERAL)
    parser.add_argument(
        "--length", metavar="N", type=int, help="queries and keys; repeat for more (default: 8192, 32768)", **_SEVERAL
    )
    parser.add_argument(
        "--contender",
        choices=CONTENDERS[1:],
        help="time this one only, beside ours; repeat for more (default: all there are)",
        **_SEVERAL,
    )
    parser.add_argument("--rounds", metavar="N", type=int, default=2, help="turns of the contenders (default: 2)")
    _add_tuning_time(parser, 60.0)
    _add_files(parser, "times")


def _add_tune(benches: Any) -> None:
    parser = benches.add_parser(
        "tune",
        help="time alternative rows of the launch table, and propose one",
        description="Time rows of the launch table for one dtype and head_dim, stage by stage, and propose the fastest "
        "with the measurement as its reason. Nothing is written: a person commits the line. Needs a GPU.",
        epilog=exit_codes("a row is proposed", "no candidate ran"),
    )
    parser.add_argument("--dtype", choices=("bf16", "fp16", "fp32"), default="bf16", help="default: bf16")
    parser.add_argument("--head-dim", metavar="D", type=int, default=64, help="default: 64")
    parser.add_argument("--length", metavar="N", type=int, default=8192, help="default: 8192")
    parser.add_argument("--mask", choices=("causal", "full"), default="causal", help="default: causal")
    parser.add_argument("--alpha", metavar="A", type=_order, default=1.5, help="above 1, up to 2 (default: 1.5)")
    parser.add_argument(
        "--workload", metavar="NAME", help="repeat for more; times add up (default: topic16 and gauss1)", **_SEVERAL
    )
    parser.add_argument(
        "--vary",
        metavar="FIELD=V,V",
        help="values to combine for a field of the table, such as warps=4,8; repeat for more",
        **_SEVERAL,
    )


def _add_tuning_time(parser: Any, default: float) -> None:
    parser.add_argument(
        "--tuning-time",
        metavar="SECONDS",
        type=float,
        default=default,
        help="adasplash tunes itself for each length and head_dim, minutes each; begin none after this long "
        f"(default: {default:g})",
    )


def _add_files(parser: Any, drawn: str) -> None:
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the record to this file, after every case")
    parser.add_argument("--plot", metavar="FILE", type=Path, help=f"draw the {drawn} to this file, .png or .svg")
