"""Is a tensor that NumPy cannot read told the way to an array, and one that it can read like its array?"""

import sys
import types

import pytest
from public_calls import nested_tensor, torch

import entmax_ref
from entmax_ref import reading


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (lambda: torch.ones(3, requires_grad=True), "that requires grad. Pass scores.detach().numpy()."),
        (
            lambda: torch.ones(3, dtype=torch.bfloat16, requires_grad=True),
            "requires grad and has dtype torch.bfloat16, which NumPy lacks. Pass scores.detach().float().numpy().",
        ),
        (lambda: torch.ones(3).to_sparse(), "has the layout torch.sparse_coo. Pass scores.to_dense().numpy()."),
        (lambda: torch.ones(3, device="meta"), "lies on the meta device and holds no numbers. Make it on the CPU."),
        (nested_tensor, "is nested. Pad it with torch.nested.to_padded_tensor, and hide the padding with a mask."),
    ],
)
def test_a_tensor_that_numpy_cannot_read_says_how_to_make_it_one(tensor, message):
    with pytest.raises(TypeError) as refused:
        entmax_ref.entmax(tensor())
    assert str(refused.value).startswith("entmax: scores must be an array of real numbers; it is a torch tensor that ")
    assert message.removeprefix("that ") in str(refused.value) and "ragged" not in str(refused.value)


def test_a_gpu_tensor_is_told_the_way_to_the_cpu():
    there = types.SimpleNamespace(
        is_nested=False,
        device=torch.device("cuda:0"),
        layout=torch.strided,
        requires_grad=True,
        is_quantized=False,
        dtype=torch.bfloat16,
    )
    said = reading._trouble("query", there)
    assert said.startswith("requires grad and lies on cuda:0 and has dtype torch.bfloat16, which NumPy lacks. ")
    assert said.endswith("Pass query.detach().cpu().float().numpy()")


def test_tensors_in_a_list_are_named_wherever_they_stand():
    named = r"it holds a torch tensor, t say, that .* Pass t\..*\(\), and so for each\."
    for later in (torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.bfloat16)):
        for first in (torch.ones(2), [1.0, 2.0]):
            with pytest.raises(TypeError, match=named):
                entmax_ref.entmax([first, later])
    with pytest.raises(TypeError, match=r"it has torch tensors in it, .* Pass plain tensors of one shape"):
        entmax_ref.entmax([torch.ones(2), torch.ones(3)])
    with pytest.raises(TypeError, match=r"outside of torch.func and torch.compile\."):
        torch.vmap(lambda row: torch.tensor(entmax_ref.entmax(row)))(torch.ones(2, 2))
    assert entmax_ref.sparsemax([torch.ones(2), torch.ones(2)]).tolist() == [[0.5, 0.5]] * 2


def test_a_tensor_is_read_like_its_array():
    scores = torch.tensor([2.0, 0.0], dtype=torch.float16)
    assert entmax_ref.entmax(scores, torch.tensor(2.0)).tolist() == [1.0, 0.0]


def test_torch_is_not_needed_to_read(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    assert entmax_ref.sparsemax([1.0, 1.0]).tolist() == [0.5, 0.5]
