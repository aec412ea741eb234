"""A Ray cluster of several nodes on this machine: each has an address, processes and CPUs of its own, and can die.

Addresses are 127.0.0.2 and up: this machine's own, and told apart as those of several machines are. No node can be
started where Ray is told to take 127.0.0.1 for every address (stages/run/cluster.py, LOOPBACK), which is for one node.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGSTOP, SIGTERM
from typing import Any

from s3_server import free_port
from waiting import until

from gristmill.orchestration.stack import processes
from gristmill.orchestration.stack.processes import Identity
from gristmill.stages.run.ray_start import LIMITS

ROOT = Path(__file__).parents[1]
MARK = "GRIST_TEST_NODE"
OBJECT_STORE = 80 << 20  # bytes, about the least that Ray takes
_TITLE = re.compile(rb"ray::(?!IDLE)[\w.]+")
"""Of a worker process that has work; Ray writes it over the command line."""


@dataclass(frozen=True)
class Node:
    """`mark`: what all processes of a node have in their environment."""

    address: str
    mark: str
    process: subprocess.Popen[bytes]

    @property
    def family(self) -> list[Identity]:
        """Raylet, agents and workers; of the head the servers too."""
        return processes.marked(MARK, self.mark)

    def at_work(self, work: str = "") -> Identity | None:
        """A worker that has work (of this name, if one is given), stopped (SIGSTOP): what is done to the node then
        happens in the middle of it."""
        for process in self.family:
            if _has_work(process, work) and processes.send(process, SIGSTOP):
                if _has_work(process, work):
                    return process
                processes.send(process, SIGKILL)  # it had just ended its work: Ray starts another worker
        return None

    def kill(self) -> None:
        """Ends all of it at once, as a power failure does."""
        while family := self.family:
            for process in family:
                processes.send(process, SIGKILL)
        self.process.wait()


def _end_with_parent() -> None:
    """Linux: even a test run that is killed leaves no node behind; this signal ends `ray start` and what it started."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, SIGTERM)


def _has_work(process: Identity, work: str) -> bool:
    try:
        line = (processes.PROC / str(process.pid) / "cmdline").read_bytes()
    except OSError:  # it ended meanwhile
        return False
    title = _TITLE.match(line)
    return title is not None and work.encode() in title[0]


class Cluster:
    """A head, and the nodes that were added to it. `environment`: of its nodes, and of drivers that join it."""

    def __init__(self, folder: Path) -> None:
        """`folder`: for logs, and short enough for the paths of sockets below it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2, "RAY_USAGE_STATS_ENABLED": "0"}
        settings["RAY_worker_niceness"] = "0"  # Ray has 15: beside other tests its workers would hardly run
        # The head asks a node that is gone three times, not five in 15 s. One that is late has LIMITS all the same
        settings |= {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}
        self.folder, self.nodes, self.port = folder, list[Node](), free_port() + 10_000
        self.address = f"127.0.0.2:{self.port}"
        self.environment = kept | settings | LIMITS | {"RAY_ADDRESS": self.address}

    def start(self, cpus: int) -> Node:
        """The head."""
        options = ["--head", f"--port={self.port}", f"--temp-dir={self.folder / 'r'}", "--include-dashboard=false"]
        return self._start(*options, f"--ray-client-server-port={free_port() + 10_000}", cpus=cpus)

    def add(self, cpus: int) -> Node:
        """Another node, when it has joined."""
        return self._start(f"--address={self.address}", cpus=cpus)

    def _start(self, *options: str, cpus: int) -> Node:
        number = len(self.nodes) + 2
        node_address, log = f"127.0.0.{number}", self.folder / f"node{number}.log"
        command = [sys.executable, "-m", "gristmill.stages.run.ray_start", "start", "--block", "--disable-usage-stats"]
        command += [*options, f"--node-ip-address={node_address}", f"--num-cpus={cpus}"]
        command += [f"--object-store-memory={OBJECT_STORE}"]
        command += [f"--dashboard-agent-{kind}-port={free_port() + 10_000}" for kind in ("listen", "grpc")]
        environment = {name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"}
        with log.open("wb") as file:
            mark = uuid.uuid4().hex
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment | {MARK: mark},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        node = Node(node_address, mark, process)
        self.nodes.append(node)
        until(lambda: self._runs(node, log), f"the node {node_address}", pause=0.2)
        return node

    def _runs(self, node: Node, log: Path) -> bool:
        text = log.read_text(errors="replace")
        assert node.process.poll() is None, text
        return "Ray runtime started" in text

    def lose_a_node_at_work(self, work: str = "") -> bool:
        """Ends one that is not the head and has work (of this name), in the middle of that; whether there is one."""
        for node in self.nodes[1:]:
            if node.at_work(work) is not None:
                node.kill()
                return True
        return False

    def driver(self, *arguments: Any) -> subprocess.Popen[str]:
        """A pipeline on the cluster; `arguments` as of `python -m pipelines run`."""
        return self.program("-m", "pipelines", "run", *arguments)

    def program(self, *arguments: Any, **variables: Any) -> subprocess.Popen[str]:
        """A Python program that joins the cluster; `arguments` as of `python`, `variables` of its environment."""
        command = [sys.executable, *map(str, arguments)]
        environment = self.environment | {name: str(value) for name, value in variables.items()}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, env=environment)


@contextmanager
def cluster_at(folder: Path, cpus: int = 1) -> Iterator[Cluster]:
    """A cluster of a head, to which nodes are added."""
    cluster = Cluster(folder)
    try:
        cluster.start(cpus)
        yield cluster
    finally:
        for node in reversed(cluster.nodes):
            node.kill()
