"""What README and docs show is what is: `python tests/test_readme.py --write` writes it anew.

A block of output stands behind a comment `<!-- made: NAME -->`: the demo's first increment is run in this process, on
the demo's own data, and each block is compared with what the commands say of it. README's table of figures, behind
`<!-- made: figures -->`, is that of FIGURES with the numbers of benchmarks/results.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from gristmill.lake.store.opening import open_store
from gristmill.orchestration.cli.main import app
from gristmill.pipelines.frame.result import last_line
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.web import WebConfig
from gristmill.stages.run.runner import Runner
from gristmill.synth.sample import write_sample

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DATASETS = ROOT / "docs" / "datasets.md"
WRITE = "python tests/test_readme.py --write"
BLOCK = re.compile(r"<!-- made: (?P<name>[a-z-]+) -->\n```\n(?P<text>.*?)```\n", re.DOTALL)
TABLE = re.compile(r"<!-- made: figures -->\n(.*?)\n\n", re.DOTALL)
ONE_PAGE = 140
"""Lines of README, which is to be read at once."""


class Shown(NamedTuple):
    """A figure of README: the row `row` of benchmarks/results/`file`.json, put into `form`. `times`: what it is
    multiplied by, for another unit."""

    what: str
    against: str
    file: str
    row: str
    form: str = "{:.1f}x"
    times: float = 1.0


FIGURES = (
    Shown("WARC to shards", "datatrove, same extractor", "pipeline", "web pipeline over datatrove's"),
    Shown("the same, languages told before the extraction", "datatrove, same extractor", "pipeline",
          "with language first over datatrove's"),
    Shown("the same, trained extractor", "datatrove, its default extractor", "pipeline",
          "trained over datatrove's with trafilatura"),
    Shown("a page to its main text, trained extractor", "trafilatura", "extraction",
          "trained extractor over trafilatura", "{:.0f}x"),
    Shown("boundary scan and read", "FastWARC, one pass, nothing counted", "containers",
          "pages.warc.gz: scan + read costs, times FastWARC", "**{:.1f}x slower**"),
    Shown("Gopher quality and repetition, C4, FineWeb, every verdict and reason equal", "datatrove", "gopher",
          "Gopher quality and repetition, C4, FineWeb (unseen memo) over datatrove's", "{:.0f}x"),
    Shown("50,000 texts to what is kept of near duplicates", "datatrove's four stages", "dedup",
          "from 50,000 texts: datatrove's four stages (1 run) over ours", "{:.0f}x"),
    Shown("20,000,000 signatures linked by 2 workers", "memory of all processes", "dedup_memory",
          "link to clusters, summed peak", "{:.2f} GB", 0.001),
    Shown("text to tokens, one thread", "datatrove", "tokenize",
          "text to tokens, against datatrove's DocumentTokenizer", "{:.2f}x"),
    Shown("windows in a random order of all", "webdataset, in tar order", "reader",
          "a CPU-second, gristmill, random order of all over webdataset, shuffle(1000)"),
    Shown("resume at 90% of an epoch", "webdataset, which replays", "reader",
          "first sample after a resume at 90 %, webdataset's replay over ours", "{:.0f}x"),
    Shown("generation, 64 slots, one thread", "transformers, batches of 64", "generate",
          "continuous batching, 64 slots, over transformers.generate in batches of as many"),
    Shown("a packed window, forward and backward", "rows of equal length", "packing",
          "a packed window's cost, of rows of the same lengths", "**{:.2f}x slower**"),
    Shown("picture of 1080 x 1920 to pixels, every bit equal", "transformers", "image",
          "an image to float pixels, faster than transformers"),
    Shown("30 s of speech to log-Mel, exact", "transformers", "audio",
          "30 seconds to log-Mel, exact, faster than transformers"),
    Shown("tokens for 4 right chains of a problem, adaptive", "a fixed number of samples", "adaptive",
          "recorded: Qwen2.5-Math on 44 problems of MATH; up to 4 of a problem, as many chains: fixed N costs",
          "{:.1f}x fewer"),
    Shown("a final answer in maths verified, verdicts equal", "math-verify alone", "verify",
          "math-verify alone costs, times the tiers", "{:.0f}x"),
)  # fmt: skip
"""Of every part the row that says most, the slower ones among them."""


def figures() -> str:
    """The table of FIGURES. Raises ValueError for a row that the results do not have."""
    lines = ["| what | against | figure |", "|---|---|---|"]
    for shown in FIGURES:
        report = json.loads((ROOT / "benchmarks" / "results" / f"{shown.file}.json").read_text())
        (row,) = [row for row in report["rows"] if row["what"] == shown.row]
        number = shown.form.format(row["figure"]["median"] * shown.times)
        lines.append(f"| {shown.what} | {shown.against} | {number} |")
    return "\n".join(lines)


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


def test_the_docs_show_what_the_demo_prints(tmp_path: Path) -> None:
    printed = first_increment(tmp_path)
    shown = {match["name"]: match["text"] for match in BLOCK.finditer(DATASETS.read_text())}
    assert shown == printed, f"the output has changed: {WRITE}"


def test_the_readme_has_the_figures_of_the_benchmarks() -> None:
    (shown,) = TABLE.findall(README.read_text())
    assert shown == figures(), f"the results have changed: {WRITE}"


def test_a_row_that_is_gone_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "FIGURES", (FIGURES[0]._replace(row="gone"),))
    with pytest.raises(ValueError, match="not enough values"):
        figures()


def test_the_readme_is_one_page() -> None:
    assert len(README.read_text().splitlines()) <= ONE_PAGE


def write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        blocks = first_increment(Path(folder))
    text = DATASETS.read_text()
    for name, block in blocks.items():
        pattern = re.compile(rf"(<!-- made: {name} -->\n```\n).*?(```\n)", re.DOTALL)
        text, n = pattern.subn(lambda match, block=block: match[1] + block + match[2], text)  # type: ignore[misc]
        assert n == 1, f"{DATASETS.name} has {n} blocks `<!-- made: {name} -->`"
    DATASETS.write_text(text)
    text, n = TABLE.subn(lambda _: f"<!-- made: figures -->\n{figures()}\n\n", README.read_text())
    assert n == 1, f"README.md has {n} tables `<!-- made: figures -->`"
    README.write_text(text)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: {WRITE}")
    write()
