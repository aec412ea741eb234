"""README, given in its order on a small sample: what is kicked off, what is inspected of it, and data of one's own.

What a schedule and a cluster are asked is given where their stacks run (tests/page_commands.py, ELSEWHERE).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import evaluations
import pytest
import reasonings
import speech
import training
import vision
import yaml
from mixtures import chat, documents, mix, texts, tokenizer
from page_commands import Walk, programs

from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions

SMALL = "--pages 100 --stories 20 --copying 20 --scenes 4 --speech 4"
FEW_CHAINS = (
    "--set recipe.engine.context=256 --set recipe.draws.max_tokens=6 --set recipe.stop.at_most=4"
    " --set recipe.checks='{truncated: true, symbolic: false}' --set recipe.max_undecided_rate=0.5"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def opened() -> list[str]:
    """What a browser was told to show."""
    return []


@pytest.fixture(scope="module")
def outputs(folder: Path, sample: Path, opened: list[str]) -> Iterator[dict[str, str]]:
    """What each command says; the folder of the commands, and the lake of the last ones, stay entered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PWD", str(folder))
        patch.delenv("PREFECT_API_URL", raising=False)
        patch.setattr("gristmill.stages.read.scan.SETTLED", -1)  # the files were written just now
        patch.setattr("typer.launch", opened.append)
        reasonings.by_parity(patch)
        yield _walk(folder, sample).run(patch)


def _walk(folder: Path, sample: Path) -> Walk:
    own = folder / "own"
    return Walk(
        "README",
        more={
            "grist sample-data": SMALL,
            "grist kickoff everything$": "--only web --set run.nodes=0 --set nodes.web.recipe.max_quarantine_rate=0.2",
            "grist ask": "--max-tokens 8",
            "grist tokenizer train": "--vocab-size 512",
            "grist run": "--set run.workers=0",
            "grist run web": "--set recipe.max_quarantine_rate=0.2",
            "grist run reasoning": FEW_CHAINS,
        },
        instead={"s3://bucket/lake": str(own), "s3://bucket/crawl": str(sample / "crawl")},
        before={
            "grist ask": lambda: _posttrained(str(folder / "lake-data")),
            "grist run instruct": lambda: _own_data(folder),
            "grist import hf": lambda: _checkpoint(folder),
            "grist train my.yaml": lambda: _recipe(folder),
        },
    )


def _posttrained(lake: str) -> None:
    """A model as the kickoff leaves it, from the pages that it read."""
    store = open_store(lake)
    tokenizer(store, "web@v1")
    mix(store, {"web@v1": 1}, window=training.WINDOW, max_waste=0.5)
    training.train(store, training.stage("posttrain"))


def _own_data(folder: Path) -> None:
    """Files of each kind that the page names."""
    reasonings.lines(folder / "chats" / "a.jsonl", [chat(i) for i in range(40)])
    reasonings.lines(folder / "gsm8k" / "a.jsonl", [reasonings.problem(i) for i in range(8)])
    for name in ("pictures", "clips"):
        (folder / name).mkdir()
    rows = []
    for i in range(4):
        (folder / "pictures" / f"{i}.png").write_bytes(vision.picture(i))
        (folder / "clips" / f"{i}.wav").write_bytes(speech.clip(i))
        rows.append({"image": f"{i}.png", "text": vision.CAPTION.format(i)})
    reasonings.lines(folder / "pictures" / "captions.jsonl", rows)
    lines = [f"{i}.wav\t{speech.SAYS.format(i)}" for i in range(4)]
    (folder / "clips" / "transcripts.tsv").write_text("\n".join(["path\tsentence", *lines]) + "\n")


def _checkpoint(folder: Path) -> None:
    """A model as transformers writes it, with a tokenizer."""
    elsewhere = open_store(str(folder / "elsewhere"))
    documents(elsewhere, "web", texts(40))
    tokenizer(elsewhere, "web@v1")
    evaluations.model(elsewhere, folder / "DIR", "base")


def _recipe(folder: Path) -> None:
    """A recipe of one stage over the mixture that was just made."""
    recipe = {"dataset": "mine", "model": "nano", "tokenizer": "bpe@v1", "stages": [training.stage()]}
    (folder / "my.yaml").write_text(yaml.safe_dump({"pipeline": "train", "recipe": recipe}))


def test_what_was_kicked_off_is_inspected(outputs: dict[str, str], folder: Path, opened: list[str]) -> None:
    assert "68 nodes, 0 done, 68 to run" in outputs["grist kickoff everything --plan"]
    assert re.search(r"web +done now +web@v1", outputs["grist kickoff everything"])
    assert re.search(r"^ *v1 ", outputs["grist log web"], re.MULTILINE)
    assert "fate" in outputs["grist sample web --fate dropped"]
    assert "the same content" in outputs["grist diff web@v1 web"]
    lineage = re.sub(r"[\s│├└─]", "", outputs["grist lineage nano.posttrain"])  # a long folder is broken over lines
    assert "part-0000.warc.gz" in lineage, "down to input files"
    assert opened == [(folder / "report-web-v1.html").as_uri()]
    page = (folder / "report-web-v1.html").read_text()
    assert page.startswith("<!doctype html>") and "web@v1" in page


def test_a_question_is_answered_by_the_newest_version(outputs: dict[str, str]) -> None:
    (asked,) = (line for line in outputs if line.startswith("grist ask"))
    assert outputs[asked].endswith("\n")


def test_own_data_becomes_versions(outputs: dict[str, str], folder: Path) -> None:
    versions = Versions(open_store(str(folder / "own")))
    kept = {name: versions.manifest(name, 1).kept.count for name in ("chat", "vision", "speech")}
    assert kept == {"chat": 40, "vision": 4, "speech": 4}
    assert {"web", "base", "bpe", "mix", "reasoning", "reasoning.rollouts", "reasoning.pairs"} <= set(versions.names())
    assert versions.numbers("mine.pretrain") == [], "a plan trains nothing"
    assert '"outlook": [{"stage": "pretrain"' in outputs["grist train my.yaml --plan"]
    assert len(list((folder / "web-v1").rglob("*.parquet"))) >= 1


@pytest.mark.parametrize("program", programs("README"))
def test_python_of_the_page_runs(outputs: dict[str, str], program: str) -> None:
    exec(compile(program, "README.md", "exec"), {})
