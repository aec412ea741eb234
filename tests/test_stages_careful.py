"""Input that kills the process that reads it: the record is quarantined, its neighbours are as they would have been."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import web

import lake
from lake.store import open_store
from pipelines import web as pipeline
from stages import extract
from stages.careful import Child, ChildDied, ChildTimeout
from stages.runner import Runner


def test_a_child_answers_raises_dies_and_is_replaced():
    with Child(seconds=30) as child:
        assert child.call(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            child.call(divmod, 7, 0)
        pid = child.call(os.getpid)
        assert child.call(os.getpid) == pid != os.getpid()
        with pytest.raises(ChildDied, match="SIGSEGV"):
            child.call(os.kill, pid, signal.SIGSEGV)
        assert child.call(os.getpid) != pid


def test_a_child_that_does_not_answer_is_killed():
    with Child(seconds=0.5) as child:
        pid = child.call(os.getpid)
        with pytest.raises(ChildTimeout):
            child.call(time.sleep, 600)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert child.call(divmod, 7, 2) == (3, 1)


@dataclass(frozen=True)
class Fragile(extract.Extract):
    """An extractor that one page kills, and that another never leaves."""

    poison: str = ""
    endless: str = ""

    def found(self, item):
        if item.url == self.poison:
            os.kill(os.getpid(), signal.SIGKILL)
        if item.url == self.endless:
            time.sleep(600)
        return super().found(item)


def test_a_page_that_kills_every_worker_and_one_that_hangs_cost_only_themselves(sample, tmp_path, monkeypatch):
    part: list[Path | str] = [sample / "crawl" / "part-0000.warc.gz"]
    healthy = web.run(tmp_path / "healthy", part).manifest
    data = lake.open("web", lake=str(tmp_path / "healthy"))
    table, captures = data.to_arrow(), Counter(one[:16] for one in data.ledger()["id"].to_pylist())
    once = [row["url"] for row in table.select(["id", "url"]).to_pylist() if captures[row["id"][:16]] == 1]
    poison, endless = once[2], once[4]  # pages that were captured once, so that each is one record

    config = web.config(part)
    fragile = config.recipe.model_copy(
        update={"extract": Fragile(poison=poison, endless=endless, seconds_per_record=2)}
    )
    store = open_store(str(tmp_path / "fragile"))
    result = pipeline.run_web(config.model_copy(update={"recipe": fragile}), store, Runner(store, workers=2))

    m = result.manifest
    assert m.came_in.count == healthy.came_in.count
    assert m.funnel[1].quarantined == {"extract.crashed": 1, "extract.timeout": 1}
    assert m.quarantined.count == m.machine_fates == 2
    ledger = lake.open("web", lake=str(tmp_path / "fragile")).ledger().to_pylist()
    values = {row["value"] for row in ledger if row["fate"] == "quarantined"}
    assert values == {"died of SIGKILL", "no answer in 2 s"}
    kept = set(lake.open("web", lake=str(tmp_path / "fragile")).to_arrow()["url"].to_pylist())
    assert set(table["url"].to_pylist()) - kept == {poison, endless}
