"""How soon is a clip log-Mel, against the feature extractor of transformers? What does a file of two hours take?

One thread. First clips of 30 and of 300 seconds in memory: exact frames have to be the reference's within 1e-5, 99.9%
of values within 2e-6 (sums may have another order), those of the float32 transform nearly. Then compressed files, with
what decoding, resampling, log-Mel and storing take of their time. Last the peak memory of a process that takes a file
of two hours through all of it, against one of twelve minutes.
"""

from __future__ import annotations

import importlib.metadata
import io
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import soundfile
import torch
from torchaudio.transforms import Resample
from transformers.models.phi4_multimodal.feature_extraction_phi4_multimodal import Phi4MultimodalFeatureExtractor

from benchmarks.harness import (
    Arm,
    Differ,
    Figure,
    Report,
    Row,
    Times,
    alone,
    clocked,
    contest,
    figure,
    forget_peak,
    resident,
)
from benchmarks.material import flac_of, speech
from gristmill.model.processing import audio
from gristmill.model.processing.audio import frames_of, log_mel, log_mel_blocks
from gristmill.model.processing.audio_file import audio_blocks, decode_audio, file_mel
from gristmill.model.processing.audio_rates import RATE

REFERENCE, EXACT, FAST = "reference", "exact", "float32"
WHOLE, STORED = "file to log-Mel", "stored"
PARTS = ("decoding", "resampling", "log-Mel", "storing")
BOUNDS = {EXACT: (0.999, 2e-6, 1e-5), FAST: (0.99, 1e-3, 1e-2)}
"""A share of values that differ from the reference's by so much at most, and how much any does."""
FILE_RATE = 44_100


def by_reference(extractor: Phi4MultimodalFeatureExtractor, clip: np.ndarray) -> np.ndarray:
    """What transformers makes of it."""
    features = extractor(clip, sampling_rate=RATE, return_tensors="pt")["audio_input_features"]
    frames: np.ndarray = features[0].numpy()
    return frames


def often(work: Callable[[], Any], times: int) -> Any:
    """What the last of so many times came to."""
    for _ in range(times - 1):
        work()
    return work()


def same_frames(outcomes: Mapping[str, np.ndarray]) -> None:
    """Raises Differ unless frames are the reference's within the bounds of their kind."""
    for name, (share, limit, most) in BOUNDS.items():
        error = np.abs(outcomes[name] - outcomes[REFERENCE])
        within = (error <= limit).mean()
        if within < share or error.max() > most:
            raise Differ(f"audio: frames of {name} differ by up to {error.max()}, {within:.3%} of them within {limit}")


def first_contest(seconds: int, rounds: int, times: int) -> Times:
    """A clip in memory to frames."""
    clip, extractor = speech(seconds)[1], Phi4MultimodalFeatureExtractor()
    works = {
        REFERENCE: partial(by_reference, extractor, clip),
        EXACT: partial(log_mel, clip, RATE),
        FAST: partial(log_mel, clip, RATE, exact=False),
    }
    return contest({name: Arm(partial(often, work, times), work) for name, work in works.items()}, rounds, same_frames)


def second_contest(data: bytes, rounds: int) -> tuple[Times, dict[str, float]]:
    """A file to frames, and their storing; with the CPU seconds of each part of that."""
    mel, samples = file_mel(data), len(decode_audio(data)[0])
    parts = dict.fromkeys(PARTS, 0.0)

    def whole() -> np.ndarray:
        with (
            mock.patch.object(Resample, "forward", clocked(Resample.forward, parts, "resampling")),
            mock.patch.object(audio._Transform, "__call__", clocked(audio._Transform.__call__, parts, "log-Mel")),
        ):
            return file_mel(data)

    def stored() -> int:
        target = io.BytesIO()
        np.save(target, mel)
        return len(target.getvalue())

    def check(outcomes: Mapping[str, Any]) -> None:
        if len(outcomes[WHOLE]) != frames_of(samples, FILE_RATE):
            raise Differ(f"audio: {len(outcomes[WHOLE])} frames, {frames_of(samples, FILE_RATE)} by the file's length")

    works = {WHOLE: clocked(whole, parts, "decoding"), STORED: clocked(stored, parts, "storing")}
    times = contest({name: Arm(work, work) for name, work in works.items()}, rounds, check)
    parts["decoding"] -= parts["resampling"] + parts["log-Mel"]  # what is left of the whole
    return times, parts


def peak_of(path: Path) -> tuple[int, int]:
    """Frames of a file, which nobody keeps, and this process's peak in bytes since it began to read."""
    torch.set_num_threads(1)
    forget_peak()
    with path.open("rb") as file:
        frames = sum(map(len, log_mel_blocks(audio_blocks(file), FILE_RATE, exact=False)))
    return frames, resident("VmHWM")


def peaks(minutes: tuple[int, int]) -> list[int]:
    """Of a process each, that reads a file of so many minutes. Raises Differ where it has other frames."""
    minute = speech(60, FILE_RATE)[1]
    sizes = []
    with tempfile.TemporaryDirectory() as folder:
        for number in minutes:
            path = Path(folder, f"{number}.flac")
            with soundfile.SoundFile(path, "w", FILE_RATE, 1, format="FLAC") as file:
                for _ in range(number):
                    file.write(minute)
            frames, peak = alone(peak_of, path)
            if frames != frames_of(number * len(minute), FILE_RATE):
                raise Differ(f"audio: {frames} frames of {number} minutes")
            sizes.append(peak)
    return sizes


def run(tiny: bool) -> Report:
    """Both contests, and memory. `tiny`: on next to nothing, for the tests."""
    rounds, short, long, minutes = (1, 2, 3, (1, 2)) if tiny else (9, 30, 300, (12, 120))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        by_length = {short: first_contest(short, rounds, 5), long: first_contest(long, rounds, 1)}
        file, parts = second_contest(flac_of(speech(long, FILE_RATE)[1], FILE_RATE), rounds)
        small, large = peaks(minutes)
    finally:
        torch.set_num_threads(threads)
    same = {
        EXACT: "99.9% of values within 2e-6, all within 1e-5",
        FAST: "99% of values within 0.001, all within 0.01",
    }
    ratios = [
        Row(
            f"{seconds} seconds to log-Mel, {name}, faster than transformers",
            times.ratio(REFERENCE, name),
            "x",
            checked,
        )
        for seconds, times in by_length.items()
        for name, checked in same.items()
    ]
    whole = file.seconds(WHOLE, STORED).median
    hours = Figure(*(long / 3600 / seconds for seconds in (whole, *reversed(file.seconds(WHOLE, STORED)[1:]))))
    growth = figure([100 * large / small])
    return Report(
        name="audio",
        data=f"{speech(1)[0]}: clips of {short} and {long} s at {RATE} Hz, files of FLAC at {FILE_RATE} Hz",
        rounds=rounds,
        rows=(
            *ratios,
            Row("a FLAC file to stored log-Mel, one core", hours, "h/s", "as many frames"),
            Row(f"peak memory, {minutes[1]} minutes of that of {minutes[0]}", growth, "%", "as many frames"),
        ),
        notes=("a file is decoded, resampled and transformed in blocks; of its time " + shares(parts),),
        details={
            "shares": {part: seconds / sum(parts.values()) for part, seconds in parts.items()},
            "peak_bytes": [small, large],
            "packages": {name: importlib.metadata.version(name) for name in ("soundfile", "torch", "torchaudio")},
        },
    )


def shares(parts: Mapping[str, float]) -> str:
    """What each part takes of all, in words."""
    whole = sum(parts.values())
    return ", ".join(f"{name} takes {part / whole:.0%}" for name, part in parts.items())
