"""Two nights of speech, as programs that get killed run them: a manifest of segments with copies and odd files, then a
tar of it as well; long files that are cut in their pauses; and a tokenizer and a mixture over the two nights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from speech import RATE, SAYS, clip, encoded, waveform
from vision import folder_of, tar_of

from gristmill.lake.store.opening import open_store
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.registry import PIPELINES
from gristmill.stages.run.runner import Runner

DATASETS = ("speech", "segments", "bpe", "mix")
COMMON = {"max_quarantine_rate": 0.5, "scan": {"chunk_records": 6}, "shards": {"target_bytes": 150_000}}
MIXTURE = {
    "tokenizer": "bpe@v1",
    "sources": {"speech@v2": 1},
    "window": 256,
    "audio": {},
    "max_window_frames": 1500,
    "shard_frames": 2500,
    "max_waste": 0.5,
}
CUT = {"target_seconds": 4, "longest_seconds": 5, "least_pause": 0.3, "margin": 0.1}


def write_nights(folder: Path) -> None:
    """What comes in."""
    long = encoded(np.concatenate([waveform(seed) for seed in range(20, 23)]), format="FLAC")
    files = {f"{n}.wav": clip(n) for n in range(5)} | {"long.flac": long}
    files |= {"cut.wav": clip(30)[:9000], "empty.wav": encoded(np.zeros(0, np.float32))}
    lines: list[Any] = [{"audio": f"{n}.wav", "text": SAYS.format(n)} for n in range(5)]
    lines += [{"audio": "long.flac", "start": 2 * n, "end": 2 * n + 2, "text": SAYS.format(20 + n)} for n in range(3)]
    lines += [{"audio": name, "text": SAYS.format(1)} for name in ("cut.wav", "empty.wav", "nowhere.wav")]
    folder_of(folder / "first", [*lines, b"no line"], files)
    members: dict[str, bytes] = {}  # a record's beside each other: copies of the first night, and new ones
    for n in (*range(2), *range(40, 42)):
        members[f"{n}.ogg"] = clip(n, "OGG", rate=44_100)
        members[f"{n}.txt"] = SAYS.format(n).encode()
    tar_of(folder / "second.tar", members)
    quiet = np.zeros(RATE // 2, np.float32)
    parts = [np.concatenate([waveform(seed, 3.0), quiet]) for seed in range(50, 54)]
    paused = {f"{n}.flac": encoded(np.concatenate(parts[2 * n : 2 * n + 2]), format="FLAC") for n in range(2)}
    whole = [{"audio": name} for name in (*paused, "short.wav", "cut.wav")]
    folder_of(folder / "long", whole, {**paused, "short.wav": clip(60), "cut.wav": files["cut.wav"]})


def recipes(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """(pipeline, recipe) of each run, in turn."""
    first, long = (f"folder::{folder / name / 'lines.jsonl'}" for name in ("first", "long"))
    speech = COMMON | {"extends": "speech", "audio": {"language": "en"}}
    cut = {"task": "unlabelled", "cut": CUT}
    return [
        ("speech", {**speech, "inputs": [first]}),
        ("speech", {**speech, "inputs": [first, str(folder / "second.tar")]}),
        ("speech", {**COMMON, "dataset": "segments", "audio": cut, "inputs": [long]}),
        ("tokenizer", {"dataset": "bpe", "sources": ["speech@v2"], "train": {"vocab_size": 400}}),
        ("mixture", MIXTURE),
    ]


def run_in_process(folder: Path, lake: Path) -> None:
    """All of them, without Ray and without a child process."""
    for pipeline, recipe in recipes(folder):
        if pipeline == "speech":
            recipe = {**recipe, "audio": {**recipe["audio"], "seconds_per_record": None}}
        store = open_store(str(lake))
        run_pipeline(PIPELINES[pipeline].model_validate({"recipe": recipe}), store, Runner(store, workers=0))
