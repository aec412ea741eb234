"""Rows become samples: what the stages have in common that make them of instruction data, pairs, images and clips.

Each row is one record with one fate: a sample, or the rule that it breaks. What a row is, and which columns a sample
has beside its text, is said by the stage.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts import ledger, media
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table
from gristmill.model.processing.chat.tools import BadSample
from gristmill.model.processing.medium_error import MediumError
from gristmill.model.processing.segments import Segment
from gristmill.stages.containers import Item, OpenAt, Record, Unreadable, read
from gristmill.stages.core.fates import Fates
from gristmill.stages.core.records import KEYS, Passed, put_verdicts
from gristmill.stages.core.work import Outcome
from gristmill.stages.read.reading import (
    NotedMedia,
    Reading,
    ReadPayload,
    ReadStage,
    content_hash,
    judged,
    keys_of,
)
from gristmill.stages.read.rows import Rows, TooLarge


class Sample(Protocol):
    """What a row was judged to be: a sample, or why it is none."""

    @property
    def content(self) -> str:
        """What makes two samples the same."""
        ...

    @property
    def reason(self) -> str | None:
        """The rule that the row breaks; None of a sample."""
        ...

    @property
    def value(self) -> str | None:
        """What of the row breaks it."""
        ...

    @property
    def error(self) -> str | None:
        """What a decoder said, which quotes nothing of a record."""
        ...


S = TypeVar("S", bound=Sample)


class BadMedium(BadSample):
    """Medium `number` of a sample, from 1, cannot be had. `error`: which it is, and what its decoder said."""

    def __init__(self, number: int, error: MediumError) -> None:
        super().__init__(error.word)
        self.error = f"{error.noun} {number}: {error}"[:500]


def columns_of(item: Record, content: str, kind: str, parts: Sequence[Segment]) -> dict[str, Any]:
    """What the samples of all such stages have: `content`, of which the hash is kept, makes two of them the same."""
    return {
        "content": content_hash(content),
        "url": item.url,
        "kind": kind,
        "text": "".join(part.text for part in parts),
        "parts": [{"length": len(part.text), "special": part.special, "learn": part.loss_mask} for part in parts],
        "date": item.date,
        "source": item.source,
    }


class SampleStage(ReadStage, Generic[S]):
    """Outputs `text` (the samples, with the columns of `schema`), `screened` (their keys, by content) and fates.

    `seconds_per_record`: after which a record is taken to hang; None: no limit, and records are judged in this very
    process.
    """

    facts: ClassVar[type[Any]] = Passed
    schema: ClassVar[pa.Schema]
    judgement: ClassVar[type[Any]]
    """S, of which `reason`, `value` and `error` can be given alone."""

    seconds_per_record: float | None  # a field of every such stage

    def __post_init__(self) -> None:
        if self.seconds_per_record is not None and not self.seconds_per_record > 0:
            raise ValueError(f"seconds_per_record={self.seconds_per_record}: more than 0, or null")

    def judge(self, item: Item) -> S:
        """The sample of a row, or the rule that it breaks."""
        if isinstance(item, Unreadable):
            return self._none(item.reason)
        if item.row is None:
            return self._none("read.not_a_line", value=item.record_type)
        try:
            return self.formed(item, item.row)
        except BadMedium as bad:
            return self._none(f"{self.name}.{bad.reason}", error=bad.error)
        except BadSample as bad:
            return self._none(f"{self.name}.{bad.reason}", value=bad.value)

    def failed(self, reason: str) -> S:
        """No sample, and why: `STAGE.timeout` or `STAGE.crashed`."""
        return self._none(reason)

    def _none(self, reason: str, value: str | None = None, error: str | None = None) -> S:
        judged: S = self.judgement(reason=reason, value=value, error=error)
        return judged

    @abstractmethod
    def formed(self, item: Record, row: Mapping[str, Any]) -> S:
        """The sample of a row. Raises BadSample for the rule that it breaks, BadMedium."""

    @abstractmethod
    def columns(self, item: Record, sample: S) -> dict[str, Any]:
        """Of a sample: those of `schema` that are not of RECORD."""

    def size(self, samples: pa.Table) -> int:
        """Bytes of samples, by which shards become about equal: of their texts, UTF-8."""
        return pc.sum(pc.binary_length(samples["text"])).as_py() or 0

    def items(self, open_at: OpenAt, spans: pa.Table, kind: str) -> Iterator[Item]:
        """Whole rows, with their media: of pages and plain texts nothing becomes a sample."""
        return read(open_at, spans, kind, self.read, rows=True)

    def groups(self, samples: pa.Table) -> Iterable[pa.Table]:
        """The samples in tables that are stored in row groups of their own, by which they are read later."""
        return (samples,)

    def media_of(self, item: Record, sample: S) -> Sequence[str]:
        """sha256 of the media of a record, in order; of one that is no sample, of those that it came with."""
        return ()

    def records(self, store: Store, payload: ReadPayload) -> Reading:
        """The samples of a chunk, and the fates of its records that are none."""
        fates, rows = Fates(), Rows(self.schema)
        noted, came = Rows(media.SCHEMA), Tally()
        for item, sample in judged(self, store, payload):
            record = keys_of(item, payload, sample.content)
            if self.notes_media and isinstance(item, Record):
                digests = self.media_of(item, sample)
                came += Tally.of(media.key(record["id"], n, sha256) for n, sha256 in enumerate(digests))
                for row in media.rows_of(record["id"], digests):
                    noted.append(row)
            if isinstance(item, Unreadable):
                fates.add(record, "quarantined", sample.reason, error=item.error)
            elif sample.reason is not None:
                fates.add(record, "dropped", sample.reason, sample.value, sample.error)
            else:
                try:
                    rows.append(record | self.columns(item, sample))
                except TooLarge as error:
                    fates.add(record, "quarantined", f"{self.name}.too_much_media", error=str(error))
        if not self.notes_media:
            return Reading(rows.table(), fates)
        return Reading(rows.table(), fates, NotedMedia(noted.table(), came))

    def written(self, store: Store, table: pa.Table, fates: Fates) -> Outcome:
        """Stores the samples, their keys by content, and the fates of the records that are none."""
        table = table.cast(self.schema)  # read back from Parquet, a list's items have another name
        keys = pa.schema([*(self.schema.field(name) for name in KEYS), ("reason", pa.string())])
        verdicts = table.select(list(KEYS)).append_column("reason", pa.nulls(table.num_rows, pa.string()))
        written, counts = fates.write(store)
        errors = counts.errors
        return Outcome(
            outputs=(
                put_table(store, "text", table, groups=self.groups(table)),
                put_verdicts(store, verdicts.cast(keys)),
                written,
            ),
            passed=ledger.tally(table),
            dropped=counts.dropped,
            quarantined=counts.quarantined,
            reasons=counts.reasons,
            errors=errors,
            facts=Passed(self.size(table)),
            machine_fates=errors.get(f"{self.name}.crashed", 0) + errors.get(f"{self.name}.timeout", 0),
        )

    def text_bytes(self, receipt: Receipt) -> int:
        """Of the samples that went on."""
        return receipt.facts_as(Passed).passed_bytes
