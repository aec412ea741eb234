"""An evaluation that is killed loses the piece that it was at, and no other."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import evaluations
from waiting import PATIENCE

from gristmill.lake.accounts.receipt import finished
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.evaluate import Evaluation
from gristmill.stages.evaluate.work import evaluate_works
from gristmill.stages.run.runner import Runner

ROOT = Path(__file__).parents[2]
KILLED = """
import os, signal, sys
from pathlib import Path
from gristmill.pipelines.command import Request, run
from gristmill.stages.core import work

write, written = work.write_receipt, []

def then_killed(*args, **kwargs):
    written.append(write(*args, **kwargs))
    if len(written) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return written[-1]

work.write_receipt = then_killed
run(Request(Path(sys.argv[1]), (), sys.argv[2]))
"""
"""Runs a config, and is killed when its third receipt is written."""


def test_a_kill_costs_no_piece_that_has_its_receipt(tmp_path):
    store = open_store(str(tmp_path / "lake"))
    evaluations.lake(store, tmp_path)
    config = evaluations.config(["math@v1"], chunk_items=2)
    evaluation = Evaluation.of(config.recipe, Versions(store))
    keys = [work.key for work in evaluate_works(evaluation.stage, evaluation.pieces)]
    file = tmp_path / "evaluate.yaml"
    file.write_text(config.model_copy(update={"run": config.run.model_copy(update={"workers": 0})}).model_dump_json())
    command = [sys.executable, "-c", KILLED, str(file), store.uri]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL, process.stderr
    sealed = {key: receipt for key in keys if (receipt := finished(store, key)) is not None}
    assert len(sealed) == 3 and len(keys) == 6 and Versions(store).numbers("eval") == []

    runner = Runner(store, workers=0)
    result = evaluations.evaluate(store, ["math@v1"], runner, chunk_items=2)
    assert ("evaluate", 3, 3) in runner.history and result.manifest.kept.count == 12
    assert all(finished(store, key) == receipt for key, receipt in sealed.items())
