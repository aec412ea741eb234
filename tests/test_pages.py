"""Pages of docs/, walked: each command that needs no server is given, and each block of Python runs on what it wrote.

docs/extending.md has a test of its own, tests/test_extending.py, since it changes the tree.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import lake_builder
import pytest
from exchanges import TEXTS
from mixtures import documents
from typer.testing import CliRunner

from gristmill.lake.store.opening import open_store
from gristmill.orchestration.cli.main import app

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("architecture", "exchange")
BLOCKS = re.findall(r"```python\n(.*?)```", (DOCS / "exchange.md").read_text(), re.DOTALL)
NAMES = [re.findall(r"^import (\w+)", block, re.MULTILINE)[-1] for block in BLOCKS]


def commands(page: str) -> list[str]:
    """Lines of its blocks of bash."""
    blocks = re.findall(r"```bash\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> dict[str, str]:
    """What each command says, in a folder with a lake and the sample data; the folder itself by `folder`."""
    folder = tmp_path_factory.mktemp("pages")
    lakes = {page: folder / f"lake-{page}" for page in PAGES}
    documents(open_store(str(lakes["exchange"])), "web", TEXTS, shards=2)
    lake_builder.commit(open_store(str(lakes["architecture"])), "web", lake_builder.mixed_pages())
    (folder / "demo").symlink_to(sample)
    outputs = {"folder": str(folder)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for page, lake in lakes.items():
            patch.setenv("GRIST_LAKE", str(lake))
            for line in commands(page):
                if line.startswith("grist ") and "--push" not in line:  # tests/orchestration/test_hub.py gives that one
                    done = CliRunner().invoke(app, shlex.split(line)[1:])
                    assert done.exit_code == 0, (line, done.output)
                    outputs[line] = done.stdout
    return outputs


@pytest.mark.parametrize("page", PAGES)
def test_its_commands_are_given(outputs: dict[str, str], page: str) -> None:
    assert [
        line for line in commands(page) if line.startswith("grist ") and not outputs.get(line, "--push" in line)
    ] == []


def test_what_architecture_shows_is_there(outputs: dict[str, str]) -> None:
    plan, show, lineage, verify = (outputs[line] for line in commands("architecture"))
    assert '"todo"' in plan and "web@v1" in show and "web@v1" in lineage
    assert "nothing is wrong" in " ".join(verify.split())


@pytest.mark.parametrize("block", BLOCKS, ids=NAMES)
def test_python_of_exchange_runs(outputs: dict[str, str], block: str, tmp_path: Path, monkeypatch, capsys) -> None:
    for module in re.findall(r"^import (\w+)", block, re.MULTILINE):
        pytest.importorskip(module)
        if module == "datasets":
            monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.chdir(outputs["folder"])
    exec(compile(block, "docs/exchange.md", "exec"), {})
    shown = capsys.readouterr().out
    assert TEXTS[0] in shown or "30" in shown
