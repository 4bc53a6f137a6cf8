"""Do the models of Transformers attend by entmax, as an eager entmax would, and does nothing hidden leak?"""

import inspect

import pytest
import torch

from adasplash2.integrations.transformers import register
from adasplash2.nn import AlphaParameter

transformers = pytest.importorskip(
    "transformers", reason="the integration is with transformers, which is not installed"
)

VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
# What a model calls the keys and values that it has seen: the name changed.
CACHE = {"cache", "past_key_values"}.intersection(
    inspect.signature(transformers.LlamaForCausalLM.forward).parameters
).pop()
VOCABULARY, LENGTH, WINDOW = 50, 14, 6
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SMALL, num_hidden_layers=2, num_key_value_heads=2),
    "qwen2": lambda: transformers.Qwen2Config(
        **SMALL, num_hidden_layers=2, num_key_value_heads=1, use_sliding_window=True, sliding_window=WINDOW,
        max_window_layers=1,
    ),
    "gemma2": lambda: transformers.Gemma2Config(
        **SMALL, num_hidden_layers=2, num_key_value_heads=2, head_dim=8, sliding_window=WINDOW,
        attn_logit_softcapping=None,
    ),
    "bert": lambda: transformers.BertConfig(**SMALL, num_hidden_layers=2, attention_probs_dropout_prob=0.0),
    "modernbert": lambda: transformers.ModernBertConfig(
        **SMALL, num_hidden_layers=3, local_attention=2 * WINDOW, global_attn_every_n_layers=3, pad_token_id=0,
    ),
}  # fmt: skip
DECODERS = ("llama", "qwen2", "gemma2")
HEADS_OF = {"bert": "AutoModelForMaskedLM", "modernbert": "AutoModelForMaskedLM"}


def entmax15(scores):
    """Return the 1.5-entmax of rows, differentiable: the threshold follows from mean and variance of the support."""
    half = scores / 2
    with torch.no_grad():
        low, high = half.amax(-1, keepdim=True) - 1, half.amax(-1, keepdim=True)
        for _ in range(80):
            middle = (low + high) / 2
            too_low = ((half - middle).clamp(min=0) ** 2).sum(-1, keepdim=True) > 1
            low, high = torch.where(too_low, middle, low), torch.where(too_low, high, middle)
        support = half > low
    count = support.sum(-1, keepdim=True)
    mean = torch.where(support, half, 0).sum(-1, keepdim=True) / count
    half = torch.where(support, half, mean)  # nothing but the support has a gradient
    spread = ((half - mean) ** 2).sum(-1, keepdim=True)
    threshold = mean - ((1 - spread) / count).clamp(min=0).sqrt()
    return torch.where(support, (half - threshold) ** 2, 0)


def eager(module, query, key, value, attention_mask, scaling=1.0, dropout=0.0, position_bias=0.0, **options):
    """Attend by entmax with all scores in memory; the mask is the additive one of Transformers' eager attention."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.mT * scaling + position_bias
    if attention_mask is not None:
        hidden = attention_mask == torch.finfo(attention_mask.dtype).min
        no_key = hidden.all(-1, keepdim=True)
        scores = (scores + attention_mask).masked_fill(hidden, -torch.inf).masked_fill(no_key, 0)
        return ((entmax15(scores) * ~no_key) @ value).transpose(1, 2).contiguous(), None
    return (entmax15(scores) @ value).transpose(1, 2).contiguous(), None


@pytest.fixture(autouse=True, scope="module")
def registered():
    register()
    register("entmax_kernels", impl="triton")
    transformers.AttentionInterface.register("entmax_eager", eager)
    transformers.AttentionMaskInterface.register("entmax_eager", transformers.masking_utils.eager_mask)


def model_of(name, attention="entmax", dtype=torch.float64, head=None, **changes):
    """Return a small model of random weights, the same for every attention, with scores that differ enough."""
    torch.manual_seed(0)
    config = CONFIGS[name]()
    for option, setting in changes.items():
        setattr(config, option, setting)
    auto = getattr(transformers, head or HEADS_OF.get(name, "AutoModelForCausalLM"))
    model = auto.from_config(config, attn_implementation=attention).to(dtype).eval()
    with torch.no_grad():
        for part, weight in model.named_parameters():
            if weight.dim() == 2 and "embed" not in part:
                weight *= 4
    return model


def tokens(batch=3, length=LENGTH, seed=0):
    return torch.randint(1, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def padding(side, lengths=(LENGTH, 9, 1)):
    mask = torch.arange(LENGTH) < torch.tensor(lengths)[:, None]
    return (mask if side == "right" else mask.flip(1)).long()


def logits_and_gradient(model, **inputs):
    """Return logits and the gradient of a weight that sees all of the attention, of what is not padding."""
    logits = model(**inputs).logits
    real = inputs.get("attention_mask")
    weighed = logits * torch.linspace(-1, 1, VOCABULARY, dtype=logits.dtype)
    (weighed if real is None or real.dim() != 2 else weighed[real.bool()]).sum().backward()
    named = dict(model.named_parameters())
    weight = next(part for part in named if any(word in part for word in ("q_proj", "query.weight", "Wqkv")))
    return logits.detach(), named[weight].grad


@pytest.mark.parametrize("pad", [None, "right", "left"])
@pytest.mark.parametrize("name", CONFIGS)
def test_models_are_as_with_eager_entmax(name, pad):
    inputs = {"input_ids": tokens()}
    if pad:
        inputs["attention_mask"] = padding(pad)
    found, gradient = logits_and_gradient(model_of(name), **inputs)
    wanted, wanted_gradient = logits_and_gradient(model_of(name, "entmax_eager"), **inputs)
    real = torch.ones_like(inputs["input_ids"]) if pad is None else inputs["attention_mask"]
    torch.testing.assert_close(found[real.bool()], wanted[real.bool()], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-7, atol=1e-8)
    assert gradient.abs().max() > 1e-6
    if pad is None:
        assert (found - model_of(name, "eager")(**inputs).logits).abs().max() > 1e-3


@pytest.mark.parametrize("name", DECODERS)
def test_packed_sequences_are_as_each_alone(name):
    model, lengths = model_of(name), (5, 1, 8)
    ids = tokens(1)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    alone = [model(input_ids=part).logits for part in ids.split(lengths, dim=1)]
    torch.testing.assert_close(packed, torch.cat(alone, 1), rtol=1e-9, atol=1e-9)
    offsets = torch.tensor([0, 5, 6, 14], dtype=torch.int32)
    options = {"cu_seq_lens_q": offsets, "cu_seq_lens_k": offsets, "max_length_q": 8, "max_length_k": 8}
    found = model(input_ids=ids, position_ids=positions, use_cache=False, **options).logits
    torch.testing.assert_close(found, packed, rtol=1e-9, atol=1e-9)
    attention = transformers.AttentionInterface()["entmax"]
    operands = torch.randn(3, 1, 4, LENGTH, 8).unbind()
    found, _ = attention(model.model.layers[0].self_attn, *operands, None, **options)
    alone = [
        attention(model.model.layers[0].self_attn, *parts, None)[0]
        for parts in zip(*(operand.split(lengths, dim=2) for operand in operands), strict=True)
    ]
    torch.testing.assert_close(found, torch.cat(alone, 1))


@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_hidden_leaks(name):
    model, ids = model_of(name), tokens()
    for side in ("right", "left"):
        mask = padding(side)
        changed = torch.where(mask.bool(), ids, VOCABULARY - ids)
        assert (changed != ids).any()
        before, after = (model(input_ids=some, attention_mask=mask).logits for some in (ids, changed))
        assert torch.equal(before[mask.bool()], after[mask.bool()])
    if name in DECODERS:
        changed = ids.clone()
        changed[:, 8:] = VOCABULARY - ids[:, 8:]
        assert torch.equal(model(input_ids=ids).logits[:, :8], model(input_ids=changed).logits[:, :8])


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("pad", [None, "left"])
@pytest.mark.parametrize("name", DECODERS)
def test_generation_is_as_the_full_forward(name, pad, cache):
    model = model_of(name)
    mask = padding(pad, (LENGTH, 9, 2)) if pad else torch.ones_like(tokens())
    options = {"max_new_tokens": 6, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    found = model.generate(
        tokens(), attention_mask=mask, cache_implementation=cache, pad_token_id=0, eos_token_id=None, **options
    )
    assert found.sequences.shape == (3, LENGTH + 6)
    mask = torch.cat((mask, torch.ones(3, 5, dtype=torch.long)), 1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    full = model(input_ids=found.sequences[:, :-1], attention_mask=mask, position_ids=positions).logits
    steps = torch.stack(found.logits, 1)
    torch.testing.assert_close(steps.double(), full[:, LENGTH - 1 :], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_a_prompt_may_come_in_chunks(name):
    model, ids = model_of(name), tokens()
    cache = {CACHE: transformers.DynamicCache(config=model.config)}
    parts = [model(input_ids=part, **cache).logits for part in ids.split((5, 1, 8), dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), model(input_ids=ids).logits, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["causal", "hole", "bias", "lowest"])
def test_masks_of_four_dimensions_are_applied(kind):
    visible = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    if kind == "hole":
        visible[:, 3] = torch.arange(LENGTH) == 3
    lowest = torch.finfo(torch.float64).min
    additive = torch.zeros(visible.shape, dtype=torch.float64).masked_fill(~visible, lowest)
    if kind == "bias":
        additive = additive + torch.linspace(0, 3, LENGTH, dtype=torch.float64)
    mask = additive if kind in ("bias", "lowest") else visible
    found = model_of("llama")(input_ids=tokens(1), attention_mask=mask[None, None]).logits
    wanted = model_of("llama", "entmax_eager")(input_ids=tokens(1), attention_mask=additive[None, None]).logits
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_a_mask_function_of_ones_own_is_applied():
    def from_both_sides(batch, head, query, key):
        return (query < 4) & (key < 4)

    def without_the_third(batch, head, query, key):
        return (key != 2) | (query == 2)

    ids = tokens()
    embeddings = torch.zeros(3, LENGTH, 32)
    for options in ({"or_mask_function": from_both_sides}, {"and_mask_function": without_the_third}):
        masks = []
        for attention in ("entmax", "entmax_eager"):
            model = model_of("llama", attention)
            mask = transformers.masking_utils.create_causal_mask(
                model.config, embeddings.double(), None, **{CACHE: None}, **options
            )
            masks.append(model(input_ids=ids, attention_mask=mask).logits)
        torch.testing.assert_close(*masks, rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(VERSION < (5, 16), reason="T5 does not go through AttentionInterface before transformers 5.16")
def test_position_biases_are_added():
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, dropout_rate=0.0,
        decoder_start_token_id=0,
    )  # fmt: skip
    found = {}
    for attention in ("entmax", "entmax_eager", "sdpa"):
        torch.manual_seed(0)
        model = transformers.AutoModelForSeq2SeqLM.from_config(config, attn_implementation=attention).double().eval()
        with torch.no_grad():
            for part, weight in model.named_parameters():
                weight *= 20 if "relative_attention_bias" in part else 1
        found[attention] = model(input_ids=tokens(), attention_mask=padding("right"), labels=tokens(seed=1)).logits
    torch.testing.assert_close(found["entmax"], found["entmax_eager"], rtol=1e-9, atol=1e-9)
    assert (found["entmax"] - found["sdpa"]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["llama", "modernbert"])
def test_a_compiled_model_is_as_an_eager_one(name):
    inputs = {"input_ids": tokens(), "attention_mask": padding("right")}
    model = model_of(name)
    wanted = model(**inputs).logits
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**inputs).logits, wanted, rtol=1e-9, atol=1e-9)


def test_a_compiled_model_tells_of_a_mask_with_a_hole():
    mask = torch.ones_like(tokens())
    mask[:, 4] = 0
    compiled = torch.compile(model_of("llama"), backend="eager", fullgraph=True)
    with pytest.raises(RuntimeError, match="a gap between them"):
        compiled(input_ids=tokens(), attention_mask=mask)


def test_checkpointed_gradients_are_the_same():
    inputs = {"input_ids": tokens(), "attention_mask": padding("right")}
    _, wanted = logits_and_gradient(model_of("llama"), **inputs)
    model = model_of("llama").train()
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    _, found = logits_and_gradient(model, **inputs)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_the_kernels_serve_the_same_masks():
    inputs = {"input_ids": tokens(2), "attention_mask": padding("left", (LENGTH, 9))}
    found, gradient = logits_and_gradient(model_of("qwen2", "entmax_kernels", torch.float32), **inputs)
    wanted, wanted_gradient = logits_and_gradient(model_of("qwen2", dtype=torch.float32), **inputs)
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(found[real], wanted[real], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-2, atol=1e-2 * wanted_gradient.abs().max().item())


def test_alpha_is_that_of_module_config_or_registration(tmp_path):
    register("entmax_two", alpha=2)
    ids = tokens()
    by_default, of_two = (model_of("llama", attention)(ids).logits for attention in ("entmax", "entmax_two"))
    assert (by_default - of_two).abs().max() > 1e-3
    model = model_of("llama", entmax_alpha=2.0)
    assert torch.equal(model(ids).logits, of_two)
    model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="entmax", dtype=torch.float64
    )
    assert loaded.config.entmax_alpha == 2.0
    # Not to the bit: products round by where weights lie in memory. Two layers of some seven products each, of sums of
    # 64 terms at most, make 2 ** 10 roundings of float64, here of logits of the size of 1.
    bound = 2.0**-53 * 2.0**10
    torch.testing.assert_close(loaded(ids).logits, of_two, rtol=bound, atol=bound)
    for layer in model.model.layers:
        layer.self_attn.entmax_alpha = 1.5
    assert torch.equal(model(ids).logits, by_default)


def test_alpha_is_learnt_for_each_head():
    model, ids = model_of("llama"), tokens()
    wanted = model(ids).logits
    for layer in model.model.layers:
        layer.self_attn.entmax_alpha = AlphaParameter((4,), dtype=torch.float64)
    torch.testing.assert_close(model(ids).logits, wanted)
    model(ids, labels=ids).loss.backward()
    for layer in model.model.layers:
        slope = layer.self_attn.entmax_alpha.weight.grad
        assert slope.shape == (4,) and (slope != 0.0).all()


def test_what_would_change_the_answer_is_refused():
    ids = tokens()
    with pytest.raises(ValueError, match=r"dropout 0\.1"):
        model_of("llama", attention_dropout=0.1).train()(ids)
    model_of("llama", attention_dropout=0.1)(ids)  # evaluated, it has none
    with pytest.raises(ValueError, match="softcap"):
        model_of("gemma2", attn_logit_softcapping=50.0)(ids)
    with pytest.raises(ValueError, match="output_attentions"):
        model_of("llama")(ids, output_attentions=True)
    with pytest.raises(ValueError, match="output_attentions"):
        model_of("llama").config.output_attentions = True
    with pytest.raises(ValueError, match="alpha"):
        model_of("llama", entmax_alpha=1.0)(ids)
    model = model_of("llama")
    attention = transformers.AttentionInterface()["entmax"]
    operands = torch.randn(3, 1, 4, 5, 8).unbind()
    with pytest.raises(ValueError, match="attention_mask is a Tensor of shape"):
        attention(model.model.layers[0].self_attn, *operands, torch.ones(1, 5))
    with pytest.raises(ValueError, match="s_aux"):
        attention(model.model.layers[0].self_attn, *operands, None, s_aux=torch.zeros(4))


def test_a_version_too_old_is_told(monkeypatch):
    monkeypatch.setattr("transformers.__version__", "5.3.0")
    with pytest.raises(ImportError, match=r"needs transformers 5\.4 or later; this is 5\.3\.0"):
        register()
