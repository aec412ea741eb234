"""What `make learn` is taught, by commands of a user: rows become datasets, a tokenizer, and mixtures of windows. And
how many answers of a model to held-out rows are right.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gristmill.orchestration.demo.terminal import command, grist

NANO_TOKENIZER, SEEING_TOKENIZER = "nano-bpe", "seeing-bpe"
CUT = "images={max_crops: 4, crop: 32, patch: 8}"
"""How the model `nano-vision` takes images."""
PICTURES = {"objects": "caption", "captions": "caption", "questions": "chat", "frames": "chat"}
"""Dataset -> what a row is (`image.form`)."""
MIXTURES = {
    "objects": ({"objects": 1.0}, 1024),
    "captions": ({"captions": 1.0}, 512),
    "questions": ({"captions": 0.35, "questions": 0.65}, 512),
    "frames": ({"captions": 0.2, "questions": 0.25, "frames": 0.55}, 512),
}
"""Mixture, without `seeing-` -> its sources with their weights, and tokens of a window."""
_HERE = ("--set", "run.workers=0")
"""Little data: no Ray needed."""
_TEXTS = ("instruct.form=code", "instruct.code=[text]", "instruct.fim=null")
"""Rows as texts of which every token is learned."""


def keys(settings: Iterable[str]) -> list[str]:
    """Keys of a recipe as arguments."""
    return [argument for setting in settings for argument in ("--set", f"recipe.{setting}")]


def result(output: str) -> dict[str, Any]:
    """The last line of a run's stdout."""
    return dict(json.loads(output.splitlines()[-1]))


def lessons(lake: str, folder: Path) -> None:
    """Word problems and rows to copy as samples, and as plain texts for pretraining; a tokenizer; a mixture for each of
    the two stages. `folder`: nano/ of the sample data."""
    here = (*_HERE, "--lake", lake)
    names = ("stories", "copying")
    both = ", ".join(f"{folder}/{name}.jsonl" for name in names)
    for dataset, inputs, form in (
        ("lessons", both, ("instruct.form=pair",)),
        ("lessons-text", both, _TEXTS),
        *((f"{name}-held-out", f"{folder}/{name}-held-out.jsonl", ("instruct.form=pair",)) for name in names),
    ):
        grist("run", "conf/instruct.yaml", *keys((f"dataset={dataset}", f"inputs=[{inputs}]", *form)), *here)
    grist("tokenizer", "train", "lessons-text@v1", "--vocab-size", "1024", "--name", NANO_TOKENIZER, "--lake", lake)
    for dataset, source in (("nano-text", "lessons-text"), ("nano-chat", "lessons")):
        settings = (f"dataset={dataset}", f"tokenizer={NANO_TOKENIZER}@v1", f"sources={{{source}@v1: 1}}", "window=512")
        grist("run", "conf/mixture.yaml", *keys(settings), *here)


def pictures(lake: str, folder: Path) -> None:
    """Datasets of scenes, in words and in pictures, a tokenizer, and a mixture for each stage of training. `folder`:
    scenes/ of the sample data."""
    here = (*_HERE, "--lake", lake)
    for name, settings in (("reading", ("instruct.form=chat",)), ("reading-text", _TEXTS)):
        what = (f"dataset={name}", f"inputs=[{folder}/reading.jsonl]", *settings)
        grist("run", "conf/instruct.yaml", *keys(what), *here)
    for dataset, form in PICTURES.items():
        # Scenes with one caption look alike, as they should: no near duplicate is looked for.
        settings = (f"dataset={dataset}", f"inputs=[{address(folder, dataset)}]", f"image.form={form}")
        grist("run", "conf/vision.yaml", *keys((*settings, "min_similarity=null")), *here)
    grist("tokenizer", "train", "reading-text@v1", "--vocab-size", "512", "--name", SEEING_TOKENIZER, "--lake", lake)
    tokenizer = f"tokenizer={SEEING_TOKENIZER}@v1"
    for suffix in ("", "-text"):
        mixed = (f"dataset=seeing-reading{suffix}", tokenizer, f"sources={{reading{suffix}@v1: 1}}", "window=512")
        grist("run", "conf/mixture.yaml", *keys(mixed), *here)
    for mixture, (weights, window) in MIXTURES.items():
        sources = ", ".join(f"{name}@v1: {{weight: {weight}, max_epochs: 1}}" for name, weight in weights.items())
        # Shards of many small crops: there are few of them, and each is made in one pass over the pictures.
        size = (CUT, f"window={window}", "shard_crops=65536")
        what = (f"dataset=seeing-{mixture}", tokenizer, f"sources={{{sources}}}", *size)
        grist("run", "conf/mixture.yaml", *keys(what), *here)


def address(folder: Path, dataset: str) -> str:
    """Of a dataset's rows below a folder of the sample data, in whichever of three containers they are, as an input of
    a pipeline."""
    if (folder / dataset).is_dir():
        return f"folder::{folder}/{dataset}/metadata.jsonl"
    (path,) = (path for path in (folder / f"{dataset}.tar", folder / f"{dataset}.parquet") if path.exists())
    return str(path)


@dataclass(frozen=True)
class Score:
    """The share of `items` that are right, and its interval at 95%."""

    value: float
    low: float
    high: float
    items: int


def score(lake: str, model: str, data: str, *settings: str) -> Score:
    """How many answers of a model to held-out rows are right, by `grist eval`."""
    grist("eval", model, "--on", data, *(part for setting in settings for part in ("--set", setting)), "--lake", lake)
    show = command("show", "eval", "--json", "--lake", lake)
    shown = subprocess.run(show, stdout=subprocess.PIPE, text=True, check=True).stdout
    overall = json.loads(shown)["statistics"]["scores"][0]
    return Score(*(overall[field.name] for field in fields(Score)))
