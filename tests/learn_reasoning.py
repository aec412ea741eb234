"""`make learn`, reasoning: a small model learns from its own chains as far as they were verified, or from what else it
could have learned. Short word problems, held-out ones asked; a step-matched control for each thing that a round adds:

- seed only: as many steps more on the chains that the base was trained on;
- unfiltered: the same rounds, on all distinct samples, right or wrong;
- outcome only: the same rounds, on chains with a right answer, whatever their steps.

Prints a table, and ends with exit code 1 if a gain is below what is asked of it. Every run is a user's pipeline: what
was drawn once (all three kinds of rounds begin with the same samples) has receipts and is not drawn again.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mixtures
import reasonings
from rich.console import Console
from rich.table import Table

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import read_object, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.manifest import Manifest
from gristmill.model.hf.checkpoint import save_hf
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.processing.text import Tokenizer
from gristmill.pipelines.evaluate import EvaluateConfig
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.model import ModelRunConfig
from gristmill.pipelines.reason.reasoning import ReasoningConfig
from gristmill.pipelines.train import TrainConfig
from gristmill.stages.run.runner import Runner
from gristmill.synth.tasks.instructions import distinct
from gristmill.synth.tasks.stories import story

GAIN, OVER_CONTROLS = 0.35, 0.2
"""Of held-out problems: after two rounds over the base, and over each control."""
SEEDS, PROBLEMS, HELD_OUT = 900, (2000, 1500), 400
"""Rows: with chains, with answers alone in each round, and held out."""
BASE_STEPS, ROUND_STEPS, PREFERENCE_STEPS = 300, 110, 20
WINDOW, BATCH, VOCAB = 256, 16, 512
KINDS = ("verified", "outcome only", "unfiltered")


def main(arguments: list[str]) -> int:
    """-> The exit code."""
    parser = argparse.ArgumentParser(prog="learn_reasoning", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="of all sizes, for a try")
    given = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    table, low = Table("seed", "CPU seconds", "base", *KINDS, "seed only", "then DPO", "then chosen only"), False
    for seed in range(given.seeds):
        before = time.process_time()
        with tempfile.TemporaryDirectory(prefix="grist-learn-") as folder:
            scores = Lesson(Path(folder), seed, given.share).learned()
        table.add_row(str(seed), f"{time.process_time() - before:.0f}", *(f"{score:.3f}" for score in scores.values()))
        verified = scores["verified"]
        controls = max(scores[name] for name in ("seed only", "unfiltered", "outcome only"))
        low = low or verified < scores["base"] + GAIN or verified < controls + OVER_CONTROLS
        Console().print(table)
    print("too low" if low else "learned", {"over base": GAIN, "over each control": OVER_CONTROLS})
    return int(low)


class Lesson:
    """One seed: a lake, its data, and models after one another."""

    def __init__(self, folder: Path, seed: int, share: float) -> None:
        self.folder, self.seed, self.share = folder, seed, share
        self.store: Store = open_store(str(folder / "lake"))
        self.files = {name: folder / f"{name}.jsonl" for name in ("seed", "first", "second", "held")}
        self._write()
        self._tokenizer_and_shape()

    def _sized(self, count: int) -> int:
        return max(1, round(count * self.share))

    def _write(self) -> None:
        counts = {"seed": SEEDS, "first": PROBLEMS[0], "second": PROBLEMS[1]}
        rows = distinct(story, sum(map(self._sized, counts.values())), self.seed, "learn")
        fields = [row.fields for row in rows]
        for name, count in counts.items():
            own, fields = fields[: self._sized(count)], fields[self._sized(count) :]
            if name != "seed":  # the answer alone: the chain is the model's own
                own = [row | {"answer": row["answer"].splitlines()[-1]} for row in own]
            reasonings.lines(self.files[name], own)
        held = distinct(partial(story, held_out=True), self._sized(HELD_OUT), self.seed, "held")
        reasonings.lines(self.files["held"], [row.fields for row in held])
        for name in ("seed", "held"):
            recipe = {"dataset": name, "inputs": [str(self.files[name])], "instruct": {"form": "pair"}}
            self._run(mixtures.InstructConfig, recipe)

    def _tokenizer_and_shape(self) -> None:
        tokenizer = mixtures.tokenizer(self.store, "seed@v1", vocab_size=VOCAB)
        data = read_object(self.store, tokenizer.shards[0])
        library = Tokenizer.from_bytes(data)
        ends = tuple(library.special(name) for name in ("<|endoftext|>", "<|end|>"))
        text = replace(
            PRESETS["nano"].text,
            hidden_size=96,
            num_hidden_layers=3,
            num_attention_heads=3,
            num_key_value_heads=1,
            intermediate_size=256,
            vocab_size=library.vocab_size,
            eos_token_id=ends,
        )
        save_hf(Multimodal.seeded(ModelConfig(text), self.seed), self.folder / "hf", tokenizer=data)
        self._run(ModelRunConfig, {"dataset": "shape", "folder": str(self.folder / "hf")})

    def _run(self, config: Any, recipe: dict[str, Any], run: dict[str, Any] | None = None) -> Manifest:
        runner = Runner(self.store, workers=0)
        return run_pipeline(config.model_validate({"recipe": recipe, "run": run or {}}), self.store, runner).manifest

    def learned(self) -> dict[str, float]:
        """Accuracy on held-out problems, by what was learned from."""
        self._mix("seed", {"seed@v1": 1})
        base = self._train("base", "seed.mix@v1", BASE_STEPS, 0.01)
        scores = {"base": self._score(base)}
        models: dict[str, str] = {}
        for kind in KINDS:
            models[kind] = self._round(kind, 2, self._round(kind, 1, base))
            scores[kind] = self._score(models[kind])
        twice = self._train("again1", "seed.mix@v1", ROUND_STEPS, 0.005, base)
        scores["seed only"] = self._score(self._train("again2", "seed.mix@v1", ROUND_STEPS, 0.005, twice))
        return scores | self._preferences(models["verified"])

    def _round(self, kind: str, number: int, model: str) -> str:
        """Draws with the model, selects, and trains it further on that and the seed chains. -> The model."""
        name = f"{kind.replace(' ', '-')}{number}"
        self._reason(name, ("first", "second")[number - 1], model, steps=kind == "verified")
        source = self._unfiltered(name) if kind == "unfiltered" else f"{name}@v1"
        self._mix(name, {"seed@v1": 1, source: 2})
        return self._train(name, f"{name}.mix@v1", ROUND_STEPS, 0.005, model)

    def _reason(self, name: str, problems: str, model: str, steps: bool) -> None:
        recipe = {
            "dataset": name,
            "inputs": [str(self.files[problems])],
            "engine": {"model": model, "context": WINDOW},
            "draws": {"max_tokens": 64, "seed": self.seed},
            "stop": {"accept": 4, "at_most": 8},
            "checks": {"steps": steps, "symbolic": False},
            "names": {"she": ["Ana", "Eva", "Mia", "Zoe", "Rosa", "Ines"], "he": ["Ben", "Leo", "Sam", "Tom", "Ravi"]},
        }
        self._run(ReasoningConfig, recipe, {"workers": 0, "hosts": {"max_num_seqs": 64}})

    def _unfiltered(self, name: str) -> str:
        """All distinct samples of a version of rollouts, as fine-tuning data. -> The version."""
        manifest = reasonings.latest(self.store, f"{name}.rollouts")
        rows = [row for ref in manifest.shards for row in read_table(self.store, ref).to_pylist()]
        pairs = {(row["text"], sample["text"]) for row in rows for sample in row["samples"] if sample["text"].strip()}
        file = reasonings.lines(
            self.folder / f"{name}.jsonl", [{"question": question, "answer": text} for question, text in sorted(pairs)]
        )
        self._run(
            mixtures.InstructConfig,
            {"dataset": f"{name}.all", "inputs": [str(file)], "instruct": {"form": "pair"}},
        )
        return f"{name}.all@v1"

    def _preferences(self, model: str) -> dict[str, float]:
        """A stage of DPO upon the rounds, and beside it as many steps on the chosen side alone."""
        self._reason("third", "first", model, steps=True)
        self._mix("third.pairs", {"third.pairs@v1": 1})
        self._mix("third", {"third@v1": 1})
        dpo = {"loss": "dpo", "nll_weight": 1.0, "beta": 0.3, "gates": ["trained_parts", "preference"]}
        preferred = self._train("prefer", "third.pairs.mix@v1", PREFERENCE_STEPS, 2e-4, model, **dpo)
        chosen = self._train("chosen", "third.mix@v1", PREFERENCE_STEPS, 2e-4, model)
        return {"then DPO": self._score(preferred), "then chosen only": self._score(chosen)}

    def _mix(self, name: str, sources: dict[str, float]) -> None:
        mixtures.mix(self.store, sources, dataset=f"{name}.mix", window=WINDOW, max_waste=0.2, seed=self.seed)

    def _train(self, name: str, data: str, steps: int, rate: float, model: str = "", **more: Any) -> str:
        """Trains all of the model. -> The version."""
        stage: dict[str, Any] = {"name": "t", "trainable": ["language"], "data": data, "batch": BATCH}
        steps = self._sized(steps)
        stage |= {"steps": steps, "seed": self.seed, "optim": {"kind": "muon", "lr": rate}}
        stage |= {"schedule": {"kind": "cosine", "warmup": min(10, steps // 4)}, "gates": ["trained_parts"]}
        if model:
            stage["init_from"] = {"language": model}
        recipe = {"dataset": name, "model": "shape@v1", "stages": [stage | more]}
        run = {"workers": 0, "windows_per_pass": BATCH, "checkpoint_every": 1000}
        return str(self._run(TrainConfig, recipe, run))

    def _score(self, model: str) -> float:
        recipe = {"dataset": "eval", "model": model, "data": ["held@v1"]}
        recipe |= {"generate": {"max_tokens": 64, "context": WINDOW}, "bootstrap": {"resamples": 100}}
        manifest = self._run(EvaluateConfig, recipe, {"max_num_seqs": 64, "workers": 0})
        score = manifest.statistics["scores"][0]["value"]
        print(f"  {model}: {score:.3f}", flush=True)
        return float(score)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
