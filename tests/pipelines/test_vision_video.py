"""Videos as frames of records: in every container, in turns, with the file that they are of; what has none says why."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from videos import NEEDED, numbers, sound, video
from vision import CAPTION, encoded, fates, folder_of, picture, rows, run, tar_of, values

from gristmill.lake.query.dataset import Dataset
from gristmill.lake.query.why import why
from gristmill.lake.store.base import Store
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.model.processing.video_file import can_decode, video_frames
from gristmill.pipelines.settings.config import BadConfig, validate
from gristmill.pipelines.vision import VisionConfig
from gristmill.stages.text.instruct import parts_of
from gristmill.stages.vision import frames as decoding

needs_av = pytest.mark.skipif(not can_decode(), reason=NEEDED)


def watched(store: Store, inputs: list[str], **recipe: Any) -> Manifest:
    """The version of these inputs, with 4 frames of each video."""
    given = {"frames": 4, **recipe.pop("video", {})}
    return run(store, inputs, video=given, scan={"chunk_records": 4}, **recipe)


def shown(row: dict[str, Any]) -> list[int]:
    """Which frames of its video a record has."""
    return numbers([np.asarray(Image.open(io.BytesIO(medium["data"]))) for medium in row["media"]])


def videos_in_parquet(path: Path, data: dict[str, bytes]) -> str:
    """A video as bytes, as Hugging Face's datasets have it."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = pa.array([{"bytes": file, "path": name} for name, file in data.items()], kind)
    pq.write_table(pa.table({"video": column, "text": [CAPTION.format(n) for n in range(len(data))]}), path)
    return str(path)


@needs_av
def test_a_video_is_frames_of_its_record_whatever_it_comes_in(store, tmp_path):
    files = {
        "0.mp4": video(), "1.mov": video(format="mov", codec="mpeg4", first=2),
        "2.webm": video(format="webm", codec="libvpx-vp9"), "3.mkv": video(format="matroska"),
    }  # fmt: skip
    lines = [{"video": name, "text": CAPTION.format(n)} for n, name in enumerate(files)]
    captions = {f"{n}.txt": CAPTION.format(n).encode() for n in range(4)}
    inputs = {
        "lines": folder_of(tmp_path / "lines", lines, files),
        "tar": tar_of(tmp_path / "a.tar", dict(sorted((files | captions).items()))),
        "parquet": videos_in_parquet(tmp_path / "b.parquet", files),
    }
    kept = {}
    for name, address in inputs.items():
        manifest = watched(store, [address], dataset=name)
        kept[name] = {row["text"]: row for row in rows(store, manifest)}
        assert set(fates(store, manifest).values()) == {("kept", None)}
    first = {text: [medium["data"] for medium in row["media"]] for text, row in kept["lines"].items()}
    assert len(first) == 4
    for others in kept.values():
        assert first == {text: [medium["data"] for medium in row["media"]] for text, row in others.items()}
    for n, name in enumerate(files):
        placeholders = "".join(f"<|image_{number}|>" for number in range(1, 5))
        text = f"<|user|>{placeholders}<|end|><|assistant|>{CAPTION.format(n)}<|end|><|endoftext|>"
        row = kept["lines"][text]
        assert shown(row) == [number + 2 * (n == 1) for number in (3, 9, 15, 21)]
        for medium in row["media"]:
            assert (medium["kind"], medium["height"], medium["width"]) == ("image", 48, 64)
            assert medium["sha256"] == hashlib.sha256(medium["data"]).hexdigest() and medium["url"].endswith(name)
        (origin,) = row["origins"]
        assert origin["sha256"] == hashlib.sha256(files[name]).hexdigest() and origin["first"] == 1
        assert [round(second * 12) for second in origin["seconds"]] == [3, 9, 15, 21]
    assert not verify(store, deep=True)


@needs_av
def test_turns_say_where_frames_stand(store, tmp_path):
    files = {"a.png": picture(0), "v.mp4": video(), "w.mp4": video(frames=2)}
    part = {"type": "image_url", "image_url": {"url": "a.png"}}
    film = {"type": "video", "video": "v.mp4"}
    url = {"type": "video_url", "video_url": {"url": "w.mp4"}}

    def chat(content: Any) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "A mill."}]}

    lines = [
        chat([film, part, {"type": "text", "text": "and"}, url]),
        chat("<video> and <image> and <video>") | {"videos": ["w.mp4"], "images": ["a.png", "v.mp4"]},
        chat("See <|image_2|>, then <|image_1|>.") | {"video": ["w.mp4", "v.mp4"]},
    ]
    manifest = watched(store, [folder_of(tmp_path / "in", lines, files)], image={"form": "chat"})
    kept = {row["id"]: row for row in rows(store, manifest)}
    order = sorted(Dataset(store, manifest).ledger().to_pylist(), key=lambda row: row["ordinal"])
    spoken = [kept[row["id"]]["text"].partition("<|user|>")[2].partition("<|end|>")[0] for row in order]

    def images(first: int, last: int) -> str:
        return "".join(f"<|image_{number}|>" for number in range(first, last + 1))

    assert spoken == [
        images(1, 4) + images(5, 5) + "and" + images(6, 7),
        images(1, 1) + " and " + images(2, 5) + " and " + images(6, 7),
        "See " + images(3, 6) + ", then " + images(1, 2) + ".",
    ]
    for row in kept.values():
        special = [part.text for part in parts_of(row["text"], row["parts"]) if part.special]
        assert sum(text.startswith("<|image_") for text in special) == len(row["media"])
    assert [origin["first"] for origin in kept[order[0]["id"]]["origins"]] == [1, 6]
    assert [origin["first"] for origin in kept[order[1]["id"]]["origins"]] == [2, 6]
    assert picture(0) in [medium["data"] for medium in kept[order[0]["id"]]["media"]]  # an image is as it came


@needs_av
def test_each_record_with_a_video_has_one_fate(store, tmp_path):
    good = video()
    files = {
        "good.mp4": good, "cut.mp4": good[:-300], "sound.mp4": sound(), "noise.mkv": b"\x1a\x45\xdf\xa3" + bytes(200),
        "long.mp4": video(frames=60), "large.mp4": video(height=160, width=160),
        "none.avi": video(0, format="avi", codec="mpeg4"),
        "rare.mov": video(3, format="mov", codec="png"), "a.png": picture(0), "far.mp4": video(keyframes=99),
        "hurt.mp4": good.replace(good[good.index(b"mdat") + 50 :][:900], bytes(900)),
    }  # fmt: skip
    expected = {
        "good.mp4": None, "cut.mp4": "image.truncated", "sound.mp4": "image.no_video", "noise.mkv": "image.unreadable",
        "long.mp4": "image.too_long", "large.mp4": "image.too_many_pixels", "none.avi": "image.empty",
        "rare.mov": "image.unsupported", "nowhere.mp4": "image.missing", "far.mp4": "image.too_many_frames",
        "hurt.mp4": "image.damaged",
    }  # fmt: skip
    lines: list[dict[str, Any]] = [{"video": name, "text": CAPTION.format(n)} for n, name in enumerate(expected)]
    lines += [
        {"video": ["good.mp4", "good.mp4"], "text": CAPTION.format(20)},  # one file, once
        {"videos": ["good.mp4", "two.mp4"], "text": CAPTION.format(21)},
        {"video": ["good.mp4", "cut.mp4"], "text": CAPTION.format(22)},
        {"image": "a.png", "video": "good.mp4", "text": CAPTION.format(23)},
    ]
    files["two.mp4"] = video(first=1)
    bounds = {"max_seconds": 4, "max_decoded": 20, "max_bytes": len(picture(0)) + 100}
    image = {"max_pixels": 20_000, "max_images": 6, "seconds_per_record": 60}  # in a process of its own
    manifest = watched(store, [folder_of(tmp_path / "in", lines, files)], video=bounds, image=image)
    reasons = [reason for _, (_, reason) in sorted(fates(store, manifest).items())]
    assert reasons == [*expected.values(), None, "image.too_many_images", "image.truncated", "image.too_many_bytes"]
    texts = values(store, manifest)
    assert texts["image.too_many_images"] == "7 with frames of videos, allowed are 6"
    assert texts["image.no_video"] == "video 1: no stream of pictures that move; streams are of type: audio"


@needs_av
def test_a_video_is_asked_for_and_taken_down_by_its_digest(store, tmp_path):
    files = {"a.mp4": video(), "b.mp4": video(first=2), "c.png": picture(0)}
    lines = [
        {"video": "a.mp4", "text": CAPTION.format(0)},
        {"video": ["b.mp4", "a.mp4"], "text": CAPTION.format(1)},
        {"video": "b.mp4", "text": CAPTION.format(2)},
        {"image": "c.png", "text": CAPTION.format(3)},
        {"video": "a.mp4", "text": 7},
    ]
    manifest, versions = watched(store, [folder_of(tmp_path / "in", lines, files)]), Versions(store)
    whole = hashlib.sha256(files["a.mp4"]).hexdigest()
    assert sorted(story.place.ordinal for story in why(versions, whole).stories) == [0, 1, 4]
    frame = next(row for row in rows(store, manifest) if "number 2" in row["text"])["media"][3]["sha256"]
    assert 2 in [story.place.ordinal for story in why(versions, frame).stories]
    forget(versions, plan_forget(versions, Suppression.of(media=[whole])), "request 1")
    left = rows(store, versions.resolve("vision"))
    assert sorted(row["text"].partition("number ")[2][0] for row in left) == ["2", "3"]
    lines = [{"video": "a.mp4", "text": "Another text of it."}, {"image": "c.png", "text": "And one of this."}]
    later = watched(store, [folder_of(tmp_path / "more", lines, files)], dataset="later")
    assert fates(store, later) == {0: ("dropped", "forget.suppressed"), 1: ("kept", None)}
    assert not verify(store, deep=True)


@needs_av
def test_a_frame_of_a_benchmark_is_found_among_those_of_videos(store, tmp_path):
    data, other = video(codec="mpeg4"), video(first=2, codec="mpeg4")
    ninth = encoded([frame.pixels for frame in video_frames(data, 4)][1])
    bench = {"image": "x.png", "text": CAPTION.format(0)}
    run(store, [folder_of(tmp_path / "bench", [bench], {"x.png": ninth})], dataset="bench")
    lines = [{"video": ["b.mp4", "a.mp4"], "text": CAPTION.format(1)}, {"video": "b.mp4", "text": CAPTION.format(2)}]
    against = {"against": ["bench@v1"], "min_similarity": None}
    address = folder_of(tmp_path / "in", lines, {"a.mp4": data, "b.mp4": other})
    manifest = watched(store, [address], decontaminate=against)
    assert fates(store, manifest) == {0: ("dropped", "benchmark.same_image"), 1: ("kept", None)}
    assert values(store, manifest)["benchmark.same_image"].startswith("image 6 is image 1 of ")


@needs_av
def test_a_dataset_grows_with_the_same_settings_alone(store, tmp_path):
    files = {"a.mp4": video(), "b.png": picture(0)}
    address = folder_of(tmp_path / "in", [{"video": "a.mp4", "text": CAPTION.format(0)}], files)
    more = folder_of(tmp_path / "more", [{"image": "b.png", "text": CAPTION.format(1)}], files)
    first = watched(store, [address])
    with pytest.raises(BadConfig, match=r"recipe\.video: vision@v1 has video .*, this recipe has None: its shards"):
        run(store, [address, more], extends="vision")
    second = watched(store, [address, more], extends="vision")
    assert second.parent == first.ref and [len(row["media"]) for row in rows(store, second)] == [4, 1]


def test_without_the_extra_or_the_key_a_video_is_none(store, tmp_path, monkeypatch):
    files = {"a.mp4": b"\0\0\0\x20ftypisom", "b.png": picture(0)}
    lines = [{"files": "a.mp4", "text": CAPTION.format(0)}, {"image": "b.png", "text": CAPTION.format(1)}]
    address = folder_of(tmp_path / "in", lines, files)
    manifest = run(store, [address])
    assert fates(store, manifest) == {0: ("dropped", "image.not_an_image"), 1: ("kept", None)}
    assert "origins" not in Dataset(store, manifest).to_arrow().column_names
    monkeypatch.setattr(decoding, "can_decode", lambda: False)
    with pytest.raises(BadConfig, match=r"recipe\.video: frames=4: .* package av, .* pip install 'gristmill\[video\]'"):
        watched(store, [address], dataset="other")


@pytest.mark.parametrize(
    ("video", "scan", "message"),
    [
        ({"frames": 0}, {}, "frames=0: at least 1"),
        ({"max_seconds": 0}, {}, "max_seconds=0.*: more than 0, at most 14400"),
        ({}, {}, "With video.max_bytes 32000000 set scan.chunk_records to at most 28, now 200000"),
        ({}, {"chunk_records": 29}, "set scan.chunk_records to at most 28, now 29"),
    ],
)
def test_settings_that_cannot_work_say_so(video, scan, message):
    with pytest.raises(BadConfig, match=message):
        validate(VisionConfig, {"recipe": {"video": video, "scan": scan}})
