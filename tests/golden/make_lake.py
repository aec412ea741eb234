"""Makes the golden lake of this lake format, once: `python tests/golden/make_lake.py`, from the repository root.

A golden lake is what a release left on people's disks. It is never made again: newer code has to read this one, and
a new format gets a new folder beside it (hence the name, and the refusal below). What the tests expect of it stands
in `lake-format-N.json`, written with it. Names of hosts and addresses of inputs are those of nobody's machine.

Another folder may be named on the command line. Those of formats 1 and 2 were made by the releases that wrote them, of
which the first had no takedowns, no samples and no mixtures.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gristmill.stages.read.inputs
from gristmill.lake.query.dataset import Dataset
from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.gc import plan_gc, run_gc
from gristmill.lake.versions.manifest import FORMAT, InputFile, Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.instruct import InstructConfig
from gristmill.pipelines.mixture import MixtureConfig
from gristmill.pipelines.tokenizer import TokenizerConfig
from gristmill.pipelines.web import WebConfig
from gristmill.stages.mix.windows import read_windows
from gristmill.stages.run.runner import Runner

HERE = Path(__file__).parent
HOST = "golden.example"
HOME_NAME = platform.node().encode()


def neutral_input(**fields: Any) -> InputFile:
    """An input whose names say nothing of this machine."""
    return InputFile(**{**fields, "names": tuple(f"crawl/{Path(name).name}" for name in fields["names"])})


def web(store: Store, inputs: Path, pattern: str, **recipe: Any) -> None:
    """One run of the web pipeline over the inputs that match."""
    given = {"inputs": [f"{inputs}/{pattern}"], "max_quarantine_rate": 0.5, **recipe}
    run_pipeline(WebConfig.model_validate({"recipe": given}), store, Runner(store, workers=0))


def chat(store: Store, inputs: Path) -> Manifest:
    """A version of conversations."""
    given = {"dataset": "chat", "inputs": [f"{inputs}/chat.jsonl"], "max_quarantine_rate": 0.5}
    return run_pipeline(InstructConfig.model_validate({"recipe": given}), store, Runner(store, workers=0)).manifest


def mixture(store: Store) -> None:
    """A tokenizer of both datasets, and their mixture."""
    sources = ["web@v2", "chat@v2"]
    trained = {"dataset": "bpe", "sources": sources, "train": {"vocab_size": 320}}
    run_pipeline(TokenizerConfig.model_validate({"recipe": trained}), store, Runner(store, workers=0))
    mixed = {"tokenizer": "bpe@v1", "sources": dict.fromkeys(sources, 1), "window": 256, "shard_tokens": 2048}
    run_pipeline(MixtureConfig.model_validate({"recipe": mixed}), store, Runner(store, workers=0))


def fill(store: Store, inputs: Path) -> None:
    """web@v1 (tagged `first`) and web@v2, a night later; a limited version that was withdrawn; chat@v1, which a
    takedown replaced by chat@v2; a tokenizer, and a mixture of both."""
    versions = Versions(store)
    web(store, inputs, "pages.warc", extends="web")
    web(store, inputs, "*.warc*", extends="web")
    web(store, inputs, "pages.warc", limit=5)
    versions.tag("web", 1, "first")
    versions.withdraw("web.limit", 1, "a look, not a dataset")
    taken = Dataset(store, chat(store, inputs)).to_arrow(["id"])["id"][0].as_py()
    provenance = {"at": "2026-11-28T00:00:00Z"}
    forget(versions, plan_forget(versions, Suppression.of(ids=[taken])), "request 7", lambda: provenance)
    mixture(store)
    run_gc(store, plan_gc(store, grace_seconds=0))  # as people keep a lake


def expected(store: Store) -> dict[str, Any]:
    """Of each version that is given out: its digests, its ledger, and its records (or the tokens of its windows)."""

    def facts(manifest: Manifest) -> dict[str, Any]:
        dataset = Dataset(store, manifest)
        named = {"digest": manifest.digest, "run_key": manifest.run_key, "ledger": dataset.ledger().to_pylist()}
        kinds = {ref.kind for ref in manifest.shards}
        if kinds == {"shard"}:
            return {**named, "rows": dataset.to_arrow().to_pylist()}
        if "pack" not in kinds:
            return named
        reader = read_windows(store, manifest)
        windows = [reader.sample(number).arrays for number in range(len(reader))]
        return {**named, "windows": [{name: array.tolist() for name, array in window.items()} for window in windows]}

    versions = Versions(store)
    given_out = [m for name in versions.names() for m in versions.manifests(name)]
    return {str(m): facts(m) for m in given_out if m.version not in versions.withdrawn(m.dataset)}


def main(folder: Path) -> None:
    """Writes the lake and what is expected of it, once."""
    if folder.exists():
        sys.exit(f"{folder} is there already and is never made again: a new lake format gets a new folder")
    with tempfile.TemporaryDirectory() as name:
        inputs = Path(name) / "crawl"
        shutil.copytree(HERE / "input", inputs, ignore=shutil.ignore_patterns(".*"))
        shutil.copy(HERE / "instruct" / "chat.jsonl", inputs)
        store = open_store(str(Path(name) / "lake"))
        neutral = patch.object(gristmill.stages.read.inputs, "InputFile", neutral_input)
        with neutral, patch.object(platform, "node", lambda: HOST), patch.object(os, "getpid", lambda: 1):
            fill(store, inputs)
        facts = json.dumps(expected(store), indent=1, ensure_ascii=False)
        for cache in (".tmp", "inputs"):  # notes on inputs: they name this folder
            shutil.rmtree(Path(name) / "lake" / cache, ignore_errors=True)
        for marker in (str(HERE.parents[1]).encode(), name.encode(), HOME_NAME):
            bad = [path for path in (Path(name) / "lake").rglob("*") if path.is_file() and marker in path.read_bytes()]
            if bad:
                sys.exit(f"not written: {marker!r} stands in {bad}")
        shutil.copytree(Path(name) / "lake", folder)
        folder.with_suffix(".json").write_text(facts + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else HERE / f"lake-format-{FORMAT}")
