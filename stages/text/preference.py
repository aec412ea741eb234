"""Preference: lines with a prompt, a chosen and a rejected answer become pairs, which training compares.

A pair is two whole conversations in the chat template, one after the other in one text: the chosen one, up to its
<|endoftext|>, then the rejected one. What both have in common before they part is the prompt, of which nothing is
learned. Each line is one record with one fate, as in `stages.text.instruct`, whose rules of a conversation hold here.
Source: TRL's preference data sets, with the prompt apart or within both sides; OpenAI's preference fine-tuning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from gristmill.model.processing.chat.conversation import (
    REASONING,
    ROLES,
    BadSample,
    Conversation,
    Reasoning,
    Rules,
    Turn,
    parse,
    read_turns,
    render,
)
from gristmill.model.processing.chat.fields import absent
from gristmill.model.processing.segments import Segment
from gristmill.stages.containers import ReadConfig, Record
from gristmill.stages.core.shards import WriteShards
from gristmill.stages.read.reading import RECORD
from gristmill.stages.text.instruct import PARTS
from gristmill.stages.text.samples import SampleStage, columns_of

SCHEMA = pa.schema(
    [
        *RECORD,
        ("content", pa.string()),  # 128-bit hash of both sides
        ("url", pa.string()),
        ("kind", pa.string()),  # preference
        ("text", pa.string()),  # the chosen side, then the rejected one
        ("parts", PARTS),  # tile the text, in characters
        ("rejected_at", pa.int32()),  # the character at which the rejected side begins
        ("date", pa.string()),
        ("source", pa.string()),
    ],
    metadata={"gristmill.format": "1"},
)
SHARD = pa.schema(
    [SCHEMA.field(name) for name in ("id", "url", "kind", "text", "parts", "rejected_at", "date", "source")],
    metadata={"gristmill.format": "1"},
)
_SHARED = ("tools", "functions", "system")
"""Fields that stand beside the sides and are of both."""


class Pair(NamedTuple):
    """The parts of both sides and what tells the pair from others, or the reason why it is none, with its value."""

    chosen: tuple[Segment, ...] = ()
    rejected: tuple[Segment, ...] = ()
    content: str = ""
    reason: str | None = None
    value: str | None = None
    error: None = None


@dataclass(frozen=True)
class Preference(SampleStage[Pair]):
    """Outputs `text` (the pairs), `screened` (their keys, by content) and fates. `prompt`, `chosen`, `rejected`: what
    the fields of a line are called.

    A side is a text, the answer; or messages: those of the answer, or whole conversations. The prompt is a text, what
    the user says; or messages; or an object with `messages` and `tools` (OpenAI's `input`). It may be left out where
    the sides are whole conversations; beside such it has to be what they begin with, or, if it is one message, what the
    user says somewhere in them. `reasoning`, `harmless`, `seconds_per_record`: as of `Instruct`.
    """

    name: ClassVar[str] = "preference"
    VERSION: ClassVar[int] = 2  # a prompt beside whole conversations is compared as it is read
    schema: ClassVar[pa.Schema] = SCHEMA
    judgement: ClassVar[type[Pair]] = Pair

    prompt: str = "prompt"
    chosen: str = "chosen"
    rejected: str = "rejected"
    reasoning: Reasoning = "think"
    harmless: tuple[str, ...] = ()
    read: ReadConfig = field(default_factory=ReadConfig)
    seconds_per_record: float | None = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reasoning not in REASONING:
            raise ValueError(f"reasoning={self.reasoning!r}: one of {', '.join(REASONING)}")
        names = (self.prompt, self.chosen, self.rejected)
        if len(set(names)) < len(names) or not all(names):
            raise ValueError(f"prompt, chosen, rejected: {', '.join(map(repr, names))}: name three fields")

    def formed(self, item: Record, row: Mapping[str, Any]) -> Pair:
        """The pair of a row. Raises BadSample for the rule that it breaks: those of a conversation
        (`model.processing.chat`), no_field, other_prompt (the sides answer different prompts), same_answers."""
        chosen, rejected = self._sides(row)
        content = json.dumps([[tuple(part) for part in side] for side in (chosen, rejected)], ensure_ascii=False)
        return Pair(tuple(chosen), tuple(rejected), content)

    def _sides(self, row: Mapping[str, Any]) -> tuple[list[Segment], list[Segment]]:
        rules = Rules(self.reasoning, frozenset(self.harmless))
        prompt, beside = self._prompt(row)
        sides = []
        for name in (self.chosen, self.rejected):
            messages = _messages(row, name, "assistant")
            whole = _is_whole(messages)
            if not whole and not prompt:
                raise BadSample("no_field", self.prompt)
            side = parse({**beside, "messages": messages if whole else [*prompt, *messages]}, rules)
            if whole and prompt:
                _check_same(read_turns({**beside, "messages": prompt}, rules), side.turns, len(prompt) == 1, name)
            sides.append(side)
        shared = _shared(*sides)
        chosen, rejected = (
            _learned(side, shared, name) for side, name in zip(sides, ("chosen", "rejected"), strict=True)
        )
        return render(chosen), render(rejected)

    def _prompt(self, row: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The messages before both answers, none where the row has no prompt; and what else is of both sides."""
        beside = {name: row[name] for name in _SHARED if row.get(name) is not None}
        given = row.get(self.prompt)
        if isinstance(given, Mapping):
            beside |= {name: given[name] for name in _SHARED if given.get(name) is not None}
            return ([] if _says_nothing(given.get("messages")) else _messages(given, "messages", "user")), beside
        if _says_nothing(given):
            return [], beside
        return _messages(row, self.prompt, "user"), beside

    def columns(self, item: Record, sample: Pair) -> dict[str, Any]:
        """Of a pair: those of SCHEMA that are not of RECORD."""
        parts = (*sample.chosen, *sample.rejected)
        rejected_at = sum(len(part.text) for part in sample.chosen)
        return columns_of(item, sample.content, self.name, parts) | {"rejected_at": rejected_at}


def _messages(row: Mapping[str, Any], name: str, role: str) -> list[Any]:
    """A field as messages; of a text, the one that `role` says. Raises BadSample: no_field, not_text, empty_turn."""
    given = row.get(name)
    if given is None:
        raise BadSample("no_field", name)
    if isinstance(given, str):
        return [{"role": role, "content": given}]
    if not isinstance(given, list):
        raise BadSample("not_text", f"{name} is a {type(given).__name__}")
    if not given:
        raise BadSample("empty_turn", name)
    return given


def _role(message: Any) -> Any:
    return message.get("role", message.get("from")) if isinstance(message, Mapping) else None


def _is_whole(messages: Sequence[Any]) -> bool:
    """Whether a side is a whole conversation, which begins with what is no answer."""
    return ROLES.get(str(_role(messages[0]))) in ("system", "user")


def _says_nothing(value: Any) -> bool:
    """Whether a prompt is none, as in the tables of which only some rows have one."""
    return absent(value) or (isinstance(value, str) and not value.strip())


def _check_same(prompt: Sequence[Turn], side: Sequence[Turn], anywhere: bool, name: str) -> None:
    """Raises BadSample where a whole conversation does not begin with the prompt that stands beside it. `anywhere`: its
    last turn may as well stand later in the conversation, before the answer."""
    asked, turns = [_comparable(turn) for turn in prompt], [_comparable(turn) for turn in side]
    if turns[: len(asked)] != asked and not (anywhere and asked[-1] in turns[:-1]):
        raise BadSample("other_prompt", f"{name} holds other messages than the prompt")


def _shared(chosen: Conversation, rejected: Conversation) -> int:
    """How many turns both sides begin with. Raises BadSample where they do not part at an answer: same_answers,
    other_prompt."""
    pairs = zip(chosen.turns, rejected.turns, strict=False)
    shared = sum(1 for _ in takewhile(lambda pair: _comparable(pair[0]) == _comparable(pair[1]), pairs))
    if shared == len(chosen.turns) == len(rejected.turns):
        raise BadSample("same_answers")
    parting = [side.turns[shared].role if shared < len(side.turns) else "nothing" for side in (chosen, rejected)]
    if parting != ["assistant", "assistant"]:
        raise BadSample("other_prompt", f"the sides part at turn {shared}: {parting[0]}, {parting[1]}")
    return shared


def _comparable(turn: Turn) -> Turn:
    """A turn as far as answers differ: not by spaces at their ends, nor by their weight."""
    return replace(turn, content=turn.content.strip(), reasoning=turn.reasoning.strip(), loss_mask=True)


def _learned(side: Conversation, shared: int, name: str) -> Conversation:
    """The conversation of which nothing is learned before the sides part. Raises BadSample: nothing_learned."""
    turns = (*(replace(turn, loss_mask=False) for turn in side.turns[:shared]), *side.turns[shared:])
    if not any(turn.loss_mask for turn in turns if turn.role == "assistant"):
        raise BadSample("nothing_learned", f"weight 0 in every answer of {name}")
    return replace(side, turns=turns)


@dataclass(frozen=True)
class WritePairs(WriteShards):
    """Shards of pairs."""

    name: ClassVar[str] = "pairs"
    VERSION: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = SHARD
    measured: ClassVar[Mapping[str, str]] = MappingProxyType({})
