"""`make learn`, its fourth part: how well a small model learns to reason from its own verified chains, by the recipe
`train-reasoning-nano`.

Word problems of `synth.tasks.leftovers`, whose right answer is often hit by luck. The base model draws chains for
problems of which the answer alone is known; what is verified trains it further; then the same with that model and other
problems. Beside it as many steps on as large batches, from the same base: the same rounds on distinct chains with the
right answer, whatever their steps (outcome only), or on all distinct ones (unfiltered); the worked answers alone (seed
only). Prints tables, writes all as JSON with `--out`, and ends with exit code 1 if a seed is below what is asked of it.
`--folder`: where everything is kept, and gone on with.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from seeds import Result, Study, main

from gristmill.lake.query.query import Node, lineage
from gristmill.lake.store.objects import read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.registry import PIPELINES
from gristmill.stages.run.runner import Runner
from gristmill.synth.tasks.leftovers import leftover_files

RECIPE = Path(__file__).parents[1] / "conf" / "train-reasoning-nano.yaml"
ROUNDS = {"r1": "first", "r2": "second"}
"""Stage -> the problems whose chains it learns from."""
CHECKED = {"verified": True, "outcome only": False, "unfiltered": False}
"""Way to learn from samples -> whether the steps of a chain are checked."""
SEED_ONLY = "seed only"
AT_MOST = 16
"""Samples of a problem, drawn until one is accepted. A problem has one shortest chain: a second one brings little."""
WINDOW = 256
GAINED, OVER_CONTROLS = 0.35, 0.2
"""Of held-out problems, answered right after two rounds: by so much more than by the base, and by each control."""


class Lesson:
    """One seed: a lake, what it is given, and models one after another."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.seed, self.folder = seed, folder
        self.files = folder / "reasoning"
        self.cpu = folder / "cpu_s"
        self.store = open_store(str(folder / "lake"))
        self.versions = Versions(self.store)
        self.recipe: dict[str, Any] = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
        for stage in self.recipe["recipe"]["stages"]:
            stage["seed"] = seed

    def learned(self) -> dict[str, Any]:
        """Accuracy of every model on held-out problems, and what became of the samples of each round."""
        self.given()
        self.train({"until": "base"})
        accuracy = {"base": self.score("reasoner.base@v1")}
        rounds = {way: self.two_rounds(way) for way in CHECKED}
        self.train(self.from_base("seed-only", dict.fromkeys(ROUNDS, "reasoner-worked@v1")))
        for way in (*CHECKED, SEED_ONLY):
            accuracy[way] = {stage: self.score(f"{dataset_of(way)}.{stage}@v1") for stage in ROUNDS}
        return {"cpu_s": round(self.spent()), "accuracy": accuracy, "rounds": rounds, "origins": self.origins()}

    def given(self) -> None:
        """Worked and held-out problems as samples, a tokenizer, and the base's mixture."""
        self.files.mkdir(exist_ok=True)
        for name, data in leftover_files(self.seed)[0].items():
            (self.folder / name).write_bytes(data)
        words = {"form": "code", "code": ["text"], "fim": None}
        for name, form in (("worked", {"form": "pair"}), ("held-out", {"form": "pair"}), ("words", words)):
            self.instructed(f"leftovers-{name}", self.files / f"{name}.jsonl", form)
        train = {"vocab_size": 512}
        self.run("tokenizer", {"dataset": "reasoner-bpe", "sources": ["leftovers-words@v1"], "train": train})
        self.mixed("reasoner-worked", ["leftovers-worked@v1"])

    def instructed(self, dataset: str, file: Path, form: dict[str, Any]) -> None:
        """Rows of a file as a version of samples."""
        self.run("instruct", {"dataset": dataset, "inputs": [str(file)], "instruct": form})

    def mixed(self, dataset: str, sources: list[str]) -> None:
        """Windows of these versions, each of their samples about as often as another: their texts are equally long."""
        weights = {source: self.versions.resolve(source).kept.count for source in sources}
        given = {"sources": weights, "window": WINDOW, "seed": self.seed}
        self.run("mixture", {"dataset": dataset, "tokenizer": "reasoner-bpe@v1", **given})

    # Rounds.

    def two_rounds(self, way: str) -> list[dict[str, Any]]:
        """Draws, selects and trains, twice. -> What became of the samples."""
        model, rounds, sources = "reasoner.base@v1", [], ["leftovers-worked@v1"]
        for stage, problems in ROUNDS.items():
            chains = f"{dataset_of(way)}-{problems}-chains"
            rounds.append(self.drawn(way, chains, problems, model))
            sources.append(self.all_samples(chains) if way == "unfiltered" else f"{chains}@v1")
            self.mixed(f"{dataset_of(way)}-{problems}", sources)
            if way == "verified":
                self.train({"until": stage})
            else:
                data = {name: f"{dataset_of(way)}-{of}@v1" for name, of in ROUNDS.items()}
                self.train({**self.from_base(dataset_of(way), data), "until": stage})
            model = f"{dataset_of(way)}.{stage}@v1"
        return rounds

    def drawn(self, way: str, dataset: str, problems: str, model: str) -> dict[str, Any]:
        """Samples of problems, judged and selected. -> How many of them were accepted, and why others were not."""
        recipe = {
            "dataset": dataset,
            "inputs": [str(self.files / f"{problems}.jsonl")],
            "decontaminate": {"against": ["leftovers-held-out@v1"]},
            "engine": {"model": model, "context": WINDOW},
            "draws": {"max_tokens": 64, "seed": self.seed},
            "stop": {"accept": 1, "at_most": AT_MOST},
            "checks": {"steps": CHECKED[way], "symbolic": False},
            "pairs": False,
        }
        self.run("reasoning", recipe, {"hosts": {"max_num_seqs": 64}})
        rollouts = self.versions.resolve(f"{dataset}.rollouts@v1")
        chains = self.versions.resolve(f"{dataset}@v1")
        counted = rollouts.statistics["rollouts"]
        verdicts = {name: tally.count for name, tally in rollouts.verdicts.items()}
        return {
            "samples": counted["samples"],
            "accepted": verdicts.get("accepted", 0),
            "chains": chains.kept.count,
            "reasons": counted["reasons"],
            "difficulties": counted["difficulties"],
            "pass_rate": pass_rates(self.rows(rollouts)),
        }

    def all_samples(self, chains: str) -> str:
        """All distinct samples of a version of rollouts, right or wrong, as a version of samples."""
        rows = self.rows(self.versions.resolve(f"{chains}.rollouts@v1"))
        pairs = {(row["text"], sample["text"]) for row in rows for sample in row["samples"] if sample["text"].strip()}
        file = self.folder / f"{chains}.jsonl"
        lines = (json.dumps({"question": question, "answer": text}) + "\n" for question, text in sorted(pairs))
        file.write_text("".join(lines))
        self.instructed(f"{chains}-all", file, {"form": "pair"})
        return f"{chains}-all@v1"

    def rows(self, manifest: Manifest) -> list[dict[str, Any]]:
        """Of the shards of a version."""
        return [row for ref in manifest.shards for row in read_table(self.store, ref).to_pylist()]

    # Models.

    def from_base(self, dataset: str, data: Mapping[str, str]) -> dict[str, Any]:
        """The recipe of the rounds on other data, from the same base. What is not selected is not decontaminated."""
        other = {"held_out": [], "gates": ["frozen_parts", "trained_parts"]}
        stages = [stage for stage in self.recipe["recipe"]["stages"] if stage["name"] in data]
        stages = [{**stage, **other, "data": data[stage["name"]]} for stage in stages]
        stages[0]["init_from"] = {"language": "reasoner.base@v1"}
        return {"dataset": dataset, "stages": stages}

    def train(self, changes: Mapping[str, Any]) -> None:
        """The recipe, with these keys in place of its own."""
        self.run("train", {**self.recipe["recipe"], **changes}, self.recipe["run"])

    def score(self, model: str, data: str = "leftovers-held-out@v1") -> float:
        """The share of held-out problems that a model answers right, greedily."""
        generate = {"max_tokens": 64, "context": WINDOW}
        recipe = {"dataset": "eval", "model": model, "data": [data], "generate": generate}
        manifest = self.run("evaluate", recipe, {"max_num_seqs": 64})
        value = float(manifest.statistics["scores"][0]["value"])
        print(f"seed {self.seed}: {model} {value:.3f} of {data}", flush=True)
        return round(value, 4)

    def run(self, pipeline: str, recipe: Mapping[str, Any], how: Mapping[str, Any] | None = None) -> Manifest:
        """A pipeline in this process, to its end."""
        given = {"recipe": recipe, "run": {"workers": 0, **(how or {})}}
        config = PIPELINES[pipeline].model_validate(given)
        before = time.process_time()
        try:
            return run_pipeline(config, self.store, Runner(self.store, workers=0)).manifest
        finally:
            self.cpu.write_text(str(self.spent() + time.process_time() - before))

    def spent(self) -> float:
        """CPU seconds of all pipelines so far, those of processes before this one too."""
        return float(self.cpu.read_text()) if self.cpu.exists() else 0.0

    def origins(self) -> dict[str, list[str]]:
        """Versions, and files of rows, that the last model comes from."""
        nodes = list(flat(lineage(self.versions, f"reasoner.{list(ROUNDS)[-1]}@v1")))
        files = {Path(name).name for node in nodes for file in node.inputs for name in file.names}
        return {"versions": sorted({node.ref for node in nodes}), "files": sorted(files)}


def dataset_of(way: str) -> str:
    """Of the models that learn this way."""
    return "reasoner" if way == "verified" else way.replace(" ", "-")


def flat(node: Node) -> Iterator[Node]:
    """A node with all that it comes from."""
    yield node
    for origin in node.origins:
        yield from flat(origin)


def pass_rates(problems: list[dict[str, Any]]) -> dict[str, float]:
    """The share of first samples that were accepted, by how many events a problem has: all others were drawn because
    those before them were not."""
    shares = {}
    for domain in sorted({row["domain"] for row in problems}):
        samples = [sample for row in problems if row["domain"] == domain for sample in row["samples"]]
        first = [sample for sample in samples if sample["sample"] == 0]
        shares[domain] = round(sum(sample["verdict"] == "accepted" for sample in first) / len(first), 4)
    return shares


def lacking(seed: str, result: Result) -> list[str]:
    """What a seed does not reach."""
    accuracy, last = result["accuracy"], list(ROUNDS)[-1]
    reached = accuracy["verified"][last]
    least = {"base": (accuracy["base"], GAINED)}
    least |= {way: (accuracy[way][last], OVER_CONTROLS) for way in ("outcome only", "unfiltered", SEED_ONLY)}
    lines = [
        f"seed {seed}: two rounds are {reached - value:.3f} above {name}, {asked} is asked"
        for name, (value, asked) in least.items()
        if reached - value < asked
    ]
    stages = {f"reasoner.{stage}@v1" for stage in ("base", *ROUNDS)}
    origins = {*stages, "worked.jsonl", *(f"{problems}.jsonl" for problems in ROUNDS.values())}
    missing = origins.difference(*result["origins"].values())
    return lines + [f"seed {seed}: {name} is not among what the last model comes from" for name in sorted(missing)]


def show(results: Mapping[str, Result], failed: list[str]) -> None:
    """The tables."""
    console = Console()
    scores = Table("seed", "CPU s", "base", *CHECKED, SEED_ONLY, title="held-out problems answered right, r1 and r2")
    lines = []
    for seed, result in results.items():
        accuracy = result["accuracy"]
        ways = (" ".join(f"{value:.3f}" for value in accuracy[way].values()) for way in (*CHECKED, SEED_ONLY))
        scores.add_row(seed, str(result["cpu_s"]), f"{accuracy['base']:.3f}", *ways)
        for way, rounds in result["rounds"].items():
            for stage, counts in zip(ROUNDS, rounds, strict=True):
                rates = ", ".join(f"{domain} {rate:.2f}" for domain, rate in counts["pass_rate"].items())
                reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts["reasons"].items())
                lines.append(
                    f"seed {seed}, {way}, {stage}: of first samples were accepted {rates}; of all"
                    f" {counts['samples']:,} samples {counts['accepted']:,}, {counts['chains']:,} distinct chains"
                    f" selected; not accepted: {reasons}"
                )
    console.print(scores)
    console.print("\n".join(lines))
    console.print("\n".join(failed) or "learned")


STUDY = Study(
    name="reasoning_learning",
    recipe=f"train-reasoning-nano; 600 worked problems; up to {AT_MOST} samples of each of 3,000 problems a round,"
    " until one is accepted; 400 held-out problems, greedy; every way from the same base, with as many steps",
    kept="result.json",
    learned=lambda folder, seed: Lesson(folder, seed).learned(),
    lacking=lacking,
    show=show,
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], STUDY, __doc__))
