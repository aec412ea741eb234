"""The demo's training: a model of a million parameters learns short word problems, and to copy, from nothing.

All by the commands of a user: rows become datasets, a tokenizer, mixtures of windows; two stages of training, of which
the first is killed and goes on; an evaluation on problems that share no 13 words with those of the training; an export
that transformers loads. `make learn` (tests/learn.py) goes the same way with several seeds.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path

from gristmill.orchestration.demo.terminal import FOLDER, check, command, grist, keys, killed, result, say

LEAST = 0.65
"""Share of the held-out problems whose answer has to be right; of three seeds the lowest had .78 (docs/training.md)."""
TOKENIZER, MODEL = "nano-bpe", "nano.posttrain"
_LESSONS = ("stories", "copying")


def training(lake: str, folder: Path) -> None:
    """`folder`: nano/ of the sample data. Raises SystemExit where a promise does not hold."""
    say("Something that a small model can learn in minutes: word problems and rows to copy, and some held out.")
    lessons(lake, folder)
    grist("sample", "nano-chat", "-n", "1", "--lake", lake)
    say("A model of a million parameters, from nothing: pretraining, then post-training.")
    train = ("train", "train-nano", "--lake", lake)
    killed(*train, when=lambda: checkpointed(lake), note="after a checkpoint")
    say("The same command goes on from the checkpoint.")
    first_run = result(grist(*train))
    again = result(grist(*train))
    check(not again["new"] and again["digest"] == first_run["digest"], "trained once: the same command does nothing")
    grist("show", "nano.pretrain", "--lake", lake)
    say("Does it answer problems that it has never seen?")
    right = score(lake, f"{MODEL}@v1", "stories-held-out@v1")
    grist("show", "eval", "--lake", lake)
    check(right.value >= LEAST, f"at least {LEAST:.0%} of the held-out problems are answered right")
    say("Where do the weights come from?")
    grist("lineage", MODEL, "--lake", lake)
    say("What transformers loads:")
    grist("export", "hf", f"{MODEL}@v1", str(FOLDER / "nano-hf"), "--lake", lake)


def lessons(lake: str, folder: Path) -> None:
    """The rows as samples, and as plain texts for pretraining; a tokenizer; a mixture for each of the two stages."""
    here = ("--set", "run.workers=0", "--lake", lake)  # little data: no Ray needed
    both = ", ".join(f"{folder}/{name}.jsonl" for name in _LESSONS)
    texts = ("instruct.form=code", "instruct.code=[text]", "instruct.fim=null")
    for dataset, inputs, form in (
        ("lessons", both, ("instruct.form=pair",)),
        ("lessons-text", both, texts),
        *((f"{name}-held-out", f"{folder}/{name}-held-out.jsonl", ("instruct.form=pair",)) for name in _LESSONS),
    ):
        grist("run", "conf/instruct.yaml", *keys((f"dataset={dataset}", f"inputs=[{inputs}]", *form)), *here)
    grist("tokenizer", "train", "lessons-text@v1", "--vocab-size", "1024", "--name", TOKENIZER, "--lake", lake)
    for dataset, source in (("nano-text", "lessons-text"), ("nano-chat", "lessons")):
        settings = (f"dataset={dataset}", f"tokenizer={TOKENIZER}@v1", f"sources={{{source}@v1: 1}}", "window=512")
        grist("run", "conf/mixture.yaml", *keys(settings), *here)


def checkpointed(lake: str) -> bool:
    """Whether a training that runs has left a checkpoint."""
    return any(Path(lake, "runs").glob("*/checkpoints/step-*/state.json"))


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
