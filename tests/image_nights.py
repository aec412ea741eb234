"""Two nights of images, a tokenizer and a mixture over them, as programs that get killed run them.

The lake they begin in holds documents. The first night is a folder, the second a tar: records of one, two and four
images, copies of images of the first night, a damaged file, an animation and a line that is none.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mixtures
import numpy as np
from image_mixtures import CUT
from PIL import Image
from vision import CAPTION, encoded, folder_of, picture, pixels, tar_of

from gristmill.lake.store.opening import open_store
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.registry import PIPELINES
from gristmill.stages.run.runner import Runner

DATASETS = ("vision", "bpe", "mix")
VISION = {
    "extends": "vision",
    "max_quarantine_rate": 0.5,
    "scan": {"chunk_records": 8},
    "shards": {"target_bytes": 60_000},
}
MIXTURE = {
    "tokenizer": "bpe@v1",
    "sources": {"web@v1": 1, "vision@v2": 1},
    "window": 512,
    "images": CUT,
    "max_window_crops": 12,
    "shard_crops": 40,
    "max_waste": 0.1,
}


def write_nights(folder: Path) -> None:
    """What comes in, and `lake`: where the first run begins."""
    mixtures.documents(open_store(str(folder / "lake")), "web", mixtures.texts(20, longest=120), shards=2)
    files = {f"{n}.png": picture(n) for n in range(16)}
    files |= {"cut.jpg": picture(90, "JPEG")[:900], "moves.gif": _animation()}
    lines: list[Any] = [{"image": f"{n}.png", "text": CAPTION.format(n)} for n in range(8)]
    lines += [{"images": [f"{n}.png", f"{n + 1}.png"], "text": CAPTION.format(n)} for n in range(8, 12)]
    lines += [{"images": [f"{n}.png" for n in range(12, 16)], "text": CAPTION.format(12)}]
    lines += [{"image": name, "text": CAPTION.format(1)} for name in ("cut.jpg", "moves.gif")]
    folder_of(folder / "first", [*lines, b"no line"], files)
    members: dict[str, bytes] = {}  # a record's beside each other
    for n in (*range(4), *range(20, 26)):
        members[f"{n}.jpg"] = _half(n) if n < 4 else picture(n, "JPEG")
        members[f"{n}.txt"] = CAPTION.format(n).encode()
    tar_of(folder / "second.tar", members)


def _half(number: int) -> bytes:
    own = Image.fromarray(pixels(number))
    return encoded(np.array(own.resize((own.width // 2, own.height // 2))), "JPEG")


def _animation() -> bytes:
    frames = [Image.fromarray(pixels(n)) for n in range(3)]
    return encoded(np.array(frames[0]), "GIF", save_all=True, append_images=frames[1:])


def recipes(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """(pipeline, recipe) of each run, in turn."""
    first = f"folder::{folder / 'first' / 'lines.jsonl'}"
    return [
        ("vision", {**VISION, "inputs": [first]}),
        ("vision", {**VISION, "inputs": [first, str(folder / "second.tar")]}),
        ("tokenizer", {"dataset": "bpe", "sources": ["web@v1", "vision@v2"], "train": {"vocab_size": 400}}),
        ("mixture", MIXTURE),
    ]


def settings(recipe: dict[str, Any]) -> list[str]:
    """As `--set` of the command line."""
    return [part for key, value in recipe.items() for part in ("--set", f"recipe.{key}={json.dumps(value)}")]


def begin(folder: Path, lake: Path) -> None:
    """A lake to run in."""
    if not lake.exists():
        shutil.copytree(folder / "lake", lake)


def run_in_process(folder: Path, lake: Path) -> None:
    """All of them, without Ray and without a child process."""
    begin(folder, lake)
    for pipeline, recipe in recipes(folder):
        if pipeline == "vision":
            recipe = {**recipe, "image": {"seconds_per_record": None}}
        store = open_store(str(lake))
        run_pipeline(PIPELINES[pipeline].model_validate({"recipe": recipe}), store, Runner(store, workers=0))
