"""OpenAI's requests and answers, as `grist serve` understands them.

A field that would change what is generated is honoured or refused, never ignored: what is not known is refused by name.
Fields that change nothing (who asks, where it is stored) are taken and dropped; of some that are not implemented, the
value that means "as always" is taken too, since clients send it. null means absent, as in OpenAI's.
Source: the API reference of OpenAI (chat completions, completions), types of openai-python 3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from gristmill.model.generate.sampling import Sampling
from gristmill.model.processing.chat.conversation import BadSample, Conversation
from gristmill.model.processing.chat.fields import REASONINGS, absent
from gristmill.model.processing.chat.served import read_history
from gristmill.orchestration.serve.errors import refuse
from gristmill.orchestration.serve.text import BROKEN

MAX_SAMPLES, MAX_PROMPTS, MAX_STOPS, MAX_STOP = 128, 1024, 16, 256

_HARMLESS = frozenset(("user", "metadata", "store", "service_tier", "safety_identifier", "prediction")) | frozenset(
    ("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention")
)
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
}
"""Not implemented: the only values that are taken, since they ask for nothing."""
_MESSAGE = frozenset(("role", "content", "name", "tool_calls", "tool_call_id", "refusal", "annotations"))
_MESSAGE |= frozenset(("function_call", "id", "status", *REASONINGS))
_TOOL = frozenset(("name", "description", "parameters", "strict"))


class StreamOptions(BaseModel):
    """`stream_options` of either request."""

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
        if len(stops) > MAX_STOPS or any(not 0 < len(stop) <= MAX_STOP or BROKEN in stop for stop in stops):
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
        """How many most likely tokens to send with each one's log-probability; None: no log-probabilities."""


class TextRequest(Settings):
    """POST /v1/completions."""

    neutral = {**_NEUTRAL, "best_of": (1,), "suffix": ("",)}

    prompt: str | list[int] | list[str | list[int]]
    logprobs: int | None = None
    echo: bool = False

    @property
    def alternatives(self) -> int | None:
        """As `Settings` says."""
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each as text or token ids. Raises ApiError."""
        prompt = self.prompt
        listed = isinstance(prompt, list) and not (prompt and isinstance(prompt[0], int))
        prompts: list[Any] = prompt if listed else [prompt]  # type: ignore[assignment]  # a list is one of ints else
        if not prompts or not all(prompts):
            raise refuse(
                "prompt: it is empty: allowed is a text or token ids, one or more, or a list of these", "prompt"
            )
        if len(prompts) > MAX_PROMPTS or len(prompts) * self.n > MAX_PROMPTS:
            raise refuse(f"prompt: {len(prompts)} prompts with n={self.n}: allowed are {MAX_PROMPTS} samples", "prompt")
        return prompts


class JsonSchema(BaseModel):
    """`response_format.json_schema`: a schema and its name."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = ""
    description: str | None = None
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """What an answer has to be; of JSON, every answer that ends by itself is."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatRequest(Settings):
    """POST /v1/chat/completions."""

    neutral = {
        **_NEUTRAL,
        "audio": (),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "modalities": (["text"],),
        "reasoning_effort": ("none",),
        "verbosity": ("medium",),
        "web_search_options": (),
    }

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = []
    tool_choice: Any = None
    logprobs: bool = False
    top_logprobs: int | None = None
    max_completion_tokens: int | None = None
    parallel_tool_calls: bool = True
    response_format: ResponseFormat | None = None

    @property
    def offered(self) -> list[dict[str, Any]]:
        """The tools that the model is shown, and whose calls are looked for in what it writes."""
        return [] if self.tool_choice == "none" else self.tools

    @property
    def alternatives(self) -> int | None:
        """As `Settings` says. Raises ApiError for `top_logprobs` without `logprobs`, or out of bounds."""
        if self.top_logprobs is not None and not self.logprobs:
            raise refuse("top_logprobs: only with logprobs=true", "top_logprobs")
        if not 0 <= (self.top_logprobs or 0) <= 20:
            raise refuse(f"top_logprobs={self.top_logprobs}: allowed is 0 to 20", "top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def limit(self) -> int | None:
        """The most tokens to generate, by either name."""
        old_name, new_name = self.max_tokens, self.max_completion_tokens
        if old_name is not None and new_name is not None and old_name != new_name:
            raise refuse(f"max_tokens={old_name}, max_completion_tokens={new_name}: give one of them", "max_tokens")
        limit = old_name if new_name is None else new_name
        if limit == 0:
            raise refuse("max_tokens=0: allowed is a whole number from 1", "max_tokens")
        return limit

    @property
    def schema_asked(self) -> dict[str, Any] | None:
        """The JSON schema of the answer; None: any text. Raises ApiError."""
        wanted = self.response_format
        if wanted is None or wanted.type == "text":
            return None
        if self.offered:
            message = f"response_format={wanted.type!r} with tools: not supported by this server; send one of them"
            raise refuse(message, "response_format")
        if wanted.type == "json_object":
            return {"type": "object"}
        if wanted.json_schema is None:
            raise refuse("response_format.json_schema: it is missing", "response_format")
        return wanted.json_schema.schema_

    def conversation(self, kinds: Collection[str] = ()) -> Conversation:
        """What the template renders. `kinds` of media that messages may show ("image"). Raises ApiError."""
        if self.tool_choice not in (None, "auto", "none"):
            raise refuse(f"tool_choice={self.tool_choice!r}: allowed are 'auto' and 'none'"[:500], "tool_choice")
        for tool in self.tools:
            _check_tool(tool)
        if len({tool["function"].get("name") for tool in self.tools}) < len(self.tools):
            raise refuse("tools: two of one name", "tools")
        if not self.messages:
            raise refuse("messages: there are none: send one or more", "messages")
        _check_messages(self.messages)
        try:
            return read_history(self.messages, self.offered, kinds)
        except BadSample as error:
            param = "tools" if error.reason == "bad_tools" else "messages"
            takes = f"text, and of users {', '.join(kinds)}" if kinds else "text only"
            more = f": this server takes {takes}" if error.reason == "unsupported_content" else ""
            raise refuse(f"{param}: {error}{more}", param) from error
        except (ValueError, RecursionError) as error:  # parameters that are no JSON
            raise refuse(f"tools: {error}", "tools") from error


def _check_tool(tool: Mapping[str, Any]) -> None:
    fields = tool.get("function")
    if tool.get("type") != "function" or not isinstance(fields, dict):
        raise refuse(f"tools: type={tool.get('type')!r}: allowed is 'function', with a field of that name", "tools")
    if unknown := sorted(set(fields) - _TOOL):
        raise refuse(f"tools: {unknown[0]} is not known; allowed are {sorted(_TOOL)}", "tools")
    if fields.get("strict"):
        raise refuse("tools: strict is not supported: arguments are as the model writes them", "tools")


def _check_messages(messages: list[dict[str, Any]]) -> None:
    """Refuses what the template would leave out in silence."""
    for number, message in enumerate(messages):
        present = {name for name, value in message.items() if not absent(value)}
        if unknown := sorted(present - _MESSAGE):
            allowed = sorted(_MESSAGE)
            raise refuse(f"messages[{number}]: {unknown[0]} is not supported; allowed are {allowed}", "messages")


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
