"""Contact sheets: the images and clips of sampled records side by side, with what is said of them, as one PNG file.

Of a dataset they are pictures as they came; of a mixture what an encoder is shown: each image as its crops, a gap
between, and beside them the global view. Small ones are enlarged by whole numbers, so that single pixels are seen. A
clip is its spectrogram in both. A text is cut where it is long, and a letter that Pillow's own font lacks is a box:
`grist sample` prints texts whole.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gristmill.lake.query.sampling import MEDIA, Drawn
from gristmill.lake.store.base import Store
from gristmill.lake.versions.manifest import Manifest
from gristmill.model.processing.image_file import MOST_PIXELS, decode_image
from gristmill.model.processing.medium_error import MediumError
from gristmill.orchestration.show.records import pieces_of
from gristmill.orchestration.show.spectrogram import MOST_SECONDS, clip_picture, spectrogram
from gristmill.orchestration.show.terminal import note, plain

if TYPE_CHECKING:  # a sheet of records needs no torch
    from gristmill.stages.mix.windows import DrawnStretches, ImageCrops

COLUMNS, WIDTH, HEIGHT = 3, 400, 300
"""Cells a row, and pixels that the images of a cell may take."""
MOST_PICTURES = 8
"""Of a record that are drawn."""
MOST_LINES = 6
_KINDS = {"image": "image", "audio": "clip"}
"""Media that are drawn, and what a title calls them."""
_MOST_FRAMES = round(MOST_SECONDS * 100)
_GAP, _MARGIN, _LETTER = 4, 14, 15
_PAPER, _BETWEEN = (255, 255, 255), (255, 0, 255)
_INK = {True: (0, 110, 50), False: (70, 70, 70), None: (0, 0, 0)}
_MARK = re.compile(r"(?:<\|[^|\s]{1,40}\|>)+")


class Cell(NamedTuple):
    """Of one record: `pictures` uint8 [height, width, 3], and pieces of text, each with whether it is learned. A
    picture of any size can be drawn; those of records and of mixtures are no larger than a cell, so that many fit in
    memory."""

    title: str
    pictures: tuple[np.ndarray, ...]
    pieces: tuple[tuple[str, bool | None], ...]


def record_cells(drawn: Drawn) -> list[Cell]:
    """Records with images or clips, of a sample with the bytes of its media. One that cannot be decoded is left out,
    and its record says why."""
    cells = []
    for number, record in enumerate(drawn.samples, 1):
        media = [item for item in record.fields.get(MEDIA) or () if item["kind"] in _KINDS]
        pictures, faults = list[np.ndarray](), list[tuple[str, bool | None]]()
        for item in media[:MOST_PICTURES]:
            try:
                pictures.append(_picture(item["kind"], item["data"]))
            except MediumError as error:
                faults.append((f"{error}\n", None))
        if media:
            pieces = (*faults, *pieces_of(record))
            counts = Counter(item["kind"] for item in media)
            cells.append(Cell(_title(number, record.id, counts), tuple(pictures), pieces))
    return cells


def _picture(kind: str, data: bytes) -> np.ndarray:
    if kind == "image":
        return _fitted(decode_image(data, MOST_PIXELS))
    return clip_picture(data, WIDTH)


def stretch_cells(store: Store, manifest: Manifest, drawn: DrawnStretches) -> list[Cell]:
    """Records with images or clips as the windows of a mixture hold them."""
    from gristmill.stages.mix.windows import media_of

    cells = []
    of_stretches = zip(drawn.stretches, media_of(store, manifest, drawn.stretches), strict=True)
    for number, (stretch, media) in enumerate(of_stretches, 1):
        images = [_fitted(laid_out(image)) for image in media.images]
        clips = [spectrogram(mel[:_MOST_FRAMES], WIDTH) for mel in media.mels]
        if images or clips:
            title = _title(number, stretch.id, Counter(image=len(images), audio=len(clips)))
            cells.append(Cell(title, tuple([*images, *clips][:MOST_PICTURES]), stretch.pieces))
    return cells


def _fitted(picture: np.ndarray) -> np.ndarray:
    """A picture shrunk to the room of a cell, if it is larger."""
    image = Image.fromarray(picture)
    image.thumbnail((WIDTH, HEIGHT), Image.Resampling.BOX)
    return np.array(image)


def _title(number: int, record: str | None, counts: Mapping[str, int]) -> str:
    """`counts`: media by kind; of a single one nothing is said."""
    total = sum(counts.values())
    named = [f"{count} {_KINDS[kind]}{'s' if count > 1 else ''}" for kind, count in counts.items() if count]
    more = f", {', '.join(named)}" if total > 1 else ""
    more += f", of which {MOST_PICTURES}" if total > MOST_PICTURES else ""
    return f"{number}. {record or 'no id'}{more}"


def laid_out(image: ImageCrops) -> np.ndarray:
    """Crops in their places, with a gap of another colour between, and the global view at their right; uint8."""
    import torch

    from gristmill.model.processing.image import grid_of, pixels_of

    side = image.tiles.shape[1]
    rows, cols = grid_of(image.size, side)
    step = side + _GAP // 2
    picture = np.empty((rows * step, cols * step + side, 3), np.uint8)
    picture[:] = _PAPER
    picture[:, : cols * step] = _BETWEEN
    for number, tile in enumerate(image.tiles):
        top, left = (at * step for at in divmod(number, cols))
        picture[top : top + side, left : left + side] = tile
    global_view = pixels_of(torch.from_numpy(image.tiles), [image.size])[0].permute(1, 2, 0)
    levels = (global_view * 127.5 + 127.5).round().clamp(0, 255)  # bicubic, so some lie beyond
    picture[:side, cols * step :] = levels.to(torch.uint8).numpy()
    return picture


def check_name(path: Path) -> None:
    """Raises ValueError for a file that a sheet is not written to."""
    if path.suffix.lower() != ".png":
        raise ValueError(f"--sheet {path}: a contact sheet is a PNG file, and its name ends with .png")


def write_sheet(path: Path, cells: Sequence[Cell]) -> None:
    """Draws the cells to a PNG file. Raises ValueError where there are none, or for another kind of file."""
    check_name(path)
    if not cells:
        raise ValueError(f"--sheet {path}: none of these records has an image or a clip; nothing was drawn")
    draw_sheet(cells).save(path)
    note(f"images and clips of {len(cells)} records: {path}")


def draw_sheet(cells: Sequence[Cell]) -> Image.Image:
    """The cells, row by row; a row is as high as its highest."""
    font = ImageFont.load_default(_LETTER)
    drawn = [_drawn_cell(cell, font) for cell in cells]
    rows = [drawn[first : first + COLUMNS] for first in range(0, len(drawn), COLUMNS)]
    heights = [max(cell.height for cell in row) for row in rows]
    columns = min(COLUMNS, len(cells))
    size = (columns * (WIDTH + _MARGIN) + _MARGIN, sum(heights) + _MARGIN * (len(rows) + 1))
    sheet = Image.new("RGB", size, _PAPER)
    top = _MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            sheet.paste(cell, (_MARGIN + column * (WIDTH + _MARGIN), top))
        top += height + _MARGIN
    return sheet


def _drawn_cell(cell: Cell, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    """Images side by side, below them the title and the text."""
    shown = _side_by_side(cell.pictures)
    lines = [*_wrapped([(cell.title, None)], font)[:1], *_cut(_wrapped(cell.pieces, font))]
    step = _LETTER + _GAP
    image = Image.new("RGB", (WIDTH, shown.height + _GAP + step * len(lines)), _PAPER)
    image.paste(shown, (0, 0))
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        at = 0.0
        for text, learned in line:
            draw.text((at, shown.height + _GAP + number * step), text, fill=_INK[learned], font=font)
            at += font.getlength(text)
    return image


def _side_by_side(pictures: Sequence[np.ndarray]) -> Image.Image:
    """One image of all, enlarged or shrunk to the room of a cell."""
    if not pictures:
        return Image.new("RGB", (1, 1), _PAPER)
    height = max(picture.shape[0] for picture in pictures)
    width = sum(picture.shape[1] for picture in pictures) + _GAP * (len(pictures) - 1)
    scale = min(WIDTH / width, HEIGHT / height)
    if scale >= 1:
        scale = int(min(scale, 3))
    strip = Image.new("RGB", (max(1, round(width * scale)), max(1, round(height * scale))), _PAPER)
    how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    left = 0
    for picture in pictures:
        size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
        strip.paste(Image.fromarray(picture).resize(size, how), (round(left * scale), 0))
        left += picture.shape[1] + _GAP
    return strip


_Line = list[tuple[str, bool | None]]


def _wrapped(
    pieces: Iterable[tuple[str, bool | None]], font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> list[_Line]:
    """Words in lines as wide as a cell, what is learned in lines of its own; marks of the template are not shown."""
    lines: list[_Line] = []
    for learned, of_kind in groupby(pieces, key=lambda piece: piece[1]):
        left = 0.0
        words = plain(_MARK.sub(" ", "".join(text for text, _ in of_kind)[:WIDTH])).split()
        for word in words:
            length = font.getlength(f"{word} ")
            if length > left:
                lines.append([])
                left = WIDTH
            lines[-1].append((f"{word} ", learned))
            left -= length
    return lines


def _cut(lines: list[_Line]) -> list[_Line]:
    return lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], [("...", None)]]
