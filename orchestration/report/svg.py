"""Charts as inline SVG: bars and intervals that stand in the cells of tables, histograms, and lines over steps.

What stands in a cell is drawn in per cent of its width, so that it fits a phone as well as a wall; whole charts are
drawn for a phone's width and set beside each other where there is more room, so that their letters stay readable.
Colour is by class and never says anything alone: marks have titles, lines a dash of their own. Numbers of charts stand
in a table or in their description as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gristmill.orchestration.report.html import Html, element, joined

WIDTH, HEIGHT = 360, 220
"""Of a whole chart, in units of its drawing."""
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 10, 38
"""Room around the area that the axes frame."""
POINTS = 400
"""Of a line, at most."""
TICKS = 6
MOST_LABEL = 1000
"""Characters of a chart's description."""
_BAR, _DOT = 14, 16
"""Heights in a cell."""


@dataclass(frozen=True)
class Part:
    """A part of a bar. `share`: of its whole width, 0 to 1; `kind`: its class; `title`: what it says on being pointed
    at."""

    share: float
    kind: str
    title: str


@dataclass(frozen=True)
class Series:
    """A line of a chart, points with finite values joined in order. `kind`: its class."""

    name: str
    kind: str
    xs: Sequence[float]
    ys: Sequence[float]


def bar(*parts: Part) -> Html:
    """Parts of a bar side by side; one that is not nothing is at least a hair wide."""
    rects, at = list[Html](), 0.0
    for part in parts:
        if part.share > 0:
            width = max(100 * min(part.share, 1.0), 0.4)
            place = {"x": f"{min(at, 99.6):.2f}%", "width": f"{width:.2f}%"}
            rects.append(element("rect", element("title", part.title), class_=part.kind, height=_BAR, **place))
            at += 100 * part.share
    return element("svg", *rects, class_="bar", height=_BAR, role="img", aria_label="; ".join(p.title for p in parts))


def interval(value: float, low: float, high: float, title: str, kind: str = "kept") -> Html:
    """A share with its interval on a line from 0 to 1."""
    at, start, end = (f"{min(max(100 * x, 0.0), 100.0):.2f}%" for x in (value, low, high))
    middle = _DOT / 2
    lines = [
        element("line", x1="0%", x2="100%", y1=middle, y2=middle, class_="rail"),
        element("line", x1=start, x2=end, y1=middle, y2=middle, class_=f"whisker {kind}"),
        *(element("line", x1=x, x2=x, y1=middle - 4, y2=middle + 4, class_=f"whisker {kind}") for x in (start, end)),
        element("circle", cx=at, cy=middle, r=4, class_=kind),
    ]
    return element("svg", element("title", title), *lines, class_="bar", height=_DOT, role="img", aria_label=title)


def ticks(low: float, high: float, most: int = TICKS) -> list[float]:
    """Round numbers from `low` to `high`, at most about `most`: steps of 1, 2 or 5 times a power of ten."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * unit for unit in (1, 2, 5, 10) if power * unit >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def short(value: float) -> str:
    """A number for an axis: 0.25, 1,500, 20k, 3.5M, 2e-05."""
    size = abs(value)
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if size >= 10 * scale or (size >= scale and unit != "k"):
            return f"{value / scale:.3g}{unit}"
    if size >= 1000:
        return f"{value:,.0f}"
    return "0" if value == 0 else f"{value:.3g}"


def columns(title: str, rows: Sequence[tuple[str, float]], across: str, kind: str = "kept") -> Html:
    """A histogram of (label, count). `across`: what the labels are."""
    top = max((count for _, count in rows), default=0) or 1
    frame = _Frame(0, len(rows), 0, top)
    whole = sum(count for _, count in rows) or 1
    marks = [*frame.axis_y("records")]
    stride = -(-len(rows) // 7)
    for number, (label, count) in enumerate(rows):
        left, right, up = frame.x(number + 0.08), frame.x(number + 0.92), frame.y(count)
        say = element("title", f"{label}: {count:,.0f} ({count / whole:.1%})")
        place = {"x": f"{left:.1f}", "y": f"{up:.1f}", "width": f"{right - left:.1f}"}
        marks.append(element("rect", say, class_=kind, height=f"{frame.y(0) - up:.1f}", **place))
        if number % stride == 0:
            marks.append(frame.label_x(frame.x(number + 0.5), label))
    marks.append(frame.name_x(across))
    words = ", ".join(f"{label}: {count:,.0f}" for label, count in rows)
    return _chart(f"{title}: {words}", marks)


def lines(title: str, series: Sequence[Series], across: str, up: str, marks: Sequence[tuple[float, str]] = ()) -> Html:
    """Lines over a common axis; nothing but an empty string where no point is finite. `marks`: upright lines at these
    places, each with what it says."""
    points = {each.name: _thinned(each) for each in series}
    every = [point for line in points.values() for point in line]
    if not every:
        return Html("")
    (left, right), (low, high) = _range([x for x, _ in every]), _range([y for _, y in every])
    frame = _Frame(left, right, low, high)
    drawn = [*frame.axis_y(up), *frame.axis_x(across)]
    for place, say in marks:
        at = f"{frame.x(place):.1f}"
        drawn.append(
            element("line", element("title", say), x1=at, x2=at, y1=TOP, y2=HEIGHT - BOTTOM, class_="mark", role="img")
        )
    about = []
    for each in series:
        line = points[each.name]
        if line:
            path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in line)
            last = f"{each.name}: {line[0][1]:.4g} at {short(line[0][0])}, {line[-1][1]:.4g} at {short(line[-1][0])}"
            drawn.append(element("polyline", element("title", last), points=path, class_=f"line {each.kind}"))
            about.append(last)
    return _chart(f"{title}, {up} by {across}. {'; '.join(about)}", drawn)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The least and the largest value, apart."""
    low, high = min(values), max(values)
    if low == high:
        return low - (abs(low) or 1) * 0.5, high + (abs(high) or 1) * 0.5
    return low, high


def _thinned(series: Series) -> list[tuple[float, float]]:
    """The points with finite values, at most POINTS of them, the last one among them."""
    finite = [(x, y) for x, y in zip(series.xs, series.ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
    stride = -(-len(finite) // POINTS) or 1
    return finite[(len(finite) - 1) % stride :: stride] if finite else []


@dataclass(frozen=True)
class _Frame:
    """The area of a chart: from values to places in the drawing."""

    left: float
    right: float
    low: float
    high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.left) / (self.right - self.left) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)

    def axis_y(self, name: str) -> list[Html]:
        """Lines across with their numbers, and what they count at the very left."""
        drawn = []
        for value in ticks(self.low, self.high):
            at = f"{self.y(value):.1f}"
            drawn.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, class_="grid"))
            drawn.append(_text(LEFT - 5, self.y(value) + 3.5, short(value), "end"))
        middle = (TOP + HEIGHT - BOTTOM) / 2
        drawn.append(
            element(
                "text", name, x=10, y=middle, class_="name", text_anchor="middle", transform=f"rotate(-90 10 {middle})"
            )
        )
        return drawn

    def axis_x(self, name: str) -> list[Html]:
        """Numbers below, and what they are."""
        return [
            *(self.label_x(self.x(value), short(value)) for value in ticks(self.left, self.right)),
            self.name_x(name),
        ]

    def label_x(self, at: float, text: str) -> Html:
        return _text(at, HEIGHT - BOTTOM + 14, text, "middle")

    def name_x(self, name: str) -> Html:
        at = (LEFT + WIDTH - RIGHT) / 2
        return element("text", name, x=at, y=HEIGHT - 6, class_="name", text_anchor="middle")


def _text(x: float, y: float, text: str, anchor: str) -> Html:
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _chart(words: str, marks: Sequence[Html]) -> Html:
    box = f"0 0 {WIDTH} {HEIGHT}"
    return element("svg", joined(marks), class_="chart", viewBox=box, role="img", aria_label=words[:MOST_LABEL])
