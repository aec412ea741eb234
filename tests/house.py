"""A stack of its own for tests of flows, and what is looked at in it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import waiting
import web
import yaml
from page_commands import command
from typer.testing import CliRunner
from waiting import PATIENCE

from gristmill.filters.signatures.compiled import cache_folder
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.announce import COMMITTED
from gristmill.orchestration.cli.main import app
from gristmill.orchestration.stack import processes
from gristmill.orchestration.stack.folder import PORTS, Stack
from gristmill.orchestration.stack.processes import Identity
from gristmill.orchestration.stack.stack import SETTINGS, down, up

ROOT = Path(__file__).parents[1]
until = partial(waiting.until, pause=0.3)
"""Whoever asks the servers fifty times a second takes the CPU from what they have to do."""
OVER = ("Completed", "Failed", "Crashed", "Cancelled", "Held")
SMALL = 40_000
"""Bytes of a piece in the lake that is hurt."""


TOLD: list[str] = []
"""What the webhook was sent."""


@dataclass(frozen=True)
class House:
    """The stack, where it keeps its lakes, and the settings that every run has."""

    stack: Stack
    folder: Path
    settings: list[str]

    def ask(self, path: str, body: Any = None) -> Any:
        """Prefect's server, however long it takes: `status` wants an answer at once, a test does not."""
        return self.stack.prefect.ask(path, body, timeout=PATIENCE)

    def lake(self, name: str) -> str:
        """The address of one of its lakes."""
        return str(self.folder / name)

    def versions(self, name: str) -> list[str]:
        """The content digests of `web` in a lake, in order."""
        versions = Versions(open_store(self.lake(name)))
        return [versions.manifest("web", number).digest for number in versions.numbers("web")]

    def jobs(self, name: str) -> list[dict[str, Any]]:
        """Every job there ever was of this lake, first attempt first."""
        jobs = [
            job for job in self.stack.ray.ask("/api/jobs/", timeout=PATIENCE) if self.lake(name) in job["entrypoint"]
        ]
        return sorted((job for job in jobs if job["submission_id"]), key=lambda job: job["submission_id"])

    def live(self, name: str) -> list[str]:
        """Ids of this lake's jobs that have not ended."""
        return [job["submission_id"] for job in self.jobs(name) if job["status"] in ("PENDING", "RUNNING")]

    def deployment(self, name: str) -> str:
        """The id of a deployment."""
        (deployment,) = self.ask("/deployments/filter", {"deployments": {"name": {"any_": [name]}}})
        return str(deployment["id"])

    def start(self, name: str, settings: list[str] | None = None, parameters: dict[str, Any] | None = None) -> str:
        """A run by hand of the deployment without a schedule; by default cut small: there is time to hurt it."""
        settings = settings or [*self.settings, f"recipe.scan.chunk_bytes={SMALL}"]
        body = {"parameters": {"settings": settings, "lake": self.lake(name), **(parameters or {})}}
        path = f"/deployments/{self.deployment('by-hand')}/create_flow_run"
        return str(self.ask(path, body)["id"])

    def state(self, run: str) -> tuple[str, str]:
        """(name, message) of the state of a flow run."""
        state = self.ask(f"/flow_runs/{run}")["state"]
        return state["name"], state["message"] or ""

    @property
    def growing(self) -> list[str]:
        """What the schedule runs with: a folder that files are added to."""
        return [*self.settings, "recipe.extends=web", f"recipe.inputs=['{self.folder}/crawl/*']"]

    def ended(self, run: str) -> tuple[str, str]:
        """The state in which a flow run ends, which is waited for."""
        return until(lambda: (s := self.state(run))[0] in OVER and s, f"the end of flow run {run}")

    def held(self, name: str, run: str, receipts: int = 0) -> Identity:
        """The driver of this lake's job, stopped (SIGSTOP) once it has written so many receipts: what is done to it
        then happens in the middle of its work, however fast that is. The end of `run` before that is a failure."""

        def look() -> Identity | None:
            driver = self._find(name, b"-m\0gristmill.pipelines\0run")
            if driver is None or self.receipts(name) < before + receipts:
                assert self.state(run)[0] not in OVER, f"flow run {run} ended: {self.state(run)}"
                return None
            return driver if processes.send(driver, signal.SIGSTOP) else None

        before = self.receipts(name)
        return until(look, f"a driver for {name} with {receipts} receipts")

    def doctor(self) -> dict[str, str]:
        """check -> what `grist doctor` found and what to do, of those that are not ok."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GRIST_HOME", str(self.stack.folder.parent))
            done = CliRunner().invoke(app, ["doctor", "--stack", self.stack.name, "--json"])
        return {
            finding["check"]: f"{finding['found']} -> {finding['fix']}"
            for finding in json.loads(done.stdout)["findings"]
            if finding["level"] != "ok"
        }

    def runs_of(self, name: str, *states: str) -> list[dict[str, Any]]:
        """The flow runs of a deployment, in these states if some are given, in the order in which they began."""
        query: dict[str, Any] = {"deployments": {"name": {"any_": [name]}}, "sort": "START_TIME_ASC"}
        if states:
            query["flow_runs"] = {"state": {"type": {"any_": list(states)}}}
        return list(self.ask("/flow_runs/filter", query))

    def announced(self, lake: str) -> list[str]:
        """Versions of a lake that an event tells of."""
        events = self.ask("/events/filter", {"filter": {"event": {"name": [COMMITTED]}}, "limit": 50})["events"]
        resources = [event["resource"] for event in events]
        return [each["gristmill.version"] for each in resources if each["gristmill.lake"] == self.lake(lake)]

    @property
    def shell(self) -> dict[str, str]:
        """The environment of a shell that speaks to this stack, and spoke to another cluster before, as a test's
        process may have done."""
        client = {"PREFECT_HOME": str(self.folder / "client")}
        return {**os.environ, "RAY_AUTH_TOKEN": "0" * 64, **self.stack.exports(), **client}

    def prefect(self, page: str, start: str, *more: str, instead: Mapping[str, str] | None = None) -> str:
        """What the page's command that begins so prints in such a shell; `instead`: for words of it."""
        words = [(instead or {}).get(word, word) for word in command(page, start)]
        given = [Path(sys.executable).parent / words[0], "--no-prompt", *words[1:], *more]
        wide = self.shell | {"COLUMNS": "300", "NO_COLOR": "1"}
        done = subprocess.run(given, cwd=ROOT, env=wide, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def kickoff(self, name: str, config: Path) -> subprocess.Popen[str]:
        """`grist kickoff` in a shell that speaks to this stack, into one of its lakes; its answer is JSON."""
        command = [sys.executable, "-m", "gristmill.orchestration.cli.main", "kickoff", str(config), "--json"]
        return subprocess.Popen(
            [*command, "--lake", self.lake(name)],
            cwd=ROOT,
            env=self.shell,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kickoff_run(self) -> str:
        """The id of the kickoff that runs, when there is one."""
        query = {"flows": {"name": {"any_": ["kickoff"]}}, "flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
        return str(until(lambda: self.ask("/flow_runs/filter", query), "a kickoff")[0]["id"])

    def receipts(self, name: str) -> int:
        """How many receipts a lake has."""
        return sum(1 for _ in Path(self.lake(name), "receipts").rglob("*.json"))

    def flow(self, run: str) -> Identity:
        """The process of a flow run."""
        wanted = f"PREFECT__FLOW_RUN_ID={run}".encode()
        candidates = [process for process in self.stack.family() if wanted in read(process, "environ").split(b"\0")]
        flows = [
            process
            for process in candidates
            if b"prefect.engine" in read(process, "cmdline") or b"flow_runs" in read(process, "cmdline")
        ]
        return (flows or candidates)[-1]

    def _find(self, name: str, command: bytes) -> Identity | None:
        lake = self.lake(name).encode()
        lines = [(process, read(process, "cmdline")) for process in self.stack.family()]
        return next(
            (process for process, line in lines if line.startswith(b"python") and command in line and lake in line),
            None,
        )


def killed(process: Identity | None) -> None:
    """Kills a process that is there, and waits for its death."""
    assert process is not None and processes.send(process, signal.SIGKILL)
    until(lambda: not processes.alive(process), "its death")


def read(process: Identity, what: str) -> bytes:
    """A file of /proc about a process; empty where it is gone."""
    try:
        return (processes.PROC / str(process.pid) / what).read_bytes()
    except OSError:
        return b""


@contextmanager
def stack_at(folder: Path, sample: Path, variables: Mapping[str, str] | None = None) -> Iterator[House]:
    """A stack that runs, below this folder, with a copy of the sample's crawl. `variables`: of its environment."""
    stack = Stack(folder / "state" / "test")
    settings = [f"recipe.inputs=['{sample}/crawl/*']", "recipe.max_quarantine_rate=0.2"]
    settings += [f"recipe.scan.chunk_bytes={web.CHUNK}", "recipe.shards.target_bytes=100000"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIST_CACHE", str(cache_folder()))  # this process has loaded kernels from there
        patch.setenv("HOME", str(folder))
        patch.delenv("GRIST_LAKE", raising=False)
        for name, value in (variables or {}).items():
            patch.setenv(name, value)
        patch.setitem(SETTINGS, "PREFECT_WORKER_QUERY_SECONDS", "3")  # 10 are nothing to a night, and minutes to tests
        try:
            shutil.copytree(sample / "crawl", folder / "crawl")
            up(stack, cpus=2, ports=dict.fromkeys(PORTS, 0))
            yield House(stack, folder, settings)
        finally:
            down(stack)
            left = stack.family()
            assert not left, f"processes outlive `down`: {left}"


class Webhook(BaseHTTPRequestHandler):
    """Takes what is sent."""

    def do_POST(self) -> None:
        """As a chat's webhook."""
        TOLD.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing."""


def prefect_yaml() -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """(the repository's own file, its deployments by name)."""
    config = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    return config, {deployment["name"]: deployment for deployment in config["deployments"]}


def deploy(house: House, deployments: list[dict[str, Any]]) -> None:
    """These deployments, by the command of docs/nightly.md."""
    file = house.folder / "prefect.yaml"
    file.write_text(yaml.safe_dump({**prefect_yaml()[0], "deployments": deployments}))
    house.prefect("nightly", "prefect deploy --all", "--prefect-file", str(file))


def by_hand(nightly: dict[str, Any]) -> dict[str, Any]:
    """The same without a schedule, and as many runs at a time as are started."""
    return {k: v for k, v in nightly.items() if k != "concurrency_limit"} | {"name": "by-hand", "schedules": []}
