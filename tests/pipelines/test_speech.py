"""The speech pipeline: each record one fate, whatever its clips are; one dataset, whatever they come in."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest
from rich.console import Console
from speech import RATE, SAYS, clip, encoded, parquet_of, run, waveform
from vision import fates, folder_of, picture, rows, tar_of, values

from gristmill.lake.query.sampling import sample
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.show.records import draw_samples
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.stages.speech.prompts import LANGUAGES, templates
from gristmill.stages.text.instruct import parts_of


def absurd(seed: int) -> bytes:
    """A WAV that says it has 1,092,676 samples a second."""
    data = clip(seed)
    return data[:24] + struct.pack("<I", 1_092_676) + data[28:]


def not_a_number(seed: int) -> bytes:
    samples = waveform(seed)
    samples[777] = np.nan
    return encoded(samples, subtype="FLOAT")


def clipped(seed: int) -> bytes:
    return encoded(np.clip(waveform(seed) * 40, -1, 1))


FILES = {
    "good.wav": clip(0),
    "deep/good.flac": clip(1, "FLAC"),
    "good.mp3": clip(2, "MP3"),
    "mislabelled.wav": clip(3, "MP3"),
    "eight.wav": encoded(np.repeat(waveform(4)[:, None], 8, axis=1)),
    "two.wav": encoded(np.repeat(waveform(20)[:, None], 2, axis=1)),
    "twenty.wav": clip(21),
    "float.wav": clip(5, subtype="FLOAT"),
    "bits.wav": clip(6, subtype="PCM_U8"),
    "phone.wav": clip(7, rate=8000),
    "absurd.wav": absurd(8),
    "empty.wav": encoded(np.zeros(0, np.float32)),
    "cut.wav": clip(9)[:-20_000],
    "cut.flac": clip(9, "FLAC")[:-8000],
    "cut.ogg": clip(9, "OGG", seconds=8, subtype="OPUS")[:-2000],
    "cut.sph": clip(9, "NIST")[:-8000],
    "shorten.sph": clip(9, "NIST").replace(b"-s3 pcm", b"-s26 pcm,embedded-shorten-v2.00")[:1024] + b"ajkg\x02",
    "nan.wav": not_a_number(10),
    "noise.wav": b"RIFF\x10\0\0\0WAVE" + bytes(range(256)),
    "text.wav": b"this is no sound at all",
    "picture.png": picture(0),
    "tiny.wav": clip(11, seconds=0.05),
    "long.wav": clip(12, seconds=31, rate=8000),
    "slow.wav": clip(13, rate=6000),
    "silence.wav": encoded(np.zeros(RATE, np.float32)),
    "pause.wav": encoded(np.concatenate([np.zeros(30 * RATE // 2, np.float32), waveform(14, 1.0)])),
    "loud.wav": clipped(15),
}
EN = "The mill is old."
LINES = [
    ({"audio": "good.wav", "text": SAYS.format(0)}, ("kept", None)),
    ({"audio": "./deep/good.flac", "sentence": SAYS.format(1)}, ("kept", None)),
    ({"audio_filepath": "/data/clips/good.mp3", "text": SAYS.format(2)}, ("kept", None)),
    ({"audio": "mislabelled.wav", "text": SAYS.format(3)}, ("kept", None)),
    ({"audio": "eight.wav", "text": SAYS.format(4)}, ("kept", None)),
    ({"audio": "float.wav", "text": SAYS.format(5)}, ("kept", None)),
    ({"audio": "bits.wav", "text": SAYS.format(6)}, ("kept", None)),
    ({"audio": "phone.wav", "text": SAYS.format(7)}, ("kept", None)),
    ({"audio": "absurd.wav", "text": EN}, ("dropped", "audio.rate")),
    ({"audio": "empty.wav", "text": EN}, ("dropped", "audio.empty")),
    ({"audio": "cut.wav", "text": EN}, ("dropped", "audio.truncated")),
    ({"audio": "cut.flac", "text": EN}, ("dropped", "audio.damaged")),
    ({"audio": "cut.ogg", "text": EN}, ("dropped", "audio.truncated")),
    ({"audio": "cut.sph", "text": EN, "start": 0, "end": 1}, ("dropped", "audio.truncated")),
    ({"audio": "shorten.sph", "text": EN}, ("dropped", "audio.unreadable")),
    ({"audio": "shorten.sph", "text": EN, "start": 0, "end": 1}, ("dropped", "audio.unreadable")),
    ({"audio": "nan.wav", "text": EN}, ("dropped", "audio.not_finite")),
    ({"audio": "noise.wav", "text": EN}, ("dropped", "audio.unreadable")),
    ({"audio": "text.wav", "text": EN}, ("dropped", "audio.missing")),
    ({"audio": "nowhere.wav", "text": EN}, ("dropped", "audio.missing")),
    ({"audio": "picture.png", "text": EN}, ("dropped", "audio.not_audio")),
    ({"text": EN}, ("dropped", "audio.no_clip")),
    ({"audio": "good.wav"}, ("dropped", "audio.no_field")),
    ({"audio": "good.wav", "text": 7}, ("dropped", "audio.not_text")),
    ({"audio": "good.wav", "text": "  "}, ("dropped", "audio.empty_turn")),
    ({"audio": "good.wav", "text": EN, "lang": "ko"}, ("dropped", "audio.language")),
    ({"audio": ["good.wav", "cut.wav", "nan.wav"], "text": EN}, ("dropped", "audio.truncated")),
    ({"audio": "good.wav", "text": EN, "start": 1.5, "end": 9}, ("dropped", "audio.segment")),
    ({"audio": "good.wav", "text": EN, "start": 1.5, "end": 1}, ("dropped", "audio.segment")),
    ({"audio": "good.wav", "text": EN, "start": "1.5"}, ("dropped", "audio.segment")),
    ({"audio": "eight.wav", "text": EN, "start": 0, "end": 1, "channel": 0}, ("dropped", "audio.channel")),
    ({"audio": "eight.wav", "text": EN, "channel": [1]}, ("dropped", "audio.channel")),
    ({"audio": "two.wav", "text": SAYS.format(8), "channel": [0, 1]}, ("kept", None)),
    ({"audio": "twenty.wav", "text": SAYS.format(9), "channel": 0}, ("kept", None)),
    ({"audio": "good.wav", "text": EN, "start": 1e308}, ("dropped", "audio.segment")),
    ({"audio": "good.wav", "text": EN, "start": 0, "duration": 1e308}, ("dropped", "audio.segment")),
    ({"audio": "good.wav", "text": EN, "start": 10**400, "end": 10**401}, ("dropped", "audio.segment")),
    ({"audio": "good.wav", "text": EN, "start": -(10**400)}, ("dropped", "audio.segment")),
    (b'{"audio": "good.wav", "text": "The mill is old.", "start": 0, "end": NaN}', ("dropped", "audio.segment")),
    ({"audio": "tiny.wav", "text": "a"}, ("dropped", "clip.too_short")),
    ({"audio": "long.wav", "text": EN}, ("dropped", "clip.too_long")),
    ({"audio": "slow.wav", "text": EN}, ("dropped", "clip.rate_too_low")),
    ({"audio": "silence.wav", "text": EN}, ("dropped", "clip.silent")),
    ({"audio": "pause.wav", "text": EN}, ("dropped", "clip.mostly_silent")),
    ({"audio": "loud.wav", "text": EN}, ("dropped", "clip.clipped")),
    ({"audio": "good.wav", "text": SAYS.format(0) * 3}, ("dropped", "speech_rate.too_fast")),
    ({"audio": "good.wav", "text": "A"}, ("dropped", "speech_rate.too_slow")),
    ({"audio": "good.wav", "text": "在河边的磨坊里有一个很大很旧的轮子吗", "lang": "zh"}, ("kept", None)),
    ({"audio": "good.wav", "text": "在河边的磨坊里有一个很大很旧的轮子吗" * 2, "lang": "zh"},
     ("dropped", "speech_rate.too_fast")),
    ({"audio": "good.wav", "text": "the mill " * 4 + "the mill"}, ("dropped", "transcript.repetitive")),
    ({"audio": "good.wav", "text": "...!"}, ("dropped", "speech_rate.too_slow")),
    ({"audio": "good.wav", "text": "Der Müller mahlt das Korn für alle."}, ("dropped", "transcript.other_language")),
    (b'{"audio": "good.wav", ', ("quarantined", "read.unreadable")),
    ({"audio": "good.wav", "url": 7}, ("quarantined", "read.unreadable")),
]  # fmt: skip


def test_each_record_has_one_fate_whatever_its_clips_are(store, tmp_path):
    address = folder_of(tmp_path / "in", [line for line, _ in LINES], FILES)
    manifest = run(store, [address])
    got = fates(store, manifest)
    assert {LINES[n][0] if isinstance(LINES[n][0], bytes) else json.dumps(LINES[n][0]): fate for n, fate in got.items()
            } == {line if isinstance(line, bytes) else json.dumps(line): fate for line, fate in LINES}  # fmt: skip
    shown = values(store, manifest)
    assert shown["audio.language"] == "ko: not one of zh en fr de it ja pt es"
    assert shown["transcript.other_language"] == "de" and float(shown["clip.clipped"]) > 0.02
    assert shown["audio.rate"].startswith("clip 1: ") and "1092676" in shown["audio.rate"]
    kept = rows(store, manifest)
    assert {row["media"][0]["data"] for row in kept} == {
        FILES[name.removeprefix("./")]
        for name in [
            "good.wav",
            "deep/good.flac",
            "good.mp3",
            "mislabelled.wav",
            "eight.wav",
            "two.wav",
            "twenty.wav",
            "float.wav",
            "bits.wav",
            "phone.wav",
        ]
    }
    assert {row["media"][0]["rate"] for row in kept} == {16000, 8000} and all(row["origins"] == [] for row in kept)
    assert not verify(store, deep=True)


def test_a_sample_shows_clips_of_every_fate(store, tmp_path):
    lines = [line for line, _ in LINES if not isinstance(line, bytes)]
    manifest = run(store, [folder_of(tmp_path / "in", lines, FILES)])
    for fate, shown in (("kept", "good.mp3"), ("dropped", "silence.wav")):
        drawn, screen = sample(Versions(store), manifest, 100, fate=fate), io.StringIO()
        draw_samples(Console(file=screen, width=400), drawn, full=False, children=manifest.layout.children)
        assert shown in screen.getvalue()
        assert (fate == "dropped") == ("silent" in screen.getvalue())


def test_a_record_is_a_sample_with_its_clip(store, tmp_path):
    good = clip(4)
    lines = [{"audio": "a/b.wav", "text": SAYS.format(4), "locale": "en-US"}]
    address = folder_of(tmp_path / "in", lines, {"a/b.wav": good})
    audio = {"prompts": ["What is said?"], "system": "Be brief."}
    (row,) = rows(store, run(store, [address], audio=audio))
    assert row["text"] == (
        "<|system|>Be brief.<|end|><|user|><|audio_1|>What is said?<|end|>"
        f"<|assistant|>{SAYS.format(4)}<|end|><|endoftext|>"
    )
    parts = parts_of(row["text"], row["parts"])
    assert [part.text for part in parts if part.special and "audio" in part.text] == ["<|audio_1|>"]
    assert [part.text for part in parts if part.loss_mask] == [SAYS.format(4), "<|end|>"]
    (medium,) = row["media"]
    assert (medium["kind"], medium["data"], medium["samples"], medium["rate"]) == ("audio", good, 32_000, 16_000)
    assert (row["task"], row["language"]) == ("asr", "en")


WORDS = {"text": "Die Mühle ist alt.", "lang": "deu", "translation": "The mill is old.", "target_lang": "en"}


@pytest.mark.parametrize(
    ("task", "row", "asks", "answers"),
    [
        ("ast", WORDS, "English", "The mill is old."),
        ("ast_cot", WORDS, "<sep>", "Die Mühle ist alt. <sep> The mill is old."),
        ("sqa", {"question": "What is old?", "answer": "The mill."}, "What is old?", "The mill."),
        ("sqqa", {"question": "Is it old?", "answer": "Yes."}, "", "Yes."),
        ("summary", {"text": "The mill, " * 3, "summary": "A mill."}, None, "A mill."),
        ("understanding", {"answer": "Somebody coughs."}, None, "Somebody coughs."),
        ("understanding", {"question": "Who coughs?", "answer": "A man."}, "Who coughs?", "A man."),
    ],
)
def test_tasks_ask_and_answer(store, tmp_path, task, row, asks, answers):
    address = folder_of(tmp_path / "in", [row | {"audio": "a.wav"}], {"a.wav": clip(0)})
    (kept,) = rows(store, run(store, [address], audio={"task": task, "language": ""}))
    user, assistant = kept["text"].removesuffix("<|end|><|endoftext|>").split("<|end|><|assistant|>")
    assert assistant == answers
    prompt = user.removeprefix("<|user|><|audio_1|>")
    if asks is None:
        assert prompt in templates(task, "en")
    elif task.startswith("ast"):
        assert asks in prompt or "Englische" in prompt
    else:
        assert prompt == asks


def test_every_task_asks_in_every_language_and_names_what_it_translates_to():
    for task in ("asr", "ast", "ast_cot", "summary", "understanding"):
        for language in LANGUAGES:
            own = templates(task, language)
            assert len(own) > len(templates(task, "en")) or language == "en"
            assert all(("{target}" in text) == task.startswith("ast") for text in own)
            assert all(("<sep>" in text) == (task == "ast_cot") for text in own)


@pytest.mark.parametrize("task", ["ast", "ast_cot"])
def test_what_a_translation_lacks_is_said(store, tmp_path, task):
    lines = [
        (WORDS | {"target_lang": "de"}, "audio.same_language"),
        (WORDS | {"target_lang": "nl"}, "audio.target"),
        ({name: value for name, value in WORDS.items() if name != "target_lang"}, "audio.no_target"),
        ({name: value for name, value in WORDS.items() if name != "translation"}, "audio.no_field"),
        (WORDS | {"translation": "Le moulin est au bord de la rivière."}, "transcript.other_language"),
        (WORDS, None),
    ]
    address = folder_of(tmp_path / "in", [line | {"audio": "a.wav"} for line, _ in lines], {"a.wav": clip(0)})
    manifest = run(store, [address], audio={"task": task})
    got = fates(store, manifest)
    assert [got[n][1] for n in range(len(lines))] == [reason for _, reason in lines]
    assert [row["learned_language"] for row in rows(store, manifest)] == ["en"]


def test_turns_say_where_clips_stand(store, tmp_path):
    parts = [{"type": "input_audio", "input_audio": "b.wav"}, {"type": "text", "text": " and "}]
    content = [*parts, {"type": "audio", "audio": "a.wav"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "Two mills."}]
    files = {"a.wav": clip(0), "b.wav": clip(1)}
    address = folder_of(tmp_path / "in", [{"messages": messages}], files)
    (row,) = rows(store, run(store, [address], audio={"task": "chat"}))
    assert row["text"].startswith("<|user|><|audio_1|> and <|audio_2|><|end|><|assistant|>Two mills.")
    assert [medium["data"] for medium in row["media"]] == [files["b.wav"], files["a.wav"]]


def test_a_dataset_is_the_same_whatever_its_records_come_in(store, tmp_path):
    clips = [clip(n, "FLAC" if n % 2 else "WAV") for n in range(4)]
    names = [f"{n:03}.{'flac' if n % 2 else 'wav'}" for n in range(4)]
    texts = [SAYS.format(n) for n in range(4)]
    lines = [{"audio": name, "text": text} for name, text in zip(names, texts, strict=True)]
    members: dict[str, bytes] = {}
    for name, data, text in zip(names, clips, texts, strict=True):
        members |= {name: data, name[:3] + ".txt": text.encode()}
    rows_in = [{"audio": {"bytes": data, "path": name}, "text": text}
               for name, data, text in zip(names, clips, texts, strict=True)]  # fmt: skip
    inputs = {
        "lines": folder_of(tmp_path / "lines", lines, dict(zip(names, clips, strict=True))),
        "tar": tar_of(tmp_path / "a.tar", members),
        "parquet": parquet_of(tmp_path / "c.parquet", rows_in),
    }
    clips_of = {
        kind: {(row["text"], row["media"][0]["sha256"], row["media"][0]["samples"])
               for row in rows(store, run(store, [address], dataset=kind))}
        for kind, address in inputs.items()
    }  # fmt: skip
    assert len(clips_of["lines"]) == 4 and all(clips_of[kind] == clips_of["lines"] for kind in clips_of)


def test_a_run_of_another_task_commits_nothing(store, tmp_path):
    address = folder_of(tmp_path / "in", [{"audio": "a.wav", "text": EN}], {"a.wav": clip(0)})
    with pytest.raises(GateFailed, match=r"not one of 1 records is a sample: audio\.no_field \(1\)"):
        run(store, [address], audio={"task": "summary"})
