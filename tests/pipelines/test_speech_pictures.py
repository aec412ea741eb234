"""Spoken questions about pictures: records of the speech pipeline with images beside their clips, and their mixture."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from clip_mixtures import TAKEN
from forget_lake import do
from image_mixtures import CUT
from mixtures import mix, tokenizer, windows
from speech import clip, run
from vision import fates, picture, rows, tar_of

from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.tokenizer import tokenizer_of

ASKED = {"task": "sqqa", "max_images": 2}


def members(number, row, pictures=1, data=None):
    """Files of a sample of a tar."""
    files = {f"{number}.json": json.dumps(row).encode(), f"{number}.wav": clip(number)}
    for n in range(pictures):
        files[f"{number}.{n}.png"] = picture(10 * number + n) if data is None else data
    return files


def asked_of(number, **more):
    return members(number, {"question": f"What is at place {number}?", "answer": f"Mill {number}."}, **more)


def test_an_image_and_the_clip_that_asks_about_it_are_one_sample(store, tmp_path):
    records = asked_of(1) | asked_of(2, pictures=2) | asked_of(3, pictures=0)
    records |= asked_of(4, pictures=3) | asked_of(5, data=b"\x89PNG\r\n\x1a\n cut off")
    manifest = run(store, [tar_of(tmp_path / "asked.tar", records)], audio=ASKED, min_similarity=None)
    assert [fates(store, manifest)[number] for number in range(5)] == [
        *[("kept", None)] * 3, ("dropped", "audio.too_many_images"), ("dropped", "audio.unreadable"),
    ]  # fmt: skip
    kept = {row["text"].split("Mill ")[1][0]: row for row in rows(store, manifest)}
    user = "<|user|>{}<|end|><|assistant|>Mill {}.<|end|><|endoftext|>"
    assert kept["1"]["text"] == user.format("<|image_1|><|audio_1|>", 1)
    assert kept["2"]["text"] == user.format("<|image_1|><|image_2|><|audio_1|>", 2)
    assert kept["3"]["text"] == user.format("<|audio_1|>", 3)
    assert [[item["kind"] for item in kept[n]["media"]] for n in "123"] == [
        ["image", "audio"], ["image", "image", "audio"], ["audio"],
    ]  # fmt: skip
    image, spoken = kept["1"]["media"]
    assert (image["height"], image["width"], spoken["samples"], spoken["rate"]) == (96, 128, 32_000, 16_000)
    assert image["data"] == picture(10) and spoken["data"] == clip(1)
    assert not verify(store, deep=True).problems


def test_images_are_no_clips_unless_they_are_asked_for(store, tmp_path):
    address = tar_of(tmp_path / "asked.tar", asked_of(1))
    with pytest.raises(GateFailed, match=r"audio\.not_audio \(1\)"):
        run(store, [address], audio={"task": "sqqa"})
    with pytest.raises(ValueError, match="max_images=0"):
        run(store, [address], audio={"max_images": 0})


def test_a_chat_places_images_and_clips_where_it_names_them(store, tmp_path):
    content = [
        {"type": "audio"},
        {"type": "text", "text": " of "},
        {"type": "image", "image": "7.1.png"},
        {"type": "text", "text": " or "},
        {"type": "image", "image": "7.0.png"},
    ]
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": "The first."}]
    address = tar_of(tmp_path / "chat.tar", members(7, {"messages": turns}, pictures=2))
    (row,) = rows(store, run(store, [address], audio={"task": "chat", "max_images": 2}))
    assert row["text"].startswith("<|user|><|audio_1|> of <|image_1|> or <|image_2|><|end|>")
    assert [item["data"] for item in row["media"]] == [picture(71), picture(70), clip(7)]


def test_the_same_question_about_another_picture_is_no_duplicate(store, tmp_path):
    row = {"question": "What is there?", "answer": "A mill."}
    records: dict[str, bytes] = {}
    for number, seed in enumerate((1, 2, 1)):
        records |= {
            f"{number}.json": json.dumps({**row, "id": str(number)}).encode(),
            f"{number}.wav": clip(0),
            f"{number}.png": picture(seed),
        }
    manifest = run(store, [tar_of(tmp_path / "asked.tar", records)], audio=ASKED)
    assert [fate for fate, _ in fates(store, manifest).values()].count("kept") == 2


def test_a_mixture_takes_both_and_a_takedown_of_either_takes_the_record(store, tmp_path):
    records: dict[str, bytes] = {}
    for number in range(6):
        records |= asked_of(number)
    run(store, [tar_of(tmp_path / "asked.tar", records)], audio=ASKED, min_similarity=None, speech_rate=None)
    tokenizer(store, "speech@v1")
    sources = {"speech@v1": {"weight": 1, "max_epochs": 1}}
    manifest = mix(store, sources, window=512, images=CUT, audio=TAKEN, max_waste=0.5).manifest
    special = tokenizer_of(Versions(store), manifest).special
    pictures = clips = 0
    for window in windows(store, manifest):
        ids, bounds = window.arrays["input_ids"], window.arrays["cu_seqlens"]
        pictures += len(window.arrays["image_sizes"])
        clips += len(window.arrays["cu_frames"]) - 1
        for start, end in pairwise(bounds):
            at = [np.flatnonzero(ids[start:end] == special(name)) for name in ("<|image|>", "<|audio|>")]
            assert len(at[0]) and len(at[1]) == 25 and at[0].max() < at[1].min()
    assert pictures == clips == 6
    (row, *_) = rows(store, Versions(store).resolve("speech@v1"))
    do(store, Suppression(media=frozenset([row["media"][0]["sha256"]])))
    left = rows(store, Versions(store).resolve("speech"))
    assert len(left) == 5 and row["id"] not in {other["id"] for other in left}
    do(store, Suppression(media=frozenset([left[0]["media"][1]["sha256"]])))
    assert len(rows(store, Versions(store).resolve("speech"))) == 4
