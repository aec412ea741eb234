"""Repeated paragraphs: a document most of whose text other pages of its host have as well is a template, and goes.

Here are the setting and the hashes; who repeats whom is in stages/dedup/repeated.py. It runs after exact duplicates, so
that no copy of a page makes its text repeated; the verdict is on documents, whose texts stay whole. A paragraph is a
line, compared as in CCNet (Wenzek et al. 2019, arXiv 1911.00359, section 3.1, and its code, `normalize_for_dedup`):
lower case, every digit is 0, no punctuation; spaces are ignored as well, accents are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from gristmill.lake.accounts import ledger
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ROW_GROUP_ROWS, put_table
from gristmill.stages.core.fates import KEYS
from gristmill.stages.core.records import Chunk, alive
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.dedup.pieces import DOCUMENTS, HASHED, Comparison
from gristmill.stages.dedup.repeated import CountParagraphs, GatherParagraphs, JudgeParagraphs

_HASHED = pa.schema([("paragraph", pa.string()), ("row", pa.int32()), ("bytes", pa.int64())])

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
            raise ValueError(
                f"min_documents={self.min_documents}: at least 2, in one document alone nothing is repeated"
            )
        if not 0 <= self.max_repeated <= 1:
            raise ValueError(f"max_repeated={self.max_repeated}: a share of a document's bytes, 0 to 1")
        if self.min_paragraph_bytes < 1:
            raise ValueError(f"min_paragraph_bytes={self.min_paragraph_bytes}: at least 1; 1 compares every line")

    @property
    def comparison(self) -> Comparison:
        """The stages; each has of these settings what decides its output."""
        return Comparison(
            HashParagraphs(self.min_paragraph_bytes),
            GatherParagraphs(),
            CountParagraphs(self.min_documents),
            JudgeParagraphs(self.max_repeated),
            kept="paragraphs",
        )


@dataclass(frozen=True)
class HashParagraphs(Stage[Chunk]):
    """Hashes the paragraphs of what passed the filters. Its receipts serve every version and every other threshold."""

    name: ClassVar[str] = "hash_paragraphs"
    VERSION: ClassVar[int] = 1

    min_paragraph_bytes: int

    def run(self, store: Store, work: Work[Chunk]) -> Outcome:
        """payload: Chunk. Outputs `hashed`: a row a paragraph of a document, and `documents`: keys and bytes of text
        in order of the input, no bytes for what has no host."""
        rows = alive(store, work.payload, [*KEYS, "url", "source", "text"])
        hashed, sizes, first = [_HASHED.empty_table()], [pa.array([], pa.int64())], 0
        for batch in rows.to_batches(ROW_GROUP_ROWS):
            table, size = self._hashed(batch, first)
            hashed.append(table)
            sizes.append(size)
            first += batch.num_rows
        tally = ledger.tally(rows)
        table = pa.concat_tables(hashed).sort_by([("paragraph", "ascending"), ("row", "ascending")])
        documents = rows.select(KEYS).append_column("bytes", pa.chunked_array(sizes)).replace_schema_metadata()
        outputs = (put_table(store, HASHED, table), put_table(store, DOCUMENTS, documents))
        return Outcome(outputs=outputs, passed=tally, received=tally)

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
        # The host seeds the hash: a line of two hosts is two paragraphs, and no column has to carry the host.
        seeds = [xxhash.xxh3_64_intdigest(host or "") for host in hosts]
        paragraphs = zip(plain.filter(pa.array(hit)).to_pylist(), row[hit].tolist(), strict=True)
        hashes = [xxhash.xxh3_64_hexdigest(line, seeds[i]) for line, i in paragraphs]
        table = pa.table([pa.array(hashes, pa.string()), row[hit] + first, sizes[hit]], names=_HASHED.names)
        table = table.group_by(["paragraph", "row"], use_threads=False).aggregate([("bytes", "sum")])
        table = table.rename_columns({"bytes_sum": "bytes"}).select(_HASHED.names).cast(_HASHED)
        return table, pa.array(total, mask=~judged)


def comparable(lines: pa.StringArray) -> pa.StringArray:
    """Each line in lower case, with 0 for every digit, without punctuation, spaces and control characters."""
    if not len(lines):
        return lines
    lower = pc.utf8_lower(lines)
    # One text of all lines: bytes.translate goes over it once for ASCII, and a line has no newline of its own.
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
