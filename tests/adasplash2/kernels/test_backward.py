"""Are delta and the gradients those of the specification at the kernel's own tau?"""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples
from staged import ALPHAS, DEVICE, PATHS, U, backward, score_matrices, staged

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
