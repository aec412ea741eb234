"""Small language models that learn from mixtures of equal size, and the bits that each needs for held-out texts: what
tests/learn_web.py and tests/learn_languages.py share.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from learn_quality import LABELLED, SHARED

from gristmill.lake.query.dataset import Dataset
from gristmill.lake.store.objects import read_object, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.model.evaluate.intervals import Bootstrap
from gristmill.model.evaluate.scores import rows_of
from gristmill.model.processing.text import Tokenizer
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.registry import PIPELINES
from gristmill.stages.run.runner import Runner

MODEL = "nano"
POOL = 8
"""Tokens of a mixture of several sources, for each that is trained on: where a few documents are most of a source, a
draw of a part of it is far from the weights, one of several epochs is not."""
MOST_EPOCHS = 64
"""A small set is repeated as often as it takes; how often that was, a result says."""
AS_IT_IS: dict[str, Any] = {
    "language": {"keep": [], "min_score": None},
    "gopher_quality": None,
    "minhash": None,
}
"""Of the web recipe: no filter, and no near duplicates. Exact copies go in any case."""


@dataclass(frozen=True)
class Size:
    """Of every training: `steps` of `batch` windows of `window` tokens at the rate `lr`. `vocabulary`: of the
    tokenizer."""

    steps: int
    batch: int = 4
    window: int = 256
    vocabulary: int = 2048
    lr: float = 0.01

    def __str__(self) -> str:
        shape = f"{self.steps} steps of {self.batch} windows of {self.window} tokens"
        return f"{MODEL}, {shape}, {self.vocabulary} entries"

    @property
    def windows(self) -> int:
        """Windows that a model is trained on."""
        return self.steps * self.batch


@dataclass(frozen=True)
class Bits:
    """What a model needs of held-out documents, in the order of the data. `nats`, `sizes`: float64 [documents], of each
    the nats and the UTF-8 bytes; `sources`: the dataset of each."""

    nats: np.ndarray
    sizes: np.ndarray
    sources: tuple[str, ...]

    def of(self, source: str) -> Bits:
        """Those of one dataset."""
        places = np.array([name == source for name in self.sources], bool)
        return Bits(self.nats[places], self.sizes[places], (source,) * int(places.sum()))

    @property
    def per_byte(self) -> float:
        """Bits a byte, of all documents together."""
        return float(self.nats.sum() / math.log(2) / self.sizes.sum())


@dataclass(frozen=True)
class Gain:
    """Bits a byte that one way needs more than another (less: below 0), and its interval at 95%."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0

    def as_json(self) -> dict[str, Any]:
        """For a file of results."""
        return {**{name: round(value, 4) for name, value in asdict(self).items()}, "excludes_0": self.excludes_zero}


def gain(after: Sequence[Bits], before: Sequence[Bits], bootstrap: Bootstrap | None = None) -> Gain:
    """How many bits a byte `after` needs more than `before`: models of the same seeds, in the same order, on the same
    documents. Each resample draws documents with replacement, the same for both ways and all seeds, and seeds with
    replacement. A single seed gives the interval of `grist diff`."""
    bootstrap = bootstrap or Bootstrap()
    seeds = len(after)
    bits = [(new.nats - old.nats) / math.log(2) for new, old in zip(after, before, strict=True)]
    columns = np.stack([*bits, after[0].sizes], axis=1)
    sums = bootstrap.sums(columns)
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample of empty documents has no bytes
        by_seed = sums[:, :-1] / sums[:, -1:]
    draws = np.random.default_rng(bootstrap.seed + 1).integers(0, seeds, by_seed.shape)
    means = np.take_along_axis(by_seed, draws, axis=1).mean(axis=1)
    tail = (1 - bootstrap.level) / 2
    low, high = np.nanquantile(means, [tail, 1 - tail])
    whole = columns.sum(axis=0)
    return Gain(float((whole[:-1] / whole[-1]).mean()), float(low), float(high))


class TextLesson:
    """A lake, and pipelines that run in this process. What is there already is not made again."""

    def __init__(self, folder: Path, size: Size) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.size = folder, size
        self.store = open_store(str(folder / "lake"))
        self.versions = Versions(self.store)
        self._refs: dict[str, str] = {}

    def run(self, pipeline: str, recipe: Mapping[str, Any], how: Mapping[str, Any] | None = None) -> Manifest:
        """A pipeline to its end."""
        given = {"recipe": recipe, "run": {"workers": 0, **(how or {})}}
        config = PIPELINES[pipeline].model_validate(given)
        manifest = run_pipeline(config, self.store, Runner(self.store, workers=0)).manifest
        self._refs[manifest.dataset] = str(manifest)
        return manifest

    def ref(self, dataset: str) -> str:
        """The version of a dataset that this lesson came to: a folder may hold others. Raises KeyError for none."""
        return self._refs[dataset]

    def written(self, name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Rows as a file of JSON lines."""
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    def rows(self, dataset: str) -> list[dict[str, Any]]:
        """Text and address of the documents of a version."""
        table = Dataset(self.store, self.versions.resolve(self.ref(dataset))).to_arrow(["text", "url"])
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows

    def tokenizer(self, name: str, sources: Sequence[str]) -> None:
        """Trained on these datasets."""
        train = {"vocab_size": self.size.vocabulary}
        self.run("tokenizer", {"dataset": name, "sources": [self.ref(source) for source in sources], "train": train})

    def lengths(self, tokenizer: str, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, <|endoftext|> among them."""
        (shard,) = self.versions.resolve(self.ref(tokenizer)).shards
        encoded = Tokenizer.from_bytes(read_object(self.store, shard)).encode_documents(texts)
        lengths: list[int] = encoded.lengths.tolist()
        return lengths

    def material(self, tokenizer: str, datasets: Mapping[str, str]) -> dict[str, dict[str, int]]:
        """Name -> how much there is of its dataset."""
        sizes = {}
        for name, dataset in datasets.items():
            texts = [row["text"] for row in self.rows(dataset)]
            tokens = sum(self.lengths(tokenizer, texts))
            sizes[name] = {
                "documents": len(texts),
                "bytes": sum(len(text.encode()) for text in texts),
                "tokens": tokens,
            }
        return sizes

    def mixed(self, dataset: str, tokenizer: str, weights: Mapping[str, float], seed: int) -> dict[str, float]:
        """A mixture to train on; of a single source an epoch. -> Of each source, how many epochs a training sees: it
        draws its windows at random, one epoch of the mixture after the other."""
        alone = len(weights) == 1
        epochs = 1 if alone else MOST_EPOCHS
        sources = {self.ref(name): {"weight": weight, "max_epochs": epochs} for name, weight in weights.items()}
        tokens = None if alone else POOL * self.size.windows * self.size.window
        recipe = {"dataset": dataset, "tokenizer": self.ref(tokenizer), "sources": sources, "window": self.size.window}
        mixture = self.run("mixture", {**recipe, "tokens": tokens, "seed": seed})
        share = self.size.windows / mixture.statistics["windows"]
        drawn = mixture.statistics["mixture"]
        return {row["source"].partition("@")[0]: round(share * row["drawn"] / row["there"], 3) for row in drawn}

    def trained(self, dataset: str, tokenizer: str, held_out: Sequence[str], seed: int) -> dict[str, Any]:
        """A model from nothing on the mixture of its name, `DATASET.pretrain`; the gate `contamination` fails if a
        held-out document is in what it is trained on. -> What it was trained on, in figures."""
        stage = {
            "name": "pretrain",
            "trainable": ["language"],
            "data": self.ref(dataset),
            "held_out": [self.ref(name) for name in held_out],
            "gates": ["frozen_parts", "trained_parts", "contamination"],
            "batch": self.size.batch,
            "steps": self.size.steps,
            "optim": {"kind": "muon", "lr": self.size.lr},
            "schedule": {"kind": "cosine", "warmup": max(1, self.size.steps // 10)},
            "seed": seed,
        }
        recipe = {"dataset": dataset, "model": MODEL, "tokenizer": self.ref(tokenizer), "stages": [stage]}
        before = time.process_time()
        model = self.run("train", recipe, {"windows_per_pass": self.size.batch, "checkpoint_every": 1000})
        training = model.statistics["training"]
        seconds = round(time.process_time() - before)
        return {"windows": training["positions"], "tokens": training["tokens"], "cpu_s": seconds}

    def bits(self, dataset: str, held_out: Sequence[str]) -> Bits:
        """Of a model's version `DATASET.pretrain`, by the evaluation `perplexity`."""
        recipe = {
            "dataset": "eval",
            "model": self.ref(f"{dataset}.pretrain"),
            "data": [self.ref(name) for name in held_out],
        }
        manifest = self.run("evaluate", {**recipe, "window": self.size.window})
        rows = rows_of(read_table(self.store, ref) for ref in manifest.shards)
        rows = rows.sort_by([("source", "ascending"), ("input", "ascending"), ("ordinal", "ascending")])
        nats, sizes = (np.asarray(rows[name].to_numpy(), np.float64) for name in ("nats", "bytes"))
        return Bits(nats, sizes, tuple(name.partition("@")[0] for name in rows["source"].to_pylist()))


Learned = Callable[[Path, Path, Sequence[int], Size], dict[str, Any]]
"""(real data, folder, seeds, size) -> what was measured."""


def begin(
    arguments: list[str],
    about: str | None,
    learned: Learned,
    size: Size,
    show: Callable[[dict[str, Any]], None],
) -> int:
    """Learns with each seed on one thread, writes and shows what came of it. -> The exit code."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder of real data")
    parser.add_argument("--folder", type=Path, help="where all is kept: what is there is not learned again")
    parser.add_argument("--out", type=Path, help="a JSON file for all of it")
    given = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    if not (given.shared / LABELLED).is_file():
        print(f"skipped: no real data in {given.shared}")
        return 0
    with tempfile.TemporaryDirectory(prefix="grist-learn-") as name:
        results = learned(given.shared.resolve(), given.folder or Path(name), given.seeds, size)
    if given.out is not None:
        given.out.write_text(json.dumps(results, indent=1) + "\n")
    show(results)
    return 0


def stated(gained: Mapping[str, Any]) -> str:
    """A gain in words."""
    says = "excludes 0" if gained["excludes_0"] else "does NOT exclude 0"
    return f"{gained['value']:+.3f} ({gained['low']:+.3f} to {gained['high']:+.3f}): {says}"
