"""Are delta and the gradients those of the specification at the kernel's own tau?"""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples
from staged import ALPHAS, DEVICE, PATHS, U, backward, score_matrices, small_launch, staged

from adasplash2 import launch
from adasplash2.problem import Problem
from adasplash2.stages import backward_calls, forward_calls
from adasplash2.state import empty_backward, empty_forward
from entmax_ref import stages


@lemma("delta_is_centre")
@lemma("jacobian_form")
@examples(15)
@given(
    z=score_matrices(max_queries=40),
    alpha=st.sampled_from(ALPHAS),
    is_causal=st.booleans(),
    path=st.sampled_from(sorted(PATHS)),
)
def test_gradients_are_those_of_the_specification(z, alpha, is_causal, path):
    run = staged(z, alpha, is_causal=is_causal, **PATHS[path])
    d_out = torch.randn(run.query.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    found = backward(run, d_out)
    seen = np.isfinite(run.row("dense", "row_max"))
    tau = run.tau()
    query, key, value, grad = (tensor[0, 0].double().cpu().numpy() for tensor in (run.query, run.key, run.value, d_out))
    # The key side takes the base of tau alone: a gap is off by the rounding of tau, and keys that near it are either.
    near = abs(run.z - tau[:, None]) <= 2 * U * np.maximum(abs(tau), 1.0)[:, None]
    if alpha == 2.0 and near[seen].any():
        return
    delta = stages.delta(run.z, tau, value, grad, alpha)
    scale = run.problem.scale
    d_query = stages.backward_dq(run.z, tau, key, value, grad, delta, scale, alpha)
    d_key, d_value = stages.backward_dkdv(run.z, tau, query, value, grad, delta, scale, alpha)

    # Rounding of sums of n terms, by the sum of the sizes of what is added (n keys or queries, head_dim products).
    n = max(run.z.shape) + run.problem.head_dim + 16
    probs, sensitivity = stages.probs_and_sensitivity(run.z, tau, alpha)
    delta_size = stages.delta(run.z, tau, abs(value), abs(grad), alpha)
    mean_size = (probs @ abs(value) * abs(grad)).sum(axis=1)
    sizes = sensitivity * (abs(grad) @ abs(value).T + (delta_size + 2 * mean_size)[:, None])
    moved = U * np.where(np.isfinite(tau), abs(tau), 0.0)[:, None] * (run.z > tau[:, None])
    of_scores = (sensitivity if alpha == 2.0 else sensitivity + moved) * 0 + moved * (alpha != 2.0)
    brackets = abs(grad @ value.T - delta[:, None])
    power = 1.0 / (alpha - 1.0)
    assert (abs(found.delta[0, 0].double().cpu().numpy() - delta) <= 2 * n * U * (delta_size + 2 * mean_size)).all()
    for name, tensor, expected, size, off in (
        ("d_query", found.d_query, d_query, scale * sizes @ abs(key), 0.0),
        ("d_key", found.d_key, d_key, scale * sizes.T @ abs(query), scale * (of_scores * brackets).T @ abs(query)),
        ("d_value", found.d_value, d_value, probs.T @ abs(grad), (power * sensitivity * moved).T @ abs(grad)),
    ):
        error = abs(tensor[0, 0].double().cpu().numpy() - expected)
        assert (error <= 4 * n * U * size + 2.0 * off + 1e-30).all(), name
    assert (found.d_query[0, 0][torch.tensor(~seen)] == 0.0).all()


def test_a_part_that_all_values_share_does_not_cancel():
    """d_probs is counted from d_out . out: with values about 1000 apart from 0 the gradient keeps its digits."""
    rng = np.random.default_rng(3)
    z = rng.normal(size=(20, 48)).astype(np.float32)
    run = staged(z, **PATHS["many"])
    d_out = torch.randn(run.query.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    value, grad = run.value[0, 0].double().cpu().numpy(), d_out[0, 0].double().cpu().numpy()
    key, tau = run.key[0, 0].double().cpu().numpy(), run.tau()
    plain = backward(run, d_out).d_query[0, 0].double().cpu().numpy()
    run.value += 1000.0
    left = run.after["output"]
    left.out.copy_(left.out + 1000.0)
    lifted = backward(run, d_out).d_query[0, 0].double().cpu().numpy()
    exact = stages.backward_dq(run.z, tau, key, value, grad, stages.delta(run.z, tau, value, grad), run.problem.scale)
    size = abs(exact).max()
    # float32 products of values of 1000 round by 1000 * head_dim units, and no more than that is lost
    assert abs(plain - exact).max() <= 1e-5 * size
    assert abs(lifted - exact).max() <= 1000.0 * 64 * U * abs(grad).sum(axis=1).max()


@pytest.mark.parametrize("split_tiles, is_causal", [(1, True), (3, False)])
def test_long_columns_are_split_and_add_up(split_tiles, is_causal):
    """The first key is a sink of all queries of the two heads of its group; the other keys have few queries."""
    generator = torch.Generator().manual_seed(0)
    query, d_out = (torch.randn(2, 2, 60, 16, generator=generator).to(DEVICE) for _ in range(2))
    key, value = (torch.randn(2, 1, 70, 16, generator=generator).to(DEVICE) for _ in range(2))
    query[..., 0], key[:, :, 0, 0] = 4.0, 8.0
    whole = Problem.of(query, key, alpha=1.5, scale=0.5, is_causal=is_causal, backend=launch.BACKEND)
    whole = dataclasses.replace(whole, launch=small_launch(), **PATHS["many"])
    split = dataclasses.replace(whole, split_tiles=split_tiles)
    state = empty_forward(whole, query)
    for call in forward_calls(whole, query, key, value, state):
        call.run()
    left = (state.out, state.base, state.rest, state.block_mask, state.support)
    found = []
    for problem in (whole, split, split):
        after = empty_backward(problem, query, key, value)
        for call in backward_calls(problem, d_out, query, key, value, *left, after):
            call.run()
        found.append(after)
    tiles = found[1].keeping.numbers[..., 1].reshape(2, 2, -1).sum(dim=1).cpu().numpy()
    assert found[0].segments.numel() == 0 and split.n_segments == found[1].segments.shape[2]
    for own_tiles, own_split, own_segments in zip(
        tiles, found[1].split[:, 0].cpu().numpy(), found[1].segments[:, 0].cpu().numpy(), strict=True
    ):
        needed = np.where(own_tiles > split_tiles, -(-own_tiles // split_tiles), 0)
        fits = (needed > 0) & (np.cumsum(needed) <= split.n_segments)
        np.testing.assert_array_equal(own_split, fits)
        assert fits[0], "the sink is whole, so nothing is tested"
        expected = [(block, part, needed[block]) for block in np.flatnonzero(fits) for part in range(needed[block])]
        np.testing.assert_array_equal(own_segments[: len(expected), :3], expected)
        assert (own_segments[len(expected) :, 0] == -1).all()
    for name in ("d_key", "d_value"):
        one, other, again = (getattr(after, name) for after in found)
        assert (one - other).abs().max() <= 2.0**-20 * one.abs().max(), name
        assert torch.equal(other, again), name
