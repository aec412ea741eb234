"""Answers of `grist serve`: what the engine grew, whole or in pieces, in OpenAI's two forms.

Streamed text, put together, is the whole text. Log-probabilities are of what was generated: also of tokens whose text a
stop text cut off, but not of the end token. Usage counts all of them, and the prompt once.
Notable choice: models are dumped by what was set, so that a null which clients look for is there.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from model.generate import Request, Sample
from orchestration.serve_protocol import ChatRequest, TextRequest
from orchestration.serve_text import Calls, Decode, Growing, Names
from stages.engines import Grown


class Usage(BaseModel):
    """Tokens: of the prompt once, of all its samples, of both."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Likely(BaseModel):
    """A token that could have been. `bytes` None: not known."""

    token: str
    logprob: float | None
    bytes: list[int] | None


class TokenLogprob(Likely):
    top_logprobs: list[Likely]


class ChatLogprobs(BaseModel):
    content: list[TokenLogprob]
    refusal: None = None


class TextLogprobs(BaseModel):
    """`text_offset`: characters of the text before each token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class Function(BaseModel):
    name: str
    arguments: str


class ToolCall(BaseModel):
    """`index` stands in streams only."""

    index: int = 0
    id: str
    type: Literal["function"]
    function: Function


class Message(BaseModel):
    """A whole message, or of a stream's delta what is new. `content` None: calls only."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None
    tool_calls: list[ToolCall] | None = None


class Choice(BaseModel):
    """Of one sample. `text` in completions, `message` in chats, `delta` in their streams."""

    index: int
    text: str | None = None
    message: Message | None = None
    delta: Message | None = None
    logprobs: ChatLogprobs | TextLogprobs | None = None
    finish_reason: Literal["stop", "length", "tool_calls"] | None = None


class Answer(BaseModel):
    """A whole answer, or a chunk of a stream."""

    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None


@dataclass
class _Piecewise:
    """One sample in a stream: its text, tokens of which nothing was said yet, characters before them."""

    growing: Growing
    unsaid: list[Grown] = field(default_factory=list)
    offset: int = 0
    calling: bool = False


class Reply:
    """To one request: `whole`, or `opening`, `piece` for every token, `closing`."""

    def __init__(
        self,
        asked: ChatRequest | TextRequest,
        request: Request,
        decode: Decode,
        eos: Sequence[int],
        names: Names,
        calls: Calls,
    ) -> None:
        self.chat = isinstance(asked, ChatRequest)
        self._asked, self._request, self._decode, self._eos, self._names = asked, request, decode, eos, names
        self._calls = calls if isinstance(asked, ChatRequest) and asked.tools else None
        self._id = f"{'chatcmpl' if self.chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._created, self._count = int(time.time()), 0
        self._samples: dict[int, _Piecewise] = {}

    def whole(self, grown: dict[int, list[Grown]]) -> Answer:
        """Of all tokens of every sample."""
        choices = []
        for index, tokens in sorted(grown.items()):
            self._count += len(tokens)
            sample = tokens[-1].sample
            text, calls = self._ended(sample)
            choice = Choice(index=index, logprobs=self._logprobs(tokens, 0), finish_reason=_finish(sample, calls))
            if self.chat:
                content = None if calls and not text else text
                choice.message = Message(role="assistant", content=content, refusal=None)
                if calls:
                    choice.message.tool_calls = calls
            else:
                choice.text = text
            choices.append(choice)
        return self._answer(choices, self._usage(), streamed=False)

    def opening(self) -> Iterator[Answer]:
        """Before all else: whose the message will be."""
        for index in range(self._request.n if self.chat else 0):
            delta = Message(role="assistant", content="", refusal=None)
            yield self._chunk(Choice(index=index, delta=delta, logprobs=None, finish_reason=None))

    def piece(self, one: Grown) -> Iterator[Answer]:
        """What can be said after one more token."""
        self._count += 1
        index = one.sample.number
        at = self._samples.setdefault(index, _Piecewise(Growing(self._decode, self._request.sampling.stop)))
        at.unsaid.append(one)
        if one.ended:
            yield from self._last(index, at, one.sample)
            return
        at.calling = at.calling or (self._calls is not None and one.token == self._calls.begin)
        if not at.calling and (text := at.growing.add(one.token)):
            yield self._said(index, at, text)

    def closing(self) -> Iterator[Answer]:
        """After all else: what it used, if that was asked for."""
        if self._asked.with_usage:
            yield self._answer([], self._usage(), streamed=True)

    def _last(self, index: int, at: _Piecewise, sample: Sample) -> Iterator[Answer]:
        text, calls = self._ended(sample)
        rest = at.growing.end(text)
        if rest or (self._request.sampling.logprobs is not None and at.unsaid):
            yield self._said(index, at, rest)
        finish = _finish(sample, calls)
        if not self.chat:
            yield self._chunk(Choice(index=index, text="", logprobs=None, finish_reason=finish))
            return
        if calls:
            delta = Message(tool_calls=calls)
            yield self._chunk(Choice(index=index, delta=delta, logprobs=None, finish_reason=None))
        yield self._chunk(Choice(index=index, delta=Message(), logprobs=None, finish_reason=finish))

    def _said(self, index: int, at: _Piecewise, text: str) -> Answer:
        logprobs = self._logprobs(at.unsaid, at.offset)
        if isinstance(logprobs, TextLogprobs):
            at.offset += sum(self._characters(one.token) for one in at.unsaid)
        at.unsaid = []
        choice = Choice(index=index, logprobs=logprobs, finish_reason=None)
        if self.chat:
            choice.delta = Message(content=text)
        else:
            choice.text = text
        return self._chunk(choice)

    def _ended(self, sample: Sample) -> tuple[str, list[ToolCall]]:
        """The text of a sample, and its calls."""
        found = None
        if self._calls is not None and sample.stop is None:
            found = self._calls.split(sample.tokens, self._decode)
        if found is None:
            return sample.text(self._decode, self._eos), []
        return found[0], [self._call(index, one) for index, one in enumerate(found[1])]

    def _call(self, index: int, one: dict[str, Any]) -> ToolCall:
        function = Function(name=one["name"], arguments=json.dumps(one["arguments"], ensure_ascii=False))
        made = ToolCall(id=f"call_{uuid.uuid4().hex[:24]}", type="function", function=function)
        if self._asked.stream:
            made.index = index
        return made

    def _logprobs(self, tokens: Sequence[Grown], offset: int) -> ChatLogprobs | TextLogprobs | None:
        if self._request.sampling.logprobs is None:
            return None
        told = [one for one in tokens if not _is_end(one)]
        if self.chat:
            return ChatLogprobs(content=[self._likely(one) for one in told], refusal=None)
        offsets = [offset]
        for one in told:
            offsets.append(offsets[-1] + self._characters(one.token))
        return TextLogprobs(
            tokens=[self._names.of(one.token)[0] for one in told],
            token_logprobs=[one.logprob for one in told],
            top_logprobs=[{self._names.of(token)[0]: chance for token, chance in one.top} for one in told],
            text_offset=offsets[:-1],
        )

    def _likely(self, one: Grown) -> TokenLogprob:
        (text, data), top = self._names.of(one.token), []
        for token, chance in one.top:
            name, its = self._names.of(token)
            top.append(Likely(token=name, logprob=chance, bytes=its))
        return TokenLogprob(token=text, logprob=one.logprob, bytes=data, top_logprobs=top)

    def _characters(self, token: int) -> int:
        """Characters that begin in a token."""
        text, data = self._names.of(token)
        return len(text) if data is None else sum(byte & 0xC0 != 0x80 for byte in data)

    def _usage(self) -> Usage:
        prompt = len(self._request.tokens)
        return Usage(prompt_tokens=prompt, completion_tokens=self._count, total_tokens=prompt + self._count)

    def _chunk(self, choice: Choice) -> Answer:
        answer = self._answer([choice], None, streamed=True)
        if self._asked.with_usage:
            answer.usage = None  # it is set, so that it is written
        return answer

    def _answer(self, choices: list[Choice], usage: Usage | None, streamed: bool) -> Answer:
        kind = "text_completion" if not self.chat else "chat.completion.chunk" if streamed else "chat.completion"
        made = Answer(id=self._id, object=kind, created=self._created, model=self._asked.model, choices=choices)
        if usage is not None:
            made.usage = usage
        return made


def dumped(answer: Answer) -> str:
    return answer.model_dump_json(exclude_unset=True)


def _is_end(one: Grown) -> bool:
    return one.ended and one.sample.finish == "stop" and one.sample.stop is None


def _finish(sample: Sample, calls: Sequence[ToolCall]) -> Literal["stop", "length", "tool_calls"]:
    return "tool_calls" if calls else sample.finish or "stop"
