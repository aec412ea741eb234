"""The demo's hearing: the model that sees learns to hear, and answers spoken questions about pictures.

All by the commands of a user: generated speech in a folder, in tars and in Parquet becomes datasets, contact sheets of
spectrograms, mixtures of log-Mel frames; three stages, in a recipe of one's own upon the versions of before, teach the
language model to hear; then it is served, and transcribes voices that it has never heard.
"""

from __future__ import annotations

import base64
import json
import tarfile
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from torchaudio.functional import edit_distance

from gristmill import place
from gristmill.orchestration.demo.seeing import CUT, PATIENCE, TOKENIZER, ask, served
from gristmill.orchestration.demo.terminal import FOLDER, check, console, grist, keys, say
from gristmill.orchestration.show.sheet import WIDTH, Cell, write_sheet
from gristmill.orchestration.show.spectrogram import clip_picture
from gristmill.synth.speech.hearing import ASKED as PROMPT

MODEL = "hearing.vs"
CLIPS = {"digits": "asr", "phrases": "asr", "sums": "sqqa", "asked": "sqqa"}
"""Dataset -> what a row is a sample of (`audio.task`); the last one has a picture too."""
FILES = {"digits": "digits.tar", "phrases": "phrases", "sums": "questions.parquet", "asked": "scenes.tar"}
MIXTURES = {
    "clips": {"digits": 0.6, "phrases": 0.4},
    "spoken": {"digits": 0.5, "phrases": 0.3, "sums": 0.2},
    "both": {"asked": 0.7, "questions": 0.2, "digits": 0.1},
}
"""Mixture, without `hearing-` -> its sources with their weights."""
STEPS = {"a1": 240, "a2": 60, "vs": 150}
ASKED, SHOWN = 40, 6
MOST_WRONG = 0.5
"""Words of voices never heard that may be wrong: training is shorter than in `make learn`, which asks for less."""


class Heard(NamedTuple):
    """A clip with what is said in it, or the answer to what it asks, and the picture that it asks about."""

    clip: bytes
    answer: str
    picture: bytes | None


def hearing(lake: str, folder: Path) -> None:
    """`folder`: speech/ of the sample data. Raises SystemExit where a promise does not hold."""
    say("Generated speech in a folder, in tars and in Parquet: digits, phrases, questions, some about pictures.")
    clips(lake, folder)
    say("Look at it: spectrograms with what is said; below « and » what is learned.")
    grist("sample", "digits", "-n", "6", "--sheet", str(FOLDER / "speech.png"), "--lake", lake)
    say("The model that sees learns to hear: an encoder and a projector, an adapter, then both senses together.")
    recipe = FOLDER / "train-hearing.yaml"
    recipe.write_text(yaml.safe_dump(stages_upon("seeing"), sort_keys=False), encoding="utf-8")
    grist("train", str(recipe), "--lake", lake)
    say("Asked over HTTP: digits in voices that it has never heard, and spoken questions about pictures.")
    with served("serve", f"{MODEL}@v1", "--port", "0", "--max-crops", "4", "--lake", lake) as url:
        rows = rows_of(folder / "digits-voices.tar")
        texts = [transcript(url, row.clip) for row in rows]
        about = rows_of(folder / "scenes-held-out.tar")
        right = sum(ask(url, question_parts(row), f"{MODEL}@v1") == row.answer for row in about)
    wrong = words_wrong([row.answer for row in rows], texts)
    console.print(f"{wrong:.1%} of the words are wrong; {right} of {len(about)} answers about pictures are right")
    draw(rows[:SHOWN], texts)
    check(wrong <= MOST_WRONG, f"at most {MOST_WRONG:.0%} of the words of voices never heard are wrong")


def clips(lake: str, folder: Path) -> None:
    """Datasets of clips, and mixtures of them."""
    here = ("--set", "run.workers=0", "--lake", lake)  # little data: no Ray needed
    for dataset, task in CLIPS.items():
        path = folder / FILES[dataset]
        address = f"folder::{path}/metadata.jsonl" if path.is_dir() else str(path)
        asked = f'audio.prompts=["{PROMPT}"]' if task == "asr" else "audio.max_images=1"
        # Many clips say the same in other voices, as they should: no near duplicate is looked for.
        settings = (f"dataset={dataset}", f"inputs=[{address}]", f"audio.task={task}", asked, "min_similarity=null")
        grist("run", "conf/speech.yaml", *keys(settings), *here)
    for mixture, weights in MIXTURES.items():
        sources = ", ".join(f"{name}@v1: {{weight: {weight}, max_epochs: 4}}" for name, weight in weights.items())
        what = [f"dataset=hearing-{mixture}", f"tokenizer={TOKENIZER}@v1", f"sources={{{sources}}}", "window=512"]
        what += ["audio={exact: false}", *([CUT, "shard_crops=65536"] if mixture == "both" else [])]
        grist("run", "conf/mixture.yaml", *keys(what), *here)


def stages_upon(seen: str) -> dict[str, Any]:
    """The shipped recipe's stages of speech, on versions of the dataset `seen` in place of its stages before."""
    shipped = place.ROOT / "conf" / "train-speech-nano.yaml"
    config: dict[str, Any] = yaml.safe_load(shipped.read_text(encoding="utf-8"))
    stages = [stage for stage in config["recipe"]["stages"] if stage["name"] in STEPS]
    for stage in stages:
        stage["steps"] = STEPS[stage["name"]]
        for part, ref in stage["init_from"].items():
            if ref.removeprefix("stage:").partition("/")[0] not in STEPS:
                stage["init_from"][part] = f"{seen}.{ref.removeprefix('stage:')}@v1"
    config["recipe"] |= {"tokenizer": f"{TOKENIZER}@v1", "stages": stages}
    return config


def rows_of(path: Path) -> list[Heard]:
    """The first rows of a tar of samples, KEY.json with KEY.flac and KEY.png."""
    with tarfile.open(path) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    names = [name.removesuffix(".json") for name in files if name.endswith(".json")][:ASKED]
    rows = {name: json.loads(files[f"{name}.json"]) for name in names}
    return [
        Heard(files[f"{name}.flac"], row.get("text") or row["answer"], files.get(f"{name}.png"))
        for name, row in rows.items()
    ]


def transcript(url: str, clip: bytes) -> str:
    """What a server hears, by OpenAI's form of a file."""
    mark = uuid.uuid4().hex
    fields = {"model": f"{MODEL}@v1", "prompt": PROMPT, "response_format": "text", "temperature": "0"}
    head = "".join(f'--{mark}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items())
    head += f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="clip.flac"\r\n\r\n'
    body = head.encode() + clip + f"\r\n--{mark}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={mark}"}
    request = urllib.request.Request(f"{url}/audio/transcriptions", body, kind)
    with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
        return str(reply.read().decode()).strip()


def question_parts(row: Heard) -> list[dict[str, Any]]:
    """A picture and the clip that asks about it, as OpenAI's clients send them."""
    assert row.picture is not None
    picture, clip = (base64.b64encode(data).decode() for data in (row.picture, row.clip))
    return [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
        {"type": "input_audio", "input_audio": {"data": clip, "format": "flac"}},
    ]


def words_wrong(references: Sequence[str], texts: Sequence[str]) -> float:
    """The word error rate."""
    wrong = sum(edit_distance(ref.split(), text.split()) for ref, text in zip(references, texts, strict=True))
    return wrong / sum(len(reference.split()) for reference in references)


def draw(rows: Sequence[Heard], texts: Sequence[str]) -> None:
    """A contact sheet of clips with what is said in them and what was heard."""
    cells = []
    for number, (row, text) in enumerate(zip(rows, texts, strict=False), 1):
        pieces = ((f"said: {row.answer}", False), (f"heard: {text}", True))
        cells.append(Cell(f"clip {number}", (clip_picture(row.clip, WIDTH),), pieces))
        console.print(f"said: {row.answer}   heard: {text}", markup=False)
    write_sheet(FOLDER / "heard.png", cells)
