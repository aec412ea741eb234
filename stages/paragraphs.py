"""Repeated paragraphs: a document most of whose text other pages of its host have as well is a template, and goes.

hash (a chunk: what passed the screen) -> gather (some chunks, without what was dropped since) -> count (a range of
paragraph hashes, with those of earlier versions) -> judge (a chunk). It runs after exact duplicates, so that no copy
of a page makes its text repeated, and texts are never edited: the verdict is on documents. A paragraph is a line,
compared as in CCNet (Wenzek et al. 2019, arXiv 1911.00359, section 3.2; its code `normalize_for_dedup`): lower case,
digits are 0, no punctuation; spaces are ignored too, and accents kept, as in its code. Documents are numbered by place;
numbers live for one run, ids go into the version, one row a paragraph and page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from lake import ledger
from lake.balance import Tally
from lake.objects import (
    ROW_GROUP_ROWS,
    ObjectRef,
    put_file,
    put_refs,
    put_table,
    read_refs,
    read_table,
    scratch,
    table_writer,
)
from lake.receipt import Receipt, StageId
from lake.store import Store
from stages.exact import hash_ranges
from stages.fates import Fates
from stages.losers import put_losers, without_losers
from stages.runner import Runner
from stages.screen import passed_rows
from stages.shards import shard_groups
from stages.work import Outcome, Work, stage_id

REASON = "paragraphs.repeated"
ROWS_PER_GROUP = ROWS_PER_RANGE = 1 << 20
"""Paragraphs in one gathered table, and in one range of hashes: about 200 MB of work each."""
KEYS = ("id", "input", "ordinal", "start", "length")
PARAGRAPHS = pa.schema([("paragraph", pa.string()), ("id", pa.string())])
_HASHED = pa.schema([("paragraph", pa.string()), ("row", pa.int32()), ("bytes", pa.int64())])
_GATHERED = pa.schema([*PARAGRAPHS, ("document", pa.uint32()), ("bytes", pa.int64())])
_REPEATED = pa.schema([("document", pa.uint32()), ("bytes", pa.int64())])
_URL_HASH = 16  # characters of an id that all records of a URL share

# In two steps, because a regular expression takes its time for each match and most of them are ASCII.
_LETTERS_AND_SYMBOLS = b"$+<=>^`|~"  # ASCII that Unicode counts as symbols, no punctuation
_DROPPED = bytes(c for c in range(128) if not chr(c).isalnum() and c not in _LETTERS_AND_SYMBOLS and chr(c) != "\n")
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_PUNCTUATION = r"[\p{P}\p{Z}\x{80}-\x{9f}\p{Cf}\p{Co}]+"


@dataclass(frozen=True)
class Paragraphs:
    """Drops documents of which more than `max_repeated` of the bytes stand in repeated paragraphs.

    A paragraph is repeated where `min_documents` or more pages of one host (without a URL: of one source) have it; two
    captures of a page are one page. Shorter ones than `min_paragraph_bytes` (as compared, UTF-8) count as text that is
    not repeated: "Read more" is no template, and a poem does not go for its one long line, the publisher's notice.
    """

    min_documents: int = 3
    max_repeated: float = 0.5
    min_paragraph_bytes: int = 24

    def __post_init__(self) -> None:
        if self.min_documents < 2:
            raise ValueError(f"min_documents={self.min_documents}: at least 2, in one document alone nothing is repeated")
        if not 0 <= self.max_repeated <= 1:
            raise ValueError(f"max_repeated={self.max_repeated}: a share of a document's bytes, 0 to 1")
        if self.min_paragraph_bytes < 1:
            raise ValueError(f"min_paragraph_bytes={self.min_paragraph_bytes}: at least 1; 1 compares every line")

    def identity(self) -> tuple[StageId, ...]:
        """Of all its stages: each has of these settings what decides its output."""
        return tuple(one for stage in self._stages() for one in stage.identity())

    def _stages(self) -> tuple[HashParagraphs, GatherParagraphs, CountParagraphs, JudgeParagraphs]:
        return (
            HashParagraphs(self.min_paragraph_bytes),
            GatherParagraphs(),
            CountParagraphs(self.min_documents),
            JudgeParagraphs(self.max_repeated),
        )

    def judge(
        self,
        runner: Runner,
        chunks: Sequence[tuple[ObjectRef, ObjectRef, Tally]],
        lost: Sequence[ObjectRef],
        before: Sequence[ObjectRef],
    ) -> tuple[list[Receipt], list[ObjectRef]]:
        """(receipts with `losers`, fates and `shares`; tonight's paragraphs, for later nights).

        `chunks`: (text, screened, what passed the screen); `lost`: losers since; `before`: of earlier versions.
        """
        store, losers = runner.store, put_refs(runner.store, lost)
        hashing, gathering, counting, judging = self._stages()
        done = runner.map("hash paragraphs", [_hash_work(hashing, *chunk) for chunk in chunks])
        pairs = [(r.output("hashed"), r.output("documents")) for r in done]
        first = np.cumsum([0, *(documents.records for _, documents in pairs)]).tolist()
        done = runner.map("gather paragraphs", _gather_works(gathering, pairs, first, losers))
        gathered = put_refs(store, [r.output("gathered") for r in done])
        rows = sum(r.output("gathered").records for r in done)
        done = runner.map("count paragraphs", _count_works(counting, gathered, rows, before))
        repeated = put_refs(store, [r.output("repeated") for r in done])
        works = [_judge_work(judging, pair[1], n, repeated, losers) for pair, n in zip(pairs, first, strict=False)]
        return runner.map("judge paragraphs", works), [r.output("paragraphs") for r in done]


@dataclass(frozen=True)
class HashParagraphs:
    """Hashes the paragraphs of what passed the screen. Its receipts serve every night and every other threshold."""

    name: ClassVar[str] = "hash_paragraphs"
    VERSION: ClassVar[int] = 1

    min_paragraph_bytes: int

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: text, screened. Outputs `hashed`: a row a paragraph of a document, and `documents`: keys and bytes
        of text in order of the input, no bytes for what has no host."""
        text, screened = (ObjectRef(**work.payload[name]) for name in ("text", "screened"))
        rows = passed_rows(store, text, screened, [*KEYS, "url", "source", "text"])
        hashed, sizes, first = [_HASHED.empty_table()], [pa.array([], pa.int64())], 0
        for batch in rows.to_batches(ROW_GROUP_ROWS):
            table, size = self._hashed(batch, first)
            hashed.append(table)
            sizes.append(size)
            first += batch.num_rows
        tally = ledger.tally(rows)
        table = pa.concat_tables(hashed).sort_by([("paragraph", "ascending"), ("row", "ascending")])
        documents = rows.select(KEYS).append_column("bytes", pa.chunked_array(sizes)).replace_schema_metadata()
        outputs = (put_table(store, "hashed", table), put_table(store, "documents", documents))
        return Outcome(outputs=outputs, passed=tally, came_in=tally)

    def _hashed(self, batch: pa.RecordBatch, first: int) -> tuple[pa.Table, pa.Array]:
        """The paragraphs of some documents, numbered from `first`, and the bytes of each document."""
        hosts = [host_of(*pair) for pair in zip(batch["url"].to_pylist(), batch["source"].to_pylist(), strict=True)]
        split = pc.split_pattern(batch["text"], "\n")
        lines, row = pc.utf8_trim_whitespace(split.flatten()), pc.list_parent_indices(split).to_numpy()
        sizes = pc.binary_length(lines).to_numpy()
        total = np.bincount(row, sizes, batch.num_rows).astype(np.int64)
        judged = np.array([host is not None for host in hosts], bool) & (total > 0)

        plain = comparable(lines)
        hit = (pc.binary_length(plain).to_numpy() >= self.min_paragraph_bytes) & judged[row]
        seeds = [xxhash.xxh3_64_intdigest(host or "") for host in hosts]
        found = zip(plain.filter(pa.array(hit)).to_pylist(), row[hit].tolist(), strict=True)
        hashes = [xxhash.xxh3_64_hexdigest(line, seeds[i]) for line, i in found]
        table = pa.table([pa.array(hashes, pa.string()), row[hit] + first, sizes[hit]], names=_HASHED.names)
        table = table.group_by(["paragraph", "row"], use_threads=False).aggregate([("bytes", "sum")])
        table = table.rename_columns({"bytes_sum": "bytes"}).select(_HASHED.names).cast(_HASHED)
        return table, pa.array(total, mask=~judged)


def comparable(lines: pa.StringArray) -> pa.StringArray:
    """Each line in lower case, with 0 for every digit, without punctuation, spaces and control characters."""
    if not len(lines):
        return lines
    lower = pc.utf8_lower(lines)
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(lower)], pa.int32()), lower), "\n")
    plain = joined[0].as_buffer().to_pybytes().translate(_DIGITS, _DROPPED)
    text = pc.replace_substring_regex(pa.array([plain], pa.string()), _PUNCTUATION, "")
    return pc.split_pattern(pc.replace_substring_regex(text, r"\p{Nd}", "0"), "\n").flatten()


def host_of(url: str | None, source: str | None) -> str | None:
    """Whose paragraphs are compared: the URL's host, else the source; None where there is neither."""
    try:
        host = urlsplit(url).hostname if url else None
    except ValueError:  # crawls are full of `http://[`
        host = None
    return host or source or None


@dataclass(frozen=True)
class GatherParagraphs:
    """Brings some chunks' paragraphs together by hash, without those of documents that were dropped since."""

    name: ClassVar[str] = "gather_paragraphs"
    VERSION: ClassVar[int] = 1

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: chunks [(hashed, documents)], first (number of the first document), losers (a list object)."""
        losers, first = read_refs(store, ObjectRef(**work.payload["losers"])), work.payload["first"]
        parts = [_GATHERED.empty_table()]
        for hashed, documents in work.payload["chunks"]:
            whole = read_table(store, ObjectRef(**documents), ["id", "input", "ordinal"])
            whole = whole.append_column("row", pa.array(np.arange(whole.num_rows, dtype=np.int32)))
            left = without_losers(store, whole, losers)
            rows = read_table(store, ObjectRef(**hashed))
            at = pc.index_in(rows["row"], left["row"].combine_chunks())
            rows = rows.append_column("id", left["id"].combine_chunks().take(at))
            number = pc.add(pc.cast(rows["row"], pa.int64()), first)
            rows = rows.append_column("document", number).filter(pc.is_valid(at))
            parts.append(rows.select(_GATHERED.names).cast(_GATHERED))
            first += whole.num_rows
        order = [(name, "ascending") for name in ("paragraph", "id", "document")]
        table = pa.concat_tables(parts).sort_by(order)
        return Outcome(outputs=(put_table(store, "gathered", table, sorted_by="paragraph"),), came_in=Tally())


@dataclass(frozen=True)
class CountParagraphs:
    """Finds the paragraphs that `min_documents` pages have, and how many bytes of each document stand in them."""

    name: ClassVar[str] = "count_paragraphs"
    VERSION: ClassVar[int] = 1

    min_documents: int

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: gathered (a list object), before (pointers), low, high (range of hashes). Outputs `paragraphs`:
        who has each, for later nights, and `repeated`: bytes by document, in order of their numbers."""
        low, high = work.payload["low"], work.payload["high"]
        hit = (pc.field("paragraph") >= low) & (pc.field("paragraph") < high)

        def near(refs: Sequence[ObjectRef]) -> list[ObjectRef]:
            return [ref for ref in refs if ref.records and ref.first < high and ref.last >= low]

        def pages(refs: Sequence[ObjectRef]) -> pa.Table:
            parts = [self._few(read_table(store, ref, PARAGRAPHS.names, hit)) for ref in refs]
            return self._few(pa.concat_tables([PARAGRAPHS.empty_table(), *parts]))

        ours = near(read_refs(store, ObjectRef(**work.payload["gathered"])))
        tonight, before = pages(ours), pages(near([ObjectRef(**ref) for ref in work.payload["before"]]))
        everyone = self._few(pa.concat_tables([tonight, before]))
        repeated = everyone["paragraph"].filter(pa.array(_rank(everyone["paragraph"]) == self.min_documents - 1))
        with scratch() as folder:
            path, records = folder / "repeated.parquet", 0
            with table_writer(path, _REPEATED) as writer:
                for ref in ours:  # consecutive documents each
                    rows = read_table(store, ref, ["paragraph", *_REPEATED.names], hit)
                    rows = rows.filter(pc.is_in(rows["paragraph"], repeated.combine_chunks()))
                    rows = rows.group_by("document", use_threads=False).aggregate([("bytes", "sum")])
                    rows = rows.rename_columns({"bytes_sum": "bytes"}).sort_by("document").cast(_REPEATED)
                    writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)
                    records += rows.num_rows
            found = put_file(store, "repeated", path, records)
        kept = put_table(store, "paragraphs", tonight, sorted_by="paragraph")
        return Outcome(outputs=(kept, found), came_in=Tally(), facts={"repeated": len(repeated)})

    def _few(self, table: pa.Table) -> pa.Table:
        """At most `min_documents` pages a paragraph, a row each: enough to tell, now and with any others added."""
        table = table.replace_schema_metadata().sort_by([(name, "ascending") for name in PARAGRAPHS.names])
        page = pc.utf8_slice_codeunits(table["id"], 0, _URL_HASH)
        table = table.filter(pa.array(_begins(table["paragraph"]) | _begins(page)))
        return table.filter(pa.array(_rank(table["paragraph"]) < self.min_documents))


def _begins(column: pa.ChunkedArray) -> np.ndarray:
    """Where a value of a column differs from the one before."""
    values = column.combine_chunks()
    begins = np.ones(len(values), bool)
    if len(values):
        begins[1:] = pc.not_equal(values[1:], values[:-1]).to_numpy(zero_copy_only=False)
    return begins


def _rank(column: pa.ChunkedArray) -> np.ndarray:
    """How many equal values stand before each of a sorted column."""
    begins = _begins(column)
    return np.arange(len(begins)) - np.flatnonzero(begins)[np.cumsum(begins) - 1]


@dataclass(frozen=True)
class JudgeParagraphs:
    """Drops the documents of which a greater share than `max_repeated` is repeated."""

    name: ClassVar[str] = "judge_paragraphs"
    VERSION: ClassVar[int] = 1

    max_repeated: float

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: documents, first (their first number), repeated and losers (list objects). Outputs `losers`, fates,
        and `shares`: the measure, so that a threshold can be replayed; null for what is not judged."""
        p = work.payload
        rows, first = read_table(store, ObjectRef(**p["documents"])), p["first"]
        here = (pc.field("document") >= first) & (pc.field("document") < first + rows.num_rows)
        total = np.zeros(rows.num_rows, np.int64)
        for ref in read_refs(store, ObjectRef(**p["repeated"])):
            found = read_table(store, ref, filters=here)
            total[found["document"].to_numpy() - first] += found["bytes"].to_numpy()
        share = pc.divide(pa.array(total, pa.float64()), pc.cast(rows["bytes"], pa.float64()))
        rows = without_losers(store, rows.append_column("share", share), read_refs(store, ObjectRef(**p["losers"])))
        hit = pc.fill_null(pc.greater(rows["share"], self.max_repeated), False)
        lost, passed = rows.filter(hit), rows.filter(pc.invert(hit))
        fates = Fates()
        for row in lost.to_pylist():
            fates.add(row, "dropped", REASON, row["share"])
        written, counts = fates.write(store)
        return Outcome(
            outputs=(put_losers(store, lost), written, put_table(store, "shares", rows.select([*KEYS, "share"]))),
            came_in=ledger.tally(rows),
            passed=ledger.tally(passed),
            dropped=counts.dropped,
            reasons=counts.reasons,
        )


def _hash_work(stage: HashParagraphs, text: ObjectRef, screened: ObjectRef, passed: Tally) -> Work:
    payload = {"text": text.model_dump(), "screened": screened.model_dump()}
    return Work(stage, (text.sha256, screened.sha256), payload, passed, text.sha256[:12])


def _gather_works(
    stage: GatherParagraphs, pairs: Sequence[tuple[ObjectRef, ObjectRef]], first: Sequence[int], losers: ObjectRef
) -> list[Work]:
    """One Work for consecutive chunks of about ROWS_PER_GROUP paragraphs; the cut depends on counts alone."""
    works = []
    for begin, end in shard_groups([hashed.records for hashed, _ in pairs], ROWS_PER_GROUP):
        inputs = (str(first[begin]), *(ref.sha256 for pair in pairs[begin:end] for ref in pair), losers.sha256)
        payload: dict[str, Any] = {"chunks": [(a.model_dump(), b.model_dump()) for a, b in pairs[begin:end]]}
        payload |= {"first": first[begin], "losers": losers.model_dump()}
        works.append(Work(stage, inputs, payload, label=f"chunks {begin} to {end}"))
    return works


def _count_works(
    stage: CountParagraphs, gathered: ObjectRef, rows: int, before: Sequence[ObjectRef]
) -> list[Work]:
    """One Work a range of hashes; the number of ranges depends on the number of paragraphs alone."""
    works = []
    for low, high in hash_ranges(rows + sum(ref.records for ref in before), ROWS_PER_RANGE):
        payload: dict[str, Any] = {"gathered": gathered.model_dump(), "before": [ref.model_dump() for ref in before]}
        inputs = (low, high, gathered.sha256, *(ref.sha256 for ref in before))
        works.append(Work(stage, inputs, payload | {"low": low, "high": high}, label=f"range {low or '0'}"))
    return works


def _judge_work(
    stage: JudgeParagraphs, documents: ObjectRef, first: int, repeated: ObjectRef, losers: ObjectRef
) -> Work:
    payload: dict[str, Any] = {"documents": documents.model_dump(), "first": first}
    payload |= {"repeated": repeated.model_dump(), "losers": losers.model_dump()}
    inputs = (documents.sha256, str(first), repeated.sha256, losers.sha256)
    return Work(stage, inputs, payload, label=documents.sha256[:12])
