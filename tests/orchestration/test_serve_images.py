"""`grist serve` with images: OpenAI's `image_url` parts, what the model sees of them, and what is refused and why."""

from __future__ import annotations

import io
import json
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote_to_bytes

import httpx
import numpy as np
import openai
import pytest
from models import greedy
from PIL import Image
from serving import Running, answer, asked, chat, refused, seeing_parts, serving, shown, texts, url, worded
from vision import encoded, picture, pixels
from waiting import PATIENCE

from gristmill.model.generate.engine import Request
from gristmill.model.processing.chat.served import read_history
from gristmill.model.processing.chat.template import answered
from gristmill.model.processing.image import plan_crops
from gristmill.model.processing.text import Tokenizer
from gristmill.model.windows.placeholders import Medium
from gristmill.model.windows.prompts import Prompts, cut_of
from gristmill.orchestration.serve import images, reading
from gristmill.orchestration.serve import server as server_module
from gristmill.orchestration.serve.images import ImageLimits

pytestmark = pytest.mark.usefixtures("one_thread")
LIMITS = ImageLimits(max_images=3, max_bytes=60_000, max_total_bytes=100_000, max_pixels=200_000, max_crops=4)


NOISE = encoded(np.random.default_rng(0).integers(0, 256, (120, 140, 3)).astype(np.uint8))


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(parts=seeing_parts, images=LIMITS) as running:
        yield running


def expected(messages: list[Any], images: list[bytes], count: int, max_crops: int = 4) -> str:
    """What the model without a cache writes after the prompt that a mixture would make of it."""
    data, model = seeing_parts()
    tokenizer = Tokenizer.from_bytes(data)
    prompts = Prompts(tokenizer, cut_of(model.config, tokenizer, max_crops))
    prompt = prompts.of(answered(read_history(messages, (), ("image",))), [Medium("image", file) for file in images])
    written, _ = greedy(model, Request("", prompt.tokens, media=prompt.media), count)
    ends = [place for place, token in enumerate(written) if token in model.config.text.eos_token_id]
    return tokenizer.decode(written[: ends[0]] if ends else written)


def test_the_answer_is_that_of_the_model_without_a_cache(server: Running) -> None:
    first, second = picture(1), picture(2, "JPEG", 200, 70)
    messages = asked(worded("the cat "), shown(first), worded(" and "), shown(second), worded(" ran"))
    assert texts(chat(server, messages=messages, temperature=0)) == [expected(messages, [first, second], 24)]


def test_images_of_several_turns_stand_where_they_were_shown(server: Running) -> None:
    files = [picture(1), picture(2)]
    messages = [
        *asked(shown(files[0])),
        {"role": "assistant", "content": "a cat"},
        *asked(worded("or "), shown(files[1])),
    ]
    assert texts(chat(server, messages=messages, temperature=0)) == [expected(messages, files, 24)]


def test_what_is_seen_decides(server: Running) -> None:
    answers = {answer(server, worded("the"), shown(picture(seed))) for seed in (1, 2, 3)}
    assert len(answers) > 1 and answer(server, worded("the")) not in answers


def test_images_count_as_tokens(server: Running) -> None:
    usage = [
        chat(server, messages=asked(worded("the"), *parts)).usage.prompt_tokens for parts in ((), (shown(picture(1)),))
    ]
    data, model = seeing_parts()
    cut = cut_of(model.config, Tokenizer.from_bytes(data), 4)
    assert cut is not None
    assert usage[1] - usage[0] == plan_crops(96, 128, cut.max_crops, cut.crop, cut.patch).tokens


def test_detail_low_is_one_crop(server: Running) -> None:
    messages = asked(worded("the"), shown(picture(1), detail="low"))
    assert texts(chat(server, messages=messages, temperature=0)) == [expected(messages, [picture(1)], 24, max_crops=1)]
    assert answer(server, worded("the"), shown(picture(1), detail="high")) == answer(
        server, worded("the"), shown(picture(1))
    )


def test_a_text_that_spells_a_placeholder_is_a_text(server: Running) -> None:
    messages = asked(worded("<|image_1|> <|image|>"), shown(picture(1)))
    assert texts(chat(server, messages=messages, temperature=0)) == [expected(messages, [picture(1)], 24)]


def test_a_seed_reproduces_and_another_picture_draws_others(server: Running) -> None:
    def drawn(seed: int) -> list[Any]:
        return texts(chat(server, messages=asked(worded("the"), shown(picture(seed))), seed=7, n=2))

    assert drawn(1) == drawn(1) != drawn(2)


def test_texts_are_answered_as_by_a_server_of_texts_alone_beside_images(server: Running) -> None:
    alone = answer(server, worded("the cat sat"))
    with ThreadPoolExecutor(4) as pool:
        seen = [pool.submit(answer, server, worded("the"), shown(picture(seed))) for seed in (1, 2)]
        read = [pool.submit(answer, server, worded("the cat sat")) for _ in range(2)]
        assert {job.result() for job in read} == {alone}
        assert all(job.result() is not None for job in seen)


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in a few bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def animation() -> bytes:
    stream = io.BytesIO()
    frames = [Image.fromarray(pixels(seed)) for seed in (1, 2)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (shown(b"no picture"), "image 1: no format of images is known"),
        (shown(b""), "image 1: no format of images is known"),
        (shown(picture(1)[:-3000]), "image 1: "),
        (shown(bomb()), "image 1: "),
        (shown(encoded(np.zeros((500, 500, 3), np.uint8))), "250000, allowed are 200000"),
        (shown(encoded(np.zeros((4, 4000, 3), np.uint8))), "very extreme"),
        (shown(animation()), "an animated GIF"),
        (shown(NOISE + bytes(60_000)), "larger than 60,000 bytes"),
        (shown("data:image/png;base64,@@@@"), "no base64"),
        (shown("data:text/html;base64,AAAA"), "a data URL of 'text/html'"),
        (shown("data:image/png"), "no data URL"),
        (shown("ftp://example.org/a.png"), "fetches no images"),
        (shown("https://example.org/a.png"), "fetches no images"),
        (shown(picture(1), detail="ultra"), "detail='ultra': allowed are auto, low, high"),
        ({"type": "image_url", "image_url": "x"}, "allowed is an object with url"),
        ({"type": "image_url"}, "allowed is an object with url"),
        ({"type": "image_url", "image_url": {"url": url(picture(1)), "size": 3}}, "size is not supported"),
        ({"type": "video_url", "video_url": {"url": ""}}, "takes text, and of users image, audio"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_is_no_image_is_refused_by_its_number(server: Running, part: dict[str, Any], words: str) -> None:
    assert words in refused(server, worded("what is"), part)


def test_the_bytes_of_a_data_url_may_be_written_in_percent(server: Running) -> None:
    data = encoded(pixels(1, 32, 32))
    plain = "data:image/png," + "".join(f"%{byte:02x}" for byte in data)
    assert answer(server, worded("the"), shown(plain)) == answer(server, worded("the"), shown(data))


def test_percents_are_read_in_pieces_which_break_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_PIECE", 5)
    text = "%41%4%%zz%c3%A9 é%ff%4"
    for first in range(len(text)):
        assert images.from_percents(text[first:], 99) == unquote_to_bytes(text[first:])
    assert images.from_percents("%41" * 100, 6) == b"A" * 7
    monkeypatch.undo()
    tracemalloc.start()
    try:
        assert len(images.from_percents("%41" * 2_000_000, 1 << 30)) == 2_000_000
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_too_many_images_too_many_bytes_and_too_many_tokens_are_refused(server: Running) -> None:
    assert "4 images: this server takes 3" in refused(server, *[shown(picture(1))] * 4)
    assert 50_000 < len(NOISE) <= LIMITS.max_bytes
    assert "image 2: all images together are larger than 100,000 bytes" in refused(server, shown(NOISE), shown(NOISE))
    wide = encoded(np.zeros((128, 128, 3), np.uint8))
    with pytest.raises(openai.BadRequestError) as info:
        answer(server, *[shown(wide)] * 3, worded("x"), max_tokens=300)
    assert info.value.code == "context_length_exceeded"


def test_images_are_decoded_among_large_requests_however_their_part_is_spelled(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def media_of(*given: Any) -> list[Medium]:
        threads.append(threading.current_thread().name)
        return images.media_of(*given)

    monkeypatch.setattr(reading, "media_of", media_of)
    body = json.dumps({"model": "tiny", "messages": asked(worded("the"), shown(picture(1))), "max_tokens": 1})
    for text in (body, body.replace("image_url", r"image\u005furl")):
        assert len(text) < server_module._LARGE
        reply = httpx.post(f"{server.url}/v1/chat/completions", content=text, timeout=PATIENCE)
        assert reply.status_code == 200
    seen = [name for name in threads if name.startswith("large requests")]
    assert len(seen) == 2


def test_an_image_of_the_assistant_is_refused(server: Running) -> None:
    messages = [*asked(worded("hi")), {"role": "assistant", "content": [shown(picture(1))]}, *asked(worded("so?"))]
    with pytest.raises(openai.BadRequestError, match="unsupported_content: image_url"):
        chat(server, messages=messages)


def test_a_refused_image_leaves_nothing_behind(server: Running) -> None:
    refused(server, shown(b"no picture"))
    assert server.health().json()["samples"] == 0
    assert answer(server, worded("the"), shown(picture(1))) is not None
