"""Golden lakes, as releases left them on a disk (golden/make_lake.py): this code reads, extends and cleans them.

Format 1 had neither seals nor takedowns; format 2 has both, and a tokenizer, samples and a mixture.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import web
from forget_lake import do, readable, sound
from typer.testing import CliRunner
from waiting import PATIENCE

from gristmill import lake
from gristmill.lake.accounts.receipt import finished
from gristmill.lake.query.diff import diff
from gristmill.lake.query.query import list_datasets
from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.gc import plan_gc, run_gc
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.cli.main import app
from gristmill.stages.mix.windows import read_windows

GOLDEN = Path(__file__).parent / "golden"
FORMATS = (1, 2, 3)
EXPECTED = {number: json.loads((GOLDEN / f"lake-format-{number}.json").read_text()) for number in FORMATS}
MILL = "https://golden.example/mill"
ALL = ["bpe", "chat", "mix", "web", "web.limit"]
DATASETS = {1: ["web", "web.limit"], 2: ALL, 3: ALL}
BYTES = {1: 100_000, 2: 300_000, 3: 500_000}
"""Most that a golden lake may have."""


def copied(number: int, folder: Path) -> Store:
    """A copy: to open a lake for work is to write into it."""
    shutil.copytree(GOLDEN / f"lake-format-{number}", folder)
    return open_store(str(folder))


@pytest.fixture(params=FORMATS)
def number(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def golden(number: int, tmp_path: Path) -> Store:
    return copied(number, tmp_path / "lake")


@pytest.fixture(params=FORMATS[1:])
def second(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """The lakes of format 2 and later, for what format 1 had not."""
    return copied(request.param, tmp_path / "lake")


def grist(store: Store, *args: str) -> Any:
    result = CliRunner().invoke(app, [*args, "--lake", store.uri, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_records_ledgers_and_digests_are_those_of_the_day_it_was_made(golden, number):
    for ref, then in EXPECTED[number].items():
        dataset = lake.open(ref, lake=golden.uri)
        assert dataset.ledger().to_pylist() == then["ledger"]
        assert dataset.manifest.digest == dataset.manifest.content_digest == then["digest"]
        assert dataset.manifest.run_key == then["run_key"]
        if "rows" in then:
            assert dataset.to_arrow().to_pylist() == then["rows"] and len(dataset) == len(then["rows"])


def test_windows_are_those_of_the_day_it_was_made(second):
    reader = read_windows(second, Versions(second).resolve("mix@v1"))
    windows = [{name: array.tolist() for name, array in reader.sample(i).arrays.items()} for i in range(len(reader))]
    assert windows == EXPECTED[2]["mix@v1"]["windows"] and len(windows) > 3


def test_verify_deep_finds_nothing_and_would_find_damage(golden):
    assert verify(golden, deep=True) == []
    shard = Versions(golden).manifest("web", 1).shards[0]
    path = Path(golden.uri, shard.key)
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    assert {finding.what for finding in verify(golden, deep=True)} == {"corrupt"}


def test_tags_and_withdrawals_hold(golden, number):
    versions = Versions(golden)
    assert versions.names() == DATASETS[number] and versions.numbers("web") == [1, 2]
    assert versions.resolve("web@first").version == 1 and versions.resolve("web").version == 2
    assert versions.withdrawn("web.limit") == {1: "a look, not a dataset"} and versions.latest("web.limit") is None
    latest = {row.dataset: row.latest and row.latest.version for row in list_datasets(versions)}
    assert latest == {"web": 2, "web.limit": None} | ({"bpe": 1, "chat": 2, "mix": 1} if number > 1 else {})
    if number > 1:
        assert list(versions.withdrawn("chat")) == [1] and versions.withdrawn("chat")[1].endswith(": request 7")


def test_the_difference_of_its_versions_is_told(golden, number):
    versions = Versions(golden)
    difference = diff(golden, versions.manifest("web", 1), versions.manifest("web", 2))
    assert difference.recipe == ((("max_quarantine_rate", 0.5, 0.4),) if number == 1 else ())
    assert difference.stages == () and not difference.same_content
    assert [file.names for file in difference.inputs_added] == [
        ("crawl/more.warc.gz",)
    ] and difference.inputs_removed == ()
    assert (difference.records.both, difference.records.only_a, difference.records.only_b) == (7, 0, 5)


def test_the_commands_read_it(golden, number):
    assert [row["dataset"] for row in grist(golden, "ls")] == DATASETS[number]
    about = grist(golden, "show", "web@first")
    assert (about["digest"], about["tags"]) == (EXPECTED[number]["web@v1"]["digest"], ["first"])
    assert grist(golden, "log", "web")[0]["version"] == 2
    stories = grist(golden, "why", MILL)["stories"]
    kept = [story for story in stories if story["fate"] == "kept" and story["dataset"] == "web"]
    dropped = next(story for story in stories if story["fate"] == "dropped")
    assert (dropped["reason"], dropped["versions"]) == ("exact.same_record", [2])
    # a run over everything kept the copy that it met first, a second increment kept what there was
    first, later = ("more.warc.gz", "pages.warc") if number == 1 else ("pages.warc", "more.warc.gz")
    assert sorted(n for story in kept for n in story["versions"]) == [1, 2]
    assert dropped["place"]["names"] == [f"crawl/{later}"]
    assert dropped["survivor"]["place"]["names"] == [f"crawl/{first}"]


def test_what_is_no_web_page_is_shown_and_checked_out(second, tmp_path):
    shown = {ref: CliRunner().invoke(app, ["show", ref, "--lake", second.uri]) for ref in ("bpe", "chat", "mix")}
    assert [result.exit_code for result in shown.values()] == [0, 0, 0]
    assert "vocab size" in shown["bpe"].output and "Mixture" in shown["mix"].output
    drawn = grist(second, "sample", "mix", "-n", "1")
    assert set(drawn["population"]) == {"chat@v2", "web@v2"} and len(drawn["stretches"]) == 2
    assert len(grist(second, "sample", "chat")["samples"]) == 2
    for ref, endings in (("bpe", {".tokenizer.json"}), ("chat", {".parquet"}), ("mix", {".tar", ".index.parquet"})):
        files = grist(second, "checkout", ref, str(tmp_path / ref))["files"]
        assert {name.partition("-00000")[2] for name in files} == endings


def test_its_receipts_are_read(golden):
    keys = [info.key.rpartition("/")[2].removesuffix(".json") for info in golden.list("receipts/")]
    receipts = [finished(golden, key) for key in keys]
    assert len(receipts) > 2 and all(receipt is not None for receipt in receipts)


def test_this_code_works_in_it(golden, number):
    """A new dataset version from other inputs; of format 2 an increment on top of the last one."""
    grows = {"extends": "web"} if number > 1 else {}
    result = web.run(golden.uri, [GOLDEN / "input" / "lines.jsonl"], max_quarantine_rate=0.5, **grows)
    assert result.new and result.manifest.version == 3 and result.manifest.previous is not None
    assert result.manifest.parent == (Versions(golden).manifest("web", 2).ref if grows else None)
    sound(golden)


def test_a_record_is_forgotten_from_it_and_erased(golden, number):
    """The text goes from every file; what shares nothing with it stays as it was."""
    row = EXPECTED[number]["web@v2"]["rows"][0]
    report = do(golden, Suppression.of(ids=[row["id"]]))
    versions = Versions(golden)
    clean = versions.resolve("web")
    assert [new for _, new in report.made] == (["web@v3"] if number == 1 else ["mix@v2", "web@v3"])
    assert str(clean) == "web@v3"
    assert [kept["id"] for kept in lake.Dataset(golden, clean).to_arrow(["id"]).to_pylist()] == [
        kept["id"] for kept in EXPECTED[number]["web@v2"]["rows"][1:]
    ]
    run_gc(golden, plan_gc(golden, grace_seconds=0))
    sound(golden)
    text = json.dumps(row["text"], ensure_ascii=False)[1:60].encode()
    assert [path for path, data in readable(golden) if text in data] == []
    if number > 1:
        reader = read_windows(golden, versions.resolve("mix@v2"))
        left = [member for i in range(len(reader)) for member in reader.sample(i).meta["members"]]
        assert {member["source"] for member in left} == {"web@v2", "chat@v2"}
        assert row["id"] not in {member["member"] for member in left} and set(versions.withdrawn("mix")) == {1}
    stories = grist(golden, "why", row["id"], "--dataset", "web")["stories"]
    fates = {(story["fate"], story["reason"]) for story in stories if 3 in story["versions"]}
    assert ("dropped", "forget.requested") in fates and "kept" not in {fate for fate, _ in fates}
    holders = {n for n in (1, 2) if row in EXPECTED[number][f"web@v{n}"]["rows"]}
    assert set(versions.withdrawn("web")) == holders >= {2}


def test_gc_takes_nothing_that_it_needs(golden, number):
    plan = plan_gc(golden, grace_seconds=0)
    run_gc(golden, plan)
    sound(golden)
    assert [doomed.key for doomed in plan.doomed if doomed.kind == "object"] == []  # the release had swept it
    for ref, then in EXPECTED[number].items():
        assert lake.open(ref, lake=golden.uri).manifest.digest == then["digest"]


def test_it_holds_no_address_of_a_machine(number):
    files = [path for path in (GOLDEN / f"lake-format-{number}").rglob("*") if path.is_file()]
    content = {path.relative_to(GOLDEN): path.read_bytes() for path in files}
    assert len(files) > 15 and sum(map(len, content.values())) < BYTES[number]
    hosts = {match for data in content.values() for match in re.findall(rb'"host": ?"([^"]*)"', data)}
    assert hosts == {b"golden.example"}
    assert [name for name, data in content.items() if re.search(rb'[":]/(tmp|home|work|root|Users)/', data)] == []


def test_it_is_never_made_again(number):
    maker = [sys.executable, str(GOLDEN / "make_lake.py"), str(GOLDEN / f"lake-format-{number}")]
    run = subprocess.run(maker, cwd=GOLDEN.parents[1], capture_output=True, text=True, timeout=PATIENCE)
    assert run.returncode == 1 and "never made again" in run.stderr
