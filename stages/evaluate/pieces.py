"""Pieces of what a model is evaluated on: a run of records of one shard, read as questions.

Documents and samples are rows of a table; of packed windows a record is a stretch, as the table of members has it, and
windows are read whole. What a piece holds follows from the manifest alone, so that works are known before any is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, open_parquet, read_table
from gristmill.lake.versions.manifest import Manifest
from gristmill.model.evaluate.samples import Item, NoItem, Rules, Task, item_of
from gristmill.model.processing.segments import END_OF_TEXT, Segment, placeholders
from gristmill.model.processing.text import Tokenizer
from gristmill.model.shards.files import ShardReader
from gristmill.model.shards.sample import Sample
from gristmill.model.windows.placeholders import BadMedium, Medium
from gristmill.model.windows.stretches import WindowMedia
from gristmill.stages.mix.pairs import of_graded, of_pairs
from gristmill.stages.mix.tokenize import record_at
from gristmill.stages.mix.windows import shard_files, source_of
from gristmill.stages.text.instruct import parts_of

if TYPE_CHECKING:  # torch takes seconds to import, and who plans an evaluation needs none
    from gristmill.model.windows.prompts import Prompts

FORMS = ("documents", "samples", "images", "audio", "windows")
"""What a model can be evaluated on."""
WITH_PARTS = ("samples", "images", "audio")
"""Those whose records have a question and an answer."""
WITH_MEDIA = ("images", "audio")
SPEECH: Mapping[str, Task] = {"asr": "transcript", "ast": "translation", "ast_cot": "translation"}
"""How records with clips are judged, by what they are samples of; all others as their form says."""

NOT_ASKED: Mapping[str, str] = {
    "image.extreme_ratio": "evaluate.extreme_ratio",
    "audio.too_short": "evaluate.too_short",
    "audio.too_long": "evaluate.clip_too_long",
}
"""Fates of records with media that can be had and not shown; all else that is wrong with one is damage."""


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

    Raises ValueError for a version of another form or of pairs, or a task that its records cannot have.
    """
    if source.form not in FORMS:
        raise ValueError(f"{source} holds {source.layout.called}; a model is evaluated on {', '.join(FORMS)}")
    if task not in (None, "perplexity") and source.form not in WITH_PARTS:
        raise ValueError(f"{source} holds {source.layout.called}, which have perplexity and no {task}")
    if of_pairs(source):
        raise ValueError(
            f"{source} holds windows of pairs, whose rejected answers would be scored too; evaluate on samples, or on"
            " a mixture of them. What was learned of pairs, the gate `preference` of a training says"
        )
    if of_graded(source):
        raise ValueError(
            f"{source} holds windows of samples with advantages, wrong ones among them, which would be scored too;"
            " evaluate on samples, or on a mixture of them"
        )
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
    with `scored`, bool [tokens]: which of them count for the loss. `media`: makes the arrays of its images and clips,
    as a window holds them; None: it has none. They are large: whoever asks makes them when they are needed. `kind`:
    what the record is a sample of, where its dataset tells."""

    record: dict[str, Any]
    source: str
    item: Item
    tokens: tuple[int, ...]
    scored: np.ndarray
    media: Callable[[], Mapping[str, np.ndarray]] | None = None
    kind: str | None = None


def questions(
    store: Store, piece: Piece, prompts: Prompts, rules: Rules
) -> Iterator[Question | tuple[dict[str, Any], str]]:
    """The records of a piece in order: each a question, or (record, reason) where it is none. Raises MissingToken for a
    tokenizer without the tokens of the template, DamagedObject, DamagedShard, and ValueError for media that the model
    does not take, or that cannot be read any more."""
    if piece.members is not None:
        yield from _stretches(store, piece)
    elif piece.form in WITH_MEDIA:
        yield from _with_media(store, piece, prompts, rules)
    else:
        yield from _texts(store, piece, prompts.tokenizer, rules)


def _texts(
    store: Store, piece: Piece, tokenizer: Tokenizer, rules: Rules
) -> Iterator[Question | tuple[dict[str, Any], str]]:
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


def _with_media(
    store: Store, piece: Piece, prompts: Prompts, rules: Rules
) -> Iterator[Question | tuple[dict[str, Any], str]]:
    """Record by record: images and clips are bytes until a question is asked."""
    for ordinal, row in enumerate(_rows(store, piece), piece.first):
        record = record_at(row["id"], piece.shard.sha256, ordinal)
        item = _item(row, piece, rules)
        if isinstance(item, str):
            yield record, item
            continue
        media = [_medium(medium) for medium in row["media"]]
        try:
            encoded = prompts.encoded(item.prompt, media)
        except BadMedium as error:
            if error.reason not in NOT_ASKED:
                raise
            yield record, NOT_ASKED[error.reason]
            continue
        arrays = partial(prompts.arrays, item.prompt, media) if placeholders(item.prompt) else None
        tokens = tuple(encoded.ids.tolist())
        yield Question(record, piece.source, item, tokens, encoded.loss_mask, arrays, row.get("task"))


def _medium(medium: Mapping[str, Any]) -> Medium:
    if medium["kind"] != "audio":
        return Medium(medium["kind"], medium["data"])
    # It imports torch; and of a clip that was taken in, samples are counted, where a header may say a few too many.
    from gristmill.model.processing.audio import frames_of

    return Medium("audio", medium["data"], frames=frames_of(medium["samples"], medium["rate"]))


def _item(row: dict[str, Any], piece: Piece, rules: Rules) -> Item | str:
    """The item of a row, or why it is none."""
    if not row["text"].strip():
        return "evaluate.empty"
    if piece.form == "documents":
        segments = (Segment(row["text"], loss_mask=True), Segment(END_OF_TEXT, special=True, loss_mask=True))
        return Item("perplexity", segments)
    task, language = piece.task, None
    if piece.form == "audio":
        task, language = task or SPEECH.get(row["task"]), _language(row)
    try:
        return item_of(parts_of(row["text"], row["parts"]), rules, task, language)
    except NoItem as error:
        return f"evaluate.{error.reason}"


def _language(row: Mapping[str, Any]) -> str | None:
    """Of what a record with clips expects, where it tells: of a transcript that of the clip."""
    learned: str | None = row.get("learned_language")
    return row["language"] if learned is None and row["task"] == "asr" else learned


def _rows(store: Store, piece: Piece) -> Iterator[dict[str, Any]]:
    """The rows of a piece, from the row groups that they are in."""
    columns = ["id", "text"]
    columns += ["parts"] if piece.form in WITH_PARTS else []
    columns += ["media"] if piece.form in WITH_MEDIA else []
    columns += ["task", "language", "learned_language"] if piece.form == "audio" else []
    with open_parquet(store, piece.shard) as file:
        columns = [name for name in columns if name in file.schema_arrow.names]  # earlier clips tell of one language
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
            media = _media_of(window)
            for n, member in enumerate(window.meta["members"]):
                record = record_at(member["member"], piece.shard.sha256, ordinal)
                part = slice(int(ends[n]), int(ends[n + 1]))
                item, tokens = Item("perplexity", ()), tuple(ids[part].tolist())
                yield Question(record, member["source"], item, tokens, scored[part], media.get(n))
                ordinal += 1
    finally:
        reader.close()


def _media_of(window: Sample) -> dict[int, Callable[[], Mapping[str, np.ndarray]]]:
    """The images and clips of a window by the stretch that they belong to."""
    media, stretches = WindowMedia.of(window), np.arange(len(window.arrays["cu_seqlens"]) - 1)
    return {stretch: partial(dict, media.only(stretches == stretch).arrays) for stretch in media.stretches}


def records_table(records: Sequence[dict[str, Any]]) -> pa.Table:
    """Keys of records, as fates want them."""
    schema = pa.schema(
        [(name, pa.int64() if name in ("ordinal", "start", "length") else pa.string()) for name in _KEYS]
    )
    return pa.Table.from_pylist(list(records), schema=schema)


_KEYS = ("id", "input", "ordinal", "start", "length")
