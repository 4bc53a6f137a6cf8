"""Are delta and the gradients those of the specification at the kernel's own tau?"""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from lemmas import lemma
from profiles import examples
from staged import DEVICE, U, backward, score_matrices, staged

from entmax_ref import stages


@lemma("delta_is_centre")
@lemma("jacobian_form")
@examples(15)
@given(z=score_matrices(max_queries=40), alpha=st.sampled_from([1.5, 2.0]), is_causal=st.booleans())
def test_gradients_are_those_of_the_specification(z, alpha, is_causal):
    run = staged(z, alpha, is_causal=is_causal)
    d_out = torch.randn(run.query.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    found = backward(run, d_out)
    top = run.row("row_max", "row_max")
    seen = np.isfinite(top)
    shifted = np.where(seen[:, None], run.z - np.where(seen, top, 0.0)[:, None], -np.inf)
    shifted = shifted.astype(np.float32).astype(np.float64)
    tau = run.row("refine", "tau")
    query, key, value, grad = (tensor[0, 0].double().cpu().numpy() for tensor in (run.query, run.key, run.value, d_out))
    centre = stages.output(shifted, tau, value, alpha).centre
    delta = stages.delta(centre, grad)
    scale = run.problem.scale
    d_query = stages.backward_dq(shifted, tau, key, value, grad, delta, scale, alpha)
    d_key, d_value = stages.backward_dkdv(shifted, tau, query, value, grad, delta, scale, alpha)

    # Rounding of sums of n terms, by the sum of the sizes of what is added (n keys or queries, head_dim products).
    n = max(run.z.shape) + run.problem.head_dim + 16
    probs, sensitivity = stages.probs_and_sensitivity(shifted, tau, alpha)
    sizes = sensitivity * (
        abs(grad) @ abs(value).T + (stages.output(shifted, tau, abs(value), alpha).centre * abs(grad)).sum(1)[:, None]
    )
    delta_size = (stages.output(shifted, tau, abs(value), alpha).centre * abs(grad)).sum(1)
    assert (abs(found.delta[0, 0].double().cpu().numpy() - delta) <= 2 * n * U * delta_size).all()
    for name, tensor, expected, size in (
        ("d_query", found.d_query, d_query, scale * sizes @ abs(key)),
        ("d_key", found.d_key, d_key, scale * sizes.T @ abs(query)),
        ("d_value", found.d_value, d_value, probs.T @ abs(grad)),
    ):
        error = abs(tensor[0, 0].double().cpu().numpy() - expected)
        assert (error <= 4 * n * U * size + 1e-37).all(), name
    assert (found.d_query[0, 0][torch.tensor(~seen)] == 0.0).all()
