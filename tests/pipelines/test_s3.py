"""The whole pipeline with its lake and its inputs on a real S3 server."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import web
from fake_s3 import run_fake_s3
from waiting import PATIENCE

from gristmill import lake
from gristmill.lake.store.opening import open_store
from gristmill.lake.store.s3_connection import connect, split_uri
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from tests.conftest import use_s3

ROOT = Path(__file__).parents[2]


def test_a_run_on_s3_has_the_digest_of_a_run_on_a_local_directory(sample, tmp_path, s3_lake):
    files = web.crawl_files(sample)
    local = web.run(tmp_path, files)
    bucket, prefix = split_uri(s3_lake)
    for path in files:
        connect().client.upload_file(str(path), bucket, f"{prefix}-crawl/{path.name}")
    inputs = [f"s3://{bucket}/{prefix}-crawl/*.gz"]

    first = web.run(s3_lake, inputs)
    assert first.new and first.manifest.digest == local.manifest.digest
    again = web.run(s3_lake, inputs)
    assert not again.new and again.manifest == first.manifest
    moved = web.run(s3_lake, files)  # the same bytes, from a local directory
    assert not moved.new

    data = lake.open("web@v1", lake=s3_lake)
    assert data.to_arrow(columns=["id"]).num_rows == first.manifest.kept.count
    assert data.ledger().num_rows == first.manifest.received.count


def test_two_increments_and_a_takedown_on_s3_are_those_on_a_local_directory(sample, tmp_path, s3_lake):
    files = [*web.crawl_files(sample), *sorted((sample / "night2").iterdir())]
    digests = []
    for uri in (str(tmp_path / "lake"), s3_lake):
        web.run(uri, files[:3], extends="web")
        second = web.run(uri, files, extends="web").manifest
        versions = Versions(open_store(uri))
        request = Suppression.of(urls=lake.open("web", lake=uri).to_arrow()["url"].to_pylist()[:2])
        report = forget(versions, plan_forget(versions, request), "request 1")
        assert report.made == (("web@v2", "web@v3"),) and versions.latest("web") == 3
        assert verify(versions.store, deep=True) == []
        digests.append((second.digest, versions.resolve("web").digest))
    assert digests[0] == digests[1]


def test_a_lake_that_ignores_conditional_put_is_refused_before_anything_runs(monkeypatch):
    with run_fake_s3() as (server, address):
        use_s3(address, monkeypatch)
        server.ignore_conditions = True
        command = [sys.executable, "-m", "pipelines", "run", "conf/web.yaml", "--lake", "s3://fake-bucket/lake"]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert run.returncode == 2 and "If-None-Match" in run.stderr and run.stdout == ""


COMMIT = """
import os, signal, sys
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.versions.manifest import Draft
from gristmill.lake.store.opening import open_store
from gristmill.lake.store.s3 import S3Store
from gristmill.lake.versions.versions import Versions

lake, when = sys.argv[1], sys.argv[2]
put = S3Store.put_if_absent

def dying(self, key, data):
    if when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = put(self, key, data)
    if when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return result

store = open_store(lake)
S3Store.put_if_absent = dying
draft = Draft(dataset="web", form="documents", run_key="k", recipe={}, stages=(), came_in=Tally(), kept=Tally(),
              dropped=Tally(), quarantined=Tally())
print(Versions(store).commit(draft).version)
"""


@pytest.mark.parametrize(("when", "visible"), [("before", []), ("after", [1])])
def test_a_commit_on_s3_that_is_killed_is_there_or_not_and_the_same_command_finishes(s3_lake, when, visible):
    def commit(moment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", COMMIT, s3_lake, moment]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)

    assert commit(when).returncode == -signal.SIGKILL
    versions = Versions(open_store(s3_lake))
    assert versions.numbers("web") == visible
    assert commit("never").stdout == "1\n"
    assert versions.numbers("web") == [1]
