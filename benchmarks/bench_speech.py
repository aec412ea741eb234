"""How many hours of recordings become a dataset in a second, and what of the time goes where? With two workers? What
does a recording of two hours take that is cut in its pauses?

A tar of clips of ten seconds, FLAC, each with a transcript of its own, through the whole speech pipeline: decoded, its
levels measured and its sound hashed, judged, compared, written. Its parts are timed where the pipeline calls them. Then
a recording of two hours, silence behind every sentence, becomes segments in a process of its own, whose peak of memory
is compared with that of twelve minutes: what grows is the file and what is stored of it, which no waveform is.
(Log-Mel of such files, with decoding and resampling: bench_audio.py.)
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import soundfile

from benchmarks.harness import (
    Arm,
    Differ,
    Figure,
    Places,
    Report,
    Row,
    alike,
    alone,
    clocked,
    contest,
    figure,
    forget_peak,
    parts_of,
    resident,
)
from benchmarks.material import flac_of, speech
from gristmill.filters.audio.levels import levels
from gristmill.filters.audio.sound import sound
from gristmill.lake.store.objects import put_table
from gristmill.lake.store.opening import open_store
from gristmill.model.processing.audio_file import decode_audio
from gristmill.model.processing.audio_rates import RATE
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.speech import SpeechConfig
from gristmill.stages.core import shards
from gristmill.stages.read import reading
from gristmill.stages.run.cluster import connect
from gristmill.stages.run.runner import Runner
from gristmill.stages.speech import clips
from gristmill.stages.text import samples

SECONDS, PIECES = 10, 4
PARTS = ("decode", "levels", "sound", "write")
CUT = {"target_seconds": 20, "longest_seconds": 30}


def tar_of(path: Path, count: int) -> str:
    """Writes so many clips of SECONDS with a transcript each; says what they are."""
    source, whole = speech(SECONDS * 5)
    with tarfile.open(path, "w") as tar:
        for n in range(count):
            clip = np.roll(whole, -n * 7919)[: SECONDS * RATE]
            text = f"The mill by the river has a wheel with number {n:06} on it, and it turns all day."
            for name, data in ((f"{n:06}.flac", flac_of(clip, RATE)), (f"{n:06}.txt", text.encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return source


def built(lake: Path, path: Path, workers: int) -> str:
    """The digest of the version of a tar."""
    store = open_store(str(lake))
    audio: dict[str, Any] = {"language": "en"} | ({} if workers else {"seconds_per_record": None})
    recipe = {"inputs": [str(path)], "scan": {"chunk_bytes": path.stat().st_size // PIECES + 1}, "audio": audio}
    recipe |= {"shards": {"target_bytes": path.stat().st_size // PIECES}}
    config = SpeechConfig.model_validate({"recipe": recipe})
    return run_pipeline(config, store, Runner(store, workers=workers)).manifest.content_digest


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """CPU seconds of each of PARTS, while it is open."""
    seconds = dict.fromkeys(PARTS, 0.0)
    write = clocked(put_table, seconds, "write")
    with (
        mock.patch.object(clips, "decode_audio", clocked(decode_audio, seconds, "decode")),
        mock.patch.object(clips, "levels", clocked(levels, seconds, "levels")),
        mock.patch.object(clips, "sound", clocked(sound, seconds, "sound")),
        mock.patch.object(samples, "put_table", write),
        mock.patch.object(reading, "put_table", write),
        mock.patch.object(shards.WriteShards, "run", clocked(shards.WriteShards.run, seconds, "write")),
    ):
        yield seconds


def shares(path: Path, places: Places, count: int, rounds: int) -> tuple[dict[str, float], Figure]:
    """% of the CPU time of each part and of all else; hours of audio in a CPU second."""
    hours = count * SECONDS / 3600
    rows = parts_of(lambda: built(places.fresh(), path, 0), timed, rounds)
    parts = {name: 100 * figure([row[name] / row["whole"] for row in rows]).median for name in (*PARTS, "else")}
    return parts, figure([hours / row["whole"] for row in rows])


# A long recording.


def recording(path: Path, minutes: int) -> None:
    """A FLAC of so many minutes: real speech, silence behind every twelve seconds."""
    sentence = np.concatenate([speech(12)[1], np.zeros(RATE // 2, np.float32)])
    with soundfile.SoundFile(path, "w", RATE, 1, format="FLAC") as file:
        for _ in range(round(minutes * 60 * RATE / len(sentence))):
            file.write(sentence)


def peak_of_cutting(folder: Path) -> tuple[int, int]:
    """Segments of the recording in a folder, and the peak of this process in bytes."""
    store = open_store(str(folder.with_name(f"{folder.name}-lake")))
    audio = {"task": "unlabelled", "language": "en", "cut": CUT, "seconds_per_record": None}
    recipe = {"inputs": [f"folder::{folder}"], "audio": audio, "min_similarity": None, "exact": {}}
    forget_peak()
    manifest = run_pipeline(SpeechConfig.model_validate({"recipe": recipe}), store, Runner(store, workers=0)).manifest
    return int(manifest.statistics["cut"]["segments"]), resident("VmHWM")


def peaks(folder: Path, minutes: tuple[int, int]) -> list[dict[str, int]]:
    """Of a process each, that cuts a recording of so many minutes."""
    sizes = []
    for number in minutes:
        own = folder / f"minutes{number}"
        own.mkdir()
        recording(own / "long.flac", number)
        segments, peak = alone(peak_of_cutting, own)
        if not segments >= number * 2:
            raise Differ(f"speech: {segments} segments of {number} minutes")
        sizes.append({"minutes": number, "peak": peak, "file": (own / "long.flac").stat().st_size})
    return sizes


def run(tiny: bool) -> Report:
    """Parts, workers, memory. `tiny`: on next to nothing, without Ray, for the tests."""
    count, rounds, minutes = (12, 1, (1, 2)) if tiny else (360, 3, (12, 120))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places, path = Places(folder), folder / "clips.tar"
        source = tar_of(path, count)
        parts, speed = shares(path, places, count, rounds)
        workers = (0,) if tiny else (1, 2)
        if not tiny:
            connect(max(workers))  # one Ray for all arms, or the second would have the CPUs of the first
        arms = {f"{n} workers": Arm(partial(lambda n: built(places.fresh(), path, n), n)) for n in workers}
        times = contest(arms, rounds, alike("speech: the version"))
        small, large = peaks(folder, minutes)
    rows = [Row("clips to a dataset, one core", speed, "h/s", "one version")]
    if not tiny:
        alone, together = (times.wall[f"{n} workers"] for n in workers)
        faster = figure([a / b for a, b in zip(alone, together, strict=True)])
        rows.append(Row("two workers, faster than one", faster, "x", "one version"))
    growth = large["peak"] - small["peak"]
    per_byte = growth / (large["file"] - small["file"])
    rows.append(
        Row(
            f"peak memory of cutting {minutes[1]} minutes, beyond that of {minutes[0]}, in bytes a byte of the file",
            figure([per_byte]),
            "x",
            "every segment",
        )
    )
    shown = ", ".join(f"{part} {share:.0f}%" for part, share in parts.items())
    return Report(
        name="speech",
        data=f"{source}: {count} clips of {SECONDS} s and recordings of {minutes[0]} and {minutes[1]} min, FLAC",
        rounds=rounds,
        rows=tuple(rows),
        notes=(f"of the CPU time of a build: {shown}",),
        details={"shares": parts, "peaks": [small, large]},
    )
