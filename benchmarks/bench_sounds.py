"""Which copies of clips are found, and which clips are taken for others?

Stretches of five seconds of real speech, each with copies as they come about: another rate, another codec, softer or
louder, noise, silence around it, something cut off its ends. Bits that differ are counted for each kind of copy; then
the speech pipeline drops what it takes for a copy, among records of one text and whatever is said of them, and each
that is dropped has to have a survivor of its own clip. Last, sentences that one synthesiser says in several voices:
how many of their trimmed copies are found, and how many pairs of two voices, or of two sentences, are taken for one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from torchaudio.transforms import Resample

from benchmarks.bench_copies import dropped_right
from benchmarks.harness import Report, Row, figure
from benchmarks.material import SHARED
from gristmill.filters.audio.levels import levels
from gristmill.filters.audio.sound import BITS, sound
from gristmill.lake.query.dataset import Dataset
from gristmill.lake.store.objects import scratch
from gristmill.lake.store.opening import open_store
from gristmill.model.processing.audio_file import AudioError, decode_audio
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.speech import SpeechConfig
from gristmill.stages.run.runner import Runner
from gristmill.stages.speech.sign import MIN_SIMILARITY
from gristmill.synth.scenes.words import DIGITS
from gristmill.synth.speech.espeak import Espeak
from gristmill.synth.speech.voices import VOICES, Manner, spoken

RATE, SECONDS = 16_000, 5
AGAIN = ("whisper.cpp__jfk", "fmt_p001", "8-bit", "stereo")
"""In names of files whose recording another file has."""
DISTANCE = int(BITS * (1 - MIN_SIMILARITY))
SAME = ("clips_and_text", "clips")


class Sound(NamedTuple):
    """`kind`: the copy that it is, "" of an original. `data`: a file."""

    original: int
    kind: str
    data: bytes


def file_of(clip: np.ndarray, rate: int = RATE, format: str = "WAV", subtype: str | None = None) -> bytes:
    """Its bytes."""
    stream = io.BytesIO()
    soundfile.write(stream, np.clip(clip, -1, 1), rate, format=format, subtype=subtype)
    return stream.getvalue()


def at_rate(clip: np.ndarray, rate: int) -> np.ndarray:
    """The clip at another rate."""
    resampled: np.ndarray = Resample(RATE, rate)(torch.from_numpy(clip)).numpy()
    return resampled


def noisy(clip: np.ndarray, below_db: float) -> np.ndarray:
    """With white noise so far below it."""
    power = float(np.sqrt(np.square(clip).mean())) * 10 ** (-below_db / 20)
    noise: np.ndarray = clip + power * np.random.default_rng(0).standard_normal(len(clip)).astype(np.float32)
    return noise


CUT, AROUND = RATE // 10, np.zeros(RATE // 2, np.float32)
COPIES: dict[str, Callable[[np.ndarray], bytes]] = {
    "44,100 Hz": lambda clip: file_of(at_rate(clip, 44_100), 44_100),
    "8,000 Hz": lambda clip: file_of(at_rate(clip, 8_000), 8_000),
    "8,000 Hz, mu-law": lambda clip: file_of(at_rate(clip, 8_000), 8_000, "WAV", "ULAW"),
    "8 bits": lambda clip: file_of(clip, subtype="PCM_U8"),
    "MP3": lambda clip: file_of(clip, format="MP3"),
    "Ogg Vorbis": lambda clip: file_of(clip, format="OGG", subtype="VORBIS"),
    "Opus": lambda clip: file_of(clip, format="OGG", subtype="OPUS"),
    "20 dB softer": lambda clip: file_of(0.1 * clip),
    "6 dB louder": lambda clip: file_of(2 * clip),
    "noise 20 dB below": lambda clip: file_of(noisy(clip, 20)),
    "noise 10 dB below": lambda clip: file_of(noisy(clip, 10)),
    "half a second of silence around it": lambda clip: file_of(np.concatenate([AROUND, clip, AROUND])),
    "100 ms cut off its beginning": lambda clip: file_of(clip[CUT:]),
    "100 ms cut off its end": lambda clip: file_of(clip[:-CUT]),
    "100 ms cut off each end": lambda clip: file_of(clip[CUT:-CUT]),
    "250 ms cut off each end": lambda clip: file_of(clip[5 * CUT // 2 : -5 * CUT // 2]),
}


def generated(number: int) -> np.ndarray:
    """Bursts of tones of a pitch and a loudness each, with pauses."""
    random, clip, at = np.random.default_rng(number), np.zeros(RATE * SECONDS, np.float32), 0
    while at < len(clip):
        length = min(int(random.uniform(0.08, 0.3) * RATE), len(clip) - at)
        time = np.arange(length) / RATE
        pitch, shape = random.uniform(300, 900), np.sin(np.pi * np.arange(length) / length)
        tones = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in (1, 2, 3))
        clip[at : at + length] = random.uniform(0.05, 0.3) * shape * tones
        at += length + int(random.uniform(0.02, 0.15) * RATE)
    return clip


def stretches(folder: Path) -> Iterator[np.ndarray]:
    """Of every real recording, five seconds after five, where somebody speaks."""
    for path in sorted(folder.iterdir()):
        if any(name in path.name for name in AGAIN):
            continue
        try:
            clip, rate = decode_audio(path.read_bytes())
        except AudioError:
            continue
        clip = Resample(rate, RATE)(torch.from_numpy(clip)).numpy() if rate != RATE else clip
        for first in range(0, len(clip) - RATE * SECONDS + 1, RATE * SECONDS):
            part = clip[first : first + RATE * SECONDS]
            measured = levels(part, RATE)
            if measured.silent < 0.5 and measured.peak > 0.02:
                yield np.clip(part, -1, 1)


def originals(tiny: bool) -> tuple[str, list[np.ndarray]]:
    """Where they are from, and clips that are not alike."""
    folder = SHARED / "5_audio"
    if tiny or not folder.is_dir():
        return "generated clips", [generated(number) for number in range(4)]
    clips = list(stretches(folder))
    return f"{len(clips)} stretches of real speech of {SECONDS} s", clips


def bits_apart(sounds: Sequence[int]) -> np.ndarray:
    """int64 [sounds, sounds]."""
    bits = np.unpackbits(np.array(sounds, ">u8").view(np.uint8).reshape(-1, 8), axis=1)
    return np.asarray((bits[:, None] != bits[None]).sum(-1))


def of_voices(tiny: bool) -> dict[str, float]:
    """% of generated sentences of which a copy without 100 ms at each end is found; % of pairs of one sentence in two
    voices, and of two sentences, that are taken for copies."""
    engine, random = Espeak(), np.random.default_rng(0)
    sentences = [" ".join(DIGITS[digit] for digit in random.integers(0, 10, 5)) for _ in range(3 if tiny else 20)]
    utterances = list[tuple[int, int, int]]()  # sentence, sound, and sound of the trimmed one
    for number, text in enumerate(sentences):
        for voice in VOICES[: 8 : 4 if tiny else 1]:
            samples, rate = spoken(engine, text, Manner(voice, 165, 50, 0.8))
            cut = rate // 10
            utterances.append((number, sound(samples, rate), sound(samples[cut:-cut], rate)))
    apart = bits_apart([whole for _, whole, _ in utterances])
    numbers = np.array([number for number, _, _ in utterances])
    pairs = np.triu(np.ones_like(apart, bool), 1)
    same = numbers[:, None] == numbers[None]
    return {
        "trimmed_copies": 100 * float(np.mean([(a ^ b).bit_count() <= DISTANCE for _, a, b in utterances])),
        "other_voices": 100 * float((apart[pairs & same] <= DISTANCE).mean()),
        "other_sentences": 100 * float((apart[pairs & ~same] <= DISTANCE).mean()),
    }


def through_pipeline(files: Sequence[Sound], folder: Path, same: str) -> dict[str, float]:
    """What `dropped_right` says of the records that the files become, and % of those kept that no lossy copy is."""
    folder.mkdir()
    lines = []
    for n, each in enumerate(files):
        (folder / f"{n}.bin").write_bytes(each.data)
        lines.append(json.dumps({"id": f"{n}", "audio": f"{n}.bin", "text": "A mill by the river.", "lang": "en"}))
    (folder / "lines.jsonl").write_text("\n".join(lines) + "\n")
    recipe = {
        "inputs": [f"folder::{folder / 'lines.jsonl'}"],
        "audio": {"same": same, "seconds_per_record": None},
        "clip": {"max_silent_ratio": None, "max_clipped_ratio": None},
        "speech_rate": None,
    }
    store = open_store(str(folder / "lake"))
    manifest = run_pipeline(SpeechConfig.model_validate({"recipe": recipe}), store, Runner(store, workers=0)).manifest
    dataset = Dataset(store, manifest)
    recall, precision, lost = dropped_right("sounds", dataset, [each.original for each in files])
    kept = [files[row["ordinal"]].kind for row in dataset.ledger().to_pylist() if row["fate"] == "kept"]
    lossless = 100 * sum(not kind or "Hz" in kind for kind in kept) / len(kept)
    return {"recall": recall, "precision": precision, "clips_lost": lost, "lossless_survivors": lossless}


def run(tiny: bool) -> Report:
    """Bits, then the pipeline. `tiny`: on a few generated clips, for the tests."""
    source, clips = originals(tiny)
    files = [Sound(n, "", file_of(clip)) for n, clip in enumerate(clips)]
    files += [Sound(n, kind, make(clip)) for kind, make in COPIES.items() for n, clip in enumerate(clips)]
    bits = np.array([np.frombuffer(sound(*decode_audio(each.data)).to_bytes(8, "big"), np.uint8) for each in files])
    bits = np.unpackbits(bits, axis=1)
    apart = np.array([(bits[n] != bits[each.original]).sum() for n, each in enumerate(files)])
    kinds = np.array([each.kind for each in files])
    first = bits[: len(clips)]
    between = (first[:, None] != first[None]).sum(-1) + BITS * np.eye(len(clips), dtype=np.int64)
    voices = of_voices(tiny)
    with scratch() as folder:
        ways = {same: through_pipeline(files, folder / same, same) for same in SAME}
    rows = [Row("copies within the distance", figure([100 * float((apart[kinds != ""] <= DISTANCE).mean())]), "%")]
    for same, shown in zip(SAME, ("of one text", "whatever is said of them"), strict=True):
        rows += [
            Row(f"pipeline, clips {shown}: {what}", figure([ways[same][what]]), "%", "every fate")
            for what in ("recall", "precision")
        ]
    rows.append(Row("generated speech: trimmed copies found", figure([voices["trimmed_copies"]]), "%"))
    for name, shown in (("other_voices", "one sentence in two voices"), ("other_sentences", "two sentences")):
        rows.append(Row(f"generated speech: {shown}, not taken for one", figure([100 - voices[name]]), "%"))
    return Report(
        name="sounds",
        data=f"{source}, each with {len(COPIES)} copies",
        rounds=1,
        rows=tuple(rows),
        notes=(f"alike: at most {DISTANCE} of {BITS} bits apart",),
        details={
            "kinds": {kind: float((apart[kinds == kind] <= DISTANCE).mean()) for kind in COPIES},
            "median_bits": {kind: float(np.median(apart[kinds == kind])) for kind in COPIES},
            "closest_strangers": int(between.min()),
            "pipeline": ways,
            "voices": voices,
        },
    )
