"""Real texts in which personal data is marked, and how rules that find it are scored on them.

The texts lie beside the checkout (../shared/data: 1_crawl, 2_pages, 8_quality) and are never copied into the
repository; the marks (pii_marks.jsonl) are places and hashes. They were set by reading: every `@`, every word that
disguises one, every stretch of six digits and more with what stands around it, in each of these texts, before there was
a rule. A page is its whole text, menus and footers too, since that is where addresses and numbers stand.

What was marked: e-mail addresses (those of offices too), the same in disguise (`name at host dot org`), telephone and
fax numbers, IP addresses, IBANs. Not marked: names of accounts (QQ, Twitter, `@name@host`), numbers of companies and
taxes, bank accounts that are no IBAN. There is no number of a payment card in these texts.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fastwarc.warc import ArchiveIterator, WarcRecordType

from gristmill.stages.text.charset import decode

MARKS = Path(__file__).with_name("pii_marks.jsonl")
DISGUISED = "disguised_email"
"""What is marked apart, and found as an e-mail address."""
_CRAWLS, _TEXTS = ("1_crawl/real/*warc*", "2_pages/pages.warc.gz"), "8_quality/*.jsonl"
_HIDDEN = re.compile(r"<(script|style|noscript|template)\b[^>]*>.*?</\1\s*>|<!--.*?-->", re.DOTALL | re.IGNORECASE)
_BLOCK = re.compile(
    r"</?(?:p|div|br|li|ul|ol|table|tr|td|th|h[1-6]|section|article|header|footer|nav|dd|dt|dl|pre|form|option|select"
    r"|title|blockquote|hr)\b[^>]*>",
    re.IGNORECASE,
)
_TAG = re.compile(r"<[a-zA-Z/!][^>]*>")

Find = tuple[int, int, str]
"""First character, one behind the last, kind."""


class Document(NamedTuple):
    """A text. source: the file it is of; name: its URL, or its line there, from 0."""

    source: str
    name: str
    text: str

    @property
    def digest(self) -> str:
        """By which marks know the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def documents(data: Path) -> Iterator[Document]:
    """Each text once, in order of the files."""
    seen = set()
    for document in _documents(data):
        if document.text and document.digest not in seen:
            seen.add(document.digest)
            yield document


def _documents(data: Path) -> Iterator[Document]:
    for path in (path for pattern in _CRAWLS for path in sorted(data.glob(pattern))):
        try:
            yield from _of_crawl(path)
        except OSError:  # some of these files are cut off on purpose; what stands before the cut was given
            continue
    for path in sorted(data.glob(_TEXTS)):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            yield Document(path.name, str(number), json.loads(line).get("text") or "")


def _of_crawl(path: Path) -> Iterator[Document]:
    with path.open("rb") as stream:
        for record in ArchiveIterator(stream, auto_decode="all"):
            url = record.headers.get("WARC-Target-URI") or ""
            if record.record_type == WarcRecordType.conversion:
                yield Document(path.name, url, record.reader.read().decode("utf-8", "replace"))
            elif record.record_type == WarcRecordType.response and record.http_headers is not None:
                body = record.reader.read()
                if "html" in (record.http_headers.get("Content-Type") or ""):
                    yield Document(path.name, url, whole_text(decode(body, None).text))


def whole_text(page: str) -> str:
    """A page without its tags, blocks a line each. Of its own, so that marks outlive a better extractor."""
    text = html.unescape(_TAG.sub("", _BLOCK.sub("\n", _HIDDEN.sub(" ", page))))
    return re.sub(r" ?\n[ \n]*", "\n", re.sub(r"[ \t\r\xa0]+", " ", text)).strip()


class Mark(NamedTuple):
    """A place that was marked: first character, one behind the last, kind, and a hash of what stands there."""

    start: int
    end: int
    kind: str
    digest: str


def marked(path: Path = MARKS) -> dict[str, tuple[Mark, ...]]:
    """Digest of a text -> its marks, in order; a text without any was read as well."""
    lines = (json.loads(line) for line in path.read_text().splitlines())
    return {line["sha256"]: tuple(Mark(*mark) for mark in line["marks"]) for line in lines}


def span_digest(text: str) -> str:
    """Of what stands at a mark."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Score:
    """Of one kind. `covered`: marks that lie wholly within a find; `right`: finds that meet a mark of their kind;
    `exact`: finds with a mark's very ends."""

    marks: int
    finds: int
    covered: int
    right: int
    exact: int

    @property
    def recall(self) -> float:
        """Share of the marks that are gone from the text as a whole."""
        return self.covered / self.marks if self.marks else 1.0

    @property
    def precision(self) -> float:
        """Share of the finds that are one."""
        return self.right / self.finds if self.finds else 1.0


def scores(
    texts: Iterable[Document], marks: Mapping[str, tuple[Mark, ...]], find: Callable[[str], Iterable[Find]]
) -> dict[str, Score]:
    """By kind, over the texts that were read. Of disguised e-mail addresses finds are those of e-mail."""
    counts: dict[str, Counter[str]] = {}
    for document in texts:
        if document.digest not in marks:
            continue
        own = marks[document.digest]
        finds = list(find(document.text))
        for mark in own:
            kind = "email" if mark.kind == DISGUISED else mark.kind
            count = counts.setdefault(mark.kind, Counter())
            count["marks"] += 1
            count["covered"] += any(s <= mark.start and mark.end <= e and kind == k for s, e, k in finds)
        for start, end, kind in finds:
            met = [
                m
                for m in own
                if start < m.end and m.start < end and kind in (m.kind, m.kind.removeprefix("disguised_"))
            ]
            count = counts.setdefault(met[0].kind if met else kind, Counter())
            count["finds"] += 1
            count["right"] += bool(met)
            count["exact"] += any((start, end) == (m.start, m.end) for m in met)
    fields = ("marks", "finds", "covered", "right", "exact")
    return {kind: Score(*(count[name] for name in fields)) for kind, count in sorted(counts.items())}
