"""Run the kernels on operands and let `verify` judge every row of what comes back, against the oracle."""

import torch

from adasplash2 import entmax_attention
from adasplash2.verify.answer import as_answer
from adasplash2.verify.judge import judge
from adasplash2.verify.naive import naive_attention
from adasplash2.verify.truth import live_blocks, truth_of
from adasplash2.workloads import Workload


def judged(query, key, value, d_out, *, alpha=1.5, is_causal=False, scale=None, key_ranges=None, **visibility):
    """Assert that `verify` has nothing to say against the kernels on finite operands; return out, gradients and aux.

    ``key_ranges`` say what ``is_causal`` and ``visibility``, further options of the call, ought to.
    ``d_out`` is made 0 in rows where float32 cannot tell the support of alpha 2. What has a default is left to it.
    """
    load = Workload("operands", query, key, value, is_causal and key_ranges is None, "", key_ranges)
    visibility = visibility or ({} if key_ranges is None else {"key_ranges": key_ranges})
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    truth = truth_of(load, alpha, 0, scale=factor, drawn=d_out)
    grad = truth.d_out.to(query.device)
    given = visibility | ({} if alpha == 1.5 else {"alpha": alpha})
    leaves = [tensor.detach().requires_grad_() for tensor in (query, key, value)]
    out, aux = entmax_attention(
        *leaves, is_causal=is_causal, scale=scale, enable_gqa=True, impl="triton", return_aux=True, **given
    )
    grads = torch.autograd.grad(out, leaves, grad)
    for found, operand in zip((out, *grads), (query, *leaves), strict=True):
        assert found.dtype == query.dtype and found.shape == operand.shape
    naive = naive_attention(
        query, key, value, grad, alpha=alpha, is_causal=load.is_causal, scale=factor, mask=load.mask
    )
    answer = as_answer(load, out, grads, aux, alpha=alpha, impl="triton")
    live = live_blocks(load, truth, alpha, answer.block, scale=factor)
    found = judge(load, truth, answer, naive, live)
    assert not found.failures, found.failures
    empty = torch.from_numpy(truth.empty_rows).to(aux.mass.device)
    assert not aux.mass[empty].any() and 0.0 <= aux.skipped <= 1.0 and aux.block_mask.dtype == torch.bool
    return aux
