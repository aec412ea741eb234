"""docs/exchange.md, walked: each command that needs no hub is given, and each block of Python runs on what it wrote."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from exchanges import TEXTS
from mixtures import documents
from typer.testing import CliRunner

from gristmill.lake.store.opening import open_store
from gristmill.orchestration.cli.main import app

PAGE = (Path(__file__).parents[1] / "docs" / "exchange.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's commands were given."""
    folder = tmp_path_factory.mktemp("page")
    documents(open_store(str(folder / "lake")), "web", TEXTS, shards=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GRIST_LAKE", str(folder / "lake"))
        for line in COMMANDS:
            if line.startswith("grist ") and "--push" not in line:
                done = CliRunner().invoke(app, shlex.split(line)[1:])
                assert done.exit_code == 0, (line, done.output)
    return folder


def test_its_commands_are_given(folder: Path) -> None:
    assert [path.name for path in sorted(folder.iterdir())] == ["lake", "web-hf", "web-parquet", "web-tars"]
    assert sum("--push" in line for line in COMMANDS) == 1  # tests/orchestration/test_hub.py gives that one


@pytest.mark.parametrize(
    "block", BLOCKS, ids=[re.findall(r"^import (\w+)", block, re.MULTILINE)[-1] for block in BLOCKS]
)
def test_its_python_runs(folder: Path, block: str, tmp_path: Path, monkeypatch, capsys) -> None:
    for module in re.findall(r"^import (\w+)", block, re.MULTILINE):
        pytest.importorskip(module)
        if module == "datasets":
            monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.chdir(folder)
    exec(compile(block, "docs/exchange.md", "exec"), {})
    shown = capsys.readouterr().out
    assert TEXTS[0] in shown or "30" in shown
