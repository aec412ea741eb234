"""Contact sheets of clips: spectrograms beside what is said, of a dataset and of a mixture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clip_mixtures import TAKEN, spoken
from mixtures import documents, mix, texts, tokenizer
from PIL import Image
from speech import SAYS, clip, encoded
from typer.testing import CliRunner

from gristmill.lake.query.sampling import Drawn, SampledRecord, sample
from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.cli.main import app
from gristmill.orchestration.show.sheet import WIDTH, record_cells, stretch_cells
from gristmill.orchestration.show.spectrogram import MOST_SECONDS, clip_picture, spectrogram
from gristmill.pipelines.tokenizer import tokenizer_of
from gristmill.stages.mix.windows import sample_stretches

RATE = 16_000


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Six clips, 0.4 seconds longer one by one, and a mixture of them with documents."""
    folder = tmp_path_factory.mktemp("sheet")
    store = open_store(str(folder / "lake"))
    documents(store, "web", texts(20, longest=120))
    spoken(store, folder / "in", [(1.2 + 0.4 * number, RATE) for number in range(6)])
    tokenizer(store, "web@v1", "speech@v1")
    mix(store, {"web@v1": 0.3, "speech@v1": 0.7}, window=256, audio=TAKEN, max_waste=0.5)
    return store


def test_every_spectrogram_stands_above_its_own_transcript(lake: Store) -> None:
    versions = Versions(lake)
    of_records = record_cells(sample(versions, versions.resolve("speech@v1"), 6, data=True))
    manifest = versions.resolve("mix@v1")
    drawn = sample_stretches(lake, manifest, tokenizer_of(versions, manifest), 6, source="speech@v1")
    of_windows = stretch_cells(lake, manifest, drawn)
    assert len(of_records) == len(of_windows) == 6
    pictures: dict[int, np.ndarray] = {}
    for cell in (*of_records, *of_windows):
        text = "".join(piece for piece, _ in cell.pieces)
        (number,) = [number for number in range(6) if SAYS.format(number) in text]
        (picture,) = cell.pictures
        assert picture.shape == (160, 118 + 40 * number, 3) and picture.dtype == np.uint8
        if number in pictures:  # of the float32 transform, and of the exact one
            assert np.abs(picture.astype(int) - pictures[number]).max() <= 2
        pictures[number] = picture
    assert len(pictures) == 6


def test_time_runs_to_the_right_and_low_bands_are_below() -> None:
    time = np.arange(RATE) / RATE
    low, high = (0.3 * np.sin(2 * np.pi * hertz * time) for hertz in (300, 4000))
    picture = clip_picture(encoded(np.concatenate([high, low, np.zeros(RATE)]).astype(np.float32), RATE), WIDTH)
    light = picture.astype(int).sum(2)
    first, second, silent = (light[:, at : at + 60].mean(1) for at in (20, 120, 220))
    assert first.argmax() < 60 < 120 < second.argmax() and silent.max() < 100 < first.max()


def test_a_long_clip_is_as_wide_as_its_room_and_a_short_one_a_pixel() -> None:
    mel = np.repeat(np.array([2.0, 12.0, 14.0], np.float32), 700)[:, None] * np.ones(80, np.float32)
    assert spectrogram(mel, WIDTH).shape == (160, WIDTH, 3)
    columns = spectrogram(mel, 3)[0].astype(int).sum(1)
    assert (np.diff(columns) > 0).all()
    assert clip_picture(encoded(np.full(200, 0.1, np.float32), RATE), WIDTH).shape == (160, 1, 3)
    lecture = encoded(np.resize(np.float32([0.1, -0.1]), int(RATE * (MOST_SECONDS + 60))), RATE)
    assert clip_picture(lecture, 1 << 20).shape == (160, MOST_SECONDS * 100 - 2, 3)


def test_a_clip_that_cannot_be_decoded_says_why() -> None:
    media = [{"kind": "audio", "data": b"RIFF"}, {"kind": "audio", "data": clip(0)}]
    record = SampledRecord("id", "kept", None, None, "Hm.", None, None, {"media": media})
    (cell,) = record_cells(Drawn("clips@v1", 1, (record,)))
    assert len(cell.pictures) == 1 and "does not read it" in cell.pieces[0][0] and cell.title == "1. id, 2 clips"


def test_the_command_draws_clips(lake: Store, tmp_path: Path) -> None:
    for version in ("speech", "mix"):
        path = tmp_path / f"{version}.png"
        result = CliRunner().invoke(app, ["sample", version, "-n", "4", "--sheet", str(path), "--lake", lake.uri])
        assert result.exit_code == 0 and "images and clips of 4 records" in result.stderr, result.output
        with Image.open(path) as sheet:
            assert sheet.width > 3 * WIDTH
