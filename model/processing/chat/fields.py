"""The fields of chat data: which are read, which say nothing that a template shows, and that no other is passed over.

A field that nobody reads is how `weight: 0` came to be learned. So a field is read, or it is on the list of those that
only keep books, or it costs the sample, by its name; a recipe may add to the list what its data has.
Source: OpenAI's chat and fine-tuning forms; ShareGPT as in LLaMA-Factory; columns of WildChat, OASST, SlimOrca.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gristmill.model.processing.chat.tools import BadSample

Reasoning = Literal["think", "omit", "refuse"]
REASONING: tuple[Reasoning, ...] = ("think", "omit", "refuse")

# fmt: off
HARMLESS = frozenset((
    # who, when, where it was stored
    "id", "uuid", "message_id", "msg_id", "parent_id", "parent", "conversation_id", "conversation_hash",
    "turn_id", "turn", "turn_index", "turn_identifier", "index", "idx", "number", "date", "time",
    "timestamp", "created", "created_at", "create_time", "updated_at", "update_time", "source", "url",
    "hash", "user_id", "name", "author",
    # what it was made or measured with
    "model", "model_name", "provider", "usage", "tokens", "token_count", "num_tokens", "tokens_count",
    "finish_reason", "stop_reason", "logprobs", "latency", "cost", "metadata", "meta", "lang", "language",
    "rating", "score", "rank", "synthetic",
    # what the web's collections and services add
    "annotations", "citations", "cache_control", "header", "hashed_ip", "country", "state", "toxic",
    "redacted", "openai", "openai_id", "avatar", "markdown", "status", "service_tier", "strict", "title",
))
# fmt: on
"""Fields of messages, calls, parts and tools that no template shows and that change nothing of what is learned."""

REASONINGS = ("reasoning_content", "reasoning", "thinking")
"""Names of what was thought before an answer: DeepSeek's and vLLM's, OpenRouter's, gpt-oss's."""


@dataclass(frozen=True)
class Rules:
    """How to read chat data. `reasoning`: "think" learns it before the content, "omit" leaves it out, "refuse" drops
    the sample. `harmless`: names of fields to pass over, besides HARMLESS."""

    reasoning: Reasoning = "think"
    harmless: frozenset[str] = frozenset()

    def check(self, fields: Mapping[str, Any], known: Iterable[str], where: str = "") -> None:
        """Raises BadSample for a field that is neither read nor harmless, and says something."""
        for name in sorted(map(str, fields.keys() - set(known) - HARMLESS - self.harmless)):
            if not absent(fields.get(name)):
                raise BadSample("unknown_field", f"{where}{name}")


def absent(value: Any) -> bool:
    """Whether a field says nothing: tables have all columns, with nulls or empty values where a row has none."""
    return value is None or (isinstance(value, str | list | tuple | dict) and not value)


def either(fields: Mapping[str, Any], name: str, other: str) -> Any:
    """Tables of several forms have all columns, and nulls in those of the other form."""
    return fields[name] if fields.get(name) is not None else fields.get(other)


def the_same(fields: Mapping[str, Any], name: str, other: str) -> Any:
    """The value under either name. Raises BadSample if both say something, and not the same."""
    if not absent(fields.get(name)) and not absent(fields.get(other)) and fields[name] != fields[other]:
        raise BadSample("unknown_field", f"{other} beside {name}")
    return fields[other] if absent(fields.get(name)) and not absent(fields.get(other)) else either(fields, name, other)


def read_weight(value: Any, role: str) -> bool:
    """Whether a message is learned, from its `weight` (OpenAI's fine-tuning form): 0, 1 or nothing, 1 for the assistant
    alone. Raises BadSample."""
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadSample("bad_weight", f"a {type(value).__name__}")
    if value not in (0, 1):
        raise BadSample("bad_weight", f"{value:g}" if isinstance(value, float) else str(value)[:20])
    if value == 1 and role != "assistant":
        raise BadSample("bad_weight", f"1 of the {role}")
    return bool(value)


def read_reasoning(message: Mapping[str, Any], role: str) -> str:
    """What was thought before an answer, under any of its names. Raises BadSample."""
    texts: dict[str, str] = {}
    for name in REASONINGS:
        value = message.get(name)
        if absent(value):
            continue
        if not isinstance(value, str):
            raise BadSample("not_text", f"{name} is a {type(value).__name__}")
        if value.strip():
            texts[name] = value.strip()
    if texts and role != "assistant":
        raise BadSample("unknown_field", f"{next(iter(texts))} of the {role}")
    if len(set(texts.values())) > 1:
        raise BadSample("two_reasonings", ", ".join(texts))
    return next(iter(texts.values()), "")
