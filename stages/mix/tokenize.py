"""Tokenize: the texts of a version as token ids, one Work a shard, by one tokenizer.

Documents end with <|endoftext|> and every token of theirs counts for the loss; samples have their special tokens and a
loss mask of their own (the stored column is called `learn`). The result depends on shard and tokenizer alone, so that
every mixture of that version with that tokenizer is served by it.
Beside the ids goes a table of lengths, by which a mixture is planned without reading a token.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import (
    ObjectRef,
    iter_batches,
    put_file,
    put_table,
    read_object,
    scratch,
    table_writer,
)
from gristmill.lake.versions.manifest import Manifest
from gristmill.model.processing.segments import Segment
from gristmill.model.processing.text import Encoded, Tokenizer
from gristmill.stages.core.fates import Fates
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.text.instruct import parts_of

_LEARN = pa.list_(pa.bool_())
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("row", pa.int32()),  # in the shard
        ("ids", pa.list_(pa.int32())),
        ("learn", _LEARN),  # null for documents: every token
    ],
    metadata={"gristmill.format": "1"},
)
LENGTHS = pa.schema([("row", pa.int32()), ("key", pa.uint64()), ("tokens", pa.int32())])
TEXT_FORMS = ("documents", "samples", "preferences", "graded", "images", "audio")
"""Forms whose records have a text to tokenize; all but documents have parts."""
ROW_GROUP = 4096
"""Rows; tokens of a row are a few kilobytes."""


@dataclass(frozen=True)
class TextShard:
    """A shard of records with texts. `samples`: whether their parts have a loss mask; else they are documents. `pairs`:
    whether each is two samples, of which the second one begins at `rejected_at`."""

    shard: ObjectRef
    samples: bool
    pairs: bool = False

    @property
    def columns(self) -> list[str]:
        """What of it is read."""
        if not self.samples:
            return ["id", "text"]
        return ["id", "text", "parts", *(["rejected_at"] if self.pairs else [])]


def text_shards(source: Manifest) -> tuple[TextShard, ...]:
    """The shards of a version, in order. Raises ValueError for one that has no texts to tokenize."""
    if source.form not in TEXT_FORMS:
        raise ValueError(f"it holds {source.layout.called}, no records with texts")
    samples, pairs = source.form != "documents", source.form == "preferences"
    return tuple(TextShard(ref, samples, pairs) for ref in source.shards)


@dataclass(frozen=True)
class TokenizeInput:
    """A shard of a version, and the tokenizer.json."""

    texts: TextShard
    tokenizer: ObjectRef


@dataclass(frozen=True)
class TokenizeFacts:
    """Of the records that are not blank."""

    documents: int
    tokens: int


Refusal = tuple[str, str | None]
"""Why a record has no tokens: a reason, and the value that it is about."""


@dataclass(frozen=True)
class Rows:
    """Of a batch, by row in it: what is encoded, a sample's parts or a document's text; and why other rows are not."""

    segments: dict[int, Sequence[Segment] | str]
    refused: dict[int, Refusal]
    samples: bool


@dataclass(frozen=True)
class Tokenize(Stage[TokenizeInput]):
    """`tokenizer`: sha256 of the tokenizer.json."""

    name: ClassVar[str] = "tokenize"
    VERSION: ClassVar[int] = 2
    schema: ClassVar[pa.Schema] = SCHEMA
    lengths: ClassVar[pa.Schema] = LENGTHS

    tokenizer: str

    def run(self, store: Store, work: Work[TokenizeInput]) -> Outcome:
        """Outputs `tokens` (`schema`), `lengths` (`lengths`) and fates; facts: TokenizeFacts. Raises MissingToken,
        DamagedObject."""
        texts = work.payload.texts
        tokenizer = load_tokenizer(store, work.payload.tokenizer)
        fates, lengths, passed = Fates(), [self.lengths.empty_table()], []
        row = 0
        with scratch() as folder:
            path = folder / "tokens.parquet"
            with table_writer(path, self.schema) as writer:
                for batch in iter_batches(store, texts.shard, self.columns(texts)):
                    rows = self.rows(batch, texts.samples)
                    for i, (reason, value) in sorted(rows.refused.items()):
                        record = record_at(batch["id"][i].as_py(), texts.shard.sha256, row + i)
                        fates.add(record, "dropped", reason, value)
                    encoded = self.encoded(tokenizer, batch, rows, row)
                    _write(writer, encoded)
                    lengths.append(_lengths(encoded, self.lengths))
                    passed += encoded["row"].to_pylist()
                    row += batch.num_rows
            tokens = put_file(store, "tokens", path, len(passed))
        written, counts = fates.write(store)
        table = pa.concat_tables(lengths)
        return Outcome(
            outputs=(tokens, put_table(store, "lengths", table), written),
            passed=Tally.of_records([texts.shard.sha256] * len(passed), passed),
            dropped=counts.dropped,
            reasons=counts.reasons,
            facts=TokenizeFacts(len(passed), int(table["tokens"].to_numpy().sum())),
        )

    def columns(self, texts: TextShard) -> list[str]:
        """What of a shard is read."""
        return texts.columns

    def rows(self, batch: pa.RecordBatch, samples: bool) -> Rows:
        """The rows of a batch that have tokens: those that are not blank."""
        segments, refused = dict[int, Sequence[Segment] | str](), dict[int, Refusal]()
        spans = batch["parts"].to_pylist() if samples else []
        for i, text in enumerate(batch["text"].to_pylist()):
            if not text.strip():
                refused[i] = ("tokenize.empty", None)
            else:
                segments[i] = parts_of(text, spans[i]) if samples else text
        return Rows(segments, refused, samples)

    def encoded(self, tokenizer: Tokenizer, batch: pa.RecordBatch, rows: Rows, first: int) -> pa.Table:
        """These rows as `schema` has them. `first`: the row of the shard that the batch begins with."""
        given: list[Any] = list(rows.segments.values())
        encoded = tokenizer.encode(given) if rows.samples else tokenizer.encode_documents(given)
        return table_of(batch, rows, encoded, first)


def table_of(batch: pa.RecordBatch, rows: Rows, encoded: Encoded, first: int) -> pa.Table:
    """Encoded rows of a batch as SCHEMA has them."""
    offsets = pa.array(np.concatenate([[0], np.cumsum(encoded.lengths)]), pa.int32())
    # Every token of a document counts for the loss: a null says so and takes no space.
    loss_mask = (
        pa.ListArray.from_arrays(offsets, pa.array(encoded.loss_mask))
        if rows.samples
        else pa.nulls(len(rows.segments), _LEARN)
    )
    numbers = list(rows.segments)
    return pa.table(
        {
            "id": batch["id"].take(pa.array(numbers, pa.int64())),
            "row": pa.array(np.array(numbers, np.int32) + first, pa.int32()),
            "ids": pa.ListArray.from_arrays(offsets, pa.array(encoded.ids)),
            "learn": loss_mask,
        },
        schema=SCHEMA,
    )


def record_at(record: str, shard: str, row: int) -> dict[str, object]:
    """Who a record of a mixture is: its id, and the shard and row that it came from."""
    return {"id": record, "input": shard, "ordinal": row, "start": row, "length": 0}


def _write(writer: pq.ParquetWriter, table: pa.Table) -> None:
    if table.num_rows:
        writer.write_table(table, row_group_size=ROW_GROUP)


def _lengths(encoded: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table of lengths: what a plan needs of each row."""
    tokens = np.diff(encoded["ids"].combine_chunks().offsets.to_numpy()) if encoded.num_rows else np.zeros(0)
    keys = draw_keys(encoded["id"].to_pylist())
    own = {"row": encoded["row"], "key": keys, "tokens": pa.array(tokens, pa.int32())}
    columns = [own[name] if name in own else encoded[name] for name in schema.names]
    return pa.Table.from_arrays(columns, schema=schema)


def draw_keys(ids: Sequence[str]) -> np.ndarray:
    """64 bits of each record id (128 bits in hex), uint64 [rows]: of both halves, so that captures of a URL differ."""
    # The first half is multiplied by an odd number (2^64 / golden ratio), so that equal halves do not cancel out.
    halves = np.frombuffer(bytes.fromhex("".join(ids)), dtype=">u8").reshape(len(ids), 2).astype(np.uint64)
    return halves[:, 0] * np.uint64(0x9E3779B97F4A7C15) ^ halves[:, 1]


def tokenize_works(source: Manifest, tokenizer: ObjectRef, stage: Tokenize) -> Iterator[Work[TokenizeInput]]:
    """One Work a shard; what comes in is what the manifest says of it, not what is read."""
    for number, texts in enumerate(text_shards(source)):
        shard = texts.shard
        yield Work(
            stage=stage,
            inputs=(shard.sha256, tokenizer.sha256),
            payload=TokenizeInput(texts, tokenizer),
            received=Tally.of_records([shard.sha256] * shard.records, range(shard.records)),
            label=f"{source} shard {number}",
        )


_loaded: dict[str, Tokenizer] = {}


def load_tokenizer(store: Store, ref: ObjectRef) -> Tokenizer:
    """The tokenizer of a tokenizer.json in the lake. A worker keeps its last one: 200,000 entries take a second."""
    # Ray gives each worker one CPU; the library would start a thread for every core of the machine
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if ref.sha256 not in _loaded:
        _loaded.clear()
        _loaded[ref.sha256] = Tokenizer.from_bytes(read_object(store, ref))
    return _loaded[ref.sha256]


def forget_tokenizers() -> None:
    """Frees what a worker keeps: a tokenizer, and the pieces of text that it remembers."""
    _loaded.clear()
