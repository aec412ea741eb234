"""The web pipeline as datatrove's users build it, doing the same steps to the same pages as ours.

Its own blocks and executor: reader, extractor, LanguageFilter, GopherQualityFilter, ParquetWriter. Two are lent by us.
The reader is FastWARC's (datatrove's WarcReader wants warcio, cchardet and libmagic, is slower, and decodes pages in
another way, so that texts could not be compared), and the extractor calls resiliparse with our settings, unless it is
datatrove's default, trafilatura. Language ID takes the installed model (lid.176.ftz, ours too) where datatrove would
download the large one. Exact duplicates are a pipeline of their own in datatrove, and are left out.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.extractors.base import BaseExtractor
from datatrove.pipeline.filters import GopherQualityFilter, LanguageFilter
from datatrove.pipeline.readers.base import BaseDiskReader
from datatrove.pipeline.writers import ParquetWriter
from datatrove.utils.lid import FT176LID
from fastwarc.warc import ArchiveIterator, WarcRecordType

from benchmarks.fast_text import open_model
from gristmill.filters import lid
from gristmill.stages.text.charset import Decoded, decode
from gristmill.stages.text.extract import HEAD_BYTES
from gristmill.stages.text.html import ExtractConfig, is_html, page_text

EXTRACT = ExtractConfig()
PATIENCE = 60
"""Seconds that an extractor has for a page. datatrove's default is 1, by the clock: what is kept would depend on the
machine's load."""


class FastWarcReader(BaseDiskReader):
    """HTTP responses with status 200 that are HTML, decoded as gristmill does it."""

    name = "FastWARC"

    def read_file(self, filepath: str) -> Iterator[Document]:
        """Its documents."""
        with self.data_folder.open(filepath, "rb") as stream:
            records = ArchiveIterator(stream, WarcRecordType.response, parse_http=True, auto_decode="all")
            for n, record in enumerate(records):
                with self.track_time():
                    html = _html(record)
                    fields = {"url": record.headers.get("WARC-Target-URI")}
                    if html:
                        fields |= {"text": html.text, "charset": html.charset}
                    document = self.get_document_from_dict(fields, filepath, n) if html and html.text else None
                if document:
                    yield document


def _html(record: Any) -> Decoded | None:
    headers, body = record.http_headers, record.reader.read()
    if headers is None or headers.status_code != 200 or not body:
        return None
    declared = headers.get("Content-Type") or ""
    if not is_html(declared, body[:HEAD_BYTES]):
        return None
    return decode(body, record.http_charset)


class Resiliparse(BaseExtractor):
    """resiliparse as a datatrove extractor: in the child process that datatrove gives every extractor."""

    name = "resiliparse"

    def __init__(self) -> None:
        super().__init__(timeout=PATIENCE)

    def extract(self, text: str) -> str:
        """The main text of a page."""
        return page_text(text, EXTRACT).text


class InlineResiliparse(Resiliparse):
    """The same without the child: what an extractor without datatrove's sandbox could reach at best."""

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Its documents with their text; those without one are left out."""
        for document in data:
            with self.track_time():
                document.text = self.extract(document.text)
            if document.text:
                yield document


@lru_cache(maxsize=1)
def _language_model() -> Any:
    return open_model(lid.find_model())


def default_extractor() -> BaseExtractor:
    """datatrove's, trafilatura as datatrove sets it."""
    extractor: BaseExtractor = Trafilatura(timeout=PATIENCE)
    return extractor


class InstalledModel(FT176LID):
    """Our lid.176.ftz. Not kept in the object: executors copy their blocks, a model cannot be."""

    @property
    def model(self) -> Any:
        """fastText's model, loaded once a process."""
        return _language_model()


class InstalledLanguageFilter(LanguageFilter):
    """datatrove's filter of English, with the model that comes along with this project."""

    def __new__(cls) -> InstalledLanguageFilter:
        return object.__new__(cls)  # datatrove's asks for fasteners, which guards a download that does not happen

    def __init__(self) -> None:
        super().__init__("en")
        self.model = InstalledModel(["en"])


@dataclass(frozen=True)
class Outcome:
    """`seconds`: wall time of each block by datatrove's own count; `read`: pages that came to the extractor."""

    folder: Path
    seconds: dict[str, float]
    read: int

    @cached_property
    def kept(self) -> list[tuple[str, str]]:
        """URL and text of what was written; read when asked for, which nobody times."""
        return [(row["metadata"]["url"], row["text"]) for row in self._rows]

    @cached_property
    def charsets(self) -> dict[str, str]:
        """What the page of each URL was decoded in."""
        return {row["metadata"]["url"]: row["metadata"]["charset"] for row in self._rows}

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        return [row for file in sorted(self.folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def run_datatrove(crawl: Path, folder: Path, extractor: BaseExtractor) -> Outcome:
    """Runs the pipeline on one WARC file; `folder` is empty."""
    blocks = [
        FastWarcReader(str(crawl.parent), glob_pattern=crawl.name),
        extractor,
        InstalledLanguageFilter(),
        GopherQualityFilter(),
        ParquetWriter(str(folder / "out"), compression="zstd"),
    ]
    executor = LocalPipelineExecutor(blocks, tasks=1, logging_dir=str(folder / "log"))
    with contextlib.redirect_stderr(io.StringIO()):  # its log
        stats = executor.run()
    seconds = {type(block).__name__: timed.time_stats.total for block, timed in zip(blocks, stats.stats, strict=True)}
    return Outcome(folder / "out", seconds, read=stats.stats[0].stats["documents"].total)


def keeps(text: str) -> bool:
    """Whether datatrove's language filter keeps a text."""
    return bool(InstalledLanguageFilter().filter(Document(text=text, id="0")))
