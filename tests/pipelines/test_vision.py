"""The vision pipeline: each record one fate, whatever its images are; one dataset, whatever they come in."""

from __future__ import annotations

import io
import struct
import zlib

import pyarrow as pa
import pytest
from PIL import Image
from vision import CAPTION, encoded, fates, folder_of, picture, pixels, rows, run, values

from gristmill.lake.upkeep.verify import verify
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.settings.config import BadConfig, validate
from gristmill.pipelines.vision import VisionConfig
from gristmill.stages.containers.media import MEDIA
from gristmill.stages.media.write import ROW_GROUP_BYTES, groups_of
from gristmill.stages.text.instruct import parts_of


def bomb(side: int = 9_000) -> bytes:
    """A PNG of a few bytes that says it has so many pixels a side."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    return b"\x89PNG\r\n\x1a\n" + chunk + picture(0)[33:]


def animated() -> bytes:
    frames = [Image.fromarray(pixels(n)) for n in range(3)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


LINES = [
    ({"image": "good.png", "text": CAPTION.format(0)}, ("kept", None)),
    ({"image": "./deep/good.jpg", "caption": CAPTION.format(1)}, ("kept", None)),
    ({"image": "elsewhere/deep/good.jpg", "text": CAPTION.format(2)}, ("kept", None)),
    ({"image": "cut.jpg", "text": CAPTION.format(3)}, ("dropped", "image.truncated")),
    ({"image": "bomb.png", "text": CAPTION.format(4)}, ("dropped", "image.too_many_pixels")),
    ({"image": "moves.gif", "text": CAPTION.format(5)}, ("dropped", "image.animated")),
    ({"image": "noise.jpg", "text": CAPTION.format(6)}, ("dropped", "image.unreadable")),
    ({"image": "text.jpg", "text": CAPTION.format(7)}, ("dropped", "image.missing")),
    ({"image": "nowhere.jpg", "text": CAPTION.format(8)}, ("dropped", "image.missing")),
    ({"image": "../outside.png", "text": CAPTION.format(9)}, ("dropped", "image.missing")),
    ({"text": CAPTION.format(10)}, ("dropped", "image.no_image")),
    ({"image": "good.png"}, ("dropped", "image.no_field")),
    ({"image": "good.png", "text": 7}, ("dropped", "image.not_text")),
    ({"image": "good.png", "text": "  "}, ("dropped", "image.empty_turn")),
    ({"images": ["good.png", "cut.jpg", "bomb.png"], "text": CAPTION.format(14)}, ("dropped", "image.truncated")),
    ({"image": "thin.png", "text": CAPTION.format(15)}, ("dropped", "image_size.too_narrow")),
    ({"image": "good.png", "text": "short"}, ("dropped", "caption.too_short")),
    ({"image": "good.png", "text": "IMG_20231101.JPG"}, ("dropped", "caption.boilerplate")),
    ({"image": "good.png", "text": "a red mill and " * 9}, ("dropped", "caption.repetitive")),
    ({"image": "good.png", "text": CAPTION.format(0)}, ("dropped", "exact.duplicate")),
    (b'{"image": "good.png", ', ("quarantined", "read.unreadable")),
    (b'["good.png"]', ("quarantined", "read.unreadable")),
    ({"image": "good.png", "url": 7}, ("quarantined", "read.unreadable")),
    ({"image": ["good.png", "deep/good.jpg"] * 40, "text": CAPTION.format(23)}, ("kept", None)),
]


def test_each_record_has_one_fate_whatever_its_images_are(store, tmp_path):
    files = {
        "good.png": picture(0),
        "deep/good.jpg": picture(1, "JPEG"),
        "cut.jpg": picture(2, "JPEG")[:-400],
        "bomb.png": bomb(),
        "moves.gif": animated(),
        "noise.jpg": b"\xff\xd8\xff" + bytes(range(256)) * 4,
        "text.jpg": b"this is no image at all",
        "thin.png": encoded(pixels(3, 400, 3)),
    }
    (tmp_path / "outside.png").write_bytes(picture(9))
    address = folder_of(tmp_path / "in", [line for line, _ in LINES], files)
    manifest = run(store, [address])
    got = fates(store, manifest)
    first, again = sorted((0, 19), key=lambda place: got[place] != ("kept", None))
    assert (got[first], got[again]) == (("kept", None), ("dropped", "exact.duplicate"))
    wanted = dict(enumerate(fate for _, fate in LINES))
    assert {place: fate for place, fate in got.items() if place not in (0, 19)} == {
        place: fate for place, fate in wanted.items() if place not in (0, 19)
    }
    shown = values(store, manifest)
    assert shown["image.too_many_pixels"].startswith("image 1: 9000x9000 pixels of PNG: 81000000, allowed are 64000000")
    assert shown["image.truncated"].startswith(("image 1", "image 2"))
    assert not verify(store, deep=True)


def test_a_record_is_a_sample_with_its_images(store, tmp_path):
    good = picture(4)
    address = folder_of(tmp_path / "in", [{"image": "a/b.png", "text": CAPTION.format(4)}], {"a/b.png": good})
    (row,) = rows(store, run(store, [address], image={"ask": "What is this?", "system": "Be brief."}))
    assert row["text"] == (
        "<|system|>Be brief.<|end|><|user|><|image_1|>What is this?<|end|>"
        f"<|assistant|>{CAPTION.format(4)}<|end|><|endoftext|>"
    )
    parts = parts_of(row["text"], row["parts"])
    assert [part.text for part in parts if part.special and "image" in part.text] == ["<|image_1|>"]
    assert [part.text for part in parts if part.loss_mask] == [CAPTION.format(4), "<|end|>"]
    (medium,) = row["media"]
    assert (medium["kind"], medium["data"], medium["height"], medium["width"]) == ("image", good, 96, 128)


def chat(*contents: object) -> dict[str, object]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[n % 2], "content": content} for n, content in enumerate(contents)]}


def image(name: str | None = None, kind: str = "image") -> dict[str, object]:
    if name is None:
        return {"type": "image"}
    return {"type": kind, kind: {"url": name} if kind == "image_url" else name}


def says(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


@pytest.mark.parametrize(
    ("row", "text", "names"),
    [
        (chat([image("a.png"), says("What?")], "A."), "<|image_1|>What?", "a"),
        (chat([says("This "), image("b.png", "image_url"), says(" and "), image("a.png")], "A."),
         "This <|image_1|> and <|image_2|>", "ba"),
        (chat([image(), says("then"), image()], "A.") | {"images": ["b.png", "c.png"]},
         "<|image_1|>then<|image_2|>", "bc"),
        (chat("What changed?", "A.") | {"frames": ["a.png", "b.png", "c.png"]},
         "<|image_1|><|image_2|><|image_3|>What changed?", "abc"),
        (chat("Look: <|image_2|> <|image_1|>", "A.") | {"images": ["a.png", "b.png"]},
         "Look: <|image_2|> <|image_1|>", "ab"),
        ({"image": "c.png", "conversations": [{"from": "human", "value": "<image>\nWhat?"},
                                              {"from": "gpt", "value": "A."}]}, "<|image_1|>\nWhat?", "c"),
    ],
)  # fmt: skip
def test_turns_say_where_images_stand(store, tmp_path, row, text, names):
    files = {f"{name}.png": picture(n) for n, name in enumerate("abc")}
    (kept,) = rows(store, run(store, [folder_of(tmp_path / "in", [row], files)], image={"form": "chat"}))
    assert kept["text"] == f"<|user|>{text}<|end|><|assistant|>A.<|end|><|endoftext|>"
    assert [medium["data"] for medium in kept["media"]] == [files[f"{name}.png"] for name in names]
    special = [part.text for part in parts_of(kept["text"], kept["parts"]) if part.special]
    assert sum(text.startswith("<|image_") for text in special) == len(names)


def test_what_is_no_place_for_an_image(store, tmp_path):
    files = {"a.png": picture(0), "b.png": picture(1)}
    rows_and_fates = [
        (chat("<|image_3|>", "A.") | {"image": "a.png"}, "image.placeholders"),
        (chat("<image><image>", "A.") | {"image": "a.png"}, "image.missing"),
        (chat("<|image_1|>", "A.") | {"images": ["a.png", "b.png"]}, "image.placeholders"),
        (chat("<|image_1|><|image_1|>", "A.") | {"image": "a.png"}, "image.placeholders"),
        (chat([{"type": "video", "video": "a.mp4"}], "A."), "image.no_image"),
        (chat([image("https://away.example/a.png")], "A."), "image.missing"),
        (chat([image("a.png")]), "image.no_assistant"),
        (chat("Hi", "A."), "image.no_image"),
        ({"messages": "Hi", "image": "a.png"}, "image.no_turns"),
    ]
    good = (chat("An answer", "spells <|image_1|>.") | {"image": "a.png"}, None)
    lines = [row for row, _ in [good, *rows_and_fates]]
    manifest = run(store, [folder_of(tmp_path / "in", lines, files)], image={"form": "chat"})
    assert {n: reason for n, (_, reason) in fates(store, manifest).items()} == {
        n: reason for n, (_, reason) in enumerate([good, *rows_and_fates])
    }
    (row,) = rows(store, manifest)
    special = [part.text for part in parts_of(row["text"], row["parts"]) if part.special]
    assert special.count("<|image_1|>") == 1 and row["text"].count("<|image_1|>") == 2


def test_a_run_of_another_form_commits_nothing(store, tmp_path):
    address = folder_of(tmp_path / "in", [{"image": "a.png", "title": "A mill"}], {"a.png": picture(0)})
    with pytest.raises(GateFailed, match=r"not one of 1 records is a sample: image\.no_field \(1\)"):
        run(store, [address])


def test_row_groups_are_bounded_in_bytes(store, tmp_path):
    sizes = [ROW_GROUP_BYTES // 3, ROW_GROUP_BYTES // 3, ROW_GROUP_BYTES, 5, 0, ROW_GROUP_BYTES // 2]
    media = [[{"kind": "image", "data": b"x" * size}] if size else [] for size in sizes]
    table = pa.table({"media": pa.array(media, MEDIA), "n": range(6)})
    assert [group["n"].to_pylist() for group in groups_of(table)] == [[0, 1], [2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("image.form", "captions", "Input should be 'caption', 'pair' or 'chat', found 'captions'"),
        ("image.same", "text", "Input should be 'images_and_text' or 'images', found 'text'"),
        ("image.max_pixels", 0, "max_pixels=0: from 1 to 128000000"),
        ("image.max_images", 0, "max_images=0: at least 1"),
        ("scan.chunk_bytes", 1 << 30, "at most 1073741824, because a worker holds the images of a chunk in memory"),
        ("survivor", [], "name at least one measure, such as image_size.pixels"),
        ("caption.boilerplate", ["("], "is no regular expression"),
    ],
)
def test_settings_that_cannot_work_say_so(key, value, message):
    *path, last = key.split(".")
    recipe: dict[str, object] = {last: value}
    for name in reversed(path):
        recipe = {name: recipe}
    with pytest.raises(BadConfig, match=message.replace("(", r"\(")):
        validate(VisionConfig, {"recipe": recipe})
