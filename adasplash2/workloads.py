"""On which inputs is the project measured?  Seeded synthetic ones, hard rows, and a real transformer's.

``workload(name, ...)`` makes the synthetic ones and the hard rows, ``captured(name, ...)`` reads the real
ones. Everything is made on the CPU in float32 and rounded once to the dtype asked for, so every device, and
a float64 oracle after it, sees the same numbers. Imports nothing but torch and NumPy.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

import torch

from adasplash2 import data
from adasplash2.families import FAMILIES, Draw
from adasplash2.visible import as_mask

__all__ = ["DTYPES", "NAMES", "Workload", "captured", "captured_cases", "captured_names", "workload"]

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


@dataclasses.dataclass(frozen=True)
class Workload:
    """Operands of one attention call, and what the value contract says of its rows.

    Attributes
    ----------
    name : str
        The name it was asked for by.
    query : torch.Tensor, shape (batch, heads, n_queries, head_dim)
    key, value : torch.Tensor, shape (batch, kv_heads, n_keys, head_dim)
        ``kv_heads`` divides ``heads``; query head ``h`` reads head ``h // (heads // kv_heads)``.
    is_causal : bool
        The mask that the workload is meant for. Causal is bottom-right aligned: query ``i`` sees key ``j`` if
        and only if ``j <= i + n_keys - n_queries``.
    note : str
        One line: what is hard about it.
    key_ranges : torch.Tensor, int32, shape (batch, n_queries, 2), optional
        As given to `adasplash2.entmax_attention`.
    """

    name: str
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    is_causal: bool
    note: str
    key_ranges: torch.Tensor | None = None

    @property
    def mask(self) -> torch.Tensor | None:
        """``key_ranges`` as a mask, bool (batch, 1, n_queries, n_keys) on the device of query, if there are any."""
        return None if self.key_ranges is None else as_mask(self.key_ranges, self.key.shape[2])

    @property
    def enable_gqa(self) -> bool:
        """Whether the heads are grouped (``heads != kv_heads``)."""
        return self.query.shape[1] != self.key.shape[1]

    @property
    def is_finite(self) -> bool:
        """Whether query, key and value are finite. If not, gradients hold ``0 * inf`` and mean nothing."""
        return all(bool(torch.isfinite(x).all()) for x in (self.query, self.key, self.value))

    @property
    def nan_rows(self) -> torch.Tensor:
        """Rows that see a NaN or +inf score; no other row may be NaN. Bool (batch, heads, n_queries), CPU."""
        return self._rows()[0]

    @property
    def empty_rows(self) -> torch.Tensor:
        """Rows without a visible key: output 0, tau +inf. Bool (batch, heads, n_queries), CPU."""
        return self._rows()[1]

    def _rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        query, key = self.query.cpu().double(), self.key.cpu().double()
        n_queries, n_keys = query.shape[-2], key.shape[-2]
        first, end = torch.zeros(1, n_queries, dtype=torch.int64), torch.full((1, n_queries), n_keys)
        if self.is_causal:
            end = (torch.arange(n_queries) + n_keys - n_queries + 1).clamp(min=0)[None]
        if self.key_ranges is not None:
            first, end = self.key_ranges.cpu().long().unbind(-1)
        # A score is not finite only if its key or its query is not; the latter spoils the whole row.
        odd = torch.nonzero(~torch.isfinite(key).all(-1).all(0).all(0)).flatten()
        seen = ((odd >= first[..., None]) & (odd < end[..., None]))[:, None]
        grouped = key[:, :, odd].repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        scores = query @ grouped.transpose(-1, -2)
        poisoned = seen & (torch.isnan(scores) | (scores == math.inf))
        hidden = (seen & (scores == -math.inf)).sum(-1)
        n_seen = (end - first)[:, None]
        nan_rows = poisoned.any(-1) | ((n_seen > 0) & ~torch.isfinite(query).all(-1))
        return nan_rows, (hidden >= n_seen) & ~nan_rows


_ALIASES = {"nearly_equal": "near0.02"}
_SPELLINGS = {"gauss": "gauss{S}", "topic": "topic{T}", "near": "near{S}", "sink_local": "sink_local{W}"}
NAMES = (*(_SPELLINGS.get(family, family) for family in FAMILIES), *_ALIASES)


def _parsed(name: str) -> tuple[str, float]:
    """Return (family, number) of a name."""
    match = re.fullmatch(r"([a-z_]+?)(\d+(?:\.\d+)?)?", _ALIASES.get(name, name))
    stem, digits = match.groups() if match else ("", None)
    if stem not in FAMILIES or (digits is None) == (FAMILIES[stem].number is None):
        raise ValueError(
            f"workload: name must be one of {', '.join(NAMES)}, with a number for what is in braces, got "
            f"{name!r}. Try gauss1, topic16 or near0.02; recorded inputs come from captured()."
        )
    number = float(digits or FAMILIES[stem].number or 0.0)
    if stem in ("topic", "sink_local") and (number < 1 or number != int(number)):
        spelling = _SPELLINGS[stem]
        raise ValueError(
            f"workload: name {spelling} takes a whole number {spelling[-2]} >= 1, got {name!r}. Try {stem}16."
        )
    return stem, number


def _check_size(argument: str, size: int, least: int = 1) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < least:
        raise ValueError(f"workload: {argument} must be an int >= {least}, got {size!r}. Give such a number.")


def _check_dtype(caller: str, dtype: torch.dtype) -> None:
    if dtype not in DTYPES:
        known = ", ".join(str(known) for known in DTYPES)
        raise ValueError(f"{caller}: dtype must be one of {known}, got {dtype!r}. Cast the operands for another.")


def _check_sizes(family: str, sizes: dict[str, int], is_causal: bool) -> None:
    for argument, size in sizes.items():
        _check_size(argument, size)
    if sizes["heads"] % sizes["kv_heads"]:
        raise ValueError(
            f"workload: kv_heads must divide heads, got kv_heads {sizes['kv_heads']} and heads "
            f"{sizes['heads']}. Leave kv_heads out to give every query head its own."
        )
    least = FAMILIES[family].least_head_dim
    if sizes["head_dim"] < least:
        raise ValueError(
            f"workload: head_dim must be >= {least} for {family}, which reserves one component, got "
            f"{sizes['head_dim']}. Take a larger head_dim."
        )
    if family == "no_key" and not (is_causal and sizes["n_queries"] > sizes["n_keys"]):
        raise ValueError(
            f"workload: no_key needs is_causal=True and n_queries > n_keys, got is_causal={is_causal}, "
            f"n_queries {sizes['n_queries']}, n_keys {sizes['n_keys']}. Leave n_keys out for two thirds."
        )


def workload(
    name: str,
    *,
    batch: int,
    heads: int,
    kv_heads: int | None = None,
    n_queries: int,
    n_keys: int | None = None,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    seed: int = 0,
    is_causal: bool = True,
    segment: int = 256,
) -> Workload:
    """Return the seeded input of that name; equal arguments give equal bits, on every device.

    Parameters
    ----------
    name : str
        One of ``NAMES``, with a number for what is in braces. ``gauss{S}``: components of query and key are
        N(0, S), S the variance, so scores have standard deviation S. ``topic{T}``: each segment of tokens
        draws one of T topics per key head; query and key are N(0, 1) plus ``sqrt(8 * sqrt(head_dim))`` times
        the topic's random unit vector. ``near{S}`` (``nearly_equal`` is ``near0.02``): scores of standard
        deviation S around 4. ``sink_local{W}``: ``sink``, whose odd keys carry a vector of their neighbourhood in
        place of the topic's, so that about W local keys of every query compete with those of its topic. The other
        names are hard rows; the field ``note`` says what each is.
    batch, heads : int
        Sizes, at least 1.
    kv_heads : int, optional
        Heads of key and value; divides ``heads``. Default: ``heads``.
    n_queries : int
        At least 1.
    n_keys : int, optional
        Default: ``n_queries``; for ``no_key``, two thirds of it.
    head_dim : int
        At least 1, and at least 2 for names that reserve a component.
    dtype : torch.dtype
        bfloat16, float16, float32 or float64. Draws are float32, rounded once to ``dtype``.
    device : torch.device or str
        Where the tensors end up. They are drawn on the CPU.
    seed : int
        Seed of the CPU generator.
    is_causal : bool
        Becomes the field of that name; changes no tensor.
    segment : int
        Tokens that share a topic; ``topic{T}``, ``sink`` and ``sink_local{W}`` only.

    Returns
    -------
    Workload
        The tensors, on the device, with a note that says what they are.

    Raises
    ------
    ValueError
        For a name, size or dtype outside of the above.

    Notes
    -----
    ``offset``, ``large_negative``, ``near{S}`` and ``spike`` reserve component 0: 256 in every query, and in
    each key what adds the wanted level to the score. A level that all keys share is one product, so the
    scores of a row move by one constant: the level, up to the rounding of its factor to ``dtype``. Sums of
    q.k in float32 then carry the rounding of that constant, about 1e-3 in a score for ``offset``.

    ``sink`` reserves component 0 too: the score of key 0 lies 4 standard deviations above the mean score
    within the row's own topic. ``spike`` raises key ``n_keys // 3``. ``nan_key`` spoils key
    ``2 * n_keys // 3`` of the first head of the first batch item, ``nan_query`` query ``n_queries // 2`` of
    the last head of the last. ``inf`` and ``minus_inf`` act on key ``n_keys // 2`` of every head;
    ``minus_inf`` hides key 0 as well, so that row 0 of a square causal call sees nothing.
    ``Workload.nan_rows`` and ``Workload.empty_rows`` say what must come of it.

    Equal bits are promised for one build of torch on one kind of CPU; another may differ in the last bit of
    a float32 draw.

    Examples
    --------
    >>> from adasplash2.workloads import workload
    >>> grouped = workload(
    ...     "topic16", batch=1, heads=4, kv_heads=2, n_queries=300, head_dim=64, dtype=torch.bfloat16
    ... )
    >>> tuple(grouped.key.shape), grouped.enable_gqa
    ((1, 2, 300, 64), True)
    """
    family, number = _parsed(name)
    _check_size("n_queries", n_queries)
    _check_size("seed", seed, least=0)
    _check_dtype("workload", dtype)
    if n_keys is None:
        n_keys = 2 * n_queries // 3 if family == "no_key" else n_queries
    sizes = {"batch": batch, "heads": heads, "kv_heads": heads if kv_heads is None else kv_heads}
    sizes |= {"n_queries": n_queries, "n_keys": n_keys, "head_dim": head_dim, "segment": segment}
    _check_sizes(family, sizes, is_causal)
    draw = Draw(**sizes, number=number, generator=torch.Generator().manual_seed(seed))
    query, key = FAMILIES[family].build(draw)
    value = draw.key_noise()
    query, key, value = (x.to(dtype).to(device) for x in (query, key, value))
    return Workload(name, query, key, value, is_causal, FAMILIES[family].note)


def captured_names() -> tuple[str, ...]:
    """Return the names that ``captured`` takes.

    Returns
    -------
    names : tuple of str
        In the order of the file.
    """
    return data.case_names()


def captured(
    name: str,
    *,
    length: int | None = None,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    is_causal: bool = False,
) -> Workload:
    """Return queries, keys and values that a real transformer computed on real text.

    Parameters
    ----------
    name : str
        One of ``captured_names()``.
    length : int, optional
        Take the first tokens only. Default: all of them.
    dtype : torch.dtype
        bfloat16, float16, float32 or float64: all hold the same numbers, which are exact in each.
    device : torch.device or str
        Where the tensors end up.
    is_causal : bool
        The model is an encoder and attends both ways; True masks what it computed so.

    Returns
    -------
    Workload
        ``batch`` 1, as many heads as the case records, ``head_dim`` 32; the model's scale is the default one.

    Raises
    ------
    ValueError
        For an unknown name, length or dtype.
    """
    if name not in captured_names():
        known = ", ".join(captured_names())
        raise ValueError(f"captured: name must be one of {known}, got {name!r}. captured_names() lists them.")
    _check_dtype("captured", dtype)
    query, key, value = torch.from_numpy(data.read_case(name)).to(dtype).to(device)[:, None]
    n_tokens = query.shape[-2]
    if length is not None and (not isinstance(length, int) or not 1 <= length <= n_tokens):
        raise ValueError(
            f"captured: length must be an int from 1 to {n_tokens} for {name}, got {length!r}. "
            f"Leave it out for all tokens."
        )
    query, key, value = (x[..., :length, :].contiguous() for x in (query, key, value))
    return Workload(name, query, key, value, is_causal, data.case_note(name))


def captured_cases(
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    is_causal: bool = False,
) -> Iterator[Workload]:
    """Yield every recorded case, in the order of ``captured_names()``.

    Parameters
    ----------
    dtype, device, is_causal
        As given to `captured`.

    Yields
    ------
    Workload
        As `captured` returns it.
    """
    for name in captured_names():
        yield captured(name, dtype=dtype, device=device, is_causal=is_causal)
