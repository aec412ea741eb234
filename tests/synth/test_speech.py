"""Generated speech: the same clips for the same seed, held-out sentences and voices apart, and true answers."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generated_speech import NAMES, UNHEARD, clips
from scenes import read

from gristmill.synth.draw import Draw
from gristmill.synth.scenes.figures import PLACES
from gristmill.synth.scenes.words import BLANK, DIGITS
from gristmill.synth.speech.hearing import hearing, pieces
from gristmill.synth.speech.languages import LANGUAGES, drawn_translation
from gristmill.synth.speech.pictures import drawn_shown
from gristmill.synth.speech.sample import write_speech
from gristmill.synth.speech.sentences import drawn_digits, drawn_phrase, drawn_question, in_words
from gristmill.synth.speech.tts import NoEngine
from gristmill.synth.speech.voices import HELD_OUT_VOICES, VOICES

pytest.importorskip("espeakng_loader", reason="the extra `speech` is not installed")

ROWS, HELD_OUT = 20, 6


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """speech/, few rows of each file."""
    folder = tmp_path_factory.mktemp("sample")
    write_speech(folder, rows=ROWS, held_out=HELD_OUT, seed=3)
    return folder / "speech"


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_and_more_rows_leave_the_others(sample: Path, tmp_path: Path) -> None:
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        write_speech(tmp_path / name, rows=3, held_out=1, seed=seed)
    first, again, other = (tmp_path / name / "speech" for name in ("first", "again", "other"))
    assert files(first) == files(again) != files(other)
    for name in NAMES:
        rows = clips(first, name)
        assert rows == clips(sample, name)[: len(rows)] != clips(other, name)
    assert len(clips(first, "digits")) < len(clips(sample, "digits"))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("translations", "reports")])
def test_clips_are_speech_of_their_length_and_level(sample: Path, name: str) -> None:
    for row in (*clips(sample, name), *clips(sample, f"{name}-held-out")):
        sound, rate = row.sound
        words = len(in_words(row.words).split())
        assert rate == 22_050 and sound.ndim == 1
        assert 0.15 * words < len(sound) / rate < 0.75 * words + 0.5
        assert 0.1 < np.abs(sound).max() <= 1 and np.sqrt(np.mean(sound**2)) > 0.02
        loud = np.flatnonzero(np.abs(sound) > 0.01)
        assert loud[0] < 0.1 * rate and loud[-1] > len(sound) - 0.15 * rate


def test_what_is_held_out_is_not_trained_on(sample: Path) -> None:
    trained = {row.words for name in NAMES if name != "scenes" for row in clips(sample, name)}
    lines = [json.loads(line) for line in (sample / "hearing.jsonl").read_text().splitlines()]
    trained |= {row["answer"] for row in lines if row["source"].removeprefix("hearing_") in ("digits", "scene")}
    for name in NAMES:
        asked = clips(sample, f"{name}-held-out")
        assert len(asked) == HELD_OUT and (name == "scenes" or not {row.words for row in asked} & trained)
        if name in UNHEARD:
            unheard = clips(sample, f"{name}-voices")
            assert len(unheard) == HELD_OUT and (name == "scenes" or not {row.words for row in unheard} & trained)
            assert {row.fields["voice"] for row in asked} <= set(VOICES)
            assert {row.fields["voice"] for row in unheard} <= set(HELD_OUT_VOICES)
    assert not set(VOICES) & set(HELD_OUT_VOICES) and len(VOICES) >= 10
    for drawn in (drawn_digits, drawn_phrase, drawn_question):
        parts = [{drawn(Draw("parts", n), part).words for n in range(300)} for part in ("train", "held_out")]
        assert not parts[0] & parts[1] and len(parts[1]) > 60
    shown = [{drawn_shown(Draw("parts", n), part).scene for n in range(400)} for part in ("train", "held_out")]
    assert not shown[0] & shown[1]


def test_answers_of_questions_are_right() -> None:
    for number in range(200):
        fields = drawn_question(Draw("right", number), "train").fields
        words = fields["question"].removesuffix("?").split()
        if words[:2] == ["What", "is"]:
            value = int(words[2])
            for sign, digit in zip(words[3::2], words[4::2], strict=True):
                value += int(digit) if sign == "plus" else -int(digit)
        else:
            value = int(words[-1]) + (1 if words[3] == "after" else -1)
        assert fields["answer"] == str(value) and 0 <= value <= 9


def test_clips_in_words_can_be_read() -> None:
    """As a decoder of connectionist temporal classification reads: repeats are one, blanks none."""
    for number in range(200):
        sentence = drawn_digits(Draw("read", number), "train")
        line = pieces(sentence.words, Draw("line", number)).split(" ")[1:]
        heard = [word for before, word in zip([BLANK, *line], line, strict=False) if word not in (BLANK, before)]
        assert " ".join(str(DIGITS.index(word)) for word in heard) == sentence.fields["text"]


def test_the_answer_to_a_spoken_question_is_in_the_picture_it_comes_with(sample: Path) -> None:
    rows = [*clips(sample, "scenes"), *clips(sample, "scenes-held-out")]
    for row in rows:
        assert row.picture is not None
        figures, question, answer = read(row.picture), row.fields["question"].removesuffix("?"), row.fields["answer"]
        if row.fields["source"] == "place":
            assert figures[question.removeprefix("What is ")] == answer
            continue
        shape = question.rpartition(" ")[2]
        ((place, figure),) = [pair for pair in figures.items() if shape in pair[1].split()]
        assert answer == (place if row.fields["source"] == "where" else figure.split()[0])
    assert {row.fields["source"] for row in rows} == {"place", "colour", "where"}


def test_neither_the_picture_nor_the_question_alone_tells_the_answer() -> None:
    """The best guess of whoever sees alone, and of whoever hears alone."""
    shown = [drawn_shown(Draw("guess", n), "train") for n in range(4000)]
    heard: dict[str, dict[str, int]] = {}
    for question in shown:
        answers = heard.setdefault(question.question, {})
        answers[question.answer] = answers.get(question.answer, 0) + 1
    hears = sum(max(answers.values()) for answers in heard.values()) / len(shown)
    # A place is the answer to every third question, each of the two with the same chance.
    sees = max(sum(each.kind == kind for each in shown) for kind in ("place", "colour", "where")) / len(shown) / 2
    assert hears < 0.3 and sees < 0.25 and all(each.answer in (*PLACES, str(each.answer)) for each in shown)


def test_translations_are_the_same_words_in_the_same_order() -> None:
    assert len(LANGUAGES) == 8 and {len(set(language.words)) for language in LANGUAGES.values()} == {18}
    targets = set()
    for number in range(300):
        row = drawn_translation(Draw("words", number), "train")
        spoken_in, target = LANGUAGES[row.language], LANGUAGES[row.target]
        words = [spoken_in.words.index(word) for word in row.text.split(spoken_in.separator)]
        assert words == [target.words.index(word) for word in row.translation.split(target.separator)]
        assert row.language != row.target
        targets.add((row.language, row.target))
    assert len(targets) > 50


def test_what_is_asked_about_a_sound_can_be_measured(sample: Path) -> None:
    for row in (*clips(sample, "sounds"), *clips(sample, "sounds-held-out")):
        (sound, rate), answer = row.sound, row.fields["answer"]
        if row.fields["source"] == "pace":
            assert answer == ("fast" if len(row.words.split()) / (len(sound) / rate) > 2.6 else "slow")
            continue
        halves = sound[: len(sound) // 2], sound[len(sound) // 2 :]
        measured = [float(np.mean(half**2)) if row.fields["source"] == "louder" else pitch(half) for half in halves]
        assert answer == ("first" if measured[0] > measured[1] else "second")


def pitch(sound: np.ndarray, rate: int = 22_050) -> float:
    """Hz: the lag at which the loudest frames resemble themselves most, between 60 and 400 Hz."""
    frames = [sound[at : at + 1024] for at in range(0, len(sound) - 1024, 512)]
    loudest = sorted(frames, key=lambda frame: -float(np.mean(frame**2)))[: len(frames) // 3]
    lags = [np.argmax(np.correlate(each, each, "full")[1023 + rate // 400 : 1023 + rate // 60]) for each in loudest]
    return rate / float(np.median(lags) + rate // 400)


def test_a_report_is_summarised_by_what_holds_at_its_end(sample: Path) -> None:
    for row in (*clips(sample, "reports"), *clips(sample, "reports-held-out")):
        now: dict[str, str] = {}
        for sentence in row.words.removesuffix(".").split(". "):
            _, shape, _, colour = sentence.split()
            assert now.get(shape) != colour
            now[shape] = colour
        assert row.fields["summary"] == " ".join(f"The {shape} is {colour}." for shape, colour in now.items())
        sound, rate = row.sound
        assert len(sound) / rate > 5


def test_questions_about_words_are_answered_right(sample: Path) -> None:
    for row in (*clips(sample, "listening"), *clips(sample, "listening-held-out")):
        digits, question = row.words.split(), row.fields["question"]
        right = {
            "How many digits?": str(len(digits)),
            "Which is first?": digits[0],
            "Which is last?": digits[-1],
        }
        assert row.fields["answer"] == right.get(question, "yes" if question.split()[1] in digits else "no")


def test_a_picture_in_words_stands_before_the_question_in_words() -> None:
    kinds = {hearing(Draw("kinds", number), "train").kind for number in range(200)}
    assert {"hearing_digits", "hearing_question", "hearing_place", "hearing_where", "hearing_asked"} <= kinds
    for number in range(50):
        heard = hearing(Draw("kinds", number), "held_out")
        lines = heard.prompt.removeprefix(":\n").split("\n")
        if heard.kind in ("hearing_place", "hearing_where", "hearing_colour"):
            assert [len(line.split()) for line in lines[:7]] == [4, 4, 4, 4, 1, 2, 2] and len(lines) == 8
        else:
            assert lines[1:] in ([], ["What is said?"])


def test_what_another_run_left_is_not_mixed_in(sample: Path, tmp_path: Path) -> None:
    write_speech(tmp_path, rows=6, held_out=1)
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match=r"phrases-00001\.wav"):
        write_speech(tmp_path, rows=2, held_out=1)
    assert files(tmp_path) == before
    with pytest.raises(ValueError, match="rows=0"):
        write_speech(tmp_path, rows=0)


def test_no_kind_holds_out_more_rows_than_it_trains_on(tmp_path: Path) -> None:
    write_speech(tmp_path, rows=12)
    counts = {name: [len(clips(tmp_path / "speech", f"{name}{part}")) for part in ("", "-held-out")] for name in NAMES}
    assert counts["digits"] == [12, 2] and counts["phrases"] == [6, 2] and counts["reports"] == [1, 1]
    assert all(1 <= held_out <= min(2, trained) for trained, held_out in counts.values())


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "espeakng_loader":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NoEngine, match=r"pip install 'gristmill\[speech\]'"):
        write_speech(tmp_path, rows=2, held_out=1)
    assert not list(tmp_path.iterdir())
