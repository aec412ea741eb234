"""What the parts of the demo share: grist commands as a user would type them, headings, and checks that end it."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from gristmill.orchestration.show.terminal import PIPE_WIDTH

FOLDER = Path("demo")
"""Where everything is written, in the project's root."""
LAKE, DATA, LOGS, REPORT = FOLDER / "lake", FOLDER / "data", FOLDER / "logs", FOLDER / "report.html"
console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def say(text: str) -> None:
    """Prints a heading."""
    console.print(f"\n{text}", style="bold cyan", markup=False, soft_wrap=True)


def check(holds: bool, what: str) -> None:
    """Ends the demo where something does not hold."""
    if not holds:
        sys.exit(f"error: the demo expected: {what}")
    console.print(f"[green]checked: {what}[/]", soft_wrap=True)


def command(*arguments: str) -> list[str]:
    """A grist command as this Python runs it."""
    return [sys.executable, "-m", "gristmill.orchestration.cli.main", *arguments]


def show(*arguments: str, note: str = "") -> None:
    """Prints a grist command as it would be typed."""
    console.print(f"$ grist {shlex.join(arguments)}{note}", style="bold", markup=False, soft_wrap=True)


def grist(*arguments: str) -> str:
    """Runs a grist command as it would be typed; its output is shown and returned."""
    show(*arguments)
    run = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    lines = []
    for line in run.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    if run.wait() != 0:
        sys.exit(f"error: the demo stopped, exit code {run.returncode}")
    return "".join(lines)


def killed(*arguments: str, when: Callable[[], bool], note: str) -> None:
    """Starts a grist command and kills it with SIGKILL as soon as `when` holds; ends the demo if it was done before."""
    show(*arguments, note=f"   # and kill -9 {note}")
    run = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL)
    while run.poll() is None and not when():
        time.sleep(0.1)
    run.send_signal(signal.SIGKILL)
    check(run.wait() == -signal.SIGKILL, "the run was killed in the middle")
