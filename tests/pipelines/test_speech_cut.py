"""Long files cut in their pauses: each segment a record, with a fate, an origin and a takedown; no file is lost."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import pytest
import soundfile
from killed import kills_until
from pydantic import ValidationError
from speech import RATE, SAYS, clip, encoded, parquet_of, run, waveform
from vision import fates, folder_of, rows, tar_of

from gristmill.lake.query.dataset import Dataset
from gristmill.lake.query.why import why
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.stages.containers.bytes import long_file
from gristmill.stages.speech import cut as cutting

CUT = {"target_seconds": 4, "longest_seconds": 5, "least_pause": 0.3, "margin": 0.1}
AUDIO = {"task": "unlabelled", "cut": CUT}


def paused(seeds: range, rate: int = RATE) -> np.ndarray:
    """Clips of 3 seconds with half a second of silence behind each."""
    return np.concatenate(
        [np.concatenate([waveform(seed, 3.0, rate), np.zeros(rate // 2, np.float32)]) for seed in seeds]
    )


LONG, OTHER, SHORT = encoded(paused(range(4)), format="FLAC"), encoded(paused(range(6, 9))), clip(9)
LINES = [{"audio": "long.flac", "lang": "de", "url": "https://a.example/long"}, {"audio": "short.wav"},
         {"audio": "other.wav", "url": "https://b.example/other"}]  # fmt: skip
FILES = {"long.flac": LONG, "other.wav": OTHER, "short.wav": SHORT}


def test_segments_are_records_cut_in_pauses(store, tmp_path):
    address = folder_of(tmp_path / "in", LINES, FILES)
    manifest = run(store, [address], audio=AUDIO)
    kept = rows(store, manifest)
    assert manifest.received == manifest.kept and manifest.kept.count == len(kept) == 4 + 1 + 3
    assert manifest.inputs[0].records == 8
    assert manifest.statistics["cut"]["files"] == 2 and manifest.statistics["cut"]["segments"] == 7
    samples = soundfile.read(io.BytesIO(LONG), dtype="int16")[0]
    segments = [row for row in kept if row["origins"] and row["origins"][0]["sha256"] == sha(LONG)]
    for n, row in enumerate(segments):
        (origin,), (medium,) = row["origins"], row["media"]
        first, end = round(origin["start"] * RATE), round(origin["end"] * RATE)
        stored = soundfile.read(io.BytesIO(medium["data"]), dtype="int16")[0]
        assert np.array_equal(stored, samples[first:end]) and len(stored) <= 5 * RATE
        assert origin["start"] <= 3.5 * n + 0.1 and origin["end"] >= 3.5 * n + 2.7  # all of clip n
        assert row["language"] == "de" and row["text"].startswith("<|user|><|audio_1|>")
        assert row["text"].endswith("<|end|><|assistant|>") and not any(part["learn"] for part in row["parts"])
    assert len({row["id"][:16] for row in segments}) == 1 and len({row["id"] for row in segments}) == 4
    assert [row["media"][0]["data"] for row in kept if not row["origins"]] == [SHORT]
    assert not verify(store, deep=True)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_each_file_has_a_fate_whatever_it_is(store, tmp_path):
    silent = encoded(np.zeros(8 * RATE, np.float32))
    files = FILES | {"silent.wav": silent, "cut.wav": LONG[:-9000], "text.wav": b"no sound", "no.wav": b""}
    lines = [{"audio": name} for name in ("silent.wav", "cut.wav", "text.wav", "nowhere.wav")]
    lines += [{"audio": "long.flac", "start": 0, "end": 3.2}, {"audio": "long.flac", "start": "0"}]
    lines += [{"audio": ["other.wav", "short.wav"]}, LINES[0]]
    address = folder_of(tmp_path / "in", [*lines, b"no line"], files)
    manifest = run(store, [address], audio=AUDIO)
    assert manifest.received.count == 8 + 4
    assert [fates(store, manifest)[n][1] for n in range(12)] == [
        "clip.silent", "audio.damaged", "audio.missing", "audio.missing", None, "audio.segment",
        None, None, None, None, None, "read.unreadable",
    ]  # fmt: skip
    assert not verify(store, deep=True)


def test_a_dataset_is_the_same_in_pieces_and_in_any_container(store, tmp_path, monkeypatch):
    address = folder_of(tmp_path / "in", LINES, FILES)
    whole = rows(store, run(store, [address], audio=AUDIO))
    with monkeypatch.context() as patched:
        patched.setattr(cutting, "PIECE_SECONDS", 4.0)  # a file is work for several
        pieces = run(store, [address], audio=AUDIO, dataset="pieces", scan={"chunk_records": 1})
    assert rows(store, pieces) == whole and not verify(store, ["pieces"], deep=True)
    with monkeypatch.context() as patched:
        patched.setattr(long_file, "IN_MEMORY", 1000)  # no file is held in memory
        on_disk = run(open_store(str(tmp_path / "disk")), [address], audio=AUDIO)
    assert on_disk.content_digest == Versions(store).manifest("speech", 1).content_digest
    members = {f"{n}.{line['audio']}": FILES[line["audio"]] for n, line in enumerate(LINES)}
    inputs = {
        "tar": tar_of(tmp_path / "a.tar", members | {f"{n}.json": json.dumps({"n": n}).encode() for n in range(3)}),
        "rows": parquet_of(tmp_path / "a.parquet", [{"audio": {"bytes": FILES[line["audio"]]}} for line in LINES]),
    }
    clips = sorted(row["media"][0]["data"] for row in whole)
    for name, path in inputs.items():
        kept = rows(store, run(store, [path], audio=AUDIO, dataset=name))
        assert sorted(row["media"][0]["data"] for row in kept) == clips


def test_a_file_is_asked_for_and_taken_down_with_its_segments(store, tmp_path):
    address = folder_of(tmp_path / "in", LINES, FILES)
    first = run(store, [address], audio=AUDIO)
    versions = Versions(store)
    for question in (sha(LONG), "https://a.example/long"):
        assert sorted(story.place.ordinal for story in why(versions, question).stories) == [0, 1, 2, 3]
    segment = rows(store, first)[2]["media"][0]["sha256"]
    assert [story.place.ordinal for story in why(versions, segment).stories] == [2]

    forget(versions, plan_forget(versions, Suppression.of(media=[segment])), "request 1")
    assert len(rows(store, versions.resolve("speech"))) == 7
    forget(versions, plan_forget(versions, Suppression.of(media=[sha(LONG)])), "request 2")
    left = rows(store, versions.resolve("speech"))
    assert len(left) == 4 and sha(LONG) not in {origin["sha256"] for row in left for origin in row["origins"]}
    forget(versions, plan_forget(versions, Suppression.of(domains=["b.example"])), "request 3")
    assert [row["media"][0]["data"] for row in rows(store, versions.resolve("speech"))] == [SHORT]
    again = run(store, [folder_of(tmp_path / "more", LINES[:2], FILES)], audio=AUDIO, dataset="later")
    assert [fates(store, again)[n][1] for n in range(5)] == ["forget.suppressed"] * 4 + [None]
    assert not verify(store, deep=True)


def test_a_manifest_with_transcripts_gives_the_same_parts(store, tmp_path):
    kept = rows(store, run(store, [folder_of(tmp_path / "in", LINES, FILES)], audio=AUDIO, dataset="segments"))
    segments = [row for row in kept if row["origins"]]
    lines = [
        {"audio": origin["url"].partition(".")[2], "start": origin["start"], "end": origin["end"],
         "text": SAYS.format(n)}
        for n, origin in enumerate(row["origins"][0] for row in segments)
    ]  # fmt: skip
    labelled = rows(store, run(store, [folder_of(tmp_path / "labelled", lines, FILES)]))
    assert [row["media"][0]["data"] for row in labelled] == [row["media"][0]["data"] for row in segments]
    places = [
        [{name: row["origins"][0][name] for name in ("sha256", "start", "end")} for row in of]
        for of in (labelled, segments)
    ]
    assert places[0] == places[1]


def test_a_dataset_of_segments_grows(store, tmp_path):
    first = run(store, [folder_of(tmp_path / "in", LINES[:1], FILES)], audio=AUDIO)
    inputs = [folder_of(tmp_path / name, lines, FILES) for name, lines in (("in", LINES[:1]), ("more", LINES))]
    second = run(store, inputs, audio=AUDIO, extends="speech")
    assert second.parent == first.ref and second.received.count == 4 + 8 and second.kept.count == 8
    assert second.statistics["cut"]["segments"] == 4 + 7
    assert len(why(Versions(store), sha(LONG)).stories) == 8


def test_a_run_that_is_killed_ends_with_the_same_digest(store, tmp_path):
    address = folder_of(tmp_path / "in", LINES, FILES)
    recipe = {"audio": AUDIO, "scan": {"chunk_records": 2}}
    whole = run(open_store(str(tmp_path / "whole")), [address], **recipe)
    kills = kills_until(lambda: Versions(store).numbers("speech"), lambda: run(store, [address], **recipe), 4)
    assert kills > 1 and Versions(store).manifest("speech", 1).digest == whole.digest


def test_a_reader_that_dies_over_a_file_costs_that_file(store, tmp_path, monkeypatch):
    monkeypatch.setattr(cutting.CutFiles, "judge", lambda self, item: self.failed("cut.crashed"))
    manifest = run(store, [folder_of(tmp_path / "in", LINES[:1], FILES)], audio=AUDIO, allow_empty=True)
    ((fate, reason),) = fates(store, manifest).values()
    assert (fate, reason, manifest.machine_fates) == ("quarantined", "read.unreadable", 1)
    (row,) = Dataset(store, manifest).ledger().to_pylist()
    assert row["value"] == "no place to cut it was found: cut.crashed"


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        ({"cut": CUT}, "what is said of a file is not said of its segments"),
        (AUDIO | {"fields": {"start": []}}, "by which a segment knows where it is"),
        ({"task": "unlabelled", "cut": {"target_seconds": 99}}, "no target beyond the longest"),
    ],
)
def test_what_cannot_be_cut(store, audio, message):
    with pytest.raises(ValidationError, match=message):
        run(store, ["folder::nowhere"], audio=audio)
