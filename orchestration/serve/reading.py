"""Requests from their bodies to what the engine is to do, and how to answer: in threads, never on the event loop.

A request with media is read in two steps: the first names its images and clips, and decodes none; `finish`, after those
that have to be fetched came, decodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from gristmill.model.generate.constraint import Constraint, Grammars
from gristmill.model.generate.engine import Request as Job
from gristmill.model.processing.audio_file import AudioError, audio_header
from gristmill.model.processing.chat.calls import Calls
from gristmill.model.processing.detokenize import decoded
from gristmill.model.processing.text import Tokenizer
from gristmill.model.windows.placeholders import Medium
from gristmill.orchestration.serve.clips import AudioLimits, clip_refs, clips_of
from gristmill.orchestration.serve.engine import Delta, HostedEngine
from gristmill.orchestration.serve.errors import ApiError, refuse
from gristmill.orchestration.serve.forms import read_form
from gristmill.orchestration.serve.images import ImageLimits, ImageRef, image_refs, media_of
from gristmill.orchestration.serve.prompts import PromptReader, random_key
from gristmill.orchestration.serve.protocol import ChatRequest, TextRequest, read
from gristmill.orchestration.serve.reply import Reply
from gristmill.orchestration.serve.text import Names
from gristmill.orchestration.serve.transcripts import TranscriptReply, TranscriptRequest, read_transcript

_DEFAULT_TEXT = 16  # tokens of a completion that says no number, as OpenAI's


class Answer(Protocol):
    """How a request is answered: whole, or in events. One thread at a time."""

    @property
    def media_type(self) -> str:
        """Of a whole answer."""

    def whole(self, grown: Mapping[int, Sequence[Delta]]) -> bytes:
        """The answer, of all that grew of every choice."""

    def opening(self) -> list[str]:
        """Events before all else."""

    def events(self, items: Iterable[Delta]) -> list[str]:
        """Events for what can be said now."""

    def closing(self) -> list[str]:
        """Events after all else."""


class Prepared(NamedTuple):
    """A request that was read. `param`: the field that the prompt is of; `stream`: whether it is answered in events."""

    param: str
    stream: bool
    jobs: list[Job]
    reply: Answer


class WithMedia(NamedTuple):
    """A request with media, none of which is decoded yet. `refs`: its images. `finish`: in a thread of large ones,
    since a small file may hold a large image; with the bytes of those that were fetched, by number."""

    refs: list[ImageRef]
    finish: Callable[[Mapping[int, bytes]], Prepared]


class RequestReader:
    """For one engine, its tokenizer, and the model's name."""

    def __init__(
        self, hosted: HostedEngine, tokenizer: Tokenizer, name: str, images: ImageLimits, audio: AudioLimits
    ) -> None:
        self._tokenizer, self._name, self._images, self._audio = tokenizer, name, images, audio
        self._most, text = hosted.options.max_model_len, hosted.config.text
        self._audio_token = None if hosted.config.audio is None else hosted.config.audio.audio_token_id
        self._prompts = PromptReader(hosted, tokenizer, images, audio)
        self._names, self._calls = Names(tokenizer), Calls(tokenizer)
        self._grammars = Grammars(tokenizer, text.vocab_size, text.eos_token_id)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of media that the model takes."""
        return self._prompts.kinds

    def check_name(self, model: str) -> None:
        """Raises ApiError for another model."""
        if model != self._name:
            message = f"model={model!r}: this server has {self._name!r}"
            raise ApiError(404, message, param="model", code="model_not_found")

    def chat(self, data: bytes) -> Prepared | WithMedia:
        """What to do about a request for a message. Raises ApiError."""
        asked = read(ChatRequest, data)
        self.check_name(asked.model)
        # Who speaks, and the end of it.
        self._prompts.check_length(2 * len(asked.messages) + 1, "messages", asked.limit)
        sampling, conversation = asked.sampling(asked.limit), asked.conversation(self.kinds)
        refs = image_refs([item for item in conversation.media if item.kind == "image"], self._images)
        clips = clip_refs([item for item in conversation.media if item.kind == "audio"], self._audio)

        def finish(files: Mapping[int, bytes]) -> Prepared:
            shown = [*media_of(refs, files, self._images), *clips_of(clips, self._audio)]
            tokens, media = self._prompts.chat(conversation, shown, asked.limit)
            constraint = self._constraint(asked.schema_asked)
            key = random_key(asked.seed, tokens, media)
            job = Job(key, tokens, sampling, asked.n, constraint=constraint, media=media)
            return self._prepared(asked, [job], [], "messages")

        return WithMedia(refs, finish) if refs or clips else finish({})

    def text(self, data: bytes) -> Prepared:
        """What to do about a request for completions. Raises ApiError."""
        asked = read(TextRequest, data)
        self.check_name(asked.model)
        jobs: list[Job] = []
        echoed: list[str] = []
        for prompt in asked.prompts:
            ids = self._prompts.text(prompt, asked.max_tokens)
            if asked.echo:
                echoed.append(prompt if isinstance(prompt, str) else decoded(self._tokenizer, ids))
            room = max(1, self._most - len(ids))
            sampling = asked.sampling(min(_DEFAULT_TEXT, room) if asked.max_tokens is None else asked.max_tokens)
            prompt_logprobs = asked.logprobs if asked.echo else None
            key = random_key(asked.seed, ids)
            jobs.append(Job(key, ids, sampling, asked.n, prompt_logprobs=prompt_logprobs))
        return self._prepared(asked, jobs, echoed, "prompt")

    def transcript(self, content_type: str, data: bytes) -> WithMedia:
        """What to do about a request for a transcript. Raises ApiError."""
        asked = read_transcript(read_form(content_type, data))
        self.check_name(asked.model)
        if "audio" not in self.kinds:
            raise refuse(f"file: {self._name!r} takes no audio", "file")
        return WithMedia([], lambda _: self._transcribed(asked))

    def _transcribed(self, asked: TranscriptRequest) -> Prepared:
        if len(asked.file) > self._audio.max_bytes:
            raise refuse(f"file: larger than {self._audio.max_bytes:,} bytes: send a shorter clip", "file")
        try:
            seconds = audio_header(asked.file, self._audio.max_seconds).seconds
        except AudioError as error:
            raise refuse(f"file: {error.message[:300]}", "file", "invalid_audio") from error
        tokens, media = self._prompts.chat(asked.conversation, [Medium("audio", asked.file)], None, "file")
        job = Job(random_key(asked.seed, tokens, media), tokens, asked.sampling, media=media)
        reply = TranscriptReply(asked, job, self._tokenizer, tokens.count(self._audio_token), seconds)
        return Prepared("file", asked.stream, [job], reply)

    def _prepared(
        self, asked: ChatRequest | TextRequest, jobs: list[Job], echoed: Sequence[str], param: str
    ) -> Prepared:
        reply = Reply(asked, jobs, echoed, self._tokenizer, self._names, self._calls)
        return Prepared(param, asked.stream, jobs, reply)

    def _constraint(self, schema: dict[str, Any] | None) -> Constraint | None:
        try:
            return None if schema is None else self._grammars.json_schema(schema)
        except ValueError as error:
            raise refuse(f"response_format: {error}"[:500], "response_format") from error
