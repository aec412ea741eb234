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
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table, read_table
from gristmill.stages.core.work import Outcome, Stage, Work, added
from gristmill.stages.mix.fitting import UNITS, Bounds, Fitting, fitting
from gristmill.stages.mix.plan_rows import PLAN, PlanFacts, PlanInput, PlanRow, SourceFacts, Tokenized

_BUCKET_BITS = 16
"""Keys are counted by their upper bits to find where a cut falls: the table of 65,536 sums is all that is held."""


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


@dataclass(frozen=True)
class MediaBudget:
    """Of what an encoder takes, crops with the global views or frames: `window`: of a window at most, None: as many as
    its tokens have room for; `shard`: of a shard about so many, since they are what makes it large."""

    window: int | None
    shard: int


@dataclass(frozen=True)
class _Material:
    """What there is of one source. Its tables of lengths are read anew at each pass, one at a time: a plan over
    billions of records holds the lengths of one shard."""

    store: Store
    objects: Sequence[Tokenized]
    samples: bool
    window: int
    seed: int
    bounds: Bounds

    def __iter__(self) -> Iterator[Fitting]:
        for tokenized in self.objects:
            lengths = read_table(self.store, tokenized.lengths)
            yield fitting(lengths, self.window, self.samples, self.seed, self.bounds)

    @cached_property
    def tokens(self) -> int:
        return sum(int(records.tokens.sum()) for records in self)


@dataclass(frozen=True)
class Plan(Stage[PlanInput]):
    """`tokens`: of the whole mixture; None: as many as the epoch caps allow. `look`: or as many as they allow, if that
    is less (the stored name of what `--limit` asks for). `crops`, `frames`: where there are images, and clips."""

    name: ClassVar[str] = "plan"
    VERSION: ClassVar[int] = 1

    sources: tuple[Source, ...]
    window: int
    shard_tokens: int
    tokens: int | None
    seed: int
    look: bool = False
    crops: MediaBudget | None = added()
    frames: MediaBudget | None = added()

    @property
    def budgets(self) -> tuple[MediaBudget | None, ...]:
        """In the order of UNITS."""
        return self.crops, self.frames

    @property
    def bounds(self) -> Bounds:
        """Of a window."""
        return [None if budget is None else budget.window for budget in self.budgets]

    def run(self, store: Store, work: Work[PlanInput]) -> Outcome:
        """Output `plan` (PLAN); facts: PlanFacts."""
        materials = [
            _Material(store, objects, source.samples, self.window, self.seed, self.bounds)
            for source, objects in zip(self.sources, work.payload.sources, strict=True)
        ]
        quotas, problem = quotas_of(self.sources, [m.tokens for m in materials], self.tokens, self.look)
        draws, drawn = [], []
        for source, material, quota in zip(self.sources, materials, quotas, strict=True):
            draws.append(_draw(material, quota, source.share.max_epochs))
            drawn.append(_drawn_tokens(material, draws[-1]))
        problem = problem or _none_drawn(self.sources, quotas, drawn)
        # By the tokens of all sources together; each source is then divided over all shards.
        shards = max(1, round(sum(drawn) / self.shard_tokens))
        if any(self.budgets):
            taken = [_drawn_units(material, draw) for material, draw in zip(materials, draws, strict=True)]
            for units, budget in zip(np.sum(taken, axis=0).tolist(), self.budgets, strict=True):
                shards = shards if budget is None else max(shards, -(-units // budget.shard))
        rows: list[PlanRow] = []
        facts = []
        weights = sum(source.share.weight for source in self.sources)
        for source, material, quota, draw, n in zip(self.sources, materials, quotas, draws, drawn, strict=True):
            rows += _slices(source, material, draw, n, shards)
            share = source.share.weight / weights
            planned = round(quota)
            facts.append(
                SourceFacts(source.name, source.samples, share, material.tokens, planned, n, draw.full, draw.cut)
            )
        rows.sort(key=lambda row: row.shard)  # stable: sources, epochs and objects stay in order
        table = pa.Table.from_pylist([asdict(row) for row in rows], schema=PLAN)
        return Outcome(
            outputs=(put_table(store, "plan", table),),
            received=Tally(),
            facts=PlanFacts(tuple(facts), shards, problem),
        )


def quotas_of(
    sources: Sequence[Source], there: Sequence[int], tokens: int | None, preview: bool = False
) -> tuple[list[Fraction], str | None]:
    """Tokens to draw from each source, exact; and why that cannot be done (then all are 0). `there`: tokens of each.
    `preview`: as many as the caps allow will do.

    Fractions, not floats: quotas decide cuts, and so the content digest, on every machine.
    """
    weights = [Fraction(source.share.weight) for source in sources]
    whole = sum(weights)
    for source, have in zip(sources, there, strict=True):
        if not have:
            return [Fraction(0)] * len(sources), f"{source.name} has nothing that fits a window, and a weight above 0"
    # the largest mixture in which this source is not drawn more often than it may be
    most = [
        Fraction(source.share.max_epochs) * have * whole / weight
        for source, have, weight in zip(sources, there, weights, strict=True)
    ]
    limit = min(most)
    if tokens is not None and tokens > limit and not preview:
        n = most.index(limit)
        name, cap, need = sources[n].name, sources[n].share.max_epochs, tokens * weights[n] / whole
        return [Fraction(0)] * len(sources), (
            f"{name} has {there[n]:,} tokens, and {float(weights[n] / whole):.1%} of {tokens:,} are {round(need):,}:"
            f" {float(need / there[n]):.2f} epochs, more than max_epochs={cap:g}. At most recipe.tokens={int(limit)}"
            " can be drawn with these weights; or give it less weight, or raise its max_epochs"
        )
    total = limit if tokens is None else min(Fraction(tokens), limit)
    return [total * weight / whole for weight in weights], None


def _none_drawn(sources: Sequence[Source], quotas: Sequence[Fraction], drawn: Sequence[int]) -> str | None:
    for source, quota, n in zip(sources, quotas, drawn, strict=True):
        if quota and not n:
            return f"of {source.name} {round(quota):,} tokens are planned, less than any record of it that may be drawn"
    return None


def _draw(material: _Material, quota: Fraction, max_epochs: float) -> Draw:
    """Whole epochs, and the cut at which the rest is met as nearly as whole records allow within `max_epochs`.

    The cut is found in two passes over lengths, without sorting all keys: the first sums tokens by the upper bits of
    the key, which shows in which bucket the rest is reached; the second sorts the keys of that bucket alone.
    """
    if not quota:
        return Draw(0, 0)
    full = int(quota // material.tokens)
    want = int(quota - full * material.tokens)
    bucket, before = _bucket_of(material, want)
    keys, tokens = _in_bucket(material, bucket)
    order = np.argsort(keys, kind="stable")
    # reached[i]: tokens of the part epoch if the first i keys of this bucket are below the cut, i from 0 to all.
    reached = before + np.concatenate([[0], np.cumsum(tokens[order])])
    n = int(np.argmin(np.abs(reached - want)))
    # The nearest cut may lie above the quota: not where that would draw the source more often than its cap allows.
    while n and full * material.tokens + int(reached[n]) > Fraction(max_epochs) * material.tokens:
        n -= 1
    # All of them are a whole epoch: a cut above every key would not fit uint64, and 0 says that there is no part epoch.
    if reached[n] == material.tokens:
        return Draw(full + 1, 0)
    past_the_bucket = (bucket + 1) << (64 - _BUCKET_BITS)
    return Draw(full, int(keys[order[n]]) if n < len(order) else past_the_bucket)


def _bucket_of(material: _Material, want: int) -> tuple[int, int]:
    """The bucket of keys in which `want` tokens are reached, and how many tokens the buckets before it have."""
    sums = np.zeros(1 << _BUCKET_BITS, np.float64)  # exact below 2^53 tokens
    for records in material:
        sums += np.bincount(_buckets(records.key), records.tokens, len(sums))
    ends = np.cumsum(sums)
    bucket = int(np.searchsorted(ends, want, side="right"))  # there is one: `want` is less than there is
    return bucket, int(ends[bucket - 1]) if bucket else 0


def _in_bucket(material: _Material, bucket: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys and tokens of the records in a bucket."""
    keys, tokens = [], []
    for records in material:
        here = _buckets(records.key) == bucket
        keys.append(records.key[here])
        tokens.append(records.tokens[here])
    return np.concatenate(keys), np.concatenate(tokens)


def _buckets(keys: np.ndarray) -> np.ndarray:
    return (keys >> np.uint64(64 - _BUCKET_BITS)).astype(np.int64)


def _drawn_tokens(material: _Material, draw: Draw) -> int:
    part = sum(int(records.tokens[records.key < draw.cut].sum()) for records in material) if draw.cut else 0
    return draw.full * material.tokens + part


def _drawn_units(material: _Material, draw: Draw) -> np.ndarray:
    """Of each of UNITS, int64 [units]."""
    units = np.zeros(len(UNITS), np.int64)
    for records in material:
        units += draw.full * records.taken.sum(0) + records.taken[records.key < draw.cut].sum(0)
    return units


def _slices(source: Source, material: _Material, draw: Draw, total: int, shards: int) -> Iterator[PlanRow]:
    """Rows of PLAN for one source of which `total` tokens are drawn.

    All its draws, one epoch after the other, are taken as one text that is cut into `shards` equal parts; a record goes
    to the part in which it begins. Within an object the draws for one shard are then consecutive: one row.
    """
    before = 0  # tokens of the draws that came before this object
    for epoch in range(draw.full + bool(draw.cut)):
        cut = draw.cut if epoch == draw.full else None
        for tokenized, records in zip(material.objects, material, strict=True):
            units = records.tokens if cut is None else records.tokens[records.key < cut]
            starts = before + np.cumsum(units) - units  # of each draw, in tokens from the source's first
            places = starts * shards // max(total, 1)  # the shard of each; ascending, so equal ones are neighbours
            drawn_shards, firsts, counts = np.unique(places, return_index=True, return_counts=True)
            for shard, first, count in zip(drawn_shards, firsts, counts, strict=True):
                yield PlanRow(
                    shard=int(shard),
                    source=source.name,
                    tokens=tokenized.tokens.sha256,
                    input=tokenized.shard,
                    samples=source.samples,
                    epoch=epoch,
                    cut=cut,
                    first=int(first),
                    end=int(first + count),
                    documents=int(count),
                    units=int(units[first : first + count].sum()),
                )
            before += int(units.sum())


def plan_work(plan: Plan, tokenized: Sequence[Sequence[Tokenized]]) -> Work[PlanInput]:
    """The one Work of a plan. `tokenized`: of each source its objects, in the order of the plan's sources."""
    inputs = []
    for objects in tokenized:
        for shard in objects:
            inputs += [shard.tokens.sha256, shard.lengths.sha256, shard.shard]
    payload = PlanInput(tuple(tuple(objects) for objects in tokenized))
    return Work(plan, tuple(inputs), payload, received=Tally(), label="the mixture")
