"""Prompts with images and clips: what a mixture's windows hold of a record, and what the engine writes of it beside
texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from models import NANO, enlivened, greedy, small_tokenizer, words
from speech import clip
from vision import encoded, picture, pixels

from gristmill.model.generate.engine import Engine, Options, Request
from gristmill.model.generate.sampling import Sampling
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.processing.audio_file import file_mel
from gristmill.model.processing.image import crops
from gristmill.model.processing.segments import Segment, placeholder
from gristmill.model.processing.text import Tokenizer
from gristmill.model.windows.placeholders import BadMedium, LogMel, Medium
from gristmill.model.windows.prompts import Prompts, cut_of, log_mel_of

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = Options(max_num_seqs=4, max_model_len=512, max_num_partial_prefills=4, prefill_chunk_size=32, block_size=64)
GREEDY = Sampling(max_tokens=8, temperature=0, ignore_eos=True)
TOKENIZER = Tokenizer.from_bytes(small_tokenizer())
PROMPTS = Prompts(TOKENIZER, cut_of(NANO, TOKENIZER, 4))
FILES = [picture(1), picture(2, "JPEG", 200, 70)]


def parts(*numbers: int) -> Sequence[Segment]:
    """Words around images."""
    return [Segment("a mill"), *(part for n in numbers for part in (placeholder("image", n), Segment(" grinds")))]


@pytest.fixture(scope="module")
def model() -> Multimodal:
    return enlivened(NANO, 0)


def test_images_stand_in_the_order_of_their_placeholders_by_bytes_as_by_pixels() -> None:
    files = [Medium("image", file) for file in FILES]
    prompt = PROMPTS.of(parts(2, 1), files)
    assert NANO.vision is not None
    cut = [crops(pixels(1), 4, 64, 8)]
    assert (prompt.media["tiles"][-len(cut[0].tiles) :] == cut[0].tiles).all()
    assert tuple(prompt.media["image_sizes"][1]) == cut[0].image_size
    assert prompt.tokens.count(NANO.vision.image_token_id) == sum(
        PROMPTS.of(parts(1), [medium]).tokens.count(NANO.vision.image_token_id) for medium in files
    )
    arrays = PROMPTS.of(parts(1), [Medium("image", pixels(1))])
    assert arrays.tokens == PROMPTS.of(parts(1), files[:1]).tokens
    assert (arrays.media["tiles"] == cut[0].tiles).all()


def test_the_engine_writes_of_images_what_the_model_without_a_cache_does_and_of_texts_what_it_does_alone(
    model: Multimodal,
) -> None:
    shown = [
        Request(f"{numbers}", prompt.tokens, GREEDY, media=prompt.media)
        for numbers in ((1,), (2, 1))
        for prompt in [PROMPTS.of(parts(*numbers), [Medium("image", file) for file in FILES])]
    ]
    texts = [Request(f"text {n}", words(9 + n, n), replace(GREEDY, logprobs=1)) for n in range(3)]
    alone = {done.request.key: (done.tokens, done.logprobs) for done in Engine(model, OPTIONS).run(texts)}
    mixed = [shown[0], texts[0], shown[1], *texts[1:]]
    together = {done.request.key: done for done in Engine(model, OPTIONS).run(mixed)}
    for request in shown:
        assert together[request.key].tokens == greedy(model, request, 8)[0]
        assert together[request.key].adapter == "vision"
    for request in texts:
        assert (together[request.key].tokens, together[request.key].logprobs) == alone[request.key]


@pytest.mark.parametrize(
    ("numbers", "data", "words_"),
    [
        ((2,), FILES[0], "<|image_2|>: there are 1 media beside the text, and no such image"),
        ((1,), b"no picture", "image 1: no format of images"),
        ((1,), FILES[0][:-4000], "image 1: "),
        ((1,), encoded(np.zeros((4, 4000, 3), np.uint8)), "image 1: the aspect ratio"),
    ],
)
def test_what_cannot_be_shown_says_why(numbers: tuple[int, ...], data: bytes, words_: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(words_)) as info:
        PROMPTS.of(parts(*numbers), [Medium("image", data)])
    assert isinstance(info.value, BadMedium) == words_.startswith("image")


def test_a_model_without_vision_takes_none_and_a_tokenizer_without_the_token_is_refused() -> None:
    assert cut_of(replace(NANO, vision=None), TOKENIZER) is None
    with pytest.raises(ValueError, match="the model takes no image"):
        Prompts(TOKENIZER).of(parts(1), [Medium("image", FILES[0])])
    assert NANO.vision is not None
    with pytest.raises(ValueError, match="no special token"):
        cut_of(replace(NANO, vision=replace(NANO.vision, image_token_id=99)), TOKENIZER)


def test_media_of_another_model_stop_no_other_request(model: Multimodal) -> None:
    engine = Engine(model, OPTIONS)
    prompt = PROMPTS.of(parts(1), [Medium("image", FILES[0])])
    with pytest.raises(ValueError, match="tiles are uint8"):
        engine.submit(
            Request("a", prompt.tokens, GREEDY, media={**prompt.media, "tiles": prompt.media["tiles"][:, :32]})
        )
    with pytest.raises(ValueError, match="tokens of vision"):
        engine.submit(Request("a", prompt.tokens[:9], GREEDY, media=prompt.media))
    assert engine.idle


# Clips.

HEARING = Prompts(TOKENIZER, cut_of(NANO, TOKENIZER, 4), log_mel=log_mel_of(NANO, TOKENIZER, LogMel(max_seconds=4)))
CLIPS = [clip(1), clip(2, "MP3", 1.3, 44_100)]


def spoken(*numbers: int) -> Sequence[Segment]:
    """Words around clips."""
    return [Segment("a mill"), *(part for n in numbers for part in (placeholder("audio", n), Segment(" grinds")))]


def test_clips_stand_in_the_order_of_their_placeholders_counted_apart_from_images() -> None:
    assert NANO.audio is not None
    media = [Medium("audio", CLIPS[0]), Medium("image", FILES[0]), Medium("audio", CLIPS[1])]
    prompt = HEARING.of([*spoken(2, 1), placeholder("image", 1)], media)
    mels = [file_mel(data, exact=LogMel().exact) for data in (CLIPS[1], CLIPS[0])]
    assert (prompt.media["mel"] == np.concatenate(mels)).all()
    assert prompt.media["cu_frames"].tolist() == [0, len(mels[0]), len(mels[0]) + len(mels[1])]
    assert len(prompt.media["image_sizes"]) == 1
    assert prompt.tokens.count(NANO.audio.audio_token_id) == sum(-(-len(mel) // 8) for mel in mels)


def test_the_engine_writes_of_clips_what_the_model_without_a_cache_does_beside_others(model: Multimodal) -> None:
    media = [*(Medium("audio", data) for data in CLIPS), Medium("image", FILES[0])]
    asked = {
        "one": (spoken(1), "speech"),
        "two": (spoken(2, 1), "speech"),
        "both": ([*spoken(2), placeholder("image", 1), Segment("?")], "vision"),
    }
    requests = [
        Request(key, prompt.tokens, GREEDY, media=prompt.media)
        for key, (parts_, _) in asked.items()
        for prompt in [HEARING.of(parts_, media)]
    ]
    together = {done.request.key: done for done in Engine(model, OPTIONS).run(requests)}
    for request in requests:
        done = together[request.key]
        assert done.tokens == greedy(model, request, 8)[0] and done.adapter == asked[request.key][1]


def test_frames_that_are_known_count_and_have_to_be_right() -> None:
    frames = len(file_mel(CLIPS[0]))
    assert len(HEARING.tokens(spoken(1), [Medium("audio", CLIPS[0], frames=frames)])) == len(
        HEARING.tokens(spoken(1), [Medium("audio", CLIPS[0])])
    )
    with pytest.raises(BadMedium, match=f"audio 1: {frames} frames, and it is of 9"):
        HEARING.arrays(spoken(1), [Medium("audio", CLIPS[0], frames=9)])


@pytest.mark.parametrize(
    ("numbers", "data", "words_"),
    [
        ((2,), CLIPS[0], "<|audio_2|>: there are 1 media beside the text, and no such audio"),
        ((1,), b"no clip", "audio 1: libsndfile does not read it"),
        ((1,), clip(1, seconds=4.1), "audio 1: 4.1 seconds, allowed are 4"),
        ((1,), clip(1, seconds=0.02), "audio 1: it has no whole frame"),
    ],
)
def test_what_cannot_be_heard_says_why(numbers: tuple[int, ...], data: bytes, words_: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(words_)):
        HEARING.of(spoken(*numbers), [Medium("audio", data)])


def test_a_model_without_audio_takes_none() -> None:
    assert log_mel_of(replace(NANO, audio=None), TOKENIZER) is None
    with pytest.raises(ValueError, match="the model takes no audio"):
        PROMPTS.of(spoken(1), [Medium("audio", CLIPS[0])])
    assert NANO.audio is not None
    with pytest.raises(ValueError, match=r"the model puts clips at token 99, .*no special token"):
        log_mel_of(replace(NANO, audio=replace(NANO.audio, audio_token_id=99)), TOKENIZER)
