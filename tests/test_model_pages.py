"""docs/model.md, evaluation.md, report.md and training.md, given in their order on small models: every command."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import evaluations
import image_mixtures
import mixtures
import pytest
import reasonings
import speech
import trained
import vision
from page_commands import ROOT, Walk, programs, text_of
from preferences import pair
from safetensors.numpy import load_file

from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.model.train.schedule import PeakLaw
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.tokenizer import TokenizerConfig
from gristmill.stages.run.runner import Runner

RUN = "1f3a9c"
"""The beginning of a key, as docs/report.md has it."""
FEW = " ".join(
    f"--set recipe.stages.{stage}.steps=2 --set recipe.stages.{stage}.schedule.warmup=0" for stage in range(2)
)
OWN = "--set recipe.stages.0.epochs=0.1 --set recipe.stages.1.steps=2 --set recipe.stages.0.schedule.warmup=0"
WINDOW = 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which all commands are given; `lake-data` in it is the lake."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        (folder / "conf").symlink_to(ROOT / "conf")  # a reader is in the checkout
        patch.chdir(folder)
        patch.setenv("GRIST_LAKE", str(folder / "lake-data"))
        patch.setenv("COLUMNS", "120")
        patch.delenv("PREFECT_API_URL", raising=False)
        yield folder


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    """What docs/evaluation.md asks of, but for the models."""
    store = open_store(str(folder / "lake-data"))
    evaluations.lake(store, folder)
    evaluations.model(store, folder / "hf-tuned", "tuned", seed=1)
    return store


# The model.


@pytest.fixture(scope="module")
def model_page(store: Store, folder: Path) -> dict[str, str]:
    """What its commands say; `base@v2` is the checkpoint of `base@v1`, and has its bytes."""
    walk = Walk("model", instead={"DIR --name base": "hf --name base", "base@v1 DIR": "base@v1 out"})
    with pytest.MonkeyPatch.context() as patch:
        return walk.run(patch)


def test_what_goes_in_comes_out_bit_for_bit(model_page: dict[str, str], folder: Path) -> None:
    assert '"dataset": "base", "version": 1' in model_page["grist import hf DIR --name base"]
    shown = model_page["grist show base"]
    assert "language" in shown and "vision_encoder" in shown
    before, after = (load_file(folder / name / "model.safetensors") for name in ("hf", "out"))
    assert {name: array.tobytes() for name, array in before.items()} == {
        name: array.tobytes() for name, array in after.items()
    }
    assert (folder / "out" / "README.md").exists()


@pytest.mark.parametrize("program", programs("model"))
def test_python_of_the_model_page_runs(model_page: dict[str, str], store: Store, program: str) -> None:
    """With what it takes for granted; a call that leaves arguments out (`...`) is not made."""
    whole = "\n".join(line for line in program.splitlines() if "=..." not in line)
    data = vision.picture(1) if "image" in program else speech.clip(1)
    names: dict[str, Any] = {"lake": store.uri, "tokens": [5, 6, 7], "data": data, "waveform": speech.waveform(1)}
    exec(compile(whole.replace("max_tokens=256", "max_tokens=4"), "docs/model.md", "exec"), names)
    if "plan_crops" in program:
        assert astuple(names["plan_crops"](1080, 1920, max_crops=16)) == (3, 5, 1260, 2240, 3918)
    if "audio_tokens" in program:
        assert names["audio_tokens"](names["frames_of"](30 * 44_100, 44_100)) == 375
        assert names["mel"].shape[1] == 80 and names["mel"].dtype == "float32"


# Evaluation, and a report of it.


@pytest.fixture(scope="module")
def evaluation_page(store: Store) -> dict[str, str]:
    sizes = "--set recipe.generate='{max_tokens: 6, context: 512}' --set recipe.bootstrap.resamples=100"
    with pytest.MonkeyPatch.context() as patch:
        return Walk("evaluation", more={"grist eval": f"{sizes} --set run.max_num_seqs=4"}).run(patch)


def test_two_models_are_asked_the_same_and_compared(evaluation_page: dict[str, str]) -> None:
    first, second, shown, differ, answers = evaluation_page.values()
    assert '"version": 1' in first and '"version": 2' in second
    for task in ("exact", "refusal"):
        assert re.search(rf"{task} .*\d\.\d+", shown), shown
    assert "refused_harmless" in shown and "caution: refused_harmful: 4 items" in shown
    assert "McNemar's exact test" in differ
    assert answers.count("expected  ") == 3 and "Say " in answers


@pytest.fixture(scope="module")
def report_page(evaluation_page: dict[str, str], store: Store) -> dict[str, Any]:
    """What its commands say, and `opened`: what a browser was told to show."""
    for seed in (1, 2):
        mixtures.documents(store, "web", mixtures.texts(10, seed=seed))
    trained.commit_model(store, "nano.posttrain", trained.steps([4.0, 3.0, 2.0]))
    trained.put_run(store, RUN + "0" * (64 - len(RUN)), trained.steps([4.0, 3.0], planned=40))
    opened: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.launch", opened.append)
        return {**Walk("report").run(patch), "opened": opened}


def test_each_report_is_a_page_where_the_command_says(report_page: dict[str, Any], folder: Path) -> None:
    opened = report_page.pop("opened")
    pages = {line: Path("".join(output.split())) for line, output in report_page.items()}
    single, several, running = (page.read_text() for page in pages.values())
    assert opened == [(folder / "report-web-v3.html").as_uri()]
    assert all(name in several for name in ("web@v3", "mix@v1", "nano.posttrain@v1", "eval@v2"))
    assert "web@v3" in single and RUN in running


# Training.


def _given_to_train(store: Store, folder: Path) -> None:
    """Mixtures, held-out data and the tokenizer of conf/train-nano.yaml, and of the recipe on the page."""
    train = {"dataset": "nano-bpe", "sources": ["web@v1", "math@v1"], "train": {"vocab_size": 400}}
    run_pipeline(TokenizerConfig.model_validate({"recipe": train}), store, Runner(store, workers=0))
    for name in ("nano-text", "nano-chat"):
        mixtures.mix(store, {"web@v1": 1}, window=WINDOW, max_waste=0.5, dataset=name, tokenizer="nano-bpe@v1")
    for name, first in (("stories-held-out", 100), ("copying-held-out", 200), ("exam", 300)):
        rows = [mixtures.word_problem(first + i) for i in range(4)]
        mixtures.samples(store, folder / "in", name, rows, form="pair")
    image_mixtures.pictures(store, folder / "pictures", [([(32, 32)], "It is {}, that is all.") for _ in range(4)])
    seen = {"window": WINDOW, "max_waste": 0.9, "dataset": "nano-seen", "images": image_mixtures.CUT}
    mixtures.mix(store, {"pics@v1": 1}, **seen)


def _recipe_of_the_page(folder: Path) -> None:
    (text,) = (
        block for block in re.findall(r"```yaml\n(.*?)```", text_of("training"), re.DOTALL) if "pipeline" in block
    )
    (folder / "my.yaml").write_text(text)


def _fitted(store: Store) -> str:
    """Names of models whose last losses are parabolas around B = 0.7."""
    law, names = PeakLaw(0.7), []
    for tokens in (300_000, 3_000_000):
        for rate in (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2):
            loss = 3 + 20 * tokens**-0.2 + 0.1 * math.log(rate / law.peak(tokens)) ** 2
            names.append(f"m{tokens}-{round(rate * 1e4)}")
            trained.commit_model(store, names[-1], trained.steps([9.0] * 39 + [loss] * 2), tokens=tokens, peak_lr=rate)
    return " ".join(names)


@pytest.fixture(scope="module")
def training_page(store: Store, folder: Path) -> dict[str, str]:
    _given_to_train(store, folder)
    taste = folder / "taste" / "a.jsonl"
    return_of = {
        "grist train my.yaml": lambda: _recipe_of_the_page(folder),
        "grist run conf/preference.yaml": lambda: reasonings.lines(taste, [pair(i) for i in range(60)]),
    }
    more = {
        "grist train train-nano": FEW,
        "grist train my.yaml": OWN,
        "grist run": "--set run.workers=0",
    }
    instead = {"nano.a@v1 nano.b@v1 ...": _fitted(store), "OUT --merged": "MERGED --merged"}
    with pytest.MonkeyPatch.context() as patch:
        return Walk("training", more=more, instead=instead, before=return_of).run(patch)


def test_the_recipe_trains_once_and_goes_out(training_page: dict[str, str], folder: Path) -> None:
    lines = {line: output.strip().rpartition("\n")[2] for line, output in training_page.items()}
    trained_first, planned, own = (json.loads(lines[line]) for line in lines if line.startswith("grist train"))
    assert trained_first["dataset"] == "nano.posttrain" and trained_first["new"]
    assert not planned["new"] and planned["digest"] == trained_first["digest"]
    assert own["dataset"] == "nano.adapt" and own["before"] == ["nano.pretrain@v2"]
    assert "resumed" not in training_page["grist show nano.pretrain"]
    assert "nano-text@v1" in training_page["grist lineage nano.posttrain"]
    assert "Peak LR" in next(output for line, output in training_page.items() if "lr-fit" in line)
    assert (folder / "OUT" / "vision-lora" / "adapter_model.safetensors").exists()
    assert (folder / "MERGED" / "model.safetensors").exists() and not (folder / "MERGED" / "vision-lora").exists()


def test_preferences_become_windows_of_pairs(training_page: dict[str, str], store: Store) -> None:
    versions = Versions(store)
    assert versions.manifest("taste", 1).kept.count == versions.manifest("pairs", 1).kept.count == 60
