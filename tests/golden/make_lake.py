"""Makes the golden lake of this lake format, once: `python tests/golden/make_lake.py`, from the repository root.

A golden lake is what a release left on people's disks. It is never made again: newer code has to read this one, and
a new format gets a new folder beside it (hence the name, and the refusal below). What the tests expect of it stands
in `lake-format-N.json`, written with it. Names of hosts and addresses of inputs are those of nobody's machine.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import stages.inputs
from lake.dataset import Dataset
from lake.gc import plan_gc, run_gc
from lake.manifest import InputFile
from lake.store import FORMAT, Store, open_store
from lake.versions import Versions
from pipelines.run import run_pipeline
from pipelines.web import WebConfig
from stages.runner import Runner

HERE = Path(__file__).parent
FOLDER = HERE / f"lake-format-{FORMAT}"
EXPECTED = HERE / f"lake-format-{FORMAT}.json"
HOST = "golden.example"
HOME_NAME = platform.node().encode()


def neutral_input(**fields: Any) -> InputFile:
    return InputFile(**{**fields, "names": tuple(f"crawl/{Path(name).name}" for name in fields["names"])})


def run(store: Store, inputs: Path, pattern: str, **recipe: Any) -> None:
    given = {"inputs": [f"{inputs}/{pattern}"], "max_quarantine_rate": 0.5, **recipe}
    run_pipeline(WebConfig.model_validate({"recipe": given}), store, Runner(store, workers=0))


def fill(store: Store, inputs: Path) -> None:
    """web@v1 (tagged `first`), web@v2 with one more input, and a limited version that was taken down."""
    run(store, inputs, "pages.warc")
    run(store, inputs, "*.warc*", max_quarantine_rate=0.4)
    run(store, inputs, "pages.warc", limit=5)
    versions = Versions(store)
    versions.tag("web", 1, "first")
    versions.withdraw("web.limit", 1, "a look, not a dataset")
    run_gc(store, plan_gc(store, grace_seconds=0))  # as people keep a lake


def expected(store: Store) -> dict[str, Any]:
    def facts(dataset: Dataset) -> dict[str, Any]:
        return {
            "digest": dataset.manifest.digest,
            "run_key": dataset.manifest.run_key,
            "rows": dataset.to_arrow().to_pylist(),
            "ledger": dataset.ledger().to_pylist(),
        }

    versions = Versions(store)
    return {str(m): facts(Dataset(store, m)) for m in versions.manifests("web")}


def main() -> None:
    if FOLDER.exists():
        sys.exit(f"{FOLDER} is there already and is never made again: a new lake format gets a new folder")
    with tempfile.TemporaryDirectory() as name:
        inputs = Path(name) / "crawl"
        shutil.copytree(HERE / "input", inputs, ignore=shutil.ignore_patterns(".*"))
        for path in inputs.iterdir():
            os.utime(path)  # too young for a note under inputs/, whose key would hash this folder's address
        store = open_store(str(Path(name) / "lake"))
        neutral = patch.object(stages.inputs, "InputFile", neutral_input)
        with neutral, patch.object(platform, "node", lambda: HOST), patch.object(os, "getpid", lambda: 1):
            fill(store, inputs)
        EXPECTED.write_text(json.dumps(expected(store), indent=1, ensure_ascii=False) + "\n")
        shutil.rmtree(Path(name) / "lake" / ".tmp", ignore_errors=True)
        for marker in (str(HERE.parents[1]).encode(), name.encode(), HOME_NAME):
            bad = [path for path in (Path(name) / "lake").rglob("*") if path.is_file() and marker in path.read_bytes()]
            if bad:
                sys.exit(f"not written: {marker!r} stands in {bad}")
        shutil.copytree(Path(name) / "lake", FOLDER)


if __name__ == "__main__":
    main()
