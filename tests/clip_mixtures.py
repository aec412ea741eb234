"""Small lakes of records with clips to mix from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
