"""Segments of long files, by each kind of manifest: each a record; a file is asked for and taken down with them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import tracemalloc
from functools import partial

import numpy as np
import pytest
import soundfile
from killed import kills_until
from speech import RATE, SAYS, clip, encoded, run, waveform
from vision import fates, folder_of, picture, rows

from gristmill.lake.inputs.sources import expand, open_input
from gristmill.lake.query.dataset import Dataset
from gristmill.lake.query.why import why
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.model.processing.audio_file import AudioError
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.containers import ReadConfig, read, scan
from gristmill.stages.containers.media import Media
from gristmill.stages.speech import clips
from gristmill.stages.speech.clips import Part, clip_of
from gristmill.stages.speech.sign import SignClips


def long_of(seeds: range, rate: int = RATE) -> np.ndarray:
    """Clips of 2 seconds, end to end."""
    return np.concatenate([waveform(seed, rate=rate) for seed in seeds])


LONG, OTHER = encoded(long_of(range(4)), format="FLAC"), clip(9)


def lines_of(name: str = "long.flac", first: int = 0) -> list[dict[str, object]]:
    return [{"audio": name, "start": 2 * n, "end": 2 * n + 2, "text": SAYS.format(first + n)} for n in range(4)]


def written(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder


def kaldi(folder):
    files = {
        "wav.scp": "long /corpus/wavs/long.flac\nother wavs/other.wav\npiped sox a.sph -t wav - |\n",
        "text": "".join(f"utt{n} {SAYS.format(n)}\n" for n in range(4)) + f"utt9 {SAYS.format(9)}\n",
        "segments": "".join(f"utt{n} long {2 * n} {2 * n + 2}\n" for n in range(4))
        + "utt9 other 0.0 2.0\nlost long 0 1\npiped piped 0 1\nbad long one two\n",
        "utt2lang": "".join(f"utt{n} en\n" for n in (0, 1, 2, 3, 9)),
        "wavs/long.flac": LONG, "wavs/other.wav": OTHER,
    }  # fmt: skip
    return f"folder::{written(folder, files)}/wav.scp"


def lhotse(folder):
    def recording(key: str, path: str, kind: str = "file") -> dict[str, object]:
        return {"id": key, "sources": [{"type": kind, "channels": [0], "source": path}], "sampling_rate": RATE}

    def supervision(key: str, of: str, start: float, text: str) -> dict[str, object]:
        where = {"id": key, "recording_id": of, "start": start, "duration": 2.0, "channel": 0}
        return where | {"text": text, "language": "English"}

    recordings = [recording("long", "wavs/long.flac"), recording("other", "wavs/other.wav"),
                  recording("piped", "cat x", "command")]  # fmt: skip
    supervisions = [supervision(f"utt{n}", "long", 2.0 * n, SAYS.format(n)) for n in range(4)]
    supervisions += [supervision("utt9", "other", 0.0, SAYS.format(9)), supervision("lost", "long", 0.0, " ")]
    supervisions += [supervision("piped", "piped", 0.0, "A mill.")]
    files = {"a_recordings.jsonl": recordings, "a_supervisions.jsonl": supervisions}
    texts = {name: "".join(json.dumps(row) + "\n" for row in of) for name, of in files.items()}
    texts["a_supervisions.jsonl"] += "{no JSON\n"
    return f"folder::{written(folder, texts | {'wavs/long.flac': LONG, 'wavs/other.wav': OTHER})}/a_supervisions.jsonl"


def lhotse_compressed(folder):
    lhotse(folder)
    for path in folder.glob("*.jsonl"):
        path.with_suffix(".jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    return f"folder::{folder}/a_supervisions.jsonl.gz"


@pytest.mark.parametrize("manifest_of", [kaldi, lhotse, lhotse_compressed])
def test_manifests_of_segments_are_read(store, tmp_path, manifest_of):
    manifest = run(store, [manifest_of(tmp_path / "in")], audio={"language": ""})
    kept = {row["text"].partition("number ")[2][0]: row for row in rows(store, manifest)}
    assert sorted(kept) == ["0", "1", "2", "3", "9"]
    lost = "audio.no_field" if manifest_of is kaldi else "audio.empty_turn"
    others = [fates(store, manifest)[n][1] for n in (5, 6, 7)]
    assert others == [lost, "audio.missing" if manifest_of is kaldi else "audio.no_clip", "audio.unread"]
    renamed = run(store, [manifest_of(tmp_path / "in")], audio={"language": "", "read": {"id": "utt"}})
    assert [fates(store, renamed)[n][1] for n in (5, 6, 7)] == others
    whole = hashlib.sha256(LONG).hexdigest()
    for n in range(4):
        (medium,), (origin,) = kept[str(n)]["media"], kept[str(n)]["origins"]
        assert origin["sha256"] == whole and (origin["start"], origin["end"]) == (2.0 * n, 2.0 * n + 2)
        samples, rate = soundfile.read(io.BytesIO(medium["data"]), dtype="int16")
        expected = soundfile.read(io.BytesIO(LONG), dtype="int16")[0][2 * n * RATE : (2 * n + 2) * RATE]
        assert rate == RATE and np.array_equal(samples, expected) and medium["samples"] == 2 * RATE
    assert kept["9"]["media"][0]["data"] == OTHER and not kept["9"]["origins"]  # all of its file: as it came
    assert not verify(store, deep=True)


def test_common_voice_is_read(store, tmp_path):
    table = ["client_id\tpath\tsentence\tup_votes\tlocale"]
    table += [f"x\tcommon_voice_en_{n}.mp3\t{SAYS.format(n)}\t2\ten" for n in range(3)]
    table += [
        "x\tcommon_voice_en_9.mp3\tA mill.\t2\ten",
        "x\tcommon_voice_en_0.mp3",
        "x\tcommon_voice_en_1.mp3\t\t\ten",
    ]
    files = {f"clips/common_voice_en_{n}.mp3": clip(n, "MP3") for n in range(3)}
    folder = written(tmp_path / "in", {"validated.tsv": "\r\n".join(table) + "\r\n", **files})
    manifest = run(store, [f"folder::{folder}/validated.tsv"], audio={"language": ""})
    assert sorted(row["media"][0]["data"] for row in rows(store, manifest)) == sorted(files.values())
    reasons = [fates(store, manifest)[n][1] for n in range(6)]
    assert reasons == [None] * 3 + ["audio.missing", "audio.unread", "audio.no_field"]


def test_librispeech_is_read_by_a_pattern(store, tmp_path):
    for chapter in (1, 2):
        lines = [f"84-{chapter}-{n:04} THE MILL NUMBER {chapter}{n} BY THE RIVER" for n in range(2)]
        files = {f"84-{chapter}-{n:04}.flac": clip(10 * chapter + n, "FLAC") for n in range(2)}
        written(tmp_path / "in" / "84" / str(chapter), {f"84-{chapter}.trans.txt": "\n".join(lines) + "\n", **files})
    pattern = f"folder::{tmp_path}/in/**/*.trans.txt"
    assert len(expand(pattern)) == 2
    kept = rows(store, run(store, [pattern]))
    for row in kept:
        number = int(row["text"].partition("NUMBER ")[2][:2])
        assert row["media"][0]["data"] == clip(number, "FLAC")
    assert len(kept) == 4


def test_parts_of_one_file_have_it_once_and_any_piece_of_work_finds_it(store, tmp_path):
    lines = [*lines_of(), {"audio": "other.wav", "text": SAYS.format(9)}, *lines_of()[:2]]
    lines[-2:] = [{**line, "text": f"Again, {line['text']}"} for line in lines[-2:]]
    address = folder_of(tmp_path / "in", lines, {"long.flac": LONG, "other.wav": OTHER})
    with open_input(address) as stream, tarfile.open(fileobj=stream) as archive:
        members = [(member.name.rpartition("/")[2], member.size) for member in archive if ".json" not in member.name]
    sizes = [len(LONG), 0, 0, 0, len(OTHER), len(LONG), 0]
    names = ["long.flac"] * 4 + ["other.wav"] + ["long.flac"] * 2
    assert members == [(f"{n:09}.{name}", size) for n, (name, size) in enumerate(zip(names, sizes, strict=True))]
    whole = run(store, [address], dataset="one")
    assert len(rows(store, whole)) == 7
    in_pieces = run(store, [address], dataset="two", scan={"chunk_records": 1})
    assert rows(store, in_pieces) == rows(store, whole)


def test_rows_of_parts_that_name_more_than_one_file_are_each_whole(tmp_path):
    files = {"f1.png": picture(1), "f2.png": picture(2), "a.wav": OTHER, "a.txt": b"what is said"}
    lines = [{"images": ["f1.png", "f2.png"], "question": f"What is it, {n}?", "start": 0, "end": 5} for n in range(3)]
    lines += [{"audio": "a.wav", "transcript_file": "a.txt", "start": n} for n in range(3)]
    address = folder_of(tmp_path / "in", lines, files)
    with open_input(address) as stream:
        spans = scan(stream, "tar").spans
    for first in range(len(lines)):
        got = list(read(partial(open_input, address), spans.slice(first), "tar", ReadConfig(), rows=True))
        media = [[medium.data for medium in item.media] for item in got]
        assert media == ([[files["f1.png"], files["f2.png"]]] * 3 + [[OTHER]] * 3)[first:]


@pytest.mark.parametrize("rate", [8000, 65_536, 65_537, 96_000, 96_001, 383_999])
def test_a_part_of_a_file_of_any_rate_is_stored(rate):
    samples = np.rint(waveform(1, 0.2, rate) * 32_768) / 32_768
    data = encoded(samples, rate)
    clip = clip_of(Media("audio", "0" * 64, "long.wav", data), Part(0.05, 0.15), 30.0)
    stored, stored_rate = soundfile.read(io.BytesIO(clip.medium["data"]), dtype="float32")
    assert stored_rate == rate and len(stored) == clip.medium["samples"] == round(0.15 * rate) - round(0.05 * rate)
    assert np.array_equal(stored, samples[round(0.05 * rate) : round(0.15 * rate)].astype(np.float32))


def test_a_clip_is_refused_by_its_samples_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(clips, "MOST_SAMPLES", 2 * RATE)
    item = Media("audio", "0" * 64, "long.flac", LONG)
    assert clip_of(item, Part(1.0, 3.0), 30.0).medium["samples"] == 2 * RATE
    for part in (None, Part(1.0, 3.1)):
        with pytest.raises(AudioError, match="allowed are 32000") as caught:
            clip_of(item, part, 30.0)
        assert caught.value.reason == "audio.too_long"


def test_what_is_measured_of_a_clip_takes_no_more_memory_at_a_high_rate():
    rate, seconds = 192_000, 20
    item = Media("audio", "0" * 64, "long.wav", encoded(np.tile(waveform(1, 1.0, rate), seconds), rate))
    tracemalloc.start()
    try:
        clip_of(item, None, 30.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * rate * seconds + (64 << 20)  # the waveform, and blocks that are the same at any rate


def test_a_file_that_is_too_long_for_a_record_costs_its_segments(store, tmp_path):
    address = folder_of(tmp_path / "in", lines_of(), {"long.flac": LONG})
    read = {"max_record_bytes": len(LONG) - 1}
    manifest = run(store, [address], audio={"read": read}, allow_empty=True, scan={"chunk_records": 2})
    assert set(fates(store, manifest).values()) == {("quarantined", "read.unreadable")}
    errors = {row["value"] for row in Dataset(store, manifest).ledger().to_pylist()}
    assert any("exceeds max_record_bytes" in error for error in errors)


def test_a_file_is_asked_for_and_taken_down_with_its_segments(store, tmp_path):
    lines = [*lines_of(), {"audio": "other.wav", "text": SAYS.format(9)}]
    first = run(store, [folder_of(tmp_path / "in", lines, {"long.flac": LONG, "other.wav": OTHER})])
    versions, whole = Versions(store), hashlib.sha256(LONG).hexdigest()
    kept = {row["text"].partition("number ")[2][0]: row for row in rows(store, first)}
    assert sorted(story.place.ordinal for story in why(versions, whole).stories) == [0, 1, 2, 3]
    segment = kept["2"]["media"][0]["sha256"]
    assert [story.place.ordinal for story in why(versions, segment).stories] == [2]
    assert [story.place.ordinal for story in why(versions, kept["2"]["id"]).stories] == [2]

    forget(versions, plan_forget(versions, Suppression.of(media=[segment])), "request 1")
    second = versions.resolve("speech")
    assert [row["text"].partition("number ")[2][0] for row in rows(store, second)] == ["0", "1", "3", "9"]
    forget(versions, plan_forget(versions, Suppression.of(media=[whole])), "request 2")
    third = versions.resolve("speech")
    assert [row["media"][0]["data"] for row in rows(store, third)] == [OTHER]
    assert versions.withdrawn("speech").keys() == {1, 2}
    files = {"long.flac": LONG, "other.wav": OTHER}
    again = run(store, [folder_of(tmp_path / "more", [*lines_of(first=4), lines[-1]], files)], dataset="later")
    assert [fates(store, again)[n][1] for n in range(5)] == ["forget.suppressed"] * 4 + [None]
    assert not verify(store, deep=True)


def test_records_are_taken_down_by_id_url_and_domain(store, tmp_path):
    urls = ["https://a.example/0", "https://b.example/1", "https://b.example/2", "https://c.example/3"]
    lines = [line | {"url": url} for line, url in zip(lines_of(), urls, strict=True)]
    first = run(store, [folder_of(tmp_path / "in", lines, {"long.flac": LONG})])
    versions = Versions(store)
    (story,) = why(versions, urls[3]).stories
    request = Suppression.of(ids=[story.place.id], urls=[urls[0]], domains=["b.example"])
    assert plan_forget(versions, request).affected
    forget(versions, plan_forget(versions, Suppression.of(domains=["b.example"], urls=[urls[0]])), "request")
    assert [row["url"] for row in rows(store, versions.resolve("speech"))] == [urls[3]]
    assert first.kept.count == 4


def test_a_dataset_grows_by_segments(store, tmp_path):
    address = folder_of(tmp_path / "in", lines_of()[:2], {"long.flac": LONG})
    first = run(store, [address])
    more = folder_of(tmp_path / "more", lines_of(), {"long.flac": LONG})
    second = run(store, [address, more], extends="speech")
    assert second.parent == first.ref and second.received.count == 6
    assert sorted(row["text"].partition("number ")[2][0] for row in rows(store, second)) == ["0", "1", "2", "3"]
    new = [(fate, reason) for fate, reason in fates(store, second).values()]
    assert new.count(("dropped", "exact.duplicate")) <= 2
    stories = why(Versions(store), hashlib.sha256(LONG).hexdigest()).stories
    assert len(stories) == 6


def test_clips_that_were_signed_otherwise_are_not_compared(store, tmp_path, monkeypatch):
    address = folder_of(tmp_path / "in", lines_of()[:2], {"long.flac": LONG})
    more = folder_of(tmp_path / "more", lines_of(), {"long.flac": LONG})
    with monkeypatch.context() as before:
        before.setattr(SignClips, "VERSION", SignClips.VERSION - 1)
        run(store, [address])
    with pytest.raises(BadConfig, match=r"recipe\.extends: speech@v1 .* told otherwise how clips sound"):
        run(store, [address, more], extends="speech")
    assert run(store, [address, more], extends="speech", min_similarity=None).version == 2


def test_a_run_that_is_killed_before_any_receipt_ends_with_the_same_digest(store, tmp_path):
    lines = [*lines_of(), {"audio": "other.wav", "text": SAYS.format(9)}]
    address = folder_of(tmp_path / "in", lines, {"long.flac": LONG, "other.wav": OTHER})
    scan = {"chunk_records": 3}  # the second piece of work begins with a segment of a file that the first one has
    whole = run(open_store(str(tmp_path / "whole")), [address], scan=scan)
    kills = kills_until(lambda: Versions(store).numbers("speech"), lambda: run(store, [address], scan=scan), 5)
    assert kills > 1
    assert Versions(store).manifest("speech", 1).digest == whole.digest
    assert not verify(store, deep=True)
