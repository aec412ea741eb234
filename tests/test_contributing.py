"""CONTRIBUTING, walked: what it says a filter and a stage cost is what they cost, in a copy of this tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("filters", "synth", "model", "lake", "stages", "pipelines", "orchestration", "gristmill", "conf", "tests")

FILTER = '''"""Shouting: texts with many capitals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import pyarrow as pa

from gristmill.filters.base import Filter, above, first_reason
from gristmill.filters.text.docs import Docs


@dataclass(frozen=True)
class Shouting(Filter[Docs]):
    """`max_capitals`: of the characters of a text."""

    name: ClassVar[str] = "shouting"
    VERSION: ClassVar[int] = 1
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType({"too_loud": "capitals"})

    max_capitals: float | None = 0.05

    def measure(self, docs: Docs, /) -> pa.RecordBatch:
        shares = [sum(map(str.isupper, text)) / max(len(text), 1) for text in docs.strings]
        return pa.RecordBatch.from_arrays([pa.array(shares, pa.float64())], ["capitals"])

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        failed = above(measures["capitals"], self.max_capitals)
        return first_reason(self.name, measures.num_rows, [("too_loud", failed)])
'''

STEP = '''"""A stage that drops texts of an odd number of bytes, and its place in a flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef
from gristmill.pipelines.frame.flow import State
from gristmill.stages.core.fates import Fates
from gristmill.stages.core.records import KEYS, Chunk, Passed, alive_batches, put_verdicts, read_refs
from gristmill.stages.core.work import Outcome, Stage, Work


@dataclass(frozen=True)
class OddPayload:
    chunk: Chunk
    exclusions: ObjectRef


@dataclass(frozen=True)
class Odd(Stage[OddPayload]):
    name: ClassVar[str] = "odd"
    VERSION: ClassVar[int] = 1

    def run(self, store: Store, work: Work[OddPayload]) -> Outcome:
        fates, rows, received, size = Fates(), [], Tally(), 0
        exclusions = read_refs(store, work.payload.exclusions)
        for batch in alive_batches(store, work.payload.chunk, [*KEYS, "text"], exclusions):
            received += ledger.tally(batch)
            for row in batch.to_pylist():
                length = len(row.pop("text").encode())
                reason = "odd.length" if length % 2 else None
                rows.append({**row, "reason": reason})
                if reason is None:
                    size += length
                else:
                    fates.add(row, "dropped", reason, length)
        keys = {name: [row[name] for row in rows] for name in (*KEYS, "reason")}
        table = pa.table(keys)
        written, counts = fates.write(store)
        passed = ledger.tally(pa.Table.from_pylist([r for r in rows if r["reason"] is None], table.schema))
        return Outcome(
            outputs=(put_verdicts(store, table), written),
            received=received,
            passed=passed,
            dropped=counts.dropped,
            reasons=counts.reasons,
            facts=Passed(size),
        )


@dataclass(frozen=True)
class OddLengths:
    stages: ClassVar[tuple[Stage[Any], ...]] = (Odd(),)
    deciders: ClassVar[tuple[str, ...]] = ("odd",)
    grows: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def run(self, run: Any, state: State) -> State:
        store, records = run.runner.store, state.records
        excluded = records.put_exclusions(store)
        works = [
            Work(self.stages[0], (*chunk.digests, excluded.sha256), OddPayload(chunk, excluded), label=chunk.label)
            for chunk in records.chunks
        ]
        done = run.runner.map("odd", works)
        return state.after(records.judged("odd", done, ()), done)
'''

TEXTS = [
    "the miller took the grain that we brought to the mill and of it made flour with a stone. " * 6,
    "the Miller Took the Grain that We Brought to the Mill and of It Made Flour with a Stone. " * 6,
    "the river and the road that we have to the mill are as old as the bridge of the market. " * 7 + "x",
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what a contributor changes, with the tools' settings."""
    folder = tmp_path / "tree"
    folder.mkdir()
    hidden = shutil.ignore_patterns("__pycache__", "golden")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=hidden)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run(tree: Path, *command: str | Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tree), str(tree / "tests")])}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def add_line(file: Path, behind: str, line: str) -> None:
    """Exactly one line, behind the only one that begins so."""
    lines = file.read_text().splitlines()
    (at,) = [n for n, text in enumerate(lines) if text.startswith(behind)]
    file.write_text("\n".join([*lines[: at + 1], line, *lines[at + 1 :]]) + "\n")


def funnel_of(tree: Path) -> dict[str, dict[str, int]]:
    """Stage -> reasons, of the version that the web pipeline makes of TEXTS."""
    inputs = tree / "in.jsonl"
    inputs.write_text(
        "".join(json.dumps({"text": t, "url": f"https://a.example/{n}"}) + "\n" for n, t in enumerate(TEXTS))
    )
    settings = [f"recipe.inputs=[{inputs}]", "recipe.language.min_score=0", "recipe.minhash=null", "run.workers=0"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    run(tree, sys.executable, "-m", "pipelines", "run", "conf/web.yaml", "--lake", str(tree / "lake"), *arguments)
    code = """
import gristmill, json, sys
funnel = gristmill.open("web", sys.argv[1]).manifest.funnel
print(json.dumps({row.stage: row.dropped for row in funnel}))
"""
    result: dict[str, dict[str, int]] = json.loads(run(tree, sys.executable, "-c", code, str(tree / "lake")))
    return result


def test_a_filter_is_one_file_one_key_and_one_row(tree):
    (tree / "filters" / "shouting.py").write_text(FILTER)
    web, table = tree / "pipelines" / "web.py", tree / "tests" / "filters" / "test_contract.py"
    for file, behind, line in (
        (web, "    gopher_quality: ", "    shouting: Shouting = Shouting()"),
        (table, "    GopherQuality(),", "    Shouting(),"),
    ):
        add_line(file, behind, line)
        add_line(file, "from gristmill.filters.gopher import", "from gristmill.filters.shouting import Shouting")
    run(tree, sys.executable, "tests/conf_files.py", "--write")
    assert '  shouting: {"max_capitals": 0.05}\n  c4_quality:' in (tree / "conf" / "web.yaml").read_text()
    files = (str(table), "tests/pipelines/test_config.py")
    run(tree, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", "test_contract or shipped")
    run(tree, Path(sys.executable).parent / "lint-imports", "--no-cache")
    assert funnel_of(tree)["shouting"] == {"shouting.too_loud": 1}


def test_a_stage_is_one_file_and_one_line_of_a_flow(tree):
    (tree / "pipelines" / "odd.py").write_text(STEP)
    web = tree / "pipelines" / "web.py"
    add_line(web, "        steps: list[Step] = ", "        steps.append(OddLengths())")
    add_line(web, "from gristmill.pipelines.frame.flow import", "from gristmill.pipelines.odd import OddLengths")
    run(tree, Path(sys.executable).parent / "lint-imports", "--no-cache")
    assert funnel_of(tree)["odd"] == {"odd.length": 1}
