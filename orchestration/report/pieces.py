"""What every section is made of: headings, tables with headers, facts, figures, tiles, and one form for each number.

A table's first column is the header of its rows; on a phone a row is set as lines. What is still too wide scrolls
within itself, and can be reached by keyboard for that. Nothing is shown of what is not there: a piece of no rows is
empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.filesize import decimal

from gristmill.orchestration.report.html import Content, Html, element, escaped, foreign, joined

LONGEST_NAME = 120
"""Characters of a name, a reason, a URL or a value that are shown."""
NARROW = 4
"""Columns up to which a table needs no more than half of a wide page."""
MOST_ROWS = 40
"""Of a table; the rest is counted."""
NOTHING = Html("")


def count(number: float) -> str:
    """12,345."""
    return f"{number:,.0f}"


def size(number: int) -> str:
    """Bytes, decimal: 1.2 MB."""
    return decimal(number)


def span(seconds: float) -> str:
    """45 ms, 2.4 s, 35 s, 12 min 5 s, 3 h 20 min."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def name(text: str) -> Html:
    """A name that others gave: of a dataset, a reason, an address."""
    return foreign(text, LONGEST_NAME)


def anchor(ref: str) -> str:
    """Where a version stands on the page: `web@v3` at `web-v3`."""
    return ref.replace("@", "-").replace("/", "-")


def section(title: str, *content: Content, note: Content = None) -> Html:
    """A part of a version with its heading; nothing where it would be empty. `note`: a sentence below the heading."""
    parts = joined(content)
    if not parts:
        return NOTHING
    about = element("p", note, class_="note") if note else NOTHING
    return element("section", element("h3", title), about, parts)


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Content]], more: int = 0) -> Html:
    """A table. Of `columns` those that end with > hold numbers, with | charts; `more`: rows that are not shown.

    Each cell names its column, too: on a phone a row is set as lines of names and values. Roles are given because a
    browser takes a table's from it where it is laid out otherwise.
    """
    if not rows:
        return NOTHING
    kinds = [{">": "number", "|": "drawn"}.get(column[-1:]) for column in columns]
    names = [column[:1].upper() + column[1:].rstrip(">|") for column in columns]
    heads = [
        element("th", title, scope="col", role="columnheader", class_=kind)
        for title, kind in zip(names, kinds, strict=True)
    ]
    lines = []
    for row in rows:
        cells = [element("th", row[0], scope="row", role="rowheader")]
        for cell, title, kind in zip(row[1:], names[1:], kinds[1:], strict=True):
            if escaped(cell):
                cells.append(element("td", cell, role="cell", class_=kind, data_label=title))
            else:
                cells.append(element("td", role="cell", class_="empty"))
        lines.append(element("tr", *cells, role="row"))
    if more:
        rest = element("td", f"and {more:,} more", colspan=len(columns), class_="dim", role="cell")
        lines.append(element("tr", rest, role="row"))
    parts = (
        element("caption", caption),
        element("thead", element("tr", *heads, role="row"), role="rowgroup"),
        element("tbody", *lines, role="rowgroup"),
    )
    drawn = element("table", *parts, role="table", class_="narrow" if len(columns) <= NARROW else None)
    return element("div", drawn, class_="scroll", tabindex=0, role="region", aria_label=f"Table: {caption}")


def facts(pairs: Mapping[str, Content]) -> Html:
    """Names and values."""
    items = [element("div", element("dt", key), element("dd", value)) for key, value in pairs.items()]
    return element("dl", *items, class_="facts") if items else NOTHING


def tiles(pairs: Sequence[tuple[str, str, str]]) -> Html:
    """Figures to see first: (name, number, what it means)."""
    cards = [
        element("div", element("dt", key), element("dd", element("b", value), element("span", about, class_="dim")))
        for key, value, about in pairs
    ]
    return element("dl", *cards, class_="tiles") if cards else NOTHING


def figure(caption: Content, *content: Html, class_: str = "") -> Html:
    """A chart or a picture with its caption; nothing without one."""
    parts = joined(content)
    if not parts:
        return NOTHING
    return element("figure", parts, element("figcaption", caption), class_=class_ or None)


def side_by_side(figures: Sequence[Html], class_: str = "charts") -> Html:
    """Figures in as many columns as there is room for."""
    return element("div", *figures, class_=class_) if any(figures) else NOTHING


def folded(title: Content, *content: Html, open_: bool = False) -> Html:
    """What is unfolded on a click; nothing where it would be empty."""
    parts = joined(content)
    return element("details", element("summary", title), parts, open=open_) if parts else NOTHING


def remark(text: str) -> Html:
    """A sentence that is worth knowing."""
    return element("p", element("strong", "Note: "), text, class_="note")


def caution(text: str) -> Html:
    """A sentence that has to be seen."""
    return element("p", element("strong", "Caution: "), text, class_="caution")
