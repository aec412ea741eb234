"""docs/speech.md, given in its order on few clips: from files to a model that hears, and a takedown."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import speech
from page_commands import ROOT, Walk, text_of

from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions

SMALL = "--pages 100 --stories 10 --copying 10 --scenes 4 --speech 40"
STEPS = " ".join(f"--set recipe.stages.{stage}.steps=2" for stage in range(2))
SIZES = "--set recipe.generate='{max_tokens: 6, context: 512}' --set recipe.bootstrap.resamples=100"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which all commands are given."""
    folder = tmp_path_factory.mktemp("speech")
    with pytest.MonkeyPatch.context() as patch:
        (folder / "conf").symlink_to(ROOT / "conf")  # a reader is in the checkout
        patch.chdir(folder)
        patch.setenv("GRIST_LAKE", str(folder / "lake"))
        patch.setenv("COLUMNS", "120")
        patch.delenv("PREFECT_API_URL", raising=False)
        yield folder


def _files(folder: Path) -> None:
    """A long recording with a pause in the middle; questions in words; the recipe of the page; a clip."""
    (folder / "talks").mkdir()
    half = speech.waveform(1, seconds=18)
    talk = np.concatenate([half, np.zeros(2 * speech.RATE, np.float32), speech.waveform(2, seconds=18)])
    (folder / "talks" / "talk.flac").write_bytes(speech.encoded(talk, format="FLAC"))
    rows = [{"question": f"How many mills are {i} mills and two?", "answer": f"{i + 2}"} for i in range(3)]
    (folder / "questions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (recipe,) = re.findall(r"```\n(pipeline: train\n.*?)```", text_of("speech"), re.DOTALL)
    (folder / "train.yaml").write_text(recipe)
    (folder / "clip.flac").write_bytes(speech.clip(3, "FLAC"))


def _named_in_a_request(folder: Path) -> None:
    """Lists of what is to go: the long recording by its content; a page, a host and a record that nothing came from."""
    talk = (folder / "talks" / "talk.flac").read_bytes()
    lists = {"sha256": hashlib.sha256(talk).hexdigest(), "urls": "https://example.org/1", "domains": "example.org"}
    for name, line in {**lists, "ids": "0" * 32}.items():
        (folder / f"{name}.txt").write_text(f"{line}\n")


@pytest.fixture(scope="module")
def page(folder: Path) -> dict[str, str]:
    """What its commands say."""
    pytest.importorskip("espeakng_loader", reason="the extra `speech` is not installed")
    _files(folder)
    walk = Walk(
        "speech",
        more={
            "grist sample-data": SMALL,
            "grist run": "--set run.workers=0",
            "grist train": STEPS,
            "grist eval": SIZES,
            "grist ask": "--max-tokens 4",
        },
        before={"grist forget --media": lambda: _named_in_a_request(folder)},
    )
    with pytest.MonkeyPatch.context() as patch:
        return walk.run(patch)


def test_files_are_cut_and_words_spoken(page: dict[str, str], folder: Path) -> None:
    versions = Versions(open_store(str(folder / "lake")))
    cut = versions.manifest("segments", 1)
    assert cut.kept.count == 2 and cut.statistics["cut"]["segments"] == 2, "one on each side of the pause"
    assert versions.manifest("spoken", 1).kept.count == 3


def test_a_model_is_trained_asked_and_scored(page: dict[str, str], folder: Path) -> None:
    versions = Versions(open_store(str(folder / "lake")))
    assert versions.manifest("hear.a1", 1).parent is None and versions.numbers("hear.words") == [1]
    shown = page["grist show eval"]
    assert re.search(r"transcript +wer +all +\d", shown) and re.search(r"transcript +cer +all +\d", shown)
    trained_on = {str(ref) for ref in versions.manifest("hear.a1", 1).sources}
    assert {"heard@v1", "hear.words@v1", "bpe@v1"} <= trained_on


def test_a_takedown_is_shown_and_then_done(page: dict[str, str], folder: Path) -> None:
    shown, done, others = (output for line, output in page.items() if line.startswith("grist forget"))
    assert "segments: 2 texts" in shown and "Nothing was changed" in shown
    assert "segments@v2 is without them" in done and "withdrawn: v1" in done
    assert "On the suppression list" in others
    assert Versions(open_store(str(folder / "lake"))).manifest("segments", 2).kept.count == 0
