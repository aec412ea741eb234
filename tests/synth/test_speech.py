"""Generated speech: the same clips for the same seed, held-out sentences and voices apart, and an engine that keeps no
state and refuses what it cannot say."""

from __future__ import annotations

import builtins
import ctypes
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from gristmill.synth.draw import Draw
from gristmill.synth.speech.hearing import BLANK, pieces
from gristmill.synth.speech.sample import write_speech
from gristmill.synth.speech.sentences import DIGITS, drawn_digits, drawn_phrase, drawn_question, in_words
from gristmill.synth.speech.tts import NoEngine, NotSpoken, Waveform, engine
from gristmill.synth.speech.voices import HELD_OUT_VOICES, VOICES

espeakng_loader = pytest.importorskip("espeakng_loader", reason="the extra `speech` is not installed")
from gristmill.synth.speech import espeak  # noqa: E402
from gristmill.synth.speech.espeak import Espeak  # noqa: E402

ROWS, HELD_OUT = 16, 8
CONTAINERS = ("digits", "phrases", "questions")


class Clip(NamedTuple):
    """A row as its container has it."""

    fields: dict[str, Any]
    data: bytes


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """speech/, few rows of each file."""
    folder = tmp_path_factory.mktemp("sample")
    write_speech(folder, rows=ROWS, held_out=HELD_OUT, seed=3)
    return folder / "speech"


def clips(speech: Path, name: str) -> list[Clip]:
    """Rows of a file with clips."""
    if (folder := speech / name).is_dir():
        rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        return [Clip(row, (folder / row["file_name"]).read_bytes()) for row in rows]
    if (path := speech / f"{name}.tar").exists():
        return list(of_tar(path))
    return [Clip(row, row.pop("audio")["bytes"]) for row in pq.read_table(speech / f"{name}.parquet").to_pylist()]


def of_tar(path: Path) -> Iterator[Clip]:
    with tarfile.open(path) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    for name, data in files.items():
        if name.endswith(".json"):
            yield Clip(json.loads(data), files[name.replace(".json", ".flac")])


def transcript(clip: Clip) -> str:
    return clip.fields.get("text") or clip.fields["question"]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def centroid(sound: np.ndarray, rate: int) -> float:
    """Hz, of the whole clip."""
    power = np.abs(np.fft.rfft(sound)) ** 2
    return float((power * np.fft.rfftfreq(len(sound), 1 / rate)).sum() / power.sum())


def test_the_same_seed_gives_the_same_bytes_and_more_rows_leave_the_others(sample: Path, tmp_path: Path) -> None:
    write_speech(tmp_path / "again", rows=ROWS, held_out=HELD_OUT, seed=3)
    assert files(tmp_path / "again" / "speech") == files(sample)
    write_speech(tmp_path / "more", rows=ROWS + 6, held_out=2, seed=3)
    for name in CONTAINERS:
        rows = clips(tmp_path / "more" / "speech", name)
        assert rows[: len(clips(sample, name))] == clips(sample, name) and len(rows) > len(clips(sample, name))
    write_speech(tmp_path / "other", rows=2, held_out=2, seed=4)
    assert clips(tmp_path / "other" / "speech", "digits") != clips(sample, "digits")[:2]


@pytest.mark.parametrize("name", CONTAINERS)
def test_clips_are_speech_of_their_length_and_level(sample: Path, name: str) -> None:
    rows = clips(sample, name)
    assert len(rows) == (ROWS if name == "digits" else ROWS // 2)
    for row in rows:
        sound, rate = soundfile.read(io.BytesIO(row.data), dtype="float32")
        words = len(in_words(transcript(row)).split())
        assert rate == 22_050 and sound.ndim == 1
        assert 0.15 * words < len(sound) / rate < 0.75 * words + 0.5
        assert 0.1 < np.abs(sound).max() <= 1 and np.sqrt(np.mean(sound**2)) > 0.02
        loud = np.flatnonzero(np.abs(sound) > 0.01)
        assert loud[0] < 0.1 * rate and loud[-1] > len(sound) - 0.15 * rate


def test_what_is_held_out_is_not_trained_on(sample: Path) -> None:
    trained = {transcript(row) for name in CONTAINERS for row in clips(sample, name)}
    words = [json.loads(line) for line in (sample / "hearing.jsonl").read_text().splitlines()]
    trained |= {row["answer"] for row in words if row["source"] != "hearing_question"}
    for name in CONTAINERS:
        asked = clips(sample, f"{name}-held-out")
        assert not {transcript(row) for row in asked} & trained
        assert {row.fields["voice"] for row in asked} <= set(VOICES)
        unheard = clips(sample, f"{name}-voices")
        assert len(unheard) == HELD_OUT and not {transcript(row) for row in unheard} & trained
        assert {row.fields["voice"] for row in unheard} <= set(HELD_OUT_VOICES)
    assert not set(VOICES) & set(HELD_OUT_VOICES) and len(VOICES) >= 10
    for drawn in (drawn_digits, drawn_phrase, drawn_question):
        parts = [{drawn(Draw("parts", n), part).words for n in range(300)} for part in ("train", "held_out")]
        assert not parts[0] & parts[1] and len(parts[1]) > 60


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
        said = drawn_digits(Draw("read", number), "train")
        line = pieces(said.words, Draw("line", number)).split(" ")[1:]
        heard = [word for before, word in zip([BLANK, *line], line, strict=False) if word not in (BLANK, before)]
        assert " ".join(str(DIGITS.index(word)) for word in heard) == said.fields["text"]


def test_what_another_run_left_is_not_mixed_in(sample: Path, tmp_path: Path) -> None:
    write_speech(tmp_path, rows=6, held_out=1)
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match=r"phrases-00001\.wav"):
        write_speech(tmp_path, rows=2, held_out=1)
    assert files(tmp_path) == before
    with pytest.raises(ValueError, match="rows=1"):
        write_speech(tmp_path, rows=1)


def test_a_text_sounds_the_same_whatever_was_said_before_and_on_any_thread() -> None:
    """Its own noise is seeded by the clock, and its phases go on from text to text."""
    speaker = Espeak()
    assert speaker.version.startswith("espeak-ng 1.")
    voices = ("en-us", "en-us+f2", "en+whisper", "de", "en-us+klatt2")
    first = [speaker.say("four two seven", voice).samples for voice in voices]
    assert len({len(sound) for sound in first}) > 1
    again = [Espeak().say("four two seven", voice).samples for voice in reversed(voices)][::-1]
    with ThreadPoolExecutor(4) as threads:
        both = list(threads.map(lambda voice: speaker.say("four two seven", voice).samples, voices * 2))
    for sound, others in zip(first, zip(again, both[:5], both[5:], strict=True), strict=True):
        assert all(np.array_equal(sound, other) for other in others)


def test_voices_rates_and_pitches_differ() -> None:
    speaker = Espeak()
    sounds = {voice: speaker.say("red star", voice) for voice in (*VOICES, *HELD_OUT_VOICES)}
    assert len({sound.samples.tobytes() for sound in sounds.values()}) == len(sounds)
    centres = [centroid(*sound) for sound in sounds.values()]
    assert max(centres) > 1.2 * min(centres)
    assert speaker.say("red star", "en", rate=100).seconds > 1.4 * speaker.say("red star", "en", rate=200).seconds
    assert not np.array_equal(speaker.say("red", "en", pitch=10).samples, speaker.say("red", "en", pitch=90).samples)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "nothing_to_say"),
        ("... !", "nothing_to_say"),
        ("a\x01 50S b", "control"),  # a command of the library
        ("a\0b", "control"),
        ("a\ud800", "control"),
        ("x" * 2001, "too_long"),
        ("x" * 300 + " " + "ض" * 1500, "too_many_seconds"),
    ],
)
def test_a_text_that_cannot_be_said_has_a_reason(text: str, reason: str) -> None:
    with pytest.raises(NotSpoken) as raised:
        Espeak().say(text, "en")
    assert raised.value.reason == reason and len(raised.value.value) <= 200
    assert Espeak().say("one\ntwo", "en").seconds > 0.2


@pytest.mark.parametrize(("voice", "rate"), [("xx", 170), ("en+nobody", 170), ("en", 5), ("en+../m1", 170)])
def test_a_voice_or_rate_that_it_has_not(voice: str, rate: int) -> None:
    with pytest.raises(ValueError, match=f"{rate}" if rate == 5 else "no voice"):
        Espeak().say("one", voice, rate)


def test_a_library_that_stays_loaded_is_refused() -> None:
    held = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        with pytest.raises(NoEngine, match="stays loaded"):
            Espeak().say("one", "en")
    finally:
        espeak._unload(held)
    assert Espeak().say("one", "en").seconds > 0.1


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


class Hum:
    """An engine of someone else."""

    version = "hum 1"

    def check(self, voice: str) -> None:
        assert voice

    def say(self, text: str, voice: str, rate: int = 170) -> Waveform:
        return Waveform(np.full(len(text), 0.5, np.float32), 8000)


def test_another_engine_is_named_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "humming", SimpleNamespace(Hum=Hum, Silent=lambda: object()))  # type: ignore[arg-type]
    assert engine("humming:Hum").say("abc", "").seconds == 3 / 8000
    for address, match in (
        ("humming", "module:object"),
        ("humming:Nobody", "cannot be imported"),
        ("nowhere_at_all:Hum", "PYTHONPATH"),
        ("humming:Silent", "version, check and say"),
    ):
        with pytest.raises(NoEngine, match=match):
            engine(address)
