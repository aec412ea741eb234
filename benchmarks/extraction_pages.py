"""Real pages whose main text people have marked, and how an extractor is scored on them.

The pages lie beside the checkout (../shared/data/2_pages; its README says whose they are) and are never copied into
the repository. Two kinds of marks: snippets that an extractor must keep and others that it must not (trafilatura's
evaluation), and whole texts (scrapinghub's and Readability's).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from fastwarc.warc import ArchiveIterator, WarcRecordType

from gristmill.stages.text.charset import decode
from gristmill.stages.text.html import is_html

PAGES, MARKS = Path("2_pages/pages.warc.gz"), Path("2_pages/pages.gold.jsonl")
CRAWL = Path("1_crawl/real/aut__example.warc.gz")
_SPACE = re.compile(r"\s+")
_BETWEEN = re.compile(r"[\W_]+")
_IDEOGRAPH = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")


@dataclass(frozen=True)
class Page:
    """A page and its marks; a page without any is one whose main text nobody has marked."""

    url: str
    html: str
    keeps: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    main_text: str = ""

    @property
    def host(self) -> str:
        """By which pages are parted into those to learn from and those to be judged by."""
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True)
class Score:
    """Of an extractor over pages. `must_contain`: share of the snippets to keep that it kept; `leak`: of those to drop
    that it kept; `f1`: of both as recall and precision; `words`: mean F1 of words on pages with a whole text; `empty`:
    pages of which it kept nothing."""

    f1: float
    must_contain: float
    leak: float
    words: float
    empty: int


def marked_pages(data: Path) -> list[Page]:
    """The pages with marks, in the order of the file."""
    bodies = dict(bodies_of(data / PAGES))
    pages = []
    for line in (data / MARKS).read_text(encoding="utf-8").splitlines():
        mark = json.loads(line)
        html = decode(bodies[mark["url"]], None).text
        keeps, drops = tuple(mark["must_contain"] or ()), tuple(mark["must_not_contain"] or ())
        pages.append(Page(mark["url"], html, keeps, drops, mark["main_text"] or ""))
    return pages


def unmarked_pages(data: Path) -> list[Page]:
    """Pages of a crawl, each text once."""
    pages = {body: Page(url, decode(body, None).text) for url, body in bodies_of(data / CRAWL)}
    return list(pages.values())


def bodies_of(path: Path) -> Iterable[tuple[str, bytes]]:
    """(URL, body) of each response of a WARC file that is a page."""
    with path.open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
            url = record.headers.get("WARC-Target-URI") or ""
            if record.http_headers is None or record.http_headers.status_code != 200:
                continue
            body = record.reader.read()
            if body and is_html(record.http_content_type, body[:2048]):
                yield url, body


def score(pages: Sequence[Page], texts: Mapping[str, str]) -> Score:
    """What an extractor's texts (URL -> text) come to."""
    kept = wanted = leaked = unwanted = 0
    words = []
    for page in pages:
        text = _SPACE.sub(" ", texts[page.url])
        kept += sum(_SPACE.sub(" ", snippet).strip() in text for snippet in page.keeps)
        leaked += sum(_SPACE.sub(" ", snippet).strip() in text for snippet in page.drops)
        wanted, unwanted = wanted + len(page.keeps), unwanted + len(page.drops)
        if page.main_text:
            words.append(word_f1(texts[page.url], page.main_text))
    recall, precision = kept / max(wanted, 1), kept / max(kept + leaked, 1)
    return Score(
        f1=2 * recall * precision / max(recall + precision, 1e-9),
        must_contain=recall,
        leak=leaked / max(unwanted, 1),
        words=float(np.mean(words)) if words else 0.0,
        empty=sum(not texts[page.url].strip() for page in pages),
    )


def word_f1(text: str, wanted: str) -> float:
    """F1 of two bags of words."""
    counts: dict[str, int] = {}
    for word in words_of(wanted):
        counts[word] = counts.get(word, 0) + 1
    expected, words = sum(counts.values()), words_of(text)
    same = 0
    for word in words:
        if counts.get(word, 0) > 0:
            counts[word] -= 1
            same += 1
    return 2 * same / max(expected + len(words), 1)


def words_of(text: str) -> list[str]:
    """Words in lower case; of Chinese and Japanese, characters."""
    words: list[str] = []
    for word in re.findall(r"\w+", text.lower()):
        words += word if _IDEOGRAPH.search(word) else [word]
    return words


def letters_of(text: str) -> str:
    """Letters and digits alone, in lower case: what is left of a text whatever an extractor does with its spaces."""
    return _BETWEEN.sub("", text.lower())
