"""Run the kernel stages one by one on scores that are known exactly, and keep what each of them left.

With the identity for keys and ``scale * (alpha - 1) == 1``, every product has one term: z is the query, bit for bit, in
the interpreter and on a GPU alike. So a stage is compared with its specification on the very same scores.
"""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from adasplash2 import launch
from adasplash2.launch_table import MAX_HEAD_DIM, Launch, Program
from adasplash2.orders import alphas_of
from adasplash2.problem import SOLVE_ROWS, Problem, entries_of
from adasplash2.stages import backward_calls, forward_calls
from adasplash2.state import ForwardState, empty_backward, empty_forward, unpack_mask

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
U = 2.0**-24  # unit roundoff of float32
# What kernels are compiled for, and alphas that they load, for which scale * (alpha - 1) is 1 in float32.
ALPHAS = (1.5, 2.0, 4.0 / 3.0, 1.25, 1.75, 1.0625)
TILE = 16  # the smallest that a matrix unit takes, so that short rows cross many tile edges


@dataclasses.dataclass
class Staged:
    """Operands, problem and a copy of the state after each forward stage; rows are float64 arrays (heads, n, ...)."""

    problem: Problem
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    z: np.ndarray
    after: dict[str, ForwardState]

    def row(self, stage, name):
        """Return a number per row as float64 (n_queries,), of the only batch and head."""
        return getattr(self.after[stage], name)[0, 0].double().cpu().numpy()

    def tau(self, stage="output"):
        """Return the threshold, base and rest added in float64, as the specification counts it."""
        return self.row(stage, "base") + self.row(stage, "rest")

    def mask(self, stage, name="block_mask"):
        """Return a mask as booleans (query blocks, key blocks)."""
        return unpack_mask(getattr(self.after[stage], name), self.problem.n_key_blocks)[0].cpu().numpy()

    def lists(self, stage, name):
        """Return the lists of a stage, one array for each of its rows, and their numbers."""
        return read_lists(getattr(self.after[stage], name), at_end=name == "candidates")

    def paths(self, stage="output"):
        """Return the path of each block of queries (kernels/lists.py)."""
        return self.after[stage].candidates.numbers[0, :, 3].cpu().numpy()


def read_lists(lists, *, at_end=False, head=0):
    """Return what each list of a head holds, as arrays, and its numbers (below, length, first)."""
    places, numbers = (part[head].cpu().numpy() for part in (lists.places, lists.numbers))
    found = []
    for row, (_, length, first, _) in zip(places, numbers, strict=True):
        if first >= 0:
            found.append(np.arange(first, first + length))
        else:
            found.append(row[len(row) - length :] if at_end else row[:length])
    return found, numbers[:, :3]


# One program of each stage: the smallest tile needs no more.
_PROGRAM = Program(4, 1)


def small_launch(tile=TILE, dense=TILE):
    """Return a row of the launch table with square tiles."""
    return Launch(tile, tile, dense, dense, *(_PROGRAM,) * 13, "the smallest tile")


# No block goes by tiles for the number of its entries alone.
ANY_WORDS = {"shared_words": 2**20, "many_words": 2**20}
# What makes every block take one path.
PATHS = {
    "few": {"row_entries": entries_of(1), **ANY_WORDS},
    "shared": {"row_entries": entries_of(1), "shared_words": 0, "many_words": 2**20},
    "many": {"row_entries": 0},
}


def copied(state):
    """Return a copy of a state, its lists included."""
    copies = {}
    for field in dataclasses.fields(state):
        value = getattr(state, field.name)
        copies[field.name] = copied(value) if dataclasses.is_dataclass(value) else value.clone()
    return type(state)(**copies)


def staged(z, alpha=1.5, *, is_causal=False, ranges=None, seed=0, tile=TILE, dense=TILE, equal=None, **problem_fields):
    """Run the forward stages on scores ``z``, (n_queries, n_keys), which must be float32 numbers.

    ``ranges``, int32 (n_queries, 2), are the keys that each query sees.
    ``equal`` is a number that all values are; without it they are drawn.
    Other keywords replace fields of the problem: how much its lists hold.
    """
    n_queries, n_keys = z.shape
    head_dim = max(n_keys, 1)
    if head_dim > MAX_HEAD_DIM and not launch.INTERPRETED:
        pytest.skip(f"{n_keys} keys of as many dimensions, and compiled kernels take {MAX_HEAD_DIM}: interpreter only")
    generator = torch.Generator().manual_seed(seed)
    query = torch.tensor(z, dtype=torch.float32).reshape(1, 1, n_queries, head_dim)
    key = torch.eye(n_keys, head_dim).reshape(1, 1, n_keys, head_dim)
    value = torch.randn(1, 1, n_keys, head_dim, generator=generator)
    if equal is not None:
        value.fill_(equal)
    query, key, value = (tensor.to(DEVICE) for tensor in (query, key, value))
    problem = dataclasses.replace(
        Problem.of(query, key, alpha=alpha, scale=1.0 / (alpha - 1.0), is_causal=is_causal, backend=launch.BACKEND),
        launch=small_launch(tile, dense),
        **problem_fields,
    )
    state = empty_forward(problem, query)
    after = {}
    seen = None if ranges is None else torch.tensor(ranges, dtype=torch.int32, device=DEVICE)[None]
    for call in forward_calls(problem, query, key, value, state, seen, alphas_of(alpha, query)):
        call.run()
        after[call.stage] = copied(state)
    exact = z.astype(np.float64)
    if is_causal:
        visible = np.arange(n_keys)[None, :] <= np.arange(n_queries)[:, None] + n_keys - n_queries
        exact = np.where(visible, exact, -np.inf)
    if ranges is not None:
        keys = np.arange(n_keys)
        exact = np.where((keys >= ranges[:, :1]) & (keys < ranges[:, 1:]), exact, -np.inf)
    return Staged(problem, query, key, value, exact, after)


def own_places(run, stage, row):
    """Return the places of the scratch that a row has after a stage: its entries, and the keys that it found."""
    # The last block of queries comes first, and the places of the rows of one program of `solve` alternate.
    tile = -(-run.problem.n_queries // TILE) - 1 - row // TILE
    scratch = run.after[stage].entries.reshape(-1, TILE // SOLVE_ROWS, run.problem.row_places, SOLVE_ROWS)
    return tile, scratch[tile, row % TILE // SOLVE_ROWS, :, row % SOLVE_ROWS].cpu().numpy()


def live_keys(run, row):
    """Return the keys that the entries of a row name."""
    tile, places = own_places(run, "collect", row)
    keys = []
    for entry in places[: int(run.after["collect"].counts[tile, row % TILE])]:
        word, group = np.uint64(entry) >> np.uint64(32), int(entry) & 0x7FFFFFFF
        assert word != 0
        keys += [group * TILE + bit for bit in range(32) if int(word) >> bit & 1]
    return keys


def backward(run, d_out):
    """Run the backward stages after `staged`; returns their state."""
    left = run.after["output"]
    state = empty_backward(run.problem, run.query, run.key, run.value)
    operands = (d_out, run.query, run.key, run.value)
    rows = (left.out, left.base, left.rest, left.block_mask, left.support)
    for call in backward_calls(run.problem, *operands, *rows, state, None, alphas_of(run.problem.alpha, run.query)):
        call.run()
    return state


def tile_any(per_row, tile=TILE):
    """Return which blocks some row of each query block asks for."""
    starts = np.arange(0, per_row.shape[0], tile)
    return np.logical_or.reduceat(per_row, starts, axis=0)


@st.composite
def score_matrices(draw, max_queries=20, max_keys=70):
    """Return float32 scores (n_queries, n_keys): every row of one kind, the kinds that are hard for a threshold."""
    n_queries, n_keys = draw(st.integers(1, max_queries)), draw(st.integers(1, max_keys))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = {
        "gaussian": lambda: rng.normal(size=n_keys) * rng.choice([0.01, 0.2, 1.0, 4.0, 30.0]),
        "equal": lambda: np.full(n_keys, rng.normal()),
        "ties": lambda: rng.integers(-3, 1, n_keys) / 4,
        "clusters": lambda: rng.choice(rng.normal(size=3), n_keys) + rng.normal(size=n_keys) * 1e-4,
        "spike": lambda: np.where(np.arange(n_keys) == rng.integers(n_keys), 40.0, rng.normal(size=n_keys)),
        "near the edge": lambda: -rng.choice([0.0, 0.5, 0.75, 1.0, 1.0 - 2.0**-24, 2.0**-7], n_keys),
        "offset": lambda: 1e4 + rng.normal(size=n_keys),
        "tiny": lambda: rng.normal(size=n_keys) * 1e-38,
    }
    names = draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=4))
    return np.stack([kinds[names[i % len(names)]]() for i in range(n_queries)]).astype(np.float32)
