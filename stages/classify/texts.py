"""The texts that a classifier is trained on, one Work a shard or file: which they are, and the words of their windows.

A document is known by what it says: copies within a shard count once. What shares 13 words in a row with a text that
is held out is marked, and never trained on. Of a large version no more is kept than can be drawn: the documents with
the least hashes, which is a draw, since a hash knows nothing of what is good.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.classify.windows import Windows
from gristmill.filters.overlap import Finder, HeldOut, Overlap, Texts
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.inputs.sources import open_input
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, iter_batches, put_table, read_refs, read_table
from gristmill.stages.containers import ReadConfig, Record, detect, read, scan
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.gates.texts import texts_of
from gristmill.stages.mix.tokenize import TextShard
from gristmill.stages.read.reading import content_hash
from gristmill.stages.read.scan import HEAD_BYTES

TRAINING_TEXTS, HELD_OUT_TEXTS = "training_texts", "held_out_texts"
_FORMAT = {"gristmill.format": "1"}
SCHEMA = pa.schema(
    [
        ("content", pa.string()),  # 128-bit hash of the text
        ("characters", pa.int64()),
        ("held_out", pa.bool_()),  # it shares words with a text that is held out
        ("lines", pa.list_(pa.string())),  # words of its windows
    ],
    metadata=_FORMAT,
)
HELD_OUT_SCHEMA = pa.schema([("text", pa.string())], metadata=_FORMAT)
_OVERLAP = Overlap()
_ROWS = 4096


@dataclass(frozen=True)
class TextOrigin:
    """Where texts are: a shard of a version, or a file (`uri`) whose bytes have the digest `sha256`; "": any.
    `field`: of its rows, the one with the text."""

    sha256: str
    shard: TextShard | None = None
    uri: str = ""
    field: str = "text"
    label: str = ""


@dataclass(frozen=True)
class TextsInput:
    """What is read, and the held-out texts (a list object) that must not be in it; None: there are none."""

    origin: TextOrigin
    held_out: ObjectRef | None = None


@dataclass(frozen=True)
class TextsFacts:
    """`read`: records with a text; `unreadable`: records of a file that could not be read, or have no text."""

    read: int
    unreadable: int


class OtherFile(ValueError):
    """A file that is not what it was when the run looked it up."""


@dataclass(frozen=True)
class ReadTexts(Stage[TextsInput]):
    """Outputs `training_texts` (SCHEMA), of at most `most` documents. `field`: of a file's rows, that with the text."""

    name: ClassVar[str] = "read_texts"
    VERSION: ClassVar[int] = 1

    windows: Windows = field(default_factory=Windows)
    most: int = 200_000
    field: str = "text"

    def run(self, store: Store, work: Work[TextsInput]) -> Outcome:
        """Facts: TextsFacts. Raises DamagedObject, OtherFile, OSError."""
        reader = _Reader(store, work.payload.origin)
        finder = _finder(store, work.payload.held_out)
        table = SCHEMA.empty_table()
        for texts in reader.batches():
            table = self._least(pa.concat_tables([table, self._rows(texts, finder)]))
        facts = TextsFacts(reader.read, reader.unreadable)
        return Outcome(outputs=(put_table(store, TRAINING_TEXTS, table),), received=Tally(), facts=facts)

    def _rows(self, texts: pa.StringArray, finder: Finder | None) -> pa.Table:
        held = set[int]()
        if finder is not None:
            matches = finder.find(Texts(texts))
            held = {*matches.gram_rows.tolist(), *matches.text_rows.tolist()}
        rows = [
            {
                "content": content_hash(text),
                "characters": len(text),
                "held_out": row in held,
                "lines": self.windows.lines(text),
            }
            for row, text in enumerate(texts.to_pylist())
        ]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def _least(self, table: pa.Table) -> pa.Table:
        """Each content once, those with the least hashes, in their order."""
        table = table.sort_by("content")
        contents = table["content"].combine_chunks()
        if len(contents) > 1:
            first = pa.concat_arrays([pa.array([True]), pc.not_equal(contents[1:], contents[:-1])])
            table = table.filter(first)
        return table.slice(0, self.most).combine_chunks()


@dataclass(frozen=True)
class ReadHeldOut(Stage[TextsInput]):
    """Outputs `held_out_texts` (HELD_OUT_SCHEMA): whole texts, all in memory."""

    name: ClassVar[str] = "read_held_out"
    VERSION: ClassVar[int] = 1

    field: str = "text"

    def run(self, store: Store, work: Work[TextsInput]) -> Outcome:
        """Facts: TextsFacts. Raises DamagedObject, OtherFile, OSError."""
        reader = _Reader(store, work.payload.origin)
        parts = [pa.table([texts], schema=HELD_OUT_SCHEMA) for texts in reader.batches()]
        table = pa.concat_tables([HELD_OUT_SCHEMA.empty_table(), *parts])
        facts = TextsFacts(reader.read, reader.unreadable)
        return Outcome(outputs=(put_table(store, HELD_OUT_TEXTS, table),), received=Tally(), facts=facts)


class _Reader:
    """The texts of an origin, a batch at a time, and how many records had one."""

    def __init__(self, store: Store, origin: TextOrigin) -> None:
        self.store, self.origin = store, origin
        self.read = self.unreadable = 0

    def batches(self) -> Iterator[pa.StringArray]:
        """Texts in their order, none of them blank. Raises DamagedObject, OtherFile, OSError."""
        shard = self.origin.shard
        if shard is None:
            yield from self._of_file()
            return
        for batch in iter_batches(self.store, shard.shard, shard.columns):
            texts = [text for text in texts_of(batch, shard.samples).wholes.to_pylist() if text.strip()]
            self.read += len(texts)
            self.unreadable += batch.num_rows - len(texts)
            yield pa.array(texts, pa.string())

    def _of_file(self) -> Iterator[pa.StringArray]:
        texts: list[str] = []
        for text in file_texts(self.origin):
            if text is None:
                self.unreadable += 1
                continue
            self.read += 1
            texts.append(text)
            if len(texts) == _ROWS:
                yield pa.array(texts, pa.string())
                texts = []
        yield pa.array(texts, pa.string())


def file_texts(origin: TextOrigin) -> Iterator[str | None]:
    """The text of each record of a file (JSON lines, Parquet, WET), in order; None of one that cannot be read or has no
    text. Raises OtherFile, OSError, UnsupportedContainer."""
    uri = origin.uri
    with open_input(uri) as stream:
        kind = detect(uri, stream.read(HEAD_BYTES))
    with open_input(uri) as stream:
        scanned = scan(stream, kind)
    if origin.sha256 not in ("", scanned.sha256):
        raise OtherFile(f"{uri} has the sha256 {scanned.sha256[:12]}, not {origin.sha256[:12]}: it changed")
    config = ReadConfig(text=origin.field)
    for item in read(lambda offset: open_input(uri, offset), scanned.spans, kind, config):
        text = item.text if isinstance(item, Record) else None
        yield text if text is not None and text.strip() else None


def _finder(store: Store, held_out: ObjectRef | None) -> Finder | None:
    if held_out is None:
        return None
    tables = [read_table(store, ref) for ref in read_refs(store, held_out)]
    texts = pa.concat_tables([HELD_OUT_SCHEMA.empty_table(), *tables])["text"].combine_chunks()
    index, _ = HeldOut.of(Texts(texts), _OVERLAP)
    return Finder(index, _OVERLAP)


def held_out_works(stage: ReadHeldOut, origins: list[TextOrigin]) -> list[Work[TextsInput]]:
    """One Work an origin."""
    return [Work(stage, (origin.sha256,), TextsInput(origin), Tally(), origin.label) for origin in origins]


def texts_works(stage: ReadTexts, origins: list[TextOrigin], held_out: ObjectRef | None) -> list[Work[TextsInput]]:
    """One Work an origin. `held_out`: the outputs of `held_out_works`, a list object."""
    digests = () if held_out is None else (held_out.sha256,)
    return [
        Work(stage, (origin.sha256, *digests), TextsInput(origin, held_out), Tally(), origin.label)
        for origin in origins
    ]


def texts_of_receipts(receipts: list[Receipt]) -> list[ObjectRef]:
    """Their tables of texts, each once, in order of digests: which file came first decides nothing."""
    tables = {receipt.output(TRAINING_TEXTS).sha256: receipt.output(TRAINING_TEXTS) for receipt in receipts}
    return [tables[sha256] for sha256 in sorted(tables)]
