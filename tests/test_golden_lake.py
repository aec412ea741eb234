"""The golden lake of format 1, as a release left it on a disk (golden/make_lake.py): this code reads and extends it."""

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
from typer.testing import CliRunner
from waiting import PATIENCE

import lake
from lake.diff import diff
from lake.query import list_datasets
from lake.receipt import finished
from lake.store import Store, open_store
from lake.verify import verify
from lake.versions import Versions
from orchestration.cli import app

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = json.loads((GOLDEN / "lake-format-1.json").read_text())
MILL = "https://golden.example/mill"


@pytest.fixture
def golden(tmp_path: Path) -> Store:
    """A copy: to open a lake for work is to write into it."""
    shutil.copytree(GOLDEN / "lake-format-1", tmp_path / "lake")
    return open_store(str(tmp_path / "lake"))


def grist(store: Store, *args: str) -> Any:
    result = CliRunner().invoke(app, [*args, "--lake", store.uri, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("ref", sorted(EXPECTED))
def test_rows_ledger_and_digests_are_those_of_the_day_it_was_made(golden, ref):
    dataset, then = lake.open(ref, lake=golden.uri), EXPECTED[ref]
    assert dataset.to_arrow().to_pylist() == then["rows"] and len(dataset) == len(then["rows"])
    assert dataset.ledger().to_pylist() == then["ledger"]
    assert dataset.manifest.digest == dataset.manifest.content_digest == then["digest"]
    assert dataset.manifest.run_key == then["run_key"]


def test_verify_deep_finds_nothing_and_would_find_damage(golden):
    assert verify(golden, deep=True) == []
    shard = Versions(golden).manifest("web", 1).shards[0]
    path = Path(golden.uri, shard.key)
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    assert {finding.what for finding in verify(golden, deep=True)} == {"corrupt"}


def test_tags_and_withdrawals_hold(golden):
    versions = Versions(golden)
    assert versions.names() == ["web", "web.limit"] and versions.numbers("web") == [1, 2]
    assert versions.resolve("web@first").version == 1 and versions.resolve("web").version == 2
    assert versions.withdrawn("web.limit") == {1: "a look, not a dataset"} and versions.latest("web.limit") is None
    assert [row.latest and row.latest.version for row in list_datasets(versions)] == [2, None]


def test_the_difference_of_its_versions_is_told(golden):
    versions = Versions(golden)
    found = diff(golden, versions.manifest("web", 1), versions.manifest("web", 2))
    assert found.recipe == (("max_quarantine_rate", 0.5, 0.4),) and found.stages == () and not found.same_content
    assert [one.names for one in found.inputs_added] == [("crawl/more.warc.gz",)] and found.inputs_removed == ()
    assert (found.records.both, found.records.only_a, found.records.only_b) == (7, 0, 5)


def test_the_commands_read_it(golden):
    assert [row["dataset"] for row in grist(golden, "ls")] == ["web", "web.limit"]
    about = grist(golden, "show", "web@first")
    assert (about["digest"], about["tags"]) == (EXPECTED["web@v1"]["digest"], ["first"])
    told = grist(golden, "why", MILL)["stories"]
    assert sorted((one["fate"], one["reason"], one["versions"]) for one in told if one["fate"] == "kept") == [
        ("kept", None, [1]),
        ("kept", None, [2]),
    ]
    dropped = next(one for one in told if one["fate"] == "dropped")
    assert (dropped["reason"], dropped["versions"]) == ("exact.same_record", [2])
    assert dropped["place"]["names"] == ["crawl/pages.warc"]
    assert dropped["survivor"]["place"]["names"] == ["crawl/more.warc.gz"]
    assert grist(golden, "log", "web")[0]["version"] == 2


def test_its_receipts_are_read(golden):
    keys = [info.key.rpartition("/")[2].removesuffix(".json") for info in golden.list("receipts/")]
    receipts = [finished(golden, key) for key in keys]
    assert len(receipts) > 2 and all(receipt is not None for receipt in receipts)


def test_this_code_works_in_it(golden):
    result = web.run(golden.uri, [GOLDEN / "input" / "lines.jsonl"], max_quarantine_rate=0.5)
    assert result.new and result.manifest.version == 3 and result.manifest.previous is not None
    assert verify(golden, deep=True) == []


def test_it_holds_no_address_of_a_machine():
    files = [path for path in (GOLDEN / "lake-format-1").rglob("*") if path.is_file()]
    content = {path.relative_to(GOLDEN): path.read_bytes() for path in files}
    assert len(files) > 15 and sum(map(len, content.values())) < 100_000
    found = {match for data in content.values() for match in re.findall(rb'"host": ?"([^"]*)"', data)}
    assert found == {b"golden.example"}
    assert [name for name, data in content.items() if re.search(rb'[":]/(tmp|home|work|root|Users)/', data)] == []


def test_it_is_never_made_again():
    maker = [sys.executable, str(GOLDEN / "make_lake.py")]
    run = subprocess.run(maker, cwd=GOLDEN.parents[1], capture_output=True, text=True, timeout=PATIENCE)
    assert run.returncode == 1 and "never made again" in run.stderr
