"""What tests of the kickoff share: graphs of the toy pipeline, written as a user would, and who is told how it goes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.command import carry_out
from gristmill.pipelines.kickoff.bring import End
from gristmill.pipelines.kickoff.prepare import Asked, Prepared, prepare
from gristmill.pipelines.kickoff.run import run_graph


class Watcher:
    """Notes starts and ends."""

    def __init__(self) -> None:
        self.starts: list[str] = []
        self.ends: list[str] = []

    def started(self, node: str) -> None:
        """A node starts."""
        self.starts.append(node)

    def ended(self, end: End) -> None:
        """A node ended."""
        self.ends.append(f"{end.node} {end.state}")


class Graphs:
    """A folder with files of lines, the toy pipelines' configs, and kickoffs over them, each into one lake."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for pipeline in ("upper", "lines"):
            (folder / f"{pipeline}.yaml").write_text(f"pipeline: {pipeline}\nrecipe: {{}}\n")
        for name in "abcd":
            self.lines(name, 1)

    def lines(self, name: str, count: int) -> None:
        """A file of so many lines."""
        lines = (f'{{"text": "{name} {number}"}}\n' for number in range(count))
        (self.folder / f"{name}.jsonl").write_text("".join(lines))

    def upper(self, name: str, *sources: str, **more: Any) -> dict[str, Any]:
        """A node that makes `name` of its file, and names these sources."""
        recipe = {"dataset": name, "inputs": [f"${{data}}/{name}.jsonl"], "sources": list(sources)}
        return {"config": str(self.folder / "upper.yaml"), "recipe": recipe} | more

    def asked(
        self,
        nodes: Mapping[str, Any],
        run: Mapping[str, Any] | None = None,
        report: Mapping[str, Any] | None = None,
        **how: Any,
    ) -> Asked:
        """A kickoff of these nodes."""
        path = self.folder / "kickoff.yaml"
        settings = {"nodes": 0, "each": {"workers": 0}, "patience_seconds": 0, **(run or {})}
        data = {"kickoff": "toy", "paths": {"data": str(self.folder)}, "run": settings, "nodes": dict(nodes)}
        data["report"] = report
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        return Asked(path, **{"lake": str(self.folder / "lake"), **how})

    def prepared(self, nodes: Mapping[str, Any], run: Mapping[str, Any] | None = None, **how: Any) -> Prepared:
        """The same, looked up and checked. Raises BadConfig."""
        return prepare(self.asked(nodes, run, **how))

    def run(self, nodes: Mapping[str, Any], **how: Any) -> tuple[dict[str, End], Watcher]:
        """Brings the nodes in this process. -> Their ends, and what was told meanwhile."""
        prepared, watch = self.prepared(nodes, **how), Watcher()
        bring = prepared.bringing(lambda node, config: carry_out(config))
        given = (prepared.graph, prepared.chosen, prepared.done, bring)
        ends = run_graph(*given, lambda node, work: work() and None, prepared.room, watch)
        return {end.node: end for end in ends}, watch


def write_whole(folder: Path) -> Path:
    """A small kickoff of each kind of node: rows, a tokenizer, a mixture, a training, an evaluation, and a page."""
    for name, count in (("sums", 60), ("names", 60), ("asked", 8)):
        rows = ({"question": f"{name} {number}?", "answer": f"It is #### {number}."} for number in range(count))
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    def rows_of(name: str) -> dict[str, Any]:
        recipe = {"dataset": name, "inputs": [f"${{data}}/{name}.jsonl"], "instruct": {"form": "pair"}}
        return {"config": "instruct", "recipe": recipe | {"scan": {"chunk_records": 20}}}

    sources = ["node:sums", "node:names"]
    train = {"dataset": "small", "tokenizer": "node:bpe"}
    stage = {"name": "pretrain", "data": "node:mix", "steps": 60, "held_out": [], "gates": ["frozen_parts"]}
    evaluate = {"dataset": "eval", "model": "node:train", "data": ["node:asked"]}
    nodes = {
        **{name: rows_of(name) for name in ("sums", "names", "asked")},
        "bpe": {
            "config": "tokenizer",
            "recipe": {"dataset": "bpe", "sources": sources, "train": {"vocab_size": 300}},
        },
        "mix": {
            "config": "mixture",
            "recipe": {"dataset": "mix", "tokenizer": "node:bpe", "sources": dict.fromkeys(sources, 1), "window": 64},
        },
        "train": {
            "config": "train-nano",
            "recipe": train,
            "stage": stage,
            "run": {"checkpoint_every": 5},
            "needs": ["asked"],
        },
        "evaluation": {
            "config": "evaluate",
            "recipe": evaluate | {"generate": {"max_tokens": 8, "context": 128}},
        },
    }
    report = {"nodes": ["mix", "train", "evaluation"], "file": str(folder / "report.html")}
    run = {"nodes": 2, "cpus": 2, "each": {"workers": 0}}
    data = {"kickoff": "whole", "paths": {"data": str(folder)}, "run": run, "nodes": nodes, "report": report}
    (folder / "whole.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return folder / "whole.yaml"


def write_two(folder: Path) -> Path:
    """A kickoff of the crawl of a stack's folder, and of a tokenizer that is made of it."""
    settings = {"inputs": [f"{folder}/crawl/*"], "max_quarantine_rate": 0.2, "scan": {"chunk_bytes": 40_000}}
    web = {"config": "web", "recipe": settings | {"shards": {"target_bytes": 100_000}}, "run": {"workers": 2}}
    words = {
        "config": "tokenizer",
        "recipe": {"dataset": "words", "sources": ["node:web"], "train": {"vocab_size": 300}},
    }
    run = {"nodes": 2, "each": {"workers": 0}}
    file = folder / "kickoff.yaml"
    file.write_text(yaml.safe_dump({"kickoff": "two", "run": run, "nodes": {"web": web, "words": words}}))
    return file


def digests(lake: str) -> dict[str, list[str]]:
    """Dataset -> the digests of its versions, in order."""
    versions = Versions(open_store(lake))
    return {
        name: [versions.manifest(name, number).digest for number in versions.numbers(name)] for name in versions.names()
    }
