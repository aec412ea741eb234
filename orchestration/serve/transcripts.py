"""Transcriptions: OpenAI's form of a request with a file, and its answers, as JSON, as text, or as events.

The model is asked as it was taught: the clip, then the request for a transcript that training data has
(`stages/speech/prompts.py`) in the language that is named, else in English. `prompt` takes the place of that request.
Times of words and segments are not known, so whatever needs them is refused.
Source: the API reference of OpenAI, audio/transcriptions; types of openai-python 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.model.generate.engine import Request
from gristmill.model.generate.sampling import Sampling
from gristmill.model.processing.chat.turns import Conversation, Shown, Turn
from gristmill.model.processing.text import Tokenizer
from gristmill.orchestration.serve.engine import Delta
from gristmill.orchestration.serve.errors import refuse
from gristmill.orchestration.serve.forms import Field
from gristmill.orchestration.serve.text import Growing, compact, event
from gristmill.stages.speech.prompts import LANGUAGES, asked, tag

FORMATS = ("json", "text", "verbose_json")
_TASK = "asr"
_HARMLESS = frozenset(("user", "metadata", "chunking_strategy"))
"""How OpenAI's server cuts a clip that is too long for it: here none is."""
_ONCE = ("file", "model", "language", "prompt", "response_format", "temperature", "stream", "seed")


@dataclass(frozen=True)
class TranscriptRequest:
    """POST /v1/audio/transcriptions. `language`: a tag, or None; `prompt`: in place of the request that the model is
    asked with, or None."""

    file: bytes
    model: str
    language: str | None = None
    prompt: str | None = None
    response_format: str = "json"
    temperature: float = 0.0
    stream: bool = False
    seed: int | None = None

    @property
    def conversation(self) -> Conversation:
        """What the template renders: the clip, then what is asked of it."""
        words = self.prompt or asked(_TASK, self.language, None, 0)
        return Conversation((Turn("user", words, media=(Shown("audio", 0, None),)),))

    @property
    def sampling(self) -> Sampling:
        """How to sample: until the model ends, or its context is full."""
        return Sampling(temperature=self.temperature)


def read_transcript(fields: Sequence[Field]) -> TranscriptRequest:
    """A request from its form. Raises ApiError that names the field."""
    given: dict[str, Field] = {}
    for field in fields:
        if field.name in _HARMLESS:
            continue
        if field.name not in _ONCE:
            raise refuse(f"{field.name}: not supported by this server, which takes {', '.join(_ONCE)}", field.name)
        if field.name in given:
            raise refuse(f"{field.name}: it is there twice", field.name)
        given[field.name] = field
    if "file" not in given or not given["file"].data:
        raise refuse("file: it is missing or empty: send the bytes of an audio file", "file")
    if "model" not in given:
        raise refuse("model: it is missing", "model")
    file = given.pop("file").data
    texts = {name: field.text for name, field in given.items() if field.data}
    form = texts.get("response_format", "json")
    if form not in FORMATS:
        raise refuse(
            f"response_format={form[:40]!r}: allowed are {', '.join(FORMATS)}; times of words are not known",
            "response_format",
        )
    stream = _stream(texts.get("stream", "false"))
    if stream and form == "verbose_json":
        raise refuse("response_format='verbose_json' with stream: allowed are json and text", "response_format")
    return TranscriptRequest(
        file,
        texts.get("model", ""),
        _language(texts.get("language")),
        texts.get("prompt"),
        form,
        _temperature(texts.get("temperature", "0")),
        stream,
        _seed(texts.get("seed")),
    )


def _language(text: str | None) -> str | None:
    if text is None:
        return None
    language = tag(text)
    if language not in LANGUAGES:
        raise refuse(f"language={text[:40]!r}: allowed are {', '.join(LANGUAGES)}", "language")
    return language


def _stream(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise refuse(f"stream={text[:40]!r}: allowed are true, false", "stream")
    return text.lower() == "true"


def _temperature(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:  # NaN neither
        raise refuse(f"temperature={text[:40]!r}: allowed is 0 to 1", "temperature")
    return number


def _seed(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.removeprefix("-").isdecimal() or len(text) > 20:
        raise refuse(f"seed={text[:40]!r}: allowed is a whole number", "seed")
    return int(text)


class TranscriptReply:
    """To one request, as `serve.reply.Reply` has it: `whole`, or `opening`, `events`, `closing`. `audio_tokens`: of the
    prompt's, how many are the clip's; `seconds`: of the clip."""

    def __init__(
        self, request: TranscriptRequest, job: Request, tokenizer: Tokenizer, audio_tokens: int, seconds: float
    ) -> None:
        self._request, self._prompt, self._audio, self._seconds = request, len(job.tokens), audio_tokens, seconds
        self._growing, self._texts, self._count = Growing(tokenizer), list[str](), 0

    @property
    def media_type(self) -> str:
        """Of a whole answer."""
        return "text/plain; charset=utf-8" if self._request.response_format == "text" else "application/json"

    def whole(self, grown: Mapping[int, Sequence[Delta]]) -> bytes:
        """The answer, of all that grew."""
        for item in grown[0]:
            self._add(item)
        text = "".join(self._texts)
        if self._request.response_format == "text":
            return text.encode()
        if self._request.response_format == "json":
            return compact({"text": text, "usage": self._usage()}).encode()
        about = {"task": "transcribe", "language": self._request.language or "unknown", "duration": self._seconds}
        used = {"type": "duration", "seconds": math.ceil(self._seconds)}
        return compact(about | {"text": text, "usage": used}).encode()

    def opening(self) -> list[str]:
        """Events before all else: none."""
        return []

    def events(self, items: Iterable[Delta]) -> list[str]:
        """Events for what can be said now."""
        texts = [text for text in map(self._add, items) if text]
        return [event(compact({"type": "transcript.text.delta", "delta": text})) for text in texts]

    def closing(self) -> list[str]:
        """The last event: all of the text, and what it used."""
        done = {"type": "transcript.text.done", "text": "".join(self._texts), "usage": self._usage()}
        return [event(compact(done)), event("[DONE]")]

    def _add(self, item: Delta) -> str:
        """What can be said after one more token."""
        ended = item.finished and item.completion.finish_reason == "stop"
        text = ""
        if item.token is not None:
            self._count += 1
            text = "" if ended else self._growing.add(item.token)
        if item.finished:
            text += self._growing.end()
        self._texts.append(text)
        return text

    def _usage(self) -> dict[str, Any]:
        details = {"audio_tokens": self._audio, "text_tokens": self._prompt - self._audio}
        return {
            "type": "tokens",
            "input_tokens": self._prompt,
            "input_token_details": details,
            "output_tokens": self._count,
            "total_tokens": self._prompt + self._count,
        }
