"""A figure of clips, as a PNG file: spectrograms with axes, what is said above, what a model heard below.

All clips of a figure have one scale, so that a long one looks long; the vertical axis is that of the log-Mel bands,
with frequencies where they lie. Of a transcript, words as they were said are green, others red, and a red dash stands
for each that is missing; an answer is right or wrong as a whole. Pillow's own font is enough for English.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gristmill.model.processing.audio_rates import BANDS
from gristmill.orchestration.show.spectrogram import clip_picture

COLUMNS, WIDTH, HEIGHT = 2, 480, 160
"""Panels a row, and pixels that a spectrogram may take."""
KILOHERTZ = (0.25, 0.5, 1, 2, 4, 7)
"""Frequencies that the vertical axis names."""
RIGHT, WRONG = (0, 120, 60), (200, 30, 30)
_PAPER, _INK, _FAINT = (255, 255, 255), (30, 30, 30), (110, 110, 110)
_FRAMES = 100  # a second
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20)  # seconds between two ticks
_MOST_TICKS = 8
_EDGE, _LEFT, _TITLE, _AXIS, _LINE, _TICK = 18, 46, 30, 44, 22, 4
_SIDE = 128  # of a picture beside a spectrogram


class Answer(NamedTuple):
    """A line below a spectrogram: what was `expected` and what came, `text`. `by_word`: whether each word counts."""

    label: str
    expected: str
    text: str
    by_word: bool = False


@dataclass(frozen=True)
class Panel:
    """A clip with its title, and answers below it. `picture`: an image file that is shown beside it."""

    title: str
    clip: bytes
    answers: tuple[Answer, ...]
    picture: bytes | None = None


def write_figure(path: Path, heading: str, panels: Sequence[Panel]) -> None:
    """Draws the panels below a heading. Raises AudioError or ValueError for a clip or a picture that is none."""
    spectrograms = [clip_picture(panel.clip, WIDTH) for panel in panels]
    scale = WIDTH / max(spectrogram.shape[1] for spectrogram in spectrograms)
    drawn = [_panel(panel, picture, scale) for panel, picture in zip(panels, spectrograms, strict=True)]
    width = max(panel.width for panel in drawn)
    height = max(panel.height for panel in drawn)
    rows = -(-len(drawn) // COLUMNS)
    columns = min(COLUMNS, len(drawn))
    top = 2 * _EDGE + _TITLE
    size = (_EDGE + columns * (width + _EDGE), top + rows * (height + _EDGE))
    figure = Image.new("RGB", size, _PAPER)
    ImageDraw.Draw(figure).text((_EDGE, _EDGE), heading, fill=_INK, font=ImageFont.load_default(20))
    for number, panel in enumerate(drawn):
        row, column = divmod(number, COLUMNS)
        figure.paste(panel, (_EDGE + column * (width + _EDGE), top + row * (height + _EDGE)))
    figure.save(path)


def _panel(panel: Panel, spectrogram: np.ndarray, scale: float) -> Image.Image:
    """Title, picture, spectrogram with its axes, answers. `scale`: pixels a frame."""
    beside = 0 if panel.picture is None else _SIDE + _EDGE
    size = (beside + _LEFT + WIDTH + _EDGE, _TITLE + HEIGHT + _AXIS + _LINE * len(panel.answers))
    image = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((beside + _LEFT, 0), panel.title, fill=_INK, font=ImageFont.load_default(18))
    if panel.picture is not None:
        with Image.open(BytesIO(panel.picture)) as picture:
            image.paste(picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.NEAREST), (0, _TITLE))
    width = max(1, round(spectrogram.shape[1] * scale))
    image.paste(Image.fromarray(spectrogram).resize((width, HEIGHT)), (beside + _LEFT, _TITLE))
    _axes(draw, beside + _LEFT, width, _FRAMES * scale)
    for number, answer in enumerate(panel.answers):
        _answer(draw, beside + _LEFT, _TITLE + HEIGHT + _AXIS + number * _LINE, answer)
    return image


def _axes(draw: ImageDraw.ImageDraw, left: int, width: int, second: float) -> None:
    """Frequencies at the left, time below. `second`: its pixels."""
    font = ImageFont.load_default(12)
    bottom = _TITLE + HEIGHT
    draw.rectangle((left - 1, _TITLE - 1, left + width, bottom), outline=_FAINT)
    for kilohertz in KILOHERTZ:
        row = _TITLE + row_of(1000 * kilohertz)
        draw.line((left - _TICK, row, left - 1, row), fill=_FAINT)
        draw.text((left - _TICK - 3, row), f"{kilohertz:g}", fill=_FAINT, font=font, anchor="rm")
    draw.text((left - _TICK - 3, _TITLE - 5), "kHz", fill=_FAINT, font=font, anchor="rb")
    step = next(step for step in _STEPS if step * _MOST_TICKS >= WIDTH / second)
    for tick in range(int(width / second / step) + 1):
        column = left + round(tick * step * second)
        draw.line((column, bottom, column, bottom + _TICK), fill=_FAINT)
        draw.text((column, bottom + _TICK + 3), f"{tick * step:g}", fill=_FAINT, font=font, anchor="mt")
    draw.text((left + width / 2, bottom + 22), "time in seconds", fill=_FAINT, font=font, anchor="mt")


def row_of(hertz: float) -> int:
    """The pixel of a spectrogram, from its top, at which a frequency is."""
    # It imports torch, which takes seconds.
    from gristmill.model.processing.audio import band_of

    return round((BANDS - 0.5 - band_of(hertz)) / BANDS * HEIGHT)


def _answer(draw: ImageDraw.ImageDraw, left: int, top: int, answer: Answer) -> None:
    """A label, then words in two colours."""
    font = ImageFont.load_default(16)
    draw.text((left, top), answer.label, fill=_FAINT, font=font)
    at = left + font.getlength(f"{answer.label} ")
    whole = [(answer.text, answer.text == answer.expected)]
    words = marked(answer.expected.split(), answer.text.split()) if answer.by_word else whole
    for word, right in words:
        draw.text((at, top), word, fill=RIGHT if right else WRONG, font=font)
        at += font.getlength(f"{word} ")


def marked(expected: Sequence[str], answer: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """The words of an answer, each with whether it stands where it is expected; a dash for a word that is missing."""
    for kind, first, last, start, end in SequenceMatcher(None, expected, answer, autojunk=False).get_opcodes():
        yield from ((word, kind == "equal") for word in answer[start:end])
        yield from (("-", False) for _ in range(last - first - (end - start)))
