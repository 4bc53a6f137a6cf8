"""On which inputs is the project measured?  Seeded synthetic ones, hard rows, and a real transformer's.

``workload(name, ...)`` makes the synthetic ones and the hard rows, ``captured(name, ...)`` reads the real
ones. Everything is made on the CPU in float32 and rounded once to the dtype asked for, so every device, and
a float64 oracle after it, sees the same numbers. Imports nothing but torch and NumPy.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator

import torch

from adasplash2 import data

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
TOPIC_SCORE = 8.0  # what a shared topic adds to a score
LEVEL_COMPONENT = 256.0  # the queries' share of a level: a power of two, so that only the keys' share rounds
SINK_DEVIATIONS = 4.0  # from the mean score within the row's own topic up to the sink's score
NEAR_LEVEL = 4.0
TIE_LEVELS = (2.0, 127 / 64, 7 / 4, 0.0)  # exact in bfloat16; gaps in z: 2^-7, 2^-3, 1
TIE_SHARES = (0.5, 0.25, 0.125, 0.125)


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
    """

    name: str
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    is_causal: bool
    note: str

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
        last_seen = torch.full((n_queries,), n_keys - 1)
        if self.is_causal:
            last_seen = torch.arange(n_queries) + n_keys - n_queries
        # A score is not finite only if its key or its query is not; the latter spoils the whole row.
        odd = torch.nonzero(~torch.isfinite(key).all(-1).all(0).all(0)).flatten()
        seen = odd[None, :] <= last_seen[:, None]
        grouped = key[:, :, odd].repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        scores = query @ grouped.transpose(-1, -2)
        poisoned = seen & (torch.isnan(scores) | (scores == math.inf))
        hidden = (seen & (scores == -math.inf)).sum(-1)
        sees_any = last_seen >= 0
        nan_rows = poisoned.any(-1) | (sees_any & ~torch.isfinite(query).all(-1))
        return nan_rows, (hidden > last_seen) & ~nan_rows


Operands = tuple[torch.Tensor, torch.Tensor]  # query, key; nothing builds the value from them


@dataclasses.dataclass(frozen=True)
class _Draw:
    """What a builder draws from: the sizes, the number in the name, and a seeded generator on the CPU."""

    batch: int
    heads: int
    kv_heads: int
    n_queries: int
    n_keys: int
    head_dim: int
    segment: int
    number: float
    generator: torch.Generator

    def normal(self, *shape: int) -> torch.Tensor:
        """Return float32 draws of N(0, 1)."""
        return torch.randn(shape, generator=self.generator)

    def query_noise(self) -> torch.Tensor:
        return self.normal(self.batch, self.heads, self.n_queries, self.head_dim)

    def key_noise(self) -> torch.Tensor:
        return self.normal(self.batch, self.kv_heads, self.n_keys, self.head_dim)


Builder = Callable[[_Draw], Operands]


def _gauss(draw: _Draw, reserved: int = 0) -> Operands:
    # N(0, S) has variance S: a score is a sum of head_dim products of variance S^2, times head_dim ** -0.5.
    # With a component reserved for something else, the others make up for it.
    deviation = math.sqrt(draw.number * math.sqrt(draw.head_dim / (draw.head_dim - reserved)))
    return draw.query_noise() * deviation, draw.key_noise() * deviation


def _topic_parts(draw: _Draw) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return query, key, and what the topics added to the query. The last query stands at the last key."""
    topics = int(draw.number)
    n_positions = max(draw.n_queries, draw.n_keys)
    n_segments = -(-n_positions // draw.segment)
    units = draw.normal(draw.batch, draw.kv_heads, topics, draw.head_dim)
    units /= units.norm(dim=-1, keepdim=True)
    chosen = torch.randint(topics, (draw.batch, draw.kv_heads, n_segments, 1), generator=draw.generator)
    strength = math.sqrt(TOPIC_SCORE * math.sqrt(draw.head_dim))
    per_segment = strength * units.gather(2, chosen.expand(-1, -1, -1, draw.head_dim))
    per_token = per_segment.repeat_interleave(draw.segment, dim=2)[:, :, :n_positions]
    of_queries = per_token[:, :, n_positions - draw.n_queries :]
    of_queries = of_queries.repeat_interleave(draw.heads // draw.kv_heads, dim=1)
    query = draw.query_noise().add_(of_queries)
    return query, draw.key_noise().add_(per_token[:, :, n_positions - draw.n_keys :]), of_queries


def _topic(draw: _Draw) -> Operands:
    return _topic_parts(draw)[:2]


def _with_level(query: torch.Tensor, key: torch.Tensor, level: torch.Tensor | float) -> None:
    """Give component 0, in place, to ``level`` (a number, or one per key): what it adds to every score."""
    query[..., 0] = LEVEL_COMPONENT
    key[..., 0] = level * math.sqrt(query.shape[-1]) / LEVEL_COMPONENT


def _shifted(level: float) -> Builder:
    def build(draw: _Draw) -> Operands:
        query, key = _gauss(draw, reserved=1)
        _with_level(query, key, level)
        return query, key

    return build


def _equal(draw: _Draw) -> Operands:
    key = draw.normal(draw.batch, draw.kv_heads, 1, draw.head_dim).expand(-1, -1, draw.n_keys, -1)
    return draw.query_noise(), key.clone()


def _ties(draw: _Draw) -> Operands:
    query, key = _equal(draw)
    shares = torch.tensor(TIE_SHARES).expand(draw.batch * draw.kv_heads, -1)
    drawn = torch.multinomial(shares, draw.n_keys, replacement=True, generator=draw.generator)
    # Component 0 of the keys holds the level itself, exact in every dtype: equal levels give equal scores.
    query[..., 0] = math.sqrt(draw.head_dim)
    key[..., 0] = torch.tensor(TIE_LEVELS)[drawn].view(key.shape[:-1])
    return query, key


def _clusters(draw: _Draw) -> Operands:
    centres = 2.0 * draw.normal(draw.batch, draw.kv_heads, 8, draw.head_dim)
    chosen = torch.randint(8, (draw.batch, draw.kv_heads, draw.n_keys, 1), generator=draw.generator)
    key = centres.gather(2, chosen.expand(-1, -1, -1, draw.head_dim))
    return draw.query_noise(), key + 0.02 * draw.key_noise()


def _spike(draw: _Draw) -> Operands:
    query, key = _gauss(draw, reserved=1)
    level = torch.zeros(draw.n_keys)
    level[draw.n_keys // 3] = 1000.0
    _with_level(query, key, level)
    return query, key


def _sink(draw: _Draw) -> Operands:
    query, key, of_queries = _topic_parts(draw)
    # Component 0 is the sink's: no other key reads it, so each query asks through it for the score it needs.
    for x in (query, key, of_queries):
        x[..., 0] = 0.0
    scale = draw.head_dim**-0.5
    own_topic_mean = scale * (query * of_queries).sum(-1)
    own_topic_deviation = scale * query.norm(dim=-1)
    query[..., 0] = own_topic_mean + SINK_DEVIATIONS * own_topic_deviation
    key[:, :, 0] = 0.0
    key[:, :, 0, 0] = math.sqrt(draw.head_dim)
    return query, key


def _nan_query(draw: _Draw) -> Operands:
    query, key = _gauss(draw)
    query[-1, -1, draw.n_queries // 2, -1] = math.nan
    return query, key


def _nan_key(draw: _Draw) -> Operands:
    query, key = _gauss(draw)
    key[0, 0, 2 * draw.n_keys // 3, 0] = math.nan
    return query, key


def _nan(draw: _Draw) -> Operands:
    query, key = _nan_key(draw)
    query[-1, -1, draw.n_queries // 2, -1] = math.nan
    return query, key


def _inf(draw: _Draw) -> Operands:
    query, key = _gauss(draw)
    query[..., 0] = 1.0
    query[..., 1::2, 0] = -1.0
    key[:, :, draw.n_keys // 2, 0] = math.inf
    return query, key


def _minus_inf(draw: _Draw) -> Operands:
    query, key = _gauss(draw)
    query[..., 0] = 1.0  # never 0: 0 * inf is NaN
    key[:, :, draw.n_keys // 2, 0] = -math.inf
    key[:, :, 0, 0] = -math.inf
    return query, key


@dataclasses.dataclass(frozen=True)
class _Family:
    """A builder, what its name's number is (None: the name carries it), the least head_dim, and the note."""

    build: Builder
    number: float | None
    least_head_dim: int
    note: str


_FAMILIES = {
    "gauss": _Family(_gauss, None, 1, "scores N(0, S^2) without structure: small support, few empty blocks"),
    "topic": _Family(_topic, None, 1, "segments share one of T topics: structured sparsity, as in trained heads"),
    "near": _Family(_shifted(NEAR_LEVEL), None, 2, "scores of a row differ by a standard deviation of S only"),
    "sink": _Family(_sink, 16.0, 2, "topic16, and every query keeps key 0: one key block is never empty"),
    "equal": _Family(_equal, 1.0, 1, "all scores of a row are equal, bit by bit: the support is the whole row"),
    "ties": _Family(_ties, 1.0, 2, "four distinct scores a row; half of the keys tie at the maximum"),
    "clusters": _Family(_clusters, 1.0, 1, "keys crowd round 8 centres: many scores within one histogram bin"),
    "spike": _Family(_spike, 1.0, 2, "one key scores 1000 above the others: probs are one-hot where it is seen"),
    "offset": _Family(_shifted(1.0e4), 1.0, 2, "gauss1 with about 1e4 added to every score: the same probs"),
    "large_negative": _Family(_shifted(-2000.0), 1.0, 2, "gauss1 with about 2000 taken from every score"),
    "no_key": _Family(_gauss, 1.0, 1, "more queries than keys, causal: the first rows see no key"),
    "nan_query": _Family(_nan_query, 1.0, 1, "one query of the last head is NaN: that row is NaN and no other"),
    "nan_key": _Family(_nan_key, 1.0, 1, "one key of the first head is NaN: the rows that see it and no other"),
    "nan": _Family(_nan, 1.0, 1, "nan_key and nan_query at once"),
    "inf": _Family(_inf, 1.0, 2, "one key scores +inf in even rows (NaN) and -inf in odd ones (not visible)"),
    "minus_inf": _Family(_minus_inf, 1.0, 2, "two keys, the first among them, score -inf in every row"),
}
_ALIASES = {"nearly_equal": "near0.02"}
_SPELLINGS = {"gauss": "gauss{S}", "topic": "topic{T}", "near": "near{S}"}
NAMES = (*(_SPELLINGS.get(family, family) for family in _FAMILIES), *_ALIASES)


def _parsed(name: str) -> tuple[str, float]:
    """Return (family, number) of a name."""
    match = re.fullmatch(r"([a-z_]+?)(\d+(?:\.\d+)?)?", _ALIASES.get(name, name))
    stem, digits = match.groups() if match else ("", None)
    if stem not in _FAMILIES or (digits is None) == (_FAMILIES[stem].number is None):
        raise ValueError(
            f"workload: name must be one of {', '.join(NAMES)}, with a number for what is in braces, got "
            f"{name!r}. Try gauss1, topic16 or near0.02; recorded inputs come from captured()."
        )
    number = float(digits or _FAMILIES[stem].number or 0.0)
    if stem == "topic" and (number < 1 or number != int(number)):
        raise ValueError(f"workload: name topic{{T}} takes a whole number T >= 1, got {name!r}. Try topic16.")
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
    least = _FAMILIES[family].least_head_dim
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
        deviation S around 4. The other names are hard rows; the field ``note`` says what each is.
    batch, heads, n_queries, head_dim : int
        Sizes, at least 1; ``head_dim`` at least 2 for names that reserve a component.
    kv_heads : int, optional
        Heads of key and value; divides ``heads``. Default: ``heads``.
    n_keys : int, optional
        Default: ``n_queries``; for ``no_key``, two thirds of it.
    dtype : torch.dtype
        bfloat16, float16, float32 or float64. Draws are float32, rounded once to ``dtype``.
    device : torch.device or str
        Where the tensors end up. They are drawn on the CPU.
    seed : int
        Seed of the CPU generator.
    is_causal : bool
        Becomes the field of that name; changes no tensor.
    segment : int
        Tokens that share a topic; ``topic{T}`` and ``sink`` only.

    Returns
    -------
    Workload

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
    draw = _Draw(**sizes, number=number, generator=torch.Generator().manual_seed(seed))
    query, key = _FAMILIES[family].build(draw)
    value = draw.key_noise()
    query, key, value = (x.to(dtype).to(device) for x in (query, key, value))
    return Workload(name, query, key, value, is_causal, _FAMILIES[family].note)


def captured_names() -> tuple[str, ...]:
    """Return the names that ``captured`` takes."""
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
    """Yield every recorded case, in the order of ``captured_names()``; parameters as in ``captured``."""
    for name in captured_names():
        yield captured(name, dtype=dtype, device=device, is_causal=is_causal)
