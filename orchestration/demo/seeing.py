"""The demo's sight: a model of a million parameters learns to read generated pictures, from nothing.

All by the commands of a user: pictures in a folder, in tars and in Parquet become datasets, mixtures of crops, contact
sheets; a language model reads scenes told in words, an encoder is warmed up, four stages teach the one to read the
other; then the model is served, and asked about pictures and pairs of frames that it has never seen.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gristmill.orchestration.demo.terminal import FOLDER, check, command, console, grist, keys, result, say, show

TOKENIZER, MODEL = "seeing-bpe", "seeing.v4"
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
STEPS = {"pretrain": 300, "posttrain": 150, "warmup": 400, "v1": 100, "v2": 400, "v3": 400, "v4": 250}
"""Of each stage: about half of those of the recipe, which `make learn` trains whole."""
ASKED, LEAST = 60, 0.25
"""Questions about several pictures that are asked, and the share that has to be answered right; by chance it is less
than a fifth."""
_PATIENCE = 300  # seconds that a server gets to load the model


def seeing(lake: str, folder: Path) -> None:
    """`folder`: scenes/ of the sample data. Raises SystemExit where a promise does not hold."""
    say(
        "Generated pictures in a folder, in tars and in Parquet: what they show, questions, frames of before and after."
    )
    pictures(lake, folder)
    look(lake)
    say("A model that sees, from nothing: language, a warm-up of the encoder, and the four stages of vision.")
    steps = [f"stages.{number}.steps={steps}" for number, steps in enumerate(STEPS.values())]
    train = ("train", "train-vision-nano", *keys(steps), "--lake", lake)
    first_run = result(grist(*train))
    again = result(grist(*train))
    check(not again["new"] and again["digest"] == first_run["digest"], "trained once: the same command does nothing")
    grist("show", MODEL, "--lake", lake)
    say("What changed? Asked over HTTP, about frames that it has never seen:")
    answers(lake, folder / "frames-held-out.parquet")


def pictures(lake: str, folder: Path) -> None:
    """Datasets of scenes, in words and in pictures, a tokenizer, and a mixture for each stage of training."""
    here = ("--set", "run.workers=0", "--lake", lake)  # little data: no Ray needed
    rows = f"inputs=[{folder}/reading.jsonl]"
    # Turns, of which the answers are learned, and the same as texts, of which every token is.
    forms = {
        "reading": ("instruct.form=chat",),
        "reading-text": ("instruct.form=code", "instruct.code=[text]", "instruct.fim=null"),
    }
    for dataset, settings in forms.items():
        grist("run", "conf/instruct.yaml", *keys((f"dataset={dataset}", rows, *settings)), *here)
    for dataset, form in PICTURES.items():
        # Scenes with one caption look alike, as they should: no near duplicate is looked for.
        settings = (f"dataset={dataset}", f"inputs=[{_input(folder, dataset)}]", f"image.form={form}")
        grist("run", "conf/vision.yaml", *keys((*settings, "min_similarity=null")), *here)
    grist("tokenizer", "train", "reading-text@v1", "--vocab-size", "512", "--name", TOKENIZER, "--lake", lake)
    for dataset in forms:
        mixed = (f"dataset=seeing-{dataset}", f"tokenizer={TOKENIZER}@v1", f"sources={{{dataset}@v1: 1}}", "window=512")
        grist("run", "conf/mixture.yaml", *keys(mixed), *here)
    for mixture, (weights, window) in MIXTURES.items():
        sources = ", ".join(f"{name}@v1: {{weight: {weight}, max_epochs: 1}}" for name, weight in weights.items())
        # Shards of many small crops: there are few of them, and each is made in one pass over the pictures.
        size = (f"window={window}", "shard_crops=65536")
        what = (f"dataset=seeing-{mixture}", f"tokenizer={TOKENIZER}@v1", f"sources={{{sources}}}")
        grist("run", "conf/mixture.yaml", *keys((*what, CUT, *size)), *here)


def _input(folder: Path, dataset: str) -> str:
    """The address of a dataset's rows: each of three containers."""
    if (folder / dataset).is_dir():
        return f"folder::{folder}/{dataset}/metadata.jsonl"
    (path,) = (path for path in (folder / f"{dataset}.tar", folder / f"{dataset}.parquet") if path.exists())
    return str(path)


def look(lake: str) -> None:
    """Contact sheets: of records as they came, and of a mixture as an encoder sees it."""
    say("Look at them: pictures with what is asked of them, and the crops that an encoder is shown.")
    for dataset, name in (("frames", "frames.png"), ("seeing-frames", "crops.png")):
        sheet = FOLDER / name
        grist("sample", dataset, "-n", "6", "--sheet", str(sheet), "--lake", lake)
        check(sheet.stat().st_size > 0, f"a contact sheet lies in {sheet}")


def answers(lake: str, rows: Path) -> None:
    """Serves the model and asks it about the first pictures of a Parquet file."""
    table = pq.read_table(rows).slice(0, ASKED).to_pylist()
    right = 0
    with served("serve", f"{MODEL}@v1", "--port", "0", "--max-crops", "4", "--lake", lake) as url:
        for number, row in enumerate(table):
            user, assistant = row["messages"]
            expected = assistant["content"][0]["text"]
            answer = ask(url, openai_parts(user["content"], [image["bytes"] for image in row["images"]]))
            right += answer == expected
            if number < 8:
                question = user["content"][-1]["text"].strip()
                console.print(f"{question} {answer}   (right: {expected})", markup=False)
    console.print(f"{right} of {len(table)} answers are right")
    check(right >= LEAST * len(table), f"at least {LEAST:.0%} of the answers about several pictures are right")


def openai_parts(content: Sequence[dict[str, Any]], pictures: Sequence[bytes]) -> list[dict[str, Any]]:
    """A message's parts with its pictures in them as data URLs, as OpenAI's clients send them."""
    left = iter(pictures)
    parts: list[dict[str, Any]] = []
    for part in content:
        if part["type"] == "image":
            data = base64.b64encode(next(left)).decode()
            parts.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
        else:
            parts.append({"type": "text", "text": part["text"]})
    return parts


def ask(url: str, content: list[dict[str, Any]]) -> str:
    """The answer of a server to what a user says and shows."""
    body = {
        "model": f"{MODEL}@v1",
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": 24,
    }
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=_PATIENCE) as reply:
        return str(json.load(reply)["choices"][0]["message"]["content"])


@contextmanager
def served(*arguments: str) -> Iterator[str]:
    """A server that runs meanwhile; its address, with /v1."""
    show(*arguments, note=" &")
    server = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        for line in server.stdout:
            print(line, end="", flush=True)
            address = next((word for word in line.split() if word.startswith("http://")), None)
            if address is not None:
                yield address.rstrip(".,;/")
                return
        sys.exit(f"error: the server did not start, exit code {server.wait()}")
    finally:
        server.terminate()
        server.wait()
