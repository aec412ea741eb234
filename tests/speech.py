"""Clips made from numbers, records with them in each container, and runs of the speech pipeline over these."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from gristmill.lake.store.base import Store
from gristmill.lake.versions.manifest import Manifest
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.speech import SpeechConfig
from gristmill.stages.run.runner import Runner

SAYS = "The mill by the river has wheel number {}."
IN_PROCESS = {"seconds_per_record": None}
RATE = 16_000


def waveform(seed: int, seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    """Something like speech, float32 [samples]: syllables of a few tones, with pauses. Of two numbers two clips that
    sound unlike; at another rate the same sound."""
    random = np.random.RandomState(seed)
    time = np.arange(round(seconds * rate)) / rate
    sound = 1e-4 * np.sin(2 * np.pi * 50 * time)
    at = 0.0
    while at < seconds:
        length, pitch, louder = random.uniform(0.08, 0.3), random.uniform(300, 900), random.uniform(0.05, 0.3)
        inside = (time >= at) & (time < at + length)
        shape = np.sin(np.pi * (time[inside] - at) / length)
        tones = sum(np.sin(2 * np.pi * pitch * k * time[inside]) / k for k in (1, 2, 3))
        sound[inside] += louder * shape * tones
        at += length + random.uniform(0.02, 0.15)
    return sound.astype(np.float32)


def encoded(samples: np.ndarray, rate: int = RATE, format: str = "WAV", subtype: str | None = None) -> bytes:
    """The bytes of a file of it: float [samples] or [samples, channels]."""
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=format, subtype=subtype)
    return stream.getvalue()


def clip(seed: int, format: str = "WAV", seconds: float = 2.0, rate: int = RATE, subtype: str | None = None) -> bytes:
    """A file with waveform `seed`."""
    return encoded(waveform(seed, seconds, rate), rate, format, subtype)


def parquet_of(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """The address of a Parquet file with these rows: bytes in `audio` as Hugging Face's datasets have them."""
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: pa.array([row.get(name) for row in rows], audio if name == "audio" else None) for name in names}
    pq.write_table(pa.table(columns), path)
    return str(path)


def run(store: Store, inputs: Sequence[str], workers: int = 0, **recipe: Any) -> Manifest:
    """The version of these inputs; stages read in this process unless `audio` says otherwise."""
    audio = {"language": "en", **IN_PROCESS, **recipe.pop("audio", {})}
    recipe = {"max_quarantine_rate": 1.0, "inputs": list(inputs), "audio": audio, **recipe}
    config = SpeechConfig.model_validate({"recipe": recipe})
    return run_pipeline(config, store, Runner(store, workers=workers)).manifest
