"""Small fastText classifiers of every kind, trained by the library, and what the library says of lines with them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.fast_text import open_model
from gristmill.filters.classify import learn

_SENTENCES = {
    "en": "the miller grinds grain into flour and sells it at the market every saturday morning",
    "de": "der müller mahlt das korn zu mehl und verkauft es jeden samstagmorgen auf dem großen markt",
    "ru": "мельник мелет зерно в муку и продаёт её на рынке каждое субботнее утро",
    "el": "ο μυλωνάς αλέθει το σιτάρι και το πουλάει στην αγορά κάθε σάββατο πρωί",
    "ja": "粉屋は 穀物を 挽いて 小麦粉に し 毎週 土曜日の 朝に 市場で 売ります",
}
LABELS = tuple(_SENTENCES)
_CHILD = """
import json, sys
import fasttext
settings, quantise, path = json.loads(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
model = fasttext.train_supervised(thread=1, verbose=0, **settings)
if quantise:
    model.quantize(**quantise)
model.save_model(path)
"""


QUANTISED = json.dumps({"qnorm": True, "dsub": 2})
PRUNED = json.dumps({"cutoff": 1000, "qnorm": True, "dsub": 2})
KINDS: dict[str, dict[str, Any]] = {
    f"{loss}, {name}": {"loss": loss, **extra}
    for loss in ("hs", "softmax", "ova", "ns")
    for name, extra in (
        ("characters", {"minn": 2, "maxn": 4}),
        ("single characters", {"minn": 1, "maxn": 3, "wordNgrams": 2}),
        ("words", {"wordNgrams": 2}),
    )
}
KINDS |= {
    "words alone": {"loss": "softmax", "wordNgrams": 1, "dim": 2000},  # as large as fresh memory is
    "rare words": {"loss": "softmax", "minCount": 30, "minn": 3, "maxn": 5},
    "wide": {"loss": "softmax", "dim": 48, "minn": 2, "maxn": 5, "wordNgrams": 3},
    "quantised": {"loss": "softmax", "wordNgrams": 2, "dim": 3, "quantise": QUANTISED},
    "pruned": {"loss": "hs", "minn": 2, "maxn": 4, "quantise": PRUNED},
    "pruned words": {"loss": "softmax", "wordNgrams": 2, "quantise": PRUNED},
    "quantised labels": {
        "loss": "hs",
        "labels": 300,
        "dim": 256,  # a matrix large enough for fresh memory
        "quantise": json.dumps({"qnorm": False, "qout": True, "dsub": 2}),
    },
}
"""Settings of small models of every kind, by what is special of them."""


def raw(lines: Sequence[bytes | str]) -> pa.LargeStringArray:
    """Lines as Arrow has them, whatever their bytes."""
    return pa.array(lines, pa.large_binary()).view(pa.large_string())


def many(labels: int) -> list[tuple[str, str]]:
    """A sentence of its own for each of so many labels."""
    return [(f"l{number}", f"w{number} w{number + 1} grain") for number in range(labels)]


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """(label, words drawn from those of a language); the first language comes most often, as the tree wants it."""
    rng = random.Random(seed)
    drawn = rng.choices(LABELS, weights=range(len(LABELS), 0, -1), k=count)
    return [(label, " ".join(rng.choices(_SENTENCES[label].split(), k=rng.randint(3, 12)))) for label in drawn]


@cache
def model_bytes(quantise: str = "", labels: int = 0, **settings: Any) -> bytes:
    """A trained model's file. `quantise`: JSON of what `quantize` takes, empty for none; `labels`: how many, 0 for
    those of `sentences`. In a process of its own, whose memory is fresh, as `learn` has it."""
    texts = many(labels) if labels else sentences(400, 0)
    with tempfile.TemporaryDirectory() as folder:
        lines, path = Path(folder) / "lines.txt", Path(folder) / "model.bin"
        lines.write_text("".join(f"__label__{label} {words}\n" for label, words in texts), encoding="utf-8")
        every = {"input": str(lines), "dim": 10, "epoch": 25, "lr": 0.5, "minCount": 1, "bucket": 200_000, **settings}
        command = [sys.executable, "-P", "-c", _CHILD, json.dumps(every), quantise or "{}", str(path)]
        subprocess.run(command, env=learn._environment(), check=True, capture_output=True)
        return path.read_bytes()


def library(data: bytes) -> Any:
    """The model, as the library reads it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.bin"
        path.write_bytes(data)
        return open_model(path)


def answers(model: Any, lines: Sequence[bytes | str], k: int) -> list[tuple[tuple[str, ...], list[float]]]:
    """The library's best labels of each line and their probabilities, float32. Lines may be any bytes without a line's
    end, which its own `predict` does not take."""
    ended = [line + ("\n" if isinstance(line, str) else b"\n") for line in lines]
    labels, scores = model.f.multilinePredict(ended, k, 0.0, "strict")
    return [
        (tuple(of_line), np.asarray(probabilities).tolist())
        for of_line, probabilities in zip(labels, scores, strict=True)
    ]
