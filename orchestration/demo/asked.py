"""The demo's last act: a text question, one about a picture, a spoken one and a sum, asked of trained models.

Each is the first of a file that nothing was trained on (of texts the first about one scene), whatever becomes of it. It
is asked by `grist ask`, as a user would; a wrong answer is printed as it is.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.markup import escape

from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.model.evaluate.answers import Extraction, same_answer, spoken
from gristmill.orchestration.demo.terminal import DATA, FOLDER, LAKE, console, grist, say

MODEL, REASONER = "hearing.vs", "reasoner.r3"
ASKED = FOLDER / "asked"
"""Pictures and clips of the questions."""


class Question(NamedTuple):
    """A question of a kind to the newest version of a model. `written`: what is typed; `heard`: what a clip asks;
    `options`: of `grist ask`, with the files that it is about."""

    kind: str
    model: str
    written: str
    answer: str
    options: tuple[str, ...] = ()
    heard: str = ""


def ask_all() -> None:
    """Asks a question of each kind, and says how many answers are right."""
    say("Models are asked what they have never met, the first question of a kind that was held out:")
    ASKED.mkdir(exist_ok=True)
    asked = list(questions())
    right = sum(ask(question) for question in asked)
    console.print(f"\n{right} of {len(asked)} answers are right.")


def ask(question: Question) -> bool:
    """Prints a question, its answer, and what is right. -> Whether the answer is."""
    model = newest(question.model)
    written = (question.written,) if question.written else ()
    in_clip = f"; the clip says: {question.heard}" if question.heard else ""
    console.print(f"\n{question.kind}, to {model}{in_clip}", markup=False, soft_wrap=True)
    text = grist("ask", model, *written, *question.options, "--lake", str(LAKE))
    right = is_right(text, question.answer)
    verdict = "[green]right[/]" if right else "[red]wrong[/]"
    console.print(f"{verdict}; the answer is {escape(result_of(question.answer))}")
    return right


def newest(model: str) -> str:
    """Its newest version in the lake."""
    return str(Versions(open_store(str(LAKE.resolve()))).resolve(model))


def is_right(text: str, expected: str) -> bool:
    """Whether an answer says what is expected; thoughts and steps before it do not count."""
    return same_answer(result_of(text), result_of(expected))


def result_of(text: str) -> str:
    """What a chain ends in, `#### N`; else all that is said."""
    return Extraction().of(text) or spoken(text)


def questions() -> Iterator[Question]:
    """One of each kind."""
    turns = first_line(DATA / "scenes" / "reading-held-out.jsonl", lambda row: is_of_one(row["messages"]))["messages"]
    yield Question("A text question", MODEL, turns[0]["content"], turns[1]["content"])
    user, assistant = first_row(DATA / "scenes" / "questions-held-out.tar", "picture")["messages"]
    words, answer = user["content"][-1]["text"], assistant["content"][0]["text"]
    yield Question("A question about a picture", MODEL, words, answer, file_options("picture"))
    row = first_row(DATA / "speech" / "scenes-held-out.tar", "spoken")
    yield Question("A spoken question", MODEL, "", row["answer"], file_options("spoken"), row["question"])
    problem = first_line(DATA / "nano" / "stories-held-out.jsonl", bool)
    yield Question("A sum", REASONER, problem["question"], problem["answer"])


def is_of_one(turns: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a conversation is about one scene, told in words, and asks something about it."""
    return turns[0]["content"].startswith(":") and turns[0]["content"].endswith("?")


def first_line(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first row of a file of lines that is `wanted`."""
    with path.open(encoding="utf-8") as lines:
        return next(row for row in map(json.loads, lines) if wanted(row))


def first_row(path: Path, name: str) -> dict[str, Any]:
    """The fields of the first sample of a tar; its picture and clip are written to ASKED as files of this name."""
    fields: dict[str, Any] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            ending = member.name.partition(".")[2]
            data = archive.extractfile(member).read()  # type: ignore[union-attr]
            if ending == "json":
                if fields:
                    return fields
                fields = json.loads(data)
            else:
                (ASKED / f"{name}.{ending}").write_bytes(data)
    return fields


def file_options(name: str) -> tuple[str, ...]:
    """Of `grist ask`, for the files of this name."""
    kinds = {".png": "--image", ".flac": "--audio"}
    files = sorted(path for path in ASKED.glob(f"{name}.*") if path.suffix in kinds)
    crops = ("--max-crops", "4") if any(path.suffix == ".png" for path in files) else ()
    return (*(part for path in files for part in (kinds[path.suffix], str(path))), *crops)
