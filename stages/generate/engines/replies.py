"""What an OpenAI-compatible server answered: choices with their tokens, or which failure it was, told apart.

Nothing of an answer is trusted: its size is bounded by whoever read it, and whatever is not the protocol's is garbage.
A failure's detail is the server's status and at most a line of its message; it never holds the request.
Source: OpenAI's chat completions; vLLM and TGI for the words of too long a prompt.
"""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gristmill.stages.generate.engines.protocol import Ask, Failure, Finish, Generation

_TOO_LONG = re.compile(
    r"context.?length|maximum context|max_model_len|too (long|large)|exceeds? .{0,40}(context|tokens)", re.I
)
_ENDS: Mapping[str, Finish] = {"stop": "stop", "length": "length", "eos": "stop", "eos_token": "stop"}
_AGAIN = frozenset((408, 409, 425, 429))
"""4xx that speak of this moment, not of the request."""
_MOST_TOKENS = (1 << 31) - 1
"""A count beyond it is none, and no column takes it."""
_LINE = 200
"""Characters of a server's message that are kept."""


@dataclass(eq=False)
class Failed(Exception):
    """A request without an answer. `again`: whether it may be sent once more; `pause`: seconds that the server asks to
    wait for first; `everyone`: no request of this run would do better."""

    failure: Failure
    detail: str
    again: bool = True
    pause: float | None = None
    everyone: bool = False

    def __str__(self) -> str:
        return f"{self.failure}: {self.detail}"


@dataclass(frozen=True)
class Choice:
    """One answer."""

    text: str
    finish: Finish


@dataclass(frozen=True)
class Reply:
    """All answers of a request, one of them at least, and why others of them are none; and the tokens that the server
    counted; None: it did not."""

    answers: tuple[Choice | Failed, ...]
    prompt_tokens: int | None
    tokens: int | None

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Those that are answers."""
        return tuple(answer for answer in self.answers if isinstance(answer, Choice))


def read_reply(status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    """The answers of a response. Raises Failed."""
    if status != 200:
        raise _refusal(status, headers, body)
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _unreadable(body, error) from None
    try:
        answers = tuple(_answer(item) for item in _in_order(data["choices"]))
    except (KeyError, TypeError, AttributeError):
        raise Failed("garbage", "200 with JSON that has no choices with a text") from None
    failures = [answer for answer in answers if isinstance(answer, Failed)]
    if failures and len(failures) == len(answers):
        raise failures[0]
    usage = data.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Reply(answers, _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))


def _in_order(choices: list[Any]) -> list[Any]:
    """The choices by their index. Raises Failed where two have one, TypeError where they have none."""
    if len(choices) == 1:
        return choices
    places = [choice.get("index", 0) for choice in choices]
    if len(set(places)) < len(places) or min(places, default=0) < 0:
        raise Failed("garbage", "200 with choices that are not numbered")
    return [choices[at] for at in sorted(range(len(choices)), key=places.__getitem__)]


def _answer(item: Any) -> Choice | Failed:
    """The text of a choice, or why there is none, which says nothing about the others."""
    text, ended = item["message"]["content"], item.get("finish_reason")
    if ended == "content_filter" or (text is None and isinstance(item["message"].get("refusal"), str)):
        return Failed("refused", "the server's content filter took the answer", again=False)
    if not isinstance(text, str) or ended not in _ENDS:
        return Failed("garbage", f"an answer of {type(text).__name__} that ended by {quoted(str(ended))[:40]!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        return Failed("garbage", "half a surrogate pair in the answer")
    return Choice(text, _ENDS[ended])


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS else None


def _unreadable(body: bytes, error: Exception) -> Failed:
    """JSON that only lacks its end broke off; anything else was never meant to be JSON."""
    if isinstance(error, json.JSONDecodeError) and body.lstrip()[:1] == b"{" and _lacks_its_end(error):
        return Failed("half_body", f"200 with JSON that breaks off after {len(body):,} bytes")
    return Failed("garbage", f"200 with {len(body):,} bytes that are no JSON")


def _lacks_its_end(error: json.JSONDecodeError) -> bool:
    """Whether the parser stopped at the end of the text, or within a string that has none."""
    return error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string")


def _refusal(status: int, headers: Mapping[str, str], body: bytes) -> Failed:
    message = _message(body)
    detail = f"HTTP {status}" + (f": {message}" if message else "")
    if status == 429:
        return Failed("rate_limited", detail, pause=retry_after(headers))
    if status >= 500 or status in _AGAIN:
        return Failed("server_error", detail, pause=retry_after(headers))
    if status in (401, 403, 404):
        return Failed("refused", detail, again=False, everyone=True)
    if 400 <= status < 500:
        long = status == 413 or _TOO_LONG.search(message) is not None
        return Failed("too_long" if long else "refused", detail, again=False)
    return Failed("garbage", detail)


def _message(body: bytes) -> str:
    """The server's own words, one short line; empty where they are not JSON: a page of HTML says nothing."""
    try:
        error = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    for name in ("error", "message", "detail"):
        if isinstance(error, dict) and name in error:
            error = error[name]
    return quoted(error) if isinstance(error, str) else ""


def quoted(words: str) -> str:
    """A server's words as a detail has them: a short line that can be stored."""
    return " ".join(words.split())[:_LINE].encode(errors="replace").decode()


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that a server asks to wait, by a number or a date; None: it does not say."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, date - (time.time() if now is None else now))


def samples_of(ask: Ask, reply: Reply, requests: int) -> list[Generation]:
    """What a reply to a request for these samples gives each of them. What it took is told once, however many they are:
    tokens in even shares, requests by the first."""
    lacking = Failed("no_choice", f"{len(reply.answers)} answers, and {len(ask.samples)} were asked for")
    answers = [*reply.answers, *[lacking] * len(ask.samples)][: len(ask.samples)]
    good = [answer for answer in answers if isinstance(answer, Choice)]
    tokens, prompts = iter(shares(reply.tokens, len(good))), iter(shares(reply.prompt_tokens, len(good)))
    samples = []
    for number, answer in zip(ask.samples, answers, strict=True):
        asked = requests if number == ask.samples[0] else 0
        if isinstance(answer, Choice):
            counts = next(prompts), next(tokens)
            samples.append(Generation(ask.problem, number, answer.text, answer.finish, *counts, requests=asked))
        else:
            samples.append(failed_sample(ask, number, answer, asked))
    return samples


def failed_samples(ask: Ask, failed: Failed, requests: int) -> list[Generation]:
    """The samples of a request that got no answer."""
    return [failed_sample(ask, n, failed, requests if n == ask.samples[0] else 0) for n in ask.samples]


def failed_sample(ask: Ask, number: int, failed: Failed, requests: int) -> Generation:
    """A sample that could not be had."""
    return Generation(ask.problem, number, failure=failed.failure, detail=failed.detail, requests=requests)


def shares(total: int | None, parts: int) -> list[int | None]:
    """A count over several answers, of which the server tells the sum: even shares that add up to it."""
    if total is None or not parts:
        return [None] * parts
    return [total // parts + (place < total % parts) for place in range(parts)]
