"""Pages that a quality filter should drop, one fault each. Notable choices:

- the reasons named are the families of reason a default English pipeline may give;
- a page has one fault, strongly: these test that the filter works, not where its threshold lies.
"""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from gristmill.synth.draw import Draw

_GOODS = [
    "shoes",
    "watches",
    "mattress",
    "laptop",
    "casino",
    "perfume",
    "handbag",
    "insurance",
    "sunglasses",
    "vitamins",
    "loans",
    "sneakers",
]
_HYPE = [
    "cheap",
    "best",
    "buy",
    "discount",
    "online",
    "sale",
    "free",
    "shipping",
    "bonus",
    "deal",
    "price",
    "outlet",
    "top",
    "offer",
    "official",
]
_LATIN = [
    "lorem",
    "ipsum",
    "dolor",
    "sit",
    "amet",
    "consectetur",
    "adipiscing",
    "elit",
    "sed",
    "do",
    "eiusmod",
    "tempor",
    "incididunt",
    "ut",
    "labore",
    "et",
    "dolore",
    "magna",
    "aliqua",
    "enim",
    "ad",
    "minim",
    "veniam",
    "quis",
    "nostrud",
    "exercitation",
    "ullamco",
    "laboris",
    "nisi",
    "aliquip",
    "ex",
    "ea",
    "commodo",
    "consequat",
    "duis",
    "aute",
    "irure",
    "in",
    "reprehenderit",
    "voluptate",
    "velit",
    "esse",
    "cillum",
    "fugiat",
    "nulla",
    "pariatur",
    "excepteur",
    "sint",
    "occaecat",
]
_PEOPLE = ("teacher", "baker", "neighbour", "postman")
_ACTIONS = ["Download", "Open", "Compare", "Refresh", "Browse", "Install", "Bookmark", "Track"]


@dataclass(frozen=True)
class Spam:
    """A page with one fault: `text` is its body as lines, `html` the same as markup."""

    kind: str
    title: str
    text: str
    html: str
    reasons: tuple[str, ...]


def _run(draw: Draw, words: list[str], n: int) -> str:
    return " ".join(draw.pick(words) for _ in range(n))


def _paragraphs(lines: list[str]) -> str:
    return "\n".join(f"<p>{escape(line)}</p>" for line in lines)


def _keywords(draw: Draw) -> tuple[list[str], str, tuple[str, ...]]:
    goods = [draw.pick(_GOODS), draw.pick(_GOODS), *_HYPE]
    lines = [_run(draw, goods, draw.between(25, 60)) for _ in range(draw.between(4, 8))]
    return lines, _paragraphs(lines), ("language", "gopher_quality.too_few_stop_words")


def _link_farm(draw: Draw) -> tuple[list[str], str, tuple[str, ...]]:
    lines = [f"{_run(draw, _HYPE, 2)} {draw.pick(_GOODS)} {draw.between(1, 999)}" for _ in range(draw.between(40, 90))]
    html = "\n".join(f'<a href="http://shop{i}.example/{i}">{line}</a><br>' for i, line in enumerate(lines))
    return (
        lines,
        html,
        (
            "language",
            "gopher_quality.too_few_words",
            "gopher_quality.too_few_stop_words",
            "gopher_quality.too_few_alpha_words",
            "extract",
        ),
    )


def _bullets(draw: Draw) -> tuple[list[str], str, tuple[str, ...]]:
    items = [
        f"{draw.pick(_ACTIONS)} the {draw.pick(_HYPE)} {draw.pick(_GOODS)} of the day and be ready"
        for _ in range(draw.between(50, 80))  # enough that heading and blank lines stay under a tenth
    ]
    lines = [f"• {item}" for item in items]
    html = "<p>" + "<br>\n".join(escape(line) for line in lines) + "</p>"
    return lines, html, ("language", "gopher_quality.too_many_bullets")


def _lorem(draw: Draw) -> tuple[list[str], str, tuple[str, ...]]:
    lines = [_run(draw, _LATIN, draw.between(30, 80)).capitalize() + "." for _ in range(draw.between(3, 7))]
    return lines, _paragraphs(lines), ("language", "gopher_quality.too_few_stop_words")


def _stub(draw: Draw) -> tuple[list[str], str, tuple[str, ...]]:
    lines = [f"Sorry, the page about {draw.pick(_GOODS)} has not been written yet. Please come back in a few days."]
    return lines, _paragraphs(lines), ("gopher_quality.too_few_words", "extract", "language")


def _symbols(draw: Draw) -> tuple[list[str], str, tuple[str, ...]]:
    lines = [
        f"The {draw.pick(_GOODS)} that we have is the #{draw.pick(_HYPE)} #{draw.pick(_GOODS)} ### of #week"
        for _ in range(draw.between(8, 20))
    ]
    return lines, _paragraphs(lines), ("language", "gopher_quality.too_many_hashes")


def _teasers(draw: Draw) -> tuple[list[str], str, tuple[str, ...]]:
    lines = [
        f"You will not believe what happened to the {draw.pick(_GOODS)} of this {draw.pick(_PEOPLE)}..."
        for _ in range(draw.between(9, 20))
    ]
    reasons = ("gopher_quality.too_many_ellipsis_lines", "gopher_quality.too_many_ellipses")
    return lines, _paragraphs(lines), reasons


_MAKERS: dict[str, Callable[[Draw], tuple[list[str], str, tuple[str, ...]]]] = {
    "keyword_stuffing": _keywords,
    "link_farm": _link_farm,
    "bullet_list": _bullets,
    "lorem_ipsum": _lorem,
    "stub": _stub,
    "symbol_noise": _symbols,
    "ellipsis_teasers": _teasers,
}
KINDS = tuple(_MAKERS)


def spam(kind: str, draw: Draw) -> Spam:
    """A page of one of KINDS; KeyError for another."""
    lines, html, reasons = _MAKERS[kind](draw)
    title = f"{draw.pick(_HYPE)} {draw.pick(_GOODS)} {draw.between(2, 99)}".capitalize()
    return Spam(kind, title, "\n".join(lines), html, reasons)
