"""Are the modules torch's own with another map in the place of softmax, in every layer that takes them?"""

import copy
import itertools

import pytest
import torch

from adasplash2 import entmax, entmax_attention, nn
from adasplash2.verify.judge import budget, relative_error

WIDTH, HEADS, BATCH, N = 16, 4, 3, 7
MultiheadAttention = torch.nn.MultiheadAttention


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(**options):
    """Return torch's module and ours with the same parameters, drawn far enough from 0 that weights are sparse."""
    torch.manual_seed(0)
    theirs = MultiheadAttention(WIDTH, HEADS, dtype=torch.float64, **options)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    ours = nn.MultiheadEntmaxAttention(WIDTH, HEADS, dtype=torch.float64, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def by_torch(monkeypatch, module, *operands, **options):
    """Return what torch's module does where its softmax is the 1.5-entmax: its own masks, layouts and weights."""
    with monkeypatch.context() as patched:
        patched.setattr(torch.nn.functional, "softmax", lambda scores, dim: entmax(scores, 1.5, dim))
        return module(*operands, need_weights=True, **options)


def in_float32(module, tensors):
    """Return a module, and tensors or None, in float32; boolean ones as they are."""
    rounded = [x.float() if x is not None and x.is_floating_point() else x for x in tensors]
    return copy.deepcopy(module).float(), rounded


def flat(*tensors):
    return torch.cat([x.detach().double().flatten() for x in tensors]).numpy()


def assert_within_rounding(found, wanted, naive):
    """Assert that two float64 evaluations differ by their budgets, which are those of a float32 one, scaled down."""
    finer = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
    for ours, theirs, rounded in zip(found, wanted, naive, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        ours, theirs, rounded = flat(ours), flat(theirs), flat(rounded)
        assert relative_error(ours, theirs) <= 2 * budget(rounded, theirs, torch.float32) * finer


def padding(kind):
    hidden = torch.zeros(BATCH, N, dtype=torch.bool)
    hidden[0, 4:] = True
    hidden[1, 2] = True
    return None if kind is None else hidden if kind == "bool" else torch.zeros(BATCH, N).double().masked_fill(
        hidden, -torch.inf
    ) + draw(N, seed=9)  # fmt: skip


def mask(kind, n_queries):
    later = torch.ones(n_queries, N, dtype=torch.bool).triu(1)
    if kind is None or kind == "bool":
        return later if kind else None
    if kind == "bias":
        return draw(n_queries, N, seed=5)
    per_head = later.expand(BATCH * HEADS, n_queries, N).clone()
    per_head[::3, :, 1] = True
    per_head[:, :, 0] = False
    return per_head


@pytest.mark.parametrize("n_queries", [N, 4])
@pytest.mark.parametrize("kind", [None, "bool", "bias", "per head"])
@pytest.mark.parametrize("padded", [None, "bool", "bias"])
@pytest.mark.parametrize("extra", [{}, {"add_bias_kv": True}, {"add_zero_attn": True, "add_bias_kv": True}], ids=str)
def test_masks_and_added_keys_are_those_of_torch(monkeypatch, extra, padded, kind, n_queries):
    theirs, ours = pair(batch_first=True, **extra)
    query, memory = draw(BATCH, n_queries, WIDTH), draw(BATCH, N, WIDTH, seed=1)
    options = {"key_padding_mask": padding(padded), "attn_mask": mask(kind, n_queries)}
    naive, (less, fewer, *masks) = in_float32(theirs, (query, memory, *options.values()))
    rough = dict(zip(options, masks, strict=True))
    for average in (True, False):
        wanted, weights = by_torch(monkeypatch, theirs, query, memory, memory, average_attn_weights=average, **options)
        found = ours(query, memory, memory, need_weights=True, average_attn_weights=average, **options)
        rounded = by_torch(monkeypatch, naive, less, fewer, fewer, average_attn_weights=average, **rough)
        assert_within_rounding(found, (wanted, weights), rounded)
    assert torch.equal(ours(query, memory, memory, **options)[0], found[0])
    assert ours(query, memory, memory, **options)[1] is None
    assert (weights == 0).double().mean() > 0.05


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("widths", [{}, {"kdim": 5}, {"kdim": 5, "vdim": 9}], ids=str)
def test_layouts_widths_and_gradients_are_those_of_torch(monkeypatch, widths, bias, batch_first, batched):
    theirs, ours = pair(batch_first=batch_first, bias=bias, **widths)
    sizes = (WIDTH, widths.get("kdim", WIDTH), widths.get("vdim", WIDTH))
    shape = (BATCH, N) if batch_first else (N, BATCH)
    operands = [draw(*shape, size, seed=seed) for seed, size in enumerate(sizes)]
    operands = operands if batched else [x[0] if batch_first else x[:, 0] for x in operands]
    naive, rough = in_float32(theirs, operands)
    results = []
    for module, inputs in ((ours, operands), (theirs, operands), (naive, rough)):
        if module is ours:
            out, weights = ours(*inputs, need_weights=True)
        else:
            out, weights = by_torch(monkeypatch, module, *inputs)
        d_out = draw(*out.shape, seed=7).to(out.dtype)
        gradients = torch.autograd.grad((out * d_out).sum(), list(module.parameters()))
        results.append((out, weights, *gradients))
    assert_within_rounding(*results)


def test_causal_needs_no_mask_beside_it():
    _, ours = pair(batch_first=True)
    x, later = draw(BATCH, N, WIDTH), torch.ones(N, N, dtype=torch.bool).triu(1)
    wanted = ours(x, x, x, attn_mask=later, need_weights=True)
    torch.testing.assert_close(ours(x, x, x, is_causal=True, need_weights=True), wanted)
    torch.testing.assert_close(ours(x, x, x, is_causal=True, attn_mask=later, need_weights=True), wanted)
    hidden = padding("bool")
    wanted = ours(x, x, x, attn_mask=later, key_padding_mask=hidden, need_weights=True)
    for options in ({}, {"attn_mask": later}):
        found = ours(x, x, x, hidden, is_causal=True, need_weights=True, **options)
        torch.testing.assert_close(found, wanted)
    # the last query sees all keys, and a mask of other lengths is what counts
    chunk = ours(x[:, 3:], x, x, is_causal=True, need_weights=True)
    torch.testing.assert_close(chunk, ours(x[:, 3:], x, x, attn_mask=later[3:], need_weights=True))
    first = ours(x[:, :4], x, x, attn_mask=later[:4], is_causal=True)[0]
    torch.testing.assert_close(first, ours(x, x, x, is_causal=True)[0][:, :4])


@pytest.mark.parametrize("extra", [{"add_bias_kv": True}, {"add_zero_attn": True}], ids=str)
def test_added_keys_are_visible_to_all_where_it_is_causal(extra):
    _, ours = pair(batch_first=True, **extra)
    x, later = draw(BATCH, N, WIDTH), torch.ones(N, N, dtype=torch.bool).triu(1)
    found = ours(x, x, x, is_causal=True, need_weights=True)
    torch.testing.assert_close(found, ours(x, x, x, attn_mask=later.double() * -1e300, need_weights=True))


def test_a_query_without_a_key_has_the_bias():
    _, ours = pair(batch_first=True)
    x = draw(BATCH, N, WIDTH)
    hidden = torch.zeros(BATCH, N, dtype=torch.bool)
    hidden[1] = True
    out, weights = ours(x, x, x, hidden, need_weights=True)
    assert torch.equal(out[1], ours.out_proj.bias.expand(N, WIDTH)) and not weights[1].any()
    assert not out.isnan().any()


def test_state_goes_both_ways():
    for options in ({}, {"bias": False, "add_bias_kv": True}, {"kdim": 5, "vdim": 9}):
        theirs, ours = pair(**options)
        assert isinstance(ours, MultiheadAttention)
        theirs.load_state_dict(ours.state_dict())
        x = [draw(N, size) for size in (WIDTH, options.get("kdim", WIDTH), options.get("vdim", WIDTH))]
        assert torch.equal(copy.deepcopy(ours)(*x)[0], ours(*x)[0])
        torch.manual_seed(5)
        fresh = nn.MultiheadEntmaxAttention(WIDTH, HEADS, **options).state_dict()
        torch.manual_seed(5)
        wanted = MultiheadAttention(WIDTH, HEADS, **options).state_dict()
        assert list(fresh) == list(wanted) and all(torch.equal(fresh[name], wanted[name]) for name in wanted)
        again = nn.MultiheadEntmaxAttention(WIDTH, HEADS, **options)
        torch.manual_seed(5)
        again._reset_parameters()
        assert torch.equal(again.out_proj.bias, fresh["out_proj.bias"]) if "bias" not in options else True
        assert next(nn.MultiheadEntmaxAttention(WIDTH, HEADS, device="meta").parameters()).is_meta


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_layers_of_torch_never_go_past_it(monkeypatch, batch_first, grad):
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(
        WIDTH, HEADS, 32, dropout=0.0, batch_first=batch_first, dtype=torch.float64
    )
    soft = copy.deepcopy(layer)
    layer.self_attn = nn.MultiheadEntmaxAttention(WIDTH, HEADS, batch_first=batch_first, dtype=torch.float64)
    layer.self_attn.load_state_dict(soft.self_attn.state_dict())
    x = draw(BATCH, N, WIDTH) * 3
    with torch.set_grad_enabled(grad):
        models = [torch.nn.TransformerEncoder(one, 2) for one in (layer, soft)]
        evaluated, softmax = (model.eval()(x) for model in models)
        trained = models[0].train()(x)
        assert torch.equal(evaluated, trained)
        assert (evaluated - softmax).abs().max() > 1e-3
        if batch_first:
            hidden = padding("bool")
            padded = models[0].eval()(x, src_key_padding_mask=hidden)
            changed = models[0](x.masked_fill(hidden[..., None], 5.0), src_key_padding_mask=hidden)
            assert torch.equal(padded[~hidden], changed[~hidden]) and padded.shape == x.shape
            square = torch.nn.Transformer.generate_square_subsequent_mask(N, dtype=torch.float64)
            causal = models[0](x, mask=square, is_causal=True)
            torch.testing.assert_close(causal, models[0](x, mask=square))
            assert not torch.equal(causal, evaluated)


def test_a_decoder_layer_takes_it_twice():
    layer = torch.nn.TransformerDecoderLayer(WIDTH, HEADS, 32, dropout=0.0, batch_first=True, dtype=torch.float64)
    layer.self_attn = nn.MultiheadEntmaxAttention(WIDTH, HEADS, batch_first=True, dtype=torch.float64)
    layer.multihead_attn = nn.MultiheadEntmaxAttention(WIDTH, HEADS, batch_first=True, dtype=torch.float64)
    x, memory = draw(BATCH, N, WIDTH), draw(BATCH, 5, WIDTH, seed=1)
    square = torch.nn.Transformer.generate_square_subsequent_mask(N, dtype=torch.float64)
    whole = layer(x, memory, tgt_mask=square, tgt_is_causal=True)
    torch.testing.assert_close(layer(x[:, :4], memory, tgt_mask=square[:4, :4], tgt_is_causal=True), whole[:, :4])


@pytest.mark.parametrize("padded, causal", list(itertools.product([False, True], repeat=2)))
def test_the_kernels_serve_it(padded, causal):
    _, exact = pair(batch_first=True, add_zero_attn=causal and not padded)
    ours, x = copy.deepcopy(exact).float(), draw(BATCH, N, WIDTH)
    hidden = (torch.arange(N) >= torch.tensor([[N], [4], [1]])) if padded else None
    results = []
    for module, impl in ((ours, "triton"), (exact, "reference"), (ours, "reference")):
        module.impl = impl
        out, _ = module(*(x.to(module.out_proj.weight.dtype),) * 3, hidden, is_causal=causal)
        results.append((flat(out), flat(*torch.autograd.grad(out.square().sum(), list(module.parameters())))))
    for found, wanted, naive in zip(*results, strict=True):
        assert relative_error(found, wanted) <= budget(naive, wanted, torch.float32)


def test_alpha_and_compiled_graphs():
    _, ours = pair(batch_first=True)
    ours.alpha = 2.0
    x = draw(BATCH, N, WIDTH)
    out, weights = ours(x, x, x, need_weights=True, average_attn_weights=False)
    query, key, value = ours._heads(x, x, x, True)
    assert torch.equal(weights, entmax(query @ key.mT / 2, 2.0))
    torch.testing.assert_close(out, ours.out_proj((weights @ value).transpose(1, 2).flatten(2)))
    compiled = torch.compile(ours, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, x, x, padding("bool"))[0], ours(x, x, x, padding("bool"))[0])


@pytest.mark.parametrize(
    "operands, options, error, message",
    [
        ((draw(2, 3, 16), draw(3, 16), draw(3, 16)), {}, ValueError, "key has shape .3, 16.; .* three dimensions"),
        ((draw(3, 15),) * 3, {}, ValueError, "query has width 15; this module was made for 16"),
        ((draw(3, 16), draw(4, 16), draw(5, 16)), {}, ValueError, "value has length 5, key 4"),
        ((draw(3, 2, 16), draw(3, 1, 16), draw(3, 1, 16)), {}, ValueError, "key has a batch of 1, query one of 2"),
        ((draw(3, 16),) * 3, {"attn_mask": torch.ones(3, 3, dtype=torch.int64)}, TypeError, "attn_mask has dtype"),
        ((draw(3, 16),) * 3, {"attn_mask": torch.ones(3, 4)}, ValueError, r"attn_mask .*\(3, 4\); .*\(4, 3, 3\)"),
        ((draw(3, 2, 16),) * 3, {"key_padding_mask": torch.ones(3, 2)}, ValueError, r"key_padding_mask .*\(2, 3\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(operands, options, error, message):
    with pytest.raises(error, match=message):
        pair()[1](*operands, **options)


def test_dropout_and_nested_tensors_are_refused():
    with pytest.raises(ValueError, match=r"dropout is 0\.1; it must be 0"):
        nn.MultiheadEntmaxAttention(WIDTH, HEADS, 0.1)
    nested = torch.nested.nested_tensor([draw(3, WIDTH), draw(2, WIDTH)], layout=torch.jagged)
    with pytest.raises(TypeError, match="nested tensor; pass a padded one"):
        pair(batch_first=True)[1](nested, nested, nested)


def test_the_small_module_is_the_function():
    query, key, value = draw(2, 4, 10, 8), draw(2, 2, 10, 8, seed=1), draw(2, 2, 10, 8, seed=2)
    attend = nn.EntmaxAttention(2.0, is_causal=True, scale=0.5, enable_gqa=True, impl="reference")
    wanted = entmax_attention(query, key, value, is_causal=True, scale=0.5, enable_gqa=True, alpha=2.0)
    assert torch.equal(attend(query, key, value), wanted)
    assert str(attend) == "EntmaxAttention(alpha=2.0, is_causal=True, scale=0.5, enable_gqa=True, impl='reference')"
    assert str(nn.EntmaxAttention()) == "EntmaxAttention(alpha=1.5)" and not nn.EntmaxAttention().state_dict()
    lengths = torch.tensor([10, 6])
    for options in (
        {"seqlens_k": lengths},
        {"seqlens_q": lengths, "seqlens_k": lengths, "padding_side": "left"},
        {"attn_mask": torch.ones(10, 10, dtype=torch.bool).tril()},
        {"key_ranges": torch.tensor([[0, 5]]).expand(10, 2)},
    ):
        wanted = entmax_attention(query, key, value, enable_gqa=True, window_size=(3, None), **options)
        assert torch.equal(
            nn.EntmaxAttention(enable_gqa=True, window_size=(3, None))(query, key, value, **options), wanted
        )
