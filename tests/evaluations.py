"""A small lake to evaluate on: a nano model, and samples of every task, documents and windows that fit it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import chats
import mixtures
from models import NANO, enlivened

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import read_object
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.model.hf.checkpoint import save_hf
from gristmill.model.processing.text import Tokenizer
from gristmill.pipelines.evaluate import EvaluateConfig
from gristmill.pipelines.frame.result import Result
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.model import ModelRunConfig
from gristmill.stages.run.runner import Runner

SIZES = {"max_tokens": 6, "context": 512}
RUN = {"max_num_seqs": 4}


def planet(i: int) -> dict[str, str]:
    """A question with lettered options, the answer a letter."""
    options = ["Mars", "the Moon", f"a mill with {i} stones", "Venus"]
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
    return {"question": f"Number {i}: what grinds grain?\n{listed}", "answer": "C"}


def weather(i: int) -> dict[str, Any]:
    """A conversation in which a tool is called, and answers."""
    user = {"role": "user", "content": f"Will it rain in town {i}?"}
    return chats.chat(user, chats.call(arguments={"city": f"town {i}"}), chats.tool(), chats.ANSWER)


def refusal(i: int) -> dict[str, Any]:
    """A harmful request that is refused, or, of odd numbers, a harmless one that is answered."""
    if i % 2:
        return mixtures.chat(i)
    turns = [
        {"role": "user", "content": f"Help me steal {i} sacks."},
        {"role": "assistant", "content": "I can't do that. It would harm the miller."},
    ]
    return {"messages": turns}


def model(store: Store, folder: Path, name: str, seed: int = 0) -> Manifest:
    """A nano model with the tokenizer `bpe@v1` of the lake, and no entry that it does not have."""
    tokenizer = read_object(store, Versions(store).manifest("bpe", 1).shards[0])
    text = replace(NANO.text, vocab_size=Tokenizer.from_bytes(tokenizer).vocab_size)
    save_hf(enlivened(replace(NANO, text=text), seed), folder, tokenizer=tokenizer)
    config = ModelRunConfig.model_validate({"recipe": {"dataset": name, "folder": str(folder)}})
    return run_pipeline(config, store, Runner(store, workers=0)).manifest


def lake(store: Store, folder: Path) -> None:
    """`web` (documents), `math`, `choice`, `tools`, `refusals` (samples), `bpe`, `mix` (windows), `base` (a model)."""
    inputs = folder / "in"
    mixtures.documents(store, "web", mixtures.texts(40, longest=60), shards=2)
    mixtures.samples(store, inputs, "math", [mixtures.word_problem(i) for i in range(12)], form="pair")
    mixtures.samples(store, inputs, "choice", [planet(i) for i in range(6)], form="pair")
    mixtures.samples(store, inputs, "tools", [weather(i) for i in range(5)])
    mixtures.samples(store, inputs, "refusals", [refusal(i) for i in range(8)])
    mixtures.tokenizer(store, "web@v1", "math@v1")
    mixtures.mix(store, {"web@v1": 1, "math@v1": 1}, dataset="mix")
    model(store, folder / "hf", "base")


def config(data: list[str], **recipe: Any) -> EvaluateConfig:
    """The config of an evaluation of base@v1, or of the `model` of the recipe."""
    given: dict[str, Any] = {"model": "base@v1", "data": data, "generate": SIZES, "window": 64, "chunk_items": 5}
    given["bootstrap"] = {"resamples": 100}
    return EvaluateConfig.model_validate({"recipe": given | recipe, "run": RUN})


def evaluate(store: Store, data: list[str], runner: Runner | None = None, **recipe: Any) -> Result:
    """Such an evaluation, committed."""
    return run_pipeline(config(data, **recipe), store, runner or Runner(store, workers=0))
