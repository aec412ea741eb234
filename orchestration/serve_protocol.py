"""OpenAI's requests and answers, as `grist serve` understands them.

A field that would change what is generated is honoured or refused, never ignored: what is not known is refused by name.
Fields that change nothing (who asks, where it is stored) are taken and dropped; of some that are not implemented, the
value that means "as always" is taken too, since clients send it. null means absent, as in OpenAI's.
Source: the API reference of OpenAI (chat completions, completions), types of openai-python 3.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from model.processing import chat
from model.sampling import Sampling
from orchestration.serve_text import BROKEN

MAX_SAMPLES, MAX_STOPS, MAX_STOP = 128, 16, 256

_HARMLESS = frozenset(("user", "metadata", "store", "service_tier", "safety_identifier", "prediction")) | frozenset(
    ("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention")
)
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
}
"""Not implemented: the only values that are taken, since they ask for nothing."""
_MESSAGE = frozenset(("role", "content", "tool_calls", "tool_call_id", "refusal", "annotations"))
_TOOL = frozenset(("name", "description", "parameters", "strict"))


class ApiError(Exception):
    """An answer with an error, in OpenAI's form."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def refuse(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """What is wrong with a request: 400."""
    return ApiError(400, message, param=param, code=code)


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = False
    include_obfuscation: bool = False  # padding against who listens: no text of an answer


class Settings(BaseModel, ABC):
    """What both kinds of requests have. `max_tokens` None: until the context is full."""

    model_config = ConfigDict(extra="forbid", strict=True)
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = _NEUTRAL

    model: str
    n: int = Field(default=1, ge=1, le=MAX_SAMPLES)
    seed: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int | None = None
    stop: str | list[str] = []
    stream: bool = False
    stream_options: StreamOptions | None = None

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with what it used."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, max_tokens: int | None) -> Sampling:
        """How to sample. Raises ApiError."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop
        if len(stops) > MAX_STOPS or any(not 0 < len(one) <= MAX_STOP or BROKEN in one for one in stops):
            raise refuse(f"stop: allowed are up to {MAX_STOPS} texts of 1 to {MAX_STOP} characters, no U+FFFD", "stop")
        if self.stream_options is not None and not self.stream:
            raise refuse("stream_options: only with stream=true", "stream_options")
        try:
            return Sampling(max_tokens, self.temperature, self.top_p, tuple(stops), logprobs=self.alternatives)
        except ValueError as error:
            raise refuse(str(error), str(error).partition("=")[0]) from error

    @property
    @abstractmethod
    def alternatives(self) -> int | None:
        """How many most likely tokens to tell with each one's log-probability; None: no log-probabilities."""


class TextRequest(Settings):
    """POST /v1/completions."""

    neutral = {**_NEUTRAL, "best_of": (1,), "echo": (False,), "suffix": ("",)}

    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: int | None = None

    @property
    def alternatives(self) -> int | None:
        return self.logprobs

    @property
    def text(self) -> str | list[int]:
        """The prompt, as text or token ids. Raises ApiError."""
        prompt = self.prompt
        if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
            if len(prompt) > 1:
                raise refuse(f"prompt: {len(prompt)} prompts: allowed is one a request, send several", "prompt")
            prompt = prompt[0]
        if not prompt:
            raise refuse("prompt: it is empty: allowed is a text or token ids, one or more", "prompt")
        return prompt  # type: ignore[return-value]  # a list is one of ints here


class ChatRequest(Settings):
    """POST /v1/chat/completions."""

    neutral = {
        **_NEUTRAL,
        "audio": (),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "modalities": (["text"],),
        "parallel_tool_calls": (True,),
        "reasoning_effort": ("none",),
        "response_format": ({"type": "text"},),
        "verbosity": ("medium",),
        "web_search_options": (),
    }

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = []
    tool_choice: Any = None
    logprobs: bool = False
    top_logprobs: int | None = None
    max_completion_tokens: int | None = None

    @property
    def alternatives(self) -> int | None:
        if self.top_logprobs is not None and not self.logprobs:
            raise refuse("top_logprobs: only with logprobs=true", "top_logprobs")
        if not 0 <= (self.top_logprobs or 0) <= 20:
            raise refuse(f"top_logprobs={self.top_logprobs}: allowed is 0 to 20", "top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def limit(self) -> int | None:
        """The most tokens to generate, by either name."""
        one, other = self.max_tokens, self.max_completion_tokens
        if one is not None and other is not None and one != other:
            raise refuse(f"max_tokens={one}, max_completion_tokens={other}: give one of them", "max_tokens")
        return one if other is None else other

    def conversation(self) -> chat.Conversation:
        """What the template renders. Raises ApiError."""
        choices = (None, "auto") if self.tools else (None, "auto", "none")
        if self.tool_choice not in choices:
            message = f"tool_choice={self.tool_choice!r}: allowed is 'auto'; to forbid tools, send none"
            raise refuse(message, "tool_choice")
        for tool in self.tools:
            _check_tool(tool)
        _check_messages(self.messages)
        try:
            return chat.from_json(json.dumps({"messages": self.messages, "tools": self.tools}))
        except chat.BadSample as error:
            param = "tools" if error.reason in ("bad_tools", "bad_tool_schema") else "messages"
            more = ": this server takes text only" if error.reason == "unsupported_content" else ""
            raise refuse(f"{param}: {error}{more}", param) from error


def _check_tool(tool: Mapping[str, Any]) -> None:
    fields = tool.get("function")
    if tool.get("type") != "function" or not isinstance(fields, dict):
        raise refuse(f"tools: type={tool.get('type')!r}: allowed is 'function', with a field of that name", "tools")
    if unknown := sorted(set(fields) - _TOOL):
        raise refuse(f"tools: {unknown[0]} is not known; allowed are {sorted(_TOOL)}", "tools")
    if fields.get("strict"):
        raise refuse("tools: strict is not supported: arguments are as the model writes them", "tools")


def _check_messages(messages: list[dict[str, Any]]) -> None:
    """What the template would leave out in silence, or could not show."""
    open_calls: list[Any] = []
    for number, one in enumerate(messages):
        role, where = one.get("role"), f"messages[{number}]"
        told = {name for name, value in one.items() if value is not None}
        if unknown := sorted(told - _MESSAGE - ({"name"} if role == "tool" else set())):
            raise refuse(f"{where}: {unknown[0]} is not supported; allowed are {sorted(_MESSAGE)}", "messages")
        if one.get("refusal"):
            raise refuse(f"{where}: a refusal is not supported; send it as content", "messages")
        if number and role in ("system", "developer"):
            raise refuse(f"{where}: the {role} message stands first, and is one", "messages")
        if isinstance(calls := one.get("tool_calls"), list):
            open_calls = [call.get("id") for call in calls if isinstance(call, dict)]
        if role == "tool":  # the template shows answers by their order alone
            expected, answered = (open_calls or [None]).pop(0), one.get("tool_call_id")
            if answered is not None and answered != expected:
                message = f"{where}: tool_call_id={answered!r}: answer in the order of the calls, next {expected!r}"
                raise refuse(message, "messages")
    if messages and messages[-1].get("role") == "assistant":
        raise refuse("messages: the last is the assistant's: end with what it shall answer", "messages")


Kind = TypeVar("Kind", bound=Settings)


def read(kind: type[Kind], data: bytes) -> Kind:
    """A request from its body. Raises ApiError that names the field."""
    try:
        fields = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise refuse(f"the body is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise refuse(f"the body is a JSON {type(fields).__name__}: allowed is an object")
    fields = {name: value for name, value in fields.items() if value is not None and name not in _HARMLESS}
    for name in sorted(kind.neutral.keys() & fields.keys()):
        value, allowed = fields.pop(name), kind.neutral[name]
        if value not in allowed:
            only = f"; allowed is {' or '.join(map(repr, allowed))}" if allowed else ""
            raise refuse(f"{name}={value!r}: not supported by this server{only}"[:500], name)
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        path = ".".join(map(str, first["loc"]))
        message = first["msg"]
        if first["type"] == "extra_forbidden":
            message = f"not supported by this server, which takes {sorted(kind.model_fields)}"
        raise refuse(f"{path}: {message}", str(first["loc"][0])) from error
