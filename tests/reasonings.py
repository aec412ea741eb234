"""A small lake to sample problems in: a model with random weights, problems whose answers it now and then writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import evaluations
import mixtures

from gristmill.lake.accounts.fan import FAMILIES
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import read_table
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.result import Result
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.reason.reasoning import ReasoningConfig
from gristmill.stages.generate.verifiers import Judging
from gristmill.stages.run.runner import Runner
from gristmill.synth.verify.verdict import Named, Problem, Verdict

RECIPE: dict[str, Any] = {
    "engine": {"model": "base@v1", "context": 256},
    "draws": {"max_tokens": 6, "seed": 1},
    "waves": {"first": 2, "then": 2},
    "stop": {"accept": 2, "at_most": 6},
    "scan": {"chunk_records": 8},
    "max_undecided_rate": 0.2,
    "checks": {"truncated": True, "symbolic": False},
}
RUN = {"hosts": {"max_num_seqs": 4}, "workers": 0}
PARITY = Named("parity", 1)


@dataclass(frozen=True)
class Parity:
    """A verifier for a model with random weights: an answer of even length is right, an empty one undecided."""

    id: str = PARITY.id

    def verify(self, problem: Problem, chain: str) -> Verdict:
        """By the length of the chain."""
        if not chain.strip():
            return PARITY.undecided("empty", "")
        return PARITY.reject("odd", f"{len(chain)}") if len(chain) % 2 else PARITY.accept(f"{len(chain)}")


def by_parity(monkeypatch: Any) -> None:
    """Chains are judged by Parity from here on, in this process."""
    monkeypatch.setattr("gristmill.stages.generate.judge.judging", lambda kind, checks: Judging(Parity()))


def problem(i: int) -> dict[str, str]:
    """A word problem with its answer, in GSM8K's form."""
    she = ("Ana", "Tom")[i % 2], ("she", "he")[i % 2]
    question = f"{she[0]} has {i} mills and {she[1]} buys {i + 1} more. How many are there?"
    return {"question": question, "answer": f"{i} + {i + 1} = {2 * i + 1}\n#### {2 * i + 1}"}


def lake(store: Store, folder: Path) -> None:
    """`web`, `math`, `bpe` and `base`, as of `evaluations`, but for what is not needed here."""
    mixtures.documents(store, "web", mixtures.texts(40, longest=60))
    mixtures.samples(store, folder / "in", "math", [mixtures.word_problem(i) for i in range(12)], form="pair")
    mixtures.tokenizer(store, "web@v1", "math@v1")
    evaluations.model(store, folder / "hf", "base")


def lines(path: Path, rows: Sequence[Any]) -> Path:
    """A file of these rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return path


def config(files: Sequence[Path], run: dict[str, Any] | None = None, **recipe: Any) -> ReasoningConfig:
    """The config of a run over these files."""
    given = RECIPE | {"inputs": [str(file) for file in files]} | recipe
    return ReasoningConfig.model_validate({"recipe": given, "run": RUN | (run or {})})


def reason(store: Store, files: Sequence[Path], runner: Runner | None = None, **recipe: Any) -> Result:
    """Such a run, to its end."""
    return run_pipeline(config(files, **recipe), store, runner or Runner(store, workers=0))


def latest(store: Store, dataset: str) -> Manifest:
    """The newest version of a dataset."""
    versions = Versions(store)
    number = versions.latest(dataset)
    assert number is not None
    return versions.manifest(dataset, number)


def three(store: Store, dataset: str) -> list[Manifest]:
    """The newest rollouts, pairs and samples of a run."""
    return [latest(store, f"{dataset}{suffix}") for suffix in (".rollouts", ".pairs", "")]


def rows_of(store: Store, manifest: Manifest) -> list[dict[str, Any]]:
    """The rows of its shards."""
    return [row for ref in manifest.shards for row in read_table(store, ref).to_pylist()]


def family_of(store: Store, manifest: Manifest) -> list[dict[str, Any]]:
    """The rows of its ledgers of samples."""
    return [row for ref in manifest.ledgers if ref.kind == FAMILIES for row in read_table(store, ref).to_pylist()]
