"""The README's output is what the demo prints: `python tests/test_readme.py --write` writes it anew.

A block of output stands behind a comment `<!-- made: NAME -->`. The demo's first increment is run in this process, on
the demo's own data, and each block is compared with what the commands say of it.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from typer.testing import CliRunner

from gristmill.lake.store.opening import open_store
from gristmill.orchestration.cli.main import app
from gristmill.pipelines.frame.result import last_line
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.web import WebConfig
from gristmill.stages.run.runner import Runner
from gristmill.synth.sample import write_sample

README = Path(__file__).parents[1] / "README.md"
WRITE = "python tests/test_readme.py --write"
BLOCK = re.compile(r"<!-- made: (?P<name>[a-z-]+) -->\n```\n(?P<text>.*?)```\n", re.DOTALL)


def first_increment(folder: Path) -> dict[str, str]:
    """The blocks by name."""
    write_sample(folder / "data")
    store = open_store(str(folder / "lake"))
    recipe = {"inputs": [str(folder / "data" / "crawl" / "*")], "extends": "web"}
    result = run_pipeline(WebConfig.model_validate({"recipe": recipe}), store, Runner(store, workers=0))
    shown = CliRunner().invoke(app, ["show", "web", "--lake", store.uri])
    assert shown.exit_code == 0, shown.output
    digest = result.manifest.digest
    return {"show": shortened(shown.output), "result": last_line(result).replace(digest, "...") + "\n"}


def shortened(shown: str) -> str:
    """`grist show` as far as the funnel goes, without the lines that differ from run to run."""
    lines = [line.rstrip() for line in shown.splitlines()]
    head = [lines[0], next(line for line in lines if line.startswith("records"))]
    first, last = lines.index("Funnel"), next(i for i, line in enumerate(lines) if line.startswith("Inputs"))
    return "\n".join(["$ grist show web", *head, "...", "", *lines[first : last - 1], "...", ""])


def test_the_readme_shows_what_the_demo_prints(tmp_path: Path) -> None:
    printed = first_increment(tmp_path)
    shown = {match["name"]: match["text"] for match in BLOCK.finditer(README.read_text())}
    assert shown == printed, f"the output has changed: {WRITE}"


def write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        blocks = first_increment(Path(folder))
    text = README.read_text()
    for name, block in blocks.items():
        pattern = re.compile(rf"(<!-- made: {name} -->\n```\n).*?(```\n)", re.DOTALL)
        text, n = pattern.subn(lambda match, block=block: match[1] + block + match[2], text)  # type: ignore[misc]
        assert n == 1, f"README.md has {n} blocks `<!-- made: {name} -->`"
    README.write_text(text)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: {WRITE}")
    write()
