"""Does each query see the keys that windows, lengths, packs and ranges leave it, and no other, on every path?"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from judged import judged
from profiles import examples
from staged import DEVICE, PATHS, TILE, U, score_matrices, staged

import entmax_ref
from adasplash2 import entmax_attention, entmax_attention_varlen, ops
from adasplash2.orders import TOLERANCE
from adasplash2.verify.answer import answer_of
from adasplash2.verify.naive import naive_attention
from adasplash2.verify.stage_checks import check_stages
from adasplash2.verify.truth import truth_of
from adasplash2.visible import Visibility, as_mask, packed_ranges, ranges_of, visible_blocks
from adasplash2.workloads import Workload, workload

HEADS, KV_HEADS, HEAD_DIM = 2, 1, 16


def operands(n_queries, n_keys, *, batch=1, dtype=torch.float32, amplitude=2.0, seed=0):
    """Return query, key, value and d_out, float32 of 16 bits so that every dtype holds them."""
    generator = torch.Generator().manual_seed(seed)

    def draw(heads, length, size):
        drawn = size * torch.randn(batch, heads, length, HEAD_DIM, generator=generator)
        return drawn.bfloat16().to(dtype).to(DEVICE)

    lengths = ((HEADS, n_queries, amplitude), (KV_HEADS, n_keys, 1.0), (KV_HEADS, n_keys, 1.0), (HEADS, n_queries, 1.0))
    return [draw(*size) for size in lengths]


def defined(batch, n_queries, n_keys, is_causal, window, seqlens_q, seqlens_k, side):
    """Return which pairs see each other, pair by pair, as the docstring of `entmax_attention` says."""
    seen = np.zeros((batch, n_queries, n_keys), dtype=bool)
    for item, i, j in np.ndindex(seen.shape):
        of_queries = n_queries if seqlens_q is None else min(seqlens_q[item], n_queries)
        of_keys = n_keys if seqlens_k is None else min(seqlens_k[item], n_keys)
        query, key = (i, j) if side == "right" else (i - (n_queries - of_queries), j - (n_keys - of_keys))
        distance = key - (query + of_keys - of_queries)
        left, right = window
        seen[item, i, j] = (
            0 <= query < of_queries
            and 0 <= key < of_keys
            and (left is None or distance >= -left)
            and (right is None or distance <= right)
            and (not is_causal or distance <= 0)
        )
    return seen


sides = st.none() | st.integers(0, 9)


@examples(60)
@given(
    n_queries=st.integers(0, 9), n_keys=st.integers(0, 9), is_causal=st.booleans(), window=st.tuples(sides, sides),
    seqlens_q=st.none() | st.lists(st.integers(0, 11), min_size=2, max_size=2),
    seqlens_k=st.none() | st.lists(st.integers(0, 11), min_size=2, max_size=2), side=st.sampled_from(["right", "left"]),
)  # fmt: skip
def test_ranges_are_what_the_options_say(n_queries, n_keys, is_causal, window, seqlens_q, seqlens_k, side):
    query = torch.empty(2, 3, n_queries, 4)
    lengths = [None if some is None else torch.tensor(some) for some in (seqlens_q, seqlens_k)]
    given_ = Visibility(window, *lengths, side)
    ranges = ranges_of("test", given_, query, n_keys, (2, 3), is_causal=is_causal)
    seen = defined(2, n_queries, n_keys, is_causal, window, seqlens_q, seqlens_k, side)
    assert ranges.dtype == torch.int32 and ranges.shape == (2, n_queries, 2)
    np.testing.assert_array_equal(as_mask(ranges, n_keys)[:, 0].numpy(), seen)
    assert not ranges[~torch.from_numpy(seen).any(-1)].any()
    for block in ((2, 3), (4, 1)):
        cells = np.pad(seen, ((0, 0), (0, -n_queries % block[0]), (0, -n_keys % block[1])))
        blocks = -(-n_queries // block[0]), block[0], -(-n_keys // block[1]), block[1]
        found = visible_blocks(ranges, n_keys, block)
        np.testing.assert_array_equal(found.numpy(), cells.reshape(2, *blocks).any(axis=(2, 4)))


@examples(60)
@given(lengths=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=5), is_causal=st.booleans(),
       window=st.tuples(sides, sides), spare=st.integers(0, 2))  # fmt: skip
def test_packed_ranges_are_those_of_each_sequence(lengths, is_causal, window, spare):
    ends = [np.cumsum([0, *(pair[side] for pair in lengths)]) for side in (0, 1)]
    seen = np.zeros((ends[0][-1] + spare, ends[1][-1]), dtype=bool)
    for item, (queries, keys) in enumerate(lengths):
        rows, columns = (slice(end[item], end[item + 1]) for end in ends)
        seen[rows, columns] = defined(1, queries, keys, is_causal, window, None, None, "right")[0]
    cu_q, cu_k = (torch.from_numpy(end) for end in ends)
    ranges = packed_ranges(cu_q, cu_k, seen.shape[0], window, is_causal=is_causal)
    np.testing.assert_array_equal(as_mask(ranges[None], seen.shape[1])[0, 0].numpy(), seen)


# Options of a call of 2 items of 150 queries and 190 keys: what crosses tiles of every size.
OPTIONS = {
    "window": {"window_size": (40, 5)},
    "causal window": {"window_size": (70, None), "is_causal": True},
    "one key": {"window_size": (0, 0)},
    "padding": {"seqlens_q": [150, 33], "seqlens_k": [64, 190]},
    "causal padding": {"seqlens_q": [100, 0], "seqlens_k": [190, 77], "is_causal": True},
    "left padding": {"seqlens_q": [100, 1], "seqlens_k": [120, 77], "is_causal": True, "padding_side": "left"},
    "cache": {"seqlens_k": [170, 2], "is_causal": True},
    "padded window": {"seqlens_q": [90, 150], "seqlens_k": [90, 160], "window_size": (30, 0)},
}


def tensors(options):
    """Return options with their lists as tensors on the device."""
    return {name: torch.tensor(value, device=DEVICE) if isinstance(value, list) else value
            for name, value in options.items()}  # fmt: skip


def ranges_for(options, query, n_keys):
    rest = {name: value for name, value in options.items() if name != "is_causal"}
    lead = tuple(query.shape[:-2])
    return ranges_of("test", Visibility(**rest), query, n_keys, lead, is_causal=options.get("is_causal", False))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_judged_as_every_other_call(name, dtype):
    options = tensors(OPTIONS[name])
    drawn = operands(150, 190, batch=2, dtype=dtype)
    judged(*drawn, key_ranges=ranges_for(options, drawn[0], 190), **options)


# Flat rows go by tiles from the dense pass on, peaked ones by keys.
@pytest.mark.parametrize("amplitude", [0.02, 8.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_any_range_of_each_query(amplitude, dtype):
    ends = torch.randint(0, 200, (2, 150, 2), generator=torch.Generator().manual_seed(3)).sort(-1).values
    judged(*operands(150, 200, batch=2, dtype=dtype, amplitude=amplitude), key_ranges=ends.int().to(DEVICE))


@pytest.mark.parametrize("name", ["causal window", "left padding"])
@pytest.mark.parametrize("load", ["topic4", "gauss0.02", "gauss2"])
def test_every_stage_keeps_to_its_specification(name, load):
    drawn = workload(load, batch=1, heads=2, n_queries=150, n_keys=190, head_dim=16, dtype=torch.bfloat16, seed=1)
    options = tensors({key: [value[0]] if isinstance(value, list) else value for key, value in OPTIONS[name].items()})
    query, key, value = (part.to(DEVICE) for part in (drawn.query, drawn.key, drawn.value))
    load = Workload(name, query, key, value, False, "", ranges_for(options, query, 190))
    truth = truth_of(load, 1.5, 0)
    with np.errstate(all="ignore"):
        answer = answer_of(load, truth.d_out, alpha=1.5, impl="triton")
        naive = naive_attention(
            query, key, value, truth.d_out.to(DEVICE), alpha=1.5, is_causal=False, scale=0.25, mask=load.mask
        )
        for check in check_stages(load, truth, answer, naive, 1.5):
            assert check.passed, (check.stage, check.rule, check.error, check.budget)


@examples(30)
@given(z=score_matrices(max_queries=40), path=st.sampled_from(sorted(PATHS)), seed=st.integers(0, 99))
def test_tiles_of_the_dense_pass_that_hold_several_blocks(z, path, seed):
    """A block lists what its tile keeps, also keys outside of its own range."""
    n_queries, n_keys = z.shape
    rng = np.random.default_rng(seed)
    first = np.sort(rng.integers(0, n_keys, n_queries))
    ranges = np.stack((first, np.minimum(first + rng.integers(1, 20, n_queries), n_keys)), axis=1).astype(np.int32)
    run = staged(z, ranges=ranges, dense=2 * TILE, **PATHS[path])
    sees = (run.z > -np.inf).any(axis=1)
    np.testing.assert_array_equal(run.row("output", "mass")[~sees], 0.0)
    tau = entmax_ref.threshold(2.0 * run.z[sees]) if sees.any() else np.zeros(0)
    allowed = TOLERANCE[torch.float32] + 4 * U * np.abs(run.z[sees]).max(axis=1, where=run.z[sees] > -np.inf, initial=0)
    assert np.all(np.abs(run.tau()[sees] - tau) <= allowed)


def test_packed_sequences_are_judged_together_and_equal_to_each_alone():
    lengths_q, lengths_k = [70, 0, 1, 60, 33], [70, 5, 17, 64, 0]
    cu_q, cu_k = (torch.tensor([0, *np.cumsum(some)], device=DEVICE) for some in (lengths_q, lengths_k))
    query, key, value, d_out = operands(sum(lengths_q) + 3, sum(lengths_k), dtype=torch.bfloat16)
    window = (50, None)
    ranges = packed_ranges(cu_q, cu_k, query.shape[2], window, is_causal=True)[None]
    judged(query, key, value, d_out, key_ranges=ranges)
    packed = [part[0].transpose(0, 1).requires_grad_() for part in (query, key, value)]
    out, aux = entmax_attention_varlen(
        *packed, cu_q, cu_k, max(lengths_q), max(lengths_k), is_causal=True, window_size=window, impl="triton",
        return_aux=True,
    )  # fmt: skip
    expected = entmax_ref.attention_varlen(
        *(part.detach().double().cpu().numpy() for part in (packed[0][: sum(lengths_q)], *packed[1:])), cu_q.cpu(),
        cu_k.cpu(), is_causal=True, window=window, enable_gqa=True,
    )  # fmt: skip
    np.testing.assert_allclose(out.detach().double().cpu().numpy()[: sum(lengths_q)], expected, atol=0.02)
    assert not out[sum(lengths_q) :].any() and aux.tau.shape == (HEADS, query.shape[2])
    grads = torch.autograd.grad(out, packed, d_out[0].transpose(0, 1))
    for item in range(len(lengths_q)):
        rows, columns = (slice(int(cu[item]), int(cu[item + 1])) for cu in (cu_q, cu_k))
        alone = [
            part[slice_].transpose(0, 1)[None] for part, slice_ in zip(packed, (rows, columns, columns), strict=True)
        ]
        leaves = [part.detach().requires_grad_() for part in alone]
        own = entmax_attention(*leaves, is_causal=True, window_size=window, enable_gqa=True, impl="triton")
        of_own = torch.autograd.grad(own, leaves, d_out[:, :, rows])
        # Which path a block takes depends on its neighbours, and so does the last bit of a bfloat16.
        torch.testing.assert_close(own[0].transpose(0, 1), out[rows], atol=0.02, rtol=0.01)
        for found, whole, slice_ in zip(of_own, grads, (rows, columns, columns), strict=True):
            torch.testing.assert_close(found[0].transpose(0, 1), whole[slice_], atol=0.06, rtol=0.02)


@pytest.mark.parametrize("impl", ["triton", "reference"])
@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_hidden_changes_nothing(name, impl):
    options = tensors(OPTIONS[name])
    query, key, value, d_out = operands(150, 190, batch=2)
    mask = as_mask(ranges_for(options, query, 190), 190)[:, 0]
    unseen, blind = ~mask.any(1), ~mask.any(2)

    def run(noise):
        leaves = [query.clone(), key.clone(), value.clone()]
        leaves[0].masked_fill_(blind[:, None, :, None], noise)
        for leaf in leaves[1:]:
            leaf.masked_fill_(unseen[:, None, :, None], noise)
        leaves = [leaf.requires_grad_() for leaf in leaves]
        out = entmax_attention(*leaves, enable_gqa=True, impl=impl, **options)
        return out, *torch.autograd.grad(out, leaves, d_out)

    plain = run(0.0)
    for noise in (3.0, float("inf"), float("nan")):
        for one, other in zip(plain, run(noise), strict=True):
            assert torch.equal(one, other)
    out, d_query, d_key, d_value = plain
    assert (
        not out[blind[:, None].expand(-1, HEADS, -1)].any() and not d_query[blind[:, None].expand(-1, HEADS, -1)].any()
    )
    assert not d_key[unseen[:, None]].any() and not d_value[unseen[:, None]].any()


def test_a_poisoned_key_reaches_those_that_see_it_and_no_other():
    options = {"window_size": (20, 3)}
    query, key, value, d_out = operands(100, 100)
    key[0, 0, 50] = float("nan")
    leaves = [part.requires_grad_() for part in (query, key, value)]
    out = entmax_attention(*leaves, enable_gqa=True, impl="triton", **options)
    sees = (torch.arange(100, device=DEVICE) - 50 <= 20) & (torch.arange(100, device=DEVICE) - 50 >= -3)
    assert torch.equal(out[0, 0].isnan().any(-1), sees)
    d_query, d_key, d_value = torch.autograd.grad(out, leaves, d_out)
    assert torch.equal(d_query[0, 0].isnan().any(-1), sees)
    touched = torch.zeros(100, dtype=torch.bool, device=DEVICE)
    touched[50 - 3 - 20 : 50 + 20 + 3 + 1] = True
    assert torch.equal(d_value[0, 0].isnan().any(-1), touched) and torch.equal(d_key[0, 0].isnan().any(-1), touched)


@pytest.mark.parametrize("impl", ["triton", "reference"])
def test_the_share_that_is_skipped_is_of_what_can_be_seen(impl):
    query, key, value, _ = operands(300, 300, amplitude=0.01)
    _, aux = entmax_attention(query, key, value, window_size=(10, 10), enable_gqa=True, impl=impl, return_aux=True)
    assert float(aux.skipped) == 0.0
    block_mask = aux.block_mask[0, 0]
    assert 0 < int(block_mask.sum()) < block_mask.numel()


@pytest.mark.parametrize("name", [*OPTIONS, "ranges"])
def test_the_reference_path_is_the_oracle_under_the_mask_that_they_are(name):
    options = tensors(OPTIONS.get(name, OPTIONS["padded window"]))
    *leaves, d_out = (part.requires_grad_() for part in operands(150, 190, batch=2, dtype=torch.float64))
    ranges = ranges_for(options, leaves[0], 190)
    out = entmax_attention(
        *leaves, enable_gqa=True, impl="reference", **({"key_ranges": ranges} if name == "ranges" else options)
    )
    arrays = [part.detach().cpu().numpy() for part in (*leaves, d_out)]
    asked = {"enable_gqa": True, "mask": as_mask(ranges, 190).cpu().numpy()}
    # float64: some hundred roundings of sums of up to 190 terms
    found = out, *torch.autograd.grad(out, leaves, d_out)
    exact = entmax_ref.attention(*arrays[:3], **asked), *entmax_ref.attention_vjp(*arrays, **asked)
    for one, other in zip(found, exact, strict=True):
        assert np.linalg.norm(one.detach().cpu().numpy() - other) <= 2.0**-53 * 2**14 * np.linalg.norm(other)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32], ids=str)
def test_the_reference_path_combines_them_with_a_mask(dtype):
    query, key, value, _ = (part.cpu() for part in operands(20, 25))
    visible = torch.rand(HEADS, 20, 25, generator=torch.Generator().manual_seed(0)) < 0.7
    mask = visible if dtype == torch.bool else torch.where(visible, 0.25, -torch.inf)
    out = entmax_attention(query, key, value, mask, window_size=(9, 4), enable_gqa=True, impl="reference")
    given_ = {"mask": mask} if dtype == torch.bool else {"bias": mask}
    expected = entmax_ref.attention(query, key, value, window=(9, 4), enable_gqa=True, **given_)
    np.testing.assert_allclose(out.numpy(), expected, atol=2e-5)


def test_operator_with_ranges():
    query, key, value, _ = operands(40, 50)
    ranges = ranges_for({"window_size": (9, 4)}, query, 50)
    leaves = [part.requires_grad_() for part in (query, key, value)]
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(ops.attention, (*leaves, ranges, None, 1.5, False, 0.25), test_utils=tests)


def test_vmap_over_lengths_is_a_loop():
    query, key, value, _ = operands(30, 30, batch=2)
    lengths = torch.tensor([[30, 4], [17, 30], [0, 1]], device=DEVICE)

    def attend(seqlens):
        return entmax_attention(query, key, value, seqlens_k=seqlens, enable_gqa=True, impl="triton")

    assert torch.equal(torch.vmap(attend)(lengths), torch.stack([attend(some) for some in lengths]))


WRONG = {
    "window_size of one": ({"window_size": 3}, TypeError, r"window_size must be None or a pair"),
    "window_size of floats": ({"window_size": (1.0, 2)}, TypeError, r"window_size must hold integers"),
    "window_size below 0": ({"window_size": (-2, 0)}, ValueError, r"window_size must not be negative"),
    "seqlens of a list": ({"seqlens_k": [1]}, TypeError, r"seqlens_k must be a torch.Tensor, got list"),
    "seqlens of floats": ({"seqlens_q": torch.ones(1)}, TypeError, r"seqlens_q has dtype torch.float32"),
    "seqlens of another batch": (
        {"seqlens_k": torch.ones(3, dtype=torch.int32)}, ValueError, r"seqlens_k has shape \(3,\); .* \(1,\)"),
    "seqlens elsewhere": (
        {"seqlens_k": torch.ones(1, dtype=torch.int32, device="meta")}, ValueError, r"seqlens_k is on meta"),
    "key_ranges without 2": (
        {"key_ranges": torch.ones(20, dtype=torch.int32)}, ValueError, r"key_ranges has shape \(20,\)"),
    "key_ranges of other queries": (
        {"key_ranges": torch.ones(19, 2, dtype=torch.int32)}, ValueError, r"broadcast to \(..., n_queries, 2\)"),
    "padding_side": ({"padding_side": "top"}, ValueError, r"padding_side must be 'right' or 'left', got 'top'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_bad_options_say_so(name):
    options, error, message = WRONG[name]
    query, key, value, _ = (part.cpu() for part in operands(20, 25))
    with pytest.raises(error, match=f"^entmax_attention: .*{message}"):
        entmax_attention(query, key, value, enable_gqa=True, impl="reference", **options)


WRONG_PACKS = {
    "operands of four dimensions": ({"query": torch.ones(1, 4, 2, 8)}, ValueError, r"query must be a tensor of shape"),
    "operands of lists": ({"key": [1.0]}, TypeError, r"key must be a tensor of shape .* got list"),
    "offsets of a list": ({"cu_seqlens_q": [0, 4]}, TypeError, r"cu_seqlens_q must be a tensor of int32 or int64"),
    "offsets of floats": ({"cu_seqlens_k": torch.ones(2)}, TypeError, r"cu_seqlens_k .* got dtype torch.float32"),
    "no offsets": ({"cu_seqlens_k": torch.ones(0, dtype=torch.int32)}, ValueError, r"shape \(sequences \+ 1,\)"),
    "offsets that fall": ({"cu_seqlens_q": torch.tensor([0, 3, 2])}, ValueError, r"cu_seqlens_q must rise from 0"),
    "offsets beyond the end": ({"cu_seqlens_q": torch.tensor([0, 9])}, ValueError, r"at most 4, the length of query"),
    "offsets that differ": ({"cu_seqlens_q": torch.tensor([0, 2, 4])}, ValueError, r"3 offsets, cu_seqlens_k has 2"),
    "is_causal": ({"is_causal": 1}, TypeError, r"is_causal must be True or False, got int"),
    "window_size": ({"window_size": (1, 2, 3)}, TypeError, r"window_size must be None or a pair"),
}


@pytest.mark.parametrize("name", WRONG_PACKS)
def test_bad_packs_say_so(name):
    options, error, message = WRONG_PACKS[name]
    good = {part: torch.ones(4, 2, 8) for part in ("query", "key", "value")}
    good |= {"cu_seqlens_q": torch.tensor([0, 4]), "cu_seqlens_k": torch.tensor([0, 4])}
    with pytest.raises(error, match=f"^entmax_attention_varlen: .*{message}"):
        entmax_attention_varlen(**(good | options))
