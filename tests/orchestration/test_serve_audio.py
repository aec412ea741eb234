"""`grist serve` with clips: OpenAI's `input_audio` parts, alone and beside images, and what is refused and why."""

from __future__ import annotations

import base64
import json
import struct
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from models import greedy
from serving import Running, answer, asked, chat, heard, refused, seeing_parts, serving, shown, texts, toy_parts, worded
from speech import clip, encoded, waveform
from vision import picture
from waiting import PATIENCE

from gristmill.model.generate.engine import Request
from gristmill.model.processing.audio import audio_tokens, frames_of
from gristmill.model.processing.chat.served import read_history
from gristmill.model.processing.chat.template import answered
from gristmill.model.processing.text import Tokenizer
from gristmill.model.windows.placeholders import Medium
from gristmill.model.windows.prompts import Prompts, cut_of, log_mel_of
from gristmill.orchestration.serve import clips as clips_module
from gristmill.orchestration.serve import prompts as prompts_module
from gristmill.orchestration.serve.clips import AudioLimits
from gristmill.orchestration.serve.images import ImageLimits
from gristmill.orchestration.serve.server import BODY_LIMIT, default_body_limit

pytestmark = pytest.mark.usefixtures("one_thread")
LIMITS = AudioLimits(max_clips=3, max_bytes=200_000, max_total_bytes=300_000, max_seconds=4, max_total_seconds=6)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(parts=seeing_parts, images=ImageLimits(max_crops=4), audio=LIMITS) as running:
        yield running


def expected(messages: list[Any], media: Sequence[Medium], adapter: str) -> str:
    """What the model without a cache writes after the prompt that a mixture would make of it."""
    data, model = seeing_parts()
    tokenizer = Tokenizer.from_bytes(data)
    prompts = Prompts(tokenizer, cut_of(model.config, tokenizer, 4), log_mel=log_mel_of(model.config, tokenizer))
    prompt = prompts.of(answered(read_history(messages, (), ("image", "audio"))), media)
    written, _ = greedy(model, Request("", prompt.tokens, media=prompt.media, adapter=adapter), 24)
    ends = [place for place, token in enumerate(written) if token in model.config.text.eos_token_id]
    return tokenizer.decode(written[: ends[0]] if ends else written)


@pytest.mark.parametrize("format", ["WAV", "FLAC", "MP3", "OGG"])
def test_the_answer_is_that_of_the_model_without_a_cache(server: Running, format: str) -> None:
    first, second = clip(1, format), clip(2, "WAV", 1.0, 44_100)
    messages = asked(worded("the cat "), heard(first, format.lower()), worded(" and "), heard(second))
    media = [Medium("audio", first), Medium("audio", second)]
    assert texts(chat(server, messages=messages, temperature=0)) == [expected(messages, media, "speech")]


def test_a_spoken_question_about_an_image_takes_the_adapter_of_images(server: Running) -> None:
    messages = asked(heard(clip(1)), shown(picture(1)), worded("so?"))
    media = [Medium("audio", clip(1)), Medium("image", picture(1))]
    (text,) = texts(chat(server, messages=messages, temperature=0))
    assert text == expected(messages, media, "vision") != expected(messages, media, "speech")


def test_clips_and_images_are_counted_apart_over_several_turns(server: Running) -> None:
    turns = [
        *asked(shown(picture(1)), heard(clip(1))),
        {"role": "assistant", "content": "a cat"},
        *asked(heard(clip(2)), shown(picture(2)), worded("and?")),
    ]
    media = [Medium("image", picture(n)) for n in (1, 2)] + [Medium("audio", clip(n)) for n in (1, 2)]
    assert texts(chat(server, messages=turns, temperature=0)) == [expected(turns, media, "vision")]


def test_what_is_heard_decides_and_counts_as_tokens(server: Running) -> None:
    answers = {answer(server, worded("the"), heard(clip(seed))) for seed in (1, 2, 3)}
    assert len(answers) > 1 and answer(server, worded("the")) not in answers
    usage = [
        chat(server, messages=asked(worded("the"), *parts)).usage.prompt_tokens for parts in ((), (heard(clip(1)),))
    ]
    assert usage[1] - usage[0] == audio_tokens(frames_of(32_000))


def test_a_text_that_spells_a_placeholder_is_a_text(server: Running) -> None:
    messages = asked(worded("<|audio_1|> <|audio|>"), heard(clip(1)))
    assert texts(chat(server, messages=messages, temperature=0)) == [
        expected(messages, [Medium("audio", clip(1))], "speech")
    ]


def test_a_seed_reproduces_and_another_clip_draws_others(server: Running) -> None:
    def drawn(seed: int) -> list[Any]:
        return texts(chat(server, messages=asked(worded("the"), heard(clip(seed))), seed=7, n=2))

    assert drawn(1) == drawn(1) != drawn(2)


def test_texts_are_answered_as_alone_beside_clips(server: Running) -> None:
    alone = answer(server, worded("the cat sat"))
    with ThreadPoolExecutor(4) as pool:
        spoken = [pool.submit(answer, server, worded("the"), heard(clip(seed))) for seed in (1, 2)]
        read = [pool.submit(answer, server, worded("the cat sat")) for _ in range(2)]
        assert {job.result() for job in read} == {alone}
        assert all(job.result() is not None for job in spoken)


def header_of(rate: int, channels: int) -> bytes:
    """A WAV file of such a header, with a second of silence at 8,000 Hz."""
    width = 2 * channels
    about = struct.pack("<HHIIHH", 1, channels, rate, rate * width & 0xFFFFFFFF, width, 16)
    data = bytes(16_000 // width * width)
    chunks = b"fmt " + struct.pack("<I", len(about)) + about + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


NAN = encoded(np.full(1600, np.nan, np.float32), subtype="FLOAT")
FAR = "http://169.254.169.254/latest/meta-data"


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (heard(b"no clip at all"), "clip 1: libsndfile does not read it"),
        (heard(clip(1)[:-9000]), "clip 1: "),
        (heard(encoded(np.zeros(100, np.float32))), "clip 1: it has no whole frame of 25 ms"),
        (heard(encoded(np.zeros(0, np.float32))), "without a sample"),
        (heard(header_of(1_092_676, 1)), "1092676 Hz"),
        (heard(header_of(8_000, 9)), "9 channels, allowed are 8"),
        (heard(NAN), "not all numbers"),
        (heard(clip(1, seconds=4.5)), "4.5 seconds, allowed are 4"),
        (heard(bytes(200_001)), "larger than 200,000 bytes"),
        (heard(bytes(400_000)), "larger than 200,000 bytes"),
        (heard(clip(1), "m4a"), "format='m4a': allowed are wav, mp3"),
        (heard(clip(1), "wav", url=FAR), "url is not supported"),
        ({"type": "input_audio", "input_audio": {"data": "@@@@", "format": "wav"}}, "no base64"),
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, "allowed is an object with data"),
        ({"type": "input_audio", "input_audio": FAR}, "allowed is an object with data"),
        ({"type": "input_audio"}, "allowed is an object with data"),
        ({"type": "audio_url", "audio_url": {"url": FAR}}, "takes text, and of users image, audio"),
        ({"type": "audio_url", "audio_url": {"url": "file:///etc/passwd"}}, "takes text, and of users image, audio"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_is_no_clip_is_refused_by_its_number(server: Running, part: dict[str, Any], words: str) -> None:
    assert words in refused(server, worded("what is"), part)
    assert server.health().json()["samples"] == 0


def test_too_many_clips_bytes_seconds_and_tokens_are_refused(server: Running) -> None:
    assert "4 clips: this server takes 3" in refused(server, *[heard(clip(1))] * 4)
    long = heard(clip(1, seconds=3.5))
    assert "clip 2: all clips together are longer than 6 seconds" in refused(server, long, long)
    large = heard(encoded(waveform(1, 3, 32_000), 32_000))
    assert "clip 2: all clips together are larger than 300,000" in refused(server, large, large)
    reply = httpx.post(
        f"{server.url}/v1/chat/completions",
        json={"model": "tiny", "messages": asked(heard(clip(1, seconds=3.9))), "max_tokens": 480},
        timeout=PATIENCE,
    )
    assert reply.status_code == 400 and reply.json()["error"]["code"] == "context_length_exceeded"


def test_a_clip_that_is_too_long_is_refused_by_its_header(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def decoding(*_: Any, **__: Any) -> Any:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("gristmill.model.windows.prompts.file_mel", decoding)
    assert "allowed are 4" in refused(server, heard(clip(1, seconds=4.5)))
    refused(server, *[heard(clip(1, seconds=2))] * 3, max_tokens=500)


def test_clips_are_decoded_among_large_requests(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    decode = prompts_module.Prompts.decoded

    def decoded(*given: Any) -> Any:
        threads.append(threading.current_thread().name)
        return decode(*given)

    monkeypatch.setattr(prompts_module.Prompts, "decoded", decoded)
    body = json.dumps({"model": "tiny", "messages": asked(heard(clip(1, "MP3"), "mp3")), "max_tokens": 1})
    reply = httpx.post(f"{server.url}/v1/chat/completions", content=body, timeout=PATIENCE)
    assert reply.status_code == 200 and len(body) < 1 << 16
    assert [name.rpartition("_")[0] for name in threads] == ["large requests"]


def test_a_clip_of_the_assistant_is_refused(server: Running) -> None:
    messages = [*asked(worded("hi")), {"role": "assistant", "content": [heard(clip(1))]}, *asked(worded("so?"))]
    reply = httpx.post(
        f"{server.url}/v1/chat/completions", json={"model": "tiny", "messages": messages}, timeout=PATIENCE
    )
    assert reply.status_code == 400 and "unsupported_content: input_audio" in reply.text


def test_a_model_of_texts_alone_takes_no_clip() -> None:
    with serving(parts=toy_parts) as deaf:
        assert "this server takes text only" in refused(deaf, heard(clip(1)))
        with pytest.raises(Exception, match="takes no audio"):
            deaf.client.audio.transcriptions.create(model="tiny", file=("a.wav", clip(1)))


def test_the_limit_that_a_clip_meets_is_its_own() -> None:
    most = AudioLimits().max_bytes
    with serving(parts=seeing_parts) as server:
        assert "libsndfile does not read it" in refused(server, heard(bytes(most)))
        assert f"clip 1: larger than {most:,} bytes" in refused(server, heard(bytes(most + 1)))


def test_a_body_has_room_for_all_that_the_limits_of_media_allow() -> None:
    images, audio = ImageLimits(max_total_bytes=1_000), AudioLimits(max_total_bytes=5_000)
    sizes = {"image": len(base64.b64encode(bytes(1_000))), "audio": len(base64.b64encode(bytes(5_000)))}
    for kinds in ([], ["image"], ["audio"], ["image", "audio"]):
        assert default_body_limit(kinds, images, audio) == BODY_LIMIT + sum(sizes[kind] for kind in kinds)


@pytest.mark.parametrize("name", ["max_clips", "max_bytes", "max_total_bytes", "max_seconds", "max_total_seconds"])
def test_limits_are_above_nothing(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=0: allowed is above 0"):
        clips_module.AudioLimits(**{name: 0})
