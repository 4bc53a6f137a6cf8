"""Does entmax_attention drop in for SDPA: arguments, shapes, broadcasting, dtypes, masks, torch's own examples?"""

import inspect
import math
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from staged import DEVICE, U
from torch.nn.functional import scaled_dot_product_attention

import entmax_ref
from adasplash2 import entmax_attention

DOC = inspect.getdoc(scaled_dot_product_attention)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "sdpa.rst"
SCHEMA = torch.ops.aten.scaled_dot_product_attention.default._schema.arguments
BOTH = pytest.mark.parametrize("impl", ["triton", "reference"])


def documented():
    """Return the function that torch documents SDPA with, but with entmax, and the diagonal at the bottom right."""
    code = re.search(
        r"^ *def scaled_dot_product_attention.*?return attn_weight @ value$", DOC, re.DOTALL | re.MULTILINE
    )[0]
    for theirs, ours in (
        ("torch.softmax(attn_weight, dim=-1)", "entmax(attn_weight)"),
        ("tril(diagonal=0)", "tril(diagonal=S - L)"),
    ):
        assert code.count(theirs) == 1, "torch documents SDPA otherwise than this test knows"
        code = code.replace(theirs, ours)
    names = {"torch": torch, "math": math, "entmax": lambda scores: torch.tensor(entmax_ref.entmax(scores.numpy()))}
    exec(textwrap.dedent(code), names)
    return names["scaled_dot_product_attention"]


def draw(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def check(query, key, value, *, impl=None, **options):
    """Assert shape, dtype and values of a call; returns out."""
    there = {name: x.to(DEVICE) if isinstance(x, torch.Tensor) else x for name, x in options.items()}
    out = entmax_attention(*(x.to(DEVICE) for x in (query, key, value)), impl=impl, **there).cpu()
    if "attn_mask" in options:
        # the documented code cannot fill a bias of two dimensions with a boolean mask of more
        mask = options["attn_mask"]
        mask = torch.where(mask, 0.0, -torch.inf) if mask.dtype == torch.bool else mask
        there = options | {"attn_mask": mask.double()}
    exact = documented()(*(x.double() for x in (query, key, value)), **there)
    softmax = scaled_dot_product_attention(query, key, value, **options)
    assert out.dtype == softmax.dtype == query.dtype and out.shape == softmax.shape == exact.shape
    # z errs by head_dim + 4 roundings of at most this, tau too; then each of n gaps, squared, by twice that (gap <= 1)
    reach = 1.0 + query.shape[-1] * float(query.abs().max() * key.abs().max()) * abs(options.get("scale") or 1.0)
    error = 4 * key.shape[-2] * (query.shape[-1] + 4) * U * reach
    # the weights and the result are rounded to the dtype
    assert (out.double() - exact).abs().max() <= (error + torch.finfo(query.dtype).eps) * float(value.abs().max())
    return out


def rows_of_the_page():
    return re.findall(r"^   \* - ``(\w+)``\n     - (\w+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


# What each argument of SDPA is here. A new one has to be put here, on the page, and in a test.
ARGUMENTS = {
    "query": "same",
    "key": "same",
    "value": "same",
    "attn_mask": "same",
    "dropout_p": "refused",
    "is_causal": "different",
    "scale": "same",
    "enable_gqa": "same",
}


def test_every_argument_of_sdpa_has_its_place_and_its_row():
    """Names, order and defaults come from torch, so that a new argument there fails here; ours are on the page."""
    ours = list(inspect.signature(entmax_attention).parameters.values())
    theirs = [(argument.name, argument.default_value) for argument in SCHEMA]
    found = [(p.name, None if p.default is inspect.Parameter.empty else p.default) for p in ours]
    assert found[: len(theirs)] == theirs
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in ours[len(theirs) :])
    page = PAGE.read_text(encoding="utf-8")
    assert [p.name for p in ours[len(theirs) :] if f"``{p.name}``" not in page] == []
    assert list(ARGUMENTS) == [name for name, _ in theirs] and rows_of_the_page() == list(ARGUMENTS.items())
    documented_signature = re.match(r"scaled_dot_product_attention\((.*?)\) -> Tensor", DOC, re.DOTALL)[1]
    assert [part.split("=")[0].strip() for part in documented_signature.split(",")] == list(ARGUMENTS)


def test_what_is_different_is_the_alignment_and_only_of_unequal_lengths():
    query, key, value = draw(1, 1, 3, 8), draw(1, 1, 5, 8, seed=1), draw(1, 1, 5, 8, seed=2)
    check(query, key, value, is_causal=True)
    first = scaled_dot_product_attention(query, key, value, is_causal=True)[0, 0, 0]
    assert torch.allclose(first, value[0, 0, 0]), "SDPA shows the first query the first key only"
    assert not torch.allclose(entmax_attention(query, key, value, is_causal=True)[0, 0, 0], first)
    top_left = torch.ones(3, 5, dtype=torch.bool).tril()
    assert torch.allclose(entmax_attention(query, key, value, top_left)[0, 0, 0], first)


def test_what_is_refused_is_dropout():
    query = draw(1, 1, 3, 8)
    with pytest.raises(ValueError, match=r"dropout_p is 0\.5; it must be 0"):
        entmax_attention(query, query, query, None, 0.5)


@pytest.mark.parametrize("name", ["default", "grouped"])
def test_the_examples_of_the_documentation(name):
    """Torch's own lines, on a batch of 2 instead of 32, and on the device that there is."""
    examples = DOC[DOC.index("Examples:") :]
    lines = re.findall(r">>> (?!with|#)\s*(.+)", examples)
    default, grouped = lines[:4], lines[4:]
    assert all(
        re.fullmatch(r"F\.scaled_dot_product_attention\(query, ?key, ?value(,enable_gqa=True)?\)", part[-1])
        for part in (default, grouped)
    )
    *assignments, call = default if name == "default" else grouped
    seen = []

    class Functional:
        scaled_dot_product_attention = staticmethod(lambda *x, **options: seen.append((x, options)))

    exec(
        "\n".join([*assignments, call]).replace("(32, ", "(2, ").replace('"cuda"', '"cpu"'),
        {"torch": torch, "F": Functional},
    )
    (((query, key, value), options),) = seen
    assert query.dtype == torch.float16 and options == ({} if name == "default" else {"enable_gqa": True})
    assert check(query, key, value, **options).shape == (2, 8 if name == "default" else 32, 128, 64)


SHAPES = {
    "no heads": [(3, 8), (5, 8), (5, 8)],
    "three dimensions": [(2, 3, 8), (2, 5, 8), (2, 5, 8)],
    "five dimensions": [(2, 1, 2, 3, 8), (2, 1, 2, 5, 8), (2, 1, 2, 5, 8)],
    "keys shared by the batch": [(2, 2, 3, 8), (1, 2, 5, 8), (1, 2, 5, 8)],
    "keys shared by the heads": [(2, 2, 3, 8), (2, 1, 5, 8), (2, 1, 5, 8)],
    "a query for all": [(1, 1, 3, 8), (2, 2, 5, 8), (2, 2, 5, 8)],
    "values of each": [(1, 1, 3, 8), (1, 1, 5, 8), (2, 2, 5, 8)],
    "keys of each, one value": [(2, 2, 3, 8), (2, 2, 5, 8), (1, 5, 8)],
    "keys without a batch": [(2, 2, 3, 8), (2, 5, 8), (2, 5, 8)],
    "keys without heads": [(2, 2, 3, 8), (5, 8), (5, 8)],
    "a query without a batch": [(3, 8), (2, 2, 5, 8), (2, 2, 5, 8)],
    "wide values": [(1, 2, 3, 8), (1, 2, 5, 8), (1, 2, 5, 40)],
    "narrow values": [(1, 2, 3, 24), (1, 2, 5, 24), (1, 2, 5, 3)],
    "narrow values, three dimensions": [(2, 3, 24), (2, 5, 24), (2, 5, 3)],
    "six dimensions, shared": [(2, 1, 1, 2, 3, 8), (1, 2, 1, 1, 5, 8), (1, 1, 1, 1, 5, 8)],
}


@BOTH
@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_those_of_sdpa(name, impl):
    query, key, value = (draw(*shape, seed=seed) for seed, shape in enumerate(SHAPES[name]))
    out = check(query, key, value, impl=impl)
    leaves = [x.to(DEVICE, copy=True).requires_grad_() for x in (query, key, value)]
    found, aux = entmax_attention(*leaves, impl=impl, return_aux=True)
    assert torch.equal(found.cpu(), out)
    assert aux.tau.shape == aux.mass.shape == aux.residual.shape == aux.passes.shape == out.shape[:-1]
    assert aux.block_mask.shape == (*out.shape[:-2], 1, 1) and aux.skipped.shape == ()
    # broadcasting changes nothing but where gradients are summed
    full = [x.detach().double().expand(*out.shape[:-2], *x.shape[-2:]).contiguous().requires_grad_() for x in leaves]
    d_out = draw(*out.shape, seed=9).to(DEVICE)
    grads = torch.autograd.grad(found, leaves, d_out)
    expected = torch.autograd.grad(entmax_attention(*full, impl="reference"), full, d_out.double())
    for grad, wide, leaf in zip(grads, expected, leaves, strict=True):
        summed = wide.sum_to_size(leaf.shape)
        assert grad.shape == leaf.shape and (grad - summed).norm() <= 512 * U * wide.norm()


@BOTH
@pytest.mark.parametrize(
    "lead, kv_lead",
    [((2, 4), (2, 2)), ((4,), (2,)), ((4,), (1,)), ((2, 1, 4), (2, 1, 2)), ((2, 4), (1, 2)), ((4,), (2, 1))],
)
def test_grouped_heads(lead, kv_lead, impl):
    operands = draw(*lead, 3, 8), draw(*kv_lead, 5, 8, seed=1), draw(*kv_lead, 5, 12, seed=2)
    check(*operands, impl=impl, enable_gqa=True)


@BOTH
def test_sdpa_by_position(impl):
    query, key, value = (draw(1, 2, 4, 8, seed=seed).to(DEVICE) for seed in range(3))
    expected = entmax_attention(query, key, value, is_causal=True, scale=0.7, enable_gqa=True, impl=impl)
    assert torch.equal(entmax_attention(query, key, value, None, 0.0, True, 0.7, True, impl=impl), expected)


@BOTH
def test_the_scale_is_that_of_the_query_even_if_padded(impl):
    query, key, value = draw(1, 1, 4, 8), draw(1, 1, 6, 8, seed=1), draw(1, 1, 6, 30, seed=2)
    assert torch.equal(check(query, key, value, impl=impl), check(query, key, value, impl=impl, scale=8**-0.5))
    check(query, key, value, impl=impl, scale=2.0)


@BOTH
@pytest.mark.parametrize(
    "empty", [(0, 2, 3, 5), (2, 0, 3, 5), (2, 2, 0, 5), (2, 2, 3, 0)], ids=["batch", "heads", "queries", "keys"]
)
def test_empty_axes_give_what_sdpa_gives(empty, impl):
    batch, heads, n_queries, n_keys = empty
    query, key, value = draw(batch, heads, n_queries, 8), draw(batch, heads, n_keys, 8), draw(batch, heads, n_keys, 12)
    leaves = [x.to(DEVICE, copy=True).requires_grad_() for x in (query, key, value)]
    out, aux = entmax_attention(*leaves, impl=impl, return_aux=True)
    assert out.shape == scaled_dot_product_attention(query, key, value).shape and (out == 0.0).all()
    assert aux.skipped == 0.0 and torch.isposinf(aux.tau).all() and (aux.mass == 0.0).all()
    assert all((grad == 0.0).all() for grad in torch.autograd.grad(out.sum(), leaves))
    if n_keys == 0:
        exact = entmax_ref.attention(*(x.double().numpy() for x in (query, key, value)))
        assert exact.shape == out.shape and (exact == 0.0).all(), "both packages say the same"


@BOTH
def test_values_of_no_width_give_what_sdpa_gives(impl):
    query, value = draw(2, 3, 8), draw(2, 3, 0)
    leaf = query.to(DEVICE).requires_grad_()
    out, aux = entmax_attention(leaf, leaf, value.to(DEVICE), impl=impl, return_aux=True)
    assert out.shape == scaled_dot_product_attention(query, query, value).shape == (2, 3, 0)
    assert entmax_attention(leaf, leaf, value.to(DEVICE), impl=impl).shape == (2, 3, 0)
    assert (aux.mass - 1.0).abs().max() <= 8 * U and (torch.autograd.grad(out.sum(), leaf)[0] == 0.0).all()


MASKS = {
    "boolean": draw(4, 6) > -0.5,
    "of the keys": draw(1, 6) > -0.5,
    "of the queries": draw(4, 1) > -0.5,
    "of each head": draw(2, 4, 6) > 0.0,
    "of each item": draw(2, 1, 4, 6) > 0.0,
    "nothing visible": torch.zeros(4, 6, dtype=torch.bool),
    "added": draw(4, 6),
    "added to each": draw(2, 2, 4, 6),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks(name):
    operands = draw(2, 2, 4, 8), draw(2, 2, 6, 8, seed=1), draw(2, 2, 6, 8, seed=2)
    out = check(*operands, attn_mask=MASKS[name], impl="reference")
    folded = [x.unflatten(0, (2, 1)).expand(2, 3, 2, -1, -1) for x in operands]
    mask = MASKS[name]
    wide = mask.unflatten(0, (2, 1)) if mask.dim() == 4 else mask
    moved = entmax_attention(*folded, wide)
    assert moved.shape == (2, 3, 2, 4, 8) and (moved - out[:, None]).abs().max() <= 8 * U * float(
        operands[2].abs().max()
    )


def test_blocks_that_a_mask_hides_are_not_counted_as_skipped():
    query, key = torch.zeros(1, 2, 130, 8), torch.zeros(1, 2, 200, 8)
    visible = torch.zeros(130, 200, dtype=torch.bool)
    visible[:, :64] = True
    for mask in (visible, visible[:1], torch.where(visible, 0.0, -torch.inf)[None], visible.expand(1, 2, 130, 200)):
        _, aux = entmax_attention(query, key, key, mask, return_aux=True)
        assert aux.block_mask[..., 0].all() and not aux.block_mask[..., 1:].any() and aux.skipped == 0.0
    key[:, :, :64, 0], query[..., 0] = 9.0, 9.0
    _, aux = entmax_attention(query, key, key, return_aux=True)
    assert aux.skipped == 0.75


def test_a_mask_gets_a_gradient():
    query, key, mask = draw(1, 2, 3, 8), draw(1, 2, 5, 8, seed=1), draw(3, 5, seed=2).requires_grad_()
    (d_mask,) = torch.autograd.grad(entmax_attention(query, key, key, mask).square().sum(), mask)
    assert d_mask.shape == mask.shape and (d_mask != 0.0).any()


LOW = [torch.bfloat16, torch.float16]


@BOTH
@pytest.mark.parametrize("low", LOW, ids=str)
@pytest.mark.parametrize("dtypes", [[torch.float32] * 3, [torch.float32, torch.float16, torch.bfloat16]], ids=str)
def test_autocast_casts_as_sdpa_does(low, dtypes, impl):
    operands = [
        draw(1, 2, 4, 8, dtype=dtype, seed=seed).to(DEVICE).requires_grad_() for seed, dtype in enumerate(dtypes)
    ]
    with torch.autocast(DEVICE, low):
        softmax = scaled_dot_product_attention(*operands)
        out = entmax_attention(*operands, impl=impl)
    assert out.dtype == softmax.dtype == low
    assert torch.equal(out, entmax_attention(*(x.to(low) for x in operands), impl=impl))
    grads = torch.autograd.grad(out.float().sum(), operands)
    assert [grad.dtype for grad in grads] == dtypes
    with pytest.raises(TypeError, match="dtype") if len(set(dtypes)) > 1 else pytest.raises(ZeroDivisionError):
        entmax_attention(*operands, impl=impl)
        raise ZeroDivisionError("one dtype needs no autocast")


def test_autocast_leaves_float64_and_casts_a_mask():
    query = draw(1, 2, 4, 8, dtype=torch.float64)
    single, mask = query.float(), draw(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert entmax_attention(query, query, query).dtype == torch.float64
        with pytest.raises(TypeError, match=r"key has dtype torch.bfloat16, query has torch.float64"):
            entmax_attention(query, single, single)
        masked = entmax_attention(single, single, single, mask)
    low = single.bfloat16()
    assert torch.equal(masked, entmax_attention(low, low, low, mask.bfloat16()))


def test_autocast_that_is_off_is_off():
    query = draw(1, 2, 4, 8)
    with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False):
        assert entmax_attention(query, query, query).dtype == torch.float32


def test_numpy_agrees_on_the_alignment():
    query, key = draw(1, 1, 3, 8).double(), draw(1, 1, 5, 8, seed=1).double()
    exact = entmax_ref.attention(*(x.numpy() for x in (query, key, key)), is_causal=True)
    np.testing.assert_allclose(entmax_attention(query, key, key, is_causal=True).numpy(), exact, atol=2.0**-45)


@pytest.mark.parametrize("mask", [None, "causal", "padding"])
def test_torch_s_own_module_with_sdpa_replaced(mask, monkeypatch):
    """nn.MultiheadAttention calls SDPA by position: the same weights come out as of entmax on its projections."""
    torch.manual_seed(0)
    module = torch.nn.MultiheadAttention(16, 2, batch_first=True)
    x = draw(3, 5, 16)
    options = {}
    if mask == "causal":
        options = {"attn_mask": torch.nn.Transformer.generate_square_subsequent_mask(5), "is_causal": True}
    if mask == "padding":
        options = {"key_padding_mask": torch.tensor([[False] * 3 + [True] * 2] * 3)}
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", entmax_attention)
    found, _ = module(x, x, x, need_weights=False, **options)
    weight, bias = module.in_proj_weight.double(), module.in_proj_bias.double()
    query, key, value = (
        part.unflatten(-1, (2, 8)).transpose(1, 2).detach().numpy()
        for part in (x.double() @ weight.T + bias).chunk(3, -1)
    )
    visible = None if mask != "padding" else ~options["key_padding_mask"].numpy()[:, None, None]
    exact = torch.tensor(entmax_ref.attention(query, key, value, is_causal=mask == "causal", mask=visible))
    expected = exact.transpose(1, 2).flatten(2) @ module.out_proj.weight.double().T + module.out_proj.bias.double()
    assert (found - expected).norm() <= 64 * U * expected.norm()
