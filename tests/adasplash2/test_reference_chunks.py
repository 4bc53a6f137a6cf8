"""Does it matter how the eager path divides its work: into chunks, into rows of few and of many keys?"""

import subprocess
import sys

import numpy as np
import pytest
import torch

import entmax_ref
import entmax_ref.bounds
from adasplash2 import entmax_attention
from adasplash2.reference import BLOCK, chunks, reference_attention, support, weights
from adasplash2.workloads import workload

SHAPE = {"batch": 2, "heads": 2, "kv_heads": 1, "head_dim": 8, "segment": 32}


def results(load, alpha, **options):
    leaves = [x.double().requires_grad_() for x in (load.query, load.key, load.value)]
    mask = options.get("attn_mask")
    result = reference_attention(*leaves, alpha=alpha, is_causal=load.is_causal, scale=0.4, **options)
    wanted = leaves if mask is None else [*leaves, mask]
    return [*result, *torch.autograd.grad(result.out.square().sum(), wanted)]


@pytest.mark.parametrize(
    ("alpha", "n_queries", "n_keys", "is_causal"),
    [
        (1.01, 150, 200, True),
        (1.25, 150, 200, False),
        (1.5, 150, 200, True),
        (1.5, 150, 200, False),
        (1.5, 200, 150, True),
        (1.5, 1, 300, True),
        (3.0, 150, 200, True),
    ],
)
def test_the_size_of_a_chunk_changes_nothing(monkeypatch, alpha, n_queries, n_keys, is_causal):
    load = workload("gauss1", n_queries=n_queries, n_keys=n_keys, is_causal=is_causal, dtype=torch.float64, **SHAPE)
    mask = torch.randn(2, 1, n_queries, n_keys, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = mask.masked_fill(mask > 1.5, -torch.inf).requires_grad_()
    whole = results(load, alpha, attn_mask=mask)
    # chunks of 8 queries (of 1 where that is not many), of 2 blocks, of one item, of both
    for length in (2 * 10 * n_keys if n_queries > 1 else 1, 2 * 130 * n_keys, 2 * 210 * n_keys, 4 * 210 * n_keys):
        monkeypatch.setattr(chunks, "SCORES_AT_ONCE", length)
        for found, expected in zip(results(load, alpha, attn_mask=mask), whole, strict=True):
            if found.dtype == torch.bool:
                assert torch.equal(found, expected)
                continue
            ordinary = expected.isfinite()
            assert torch.equal(found[~ordinary], expected[~ordinary])
            # the same numbers, added in another order: a few hundred terms
            apart = (found - expected)[ordinary].abs()
            assert apart.numel() == 0 or apart.max() <= 512 * 2.0**-53 * max(1.0, expected[ordinary].abs().max())


@pytest.mark.parametrize("alpha", [1.25, 1.5])
@pytest.mark.parametrize("name", ["gauss1", "gauss4", "topic4", "ties", "equal", "sink", "spike", "nan", "inf"])
def test_gathered_and_dense_products_agree(monkeypatch, name, alpha):
    load = workload(name, n_queries=70, n_keys=700, is_causal=True, dtype=torch.float32, **SHAPE)
    with monkeypatch.context() as patch:
        patch.setattr(weights, "GATHERED", 10**6)
        dense = results(load, alpha)
    for found, expected in zip(results(load, alpha), dense, strict=True):
        ordinary = expected.isfinite()
        assert torch.equal(found.isnan(), expected.isnan())
        apart = (found.double() - expected.double())[ordinary].abs()
        assert apart.numel() == 0 or apart.max() <= 1024 * 2.0**-53 * expected[ordinary].double().abs().max()


@pytest.mark.parametrize("alpha", [1.25, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("width", [1, 8, 32, 200])
def test_the_first_width_changes_nothing(alpha, width):
    scores = torch.randn(60, 900, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores *= torch.logspace(-3, 2, 60, dtype=torch.float64)[:, None]  # supports of one key, and of all
    found = support.supported(scores, alpha - 1.0, width)
    probs = torch.zeros_like(scores)
    for group in found.groups:
        probs[group.rows[:, None].expand_as(group.columns), group.columns] = group.probs
    wanted = entmax_ref.entmax(scores.numpy(), alpha)
    assert (np.abs(probs.numpy() - wanted) <= 2.0 * entmax_ref.bounds.entmax(scores.numpy(), alpha)).all()
    assert sorted(torch.cat([group.rows for group in found.groups]).tolist()) == list(range(60))


@pytest.mark.parametrize("is_causal", [False, True])
def test_block_mask_says_which_blocks_hold_a_probability(is_causal):
    load = workload("topic4", n_queries=200, n_keys=330, is_causal=is_causal, dtype=torch.float64, **SHAPE)
    eye = torch.eye(330, dtype=torch.float64).expand(2, 1, 330, 330)
    result = reference_attention(load.query, load.key, eye, alpha=1.5, is_causal=is_causal, scale=0.4)
    out, block_mask = result.out, result.block_mask
    blocks = torch.nn.functional.max_pool2d((out != 0.0).double(), BLOCK, ceil_mode=True) > 0.0
    assert torch.equal(block_mask, blocks)


def test_no_queries_no_keys_no_items():
    for query, key in (((2, 4, 0, 8), (2, 2, 5, 8)), ((2, 4, 3, 8), (2, 2, 0, 8)), ((0, 4, 3, 8), (0, 2, 5, 8))):
        leaves = [torch.zeros(shape).requires_grad_() for shape in (query, key, key)]
        out, tau, mass, block_mask, _, _ = reference_attention(*leaves, alpha=1.5, is_causal=True, scale=1.0)
        assert out.shape == query and not out.any() and not mass.any() and (tau == torch.inf).all()
        assert block_mask.shape == (*query[:2], (query[2] + BLOCK - 1) // BLOCK, (key[2] + BLOCK - 1) // BLOCK)
        assert not any(gradient.any() for gradient in torch.autograd.grad(out.sum(), leaves))


PEAK = """
import resource, sys, torch
from adasplash2 import entmax_attention
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
def run(n):
    leaves = [torch.randn(1, 1, n, 16, generator=torch.Generator().manual_seed(i)).requires_grad_() for i in range(3)]
    torch.autograd.grad(entmax_attention(*leaves, alpha=float(sys.argv[1]), impl="reference").sum(), leaves)
run(256)
before = peak()
run(2048)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
@pytest.mark.parametrize("alpha", [1.01, 1.5])
def test_memory_does_not_grow_with_the_scores(alpha):
    """4 Mi scores would be 32 MiB a matrix, of which the dense path held ten; a chunk's matrices are 2 MiB each."""
    found = subprocess.run([sys.executable, "-c", PEAK, str(alpha)], check=True, capture_output=True, text=True)
    of_chunk = 32 * 8 * chunks.SCORES_AT_ONCE // 2**20
    of_operands = 10  # query, key, value, output and gradients of 0.125 MiB each, and 0.25 MiB each in float64
    assert int(found.stdout) <= of_chunk + of_operands


def test_autocast_rounds_nothing_inside():
    leaves = [torch.randn(1, 2, 40, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    plain = reference_attention(*leaves, alpha=1.25, is_causal=False, scale=0.25)
    with torch.autocast("cpu", torch.bfloat16):
        cast = reference_attention(*leaves, alpha=1.25, is_causal=False, scale=0.25)
        halves = entmax_attention(*(x.bfloat16() for x in leaves), alpha=1.25, scale=0.25, impl="reference")
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))
    exact = entmax_ref.attention(*(x.bfloat16().double().numpy() for x in leaves), alpha=1.25, scale=0.25)
    # one rounding to bfloat16
    assert (np.abs(halves.double().numpy() - exact) <= 1.001 * 2.0**-8 * np.abs(exact) + 2.0**-50).all()
