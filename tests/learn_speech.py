"""`make learn`, its third part: how well a small model learns to hear, trained by the recipe `train-speech-nano`.

One language model and one model that sees, then seeds of everything that hears: after A1 and A2 they are asked of
digits that no row of training says, in voices of training and in others; beside them a projector goes on alone for as
many steps as A2 has. After the joint stage they are asked spoken questions about pictures: with both, with one of them
alone, with one of them from another row. Prints tables, writes all as JSON with `--out`, and ends with exit code 1 if a
seed is below what is asked of it. `--folder`: where everything is kept, and gone on with.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from answering import answers
from cpu_time import spent
from lessons import CUT, PICTURES, address, keys
from rich.console import Console
from rich.table import Table
from torchaudio.functional import edit_distance

from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.demo.terminal import grist
from gristmill.synth.scenes.sample import write_scenes
from gristmill.synth.speech.hearing import ASKED
from gristmill.synth.speech.sample import write_speech

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "conf" / "train-speech-nano.yaml"
TOKENIZER = "hearing-bpe"
WORDS = {"reading": ("scenes/reading.jsonl", "chat"), "hearing": ("speech/hearing.jsonl", "pair")}
"""Dataset -> its rows below the sample, in words, and their form."""
CLIPS = {"digits": "asr", "phrases": "asr", "sums": "sqqa", "asked": "sqqa"}
"""Dataset -> what a row of it is a sample of (`audio.task`): the last one has a picture too."""
FILES = {"digits": "digits", "phrases": "phrases", "sums": "questions", "asked": "scenes"}
"""Dataset -> its file below the sample, which has others beside it."""
HELD_OUT, VOICES = "-held-out", "-voices"
MIXTURES = {
    "objects": ({"objects": 1.0}, 1024),
    "captions": ({"captions": 1.0}, 512),
    "questions": ({"captions": 0.35, "questions": 0.65}, 512),
    "frames": ({"captions": 0.2, "questions": 0.4, "frames": 0.4}, 512),
    "clips": ({"digits": 0.6, "phrases": 0.4}, 512),
    "spoken": ({"digits": 0.5, "phrases": 0.3, "sums": 0.2}, 512),
    "both": ({"asked": 0.7, "questions": 0.2, "digits": 0.1}, 512),
}
"""Mixture, without `hearing-` -> its sources with their weights, and tokens of a window."""
HEARING = ("a1", "a2", "vs")
"""Stages of a seed; all before them are trained once."""
JOINT: dict[str, dict[str, str]] = {
    "both": {},
    "picture alone": {"without": "audio"},
    "question alone": {"without": "image"},
    "another question": {"exchanged": "audio"},
    "another picture": {"exchanged": "image"},
}
"""How the joint stage is asked -> of which kind of media something else is shown, or nothing. A model that has both
learned to expect both; with what belongs to another row it guesses as well as it can from one."""
MOST_WRONG = {("digits", HELD_OUT): 0.08, ("digits", VOICES): 0.12}
"""The share of words that may be wrong after A2, of every seed. Measured: .012, .032, .028 and .017, .047, .034
(benchmarks/results/speech_learning.json)."""
LEAST_GAINED = 0.2
"""By how much more spoken questions about pictures are answered right with both than otherwise, by every seed.
Measured: .42, .45, .42, and in other voices .40, .39, .43."""


def main(arguments: list[str]) -> int:
    """Trains and evaluates each seed. -> The exit code."""
    parser = argparse.ArgumentParser(prog="learn_speech", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="grist-learn-") as name:
        folder = given.folder or Path(name)
        lake = str(folder / "lake")
        if not (folder / "speech").is_dir():
            write_scenes(folder)
            write_speech(folder, rows=4000)
        rows(lake, folder)
        results: dict[str, Any] = {"before_cpu_s": round(trained(lake, folder, before()))}
        results["seeds"] = {seed: learned(lake, folder, seed) for seed in given.seeds}
    if given.out is not None:
        given.out.write_text(json.dumps(results, indent=1) + "\n")
    failed = [line for seed, result in results["seeds"].items() for line in lacking(seed, result)]
    show(results, failed)
    return int(bool(failed))


# Rows.


def rows(lake: str, folder: Path) -> None:
    """Datasets of scenes and speech, in words, pictures and clips, a tokenizer, and a mixture for each stage."""
    here = ("--set", "run.workers=0", "--lake", lake)
    for dataset, (path, form) in WORDS.items():
        text = ("instruct.form=code", "instruct.code=[text]", "instruct.fim=null")
        for name, settings in ((dataset, (f"instruct.form={form}",)), (f"{dataset}-text", text)):
            what = (f"dataset={name}", f"inputs=[{folder}/{path}]", *settings)
            grist("run", "conf/instruct.yaml", *keys(what), *here)
    texts = [f"{dataset}-text@v1" for dataset in WORDS]
    grist("tokenizer", "train", *texts, "--vocab-size", "640", "--name", TOKENIZER, "--lake", lake)
    for suffix in ("", "-text"):
        mixed(lake, f"words{suffix}", {f"reading{suffix}": 0.6, f"hearing{suffix}": 0.4}, 512, max_epochs=4)
    for dataset, form in PICTURES.items():
        what = (f"dataset={dataset}", f"inputs=[{address(folder / 'scenes', dataset)}]", f"image.form={form}")
        grist("run", "conf/vision.yaml", *keys((*what, "min_similarity=null")), *here)
    for dataset, task in CLIPS.items():
        for part in ("", HELD_OUT, VOICES):
            prompts = (f"audio.prompts={json.dumps([ASKED])}",) if task == "asr" else ("audio.max_images=1",)
            inputs = address(folder / "speech", f"{FILES[dataset]}{part}")
            what = (f"dataset={dataset}{part}", f"inputs=[{inputs}]", f"audio.task={task}", *prompts)
            grist("run", "conf/speech.yaml", *keys((*what, "min_similarity=null")), *here)
    for mixture, (weights, window) in MIXTURES.items():
        mixed(lake, mixture, weights, window)


def mixed(lake: str, mixture: str, weights: Mapping[str, float], window: int, max_epochs: int = 1) -> None:
    """A mixture, `hearing-NAME`."""
    each = {name: f"{{weight: {weight}, max_epochs: {max_epochs}}}" for name, weight in weights.items()}
    sources = ", ".join(f"{name}@v1: {share}" for name, share in each.items())
    what = [f"dataset=hearing-{mixture}", f"tokenizer={TOKENIZER}@v1", f"sources={{{sources}}}", f"window={window}"]
    if not set(weights).isdisjoint((*PICTURES, "asked")):
        what += [CUT, "shard_crops=65536"]
    if not set(weights).isdisjoint(CLIPS):
        what.append("audio={exact: false}")
    grist("run", "conf/mixture.yaml", *keys(what), "--set", "run.workers=0", "--lake", lake)


# Training.


def stages_of(dataset: str, names: Sequence[str], seed: int) -> dict[str, Any]:
    """The recipe with these stages alone; what they start from else are versions that were trained before."""
    config: dict[str, Any] = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    stages = [stage for stage in config["recipe"]["stages"] if stage["name"] in names]
    config["recipe"] |= {"dataset": dataset, "stages": stages}
    for stage in stages:
        stage["seed"] = seed
        stage["init_from"] = {part: _before(ref, names) for part, ref in stage.get("init_from", {}).items()}
    return config


def _before(ref: str, names: Sequence[str]) -> str:
    """Where a part comes from: a stage of this run, or a version of `hearing`."""
    stage, slash, part = ref.removeprefix("stage:").partition("/")
    return ref if stage in names else f"hearing.{stage}@v1{slash}{part}"


def before() -> dict[str, Any]:
    """The language model, and what sees."""
    config: dict[str, Any] = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    names = [stage["name"] for stage in config["recipe"]["stages"] if stage["name"] not in HEARING]
    return stages_of("hearing", names, 0)


def control(seed: int) -> dict[str, Any]:
    """In place of A2: the projector alone goes on, on the same windows for as many steps."""
    config = stages_of(f"control{seed}", ["a2"], seed)
    (stage,) = config["recipe"]["stages"]
    for part in ("audio_encoder", "audio_projector_speech"):
        stage["init_from"][part] = f"hearing{seed}.a1@v1"
    stage["trainable"] = ["audio_projector_speech"]
    return config


def trained(lake: str, folder: Path, config: dict[str, Any]) -> float:
    """CPU seconds of a training."""
    path = folder / f"train-{config['recipe']['dataset']}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    start = spent()
    grist("train", str(path), "--lake", lake)
    return spent() - start


def learned(lake: str, folder: Path, seed: int) -> dict[str, Any]:
    """CPU seconds of a seed, word error rates after each stage, and what is answered about pictures."""
    seconds = trained(lake, folder, stages_of(f"hearing{seed}", HEARING, seed))
    trained(lake, folder, control(seed))
    models = {"a1": f"hearing{seed}.a1@v1", "a2": f"hearing{seed}.a2@v1", "control": f"control{seed}.a2@v1"}
    wrong = {
        name: {f"{data}{part}": errors(answers(lake, model, f"{data}{part}@v1")) for data, part in MOST_WRONG}
        for name, model in models.items()
    }
    joint = {
        data: {how: right(answers(lake, f"hearing{seed}.vs@v1", f"{data}@v1", **other)) for how, other in JOINT.items()}
        for data in (f"asked{HELD_OUT}", f"asked{VOICES}")
    }
    return {"cpu_s": round(seconds), "wer": wrong, "joint": joint, "gates": gates(lake, f"hearing{seed}")}


def gates(lake: str, dataset: str) -> dict[str, dict[str, Any]]:
    """By stage, what the gates said."""
    versions = Versions(open_store(lake))
    verdicts = {name: versions.resolve(f"{dataset}.{name}@v1").statistics["gates"] for name in HEARING}
    return {name: {gate: each["passed"] for gate, each in own.items()} for name, own in verdicts.items()}


# Answers.


def errors(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The word error rate, and in how many rows every word is right."""
    wrong = sum(edit_distance(expected.split(), answer.split()) for expected, answer in pairs)
    words = sum(len(expected.split()) for expected, _ in pairs)
    return {"wer": round(wrong / words, 4), **right(pairs)}


def right(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The share of answers that are right, of so many rows."""
    return {"exact": round(float(np.mean([expected == answer for expected, answer in pairs])), 4), "items": len(pairs)}


# What came of it.


def lacking(seed: int, result: dict[str, Any]) -> list[str]:
    """What a seed does not reach."""
    lines = []
    for (data, part), most in MOST_WRONG.items():
        rates = {name: scores[f"{data}{part}"]["wer"] for name, scores in result["wer"].items()}
        if rates["a2"] > most:
            lines.append(f"seed {seed}: {data}{part} has a word error rate of {rates['a2']}, at most {most} is asked")
        if rates["a2"] >= rates["control"]:
            lines.append(f"seed {seed}: {data}{part} does not gain by A2 over the projector alone, {rates['control']}")
    for data, shares in result["joint"].items():
        alone = max(shares[how]["exact"] for how, other in JOINT.items() if other)
        if (gained := shares["both"]["exact"] - alone) < LEAST_GAINED:
            lines.append(f"seed {seed}: {data} gains {gained:.3f} over one alone, {LEAST_GAINED} is asked")
    failed = [f"{name}: {gate}" for name, own in result["gates"].items() for gate, passed in own.items() if not passed]
    return lines + [f"seed {seed}: {gate} did not pass" for gate in failed]


def show(results: dict[str, Any], failed: list[str]) -> None:
    """The tables."""
    console = Console()
    columns = [f"{data}{part}" for data, part in MOST_WRONG]
    table = Table("seed", "after", *columns, title="train-speech-nano: word error rates (rows that are right)")
    joint = Table("seed", "asked", *JOINT, title="spoken questions about pictures that are answered right")
    for seed, result in results["seeds"].items():
        for name, scores in result["wer"].items():
            table.add_row(str(seed), name, *(f"{scores[c]['wer']:.3f} ({scores[c]['exact']:.3f})" for c in columns))
        for data, shares in result["joint"].items():
            joint.add_row(str(seed), data, *(f"{shares[how]['exact']:.3f}" for how in JOINT))
    console.print(table)
    console.print(joint)
    seconds = ", ".join(str(result["cpu_s"]) for result in results["seeds"].values())
    console.print(f"CPU seconds: language and vision {results['before_cpu_s']}, a seed of speech {seconds}")
    console.print("\n".join(failed) or "learned")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
