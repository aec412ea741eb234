"""Pictures, crops and sounds on a page: they are what the lake has, written anew, and bounded."""

from __future__ import annotations

import base64
import io
import wave
from pathlib import Path
from typing import Any

import clip_mixtures
import image_mixtures
import mixtures
import numpy as np
import pytest
from image_mixtures import COLOURS, CUT
from PIL import Image
from reports import headings, report, words
from speech import SAYS, encoded
from tar_lake import image_id, pictures

from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.orchestration.report.media import HEARD_SECONDS, SIDE, Room, clip_figure, image_figure, picture

RATE = 16_000
SIZES = [[(64, 64)], [(100, 40)], [(40, 100), (64, 64)], [(128, 128)]]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """`pics`, each of a colour that its caption names, `speech`, and `mix` of both with documents."""
    folder = tmp_path_factory.mktemp("media")
    store = open_store(str(folder / "lake"))
    mixtures.documents(store, "web", mixtures.texts(30, longest=120))
    rows = [(SIZES[n % len(SIZES)], f"Picture {n} is {{}} all over.") for n in range(12)]
    image_mixtures.pictures(store, folder / "pictures", rows)
    clip_mixtures.spoken(store, folder / "clips", [(1.2 + 0.4 * number, RATE) for number in range(6)])
    mixtures.tokenizer(store, "web@v1", "pics@v1", "speech@v1")
    mixtures.mix(store, {"web@v1": 0.4, "pics@v1": 0.6}, dataset="mix", window=512, images=CUT, max_waste=0.2)
    mixtures.mix(
        store, {"web@v1": 0.3, "speech@v1": 0.7}, dataset="heard", window=256, audio=clip_mixtures.TAKEN, max_waste=0.5
    )
    return store


def data(uri: str) -> bytes:
    return base64.b64decode(uri.split(",", 1)[1])


def examples(root: Any) -> list[tuple[str, list[np.ndarray]]]:
    """Of each record its words and its pictures."""
    drawn = []
    for card in root.xpath("//div[starts-with(@class, 'example ')]"):
        images = [np.array(Image.open(io.BytesIO(data(uri))).convert("RGB")) for uri in card.xpath(".//img/@src")]
        drawn.append((words(card), images))
    return drawn


def test_a_record_stands_beside_its_own_picture(lake: Store, tmp_path: Path) -> None:
    drawn = examples(report(lake, tmp_path, "pics"))
    assert len(drawn) == 6 and all(images for _, images in drawn)
    for text, images in drawn:
        (colour,) = [value for name, value in COLOURS.items() if f"is {name} all over" in text]
        assert np.abs(np.median(images[0], axis=(0, 1)) - colour).max() <= 12  # a second one has another colour


def test_a_mixture_shows_how_its_images_are_tiled(lake: Store, tmp_path: Path) -> None:
    root = report(lake, tmp_path, "mix")
    assert "What a model sees" in headings(root) and "Mixture" in headings(root)
    with_images = [(text, images) for text, images in examples(root) if images]
    assert with_images
    for text, images in with_images:
        assert "crops with the global view" in text
        for image in images:  # between crops runs a line that no picture has
            assert (image.reshape(-1, 3) == (255, 0, 255)).all(axis=1).any()


def test_a_clip_has_its_spectrogram_and_is_heard(lake: Store, tmp_path: Path) -> None:
    root = report(lake, tmp_path, "speech")
    cards = root.xpath("//div[starts-with(@class, 'example ')]")
    assert len(cards) == 6
    for card in cards:
        (number,) = [number for number in range(6) if SAYS.format(number) in words(card)]
        (uri,), (player,) = card.xpath(".//img/@src"), card.xpath(".//audio")
        with Image.open(io.BytesIO(data(uri))) as image:
            assert image.size == (118 + 40 * number, 160)
        assert player.get("controls") is not None and player.get("aria-label")
        with wave.open(io.BytesIO(data(player.get("src")))) as file:
            assert (file.getframerate(), file.getnframes()) == (RATE, round((1.2 + 0.4 * number) * RATE))
            assert np.abs(np.frombuffer(file.readframes(RATE), "<i2")).max() > 300


def test_a_mixture_of_clips_shows_its_frames(lake: Store, tmp_path: Path) -> None:
    drawn = [text for text, images in examples(report(lake, tmp_path, "heard")) if images]
    assert drawn and all("frames" in text and "16,000 Hz" in text for text in drawn)


def test_pictures_that_lie_in_tars_are_shown(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "lake"))
    names = [f"p{n}" for n in range(5)]
    shade = {image_id(name): 40 + 20 * n for n, name in enumerate(names)}

    def drawn(name: str) -> bytes:
        out = io.BytesIO()
        Image.new("RGB", (64, 64), (shade[image_id(name)],) * 3).save(out, "PNG")
        return out.getvalue()

    pictures(store, [names[:1], names[1:2]], [names[2:3], names[3:4], names[4:]], drawn=drawn)
    root = report(store, tmp_path, "pictures")
    cards = root.xpath("//div[starts-with(@class, 'example ')]")
    assert len(cards) == 5 and "5 of 5 records" in words(root)
    for card, (text, (image,)) in zip(cards, examples(root), strict=True):
        assert int(np.median(image)) == shade[card.xpath("./h4")[0].text_content()] and "image.jpg" in text


def png(height: int, width: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def test_a_large_picture_is_shrunk() -> None:
    room = Room()
    figure = image_figure(room, png(900, 1600), "wide", "caption")
    uri = figure.split('src="')[1].split('"')[0]
    with Image.open(io.BytesIO(data(uri))) as image:
        assert image.size == (SIDE, 360) and uri.startswith("data:image/jpeg")
    assert room.left == Room().left - len(uri)


def test_what_the_page_has_no_room_for_is_named_and_left_out() -> None:
    room = Room(20_000)
    small, large = np.zeros((8, 8, 3), np.uint8), np.random.default_rng(0).integers(0, 255, (400, 400, 3), np.uint8)
    assert "<img" in picture(room, small, "first")
    before = room.left
    assert picture(room, large, "second") == '<p class="dim">second: left out, the page is full</p>'
    assert room.left == before and "<img" in picture(room, small, "third")


def test_of_a_long_clip_the_beginning_is_heard_and_that_is_said() -> None:
    samples = np.sin(np.arange(40 * RATE) / 9).astype(np.float32) * 0.5
    figure = clip_figure(Room(), encoded(samples, RATE), "long", "caption")
    assert "40.0 s at 16,000 Hz, the first 12 s are heard" in figure
    with wave.open(io.BytesIO(data(figure.split("<audio")[1].split('src="')[1].split('"')[0]))) as file:
        assert file.getnframes() == HEARD_SECONDS * RATE


@pytest.mark.parametrize("figure", [image_figure, clip_figure])
def test_a_file_that_is_none_says_why(figure: Any) -> None:
    drawn = figure(Room(), b"<svg onload=1>", "record", "caption")
    assert "<img" not in drawn and "<audio" not in drawn and '<p class="dim">' in drawn
