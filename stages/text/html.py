"""HTML: what is a page, and its text.

Three extractors by name: resiliparse's, trafilatura's, and our own trained one (`filters.extraction`), which goes over
a page's bytes once; docs/extraction.md has what each keeps and misses, and how long it takes. Where one takes a whole
page for boilerplate, the text is that of the whole page, and says so. Of the text only newlines and control characters
are changed (no NFC: what the page wrote is what is judged, hashed and kept). A formula comes once: as TeX where the
page has TeX, as OpenWebMath and its like have formulas. Ours is one pass over its input, whatever the page; what takes
resiliparse's parser more than that is counted before, and refused; trafilatura has the deadline of its record.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from typing import Literal, NamedTuple

from resiliparse.extract.html2text import extract_plain_text

from gristmill.filters.extraction.extractor import main_text, whole_text
from gristmill.stages.text import complexity
from gristmill.stages.text.charset import BOMS
from gristmill.stages.text.formulas import RENDERED, once

METHODS = ("resiliparse", "trained", "trafilatura")
OPTIONS = {
    "resiliparse": frozenset(
        {"preserve_formatting", "list_bullets", "alt_texts", "links", "form_fields", "noscript", "comments"}
    ),
    "trained": frozenset({"list_bullets"}),
    "trafilatura": frozenset(),
}
"""Switches that an extractor has, beside `main_content`; the others stay as they are by default."""
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff]")
_NEWLINE = re.compile("[\r\x85\u2028\u2029](?:(?<=\r)\n)?")  # one set at its start is searched for fastest
_MATH = re.compile("<(?:math|MATH)")

_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml", "application/vnd.wap.xhtml+xml"})
_XML_TYPES = frozenset({"text/xml", "application/xml"})
_NO_TYPES = frozenset({"", "unknown", "unknown/unknown", "application/unknown", "*/*", "application/octet-stream"})
_BINARY = re.compile(
    rb"%PDF-|\x89PNG|GIF8|\xff\xd8\xff|PK\x03\x04|\x1f\x8b|RIFF|Rar!|\xd0\xcf\x11\xe0|\x00\x00\x01\x00|OggS|ID3|BM.{4}\0\0"
)
# the tags by which browsers know HTML without a type (https://mimesniff.spec.whatwg.org/#identifying-a-resource-with-an-unknown-mime-type)
_SNIFF = re.compile(
    rb"(?:(?><!--.*?-->)|<\?xml[^>]*+>|\s++)*+"
    rb"<(?:!doctype html|html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p|meta|link)[\s>/]",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class ExtractConfig:
    """`main_content`: without navigation, sidebars, footers. `max_nesting`: how deep blocks may stand in one another
    for resiliparse (time grows with its square: 0.05 s at 2,000, 12 s at 20,000; browsers stop at 512). The others are
    resiliparse's; of these the trained extractor has `list_bullets`. trafilatura leaves out comments of readers.
    """

    method: Literal["resiliparse", "trained", "trafilatura"] = "resiliparse"
    main_content: bool = True
    preserve_formatting: bool = True
    list_bullets: bool = True
    alt_texts: bool = False
    links: bool = False
    form_fields: bool = False
    noscript: bool = False
    comments: bool = True
    max_nesting: int = 2000

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method={self.method!r}: allowed are {METHODS}")
        for name, value in vars(self).items():
            if name not in ("method", "max_nesting") and not isinstance(value, bool):
                raise ValueError(f"{name}={value!r}: true or false is needed")
        if self.max_nesting < 1:
            raise ValueError(f"max_nesting={self.max_nesting}: at least 1")
        for option in fields(self):
            is_switch = option.name not in ("method", "main_content", "max_nesting", *OPTIONS[self.method])
            if is_switch and getattr(self, option.name) != option.default:
                raise ValueError(f"{option.name}={getattr(self, option.name)}: {self.method} has no such switch")
        if self.method == "trafilatura" and find_spec("trafilatura") is None:
            raise ValueError("method='trafilatura' needs trafilatura: pip install 'gristmill[trafilatura]'")


def is_html(content_type: str | None, head: bytes) -> bool:
    """Whether to extract: by the declared type unless the first bytes (2,048 will do) belie it; by them if none."""
    media = (content_type or "").split(";")[0].strip().lower()
    for bom, _ in BOMS:
        head = head.removeprefix(bom)
    if _BINARY.match(head):
        return False
    if media in _HTML_TYPES:
        return True
    plain = head.replace(b"\0", b"")  # UTF-16
    if media in _XML_TYPES:
        return re.search(rb"<html[\s>]", plain, re.IGNORECASE) is not None
    return media in _NO_TYPES and _SNIFF.match(plain) is not None


class PageText(NamedTuple):
    """The text of a page, "" when there is none. `whole`: the whole page's, because no part of it passed for its main
    content."""

    text: str
    whole: bool = False


def page_text(html: str, config: ExtractConfig) -> PageText:
    """The text of a page: of its main content, if that is asked for and the page has any, else of all of it.

    Raises TooComplex.
    """
    text = extract(html, config)
    if text or not config.main_content:
        return PageText(text)
    text = extract(html, replace(config, main_content=False))
    return PageText(text, whole=bool(text))


def extract(html: str, config: ExtractConfig) -> str:
    """What the extractor takes for the text, lines ended by one newline and not by blanks; "" when there is none.

    Raises TooComplex.
    """
    return clean(_EXTRACTORS[config.method](html, config))


def _by_resiliparse(html: str, config: ExtractConfig) -> str:
    complexity.check(html, config.max_nesting)
    formulas = _MATH.search(html) is not None
    text: str = extract_plain_text(
        once(html) if formulas else html,
        preserve_formatting=config.preserve_formatting,
        main_content=config.main_content,
        list_bullets=config.list_bullets,
        alt_texts=config.alt_texts,
        links=config.links,
        form_fields=config.form_fields,
        noscript=config.noscript,
        comments=config.comments,
        skip_elements=RENDERED if formulas else None,
    )
    return text


def _by_model(html: str, config: ExtractConfig) -> str:
    text = main_text if config.main_content else whole_text
    return text(html, config.list_bullets)


def _by_trafilatura(html: str, config: ExtractConfig) -> str:
    """What it takes for the main text; of a page of which it takes nothing, and where all is asked for, all of it."""
    import trafilatura  # an extra

    if config.main_content:
        return trafilatura.extract(html, include_comments=False) or ""
    return whole_text(html, config.list_bullets)


_EXTRACTORS: dict[str, Callable[[str, ExtractConfig], str]] = {
    "resiliparse": _by_resiliparse,
    "trained": _by_model,
    "trafilatura": _by_trafilatura,
}


def clean(text: str) -> str:
    """Newlines of all kinds to one, blanks before them and control characters away, nothing else."""
    lines = _NEWLINE.sub("\n", _CONTROLS.sub("", text)).split("\n")
    return "\n".join([line.rstrip(" \t") for line in lines]).strip()
