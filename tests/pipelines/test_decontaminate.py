"""Decontamination in the web and instruct pipelines: the ledger names the item, and files count by what they hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import web

from gristmill import lake
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.result import Result
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.instruct import InstructConfig
from gristmill.pipelines.replay.replay import replay
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.run.runner import Runner

QUESTION = "A miller grinds seven sacks of rye on Monday and twice as many on Tuesday. How many sacks is that together?"
ANSWER = "He grinds seven on Monday and fourteen on Tuesday, so it is twenty-one sacks."
PROSE = "The wheel of the old mill turned all day, and the miller was glad of the water that the river brought. " * 5


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    return lines(tmp_path / "sacks.jsonl", [{"question": "How many?"}, {"question": QUESTION, "answer": "21"}])


def fates(folder: Path, name: str) -> list[tuple[str, str | None, str | None]]:
    ledger = lake.open(name, lake=str(folder)).ledger().sort_by("ordinal").to_pylist()
    return [(row["fate"], row["reason"], row["value"]) for row in ledger]


def test_a_page_that_gives_an_item_away_is_dropped_and_the_ledger_names_it(tmp_path: Path, benchmark: Path) -> None:
    pages = [PROSE, f"{PROSE} {QUESTION}", f"{PROSE} {' '.join(QUESTION.split()[:12])}."]
    page = lines(
        tmp_path / "pages.jsonl", [{"text": text, "url": f"https://e.org/{n}"} for n, text in enumerate(pages)]
    )
    folder = tmp_path / "lake"

    def run(path: Path, **settings: Any) -> Result:
        asked = {"benchmarks": [str(path)], **settings}
        return web.run(folder, [page], minhash=None, extract={"seconds_per_record": None}, decontaminate=asked)

    first = run(benchmark)
    dropped = ("dropped", "decontaminate.ngrams", "sacks.jsonl:2")
    assert fates(folder, "web") == [("kept", None, None), dropped, ("kept", None, None)]
    assert first.manifest.recipe["decontaminate"]["benchmarks"] == ["sacks.jsonl"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = Path(shutil.move(benchmark, elsewhere))
    assert not run(moved).new  # a file counts by what it holds
    with pytest.raises(BadConfig, match=r"recipe\.decontaminate: .*sacks\.jsonl"):
        run(benchmark)
    asked = ["recipe.decontaminate.min_ngrams=30"]
    shutil.rmtree(elsewhere)  # what was measured is stored
    answer = replay(Versions(open_store(str(folder))), first.manifest, asked)
    assert [(c.before, c.after, c.records) for c in answer.changes] == [
        ("decontaminate.ngrams", "passes the filters", 1)
    ]
    lines(benchmark, [{"question": "Another one"}])
    assert run(benchmark).manifest.kept.count == 3
    off = web.run(folder, [page], minhash=None, extract={"seconds_per_record": None})
    assert "decontaminate" not in off.manifest.recipe


def test_a_sample_is_compared_without_its_template_and_its_prompt_alone(tmp_path: Path, benchmark: Path) -> None:
    rows = [
        {"question": "Where does the river go?", "answer": "To the sea."},
        {"question": QUESTION, "answer": ANSWER},
        {"question": "how many", "answer": "Seven."},  # fewer words than an n-gram: the prompt is the item
        {"question": "Say that again.", "answer": QUESTION},
    ]
    rows_file = lines(tmp_path / "rows.jsonl", rows)
    folder = tmp_path / "lake"
    instruct = {"form": "pair", "seconds_per_record": None}
    recipe = {"inputs": [str(rows_file)], "instruct": instruct, "decontaminate": {"benchmarks": [str(benchmark)]}}
    store = open_store(str(folder))
    result = run_pipeline(InstructConfig.model_validate({"recipe": recipe}), store, Runner(store, workers=0))
    assert fates(folder, "instruct") == [
        ("kept", None, None),
        ("dropped", "decontaminate.same", "sacks.jsonl:2"),
        ("dropped", "decontaminate.same", "sacks.jsonl:1"),
        ("dropped", "decontaminate.ngrams", "sacks.jsonl:2"),
    ]
    assert [row.stage for row in result.manifest.funnel][:4] == ["read", "instruct", "decontaminate", "exact"]
