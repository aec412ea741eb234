"""Small lakes of records with images to mix from, for a model of tiny crops."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gristmill.lake.store.base import Store
from gristmill.pipelines.frame.result import Result
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.vision import VisionConfig
from gristmill.stages.run.runner import Runner

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (30, 60, 220), "black": (10, 10, 10)}
CUT = {"max_crops": 4, "crop": 64, "patch": 8}
"""How nano takes images."""


def png(height: int, width: int, colour: tuple[int, int, int], seed: int) -> bytes:
    """A picture of a colour with a little noise, so that no two are equal."""
    noise = np.random.default_rng(seed).integers(-9, 10, (height, width, 3))
    stream = io.BytesIO()
    Image.fromarray(np.clip(noise + np.array(colour), 0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def write_pictures(folder: Path, rows: Sequence[tuple[Sequence[tuple[int, int]], str]]) -> Path:
    """A folder of pictures and its lines: of each row the sizes of its images, and a caption with `{}` for the colour
    of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (sizes, caption) in enumerate(rows):
        names = list(COLOURS)
        for place, (height, width) in enumerate(sizes):
            colour = COLOURS[names[(number + place) % len(names)]]
            (folder / f"{number}-{place}.png").write_bytes(png(height, width, colour, 100 * number + place))
        files = [f"{number}-{place}.png" for place in range(len(sizes))]
        lines.append(json.dumps({"images": files, "text": caption.format(names[number % len(names)])}))
    path = folder / "captions.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def pictures(store: Store, folder: Path, rows: Sequence[tuple[Sequence[tuple[int, int]], str]], **more: Any) -> Result:
    """A version of these records, `pics`."""
    recipe = {
        "dataset": "pics",
        "inputs": [f"folder::{write_pictures(folder, rows)}"],
        "min_similarity": None,
        "caption": None,
        **more,
    }
    config = VisionConfig.model_validate({"recipe": recipe})
    return run_pipeline(config, store, Runner(store, workers=0))
