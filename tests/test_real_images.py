"""Real images go through whole, as a folder and as a tar: each record has one fate, and these are the right ones.

The files that are dropped were looked at one by one: what each of them is stands beside its reason.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import groupby

import pytest
from vision import rows, run, tar_of

from gristmill.lake.query.dataset import Dataset
from gristmill.lake.upkeep.verify import verify

DROPPED = {
    "Pillow__decompression_bomb_extents.gif": "image.animated",  # two frames, of which one claims 4 million pixels
    "captions.jsonl": "image.no_image",
    "pillow__apng_blend_op_over_near_transparent.png": "image.animated",
    "pillow__broken_data_stream.png": "image.unreadable",  # the checksum of a chunk is wrong
    "pillow__dispose_none_load_end.gif": "image.animated",
    "pillow__truncated_image.png": "image.truncated",
    "scikit-image__no_time_for_that_tiny.gif": "image.animated",
    "sharp__2x2_fdcce6.png": "image_size.too_narrow",  # 2 x 2 pixels
    "sharp__corrupt-header.jpg": "image.truncated",
    "sharp__rotating-squares.gif": "image.animated",
    "sharp__truncated.jpg": "image.truncated",
}


@pytest.mark.parametrize("container", ["folder", "tar"])
def test_each_real_image_has_the_fate_that_it_should_have(store, tmp_path, shared_data, container):
    folder = shared_data / "4_images"
    address = f"folder::{folder}"
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if container == "tar":
        address = tar_of(tmp_path / "images.tar", {path.name: path.read_bytes() for path in files})
    image = {"form": "pair", "prompt": "id", "response": "id", "seconds_per_record": 60.0}
    manifest = run(store, [address], image=image)
    # Files of one name up to its first dot are one record: three of the same picture are.
    records = [list(group) for _, group in groupby(files, key=lambda path: path.name.partition(".")[0])]
    assert (len(files), manifest.received.count, len(records)) == (85, 83, 83)
    ledger = Dataset(store, manifest).ledger().to_pylist()
    dropped = {records[row["ordinal"]][0].name: row["reason"] for row in ledger if row["fate"] == "dropped"}
    assert dropped == DROPPED
    assert Counter(row["fate"] for row in ledger) == {"kept": 83 - len(DROPPED), "dropped": len(DROPPED)}
    stored = {medium["data"] for row in rows(store, manifest) for medium in row["media"]}
    assert stored == {path.read_bytes() for path in files if path.name not in DROPPED}
    assert not verify(store, deep=True)


def test_lines_of_captions_name_the_files_beside_them(store, shared_data):
    folder = shared_data / "4_images"
    lines = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    manifest = run(store, [f"folder::{folder}/captions.jsonl"])
    kept = rows(store, manifest)
    assert manifest.received.count == len(lines) and len(kept) == len(lines) - 1  # one names an animation
    captions = {line["file"].rpartition("/")[2]: line["captions"][0] for line in lines}
    for row in kept:
        (medium,) = row["media"]
        name = medium["url"].partition(".")[2]
        assert f"<|assistant|>{captions[name]}<|end|>" in row["text"]
        assert medium["data"] == (folder / name).read_bytes()
