"""Does a model with entmax attention learn the same, whether one process holds it, several copies or several shards?

Two processes over gloo, on the reference path; gradients and parameters are compared with those of one process.
"""

from __future__ import annotations

import os
import time
import traceback
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from adasplash2.nn import AlphaParameter, MultiheadEntmaxAttention

PROCESSES, BATCH, LENGTH, WIDTH, HEADS = 2, 4, 9, 16, 2
STEPS = 3
# What another order of the sums over a batch may change, in float64, step by step.
ROUNDING = STEPS * BATCH * LENGTH * WIDTH * 2.0**-53
SECONDS = 180  # until a process that hangs is a failure

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not distributed.is_available() or not distributed.is_gloo_available(), reason="needs gloo"),
]


class Block(torch.nn.Module):
    """Attention with a learned alpha per head, and a layer after it."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = MultiheadEntmaxAttention(WIDTH, HEADS, batch_first=True, alpha=AlphaParameter((HEADS,)))
        self.last = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend causally and apply the layer."""
        hidden = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
        attended, _ = self.attend(x, x, x, attn_mask=hidden, need_weights=False)
        return self.last(x + attended)


def learn(model: torch.nn.Module, parts: torch.Tensor) -> None:
    """Take a few steps on the mean over all examples of a batch, or of this process's share of it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for part in parts:
        optimizer.zero_grad()
        model(part).square().mean().backward()
        optimizer.step()


def examples() -> torch.Tensor:
    """Return (steps, batch, length, width), the same in every process."""
    return torch.randn(STEPS, BATCH, LENGTH, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def start() -> Block:
    torch.manual_seed(1)
    return Block().double()


def work(rank: int, folder: str, way: str) -> None:
    """Learn on the share of one process, and let the first one save what was learnt."""
    try:
        distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=PROCESSES)
        model: torch.nn.Module = start()
        if way == "copies":
            model = DistributedDataParallel(model)
        else:
            mesh = init_device_mesh("cpu", (PROCESSES,))
            fully_shard(model.attend, mesh=mesh)
            fully_shard(model, mesh=mesh)
        share = BATCH // PROCESSES
        learn(model, examples()[:, rank * share : (rank + 1) * share])
        found = {
            name.removeprefix("module."): (value.full_tensor() if hasattr(value, "full_tensor") else value).detach()
            for name, value in model.named_parameters()
        }
        if rank == 0:
            torch.save(found, Path(folder) / "learnt.pt")
        # No process leaves while another still needs its connection.
        Path(folder, f"done{rank}").touch()
        while not all(Path(folder, f"done{other}").exists() for other in range(PROCESSES)):
            time.sleep(0.05)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    # Without the destructors of the group: those of gloo can wait for a process that has left.
    os._exit(0)


@pytest.mark.parametrize("way", ["copies", "shards"])
def test_several_processes_learn_what_one_does(way: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(rank, str(tmp_path), way)) for rank in range(PROCESSES)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(timeout=SECONDS)
        assert [process.exitcode for process in processes] == [0] * PROCESSES
    finally:
        for process in processes:
            process.kill()
    found = torch.load(tmp_path / "learnt.pt")
    one, untouched = start(), dict(start().named_parameters())
    learn(one, examples())
    wanted = dict(one.named_parameters())
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=ROUNDING, atol=ROUNDING)
    # the comparison has something to compare: all was learnt, alpha as well
    assert all(not torch.equal(value, untouched[name]) for name, value in wanted.items() if "in_proj_bias" not in name)
    assert any("alpha" in name for name in wanted)
