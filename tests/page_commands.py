"""The commands of README and docs/, in the order of their pages, given as a reader gives them.

What a page says is the source: a command is run as it stands there, with a path of this machine for one of the page's
(`instead`), a size for a small machine behind it (`more`), and what the page presumes made before it (`before`). All
that a walk does not run is listed in ELSEWHERE with its reason.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gristmill.orchestration.cli.main import app

ROOT = Path(__file__).parents[1]
PROGRAMS = "docker eval export grist helm kubectl make pip prefect python ray unset".split()  # noqa: SIM905
SHELL = ("", "sh", "bash")
"""Languages of blocks that commands stand in."""

SETS_UP = "sets up from the network; the tests run in what it makes"
SERVES = "never ends; tests/orchestration/test_serve*.py ask it"
NO_CLUSTER = "no Kubernetes here; tests/test_deploy_files.py checks the files"
BY_HOUSE = "tests/house.py gives it to the stack of test_flows.py"
BY_FLOWS = "tests/test_flows.py gives it to a stack of its own"
NEEDS_STACK = "speaks to a running stack; test_flows.py asks its servers for the same"
BY_STACK = "tests/orchestration/test_stack.py and test_deploy.py give it to a stack of theirs"
BY_JOB = "given by tests/test_ray_job.py"


def text_of(page: str) -> str:
    """The page: README, or one of docs/ by its name."""
    path = ROOT / "README.md" if page == "README" else ROOT / "docs" / f"{page}.md"
    return path.read_text(encoding="utf-8")


def commands(page: str) -> list[str]:
    """All commands of a page's blocks, in its order: continued lines joined, comments off, one of each `;` and `&&`."""
    return [command for line in _lines(text_of(page)) for command in _split(line)]


def command(page: str, start: str) -> list[str]:
    """The words of the page's command that begins so, for a test that gives it elsewhere. Raises LookupError without
    one."""
    for line in commands(page):
        if line.startswith(start):
            return shlex.split(line)
    raise LookupError(f"{page} has no command `{start}`")


def _lines(text: str) -> Iterator[str]:
    """Lines of shell: of fenced blocks, and indented by four or more."""
    fence: str | None = None
    for line in text.replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("```"):
            fence = line.strip().removeprefix("```") if fence is None else None
        elif fence in SHELL if fence is not None else line.startswith("    "):
            yield re.sub(r"\s+#.*$", "", line).strip()


def _split(line: str) -> list[str]:
    if line.partition(" ")[0] not in PROGRAMS:
        return []
    return [re.sub(r" {2,}", " ", part) for part in re.split(r"; (?=[a-z])| && ", line)]


def programs(page: str) -> list[str]:
    """Its blocks of Python."""
    return re.findall(r"```python\n(.*?)```", text_of(page), re.DOTALL)


@dataclass
class Walk:
    """A page, and what is laid over it. Keys of `more` and `before` are how commands begin (`$` behind one: all of it);
    each has to be of use."""

    page: str
    more: Mapping[str, str] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, Callable[[], object]] = field(default_factory=dict)

    def run(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        """Command as on the page -> what it printed; those of ELSEWHERE are left out. Raises AssertionError for an
        exit code other than 0."""
        outputs: dict[str, str] = {}
        for line in commands(self.page):
            if _starts(line, ELSEWHERE.get(self.page, {})):
                continue
            for start in _starts(line, self.before):
                self.before[start]()
            words = self.words(line)
            if words[0] == "export":
                for word in words[1:]:
                    monkeypatch.setenv(*word.split("=", 1))
                continue
            assert words[0] == "grist", f"{self.page}: nothing runs `{line}`"
            done = CliRunner().invoke(app, words[1:])
            assert done.exit_code == 0, (words, done.output, done.exception)
            outputs[line] = done.stdout
        self._check_that_all_is_of_use()
        return outputs

    def words(self, line: str) -> list[str]:
        """Of a command, as it is given here."""
        for there, here in self.instead.items():
            line = line.replace(there, here)
        more = [word for start in _starts(line, self.more) for word in shlex.split(self.more[start])]
        return [*shlex.split(os.path.expandvars(line)), *more]

    def _check_that_all_is_of_use(self) -> None:
        lines = commands(self.page)
        begun = {start for line in lines for start in _starts(line, {**self.more, **self.before})}
        idle = {*self.more, *self.before} - begun
        idle |= {there for there in self.instead if not any(there in line for line in lines)}
        assert not idle, f"{self.page} has no command with {sorted(idle)}"


def _starts(line: str, starts: Mapping[str, object]) -> list[str]:
    """Those that it begins with; one that ends with `$` is the whole of it."""
    return [start for start in starts if (line == start[:-1] if start.endswith("$") else line.startswith(start))]


ELSEWHERE: dict[str, dict[str, str]] = {
    "README": {
        "make demo": "takes a quarter of an hour; tests/orchestration/test_demo.py has its parts",
        "make test": "is this",
        "make setup": SETS_UP,
        "pip install .": "fetches; tests/test_wheel.py installs the wheel",
        "grist serve": SERVES,
        "grist up": NEEDS_STACK,
        "eval": BY_STACK,
        "prefect deploy": BY_HOUSE,
        "prefect": NEEDS_STACK,
        "grist status": BY_STACK,
        "ray job submit": BY_JOB,
    },
    "cluster": {
        "export": NO_CLUSTER,
        "grist doctor": "tests/orchestration/test_stack.py gives it, to no store of a cluster",
        "prefect deploy": BY_HOUSE,
        "ray get-auth-token": BY_JOB,
        "ray start": "tests/test_ray_job.py starts a head by gristmill.stages.run.ray_start, as `grist up` does",
        "ray job submit": BY_JOB,
        "docker build": "no docker here",
        "helm": NO_CLUSTER,
        "kubectl": NO_CLUSTER,
    },
    "extraction": {
        "pip install": SETS_UP,
        "python -m benchmarks.train_extraction": "needs the labelled pages, which are no part of the repository",
    },
    "filters": {
        "grist run web": "tests of decontaminate, of substrings and of classifiers run these, on data of their own",
        "grist replay": "tests/pipelines/test_replay.py asks for the same of runs of its own",
        "grist classifier": "tests/orchestration/test_classifier.py gives them, to texts of its own",
    },
    "model": {"grist serve": SERVES},
    "nightly": {
        "export": NEEDS_STACK,
        "eval": BY_STACK,
        "grist up": NEEDS_STACK,
        "grist doctor": BY_STACK,
        "grist status": BY_STACK,
        "grist log": "README and docs/lake.md give it",
        "prefect deploy": BY_HOUSE,
        "prefect flow-run ls": BY_FLOWS,
        "prefect artifact inspect": BY_FLOWS,
    },
    "operations": {
        "export": NEEDS_STACK,
        "unset": "ends what the page does to a shell",
        "eval": BY_STACK,
        "grist status": BY_STACK,
        "grist doctor": BY_STACK,
        "grist run web": "tests/orchestration/test_announce.py, with a Prefect server in place of the stack",
        "grist kickoff": "tests/test_flows.py runs, cancels and continues one (house.kickoff)",
        "prefect deploy": BY_HOUSE,
        "prefect deployment run": "would train on the latest mixture; test_flows.py starts others",
        "prefect flow-run": BY_FLOWS,
        "prefect artifact inspect": BY_FLOWS,
    },
    "reasoning": {
        "python -m venv": SETS_UP,
        "/opt/vllm/bin/pip": SETS_UP,
        "grist run conf/reasoning.yaml --set recipe.engine.kind=vllm": "no GPU; tests/pipelines/test_reasoning_vllm.py",
    },
    "speech": {"pip install": SETS_UP, "grist serve": SERVES},
    "training": {"ray job submit": BY_JOB},
}
"""Page -> how a command begins -> why no walk runs it, or which test does."""
