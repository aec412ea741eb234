"""The vision pipeline: each record one fate, whatever its images are; one dataset, whatever they come in."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import struct
import zlib

import numpy as np
import pyarrow as pa
import pytest
import vision
from PIL import Image
from rich.console import Console
from vision import encoded, fates, folder_of, parquet_of, picture, pixels, rows, run, tar_of, values

from gristmill.lake.query.sampling import sample
from gristmill.lake.query.why import why
from gristmill.lake.store.objects import read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.show.records import draw_samples
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.settings.config import BadConfig, validate
from gristmill.pipelines.vision import VisionConfig
from gristmill.stages.containers.media import MEDIA
from gristmill.stages.text.instruct import parts_of
from gristmill.stages.vision.write import ROW_GROUP_BYTES, groups_of

CAPTION = "A mill by the river, number {}."


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
    lines = [
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
    (tmp_path / "outside.png").write_bytes(picture(9))
    address = folder_of(tmp_path / "in", [line for line, _ in lines], files)
    manifest = run(store, [address])
    got = fates(store, manifest)
    first, again = sorted((0, 19), key=lambda place: got[place] != ("kept", None))
    assert (got[first], got[again]) == (("kept", None), ("dropped", "exact.duplicate"))
    wanted = dict(enumerate(fate for _, fate in lines))
    assert {place: fate for place, fate in got.items() if place not in (0, 19)} == {
        place: fate for place, fate in wanted.items() if place not in (0, 19)
    }
    told = values(store, manifest)
    assert told["image.too_many_pixels"].startswith("image 1: 9000x9000 pixels of PNG: 81000000, allowed are 64000000")
    assert told["image.truncated"].startswith(("image 1", "image 2"))
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


def chat(*said: object) -> dict[str, object]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[n % 2], "content": content} for n, content in enumerate(said)]}


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


def test_a_dataset_is_the_same_whatever_its_records_come_in(store, tmp_path):
    pictures = [picture(n, "JPEG" if n % 2 else "PNG") for n in range(6)]
    names = [f"{n:03}.{'jpg' if n % 2 else 'png'}" for n in range(6)]
    captions = [CAPTION.format(n) for n in range(6)]
    lines = [{"file_name": name, "text": text} for name, text in zip(names, captions, strict=True)]
    members: dict[str, bytes] = {}
    for name, data, text in zip(names, pictures, captions, strict=True):
        members |= {name: data, name[:3] + ".txt": text.encode()}
    inputs = {
        "lines": folder_of(tmp_path / "lines", lines, dict(zip(names, pictures, strict=True))),
        "tar": tar_of(tmp_path / "a.tar", members),
        "json": tar_of(
            tmp_path / "b.tar",
            {name.replace(".txt", ".json"): json.dumps({"caption": data.decode()}).encode() if ".txt" in name else data
             for name, data in members.items()},
        ),
        "parquet": parquet_of(
            tmp_path / "c.parquet",
            [{"image": {"bytes": data, "path": name}, "text": text}
             for name, data, text in zip(names, pictures, captions, strict=True)],
        ),
    }  # fmt: skip
    made = {
        kind: {
            (row["text"], row["media"][0]["sha256"], row["media"][0]["height"])
            for row in rows(store, run(store, [address], dataset=kind))
        }
        for kind, address in inputs.items()
    }
    assert len(made["lines"]) == 6 and all(made[kind] == made["lines"] for kind in made)


def test_a_folder_of_media_and_texts_is_read_as_the_tar_of_it(store, tmp_path):
    folder_of(tmp_path / "in", [], {f"{n}.png": picture(n) for n in range(3)})
    for n in range(3):
        (tmp_path / "in" / f"{n}.txt").write_text(CAPTION.format(n))
    manifest = run(store, [f"folder::{tmp_path / 'in'}"])
    assert [row["media"][0]["data"] for row in rows(store, manifest)] == [picture(n) for n in range(3)]
    assert fates(store, manifest)[3] == ("dropped", "image.no_field")  # the file of lines, of which nobody asked


def test_the_digest_of_lines_covers_the_media_that_they_name_and_no_place(store, tmp_path):
    lines = [{"image": f"{n}.png", "text": CAPTION.format(n)} for n in range(3)]
    address = folder_of(tmp_path / "in", lines, {f"{n}.png": picture(n) for n in range(4)})
    first = run(store, [address])
    shutil.move(tmp_path / "in", tmp_path / "moved")
    address = address.replace("/in/", "/moved/")
    (tmp_path / "moved" / "3.png").write_bytes(b"nobody names it")
    assert run(store, [address]).ref == first.ref
    (tmp_path / "moved" / "2.png").write_bytes(picture(7))
    second = run(store, [address])
    assert second.ref != first.ref and second.inputs[0].digest != first.inputs[0].digest
    media = {
        manifest.version: {row["media"][0]["sha256"] for row in rows(store, manifest)} for manifest in (first, second)
    }
    assert len(media[1] & media[2]) == 2


def test_the_digest_does_not_depend_on_how_the_work_is_done(store, tmp_path):
    lines = [{"images": [f"{n}.png", f"{(n * 5) % 7}.png"], "text": CAPTION.format(n)} for n in range(7)]
    address = folder_of(tmp_path / "in", lines, {f"{n}.png": picture(n) for n in range(7)})
    whole = run(store, [address], dataset="one")
    in_children = run(store, [address], dataset="two", image={"seconds_per_record": 60.0})
    assert [ref.sha256 for ref in whole.shards] == [ref.sha256 for ref in in_children.shards]
    assert rows(store, run(store, [address], dataset="three", scan={"chunk_records": 2})) == rows(store, whole)


def test_same_images_with_another_text_are_duplicates_only_where_the_recipe_says_so(store, tmp_path):
    lines = [{"image": name, "text": CAPTION.format(n)} for name in ("a.png", "b.png") for n in range(3)]
    address = folder_of(tmp_path / "in", lines, {"a.png": picture(0), "b.png": picture(1)})
    assert len(rows(store, run(store, [address], dataset="texts"))) == 6
    kept = rows(store, run(store, [address], dataset="images", image={"same": "images"}))
    assert sorted(row["media"][0]["data"] for row in kept) == sorted([picture(0), picture(1)])


def test_copies_of_a_picture_are_found_and_the_largest_is_kept(store, tmp_path):
    files: dict[str, bytes] = {}
    for n in range(8):
        own = pixels(n, 288, 384)
        small = Image.fromarray(own).resize((192, 144), Image.Resampling.BICUBIC)
        files |= {f"{n}.png": encoded(own), f"{n}s.jpg": encoded(np.array(small), "JPEG", quality=60)}
        files[f"{n}c.png"] = encoded(own[4:-2, 3:-4])
    lines = [{"image": name, "text": CAPTION.format(name[0])} for name in files]
    manifest = run(store, [folder_of(tmp_path / "in", lines, files)])
    kept = [row["media"][0] for row in rows(store, manifest)]
    assert sorted((medium["height"], medium["width"]) for medium in kept) == [(288, 384)] * 8
    assert {reason for _, reason in fates(store, manifest).values()} == {None, "phash.duplicate"}
    assert all(
        float(row["value"]) >= 0.87 for row in vision.Dataset(store, manifest).ledger().to_pylist() if row["value"]
    )


def test_a_dataset_grows_and_what_came_first_stays(store, tmp_path):
    address = folder_of(tmp_path / "in", [{"image": "a.png", "text": CAPTION.format(0)}], {"a.png": picture(0)})
    first = run(store, [address])
    larger, other = picture(0, height=192, width=256), picture(5)
    lines = [{"image": "a.png", "text": CAPTION.format(0)}, {"image": "b.png", "text": CAPTION.format(5)}]
    more = folder_of(tmp_path / "more", lines, {"a.png": larger, "b.png": other})
    second = run(store, [address, more], extends="vision")
    assert second.parent == first.ref and second.received.count == 3
    assert {row["media"][0]["data"] for row in rows(store, second)} == {picture(0), other}
    with pytest.raises(BadConfig, match=r"recipe\.image\.same: vision@v2 has images_and_text, this recipe has images"):
        run(store, [address, more, folder_of(tmp_path / "z", lines[:1], {"a.png": other})],
            extends="vision", image={"same": "images"})  # fmt: skip


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


def test_a_sample_shows_what_images_are_and_not_their_bytes(store, tmp_path):
    files = {"a.png": picture(0), "b.png": picture(1)}
    lines = [{"images": ["a.png", "b.png"], "text": CAPTION.format(0)}, {"image": "a.png", "text": "short"}]
    manifest = run(store, [folder_of(tmp_path / "in", lines, files)])
    for fate in ("kept", "dropped"):
        drawn = sample(Versions(store), manifest, fate=fate)
        for record in drawn.samples:
            for medium in record.fields["media"]:
                assert medium["bytes"] == len(files[medium["url"].partition(".")[2]])
                assert not {"data", "samples", "rate"} & medium.keys()
        shown = io.StringIO()
        draw_samples(Console(file=shown, width=400), drawn, full=False)
        text = shown.getvalue()
        assert "image 1" in text and "96 x 128 pixels" in text and "PNG" not in text and "\\x89" not in text


def test_an_image_is_asked_for_and_taken_down_by_its_digest(store, tmp_path):
    files = {f"{name}.png": picture(n) for n, name in enumerate("abc")}
    lines = [
        {"image": "a.png", "text": CAPTION.format(0)},
        {"image": "b.png", "text": CAPTION.format(1)},
        {"images": ["b.png", "a.png"], "text": CAPTION.format(2)},
        {"image": "a.png", "text": CAPTION.format(0)},
        {"image": "c.png", "text": CAPTION.format(4)},
    ]
    first = run(store, [folder_of(tmp_path / "in", lines, files)])
    gone = hashlib.sha256(files["a.png"]).hexdigest()
    media = [row for ref in first.attachments if ref.kind == "media" for row in read_table(store, ref).to_pylist()]
    kept = {row["id"]: [medium["sha256"] for medium in row["media"]] for row in rows(store, first)}
    assert sorted((row["id"], row["position"], row["sha256"]) for row in media) == sorted(
        (record, n, sha256) for record, digests in kept.items() for n, sha256 in enumerate(digests)
    )
    stories = why(Versions(store), gone).stories
    assert sorted(story.place.ordinal for story in stories) == [0, 2, 3]
    assert sorted(story.fate for story in stories) == ["dropped", "kept", "kept"]

    request = Suppression.of(media=[gone])
    versions = Versions(store)
    forget(versions, plan_forget(versions, request), "request 1")
    second = versions.resolve("vision")
    assert versions.withdrawn("vision").keys() == {1}
    assert [row["text"].partition("number ")[2][0] for row in rows(store, second)] == ["1", "4"]
    left = [row for ref in second.attachments if ref.kind == "media" for row in read_table(store, ref).to_pylist()]
    assert gone not in {row["sha256"] for row in left} and len(left) == 2
    lines = [{"image": "a.png", "text": "Another caption of it."}, {"image": "c.png", "text": "And one of this."}]
    third = run(store, [folder_of(tmp_path / "more", lines, files)], dataset="later")
    assert fates(store, third) == {0: ("dropped", "forget.suppressed"), 1: ("kept", None)}
    assert not plan_forget(versions, request).affected and not verify(store, deep=True)


def test_a_digest_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"'a\.png' is no sha256: 64 hex characters"):
        Suppression.of(media=["a.png"])


def test_a_run_that_is_killed_before_any_receipt_ends_with_the_same_digest(store, tmp_path, monkeypatch):
    lines = [{"images": [f"{n}.png", f"{(n + 1) % 6}.png"], "text": CAPTION.format(n)} for n in range(6)]
    address = folder_of(tmp_path / "in", lines, {f"{n}.png": picture(n) for n in range(6)})
    scan = {"chunk_records": 2}
    whole = run(open_store(str(tmp_path / "whole")), [address], scan=scan)
    kills, link = 0, os.link
    while not Versions(store).numbers("vision"):
        pid = os.fork()
        if not pid:  # each run writes two receipts more than were there, then dies of a signal
            written = 0

            def dying(*args: object, **kwargs: object) -> None:
                nonlocal written
                written += "receipts" in str(args[1])
                if written > 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                link(*args, **kwargs)

            os.link = dying  # type: ignore[assignment]
            try:
                run(store, [address], scan=scan)
            finally:
                os._exit(0)
        kills += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert kills > 5
    assert Versions(store).manifest("vision", 1).digest == whole.digest
    assert not verify(store, deep=True)
