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
import tarfile
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import pyarrow.parquet as pq

from gristmill.model.evaluate.answers import spoken
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
WORDS = {"reading": 0.6, "hearing": 0.4}
"""Shares of what the language model reads, where it reads both."""
STEPS = {"pretrain": 600, "posttrain": 400, "warmup": 400, "v1": 60, "v2": 200, "v3": 150, "v4": 150}
"""Of each stage: fewer than the recipe has, which `make learn` trains whole, but for the first."""
ASKED, LEAST = 60, 0.35
"""Questions of a kind that are asked, and the share of those about a picture that has to be answered right."""
PATIENCE = 300  # seconds that a server gets to load the model


def seeing(lake: str, folder: Path, heard: Path | None) -> None:
    """`folder`: scenes/ of the sample data, `heard`: speech in words, if there is any. Raises SystemExit where a
    promise does not hold."""
    say(
        "Generated pictures in a folder, in tars and in Parquet: what they show, questions, frames of before and after."
    )
    pictures(lake, folder, heard)
    look(lake)
    say("A model that sees, from nothing: language, a warm-up of the encoder, and the four stages of vision.")
    steps = [f"stages.{number}.steps={steps}" for number, steps in enumerate(STEPS.values())]
    train = ("train", "train-vision-nano", *keys(steps), "--lake", lake)
    first_run = result(grist(*train))
    again = result(grist(*train))
    check(not again["new"] and again["digest"] == first_run["digest"], "trained once: the same command does nothing")
    grist("show", MODEL, "--lake", lake)
    say("Asked over HTTP about pictures that it has never seen: one, then frames of before and after, or three.")
    with served("serve", f"{MODEL}@v1", "--port", "0", "--max-crops", "4", "--lake", lake) as url:
        right = answers(url, "a picture", rows_of_tar(folder / "questions-held-out.tar"))
        answers(url, "several pictures", rows_of_parquet(folder / "frames-held-out.parquet"))
    check(right >= LEAST, f"at least {LEAST:.0%} of the answers about a picture are right")


def pictures(lake: str, folder: Path, heard: Path | None = None) -> None:
    """Datasets of scenes, in words and in pictures, a tokenizer, and a mixture for each stage of training. `heard`:
    speech in words, which the language model learns to read as well."""
    here = ("--set", "run.workers=0", "--lake", lake)  # little data: no Ray needed
    words = {"reading": (folder / "reading.jsonl", "chat")} | ({} if heard is None else {"hearing": (heard, "pair")})
    # Turns, of which the answers are learned, and the same as texts, of which every token is.
    text = ("instruct.form=code", "instruct.code=[text]", "instruct.fim=null")
    for dataset, (path, form) in words.items():
        for name, settings in ((dataset, (f"instruct.form={form}",)), (f"{dataset}-text", text)):
            grist("run", "conf/instruct.yaml", *keys((f"dataset={name}", f"inputs=[{path}]", *settings)), *here)
    for dataset, form in PICTURES.items():
        # Scenes with one caption look alike, as they should: no near duplicate is looked for.
        settings = (f"dataset={dataset}", f"inputs=[{address(folder, dataset)}]", f"image.form={form}")
        grist("run", "conf/vision.yaml", *keys((*settings, "min_similarity=null")), *here)
    texts = [f"{dataset}-text@v1" for dataset in words]
    vocabulary = "512" if heard is None else "640"  # each word that is said is a token as well
    grist("tokenizer", "train", *texts, "--vocab-size", vocabulary, "--name", TOKENIZER, "--lake", lake)
    for suffix in ("", "-text"):
        sources = ", ".join(f"{dataset}{suffix}@v1: {WORDS[dataset]}" for dataset in words)
        mixed = (f"dataset=seeing-reading{suffix}", f"tokenizer={TOKENIZER}@v1", f"sources={{{sources}}}", "window=512")
        grist("run", "conf/mixture.yaml", *keys(mixed), *here)
    for mixture, (weights, window) in MIXTURES.items():
        sources = ", ".join(f"{name}@v1: {{weight: {weight}, max_epochs: 1}}" for name, weight in weights.items())
        # Shards of many small crops: there are few of them, and each is made in one pass over the pictures.
        size = (f"window={window}", "shard_crops=65536")
        what = (f"dataset=seeing-{mixture}", f"tokenizer={TOKENIZER}@v1", f"sources={{{sources}}}")
        grist("run", "conf/mixture.yaml", *keys((*what, CUT, *size)), *here)


def address(folder: Path, dataset: str) -> str:
    """Of a dataset's rows below a folder of the sample data, in whichever of three containers they are, as an input of
    a pipeline."""
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


@dataclass(frozen=True)
class Question:
    """`content`: of the user's message, in parts; `pictures` in their order; the right `answer`."""

    content: Sequence[dict[str, Any]]
    pictures: Sequence[bytes]
    answer: str


def rows_of_tar(path: Path) -> list[Question]:
    """The first questions of a tar of samples, KEY.json and KEY.png."""
    with tarfile.open(path) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    keys_of_rows = [name.removesuffix(".json") for name in files if name.endswith(".json")]
    return [
        _question(json.loads(files[f"{key}.json"])["messages"], [files[f"{key}.png"]]) for key in keys_of_rows[:ASKED]
    ]


def rows_of_parquet(path: Path) -> list[Question]:
    """The first questions of a Parquet file."""
    table = pq.read_table(path).slice(0, ASKED).to_pylist()
    return [_question(row["messages"], [image["bytes"] for image in row["images"]]) for row in table]


def _question(messages: Sequence[dict[str, Any]], pictures: Sequence[bytes]) -> Question:
    user, assistant = messages
    return Question(user["content"], pictures, assistant["content"][0]["text"])


def answers(url: str, about: str, questions: Sequence[Question]) -> float:
    """Asks them, prints the first and how many answers are right. -> Their share."""
    right = 0
    for number, question in enumerate(questions):
        answer = spoken(ask(url, openai_parts(question.content, question.pictures)))
        right += answer == question.answer
        if number < 5:
            text = question.content[-1]["text"].strip()
            console.print(f"{text} {answer}   (right: {question.answer})", markup=False)
    console.print(f"{right} of {len(questions)} answers about {about} are right")
    return right / len(questions)


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


def ask(url: str, content: list[dict[str, Any]], model: str = f"{MODEL}@v1") -> str:
    """The answer of a server to what a user says and shows."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": 96,
    }
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
        return str(json.load(reply)["choices"][0]["message"]["content"])


@contextmanager
def served(*arguments: str) -> Iterator[str]:
    """A server that runs meanwhile, and whose output is shown; its address, with /v1."""
    show(*arguments, note=" &")
    server = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    addresses: Queue[str | None] = Queue()
    # Read to its end: a server whose pipe is full would answer no more.
    reader = Thread(target=_read_output, args=(server.stdout, addresses), daemon=True)
    reader.start()
    try:
        address = addresses.get()
        if address is None:
            sys.exit(f"error: the server did not start, exit code {server.wait()}")
        yield address
    finally:
        server.terminate()
        server.wait()
        reader.join()


def _read_output(lines: Iterable[str], addresses: Queue[str | None]) -> None:
    """Prints what a server says; the addresses in it, then None, go to the queue."""
    for line in lines:
        print(line, end="", flush=True)
        for word in line.split():
            if word.startswith("http://"):
                addresses.put(word.rstrip(".,;/"))
    addresses.put(None)
