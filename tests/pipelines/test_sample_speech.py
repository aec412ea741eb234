"""Generated speech through the speech pipeline: every row of every task, in three containers, becomes a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from generated_speech import NAMES, clips
from lessons import address
from speech import run
from vision import fates, rows

from gristmill.lake.store.opening import open_store
from gristmill.model.processing.segments import SEPARATOR
from gristmill.synth.speech.sample import write_speech

pytest.importorskip("espeakng_loader", reason="the extra `speech` is not installed")

TASKS: dict[str, dict[str, Any]] = {
    "digits": {"task": "asr", "prompts": ["What is said?"]},
    "phrases": {"task": "asr", "prompts": ["What is said?"]},
    "questions": {"task": "sqqa"},
    "scenes": {"task": "sqqa", "max_images": 1},
    "translations": {"task": "ast_cot"},
    "listening": {"task": "sqa"},
    "sounds": {"task": "understanding"},
    "reports": {"task": "summary"},
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """speech/, few rows of each file."""
    folder = tmp_path_factory.mktemp("sample")
    write_speech(folder, rows=24, held_out=8, seed=5)
    return folder / "speech"


@pytest.mark.parametrize("name", NAMES)
def test_every_row_becomes_a_sample(sample: Path, tmp_path: Path, name: str) -> None:
    store = open_store(str(tmp_path))
    addresses = [address(sample, file) for file in (name, f"{name}-held-out")]
    generated = [row for file in (name, f"{name}-held-out") for row in clips(sample, file)]
    limits = {"clip": {"max_seconds": 1800}} if name == "reports" else {}
    manifest = run(store, addresses, audio=TASKS[name], min_similarity=None, **limits)
    assert {fate for fate, _ in fates(store, manifest).values()} == {"kept"}
    kept = {row["media"][-1]["data"]: row for row in rows(store, manifest)}
    assert len(kept) == len(generated)
    for row in generated:
        sample_of_row, fields = kept[row.data], row.fields
        answer = fields.get("answer") or fields.get("summary") or fields["text"]
        if name == "translations":
            answer = f"{fields['text']} {SEPARATOR} {fields['translation']}"
        assert f"<|assistant|>{answer}<|end|>" in sample_of_row["text"]
        assert sample_of_row["language"] == fields["language"] and sample_of_row["source"] == fields["source"]
        user = sample_of_row["text"].partition("<|end|>")[0]
        if name == "scenes":
            assert user == "<|user|><|image_1|><|audio_1|>" and sample_of_row["media"][0]["data"] == row.picture
        elif name in ("listening", "sounds"):
            assert user == f"<|user|><|audio_1|>{fields['question']}"
        elif name in ("digits", "phrases"):
            assert user == "<|user|><|audio_1|>What is said?"
