"""How is each synthetic workload drawn?  One builder a family: random scores, topics, and rows made to be hard."""

import dataclasses
import math
from collections.abc import Callable

import torch

TOPIC_SCORE = 8.0  # what a shared topic adds to a score
LEVEL_COMPONENT = 256.0  # the queries' share of a level: a power of two, so that only the keys' share rounds
SINK_DEVIATIONS = 4.0  # from the mean score within the row's own topic up to the sink's score
SINK_TOPICS = 16.0
NEAR_LEVEL = 4.0
TIE_LEVELS = (2.0, 127 / 64, 7 / 4, 0.0)  # exact in bfloat16; gaps in z: 2^-7, 2^-3, 1
TIE_SHARES = (0.5, 0.25, 0.125, 0.125)

Operands = tuple[torch.Tensor, torch.Tensor]  # query, key; nothing builds the value from them


@dataclasses.dataclass(frozen=True)
class Draw:
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


Builder = Callable[[Draw], Operands]


def _gauss(draw: Draw, reserved: int = 0) -> Operands:
    # N(0, S) has variance S: a score is a sum of head_dim products of variance S^2, times head_dim ** -0.5.
    # With a component reserved for something else, the others make up for it.
    deviation = math.sqrt(draw.number * math.sqrt(draw.head_dim / (draw.head_dim - reserved)))
    return draw.query_noise() * deviation, draw.key_noise() * deviation


def _topic_parts(draw: Draw) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
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


def _topic(draw: Draw) -> Operands:
    return _topic_parts(draw)[:2]


def _with_level(query: torch.Tensor, key: torch.Tensor, level: torch.Tensor | float) -> None:
    """Give component 0, in place, to ``level`` (a number, or one per key): what it adds to every score."""
    query[..., 0] = LEVEL_COMPONENT
    key[..., 0] = level * math.sqrt(query.shape[-1]) / LEVEL_COMPONENT


def _shifted(level: float) -> Builder:
    def build(draw: Draw) -> Operands:
        query, key = _gauss(draw, reserved=1)
        _with_level(query, key, level)
        return query, key

    return build


def _equal(draw: Draw) -> Operands:
    key = draw.normal(draw.batch, draw.kv_heads, 1, draw.head_dim).expand(-1, -1, draw.n_keys, -1)
    return draw.query_noise(), key.clone()


def _ties(draw: Draw) -> Operands:
    query, key = _equal(draw)
    shares = torch.tensor(TIE_SHARES).expand(draw.batch * draw.kv_heads, -1)
    drawn = torch.multinomial(shares, draw.n_keys, replacement=True, generator=draw.generator)
    # Component 0 of the keys holds the level itself, exact in every dtype: equal levels give equal scores.
    query[..., 0] = math.sqrt(draw.head_dim)
    key[..., 0] = torch.tensor(TIE_LEVELS)[drawn].view(key.shape[:-1])
    return query, key


def _clusters(draw: Draw) -> Operands:
    centres = 2.0 * draw.normal(draw.batch, draw.kv_heads, 8, draw.head_dim)
    chosen = torch.randint(8, (draw.batch, draw.kv_heads, draw.n_keys, 1), generator=draw.generator)
    key = centres.gather(2, chosen.expand(-1, -1, -1, draw.head_dim))
    return draw.query_noise(), key + 0.02 * draw.key_noise()


def _spike(draw: Draw) -> Operands:
    query, key = _gauss(draw, reserved=1)
    level = torch.zeros(draw.n_keys)
    level[draw.n_keys // 3] = 1000.0
    _with_level(query, key, level)
    return query, key


def _sink(draw: Draw) -> Operands:
    return _with_sink(*_topic_parts(dataclasses.replace(draw, number=SINK_TOPICS)))


def _sink_local(draw: Draw) -> Operands:
    query, key, of_queries = _topic_parts(dataclasses.replace(draw, number=SINK_TOPICS))
    # Keys with odd numbers forget their topic and carry a vector that they share with their neighbours; each query asks
    # for its own neighbours and those before. Were it the same keys, those of both kinds would drown all others.
    n_positions = max(draw.n_queries, draw.n_keys)
    piece = max(2 * int(draw.number) // 3, 1)
    codes = draw.normal(draw.batch, draw.kv_heads, -(-n_positions // piece), draw.head_dim)
    codes *= math.sqrt(TOPIC_SCORE * math.sqrt(draw.head_dim)) / codes.norm(dim=-1, keepdim=True)
    asked = codes.clone()
    asked[:, :, 1:] += codes[:, :, :-1]
    of_keys, asked = (part.repeat_interleave(piece, dim=2)[:, :, :n_positions] for part in (codes, asked))
    key[:, :, 1::2] = (draw.key_noise() + of_keys[:, :, n_positions - draw.n_keys :])[:, :, 1::2]
    query += asked[:, :, n_positions - draw.n_queries :].repeat_interleave(draw.heads // draw.kv_heads, dim=1)
    return _with_sink(query, key, of_queries)


def _with_sink(query: torch.Tensor, key: torch.Tensor, of_queries: torch.Tensor) -> Operands:
    # Component 0 is the sink's: no other key reads it, so each query asks through it for the score it needs.
    for x in (query, key, of_queries):
        x[..., 0] = 0.0
    scale = query.shape[-1] ** -0.5
    own_topic_mean = scale * (query * of_queries).sum(-1)
    own_topic_deviation = scale * query.norm(dim=-1)
    query[..., 0] = own_topic_mean + SINK_DEVIATIONS * own_topic_deviation
    key[:, :, 0] = 0.0
    key[:, :, 0, 0] = math.sqrt(query.shape[-1])
    return query, key


def _nan_query(draw: Draw) -> Operands:
    query, key = _gauss(draw)
    query[-1, -1, draw.n_queries // 2, -1] = math.nan
    return query, key


def _nan_key(draw: Draw) -> Operands:
    query, key = _gauss(draw)
    key[0, 0, 2 * draw.n_keys // 3, 0] = math.nan
    return query, key


def _nan(draw: Draw) -> Operands:
    query, key = _nan_key(draw)
    query[-1, -1, draw.n_queries // 2, -1] = math.nan
    return query, key


def _inf(draw: Draw) -> Operands:
    query, key = _gauss(draw)
    query[..., 0] = 1.0
    query[..., 1::2, 0] = -1.0
    key[:, :, draw.n_keys // 2, 0] = math.inf
    return query, key


def _minus_inf(draw: Draw) -> Operands:
    query, key = _gauss(draw)
    query[..., 0] = 1.0  # never 0: 0 * inf is NaN
    key[:, :, draw.n_keys // 2, 0] = -math.inf
    key[:, :, 0, 0] = -math.inf
    return query, key


@dataclasses.dataclass(frozen=True)
class Family:
    """A builder, what its name's number is (None: the name carries it), the least head_dim, and the note."""

    build: Builder
    number: float | None
    least_head_dim: int
    note: str


FAMILIES = {
    "gauss": Family(_gauss, None, 1, "scores N(0, S^2) without structure: small support, few empty blocks"),
    "topic": Family(_topic, None, 1, "segments share one of T topics: structured sparsity, as in trained heads"),
    "near": Family(_shifted(NEAR_LEVEL), None, 2, "scores of a row differ by a standard deviation of S only"),
    "sink": Family(_sink, SINK_TOPICS, 2, "topic16, and every query keeps key 0: one key block is never empty"),
    "sink_local": Family(_sink_local, None, 2, "sink, and about W local keys of every query: a kept band"),
    "equal": Family(_equal, 1.0, 1, "all scores of a row are equal, bit by bit: the support is the whole row"),
    "ties": Family(_ties, 1.0, 2, "four distinct scores a row; half of the keys tie at the maximum"),
    "clusters": Family(_clusters, 1.0, 1, "keys crowd round 8 centres: many scores within one histogram bin"),
    "spike": Family(_spike, 1.0, 2, "one key scores 1000 above the others: probs are one-hot where it is seen"),
    "offset": Family(_shifted(1.0e4), 1.0, 2, "gauss1 with about 1e4 added to every score: the same probs"),
    "large_negative": Family(_shifted(-2000.0), 1.0, 2, "gauss1 with about 2000 taken from every score"),
    "no_key": Family(_gauss, 1.0, 1, "more queries than keys, causal: the first rows see no key"),
    "nan_query": Family(_nan_query, 1.0, 1, "one query of the last head is NaN: that row is NaN and no other"),
    "nan_key": Family(_nan_key, 1.0, 1, "one key of the first head is NaN: the rows that see it and no other"),
    "nan": Family(_nan, 1.0, 1, "nan_key and nan_query at once"),
    "inf": Family(_inf, 1.0, 2, "one key scores +inf in even rows (NaN) and -inf in odd ones (not visible)"),
    "minus_inf": Family(_minus_inf, 1.0, 2, "two keys, the first among them, score -inf in every row"),
}
