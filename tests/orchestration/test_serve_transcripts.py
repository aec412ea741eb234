"""`/v1/audio/transcriptions`, as OpenAI's own client sends a file and reads the answer."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from serving import Running, asked, chat, heard, seeing_parts, serving, texts, worded
from speech import clip, encoded, waveform
from waiting import PATIENCE

from gristmill.orchestration.serve.clips import AudioLimits
from gristmill.orchestration.serve.forms import MOST_PARTS, read_form
from gristmill.stages.speech.prompts import templates

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT = "1 " * 215
"""A request that leaves little room for an answer."""
SAID = ["the cat", " sat où", "<|end|>"]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(parts=seeing_parts, audio=AudioLimits(max_bytes=200_000, max_seconds=4)) as running:
        yield running


def transcribed(server: Running, **settings: Any) -> Any:
    """An answer of /v1/audio/transcriptions."""
    given = {"model": "tiny", "file": ("clip.flac", clip(1, "FLAC"))} | settings
    return server.client.audio.transcriptions.create(**given)


def same_as_chat(server: Running, words: str, **settings: Any) -> bool:
    """Whether a transcript is what the model says to a message with the clip and these words, both not limited. The
    model never ends by itself: the first 20 characters tell."""
    parts = heard(clip(1, "FLAC"), "flac"), worded(words)
    (text,) = texts(chat(server, messages=asked(*parts), temperature=0, max_tokens=24))
    return str(transcribed(server, **settings).text).startswith(text[:20])


def test_a_transcript_is_the_answer_to_the_request_of_training(server: Running) -> None:
    request, german = templates("asr", "en")[0], templates("asr", "de")[0]
    assert same_as_chat(server, request)
    assert same_as_chat(server, german, language="de") and not same_as_chat(server, request, language="de")
    assert same_as_chat(server, SHORT, prompt=SHORT)


def test_the_forms_of_an_answer(server: Running) -> None:
    server.script(SAID)
    try:
        plain = transcribed(server)
        assert plain.text == "the cat sat où"
        assert plain.usage.type == "tokens" and plain.usage.input_token_details.audio_tokens == 25
        assert plain.usage.total_tokens == plain.usage.input_tokens + plain.usage.output_tokens
        assert transcribed(server, response_format="text") == "the cat sat où"
        whole = transcribed(server, response_format="verbose_json", language="fr-FR")
        assert (whole.text, whole.language, whole.duration) == ("the cat sat où", "fr", 2.0)
        assert whole.usage.seconds == 2
    finally:
        server.engine.script = ()


def test_a_stream_is_the_whole_text_in_pieces(server: Running) -> None:
    server.script(SAID)
    try:
        events = list(transcribed(server, stream=True))
    finally:
        server.engine.script = ()
    pieces = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(pieces) > 2 and "".join(pieces) == events[-1].text == "the cat sat où"
    assert events[-1].type == "transcript.text.done" and events[-1].usage.input_token_details.audio_tokens == 25


def test_warm_answers_are_drawn_by_the_seed(server: Running) -> None:
    def drawn(seed: int) -> str:
        return str(transcribed(server, temperature=1, prompt=SHORT, extra_body={"seed": seed}).text)

    assert drawn(1) == drawn(1) != drawn(2)


@pytest.mark.parametrize(
    ("settings", "param", "words"),
    [
        ({"file": ("a.wav", b"no clip")}, "file", "libsndfile does not read it"),
        ({"file": ("a.wav", b"")}, "file", "missing or empty"),
        ({"file": ("a.wav", clip(1, seconds=5))}, "file", "5.0 seconds, allowed are 4"),
        ({"file": ("a.wav", bytes(200_001))}, "file", "larger than 200,000 bytes"),
        ({"file": ("a.wav", clip(1, seconds=0.01))}, "file", "no whole frame"),
        ({"language": "tlh"}, "language", "language='tlh': allowed are zh, en"),
        ({"response_format": "srt"}, "response_format", "times of words are not known"),
        ({"response_format": "verbose_json", "stream": True}, "response_format", "allowed are json and text"),
        ({"temperature": 3}, "temperature", "allowed is 0 to 1"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities[]", "not supported"),
        ({"include": ["logprobs"]}, "include[]", "not supported"),
        ({"extra_body": {"top_k": 3}}, "top_k", "not supported by this server"),
        ({"extra_body": {"url": "http://127.0.0.1/a.wav"}}, "url", "not supported by this server"),
        ({"extra_body": {"seed": "x"}}, "seed", "allowed is a whole number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_transcribed_says_why(server: Running, settings: Any, param: str, words: str) -> None:
    with pytest.raises(openai.BadRequestError) as info:
        transcribed(server, **settings)
    assert info.value.param == param and words in str(info.value)


def test_a_transcript_that_cannot_fit_is_refused() -> None:
    with (
        serving(parts=seeing_parts) as server,
        pytest.raises(openai.BadRequestError, match="the prompt is too long") as info,
    ):
        transcribed(server, file=("a.flac", encoded(waveform(1, 50), format="FLAC")))
    assert info.value.code == "context_length_exceeded"


def test_another_model_and_another_key_are_refused(server: Running) -> None:
    with pytest.raises(openai.NotFoundError):
        transcribed(server, model="whisper-1")
    with (
        serving(parts=seeing_parts, api_key="secret") as guarded,
        pytest.raises(openai.AuthenticationError),
    ):
        transcribed(guarded)


def posted(server: Running, content_type: str, body: bytes) -> str:
    reply = httpx.post(
        f"{server.url}/v1/audio/transcriptions",
        content=body,
        headers={"content-type": content_type},
        timeout=PATIENCE,
    )
    assert reply.status_code == 400
    return str(reply.json()["error"]["message"])


FORM = "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n'


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("application/json", b"{}", "allowed is multipart/form-data with a boundary"),
        ("multipart/form-data", PART, "allowed is multipart/form-data with a boundary"),
        (FORM, b"garbage", "the body is no form"),
        (FORM, PART, "it ends within a part"),
        (FORM, PART + b"--b--\r\n", "file: it is missing"),
        (FORM, PART + PART + b"--b--\r\n", "model: it is there twice"),
        (FORM, PART * (MOST_PARTS + 1) + b"--b--\r\n", f"more than {MOST_PARTS} parts"),
        (FORM, b"--b\r\nX-Y: z\r\n\r\n1\r\n--b--\r\n", "a part without a name"),
        (FORM, b"--b\r\nX-Y: " + bytes([120]) * 9000 + b"\r\n\r\n1\r\n--b--\r\n", "the body is no form"),
        (FORM, PART.replace(b"tiny", b"\xff\xfe") + b"--b--\r\n", "file: it is missing"),
    ],
)
def test_what_is_no_form_says_why_to_its_sender_alone(
    server: Running, caplog: pytest.LogCaptureFixture, kind: str, body: bytes, words: str
) -> None:
    assert words in posted(server, kind, body)
    assert [record for record in caplog.records if "multipart" in record.name] == []


def test_a_form_is_read_as_the_client_wrote_it() -> None:
    request = httpx.Request(
        "POST",
        "http://x",
        data={"model": "tiny", "prompt": "où?"},
        files={"file": ("ü.wav", io.BytesIO(b"\r\n--b\r\n"))},
    )
    fields = read_form(request.headers["content-type"], request.read())
    assert fields == [("model", b"tiny"), ("prompt", "où?".encode()), ("file", b"\r\n--b\r\n")]


def test_a_chat_about_the_same_clip_goes_on_beside(server: Running) -> None:
    assert len(texts(chat(server, messages=asked(heard(clip(1)), worded("so?")), n=2))) == 2
    assert server.health().json()["samples"] == 0
