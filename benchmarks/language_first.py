"""`python -m benchmarks.language_first [METHOD ...]`: how a language told before the extraction (`language_first`)
agrees with the one that the language filter tells of the text, on all real pages in ../shared/data. Prints a table.

A page is lost if it is dropped before though the label of its text is a wanted one, whatever its score: so no
`min_score` could have kept it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from benchmarks.material import SHARED
from gristmill.filters.language import LanguageFilter
from gristmill.filters.pages.language_first import LanguageFirst
from gristmill.filters.text.docs import Docs
from gristmill.stages.containers import ReadConfig, Record, UnsupportedContainer, detect, read, scan
from gristmill.stages.text.charset import decode
from gristmill.stages.text.extract import HEAD_BYTES, Extract, ExtractWanted
from gristmill.stages.text.html import METHODS, ExtractConfig, is_html

FILES = ("2_pages/pages.warc.gz", "1_crawl/real/*")


@dataclass(frozen=True)
class Agreement:
    """Over `pages` of which a text came out. `unwanted`: those whose text is in no wanted language; `early`: of these,
    those dropped before; `lost`: URLs of those dropped before whose text is in a wanted one; `relabelled`: of those
    dropped before, how many have another label after."""

    pages: int
    unwanted: int
    early: int
    lost: tuple[str, ...]
    relabelled: int


def real_pages() -> list[Record]:
    """All HTML pages with status 200 of the crawls at hand."""
    files = [path for pattern in FILES for path in sorted(SHARED.glob(pattern))]
    return [item for path in files for item in _pages_of(path)]


def _pages_of(path: Path) -> Iterator[Record]:
    try:
        with path.open("rb") as stream:
            kind = detect(path.name, stream.read(4096))
    except UnsupportedContainer:
        return
    with path.open("rb") as stream:
        spans = scan(stream, kind).spans
    for item in read(partial(_open, path), spans, kind, ReadConfig()):
        if not isinstance(item, Record) or item.kind != "page" or item.http_status != 200:
            continue
        if item.payload and is_html(item.content_type, item.payload[:HEAD_BYTES]):
            yield item


def _open(path: Path, offset: int) -> BinaryIO:
    stream = path.open("rb")
    stream.seek(offset)
    return stream


def texts_of(pages: Sequence[Record], method: str) -> list[str | None]:
    """What an extractor takes for the text of each page, however it ends."""
    stage = Extract(html=ExtractConfig(method=method), truncated="keep")  # type: ignore[arg-type]
    return [stage.judge(page).text for page in pages]


def agreement(pages: Sequence[Record], texts: Sequence[str | None], keep: Sequence[str]) -> Agreement:
    """Of pages with their texts."""
    language = LanguageFilter(keep=tuple(keep), min_score=None)
    stage = ExtractWanted.of(Extract(language_first=LanguageFirst(), truncated="keep"), language)
    rows = [(page, text) for page, text in zip(pages, texts, strict=True) if text is not None]
    labels = language.measure(Docs(pa.array([text for _, text in rows], pa.string())))["language"].to_pylist()
    lost, unwanted, early, relabelled = list[str](), 0, 0, 0
    for (page, _), label in zip(rows, labels, strict=True):
        before = stage.unwanted(page.payload, decode(page.payload, page.charset))
        unwanted += label not in keep
        early += before is not None and label not in keep
        relabelled += before is not None and before.split()[0] != label
        if before is not None and label in keep:
            lost.append(page.url or "")
    return Agreement(len(rows), unwanted, early, tuple(lost), relabelled)


def main(methods: Sequence[str]) -> None:
    """A line for each extractor, with English wanted; then all pages that are lost where another language is."""
    pages = real_pages()
    print(f"{len(pages)} pages\nextractor    texts  not English  dropped before  lost  relabelled")
    for method in methods:
        texts = texts_of(pages, method)
        of_english = agreement(pages, texts, ["en"])
        counts = (of_english.pages, of_english.unwanted, of_english.early, len(of_english.lost), of_english.relabelled)
        print(f"{method:12}", *(f"{count:6}" for count in counts))
        for language, count in languages(texts).most_common():
            its = agreement(pages, texts, [language])
            print(f"  wanted {language} ({count}): {its.early} of {its.unwanted} dropped before; lost: {its.lost or 0}")


def languages(texts: Sequence[str | None]) -> Counter[str]:
    """How many texts have each label."""
    docs = Docs(pa.array([text for text in texts if text is not None], pa.string()))
    labels = LanguageFilter(keep=()).measure(docs)["language"].to_pylist()
    return Counter(label for label in labels if label is not None)


if __name__ == "__main__":
    main(sys.argv[1:] or METHODS)
