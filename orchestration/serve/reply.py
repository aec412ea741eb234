"""Answers of `grist serve`: what the engine grew, whole or in pieces, in OpenAI's two forms.

A whole answer is its pieces put together, so that both say the same. Log-probabilities are of what was generated: also
of tokens whose text a stop text cut off, but not of the end token; with `echo`, of the prompt's tokens before them.
Usage counts all of them, and each prompt once.
Notable choice: JSON is put together from small texts: one large document would hold the interpreter's lock, and with it
the event loop, for as long as it takes.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gristmill.model.generate.engine import Request
from gristmill.model.processing.chat.calls import Calls
from gristmill.model.processing.text import Tokenizer
from gristmill.orchestration.serve.engine import Delta
from gristmill.orchestration.serve.protocol import ChatRequest, TextRequest
from gristmill.orchestration.serve.text import Growing, Names, compact, event

_LEAST = -9999.0
"""What OpenAI's API says of a token that cannot be: JSON has no infinity."""


class ScoredToken(NamedTuple):
    """A token and its log-probability, None for the first of a prompt, beside the most likely ones."""

    token: int
    logprob: float | None
    top_logprobs: Sequence[tuple[int, float]]


@dataclass
class Piece:
    """What is new of one choice."""

    index: int
    text: str = ""
    tokens: list[ScoredToken] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None


@dataclass
class _Choice:
    """One completion on its way: its text, tokens of which nothing was sent yet, those from the first call on."""

    growing: Growing
    prompt: int
    begun: bool = False
    unsent: list[ScoredToken] = field(default_factory=list)
    calling: list[int] = field(default_factory=list)
    offset: int = 0  # characters of the text before the next token


class Reply:
    """To one request: `whole`, or `opening`, `events` for what grew in a step, `closing`. One thread at a time.

    `jobs`: a request of the engine for each prompt. `prompts`: their texts, where they are echoed.
    """

    media_type = "application/json"

    def __init__(
        self,
        request: ChatRequest | TextRequest,
        jobs: Sequence[Request],
        prompts: Sequence[str],
        tokenizer: Tokenizer,
        names: Names,
        calls: Calls,
    ) -> None:
        self.chat = isinstance(request, ChatRequest)
        self._request, self._jobs, self._prompts, self._names = request, jobs, prompts, names
        self._tokenizer = tokenizer
        self._calls = calls if isinstance(request, ChatRequest) and request.offered else None
        self._with_logprobs = jobs[0].sampling.logprobs is not None
        self._id = f"{'chatcmpl' if self.chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._created, self._count = int(time.time()), 0
        self._choices = [_Choice(self._growing(job), at) for at, job in enumerate(jobs) for _ in range(job.n)]

    def whole(self, grown: Mapping[int, Sequence[Delta]]) -> bytes:
        """The answer, of all that grew of every choice."""
        choices: list[str] = []
        for index, items in sorted(grown.items()):
            pieces = [piece for item in items for piece in self._pieces(item)]
            text = "".join(piece.text for piece in pieces)
            calls = [call for piece in pieces for call in piece.calls]
            choices += [",", f'{{"index":{index},']
            if self.chat:
                message: dict[str, Any] = {"role": "assistant", "content": None if calls and not text else text}
                message |= {"refusal": None} | ({"tool_calls": calls} if calls else {})
                choices.append(f'"message":{compact(message)}')
            else:
                choices.append(f'"text":{compact(text)}')
            choices.append(',"logprobs":')
            choices += self._logprobs(index, [token for piece in pieces for token in piece.tokens])
            choices.append(f',"finish_reason":{compact(pieces[-1].finish_reason)}}}')
        kind = "chat.completion" if self.chat else "text_completion"
        pieces_of_json = [self._head(kind), *choices[1:], f'],"usage":{self._usage()}}}']
        return "".join(pieces_of_json).encode()

    def opening(self) -> list[str]:
        """Events before all else: whose the message will be."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        if not self.chat:
            return []
        return [self._chunk(Piece(index), {"delta": delta}) for index in range(len(self._choices))]

    def events(self, items: Iterable[Delta]) -> list[str]:
        """Events for what can be said now."""
        events: list[str] = []
        for item in items:
            for piece in self._pieces(item):
                events += self._events(piece)
        return events

    def closing(self) -> list[str]:
        """Events after all else: what it used, if that was asked for."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        last = [f'{self._head(kind)}],"usage":{self._usage()}}}'] if self._request.with_usage else []
        return [event(text) for text in (*last, "[DONE]")]

    def _growing(self, job: Request) -> Growing:
        # A completion goes on with its prompt's text; a message begins anew.
        return Growing(self._tokenizer, job.sampling.stop, () if self.chat else job.tokens)

    def _pieces(self, item: Delta) -> Iterator[Piece]:
        """What can be sent after one more token.

        Its text may have to wait: for the rest of a character, for a stop text that it may begin, or, from the first
        call on, for the end, where it is known whether these are calls.
        """
        choice, completion = self._choices[item.index], item.completion
        if not choice.begun:
            choice.begun = True
            if self._prompts:
                yield self._echo(item)
        # The end token is counted in the usage, and has neither text nor log-probability in the answer.
        end_token = item.finished and completion.finish_reason == "stop" and completion.stop_reason is None
        if item.token is not None:
            self._count += 1
            if not end_token:
                choice.unsent.append(ScoredToken(item.token, item.logprob, item.top_logprobs))
        text, calls = "", list[dict[str, Any]]()
        if item.token is not None and not end_token:
            if choice.calling or (self._calls is not None and item.token == self._calls.begin):
                choice.calling.append(item.token)
            elif item.finished:
                choice.growing.hold(item.token)
            else:
                text = choice.growing.add(item.token)
        if item.finished:
            text, calls = self._rest(choice, completion.stop_reason)
        if not (text or item.finished):
            return
        # Log-probabilities go out with the next text, also those of tokens whose text came to nothing.
        tokens, choice.unsent = choice.unsent, []
        finish_reason = ("tool_calls" if calls else completion.finish_reason) if item.finished else None
        yield Piece(item.index, text, tokens, calls, finish_reason)

    def _echo(self, item: Delta) -> Piece:
        """The prompt, as the start of a choice."""
        prompt, logprobs = self._choices[item.index].prompt, item.completion.prompt_logprobs or ()
        scored = zip(self._jobs[prompt].tokens, logprobs, strict=False)
        tokens = [ScoredToken(token, logprob, top) for token, (logprob, top) in scored]
        return Piece(item.index, self._prompts[prompt], tokens)

    def _rest(self, choice: _Choice, stop: str | None) -> tuple[str, list[dict[str, Any]]]:
        """The rest of a text, and its calls."""
        split = self._calls.split(choice.calling) if self._calls and choice.calling and stop is None else None
        outside, calls = split or (choice.calling, [])
        for token in outside:
            choice.growing.hold(token)
        if isinstance(self._request, ChatRequest) and not self._request.parallel_tool_calls:
            calls = calls[:1]
        return choice.growing.end(stop), [self._call(index, call) for index, call in enumerate(calls)]

    def _call(self, index: int, call: Mapping[str, Any]) -> dict[str, Any]:
        function = {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)}
        numbered = {"index": index} if self._request.stream else {}
        return numbered | {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}

    def _events(self, piece: Piece) -> Iterator[str]:
        """A piece as events: of a chat text, calls and end apart, as OpenAI's clients expect them."""
        if not self.chat:
            yield self._chunk(piece, {"text": piece.text})
            return
        if piece.text or piece.tokens:
            content = Piece(piece.index, piece.text, piece.tokens)
            yield self._chunk(content, {"delta": {"content": piece.text}})
        if piece.calls:
            yield self._chunk(Piece(piece.index), {"delta": {"tool_calls": piece.calls}})
        if piece.finish_reason:
            yield self._chunk(Piece(piece.index, finish_reason=piece.finish_reason), {"delta": {}})

    def _chunk(self, piece: Piece, fields: Mapping[str, Any]) -> str:
        """An event with one choice. `fields`: of the choice, what depends on the endpoint."""
        logprobs = "".join(self._logprobs(piece.index, piece.tokens)) if piece.tokens else "null"
        choice = f'{{"index":{piece.index},{compact(fields)[1:-1]},"logprobs":{logprobs},'
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        usage = ',"usage":null' if self._request.with_usage else ""
        return event(f'{self._head(kind)}{choice}"finish_reason":{compact(piece.finish_reason)}}}]{usage}}}')

    def _logprobs(self, index: int, tokens: Sequence[ScoredToken]) -> Iterator[str]:
        """Log-probabilities as pieces of JSON."""
        if not self._with_logprobs:
            yield "null"
        elif self.chat:
            yield '{"content":['
            for number, item in enumerate(tokens):
                top = ",".join(self._likely(token, logprob) + "}" for token, logprob in item.top_logprobs)
                yield f'{"," if number else ""}{self._likely(item.token, item.logprob)},"top_logprobs":[{top}]}}'
            yield '],"refusal":null}'
        else:
            yield from self._text_logprobs(index, tokens)

    def _text_logprobs(self, index: int, tokens: Sequence[ScoredToken]) -> Iterator[str]:
        """Those of a completion: parallel lists; `text_offset` in characters of the choice's whole text."""
        choice, offsets = self._choices[index], list[int]()
        for item in tokens:
            offsets.append(choice.offset)
            choice.offset += self._names.of(item.token).characters
        yield '{"tokens":['
        yield ",".join(compact(self._names.of(item.token).text) for item in tokens)
        yield '],"token_logprobs":['
        yield ",".join(_number(item.logprob) for item in tokens)
        yield '],"top_logprobs":['
        for number, item in enumerate(tokens):
            top = {self._names.of(token).text: max(logprob, _LEAST) for token, logprob in item.top_logprobs}
            yield f"{',' if number else ''}{'null' if item.logprob is None else compact(top)}"
        yield f'],"text_offset":{json.dumps(offsets)}}}'

    def _likely(self, token: int, logprob: float | None) -> str:
        return f'{{{self._names.of(token).fields},"logprob":{_number(logprob)}'

    def _usage(self) -> str:
        prompt = sum(len(job.tokens) for job in self._jobs)
        used = {"prompt_tokens": prompt, "completion_tokens": self._count, "total_tokens": prompt + self._count}
        return compact(used)

    def _head(self, kind: str) -> str:
        about = {"id": self._id, "object": kind, "created": self._created, "model": self._request.model}
        return f'{compact(about)[:-1]},"choices":['


def _number(logprob: float | None) -> str:
    return "null" if logprob is None else repr(max(logprob, _LEAST))
