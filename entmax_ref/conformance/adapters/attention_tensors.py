"""How does attention on torch tensors become a target?  As rows do, with autograd for the gradients."""

from collections.abc import Callable
from typing import Any

from entmax_ref.conformance.adapters.tensors import to_array, to_tensor, torch_module
from entmax_ref.conformance.precision import Floats
from entmax_ref.conformance.target import Attended, AttentionTarget, Call

Attend = Callable[[Any, Any, Any, Call], Any]


def attention_target(
    attend: Attend,
    *,
    packed: Callable[..., Any] | None = None,
    device: str = "cpu",
    differentiable: bool = True,
    **claims: Any,
) -> AttentionTarget:
    """Return the target of a function of tensors (batch, heads, length, head_dim).

    Parameters
    ----------
    attend : callable
        ``attend(query, key, value, call)`` returns the output or, to expose more, an `Attended` of tensors.
    packed : callable, optional
        ``packed(query, key, value, offsets, call)`` returns the output for tensors (total, heads, head_dim);
        ``offsets`` are two tensors of int64.
    device : str
    differentiable : bool
        Whether it claims gradients.
    **claims
        The other fields of `AttentionTarget`.

    Returns
    -------
    AttentionTarget
    """

    def forward(query: Floats, key: Floats, value: Floats, call: Call) -> Attended:
        q, k, v = (to_tensor(operand, call.dtype, device) for operand in (query, key, value))
        with torch_module().no_grad():
            found = attend(q, k, v, call)
        if not isinstance(found, Attended):
            return Attended(to_array(found, q))
        parts = {name: getattr(found, name) for name in ("tau", "block_mask", "passes")}
        arrays = {name: None if part is None else part.double().cpu().numpy() for name, part in parts.items()}
        return Attended(to_array(found.out, q), block=found.block, **arrays)

    def vjp(query: Floats, key: Floats, value: Floats, d_out: Floats, call: Call) -> tuple[Floats, ...]:
        leaves = [to_tensor(operand, call.dtype, device).requires_grad_() for operand in (query, key, value)]
        found = attend(leaves[0], leaves[1], leaves[2], call)
        return gradients(found.out if isinstance(found, Attended) else found, leaves, d_out, call)

    def gradients(out: Any, leaves: list[Any], d_out: Floats, call: Call) -> tuple[Floats, ...]:
        found = torch_module().autograd.grad(out, leaves, to_tensor(d_out, call.dtype, device))
        return tuple(to_array(gradient, leaves[0]) for gradient in found)

    def on_device(offsets: Any) -> tuple[Any, ...]:
        return tuple(torch_module().from_numpy(offset).to(device) for offset in offsets)

    def packed_forward(query: Floats, key: Floats, value: Floats, offsets: Any, call: Call) -> Floats:
        assert packed is not None
        q, k, v = (to_tensor(operand, call.dtype, device) for operand in (query, key, value))
        with torch_module().no_grad():
            return to_array(packed(q, k, v, on_device(offsets), call), q)

    def packed_vjp(
        query: Floats, key: Floats, value: Floats, d_out: Floats, offsets: Any, call: Call
    ) -> tuple[Floats, ...]:
        assert packed is not None
        leaves = [to_tensor(operand, call.dtype, device).requires_grad_() for operand in (query, key, value)]
        return gradients(packed(*leaves, on_device(offsets), call), leaves, d_out, call)

    return AttentionTarget(
        attend=forward,
        vjp=vjp if differentiable else None,
        packed=packed_forward if packed else None,
        packed_vjp=packed_vjp if packed and differentiable else None,
        device=device,
        **claims,
    )
