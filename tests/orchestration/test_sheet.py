"""Contact sheets: the images of sampled records with what is said of them, and of a mixture what an encoder sees."""

from __future__ import annotations

import io
import json
from pathlib import Path

import mixtures
import numpy as np
import pytest
from image_mixtures import COLOURS, CUT, pictures
from PIL import Image
from typer.testing import CliRunner, Result

from gristmill.lake.query.sampling import Drawn, SampledRecord, sample
from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.model.processing.image_file import MAX_PIXELS, MOST_PIXELS
from gristmill.orchestration.cli.main import app
from gristmill.orchestration.show.sheet import (
    COLUMNS,
    MOST_PICTURES,
    WIDTH,
    Cell,
    draw_sheet,
    record_cells,
    stretch_cells,
)
from gristmill.pipelines.tokenizer import tokenizer_of
from gristmill.stages.mix.windows import sample_stretches

SIZES = [[(64, 64)], [(100, 40)], [(40, 100), (64, 64)], [(128, 128)]]
ROWS = [(SIZES[n % len(SIZES)], f"Picture {n} is {{}} all over.") for n in range(24)]
NAMES = list(COLOURS)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Pictures of one colour each, whose captions name it; documents; a mixture of both, many records a window."""
    folder = tmp_path_factory.mktemp("sheet")
    store = open_store(str(folder / "lake"))
    mixtures.documents(store, "web", mixtures.texts(60, longest=120))
    pictures(store, folder / "in", ROWS)
    mixtures.tokenizer(store, "web@v1", "pics@v1")
    mixtures.mix(store, {"web@v1": 0.5, "pics@v1": 0.5}, window=512, images=CUT, max_waste=0.1)
    return store


def grist(lake: Store, *args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [*args, "--lake", lake.uri])
    assert result.exit_code == code, result.output
    return result


def text_of(cell: Cell) -> str:
    return "".join(text for text, _ in cell.pieces)


def named_in(cell: Cell) -> str:
    (name,) = [name for name in NAMES if f"is {name} all over" in text_of(cell)]
    return name


def shows(picture: np.ndarray, name: str) -> bool:
    """Whether the corner of a picture is of this colour, but for its noise."""
    return bool(np.abs(np.median(picture[:12, :12], axis=(0, 1)) - COLOURS[name]).max() <= 9)


def test_every_picture_stands_above_its_own_caption(lake: Store) -> None:
    versions = Versions(lake)
    cells = record_cells(sample(versions, versions.resolve("pics@v1"), 24, data=True))
    assert len(cells) == 24 and sum(len(cell.pictures) for cell in cells) == 30
    for cell in cells:
        first = NAMES.index(named_in(cell))
        for place, picture in enumerate(cell.pictures):
            assert shows(picture, NAMES[(first + place) % len(NAMES)])


def test_of_a_mixture_a_record_has_its_own_crops_and_their_global_view(lake: Store) -> None:
    versions = Versions(lake)
    manifest = versions.resolve("mix@v1")
    drawn = sample_stretches(lake, manifest, tokenizer_of(versions, manifest), 24, source="pics@v1")
    assert any(stretch.position > 0 for stretch in drawn.stretches)
    cells = stretch_cells(lake, manifest, drawn)
    assert len(cells) == len(drawn.stretches) >= 20
    for cell, stretch in zip(cells, drawn.stretches, strict=True):
        assert len(cell.pictures) == len(stretch.images)
        first = NAMES.index(named_in(cell))
        for place, (picture, image) in enumerate(zip(cell.pictures, stretch.images, strict=True)):
            name = NAMES[(first + place) % len(NAMES)]
            rows, cols = -(-image.height // 64), -(-image.width // 64)
            assert picture.shape == (rows * 66, cols * 66 + 64, 3) and image.crops == 1 + rows * cols
            assert shows(picture, name) and shows(picture[:, cols * 66 :], name)


def test_the_command_writes_a_file_and_says_the_same_as_without(lake: Store, tmp_path: Path) -> None:
    for version in ("pics", "mix"):
        path = tmp_path / f"{version}.png"
        answer = grist(lake, "sample", version, "-n", "7", "--json", "--sheet", str(path))
        assert json.loads(answer.stdout) == json.loads(grist(lake, "sample", version, "-n", "7", "--json").stdout)
        assert "images and clips of 7 records" in answer.stderr
        with Image.open(path) as sheet:
            assert sheet.format == "PNG" and COLUMNS * WIDTH < sheet.width < COLUMNS * (WIDTH + 40)


def test_large_pictures_are_kept_no_larger_than_a_cell() -> None:
    stream = io.BytesIO()
    Image.new("1", (11_400, 5_700), 1).save(stream, "PNG")  # more than a recipe allows by default, and less than it may
    assert MAX_PIXELS < 11_400 * 5_700 < MOST_PIXELS
    media = [{"kind": "image", "data": stream.getvalue()}]
    record = SampledRecord("id", "kept", None, None, "A white wall.", None, None, {"media": media})
    (cell,) = record_cells(Drawn("walls@v1", 1, (record,)))
    (picture,) = cell.pictures
    assert picture.shape == (WIDTH // 2, WIDTH, 3) and picture.min() == 255 and text_of(cell) == "A white wall."


def test_what_cannot_be_drawn_is_said(lake: Store, tmp_path: Path) -> None:
    none = grist(lake, "sample", "web", "--sheet", str(tmp_path / "web.png"), code=2)
    assert "none of these records has an image or a clip" in none.stderr and not list(tmp_path.iterdir())
    other = grist(lake, "sample", "pics", "--sheet", str(tmp_path / "pics.jpg"), code=2)
    assert "ends with .png" in other.stderr and not other.stdout and not list(tmp_path.iterdir())


def test_a_sheet_holds_any_size_and_any_text() -> None:
    wide, dot = np.zeros((5, 3000, 3), np.uint8), np.zeros((1, 1, 3), np.uint8)
    long = (("word " * 500, False), ("\x1b[2J" + "w" * 500, True), ("字" * 50, None))
    cells = [Cell("wide", (wide,), long), Cell("dots", (dot,) * MOST_PICTURES, ()), Cell("none", (), (("", True),))]
    sheet = draw_sheet(cells * 2)
    assert sheet.height < 500 and len(sheet.getcolors(1 << 20) or ()) > 2
