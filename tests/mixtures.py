"""Small lakes to mix from: documents, samples, a tokenizer; and what the windows of a mixture hold."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from drafts import draft

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.identity import digest_of, record_id
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.result import Result
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.instruct import InstructConfig
from gristmill.pipelines.mixture import MixtureConfig
from gristmill.pipelines.tokenizer import TokenizerConfig
from gristmill.stages.core.shards import SCHEMA
from gristmill.stages.mix.windows import read_windows
from gristmill.stages.run.runner import Runner

WORDS = (  # noqa: SIM905
    "mill stone water wheel grain flour sack road river bridge market baker oven bread morning evening winter summer"
    " the of and to in is was on with for that it as at by from they were their which one two three many some old new"
).split()


def texts(n: int, seed: int = 0, longest: int = 300) -> list[str]:
    """Sentences of common words; every text has its number, so that no two are equal."""
    import random

    rng = random.Random(seed)
    return [f"Text {i}. " + " ".join(rng.choices(WORDS, k=rng.randrange(1, longest))) for i in range(n)]


def documents(store: Store, name: str, texts: Sequence[str], shards: int = 1) -> Manifest:
    """A version of documents as the web pipeline leaves them."""
    rows = [
        {
            "id": record_id(url=f"https://{name}.example/{i}", source_key=None, own=text.encode()),
            "url": f"https://{name}.example/{i}",
            "text": text,
            "language": "en",
            "language_score": 1.0,
            "date": None,
            "source": None,
        }
        for i, text in enumerate(texts)
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    per = -(-len(rows) // shards)
    refs = tuple(put_table(store, "shard", table.slice(i * per, per)) for i in range(shards))
    digest = digest_of(name, *texts)
    tally = Tally.of_records([digest] * len(rows), range(len(rows)))
    manifest_draft = draft(name, digest, [digest], refs, received=tally, kept=tally)
    return Versions(store).commit(manifest_draft)


def samples(store: Store, folder: Path, name: str, rows: Sequence[Any], **instruct: Any) -> Result:
    """A version by the instruct pipeline. A row that is bytes stands in the file as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.jsonl"
    file.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    recipe = {"dataset": name, "inputs": [str(file)], "instruct": instruct, "max_quarantine_rate": 1.0}
    return run_pipeline(InstructConfig.model_validate({"recipe": recipe}), store, Runner(store, workers=0))


def tokenizer(store: Store, *sources: str, vocab_size: int = 400) -> Manifest:
    """A tokenizer of these versions, `bpe`."""
    recipe = {"dataset": "bpe", "sources": list(sources), "train": {"vocab_size": vocab_size}}
    return run_pipeline(TokenizerConfig.model_validate({"recipe": recipe}), store, Runner(store, workers=0)).manifest


def recipe(sources: dict[str, Any], **more: Any) -> Any:
    """The recipe of a mixture of these sources."""
    return MixtureConfig.model_validate(
        {"recipe": {"tokenizer": "bpe@v1", "sources": sources, "window": 128, **more}}
    ).recipe


def mix(store: Store, sources: dict[str, Any], runner: Runner | None = None, **recipe: Any) -> Result:
    """A mixture of these sources."""
    given = {"tokenizer": "bpe@v1", "sources": sources, "window": 128, **recipe}
    config = MixtureConfig.model_validate({"recipe": given})
    return run_pipeline(config, store, runner or Runner(store, workers=0))


def word_problem(i: int) -> dict[str, str]:
    """A question and its answer."""
    return {"question": f"What is {i} plus {i + 1}?", "answer": f"{i} + {i + 1} = {2 * i + 1}\n#### {2 * i + 1}"}


def chat(i: int, **more: Any) -> dict[str, Any]:
    """A conversation of two turns."""
    turns = [{"role": "user", "content": f"Say {i}."}, {"role": "assistant", "content": f"Here it is: {i}."}]
    return {"messages": turns, **more}


@pytest.fixture
def sources(store, tmp_path):
    """A store with documents, samples and a tokenizer."""
    documents(store, "web", texts(300), shards=3)
    samples(store, tmp_path / "in", "math", [word_problem(i) for i in range(120)], form="pair")
    tokenizer(store, "web@v1", "math@v1")
    return store


def windows(store, manifest):
    """All windows of a mixture."""
    reader = read_windows(store, manifest)
    return [reader.sample(i) for i in range(len(reader))]


def stretches(rows):
    """(source, id, epoch) -> its tokens put together again from the windows."""
    parts = defaultdict(dict)
    for window in rows:
        bounds = window.arrays["cu_seqlens"]
        assert bounds[0] == 0 and bounds[-1] == len(window.arrays["input_ids"]) <= window.meta["window"]
        for n, member in enumerate(window.meta["members"]):
            ids = window.arrays["input_ids"][bounds[n] : bounds[n + 1]]
            assert len(ids) == member["length"]
            key = (member["source"], member["member"], member["epoch"])
            assert member["start"] not in parts[key]
            parts[key][member["start"]] = ids
    whole = {}
    for key, part in parts.items():
        at = 0
        for start, ids in sorted(part.items()):
            assert start == at
            at += len(ids)
        whole[key] = np.concatenate([ids for _, ids in sorted(part.items())])
    return whole
