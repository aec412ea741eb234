"""Drawing of mixtures: planned against drawn in `grist show`, and records as windows hold them in `grist sample`.

What the loss counts stands between « and » whether or not the terminal has colours.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from gristmill.lake.versions.statistics import WindowStatistics
from gristmill.orchestration.show.tables import draw_facts, grid, heading, percent, ruled
from gristmill.orchestration.show.terminal import plain

if TYPE_CHECKING:  # `grist show` needs no tokenizer
    from gristmill.stages.mix.windows import DrawnStretches

CUT = 800
"""Characters of a stretch that are shown."""


def draw_mixture(console: Console, statistics: WindowStatistics) -> None:
    """What was asked for, and what was drawn, by source."""
    heading(console, "Mixture")
    table = grid("  source", "share>", "planned tokens>", "drawn tokens>", "drawn share>", "epochs>", "of tokens>")
    whole = sum(share.drawn for share in statistics.mixture)
    for share in statistics.mixture:
        epochs = f"{share.drawn / share.there:.2f}" if share.there else "-"
        drawn = (f"{share.drawn:,}", percent(share.drawn, whole), epochs, f"{share.there:,}")
        table.add_row(f"  {share.source}", f"{share.share:.1%}", f"{share.planned:,}", *drawn)
    console.print(table)
    documents, cut = statistics.documents, statistics.documents_cut
    draw_facts(
        console,
        {
            "windows": f"{statistics.windows:,}",
            "empty places": f"{statistics.waste:.2%}",
            "documents cut": f"{cut:,} of {documents:,} drawn ({cut / max(documents, 1):.1%});"
            f" {statistics.documents_too_long:,} of them are longer than a window",
            "samples": f"{statistics.samples:,} drawn, none cut",
            **media_facts(statistics),
        },
    )


def media_facts(statistics: WindowStatistics) -> dict[str, str]:
    """How much of the budgets of crops and frames is used; nothing where there are neither images nor clips."""
    images, clips = statistics.images, statistics.clips
    of = {
        "images": (images, f"{statistics.crops:,} crops with the global views", "crops"),
        "clips": (clips, f"{statistics.frames:,} frames of log-Mel, {_time(statistics.frames)}", "frames"),
    }
    facts = {}
    for name, (count, units, unit) in of.items():
        taken, most = getattr(statistics, unit), getattr(statistics, f"window_{unit}")
        use = "" if most is None else f": {percent(taken, statistics.windows * most)} of {most:,} a window"
        if count:
            facts[name] = f"{count:,} {name}, {units}{use}"
    return facts


def _time(frames: int) -> str:
    """How long clips of so many frames are: one begins every 10 ms."""
    seconds = frames // 100
    return (
        f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} hours" if seconds >= 60 else f"{seconds} seconds"
    )


def draw_stretches(console: Console, drawn: DrawnStretches, full: bool) -> None:
    """`grist sample` of a mixture."""
    for source, ones in groupby(drawn.stretches, key=lambda stretch: stretch.source):
        of_source = list(ones)
        what = f"{len(of_source)} of {drawn.population[source]:,} stretches of {source}"
        console.print(Text(f"{what} in {drawn.version}; what is learned stands between « and »", style="dim"))
        for stretch in of_source:
            ruled(console, stretch.id)
            end = stretch.start + stretch.tokens
            place = f"{stretch.window}, epoch {stretch.epoch}, tokens {stretch.start:,} to {end:,}"
            draw_facts(console, {"window": place})
            console.print(marked(stretch.pieces, None if full else CUT), soft_wrap=False)
            for number, image in enumerate(stretch.images, 1):
                size = f"{image.width:,} x {image.height:,} pixels, {image.crops:,} crops with the global view"
                console.print(Text(f"image {number}: {size}, {image.tokens:,} tokens, sha256 {image.sha256[:12]}"))
            for number, clip in enumerate(stretch.clips, 1):
                lasts = f"{clip.samples / clip.rate:.2f} seconds at {clip.rate:,} Hz, {clip.frames:,} frames"
                console.print(Text(f"clip {number}: {lasts}, {clip.tokens:,} tokens, sha256 {clip.sha256[:12]}"))
            if not full and (length := sum(len(piece) for piece, _ in stretch.pieces)) > CUT:
                console.print(Text(f"... {length:,} characters in all; --full prints them", style="dim"))
            console.print()


def marked(pieces: Iterable[tuple[str, bool | None]], cut: int | None = None) -> Text:
    """Pieces of a text, those that are learned between « and »; None: nothing is said about it. Of more than `cut`
    characters only so many."""
    text, left = Text(), sys.maxsize if cut is None else cut
    for learned, ones in groupby(pieces, key=lambda piece: piece[1]):
        whole = "".join(piece for piece, _ in ones)
        shown = plain(whole[:left])
        left -= len(shown)
        if shown:
            text.append(f"«{shown}»" if learned else shown, style={True: "green", False: "dim", None: ""}[learned])
    return text
