"""`make learn`, its fifth part: what preferences, and a policy that learns from its own samples, add to a small model
that learned to reason (tests/learn_reasoning.py), beside what else the same samples could have taught it.

From the same start, the last model of `train-reasoning-nano` (r2), with as many steps of as many windows, on samples of
the same problems, which the start draws (8 of each):

- DPO: a right chain of a problem against a wrong one, the stage r3 of the recipe;
- chosen side alone: fine-tuning on the right chains of the same pairs;
- rejection sampling: fine-tuning on all distinct right chains of these samples, and the worked answers, as in r2;
- GRPO: as many samples, of a quarter of the problems in each of four rounds, drawn by the policy as it then is.

What is asked is that a stage works (the margin rises, chosen chains stay likely, accuracy on problems for development
does not fall), not that it wins. Prints a table, writes all as JSON with `--out`, and ends with exit code 1 if a seed
is below that. `--folder`: where everything is kept, and gone on with.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from functools import partial
from statistics import fmean
from typing import Any

from learn_reasoning import WINDOW, Lesson
from rich.console import Console
from rich.table import Table
from seeds import Result, Study, main

from gristmill.lake.store.objects import read_object
from gristmill.lake.versions.manifest import Manifest
from gristmill.synth.tasks.instructions import distinct
from gristmill.synth.tasks.leftovers import leftover

PROBLEMS, DEVELOPMENT, HELD_OUT = 400, 200, 400
"""Rows: to learn from, to see whether accuracy falls, and to compare ways by."""
DRAWN = 8
"""Samples of each problem."""
START = "reasoner.r2@v1"
ARMS = ("DPO", "chosen side alone", "rejection sampling", "GRPO")
STEPS, BATCH, ROUNDS = 40, 12, 4
SCHEDULE = {"kind": "cosine", "warmup": 4}
OPTIM: dict[str, dict[str, Any]] = {
    "chosen side alone": {"lr": 0.0002},
    "rejection sampling": {"kind": "muon", "lr": 0.002},
    "GRPO": {"lr": 0.0001, "weight_decay": 0.0},
}
"""The chosen side as DPO in the recipe; rejection sampling as in the rounds before, a third as fast."""
MOST_LOST = 0.05
"""By how much accuracy on problems for development may fall in a stage that works: a standard error and a half."""


class PreferenceLesson(Lesson):
    """One seed: the lake in which a model learned to reason, and what it becomes then."""

    def compared(self) -> dict[str, Any]:
        """Accuracy of the start and of each way, on problems for development and on held-out ones; what training on
        preferences, and the rounds of the policy, were like."""
        self.start()
        before = time.process_time()
        self.problems()
        self.draw()
        models: dict[str, str] = {"start": START}
        seconds: dict[str, int] = {}
        for arm, train in zip(ARMS, (self.prefer, self.choose, self.select, self.grpo), strict=True):
            begun = time.process_time()
            models[arm] = train()
            seconds[arm] = round(time.process_time() - begun)
        accuracy = {arm: self.score(model, "leftovers-test@v1") for arm, model in models.items()}
        dev = {arm: self.score(models[arm], "leftovers-dev@v1") for arm in ("start", "DPO")}
        return {
            "cpu_s": {"all": round(time.process_time() - before), **seconds},
            "accuracy": accuracy,
            "development": dev,
            "pairs": self.versions.resolve("third-chains.pairs@v1").kept.count,
            "chains": self.versions.resolve("third-chains@v1").kept.count,
            "preference": self.preference(models["DPO"]),
            "rounds": [self.round(number) for number in range(1, ROUNDS + 1)],
        }

    def start(self) -> None:
        """The last model of the recipe before r3, by two rounds of verified chains; nothing where the folder has it."""
        if self.versions.latest(START.partition("@")[0]) is None:
            self.given()
            self.train({"until": "base"})
            self.two_rounds("verified")

    def problems(self) -> None:
        """Other problems than the rounds had: with the answer alone, for development, and held out."""
        rows = distinct(leftover, PROBLEMS, self.seed, "preferences")
        held = distinct(partial(leftover, held_out=True), DEVELOPMENT + HELD_OUT, self.seed, "preferences", "held-out")
        alone = [{**row.fields, "answer": row.fields["answer"].splitlines()[-1]} for row in rows]
        asked = [row.fields for row in held]
        for name, lines in (("third", alone), ("dev", asked[:DEVELOPMENT]), ("test", asked[DEVELOPMENT:])):
            file = self.files / f"{name}.jsonl"
            file.write_text("".join(json.dumps(line) + "\n" for line in lines))
            if name != "third":
                self.instructed(f"leftovers-{name}", file, {"form": "pair"})

    def drawing(self) -> dict[str, Any]:
        """How samples of the problems are drawn and judged, whoever draws them."""
        return {
            "inputs": [str(self.files / "third.jsonl")],
            "decontaminate": {"against": ["leftovers-dev@v1", "leftovers-test@v1"]},
            "draws": {"max_tokens": 64, "seed": self.seed},
            "checks": {"symbolic": False},
        }

    def draw(self) -> None:
        """Rollouts of the start, `third-chains.rollouts`, pairs of them, and distinct right chains."""
        recipe = {"dataset": "third-chains", "engine": {"model": START, "context": WINDOW}, "waves": {"first": DRAWN}}
        recipe |= {"stop": {"accept": DRAWN, "at_most": DRAWN}, "select": {"per_problem": DRAWN}}
        self.run("reasoning", {**self.drawing(), **recipe}, {"hosts": {"max_num_seqs": 64}})

    # Ways to learn of them. Each returns the model.

    def prefer(self) -> str:
        """The recipe's own stage r3."""
        self.mixed("reasoner-pairs", ["third-chains.pairs@v1"])
        (stage,) = (stage for stage in self.recipe["recipe"]["stages"] if stage["name"] == "r3")
        recipe = {"dataset": "preferred", "stages": [{**stage, "init_from": {"language": START}}]}
        return str(self.run("train", {**self.recipe["recipe"], **recipe}, self.recipe["run"]))

    def choose(self) -> str:
        """On the chosen sides of the pairs."""
        rollouts = {row["id"]: row for row in self.rows(self.versions.resolve("third-chains.rollouts@v1"))}
        lines = []
        for pair in self.rows(self.versions.resolve("third-chains.pairs@v1")):
            samples = {sample["id"]: sample["text"] for sample in rollouts[pair["id"]]["samples"]}
            lines.append({"question": rollouts[pair["id"]]["text"], "answer": samples[pair["chosen_id"]]})
        file = self.folder / "chosen.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.instructed("third-chosen", file, {"form": "pair"})
        self.mixed("third-chosen-mix", ["third-chosen@v1"])
        return self.tuned("chosen-side", "third-chosen-mix@v1", "chosen side alone")

    def select(self) -> str:
        """On all distinct right chains, and the worked answers."""
        self.mixed("third-mix", ["leftovers-worked@v1", "third-chains@v1"])
        return self.tuned("rejection", "third-mix@v1", "rejection sampling")

    def tuned(self, dataset: str, data: str, arm: str) -> str:
        """The start, fine-tuned."""
        stage = {"name": "r3", "trainable": ["language"], "data": data, "init_from": {"language": START}}
        stage |= {"batch": BATCH, "steps": STEPS, "seed": self.seed, "schedule": SCHEDULE}
        stage["optim"] = OPTIM[arm]
        self.train({"dataset": dataset, "stages": [stage]})
        return f"{dataset}.r3@v1"

    def grpo(self) -> str:
        """By rounds of its own samples."""
        training = {"batch": BATCH, "steps": STEPS // ROUNDS, "seed": self.seed, "schedule": {"kind": "constant"}}
        training |= {"optim": OPTIM["GRPO"], "beta": 0.04}
        recipe = {"engine": {"model": START, "tokenizer": "reasoner-bpe@v1", "context": WINDOW}, "window": WINDOW}
        recipe |= {"rounds": ROUNDS, "share": 1 / ROUNDS, "group": DRAWN, "training": training}
        how = {"hosts": {"max_num_seqs": 64}, **self.recipe["run"]}
        return str(self.run("grpo", {**self.drawing(), **recipe}, how))

    # What came of them.

    def preference(self, model: str) -> dict[str, Any]:
        """Means over the pairs of the first and the last tenth of the steps, and what the gate found."""
        manifest = self.versions.resolve(model)
        steps = [line["measures"] for line in self.metrics(manifest)]
        tenth = max(1, len(steps) // 10)
        ends = {"first": steps[:tenth], "last": steps[-tenth:]}
        means = {
            name: {key: round(fmean(step[key] for step in own), 4) for key in own[0]} for name, own in ends.items()
        }
        verdict = manifest.statistics["gates"]["preference"]
        return {**means, "passed": verdict["passed"], "gate": verdict["facts"]}

    def round(self, number: int) -> dict[str, Any]:
        """The mean reward of what the policy drew, samples it learned from, and how far it went in the round."""
        graded = self.versions.resolve(f"grpo.graded@v{number}")
        last = self.metrics(self.versions.resolve(f"grpo@v{number}"))[-1]["measures"]
        rewards = graded.statistics["rewards"]
        return {"reward": rewards["mean"], "samples": graded.kept.count, **{k: round(v, 5) for k, v in last.items()}}

    def metrics(self, manifest: Manifest) -> list[Mapping[str, Any]]:
        """The steps of a training."""
        ref = next(ref for ref in manifest.attachments if ref.kind == "metrics")
        return [json.loads(line) for line in read_object(self.store, ref).splitlines()]


def lacking(seed: str, result: Result) -> list[str]:
    """Where the stage of preferences did not work."""
    first, last = (result["preference"][name] for name in ("first", "last"))
    lines = [] if result["preference"]["passed"] else [f"seed {seed}: the gate `preference` did not pass"]
    if last["margin"] <= first["margin"]:
        lines.append(f"seed {seed}: the margin goes from {first['margin']} to {last['margin']}, a rise is asked")
    before, after = result["development"].values()
    if after < before - MOST_LOST:
        lines.append(f"seed {seed}: {before} of the problems for development before DPO, {after} after it")
    return lines


def show(results: Mapping[str, Result], failed: list[str]) -> None:
    """The tables."""
    console = Console()
    scores = Table("seed", "CPU s", "start", *ARMS, title="held-out problems answered right")
    learned = Table(
        "seed", "pairs", "margin", "chosen, nats a token", "development", "GRPO: reward by round", "KL by round"
    )
    for seed, result in results.items():
        shares = (f"{share:.3f}" for share in result["accuracy"].values())
        scores.add_row(seed, str(result["cpu_s"]["all"]), *shares)
        first, last = (result["preference"][name] for name in ("first", "last"))
        rounds = result["rounds"]
        learned.add_row(
            seed,
            f"{result['pairs']:,}",
            f"{first['margin']:.3f} to {last['margin']:.3f}",
            f"{-first['nll']:.4f} to {-last['nll']:.4f}",
            " to ".join(f"{share:.3f}" for share in result["development"].values()),
            " ".join(f"{each['reward']:.3f}" for each in rounds),
            " ".join(f"{each['kl']:.4f}" for each in rounds),
        )
    console.print(scores)
    console.print(learned)
    for arm in ("start", *ARMS):
        mean = fmean(result["accuracy"][arm] for result in results.values())
        console.print(f"{arm}: {mean:.4f} of the held-out problems, mean of {len(results)} seeds")
    console.print("\n".join(failed) or "worked")


STUDY = Study(
    name="preference_learning",
    recipe=f"upon r2 of train-reasoning-nano, {STEPS} steps of {BATCH} windows of {WINDOW} tokens each; {DRAWN} samples"
    f" of each of {PROBLEMS:,} problems; {HELD_OUT:,} held-out problems, greedy",
    kept="preferences.json",
    learned=lambda folder, seed: PreferenceLesson(folder, seed).compared(),
    lacking=lacking,
    show=show,
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], STUDY, __doc__))
