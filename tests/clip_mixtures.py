"""Small lakes of records with clips to mix from."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from speech import SAYS, clip, parquet_of, run

from gristmill.lake.store.base import Store
from gristmill.lake.versions.manifest import Manifest

TAKEN: dict[str, Any] = {"exact": True}
"""How clips become frames: as nano takes them."""


def spoken(store: Store, folder: Path, lengths: Sequence[tuple[float, int]], **more: Any) -> Manifest:
    """A version of clips of so many seconds at a rate, each with what is said in it: `speech`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (seconds, rate) in enumerate(lengths):
        data = clip(number, "FLAC" if number % 2 else "WAV", seconds, rate)
        text = SAYS.format(number) if seconds > 1 else f"Number {number}."
        rows.append({"audio": {"bytes": data, "path": None}, "text": text, "id": f"https://clips.example/{number}"})
    address = parquet_of(folder / "clips.parquet", rows)
    recipe = {"min_similarity": None, "speech_rate": None, "transcript": None, **more}
    return run(store, [address], **recipe)


def stepped_clip(number: int, samples: int, rate: int) -> bytes:
    """A file of steps of a length and a height of its own: whole numbers, the same on every machine."""
    steps = (np.arange(samples) // (30 + 7 * number) % 5 - 2) * (900 + 50 * number)
    stream = io.BytesIO()
    soundfile.write(stream, steps.astype(np.int16), rate, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def spoken_steps(number: int, samples: int, rate: int) -> dict[str, Any]:
    """A row of a clip of such steps, with what is said in it."""
    text = f"Wheel {number} turns." if number < 4 else "It turns."
    return {"audio": {"bytes": stepped_clip(number, samples, rate), "path": None}, "text": text}
