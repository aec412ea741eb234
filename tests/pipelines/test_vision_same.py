"""Records with images are the same whatever they come in; copies are found; a dataset grows."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import vision
from PIL import Image
from vision import CAPTION, encoded, fates, folder_of, parquet_of, picture, pixels, rows, run, tar_of

from gristmill.pipelines.settings.config import BadConfig


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
    media_of = {
        kind: {
            (row["text"], row["media"][0]["sha256"], row["media"][0]["height"])
            for row in rows(store, run(store, [address], dataset=kind))
        }
        for kind, address in inputs.items()
    }
    assert len(media_of["lines"]) == 6 and all(media_of[kind] == media_of["lines"] for kind in media_of)


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
        float(row["value"]) >= 0.84 for row in vision.Dataset(store, manifest).ledger().to_pylist() if row["value"]
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
