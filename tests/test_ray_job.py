"""`ray job submit`, with README's words for it, against a head of this test's own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import web
from mixtures import mix
from page_commands import command
from preferences import prepare_pairs
from s3_server import free_port
from training import stage, train
from waiting import PATIENCE, until

from gristmill.filters.signatures.compiled import cache_folder
from gristmill.lake.store.objects import read_object
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.stages.run.ray_start import LIMITS

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Iterator[tuple[str, dict[str, str]]]:
    """(address of the job server, environment). Stopped by process group: never `ray stop`, it would stop others'."""
    home = tmp_path_factory.mktemp("home")  # the token of this cluster, not the user's
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "HOME": str(home)}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", **LIMITS}
    environment["GRIST_CACHE"] = str(cache_folder())  # not below another home: kernels take half a minute to compile
    subprocess.run([BIN / "ray", "get-auth-token", "--generate"], env=environment, check=True, capture_output=True)
    # The upper of each pair of free ports: from 10002 to 19999 Ray's workers listen
    dashboard = free_port() + 10_000
    # Patiently, as `grist up` starts it: on a busy machine plain `ray start` ends itself when its agent is late
    ray = [sys.executable, "-m", "gristmill.stages.run.ray_start"]
    command = [*ray, "start", "--head", "--block", f"--dashboard-port={dashboard}"]
    # Every fixed port of Ray is another one here: this process may have a cluster of its own on the usual ones
    for name in ("port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port", "ray-client-server-port"):
        command.append(f"--{name}={free_port() + 10_000}")
    log = (home / "head.log").open("wb")
    process = subprocess.Popen(
        [*command, "--num-cpus=2", "--disable-usage-stats"],
        cwd=ROOT,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        wait_until_it_answers(address, process, home / "head.log")
        yield address, environment
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # told to end, `ray start --block` waits for its parts, which wait too
        process.wait()
        log.close()


def wait_until_it_answers(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=PATIENCE)
        except urllib.error.HTTPError:  # it wants a token: it is there
            return True
        except OSError:
            return False
        return True

    until(answers, "an answer of the head", pause=0.5)


def submit(
    head: tuple[str, dict[str, str]], *arguments: str, config: str = "conf/web.yaml"
) -> subprocess.CompletedProcess[str]:
    address, environment = head
    ray, job_of, submits, *words = command("README", "ray job submit")
    shown = words[: words.index("conf/web.yaml")]  # what is run, and with what, is each test's own
    while True:
        job = subprocess.run(
            [BIN / ray, job_of, submits, "--address", address, *shown, config, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        if "No available agent" not in job.stderr:  # the head answers some seconds before its node's agent does
            return job
        time.sleep(2)


def test_a_submitted_job_commits_the_version_that_a_local_run_commits(head, sample, tmp_path):
    inputs = f"recipe.inputs=[{sample}/crawl/*]"
    settings = ["--set", inputs, "--set", "recipe.max_quarantine_rate=0.2"]
    settings += ["--set", f"recipe.scan.chunk_bytes={web.CHUNK}", "--set", "recipe.shards.target_bytes=100000"]
    job = submit(head, "--lake", str(tmp_path / "lake"), *settings)
    assert job.returncode == 0, job.stdout + job.stderr
    manifest = Versions(open_store(str(tmp_path / "lake"))).manifest("web", 1)
    local = web.run(tmp_path / "local", web.crawl_files(sample))
    assert manifest.digest == local.manifest.digest
    assert f'"digest": "{manifest.digest}"' in job.stdout


def test_a_relative_lake_is_refused_inside_a_job(head, sample):
    job = submit(head, "--lake", "lake-data", "--set", f"recipe.inputs=[{sample}/crawl/*]")
    assert job.returncode != 0 and "relative; inside a job" in job.stdout + job.stderr


def test_a_submitted_job_learns_preferences_in_two_ranks_as_in_one_process(head, store, tmp_path):
    """Each rank has some of the pairs of a step, and the mean is over the pairs of both. The stage before is there; in
    two ranks: tests/test_cluster.py."""
    prepare_pairs(store, tmp_path / "in", window=128)
    mix(store, {"web@v1": 1}, window=128, max_waste=0.1)
    train(store, stage(batch=4, steps=6))
    other = open_store(shutil.copytree(store.uri, tmp_path / "other").as_posix())
    fields = {"init_from": {"language": "stage:pretrain"}, "data": "pairs@v1", "loss": "dpo", "batch": 3, "steps": 4}
    prefer = stage("prefer", **fields, nll_weight=0.5, optim={"lr": 3e-3}, gates=["preference"])
    stages = [stage(batch=4, steps=6), prefer]
    recipe = {"dataset": "nano", "tokenizer": "bpe@v1", "stages": stages}
    sets = [f"recipe.{name}={json.dumps(value)}" for name, value in recipe.items()]
    shown = [word for word in command("training", "ray job submit") if word.startswith("run.")]
    assert shown == ["run.trainer=ray", "run.ranks=2"]
    sets += [*shown, "run.checkpoint_every=2"]
    settings = [part for setting in sets for part in ("--set", setting)]
    job = submit(head, "--lake", store.uri, *settings, config="conf/train-nano.yaml")
    assert job.returncode == 0, job.stdout + job.stderr
    train(other, *stages)

    assert Versions(store).numbers("nano.pretrain") == [1]
    there, here = (Versions(lake).manifest("nano.prefer", 1) for lake in (store, other))
    assert there.statistics["training"]["world"] == 2 and there.statistics["gates"]["preference"]["passed"]
    assert there.statistics["training"]["order"] == here.statistics["training"]["order"]
    for alone, together in zip(steps_of(other, here), steps_of(store, there), strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], abs=1e-4)
        assert together["measures"] == pytest.approx(alone["measures"], abs=1e-3)


def steps_of(store, manifest):
    """The metrics of a version, a line a step."""
    ref = next(ref for ref in manifest.attachments if ref.kind == "metrics")
    return [json.loads(line) for line in read_object(store, ref).splitlines()]
