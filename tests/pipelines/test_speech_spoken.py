"""Written questions that are spoken: each record one fate, the same clips again, and engines of one's own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mixtures
import numpy as np
import pytest
from speech import clip, run
from vision import fates, folder_of, rows

from gristmill.lake.query.dataset import Dataset
from gristmill.lake.query.why import why
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.model.processing.audio_file import decode_audio
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.run.unfinished import Incomplete
from gristmill.stages.speech.speak import Speak, messages_of
from gristmill.synth.speech.engines import engine
from gristmill.synth.speech.tts import NoEngine, NotSpoken, Waveform

pytest.importorskip("espeakng_loader", reason="the extra `speech` is not installed")

QUESTION = "How many wheels does mill {} have?"
SPEAK: dict[str, Any] = {"task": "sqqa", "speak": {"tts": "espeak"}}


def lines(folder: Path, records: list[dict[str, Any]]) -> str:
    path = folder / "questions.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return str(path)


def pairs(count: int) -> list[dict[str, Any]]:
    return [{"id": f"q{n}", "question": QUESTION.format(n), "answer": f"It has {n + 2}."} for n in range(count)]


def test_a_written_question_is_asked_aloud(store, tmp_path):
    bad = [
        {"id": "long", "question": "Why? " * 200, "answer": "So."},
        {"id": "code", "question": "What is {x: [a[i] for i in b]} | {}?", "answer": "Code."},
        {"id": "empty", "question": "?!", "answer": "Nothing."},
        {"id": "no", "answer": "Nothing was asked."},
        {"id": "nl", "question": "Hoeveel?", "answer": "Twee.", "language": "nl"},
    ]
    manifest = run(store, [lines(tmp_path, [*pairs(6), *bad])], audio=SPEAK)
    assert [fates(store, manifest)[n] for n in range(11)] == [
        *[("kept", None)] * 6,
        *[("dropped", "audio.not_spoken")] * 3,
        ("dropped", "audio.no_field"),
        ("dropped", "audio.language"),
    ]
    ledger = Dataset(store, manifest).ledger().to_pylist()
    faults = sorted(row["value"] for row in ledger if row["reason"] == "audio.not_spoken")
    assert faults == [
        "1000 characters, allowed are 600",
        "9 of 36 characters are signs that nobody says",
        "nothing_to_say: no letter and no digit",
    ]
    for row in rows(store, manifest):
        number = int(row["parent"].removeprefix("q"))
        assert row["text"] == f"<|user|><|audio_1|><|end|><|assistant|>It has {number + 2}.<|end|><|endoftext|>"
        (medium,) = row["media"]
        waveform, rate = decode_audio(medium["data"])
        assert rate == 22_050 and 1 < len(waveform) / rate < 5 and row["task"] == "sqqa"
    assert len({row["media"][0]["sha256"] for row in rows(store, manifest)}) == 6


def test_the_same_questions_give_the_same_digest_and_a_second_run_does_nothing(tmp_path):
    digests = set()
    for name in ("one", "two"):
        store = open_store(str(tmp_path / name))
        manifest = run(store, [lines(tmp_path, pairs(3))], audio=SPEAK)
        digests.add(manifest.content_digest)
        assert run(store, [lines(tmp_path, pairs(3))], audio=SPEAK).version == manifest.version == 1
    assert len(digests) == 1
    (medium, *_) = rows(store, manifest)[0]["media"]
    (story,) = why(Versions(store), medium["sha256"]).stories
    assert story.fate == "kept"


def test_every_user_turn_of_a_chat_is_spoken_and_what_has_clips_stays(store, tmp_path):
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How old is the mill?"},
        {"role": "assistant", "content": "Very old."},
        {"role": "user", "content": [{"type": "text", "text": "And its wheel?"}]},
        {"role": "assistant", "content": "New."},
    ]
    heard = [
        {"role": "user", "content": [{"type": "audio", "audio": "a.wav"}]},
        {"role": "assistant", "content": "Hm."},
    ]
    address = folder_of(tmp_path / "in", [{"messages": turns}, {"messages": heard}], {"a.wav": clip(1)})
    manifest = run(store, [address], audio={**SPEAK, "task": "chat"}, min_similarity=None)
    spoken, was_heard = sorted(rows(store, manifest), key=lambda row: "Hm." in row["text"])
    assert spoken["text"].startswith(
        "<|system|>Be brief.<|end|><|user|><|audio_1|><|end|><|assistant|>Very old.<|end|>"
    )
    assert "<|user|><|audio_2|><|end|><|assistant|>New." in spoken["text"] and len(spoken["media"]) == 2
    assert was_heard["media"][0]["data"] == clip(1) and was_heard["parent"] is None


def test_samples_of_another_version_are_spoken(store, tmp_path):
    mixtures.samples(store, tmp_path / "in", "math", [mixtures.word_problem(i) for i in range(4)], form="pair")
    (ref,) = Versions(store).resolve("math@v1").shards
    shard = tmp_path / "math.parquet"
    shard.write_bytes(store.get(ref.key))
    manifest = run(store, [str(shard)], audio={**SPEAK, "task": "chat"}, min_similarity=None)
    texts = {row["id"]: row for row in rows(store, Versions(store).resolve("math@v1"))}
    kept = rows(store, manifest)
    assert len(kept) == 4 and {row["parent"] for row in kept} == set(texts)
    for row in kept:
        answer = texts[row["parent"]]["text"].partition("<|assistant|>")[2]
        assert row["text"] == f"<|user|><|audio_1|><|end|><|assistant|>{answer}"
    with pytest.raises(Exception, match="not_a_conversation"):
        messages_of({"text": "abc", "parts": [{"length": 3, "special": False, "learn": True}]})


class Hum:
    """An engine of someone else, which cannot say `silent`."""

    version = "hum 1"

    def check(self, voice: str) -> None:
        if voice != "low":
            raise ValueError(f"no voice {voice}")

    def say(self, text: str, voice: str, rate: int = 170) -> Waveform:
        if text == "silent":
            raise NotSpoken("nothing_to_say", "silent")
        seed = sum(text.encode())
        return Waveform(0.1 * np.sin(np.arange(16_000) * (0.05 + seed % 97 / 1000)).astype(np.float32), 16_000)


def test_an_engine_of_ones_own_says_it_and_its_version_is_part_of_the_recipe(store, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "humming", SimpleNamespace(Hum=Hum))
    speak = {"tts": "humming:Hum", "voices": {"en": ["low"]}}
    records = [{"question": "How are you?", "answer": "Well."}, {"question": "silent", "answer": "Hm."}]
    manifest = run(store, [lines(tmp_path, records)], audio={"task": "sqqa", "speak": speak})
    assert fates(store, manifest) == {0: ("kept", None), 1: ("dropped", "audio.not_spoken")}
    assert manifest.recipe["audio"]["speak"]["version"] == "hum 1"
    ((medium,),) = [row["media"] for row in rows(store, manifest)]
    assert (medium["rate"], medium["samples"]) == (16_000, 16_000)
    engine.cache_clear()
    monkeypatch.setattr(Hum, "version", "hum 2")
    again = run(store, [lines(tmp_path, records)], audio={"task": "sqqa", "speak": speak})
    assert again.version == 2 and again.recipe["audio"]["speak"]["version"] == "hum 2"
    engine.cache_clear()


def test_a_run_that_broke_off_goes_on_behind_what_was_said(store, tmp_path, monkeypatch):
    asked: list[str] = []

    class Breaks(Hum):
        def say(self, text: str, voice: str, rate: int = 170) -> Waveform:
            asked.append(text)
            if text == QUESTION.format(2) and asked.count(text) == 1:
                raise OSError("the machine is gone")
            return super().say(text, voice, rate)

    monkeypatch.setitem(sys.modules, "humming", SimpleNamespace(Breaks=Breaks))
    speak = {"tts": "humming:Breaks", "voices": {"en": ["low"]}}
    recipe: dict[str, Any] = {"audio": {"task": "sqqa", "speak": speak}, "scan": {"chunk_records": 1}}
    with pytest.raises(Incomplete, match=r"1 of 4 pieces(.|\n)*the machine is gone"):
        run(store, [lines(tmp_path, pairs(4))], **recipe)
    manifest = run(store, [lines(tmp_path, pairs(4))], **recipe)
    assert len(rows(store, manifest)) == 4
    assert [asked.count(QUESTION.format(n)) for n in range(4)] == [1, 1, 2, 1]


@pytest.mark.parametrize(
    ("speak", "match"),
    [
        ({"voices": {"en": ["nobody"]}}, "no voice 'nobody'"),
        ({"voices": {"nl": ["nl"]}}, "languages are"),
        ({"voices": {"en": []}}, "at least one voice"),
        ({"version": "espeak-ng 0"}, "would say it otherwise"),
        ({"tts": "nowhere:At"}, "PYTHONPATH"),
        ({"slowest": 200, "fastest": 100}, "slowest=200"),
        ({"max_characters": 0}, "max_characters=0"),
    ],
)
def test_settings_that_cannot_be_are_refused(speak, match):
    with pytest.raises((ValueError, NoEngine), match=match):
        Speak(**speak)


def test_other_tasks_are_not_spoken(store, tmp_path):
    with pytest.raises((ValueError, BadConfig), match="sqqa and chat"):
        run(store, [lines(tmp_path, pairs(1))], audio={"task": "asr", "speak": {}})
