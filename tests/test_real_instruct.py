"""Real instruction data (GSM8K, MATH, MBPP, HumanEval): nothing is lost, and what is learned are the answers."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gristmill.lake.query.dataset import Dataset
from gristmill.lake.store.base import Store
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.instruct import InstructConfig
from gristmill.stages.run.runner import Runner
from gristmill.stages.text.instruct import parts_of


def parts(store: Store, name: str, file: Any, **instruct: Any) -> list[list[Any]]:
    recipe = {"dataset": name, "inputs": [str(file)], "instruct": instruct}
    manifest = run_pipeline(InstructConfig.model_validate({"recipe": recipe}), store, Runner(store, workers=0)).manifest
    assert (manifest.kept.count, manifest.quarantined.count) == (len(file.read_text().splitlines()), 0)
    rows = Dataset(store, manifest).to_arrow().select(["text", "parts"]).to_pylist()
    return [parts_of(row["text"], row["parts"]) for row in rows]


@pytest.mark.parametrize(
    ("name", "prompt", "response", "remove"),
    [
        ("gsm8k_train", "question", "answer", ["<<[^<>]*>>"]),
        ("math_test", "problem", "solution", []),
        ("mbpp", "text", "code", []),
    ],
)
def test_the_answers_are_learned_and_nothing_else(store, shared_data, name, prompt, response, remove):
    file = shared_data / "3_math_code" / f"{name}.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    segments = parts(store, name, file, form="pair", prompt=prompt, response=response, remove=remove)
    for line, sample in zip(lines, segments, strict=True):
        learned = "".join(part.text for part in sample if part.loss_mask)
        answer = line[response]
        for pattern in remove:
            answer = re.sub(pattern, "", answer)
        assert learned == answer + "<|end|>"
        assert [part.text for part in sample if not part.loss_mask] == [
            "<|user|>", line[prompt], "<|end|>", "<|assistant|>", "<|endoftext|>",
        ]  # fmt: skip


def test_functions_have_their_holes_and_all_their_characters(store, shared_data):
    file = shared_data / "3_math_code" / "humaneval.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    segments = parts(store, "humaneval", file, form="code", code=["prompt", "canonical_solution"])
    holes = 0
    for line, sample in zip(lines, segments, strict=True):
        whole = line["prompt"] + line["canonical_solution"]
        plain = [part.text for part in sample if not part.special]
        holes += sample[0].special
        assert "".join(plain) == whole if not sample[0].special else sorted("".join(plain)) == sorted(whole)
    assert 25 < holes < 57  # half of 82
