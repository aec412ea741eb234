"""Drawing of listings, and the pieces that every drawing is made of: tables without lines, bars, facts.

Numbers have thousands separators and stand right; sizes are decimal (1 MB = 10^6 bytes); times are UTC. Bars are
drawn with eighths of a block, so that a reason of half a per cent still shows. Tables fold their widest text
column first, and read well from 80 columns on; below, their lines run on rather than cut an id or a version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.filesize import decimal
from rich.measure import Measurement
from rich.padding import Padding
from rich.rule import Rule
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from gristmill.lake.query.query import DatasetRow, VersionRow
from gristmill.lake.query.why import Place
from gristmill.orchestration.show.terminal import plain
from gristmill.stages.run.progress import counted as counted

EIGHTHS = " ▏▎▍▌▋▊▉█"
BAR = 20
WIDE = 110
"""Columns from which a listing has everything on one line."""
SHOWN = 10
"""Inputs, shards or origins listed one by one before the rest is counted."""


def bar(part: float, whole: float, width: int = BAR) -> str:
    """`part` of `whole` as blocks; never empty for a part that is not zero."""
    if part <= 0 or whole <= 0:
        return ""
    eighths = max(1, round(min(part / whole, 1.0) * width * 8))
    return "█" * (eighths // 8) + (EIGHTHS[eighths % 8] if eighths % 8 else "")


def percent(part: float, whole: float) -> str:
    """`part` of `whole` with one decimal: `12.5%`; `<0.1%` where that would round to nothing, `-` of nothing."""
    if not whole:
        return "-"
    share = 100 * part / whole
    return "<0.1%" if 0 < share < 0.05 else f"{share:.1f}%"


def when(at: str | None) -> str:
    """`2026-11-22T00:30:00Z` to the minute."""
    return "-" if at is None else plain(at)[:16].replace("T", " ")


GAP = 2
UNBOUNDED = 10_000
LONGEST_WORD = 32
"""Characters of a word that a folding column does not break: an id has so many, a URL more."""
DIGEST = 64


class Grid(Table):
    """Lines run on where a terminal is too narrow: a cell is whole, or folded. Only bars are cut, visibly.

    Where all cells fit, as those of a listing do, lines are put together here: rich takes a second for a thousand.
    """

    longest = LONGEST_WORD

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(options.max_width, self.needed(console))
        widths = self._natural_widths()
        if widths is not None and sum(widths) + GAP * (len(widths) - 1) <= width:
            yield from self._lines(console, widths)
        else:
            yield from super().__rich_console__(console, options.update_width(width))

    def needed(self, console: Console) -> int:
        """Columns below which this would cut a cell; makes every column keep what it needs."""
        options = console.options.update_width(UNBOUNDED)
        for column in self.columns:
            cells = [column.header, *column.cells] if self.show_header else list(column.cells)
            sizes = [_size(cell) or Measurement.get(console, options, cell) for cell in cells]
            if column.overflow == "fold":
                column.min_width = max((self._unbroken(size) for size in sizes), default=0)
            elif column.overflow == "crop":
                column.min_width = max((size.maximum for size in sizes), default=0)
        return sum(column.min_width or 0 for column in self.columns) + GAP * (len(self.columns) - 1)

    def _unbroken(self, size: Measurement) -> int:
        """What a folding column needs so as not to break a word: all of a short text, with what it is indented by."""
        return size.maximum if size.maximum <= self.longest else min(size.minimum, self.longest)

    def _natural_widths(self) -> list[int] | None:
        """Of the columns with each cell on one line; None where a cell is more than a line of text."""
        widths = []
        for column in self.columns:
            sizes = [_size(cell) for cell in ((column.header, *column.cells) if self.show_header else column.cells)]
            if None in sizes or not any(size.maximum for size in sizes if size is not None):
                return None
            widths.append(max(size.maximum for size in sizes if size is not None))
        return widths

    def _lines(self, console: Console, widths: Sequence[int]) -> Iterable[Segment]:
        """Header and rows, each cell padded to its column's width, as rich would draw them."""
        rows = [
            (row.style, cells)
            for row, *cells in zip(self.rows, *(column.cells for column in self.columns), strict=True)
        ]
        if self.show_header:
            rows.insert(0, (self.header_style, [column.header for column in self.columns]))
        for style, cells in rows:
            base = console.get_style(style) if style else None
            for at, (column, cell, width) in enumerate(zip(self.columns, cells, widths, strict=True)):
                drawn = [Segment(cell)] if isinstance(cell, str) else _segments(console, cell)
                blanks = " " * (width - Segment.get_line_length(drawn))
                gap = " " * GAP if at < len(widths) - 1 else ""
                before, after = (blanks, gap) if column.justify == "right" else ("", blanks + gap)
                segments = [Segment(before), *drawn, Segment(after)]
                yield from Segment.apply_style(filter(_is_filled, segments), base)
            yield Segment.line()


def _segments(console: Console, text: Text) -> list[Segment]:
    """A line of text; one without spans renders without its own style."""
    if text.spans:
        return list(text.render(console))
    return [Segment(text.plain, console.get_style(text.style) if text.style else None)]


def _is_filled(segment: Segment) -> bool:
    return bool(segment.text)


def _size(cell: Any) -> Measurement | None:
    """Columns that a text takes, whole and by its longest word; None for what is more than a line of plain text."""
    text = cell if isinstance(cell, str) else cell.plain if isinstance(cell, Text) else None
    if text is None or not text.isprintable():
        return None
    return Measurement(max(map(cell_len, text.split()), default=0), cell_len(text))


def grid(*columns: str, longest: int = LONGEST_WORD) -> Grid:
    """A table without lines. A column is its header; one that ends in ">" stands right, in "~" it folds (words up to
    `longest` stay whole), in "|" it is a bar, which may be cut."""
    table = Grid(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
    for header in columns:
        justify: JustifyMethod = "right" if header.endswith(">") else "left"
        table.add_column(header.rstrip(">~|"), justify=justify, **_OVERFLOW.get(header[-1:], _WHOLE))
    table.longest = longest
    table.show_header = any(header.rstrip(">~|") for header in columns)
    return table


_WHOLE: dict[str, Any] = {"no_wrap": True, "overflow": "crop"}  # and kept as wide as its cells, so nothing is cropped
_OVERFLOW: dict[str, dict[str, Any]] = {
    "~": {"overflow": "fold"},
    "|": {"no_wrap": True, "overflow": "ellipsis"},  # a bar that is cut must show it
}


def indented(console: Console, text: str | Text) -> None:
    """Prints text whose every line, folded ones too, stands in by two."""
    console.print(Padding(text, (0, 0, 0, 2)))


def ruled(console: Console, title: str) -> None:
    """A title with a rule behind it; alone, and whole, where there is no room for one."""
    text = Text(title, style="bold")
    console.print(Rule(text, align="left", style="dim") if console.width > len(title) + 6 else text)


def heading(console: Console, text: str) -> None:
    """A bold line with an empty one before it."""
    console.print()
    console.print(Text(text, style="bold"))


def draw_datasets(console: Console, rows: Sequence[DatasetRow], uri: str) -> None:
    """`grist ls`: each dataset's latest version, and below it what was withdrawn. `uri`: the lake's address."""
    if not rows:
        console.print(f"{uri} has no datasets yet")
        return
    table = grid("dataset~", "latest", "records>", "size>", "made (UTC)", "tags~")
    for row in rows:
        tags = ", ".join(f"{tag}=v{n}" for tag, n in sorted(row.tags.items()))
        if row.latest is None:
            table.add_row(row.dataset, "-", "-", "-", "-", tags)
        else:
            m = row.latest
            numbers = ("?", "?", "?") if m.problem else (f"{m.kept:,}", decimal(m.bytes), when(m.at))
            table.add_row(row.dataset, f"v{m.version}", *numbers, tags)
        for number, reason in sorted(row.withdrawn.items()):
            table.add_row("", f"v{number}", "", "", "", f"withdrawn: {plain(reason)}", style="yellow")
    console.print(table)


def draw_versions(console: Console, rows: Sequence[VersionRow]) -> None:
    """`grist ls NAME`."""
    table = grid("version", "records>", "shards>", "size>", "made (UTC)", "tags~")
    for row in rows:
        numbers = (f"{row.kept:,}", f"{row.shards:,}", decimal(row.bytes), when(row.at))
        table.add_row(f"v{row.version}", *(("?",) * 4 if row.problem else numbers), _marks(row))
    console.print(table)


def draw_log(console: Console, rows: Sequence[VersionRow]) -> None:
    """`grist log NAME`. On a narrow terminal parent, commit and tags have a line of their own."""
    columns = ("", "made (UTC)", "in>", "kept>", "dropped>", "quar.>", "digest")
    wide = console.width >= WIDE
    table = grid(*columns, *(("parent", "commit", "tags~") if wide else ()))
    beside: list[tuple[str, str, Text]] = []
    for row in rows:
        counts = ["?" if row.problem else f"{n:,}" for n in (row.received, row.kept, row.dropped, row.quarantined)]
        beside.append((_parent(row), _commit(row), _marks(row)))
        table.add_row(f"v{row.version}", when(row.at), *counts, row.digest[:12], *(beside[-1] if wide else ()))
    if wide:
        console.print(table)
        return
    options = console.options.update_width(max(console.width, table.needed(console)))
    # Every cell is one line, so these are the header and the rows.
    lines = console.render_lines(table, options, pad=False)
    for line, (parent, commit, marks) in zip(lines, [("-", "-", Text()), *beside], strict=True):
        console.print(Segments([*line, Segment.line()]), end="")
        about = Text("  ").join(t for t in (_named("parent", parent), _named("commit", commit), marks) if t.plain)
        if about.plain:
            console.print(Padding(about, (0, 0, 0, 6)))


def _named(name: str, value: str) -> Text:
    return Text("" if value == "-" else f"{name} {value}", style="dim")


def _parent(row: VersionRow) -> str:
    own = f"{row.dataset}@"
    return "-" if row.parent is None else row.parent.removeprefix(own)


def _commit(row: VersionRow) -> str:
    return "-" if row.commit is None else row.commit[:8] + ("+" if row.dirty else "")


def _marks(row: VersionRow) -> Text:
    text = Text(", ".join(row.tags), style="cyan")
    if row.problem is not None:
        text.append("; " if row.tags else "").append("its manifest cannot be read", style="red")
    if row.withdrawn is not None:
        text.append("; " if text else "").append(f"withdrawn: {plain(row.withdrawn)}", style="yellow")
    return text


def draw_facts(console: Console, facts: Mapping[str, str]) -> None:
    """Two columns, names and values; values are made harmless for the terminal, and fold."""
    table = grid("", "~", longest=DIGEST)
    for name, value in facts.items():
        table.add_row(Text(name, style="dim"), plain(value))
    console.print(table)


def where(place: Place) -> str:
    """A record's place in words: the input's first name, the record's ordinal from 0, its bytes as decompressed."""
    name = plain(place.names[0]) if place.names else f"input {place.input[:12]} (its name is not recorded)"
    if not place.length:  # of a mixture, whose inputs are shards
        return f"{name}, record {place.ordinal:,}"
    end = place.start + place.length
    return f"{name}, record {place.ordinal:,}, bytes {place.start:,} to {end:,} decompressed"
