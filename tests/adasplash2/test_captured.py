"""Are the captured inputs those of the notice, and does the capture say what it needs?"""

import importlib.resources
import re
import sys

import numpy as np
import pytest
import torch
from dense_scores import dense_scores, support

from adasplash2 import data, workloads
from adasplash2.data import capture
from adasplash2.workloads import captured, captured_cases, captured_names


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"name": "declaration"}, "name must be one of declaration_layer0, .*got 'declaration'"),
        ({"name": "gettysburg_layer4", "length": 194}, "length must be an int from 1 to 193 .*got 194"),
        ({"name": "gettysburg_layer4", "length": 0}, "length must be an int from 1 to 193 .*got 0"),
        ({"name": "gettysburg_layer4", "dtype": torch.int8}, "dtype must be one of"),
    ],
)
def test_bad_arguments_of_captured_are_named(arguments, says):
    with pytest.raises(ValueError, match=says):
        captured(**arguments)


def packaged(name):
    return importlib.resources.files(data) / name


def test_captured_file_is_the_one_of_the_notice():
    assert len(packaged("captured.npz").read_bytes()) < 400_000
    words = data.recorded_words()
    assert capture.digest(words.values()) == data.recorded_sha256()
    assert f"SHA-256 of the words: {data.recorded_sha256()}" in packaged("NOTICE").read_text(encoding="utf-8")
    for name, text, length, _, heads in capture.CASES:
        assert words[name].shape == (3, len(heads), length, 32)
        assert packaged(text).is_file()
    assert tuple(words) == captured_names() == tuple(case[0] for case in capture.CASES)


def test_captured_numbers_are_the_same_in_every_dtype():
    by_dtype = {dtype: list(captured_cases(dtype=dtype)) for dtype in workloads.DTYPES}
    for cases in zip(*by_dtype.values(), strict=True):
        for x in ("query", "key", "value"):
            tensors = [getattr(w, x) for w in cases]
            assert [t.dtype for t in tensors] == list(workloads.DTYPES)
            assert all(torch.equal(t.double(), tensors[0].double()) for t in tensors)
        assert cases[0].is_finite and not cases[0].nan_rows.any() and not cases[0].empty_rows.any()
        assert "all-MiniLM-L6-v2" in cases[0].note
    first = captured("declaration_layer0", length=193, is_causal=True)
    assert first.query.shape == (1, 2, 193, 32) and first.is_causal and first.key.is_contiguous()
    assert torch.equal(first.key, captured("declaration_layer0").key[:, :, :193])


def empty_share(live, visible, block):
    """Return the share of blocks with a visible pair that hold no support."""
    pad = [(0, -n % block) for n in live.shape]
    shape = [x for n in live.shape for x in ((n + block - 1) // block, block)]
    kept, seen = (np.pad(x, pad).reshape(shape).any((1, 3)) for x in (live, visible))
    return 1.0 - kept.sum() / seen.sum()


@pytest.mark.parametrize("is_causal", [False, True])
def test_captured_sparsity_is_what_the_notice_says(is_causal):
    told = {}
    for line in packaged("NOTICE").read_text(encoding="utf-8").splitlines():
        match = re.fullmatch(r"  (\w+_layer\d) +(\d+)  (full|causal) +(.*)", line)
        if match and (match[3] == "causal") == is_causal:
            told[match[1], int(match[2])] = match[4].split()
    heads_of = {name: heads for name, _, _, _, heads in capture.CASES}
    for w in captured_cases(is_causal=is_causal):
        scores, visible = dense_scores(w)
        live = support(scores, visible)[0]
        for i, head in enumerate(heads_of[w.name]):
            size = live[i].sum(-1)
            shares = [f"{empty_share(live[i], visible, block):.3f}" for block in (16, 32, 64)]
            found = [
                f"{scores[0, i].std():.2f}",
                f"{np.median(size):.0f}",
                f"{size.mean():.1f}",
                str(size.max()),
            ]
            assert told.pop((w.name, head)) == found + shares
    assert not told


def test_capture_runs_an_encoder():
    # Without positions, an encoder maps a permuted sequence to the permuted result.
    config = {"num_attention_heads": 2, "num_hidden_layers": 2, "layer_norm_eps": 1e-12}
    size, inner = 8, 16
    generator = torch.Generator().manual_seed(0)
    shapes = {"embeddings.word_embeddings": (11, size), "embeddings.token_type_embeddings": (2, size)}
    shapes |= {"embeddings.position_embeddings": (7, size)}
    linears = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
    for layer in range(2):
        shapes |= {f"encoder.layer.{layer}.{name}": (size, size) for name in linears}
        shapes[f"encoder.layer.{layer}.intermediate.dense"] = (inner, size)
        shapes[f"encoder.layer.{layer}.output.dense"] = (size, inner)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"encoder.layer.{layer}.{name}"] = (size,)
    shapes["embeddings.LayerNorm"] = (size,)
    draw = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    weights = {f"{name}.weight": x for name, x in draw.items()}
    weights |= {f"{name}.bias": x.reshape(x.shape[0], -1)[:, 0] for name, x in draw.items()}
    weights["embeddings.position_embeddings.weight"].zero_()
    ids, order = torch.tensor([1, 5, 2, 9, 7]), torch.tensor([3, 0, 4, 1, 2])
    straight = capture.layer_operands(weights, config, ids)
    permuted = capture.layer_operands(weights, config, ids[order])
    assert len(straight) == 2
    for one, other in zip(straight, permuted, strict=True):
        for x, y in zip(one, other, strict=True):
            assert x.shape == (2, 5, 4)
            torch.testing.assert_close(x[:, order], y, rtol=1e-10, atol=1e-10)


def test_capture_rounds_to_what_three_dtypes_hold():
    values = torch.tensor([1.0, 1.0 + 2.0**-8, 3.0 * 2.0**-19, 2.0**-17, -1.01 * 2.0**-17, 12.42]).double()
    words = capture.rounded_words(values)
    numbers = torch.from_numpy((words.astype(np.uint32) << 16).view(np.float32))
    assert numbers[:4].tolist() == [1.0, 1.0, 0.0, 2.0**-17]
    assert torch.equal(numbers, numbers.to(torch.float16).float())
    assert ((numbers - values).abs()[3:] <= values.abs()[3:] * 2.0**-8).all()


def test_capture_says_what_is_missing(tmp_path, capsys, monkeypatch):
    arguments = ["--model", str(tmp_path), "--out", str(tmp_path / "out.npz")]
    assert capture.main(arguments) == 2
    assert "--model must hold config.json" in capsys.readouterr().err
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    assert capture.main(arguments) == 2
    assert "pip install safetensors tokenizers" in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()
