"""Pieces of what a model is evaluated on: a run of records of one shard, read as questions.

Documents and samples are rows of a table; of packed windows a record is a stretch, as the table of members has it, and
windows are read whole. What a piece holds follows from the manifest alone, so that works are known before any is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, open_parquet, read_table
from gristmill.lake.versions.manifest import Manifest
from gristmill.model.evaluate.samples import Item, NoItem, Rules, Task, item_of
from gristmill.model.processing.segments import END_OF_TEXT, Segment
from gristmill.model.processing.text import Tokenizer
from gristmill.model.shards.files import ShardReader
from gristmill.stages.mix.tokenize import record_at
from gristmill.stages.mix.windows import shard_files, source_of
from gristmill.stages.text.instruct import parts_of

FORMS = ("documents", "samples", "windows")
"""What a model can be evaluated on."""


@dataclass(frozen=True)
class Piece:
    """Rows `first` to `end` of a shard, of windows the windows. `source`: the version; `task`: how its samples are
    judged, None: as each one's form says. Windows have `index` and `members` beside their tar."""

    source: str
    form: str
    shard: ObjectRef
    first: int
    end: int
    task: Task | None = None
    index: ObjectRef | None = None
    members: ObjectRef | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """What decides the result, beside the stage."""
        beside = (ref.sha256 for ref in (self.index, self.members) if ref is not None)
        return (self.shard.sha256, *beside, self.source, self.task or "", f"{self.first} to {self.end}")

    @property
    def received(self) -> Tally | None:
        """The tally of its records; None where only reading tells how many they are."""
        if self.members is not None:
            return None
        return Tally.of_records([self.shard.sha256] * (self.end - self.first), range(self.first, self.end))


def pieces_of(source: Manifest, task: Task | None, records: int, limit: int | None = None) -> Iterator[Piece]:
    """All of a version in order, so many records (of windows: windows) a piece. `limit`: of them together.

    Raises ValueError for a version of another form, or a task that its records cannot have.
    """
    if source.form not in FORMS:
        raise ValueError(f"{source} holds {source.layout.called}; a model is evaluated on {', '.join(FORMS)}")
    if source.form == "windows" and source.recipe.get("images"):
        raise ValueError(f"{source} has images, which are not shown to a model here: evaluate on windows of texts")
    if task not in (None, "perplexity") and source.form != "samples":
        raise ValueError(f"{source} holds {source.layout.called}, which have perplexity and no {task}")
    shards: list[tuple[ObjectRef, ObjectRef | None, ObjectRef | None]]
    if source.form == "windows":
        shards = [(tar, index, m) for (tar, index), m in zip(shard_files(source), source.members, strict=True)]
    else:
        shards = [(ref, None, None) for ref in source.shards]
    left = sum(shard.records for shard, _, _ in shards) if limit is None else limit
    for shard, index, members in shards:
        count = min(shard.records, left)
        left -= count
        for first in range(0, count, records):
            yield Piece(str(source), source.form, shard, first, min(first + records, count), task, index, members)


def tally_of(source: Manifest) -> Tally:
    """The tally of all records of a version, as its manifest has it: the other side of what pieces receive."""
    tars = [tar for tar, _ in shard_files(source)] if source.form == "windows" else []
    counted = list(zip(tars, source.members, strict=True)) if tars else [(ref, ref) for ref in source.shards]
    tally = Tally()
    for shard, records in counted:
        tally += Tally.of_records([shard.sha256] * records.records, range(records.records))
    return tally


@dataclass(frozen=True)
class Question:
    """A record to evaluate: its keys, `source`, the item, and its tokens: those of the prompt, or, of perplexity, all,
    with `scored`, bool [tokens]: which of them count for the loss."""

    record: dict[str, Any]
    source: str
    item: Item
    tokens: tuple[int, ...]
    scored: np.ndarray


def questions(store: Store, piece: Piece, tokenizer: Tokenizer, rules: Rules) -> Iterator[Question | tuple[Any, str]]:
    """The records of a piece in order: each a question, or (record, reason) where it is none. Raises MissingToken for a
    tokenizer without the tokens of the template, DamagedObject, DamagedShard."""
    if piece.members is not None:
        yield from _stretches(store, piece)
        return
    records: list[dict[str, Any]] = []
    items: list[Item | str] = []
    for ordinal, row in enumerate(_rows(store, piece), piece.first):
        records.append(record_at(row["id"], piece.shard.sha256, ordinal))
        items.append(_item(row, piece, rules))
    asked = [item for item in items if isinstance(item, Item)]
    encoded = tokenizer.encode([item.prompt for item in asked])
    ends = np.cumsum([0, *encoded.lengths]).tolist()
    at = 0
    for record, item in zip(records, items, strict=True):
        if isinstance(item, str):
            yield record, item
            continue
        part = slice(ends[at], ends[at + 1])
        at += 1
        yield Question(record, piece.source, item, tuple(encoded.ids[part].tolist()), encoded.loss_mask[part])


def _item(row: dict[str, Any], piece: Piece, rules: Rules) -> Item | str:
    """The item of a row, or why it is none."""
    if not row["text"].strip():
        return "evaluate.empty"
    if piece.form == "documents":
        segments = (Segment(row["text"], loss_mask=True), Segment(END_OF_TEXT, special=True, loss_mask=True))
        return Item("perplexity", segments)
    try:
        return item_of(parts_of(row["text"], row["parts"]), rules, piece.task)
    except NoItem as error:
        return f"evaluate.{error.reason}"


def _rows(store: Store, piece: Piece) -> Iterator[dict[str, Any]]:
    """The rows of a piece, from the row groups that they are in."""
    columns = ["id", "text", "parts"] if piece.form == "samples" else ["id", "text"]
    with open_parquet(store, piece.shard) as file:
        start = 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if start < piece.end and end > piece.first:
                first, last = max(piece.first - start, 0), min(piece.end, end) - start
                yield from file.read_row_group(group, columns).slice(first, last - first).to_pylist()
            start = end


def stretches_before(store: Store, piece: Piece) -> tuple[int, int]:
    """How many stretches of its shard come before a piece of windows, and how many it holds: by the table of members,
    which is not what the windows are read from."""
    assert piece.index is not None and piece.members is not None
    keys = read_table(store, piece.index, ["key"])["key"].to_pylist()
    packs = read_table(store, piece.members, ["pack"])["pack"].to_pylist()
    place = {key: number for number, key in enumerate(keys)}
    numbers = np.array([place[pack] for pack in packs], np.int64)
    before = int((numbers < piece.first).sum())
    return before, int((numbers < piece.end).sum()) - before


def _stretches(store: Store, piece: Piece) -> Iterator[Question | tuple[Any, str]]:
    assert piece.index is not None
    source = source_of(store, [(piece.shard, piece.index)])
    reader = ShardReader(source.shards, source.open)
    try:
        ordinal, _ = stretches_before(store, piece)
        for number in range(piece.first, piece.end):
            window = reader.sample(number)
            ids, scored, ends = (window.arrays[name] for name in ("input_ids", "loss_mask", "cu_seqlens"))
            for n, member in enumerate(window.meta["members"]):
                record = record_at(member["member"], piece.shard.sha256, ordinal)
                part = slice(int(ends[n]), int(ends[n + 1]))
                yield Question(
                    record, member["source"], Item("perplexity", ()), tuple(ids[part].tolist()), scored[part]
                )
                ordinal += 1
    finally:
        reader.close()


def records_table(records: Sequence[dict[str, Any]]) -> pa.Table:
    """Keys of records, as fates want them."""
    schema = pa.schema(
        [(name, pa.int64() if name in ("ordinal", "start", "length") else pa.string()) for name in _KEYS]
    )
    return pa.Table.from_pylist(list(records), schema=schema)


_KEYS = ("id", "input", "ordinal", "start", "length")
