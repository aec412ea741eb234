"""Curves in the terminal: the loss of a run with its learning rate below, and the fit of the learning rate's law.

On a terminal that has the characters, curves are dots of braille in colours; in a pipe, a log or a mail they are plain
ASCII with a letter for each curve. Where the axes are logarithmic the labels are powers of ten.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from gristmill.model.runs.curve import LAST, Curve
from gristmill.model.runs.lr_fit import LawFit
from gristmill.orchestration.show.tables import counted, draw_facts, grid, heading

WIDEST = 120
"""Columns that a plot takes at most."""
FOR_LABELS = 12
"""Columns beside a plot that its frame and the labels of its vertical axis need."""
POINTS = 500
"""Of a smooth curve, at most: more than a terminal has columns of dots."""
SHOWN = 8
"""Steps that are listed before the rest is counted."""
_ASCII = str.maketrans("┌┐└┘─│╭╮╰╯", "++++-|++++")


@dataclass(frozen=True)
class Series:
    """Points of a plot. `letter`: what stands for them in ASCII; `line`: whether they are joined."""

    name: str
    letter: str
    xs: Sequence[float]
    ys: Sequence[float]
    line: bool = False


def plot(
    console: Console, series: Sequence[Series], title: str, height: int, *, letters: bool = False, **how: Any
) -> None:
    """Draws series over each other, later ones on top; `how` as uniplot has it. Values that are not finite are left
    out, and nothing is drawn where none is left. `letters`: on a terminal, too, for few points that dots would hide."""
    import uniplot

    series = [whole for whole in map(_finite, series) if whole.xs]
    if not series:
        return
    rich = console.is_terminal and console.encoding.startswith("utf")
    look: dict[str, Any] = {"character_set": "braille", "color": console.is_terminal}
    if letters or not rich:
        look |= {"character_set": "ascii", "force_ascii_characters": [each.letter for each in series]}
    drawing = uniplot.plot_to_string(
        xs=[list(each.xs) for each in series],
        ys=[list(each.ys) for each in series],
        lines=[each.line for each in series],
        legend_labels=[each.name for each in series] if len(series) > 1 else None,
        title=title,
        width=min(console.width, WIDEST) - FOR_LABELS,
        height=height,
        line_length_hard_cap=console.width,
        **{"x_gridlines": [], "y_gridlines": [], **look, **how},
    )
    console.print(Text.from_ansi(drawing if rich else drawing.translate(_ASCII)))


def draw_curve(console: Console, curve: Curve) -> None:
    """The loss of every step and smoothed, the learning rate below, and what else the objective measured; resumes are
    vertical lines, skipped steps marks."""
    draw_facts(console, _facts(curve))
    finite = [loss for loss in curve.losses if math.isfinite(loss)]
    if not finite:
        return
    across: dict[str, Any] = {"x_min": 1, "x_max": max(curve.planned, 2), "x_gridlines": [*map(float, curve.resumed)]}
    stride = -(-len(curve.steps) // POINTS)
    thin = slice((len(curve.steps) - 1) % stride, None, stride)  # with the last one
    skipped = Series("skipped", "!", curve.skipped, [min(finite)] * len(curve.skipped))
    loss = [
        Series("each step", ".", curve.steps, curve.losses),
        Series("smoothed", "o", curve.steps[thin], curve.smoothed[thin], line=True),
        skipped,
    ]
    console.print()
    plot(console, loss, "loss", 14, **across)
    rates = Series("LR", "*", curve.steps[thin], curve.rates[thin], line=True)
    plot(console, [rates], "learning rate", 5, **across)
    for name, values in curve.measures.items():
        series = Series(name, "*", curve.steps[thin], values[thin], line=True)
        plot(console, [series], f"{name.replace('_', ' ')}, smoothed", 5, **across)


def _facts(curve: Curve) -> Mapping[str, str]:
    done = curve.steps[-1]
    smoothed = [loss for loss in curve.smoothed if math.isfinite(loss)]
    facts = {
        "steps": f"{done:,}" if done == curve.planned else f"{done:,} of {curve.planned:,}",
        "loss": f"{curve.final_loss:.4f} over the last {LAST:.0%} of the steps",
    }
    if smoothed:
        facts["smoothed"] = f"{smoothed[0]:.4f} at first, {min(smoothed):.4f} at the lowest, {smoothed[-1]:.4f} last"
    for name, values in curve.measures.items():
        facts[name.replace("_", " ")] = f"{values[0]:.4g} at first, {values[-1]:.4g} last (smoothed)"
    facts["peak LR"] = f"{max(curve.rates):.3g}"
    if curve.resumed:
        facts["resumed"] = f"after step {_listed(curve.resumed)} (vertical lines)"
    if curve.skipped:
        facts["skipped"] = f"{counted(len(curve.skipped), 'step')}: {_listed(curve.skipped)}"
    return facts


def _listed(steps: Sequence[int]) -> str:
    more = f" and {len(steps) - SHOWN:,} more" if len(steps) > SHOWN else ""
    return ", ".join(f"{step:,}" for step in steps[:SHOWN]) + more


def draw_law(console: Console, law: LawFit, losses: str, tokens: Sequence[int]) -> None:
    """The fit of the law: what was tried, the law with its free slope, predictions, and the lines to paste.

    `losses`: which losses were compared, in words; `tokens`: for which a peak LR is wanted.
    """
    heading(console, "Best rates")
    table = grid("  tokens>", "rates tried~", "best LR>", "by the law>", "loss there>")
    for size in law.sizes:
        tried = ", ".join(f"{rate:.3g}" for rate in size.rates)
        by_law = law.law.peak(round(size.tokens))
        table.add_row(f"  {size.tokens:,.0f}", tried, f"{size.lr:.3g}", f"{by_law:.3g}", f"{size.loss:.4f}")
    console.print(table)
    console.print()
    ends = [law.sizes[0].tokens, max([law.sizes[-1].tokens, *tokens])]
    points = [
        Series("law", ".", ends, [law.law.peak(round(end)) for end in ends], line=True),
        Series("tried", "-", *_tried(law)),
        Series("best", "X", [size.tokens for size in law.sizes], [size.lr for size in law.sizes]),
    ]
    plot(console, points, "peak LR by tokens", 12, letters=True, x_as_log=True, y_as_log=True)
    free = f"{law.free_exponent:.3f}"
    free += " (two sizes leave no error)" if law.free_error is None else f" +- {law.free_error:.3f} (standard error)"
    facts = {"law": f"peak LR = {law.law.b:.4g} * tokens^{law.law.exponent:g}", "free slope": free, "losses": losses}
    draw_facts(console, facts)
    if tokens:
        heading(console, "Peak LR")
        table = grid("  tokens>", "by the law>", "95% of best rates lie in~")
        for count in tokens:
            low, middle, high = law.predicted(count)
            table.add_row(f"  {count:,}", f"{middle:.3g}", f"{low:.3g} to {high:.3g}")
        console.print(table)
    heading(console, "For a recipe")
    console.print(f"  {snippet(law)}")


def law_to_json(law: LawFit, losses: str, tokens: Sequence[int]) -> dict[str, Any]:
    """What `draw_law` draws, as plain values."""
    sizes = [asdict(size) for size in law.sizes]
    predicted = [
        {"tokens": count, "low": low, "lr": middle, "high": high}
        for count in tokens
        for low, middle, high in [law.predicted(count)]
    ]
    return {
        "b": law.law.b,
        "exponent": law.law.exponent,
        "free_exponent": law.free_exponent,
        "free_error": law.free_error,
        "scatter": law.scatter,
        "losses": losses,
        "sizes": sizes,
        "predicted": predicted,
        "snippet": snippet(law),
    }


def snippet(law: LawFit) -> str:
    """The line of a stage in a recipe."""
    return f"optim: {{lr: {{b: {law.law.b:.6g}, exponent: {law.law.exponent:g}}}}}"


def _tried(law: LawFit) -> tuple[list[float], list[float]]:
    return (
        [size.tokens for size in law.sizes for _ in size.rates],
        [rate for size in law.sizes for rate in size.rates],
    )


def _finite(series: Series) -> Series:
    """Without the points whose value is no finite number."""
    kept = [(x, y) for x, y in zip(series.xs, series.ys, strict=True) if math.isfinite(y)]
    return Series(series.name, series.letter, [x for x, _ in kept], [y for _, y in kept], series.line)
