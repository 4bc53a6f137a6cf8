"""How does a function of torch tensors become a target?  Operands go in as tensors of a dtype and come back as arrays.

torch is imported when an adapter is made: the suite works without it, for targets that do.
"""

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from entmax_ref.conformance.precision import Floats
from entmax_ref.conformance.target import RowTarget

Map = Callable[[Any, float], Any]


def torch_module() -> Any:
    """Return torch."""
    return importlib.import_module("torch")


def missing_package(package: str, *, gpu: bool = False) -> str:
    """Return why a package cannot run here; empty if it can."""
    for name in ("torch", package):
        if importlib.util.find_spec(name) is None:
            return f"the package {name} is not installed"
    if gpu and not torch_module().cuda.is_available():
        return f"{package} needs a GPU, and torch finds none on this machine"
    return ""


def version_of(package: str) -> str:
    """Return the version of an installed package, or that it is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def to_tensor(values: Floats, dtype: str, device: str) -> Any:
    """Return a tensor of that dtype with the strides of the array, which must hold numbers of that dtype."""
    torch = torch_module()
    return torch.from_numpy(values).to(device=device, dtype=getattr(torch, dtype))


def to_array(tensor: Any, like: Any) -> Floats:
    """Return a tensor as float64, after a look at what it is."""
    torch = torch_module()
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"the target returned {type(tensor).__name__}, not a tensor")
    if tensor.dtype != like.dtype:
        raise TypeError(f"the target returned {tensor.dtype} for operands of {like.dtype}")
    return np.asarray(tensor.detach().double().cpu().numpy())


def loss_functions(loss: Callable[[Any, Any, float], Any], device: str = "cpu") -> dict[str, Any]:
    """Return the fields ``loss`` and ``loss_grad`` of a target, for a function of scores and indices of right keys."""

    def of(scores: Floats, keys: Any, alpha: float, dtype: str) -> tuple[Any, Any]:
        rows = to_tensor(scores, dtype, device).requires_grad_()
        return rows, loss(rows, torch_module().from_numpy(keys).to(device), alpha)

    def values(scores: Floats, keys: Any, alpha: float, dtype: str) -> Floats:
        rows, found = of(scores, keys, alpha, dtype)
        return to_array(found, rows)

    def gradient(scores: Floats, keys: Any, alpha: float, dtype: str) -> Floats:
        rows, found = of(scores, keys, alpha, dtype)
        (d_rows,) = torch_module().autograd.grad(found.sum(), rows)
        return to_array(d_rows, rows)

    return {"loss": values, "loss_grad": gradient}


def row_target(
    map: Map,
    *,
    device: str = "cpu",
    differentiable: bool = True,
    twice: bool = False,
    more_iterations: Map | None = None,
    **claims: Any,
) -> RowTarget:
    """Return the target of a function ``map(scores, alpha)`` of torch tensors, differentiated by autograd.

    Parameters
    ----------
    map : callable
        Takes a tensor (rows, n) and a float, and returns a tensor of the same shape and dtype.
    device : str
    differentiable : bool
        Whether it claims a gradient.
    twice : bool
        Whether it claims a gradient of its gradient.
    more_iterations : callable, optional
        As ``map``, with more iterations than by default.
    **claims
        The other fields of `RowTarget`.

    Returns
    -------
    RowTarget
    """

    def more(scores: Floats, alpha: float, dtype: str) -> Floats:
        assert more_iterations is not None
        rows = to_tensor(scores, dtype, device)
        return to_array(more_iterations(rows, alpha), rows)

    def probs(scores: Floats, alpha: float, dtype: str) -> Floats:
        rows = to_tensor(scores, dtype, device)
        found = to_array(map(rows, alpha), rows)
        # A call that writes to its operand has to be seen by who gave it.
        scores[...] = to_array(rows, rows)
        return found

    def vjp(scores: Floats, d_probs: Floats, alpha: float, dtype: str) -> Floats:
        rows = to_tensor(scores, dtype, device).requires_grad_()
        (d_rows,) = torch_module().autograd.grad(map(rows, alpha), rows, to_tensor(d_probs, dtype, device))
        return to_array(d_rows, rows)

    def second(scores: Floats, d_probs: Floats, way: Floats, alpha: float, dtype: str) -> Floats:
        torch = torch_module()
        rows = to_tensor(scores, dtype, device).requires_grad_()
        found = map(rows, alpha)
        (first,) = torch.autograd.grad(found, rows, to_tensor(d_probs, dtype, device), create_graph=True)
        if not first.requires_grad:  # the gradient does not depend on the scores
            return np.zeros_like(scores)
        (d_rows,) = torch.autograd.grad(first, rows, to_tensor(way, dtype, device))
        return to_array(d_rows, rows)

    return RowTarget(
        probs=probs,
        vjp=vjp if differentiable else None,
        second=second if twice else None,
        more_iterations=more if more_iterations else None,
        device=device,
        **claims,
    )


def alpha_gradient(
    map: Callable[[Any, Any], Any], device: str = "cpu"
) -> Callable[[Floats, Floats, float, str], Floats]:
    """Return the field ``d_alpha`` of a target, for a function that takes alpha as a tensor of shape (rows, 1)."""

    def d_alpha(scores: Floats, d_probs: Floats, alpha: float, dtype: str) -> Floats:
        torch = torch_module()
        rows = to_tensor(scores, dtype, device)
        order = torch.full((len(scores), 1), alpha, dtype=rows.dtype, device=device, requires_grad=True)
        (found,) = torch.autograd.grad(map(rows, order), order, to_tensor(d_probs, dtype, device))
        return np.asarray(to_array(found, rows).sum())

    return d_alpha
