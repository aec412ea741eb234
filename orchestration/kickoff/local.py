"""Nodes on this machine: a process each, several side by side, or one after the other in this process.

A process of its own keeps a node's threads, signals and failures to itself; what it says is handed on line by line. Its
last line of stdout is its result, and the last line of stderr that begins with `error:` why it has none: the same two
that a job on a cluster leaves behind.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from gristmill.orchestration.jobs import result_line
from gristmill.orchestration.secrets import Secrets
from gristmill.pipelines.command import Ended, carry_out
from gristmill.pipelines.frame.recipe import PipelineConfig
from gristmill.pipelines.frame.result import versions_of_line
from gristmill.pipelines.kickoff.bring import End
from gristmill.pipelines.kickoff.graph import Node
from gristmill.pipelines.settings.exits import DEFECT, DONE, INCOMPLETE

COMMAND = (sys.executable, "-m", "gristmill.orchestration.kickoff.child")
LAST_LINES = 30
"""Of a node's output that are kept, to say why it failed."""
STOP_SECONDS = 20.0
"""That a process gets to end before it is killed."""

KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""Signals by which somebody else ends a process, as where memory is short; by others it ends by a fault of its own."""

Say = Callable[[str, str], None]
"""Hears (node, line)."""


def here(node: Node, config: PipelineConfig) -> Ended:
    """Runs a node in this process."""
    return carry_out(config)


def inline(node: Node, work: Callable[[], End]) -> None:
    """Does a node's work before it returns."""
    work()


def threaded(node: Node, work: Callable[[], End]) -> None:
    """Does a node's work in a thread, which mostly waits for a process."""
    threading.Thread(target=work, name=f"node {node.name}", daemon=True).start()


class Processes:
    """Runs each node in a process of its own."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self._secrets = Secrets.of_environment()
        self._running: dict[str, subprocess.Popen[str]] = {}

    def __call__(self, node: Node, config: PipelineConfig) -> Ended:
        """Waits for the process of a node, and says what it came to."""
        with self._process(node.name) as process:
            assert process.stdin is not None and process.stdout is not None
            line = json.dumps(config.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))
            with suppress(BrokenPipeError):  # it ended before it read that; its exit code says how
                process.stdin.write(f"{line}\n")
                process.stdin.flush()
            lines: deque[str] = deque(maxlen=LAST_LINES)
            for text in process.stdout:
                lines.append(self._secrets.hidden(text.rstrip("\n")))
                self.say(node.name, lines[-1])
            code = process.wait()
        if code == DONE:
            result = result_line(lines)
            return Ended(code, versions=versions_of_line(result), new=result["new"]) if result else Ended(code)
        if -code in KILLS:
            killed = f"its process was killed (signal {-code}); what is done is kept: run the same command again"
            return Ended(INCOMPLETE, killed)
        return Ended(code if code > 0 else DEFECT, reason(lines) or f"its process ended with exit code {code}")

    @contextmanager
    def _process(self, node: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,  # whose end tells it that this process is gone
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._running[node] = process
        with suppress(BrokenPipeError), process:  # closing writes what it never read
            yield process
        del self._running[node]

    def stop(self) -> None:
        """Ends the processes that still run: each as by Ctrl-C, and by force if it does not follow."""
        running = list(self._running.values())
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def reason(lines: deque[str]) -> str:
    """What a run said last about why it ended: its error line with those after it, else its last lines."""
    texts = list(lines)
    errors = [number for number, line in enumerate(texts) if line.startswith("error: ")]
    return "\n".join(texts[errors[-1] :]).removeprefix("error: ") if errors else "\n".join(texts[-5:])
