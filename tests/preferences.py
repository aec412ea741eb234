"""Small lakes of preferences: pairs, and a mixture of them, for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixtures import documents, mix, texts, tokenizer

from gristmill.lake.store.base import Store
from gristmill.pipelines.frame.result import Result
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.preference import PreferenceConfig
from gristmill.stages.run.runner import Runner


def pair(i: int) -> dict[str, Any]:
    """A question with the answer that is wanted, which is polite, and one that is not."""
    return {"prompt": f"Where is mill {i}?", "chosen": f"Please follow road {i}.", "rejected": f"Find it, {i}!"}


def preferences(store: Store, folder: Path, rows: Sequence[Any], name: str = "taste", **preference: Any) -> Result:
    """A version by the preference pipeline. A row that is bytes stands in the file as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.jsonl"
    file.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    recipe = {"dataset": name, "inputs": [str(file)], "preference": preference, "max_quarantine_rate": 1.0}
    return run_pipeline(PreferenceConfig.model_validate({"recipe": recipe}), store, Runner(store, workers=0))


def prepare_pairs(store: Store, folder: Path, count: int = 60, window: int = 128) -> None:
    """`web@v1`, `bpe@v1`, `taste@v1` and `pairs@v1`, a mixture of windows of pairs."""
    documents(store, "web", texts(40, longest=60))
    tokenizer(store, "web@v1")
    preferences(store, folder, [pair(i) for i in range(count)])
    mix(store, {"taste@v1": {"weight": 1, "max_epochs": 1}}, window=window, dataset="pairs")
