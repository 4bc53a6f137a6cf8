"""What does an implementation have to say about itself to be tested?  What it computes, and what it claims.

Every operand and result is a NumPy array of float64 whose numbers the stated dtype holds: an adapter converts to the
library's own arrays and back.  What a target does not claim is skipped, and listed as skipped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from entmax_ref.conformance.case import Case
from entmax_ref.conformance.precision import Floats


class Known(NamedTuple):
    """A failure that is expected of a target; if the check passes, that is reported.

    Attributes
    ----------
    check : str
        Name of the check.
    reason : str
        What is wrong, in a sentence.
    link : str
        Where it is reported or described; may be empty.
    dtypes : tuple of str
        Those in which it fails; empty for all.
    case : Case or None
        An example that fails; it is judged before any that is drawn, so that a small budget finds it as well.
    """

    check: str
    reason: str
    link: str = ""
    dtypes: tuple[str, ...] = ()
    case: Case | None = None


@dataclass(frozen=True, kw_only=True)
class Target:
    """What targets of both kinds say about themselves.

    Attributes
    ----------
    name, version : str
        As a report shows them.
    alphas : tuple of float
        The orders to draw from; 1 is softmax.
    dtypes : tuple of str
        Of ``float64``, ``float32``, ``bfloat16``, ``float16``.
    device : str
        Where it runs, for the report.
    lengths : tuple of int
        Fewest and most keys of a row.
    nonfinite : bool
        Whether a row that sees NaN or ``+inf`` is NaN, and no other row is touched.
    strides : bool
        Whether operands may have any strides; where it is not claimed, all that a target is given are contiguous.
    known : tuple of Known
        Failures that are expected.
    missing : str
        Why it cannot run here (a package or a GPU that is not there); then every check is skipped with this reason.
    call : str
        The call as a user writes it, for a reproduction that needs nothing of this suite; operands are torch tensors
        by their names.
    imports : str
        What the call needs to be imported.
    source : str
        ``package.module:function`` that it came from; `load` fills it in.
    """

    name: str
    version: str
    alphas: tuple[float, ...] = (1.5,)
    dtypes: tuple[str, ...] = ("float32",)
    device: str = "cpu"
    lengths: tuple[int, int] = (1, 2**20)
    nonfinite: bool = True
    strides: bool = True
    known: tuple[Known, ...] = ()
    missing: str = ""
    call: str = ""
    imports: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class RowTarget(Target):
    """A map of rows of scores to rows of probabilities.

    Attributes
    ----------
    probs : callable
        ``probs(scores, alpha, dtype)`` for scores of shape (rows, n) returns the probabilities.
    vjp : callable, optional
        ``vjp(scores, d_probs, alpha, dtype)`` returns the gradient of the scores.
    threshold : callable, optional
        ``threshold(scores, alpha, dtype)`` returns tau of each row, in the unit of ``(alpha - 1) * scores``.
    second : callable, optional
        ``second(scores, d_probs, d_scores, alpha, dtype)`` returns the gradient of ``sum(vjp * d_scores)``.
    d_alpha : callable, optional
        ``d_alpha(scores, d_probs, alpha, dtype)`` returns the gradient of alpha, summed over the rows.
    loss, loss_grad : callable, optional
        ``loss(scores, keys, alpha, dtype)`` returns the Fenchel-Young loss of each row, given the index of its right
        key; ``loss_grad``, with the same arguments, the gradient of the sum of the losses by the scores.
    more_iterations : callable, optional
        As ``probs``, with twice as many iterations as by default, or more, for a map that takes their number.
    hidden : bool
        Whether a score of ``-inf`` hides its key.
    empty : bool
        Whether rows without a visible key are answered, with zeros.
    """

    probs: Callable[[Floats, float, str], Any]
    vjp: Callable[[Floats, Floats, float, str], Any] | None = None
    threshold: Callable[[Floats, float, str], Any] | None = None
    second: Callable[[Floats, Floats, Floats, float, str], Any] | None = None
    d_alpha: Callable[[Floats, Floats, float, str], Any] | None = None
    loss: Callable[[Floats, Any, float, str], Any] | None = None
    loss_grad: Callable[[Floats, Any, float, str], Any] | None = None
    more_iterations: Callable[[Floats, float, str], Any] | None = None
    hidden: bool = True
    empty: bool = True


class Call(NamedTuple):
    """How attention is called.

    Attributes
    ----------
    alpha : float
    dtype : str
    is_causal : bool
    scale : float or None
        Multiplier of the products; None for ``head_dim ** -0.5``.
    window : pair of int or None
        ``(left, right)``: query i sees key j if ``d - left <= j <= d + right`` with ``d = i + n_keys - n_queries``;
        None in place of a number is no limit on that side.
    key_ranges : ndarray of int64, shape (batch, n_queries, 2), or None
        Query i sees the keys from the first number up to, not including, the second.
    """

    alpha: float
    dtype: str
    is_causal: bool
    scale: float | None = None
    window: tuple[int | None, int | None] | None = None
    key_ranges: Any = None


class Attended(NamedTuple):
    """What a target answers: its output and, as far as it claims to expose them, what it found on its way.

    ``tau`` and ``passes`` have the shape (batch, heads, n_queries); ``block_mask`` is (batch, heads, query blocks, key
    blocks), True where a block may hold support; ``block`` says how many queries and keys a block has.
    """

    out: Any
    tau: Any = None
    block_mask: Any = None
    block: tuple[int, int] = (0, 0)
    passes: Any = None


@dataclass(frozen=True, kw_only=True)
class AttentionTarget(Target):
    """Attention with entmax in place of softmax: operands (batch, heads, length, head_dim).

    Attributes
    ----------
    attend : callable
        ``attend(query, key, value, call)`` returns an `Attended`.
    vjp : callable, optional
        ``vjp(query, key, value, d_out, call)`` returns the gradients of query, key and value.
    packed : callable, optional
        ``packed(query, key, value, offsets, call)`` returns the output for sequences that lie one behind the other,
        operands (total, heads, head_dim). ``offsets`` is a pair of arrays of int64, of the queries and of the keys,
        each from 0 to the total.
    packed_vjp : callable, optional
        ``packed_vjp(query, key, value, d_out, offsets, call)`` returns its gradients of query, key and value.
    causal : tuple of bool
        The masks that it takes. Causal is aligned to the bottom right: query i sees key j if ``j <= i + n_keys -
        n_queries``.
    window : bool
        Whether it takes `Call.window`.
    key_ranges : bool
        Whether it takes `Call.key_ranges`, which padding, documents, prefixes and chunks are.
    square : bool
        Whether there must be as many queries as keys.
    grouped : bool
        Whether heads may share keys: query head h reads head ``h // (heads // kv_heads)``.
    head_dims : tuple of int
    only_lengths : tuple of int
        The lengths that it takes, if it takes but some between those of ``lengths``.
    scales : bool
        Whether the scale can be chosen.
    exposes : tuple of str
        Of ``tau``, ``block_mask`` and ``passes``: what `Attended` holds.
    most_passes : int
        Refinement passes that a row takes at most, if exposed.
    empty : bool
        Whether rows without a visible key are answered, with zeros.
    """

    attend: Callable[[Floats, Floats, Floats, Call], Attended]
    vjp: Callable[[Floats, Floats, Floats, Floats, Call], Any] | None = None
    packed: Callable[[Floats, Floats, Floats, Any, Call], Any] | None = None
    packed_vjp: Callable[[Floats, Floats, Floats, Floats, Any, Call], Any] | None = None
    causal: tuple[bool, ...] = (False, True)
    window: bool = False
    key_ranges: bool = False
    square: bool = False
    grouped: bool = True
    head_dims: tuple[int, ...] = (8, 16, 64)
    only_lengths: tuple[int, ...] = ()
    scales: bool = True
    exposes: tuple[str, ...] = ()
    most_passes: int = 0
    empty: bool = True
