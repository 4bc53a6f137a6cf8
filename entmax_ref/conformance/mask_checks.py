"""What must hold under a window, key ranges, or for packed sequences?  What holds without, for the keys in sight."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entmax_ref.conformance.attention_checks import (
    Operands,
    attention_output,
    call_of,
    compare,
    compare_gradient,
    gradients,
    gradients_by_name,
    operands_of,
)
from entmax_ref.conformance.attention_truth import attention_truth, gradients_truth, undecided
from entmax_ref.conformance.case import Case
from entmax_ref.conformance.check import Finding, answer, asked
from entmax_ref.conformance.precision import Floats
from entmax_ref.conformance.target import AttentionTarget

_NAMES = ("query", "key", "value")
Offsets = tuple[NDArray[np.int64], NDArray[np.int64]]


def _worst_of(found: dict[str, Any], wanted: dict[str, Floats], allowed: dict[str, Floats]) -> Finding:
    findings = [compare_gradient(name, found[name], wanted[name], allowed[name]) for name in _NAMES]
    return max(findings, key=lambda finding: finding.share)


def _gradients(target: AttentionTarget, case: Case) -> Finding:
    found, truth = gradients(target, case)
    return _worst_of(found, truth.exact, truth.allowed)


def window_output(target: AttentionTarget, case: Case) -> Finding:
    """With a sliding window every entry of the output is the oracle's, within its bound."""
    return attention_output(target, case)


def window_gradient(target: AttentionTarget, case: Case) -> Finding:
    """With a sliding window every entry of the gradients is the oracle's, within its bound."""
    return _gradients(target, case)


def ranges_output(target: AttentionTarget, case: Case) -> Finding:
    """With a range of keys for each query, as padding is, the output is the oracle's, within its bound."""
    return attention_output(target, case)


def ranges_gradient(target: AttentionTarget, case: Case) -> Finding:
    """With a range of keys for each query every entry of the gradients is the oracle's, within its bound."""
    return _gradients(target, case)


def _packed(case: Case) -> tuple[Operands, Offsets]:
    """Return operands (total, heads, head_dim), and the offsets of queries and of keys."""
    query, key, value = (np.ascontiguousarray(operand[0].swapaxes(0, 1)) for operand in operands_of(case))
    lengths = np.array(case.options["lengths"], dtype=np.int64).reshape(-1, 2)
    offsets = np.concatenate([np.zeros((1, 2), dtype=np.int64), np.cumsum(lengths, axis=0)])
    return (query, key, value), (offsets[:, 0].copy(), offsets[:, 1].copy())


def _sequences(operands: Operands, offsets: Offsets) -> Iterator[tuple[slice, slice, Operands]]:
    """Yield the queries and keys of each sequence that has both, and its operands (1, heads, length, head_dim)."""
    of_queries, of_keys = ([slice(*pair) for pair in pairwise(part.tolist())] for part in offsets)
    for queries, keys in zip(of_queries, of_keys, strict=True):
        if queries.start < queries.stop and keys.start < keys.stop:
            query, key, value = operands[0][queries], operands[1][keys], operands[2][keys]
            yield queries, keys, (_of_batch(query), _of_batch(key), _of_batch(value))


def _of_batch(part: Floats) -> Floats:
    """Return (length, heads, head_dim) as (1, heads, length, head_dim)."""
    return part.swapaxes(0, 1)[None]


def packed_output(target: AttentionTarget, case: Case) -> Finding:
    """Sequences that lie one behind the other are each attended to alone: the output is the oracle's for each."""
    assert target.packed is not None
    (operands, offsets), call = _packed(case), call_of(case)
    wanted, allowed = np.zeros_like(operands[0]), np.zeros_like(operands[0])
    for queries, _, parts in _sequences(operands, offsets):
        truth = attention_truth(*parts, call)
        wanted[queries], allowed[queries] = (part[0].swapaxes(0, 1) for part in (truth.out, truth.out_allowed))
    found = answer(asked(target.packed, *operands, offsets, call), wanted.shape, "the output")
    return compare(found, wanted, allowed, "out")


def packed_gradient(target: AttentionTarget, case: Case) -> Finding:
    """Sequences that lie one behind the other are each attended to alone: the gradients are the oracle's for each."""
    assert target.packed_vjp is not None
    (operands, offsets), call = _packed(case), call_of(case)
    d_out = np.ascontiguousarray(case["d_out"][0].swapaxes(0, 1))
    wanted, allowed = ({name: np.zeros_like(part) for name, part in zip(_NAMES, operands, strict=True)} for _ in "ab")
    for queries, keys, parts in _sequences(operands, offsets):
        unsure = undecided(attention_truth(*parts, call), call.alpha)[0].swapaxes(0, 1)
        d_out[queries] = np.where(unsure[..., None], 0.0, d_out[queries])
        truth = gradients_truth(*parts, _of_batch(d_out[queries]), call)
        for name, place in (("query", queries), ("key", keys), ("value", keys)):
            wanted[name][place] = truth.exact[name][0].swapaxes(0, 1)
            allowed[name][place] = truth.allowed[name][0].swapaxes(0, 1)
    found = gradients_by_name(asked(target.packed_vjp, *operands, d_out, offsets, call))
    return _worst_of(found, wanted, allowed)
