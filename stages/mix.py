"""Mix: which records are drawn from which versions, how often, and into which shard. No token is read for it.

Weights are shares of tokens. A source is drawn in whole epochs and a part of one: the records whose key, mixed with the
seed, is below a cut, so that a draw depends on the record and not on its place. The draws of a source, one epoch after
the other, are divided evenly over the shards, so that each shard has the mixture's proportions and each object of
tokens is read once or twice an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.balance import Tally
from lake.objects import ObjectRef, put_table, read_table
from lake.receipt import Receipt, StageId
from lake.store import Store
from stages.work import Outcome, Work, stage_id

PLAN = pa.schema(
    [
        ("shard", pa.int32()),
        ("source", pa.string()),
        ("tokens", pa.string()),  # sha256 of the object that holds them
        ("input", pa.string()),  # sha256 of the shard they were made from
        ("samples", pa.bool_()),  # not documents: never cut
        ("epoch", pa.int32()),
        ("cut", pa.uint64()),  # of the last epoch: keys below it are drawn; null: all
        ("first", pa.int64()),  # of the records that this epoch draws from the object
        ("end", pa.int64()),
        ("documents", pa.int64()),
        ("units", pa.int64()),  # tokens
    ],
    metadata={"gristmill.format": "1"},
)
_BUCKETS = 1 << 16


@dataclass(frozen=True)
class Share:
    """A source's part of the mixture. `weight`: of the tokens, relative to the other weights. `max_epochs`: how often a
    record may be drawn (Muennighoff et al. 2023: up to four epochs are almost as good as new text)."""

    weight: float
    max_epochs: float = 4.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"weight={self.weight}: a number above 0")
        if not 0 < self.max_epochs < float("inf"):
            raise ValueError(f"max_epochs={self.max_epochs}: a number above 0")


@dataclass(frozen=True)
class Source:
    """`name`: an exact version, `web@v3`. `samples`: instruction samples, which are never cut."""

    name: str
    share: Share
    samples: bool


@dataclass(frozen=True)
class Draw:
    """What is drawn of a source: `full` epochs of all that fits, and one of the keys below `cut`."""

    full: int
    cut: int


class Fitting(NamedTuple):
    """The records of one object of tokens that can be drawn: row in the table, key mixed with the seed, tokens."""

    row: np.ndarray
    key: np.ndarray
    tokens: np.ndarray


def mixed(keys: np.ndarray, seed: int) -> np.ndarray:
    """Keys in an order of the seed's own: the finaliser of SplitMix64 (Steele et al. 2014), uint64 [rows]."""
    x = keys + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def fitting(lengths: pa.Table, window: int, samples: bool, seed: int) -> Fitting:
    """`lengths` as `stages.tokenize` writes them."""
    key, tokens = lengths["key"].to_numpy(), lengths["tokens"].to_numpy()
    at = np.flatnonzero(tokens <= window) if samples else np.arange(len(tokens))
    return Fitting(at, mixed(key[at], seed), tokens[at].astype(np.int64))


@dataclass(frozen=True)
class _Material:
    """What there is of one source, read anew at each pass: objects of (tokens, lengths, digest of their shard)."""

    store: Store
    objects: Sequence[tuple[ObjectRef, ObjectRef, str]]
    samples: bool
    window: int
    seed: int

    def __iter__(self) -> Iterator[Fitting]:
        for _, ref, _ in self.objects:
            yield fitting(read_table(self.store, ref), self.window, self.samples, self.seed)

    @cached_property
    def tokens(self) -> int:
        return sum(int(one.tokens.sum()) for one in self)


@dataclass(frozen=True)
class Plan:
    """`tokens`: of the whole mixture; None: as many as the epoch caps allow. `look`: or as many as they allow, if that
    is less."""

    name: ClassVar[str] = "plan"
    VERSION: ClassVar[int] = 1

    sources: tuple[Source, ...]
    window: int
    shard_tokens: int
    tokens: int | None
    seed: int
    look: bool = False

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: objects, for each source [(tokens, lengths, input)]. Output `plan`; facts: sources (what is there,
        planned and drawn, by source), `problem` (why the weights cannot be drawn, or None)."""
        material = [
            _Material(
                store, [(ObjectRef(**t), ObjectRef(**n), i) for t, n, i in one], source.samples, self.window, self.seed
            )
            for source, one in zip(self.sources, work.payload["objects"], strict=True)
        ]
        quotas, problem = quotas_of(self.sources, [one.tokens for one in material], self.tokens, self.look)
        draws = [
            _draw(one, quota, source.share.max_epochs)
            for one, quota, source in zip(material, quotas, self.sources, strict=True)
        ]
        drawn = [_drawn_tokens(one, draw) for one, draw in zip(material, draws, strict=True)]
        problem = problem or _none_drawn(self.sources, quotas, drawn)
        shards = max(1, round(sum(drawn) / self.shard_tokens))
        rows: list[dict[str, Any]] = []
        facts = []
        whole = sum(one.share.weight for one in self.sources)
        for source, one, quota, draw, total in zip(self.sources, material, quotas, draws, drawn, strict=True):
            rows += _slices(source, one, draw, total, shards)
            share = {"source": source.name, "samples": source.samples, "share": source.share.weight / whole}
            facts.append({**share, "there": one.tokens, "planned": round(quota), "drawn": total, **asdict(draw)})
        rows.sort(key=lambda row: row["shard"])  # stable: sources, epochs and objects stay in order
        table = pa.Table.from_pylist(rows, schema=PLAN)
        return Outcome(
            outputs=(put_table(store, "plan", table),),
            came_in=Tally(),
            facts={"sources": facts, "shards": shards, "problem": problem},
        )


def quotas_of(
    sources: Sequence[Source], there: Sequence[int], tokens: int | None, look: bool = False
) -> tuple[list[Fraction], str | None]:
    """Tokens to draw from each source, exact; and why that cannot be done (then all are 0)."""
    weights = [Fraction(one.share.weight) for one in sources]
    whole = sum(weights)
    for one, have in zip(sources, there, strict=True):
        if not have:
            return [Fraction(0)] * len(sources), f"{one.name} has nothing that fits a window, and a weight above 0"
    most = [
        Fraction(one.share.max_epochs) * have * whole / w for one, have, w in zip(sources, there, weights, strict=True)
    ]
    limit = min(most)
    if tokens is not None and tokens > limit and not look:
        n = most.index(limit)
        name, cap, need = sources[n].name, sources[n].share.max_epochs, tokens * weights[n] / whole
        return [Fraction(0)] * len(sources), (
            f"{name} has {there[n]:,} tokens, and {float(weights[n] / whole):.1%} of {tokens:,} are {round(need):,}:"
            f" {float(need / there[n]):.2f} epochs, more than max_epochs={cap:g}. At most recipe.tokens={int(limit)}"
            " can be drawn with these weights; or give it less weight, or raise its max_epochs"
        )
    total = limit if tokens is None else min(Fraction(tokens), limit)
    return [total * w / whole for w in weights], None


def _none_drawn(sources: Sequence[Source], quotas: Sequence[Fraction], drawn: Sequence[int]) -> str | None:
    for source, quota, n in zip(sources, quotas, drawn, strict=True):
        if quota and not n:
            return f"of {source.name} {round(quota):,} tokens are planned, less than any record of it that may be drawn"
    return None


def _draw(material: _Material, quota: Fraction, max_epochs: float) -> Draw:
    """Whole epochs, and the cut at which the rest is met as nearly as whole records allow within `max_epochs`."""
    if not quota:
        return Draw(0, 0)
    full = int(quota // material.tokens)
    want = int(quota - full * material.tokens)
    sums = np.zeros(_BUCKETS, np.float64)  # exact below 2^53 tokens
    for one in material:
        sums += np.bincount((one.key >> np.uint64(48)).astype(np.int64), one.tokens, _BUCKETS)
    ends = np.cumsum(sums)
    bucket = int(np.searchsorted(ends, want, side="right"))  # below the last end: `want` is less than there is
    before = int(ends[bucket - 1]) if bucket else 0
    inside = [_bucket(one, bucket) for one in material]
    keys, tokens = np.concatenate([k for k, _ in inside]), np.concatenate([t for _, t in inside])
    order = np.argsort(keys, kind="stable")
    reached = before + np.concatenate([[0], np.cumsum(tokens[order])])
    n = int(np.argmin(np.abs(reached - want)))
    while n and full * material.tokens + int(reached[n]) > Fraction(max_epochs) * material.tokens:
        n -= 1
    if reached[n] == material.tokens:
        return Draw(full + 1, 0)
    return Draw(full, int(keys[order[n]]) if n < len(order) else (bucket + 1) << 48)


def _bucket(one: Fitting, bucket: int) -> tuple[np.ndarray, np.ndarray]:
    at = one.key >> np.uint64(48) == bucket
    return one.key[at], one.tokens[at]


def _drawn_tokens(material: _Material, draw: Draw) -> int:
    part = sum(int(one.tokens[one.key < draw.cut].sum()) for one in material) if draw.cut else 0
    return draw.full * material.tokens + part


def _slices(source: Source, material: _Material, draw: Draw, total: int, shards: int) -> Iterator[dict[str, Any]]:
    """Rows of PLAN for one source. A record goes where it begins, were its draws one text cut into `shards` parts."""
    before = 0
    for epoch in range(draw.full + bool(draw.cut)):
        cut = draw.cut if epoch == draw.full else None
        for (tokens, _, shard_digest), one in zip(material.objects, material, strict=True):
            units = one.tokens if cut is None else one.tokens[one.key < cut]
            starts = before + np.cumsum(units) - units
            places = starts * shards // max(total, 1)
            for shard, first, count in zip(*np.unique(places, return_index=True, return_counts=True), strict=True):
                yield {
                    "shard": int(shard),
                    "source": source.name,
                    "samples": source.samples,
                    "tokens": tokens.sha256,
                    "input": shard_digest,
                    "epoch": epoch,
                    "cut": cut,  # None: all
                    "first": int(first),
                    "end": int(first + count),
                    "documents": int(count),
                    "units": int(units[first : first + count].sum()),
                }
            before += int(units.sum())


def plan_work(plan: Plan, tokenized: Sequence[Sequence[tuple[str, Receipt]]]) -> Work:
    """`tokenized`: for each source (digest of its shard, receipt)."""
    objects = [
        [(r.output("tokens").model_dump(), r.output("lengths").model_dump(), digest) for digest, r in one]
        for one in tokenized
    ]
    inputs = tuple(
        digest
        for one in objects
        for tokens, lengths, shard in one
        for digest in (tokens["sha256"], lengths["sha256"], shard)
    )
    return Work(stage=plan, inputs=inputs, payload={"objects": objects}, came_in=Tally(), label="the mixture")


def slices_of(store: Store, plan: ObjectRef, shard: int) -> list[dict[str, Any]]:
    """The rows of the plan for one shard, in order."""
    return list(read_table(store, plan, filters=pc.field("shard") == shard).to_pylist())
