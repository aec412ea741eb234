"""Decontamination: an image of a benchmark in a record is found, by its bytes and by how it looks, and named."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from vision import CAPTION, encoded, folder_of, picture, pixels, run, values

from gristmill.lake.query.dataset import Dataset
from gristmill.lake.store.objects import read_table
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.vision.benchmarks import LOOKS, Benchmark, Decontaminate, Match

AGAINST = {"against": ["bench@v1"]}


def smaller(seed: int) -> bytes:
    """Half the size, recompressed."""
    image = Image.fromarray(pixels(seed, 192, 256)).resize((128, 96), Image.Resampling.BICUBIC)
    return encoded(np.asarray(image), "JPEG", quality=60)


@pytest.fixture
def bench(store, tmp_path):
    """Three records of a benchmark, one with two images."""
    files = {f"{n}.png": picture(n, height=192, width=256) for n in range(4)}
    lines = [{"images": [f"{n}.png"], "text": CAPTION.format(n)} for n in range(2)]
    lines += [{"images": ["2.png", "3.png"], "text": CAPTION.format(23)}]
    return run(store, [folder_of(tmp_path / "bench", lines, files)], dataset="bench")


FILES = {
    "same.png": picture(1, height=192, width=256), "half.jpg": smaller(3), "other.png": picture(50),
    "another.png": picture(51), "third.png": picture(52),
}  # fmt: skip
LINES = [
    {"image": "other.png", "text": CAPTION.format(0)},
    {"image": "same.png", "text": "Something else is said of it."},
    {"images": ["another.png", "half.jpg"], "text": CAPTION.format(2)},
    {"image": "third.png", "text": CAPTION.format(1)},
]


def test_a_record_with_an_image_of_a_benchmark_is_dropped_and_the_image_named(store, tmp_path, bench):
    manifest = run(store, [folder_of(tmp_path / "in", LINES, FILES)], decontaminate=AGAINST)
    ledger = Dataset(store, manifest).ledger().to_pylist()
    assert {row["ordinal"]: row["reason"] for row in ledger} == {
        0: None, 1: "benchmark.same_image", 2: "benchmark.similar_image", 3: None
    }  # fmt: skip
    ids = {row["ordinal"]: row["id"] for row in Dataset(store, bench).ledger().to_pylist()}
    shown = values(store, manifest)
    assert shown["benchmark.same_image"] == f"image 1 is image 1 of {ids[1]} of bench@v1"
    assert shown["benchmark.similar_image"].startswith(f"image 2 is image 2 of {ids[2]} of bench@v1, alike in ")
    (ref,) = [ref for ref in manifest.attachments if ref.kind == "contamination"]
    assert [tuple(row.values()) for row in read_table(store, ref).to_pylist()] == [
        ("bench@v1", ids[1], 0, "same_image", 1), ("bench@v1", ids[2], 1, "similar_image", 1)
    ]  # fmt: skip
    assert manifest.statistics["decontamination"] == {
        "against": ["bench@v1"],
        "images": 4,
        "images_found": 2,
        "records_dropped": {"same_image": 1, "similar_image": 1},
    }
    assert [(str(ref), ref.role) for ref in manifest.sources] == [("bench@v1", "held_out")]
    funnel = {row.stage: row.dropped for row in manifest.funnel}
    assert funnel["benchmark"] == {"benchmark.same_image": 1, "benchmark.similar_image": 1}
    assert not verify(store, deep=True)


def test_without_looks_bytes_alone_count(store, tmp_path, bench):
    asked = {**AGAINST, "min_similarity": None}
    manifest = run(store, [folder_of(tmp_path / "in", LINES, FILES)], decontaminate=asked)
    assert manifest.statistics["decontamination"]["records_dropped"] == {"same_image": 1, "similar_image": 0}


def test_an_increment_is_compared_too_and_the_report_adds_up(store, tmp_path, bench):
    run(store, [folder_of(tmp_path / "in", LINES, FILES)], decontaminate=AGAINST)
    again = [{"image": "same.png", "text": "A third thing is said of it."}]
    address = folder_of(tmp_path / "more", again, {"same.png": FILES["same.png"]})
    with pytest.raises(BadConfig, match="not compared with the same benchmarks"):
        run(store, [address], extends="vision")
    manifest = run(store, [address], extends="vision", decontaminate=AGAINST)
    assert manifest.statistics["decontamination"]["records_dropped"] == {"same_image": 2, "similar_image": 1}
    assert manifest.statistics["decontamination"]["images_found"] == 2 and manifest.kept.count == 2


def test_what_cannot_be_compared_with_is_refused(store, tmp_path, bench):
    Versions(store).tag("bench", 1, "best")
    address = folder_of(tmp_path / "in", LINES, FILES)
    for against, message in (
        (["bench"], "'bench' is no exact version"),
        (["none@v1"], "recipe.decontaminate.against: .*none"),
        (["bench@best"], "is a tag; give the version, bench@v1"),
        ([], "name at least one version"),
        (["bench@v1", "bench@v1"], "and each once"),
    ):
        with pytest.raises((BadConfig, ValueError), match=message):
            run(store, [address], decontaminate={"against": against})


def strangers(count: int, apart: int) -> np.ndarray:
    """Looks of which any two differ in so many bits at least; uint64."""
    random = np.random.default_rng(0)
    looks = np.empty(0, np.uint64)
    while len(looks) < count:
        look = random.integers(0, 1 << 64, 1, np.uint64)
        if np.all(np.bitwise_count(looks ^ look) >= apart):
            looks = np.append(looks, look)
    return looks


def test_every_look_within_the_bits_is_found(monkeypatch):
    from gristmill.stages.vision import benchmarks

    looks = strangers(300, apart=22)
    rows = [
        {"id": f"{n:032x}", "position": 0, "sha256": f"{n:064x}", "look": int(bits)} for n, bits in enumerate(looks)
    ]
    benchmark = Benchmark([("b@v1", pa.Table.from_pylist(rows, schema=LOOKS))])
    near = looks.copy()
    for place in range(10):  # 10 other bits in each
        near ^= np.uint64(1) << np.uint64(6 * place)
    monkeypatch.setattr(benchmarks, "_BLOCK", 1000)
    asked = Decontaminate(("b@v1",))
    assert asked.max_bits == 10
    matches = benchmark.matches(["x"] * 300, near, asked.max_bits)
    assert matches == [Match("similar_image", n, 1 - 10 / 64) for n in range(300)]
    # With an 11th bit each is 11 bits from its own look, and as far at least from all others.
    assert benchmark.matches(["x"] * 300, near ^ np.uint64(1 << 60), asked.max_bits) == [None] * 300
    assert benchmark.matches([f"{7:064x}"], near[:1], -1) == [Match("same_image", 7, 1.0)]
