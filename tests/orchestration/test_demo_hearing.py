"""The demo's hearing: what it draws, reads and counts, and that it says what is missing where there is no voice."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from speech import encoded

from gristmill.orchestration.demo import __main__ as demo
from gristmill.orchestration.demo import figure, hearing
from gristmill.orchestration.demo.figure import HEIGHT, RIGHT, WIDTH, WRONG, Answer, Panel, write_figure
from gristmill.orchestration.demo.terminal import FOLDER
from gristmill.orchestration.show.spectrogram import clip_picture
from gristmill.synth.speech.sample import write_speech

RATE = 16_000


def tone(hertz: float, seconds: float = 0.5) -> bytes:
    """A clip of a sine."""
    time = np.arange(round(seconds * RATE)) / RATE
    return encoded((0.3 * np.sin(2 * np.pi * hertz * time)).astype(np.float32), RATE)


@pytest.mark.parametrize("kilohertz", figure.KILOHERTZ)
def test_a_frequency_is_named_where_its_tone_is_drawn(kilohertz: float) -> None:
    light = clip_picture(tone(1000 * kilohertz), WIDTH).astype(int).sum(2).mean(1)
    assert abs(light.argmax() * HEIGHT / len(light) - figure.row_of(1000 * kilohertz)) <= HEIGHT / 80


def test_words_that_are_not_as_expected_are_marked() -> None:
    def of(expected: str, answer: str) -> list[tuple[str, bool]]:
        return list(figure.marked(expected.split(), answer.split()))

    assert of("4 2 7", "4 2 7") == [("4", True), ("2", True), ("7", True)]
    assert of("4 2 7", "4 9 7") == [("4", True), ("9", False), ("7", True)]
    assert of("4 2 7", "4 7") == [("4", True), ("-", False), ("7", True)]
    assert of("4 2 7", "4 2 7 7") == [("4", True), ("2", True), ("7", True), ("7", False)]
    assert of("4", "") == [("-", False)] and of("", "4") == [("4", False)]


def test_a_figure_has_one_scale_and_shows_pictures_and_answers(tmp_path: Path) -> None:
    sight = Image.new("RGB", (64, 64), (10, 20, 240))
    sight.save(tmp_path / "sight.png")
    right, wrong = Answer("heard:", "4 2", "4 2", by_word=True), Answer("heard:", "4 2", "7")
    short = Panel("short", tone(1000, 0.5), (right,), (tmp_path / "sight.png").read_bytes())
    long = Panel("long", tone(1000, 1.0), (wrong,))
    write_figure(tmp_path / "figure.png", "Two clips", [short, long])
    pixels = np.array(Image.open(tmp_path / "figure.png").convert("RGB")).astype(int)
    colours = {tuple(colour) for colour in pixels.reshape(-1, 3)}
    assert {(10, 20, 240), RIGHT, WRONG} <= colours
    # What is dark and no letter is a spectrogram: a row through both has as many such pixels as the clips are long.
    halves = np.array_split(pixels, 2, axis=1)
    dark = [int(((half.sum(2) < 300) & (half[..., 2] > half[..., 1])).sum(1).max()) for half in halves]
    assert dark[1] == pytest.approx(WIDTH, abs=40) and dark[0] - 128 < 0.6 * dark[1]


def test_rows_are_read_with_what_is_said_and_what_is_answered(tmp_path: Path) -> None:
    write_speech(tmp_path, rows=2, held_out=2)
    digits = hearing.rows_of_tar(tmp_path / "speech" / "digits-voices.tar", 9)
    scenes = hearing.rows_of_tar(tmp_path / "speech" / "scenes-held-out.tar", 9)
    sums = hearing.rows_of_parquet(tmp_path / "speech" / "questions-held-out.parquet", 9)
    assert [len(rows) for rows in (digits, scenes, sums)] == [2, 2, 2]
    for row in digits:
        assert row.words == row.answer and set(row.words) <= set("0123456789 ") and row.picture is None
    for row in (*scenes, *sums):
        assert row.words.endswith("?") and row.answer != row.words and row.clip.startswith(b"fLaC")
    assert all(row.picture is not None and row.picture.startswith(b"\x89PNG") for row in scenes)


def test_a_word_error_rate_is_of_all_words() -> None:
    assert hearing.words_wrong(["1 2 3 4", "5"], ["1 2 3 4", "6"]) == 1 / 5
    assert hearing.words_wrong(["1 2"], [""]) == 1


def test_stages_start_from_what_was_trained_before_or_from_each_other() -> None:
    config = hearing.stages_upon("seeing")
    stages = {stage["name"]: stage for stage in config["recipe"]["stages"]}
    assert {name: stage["steps"] for name, stage in stages.items()} == hearing.STEPS
    assert stages["a1"]["init_from"] == {"language": "seeing.posttrain@v1"}
    assert stages["vs"]["init_from"]["vision_encoder"] == "seeing.v4@v1"
    assert stages["vs"]["init_from"]["audio_projector_vision"] == "stage:a2/audio_projector_speech"


def test_without_espeak_the_demo_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    acts: list[tuple[str, Any]] = []

    def grist(*arguments: str) -> str:
        acts.append(("grist", arguments))
        return "{}"

    monkeypatch.chdir(tmp_path)  # and back behind the demo, which goes to the project's root
    monkeypatch.setattr(demo, "prepare", lambda: None)
    monkeypatch.setattr(demo, "grist", grist)
    for act in ("crawls", "mixture", "training", "reasoning", "take_down"):
        monkeypatch.setattr(demo, act, lambda *_: None)
    monkeypatch.setattr(demo, "seeing", lambda *given: acts.append(("seeing", given[2])))
    monkeypatch.setattr(demo, "hearing", lambda *given: acts.append(("hearing", given[1])))
    words, speech = FOLDER / "data" / "speech" / "hearing.jsonl", FOLDER / "data" / "speech"
    demo.main()
    assert "--speech" in acts[0][1] and acts[1:3] == [("seeing", words), ("hearing", speech)]
    acts.clear()
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    demo.main()
    assert "--speech" not in acts[0][1] and acts[1] == ("seeing", None)
    assert "hearing" not in dict(acts) and "pip install 'gristmill[speech]'" in capsys.readouterr().out


LEARNED = [(0.9, 0.5, "of the words are wrong"), (0.0, 0.0, "more of them right"), (0.0, 0.5, "")]
"""Words wrong, answers gained by the question, and what ends the demo."""


@pytest.mark.parametrize(("wrong", "gained", "what"), LEARNED)
def test_a_model_that_learned_nothing_ends_the_demo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: float, gained: float, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    FOLDER.mkdir()
    monkeypatch.setattr(hearing, "grist", lambda *_: '{"new": false, "digest": "d"}')
    monkeypatch.setattr(hearing, "served", lambda *_: nullcontext("http://127.0.0.1:1/v1"))
    monkeypatch.setattr(hearing, "clips", lambda *_: None)
    monkeypatch.setattr(hearing, "add", lambda *_: None)
    monkeypatch.setattr(hearing, "transcribe", lambda *_: wrong)
    monkeypatch.setattr(hearing, "look_and_listen", lambda *_: gained)
    with pytest.raises(SystemExit, match=what) if what else nullcontext():
        hearing.hearing("lake", tmp_path)
