"""Instruct: lines of instruction data become samples, in the chat template or as code with a hole in the middle.

Each line is one record with one fate: what does not follow the rules of a conversation, or calls a tool in a way that
the tool's schema does not allow, is dropped with its reason. A sample is stored as its whole text and `parts`, spans
over it that say which are special tokens and which the loss counts: no tokenizer is involved, and text that happens to
spell `<|end|>` is never taken for the token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

import pyarrow as pa

from gristmill.model.processing.chat.conversation import REASONING, BadSample, Reasoning, Rules, parse, render
from gristmill.model.processing.fim import Fim, fim
from gristmill.model.processing.segments import END_OF_TEXT, Segment
from gristmill.stages.containers import ReadConfig, Record
from gristmill.stages.core.shards import WriteShards
from gristmill.stages.read.reading import RECORD, content_hash
from gristmill.stages.text.samples import SampleStage, columns_of

PARTS = pa.list_(pa.struct([("length", pa.int32()), ("special", pa.bool_()), ("learn", pa.bool_())]))
SCHEMA = pa.schema(
    [
        *RECORD,
        ("content", pa.string()),  # 128-bit hash of the parts, or of code before a hole was cut
        ("url", pa.string()),
        ("kind", pa.string()),  # chat | code
        ("text", pa.string()),
        ("parts", PARTS),  # tile the text, in characters
        ("date", pa.string()),
        ("source", pa.string()),
    ],
    metadata={"gristmill.format": "1"},
)
SHARD = pa.schema(
    [SCHEMA.field(name) for name in ("id", "url", "kind", "text", "parts", "date", "source")],
    metadata={"gristmill.format": "1"},
)
Form = Literal["chat", "pair", "code"]
FORMS: tuple[Form, ...] = ("chat", "pair", "code")


class Judged(NamedTuple):
    """The parts of a sample and what tells it from others, or the reason why it is none, with the offending value."""

    parts: tuple[Segment, ...] = ()
    content: str = ""
    reason: str | None = None
    value: str | None = None
    error: None = None


@dataclass(frozen=True)
class Instruct(SampleStage[Judged]):
    """Outputs `text` (the samples), `screened` (their keys, by content) and fates. `form` says what a line is.

    chat: `messages` (OpenAI) or `conversations` (ShareGPT), with `tools`; `weight: 0` of an answer keeps it out of the
    loss, `reasoning` says what becomes of what was thought before it, `harmless` names fields to pass over; any
    other that is not known drops the sample (`model.processing.chat.fields`). pair: the fields `prompt` and `response`,
    after a `system` message if there is one. code: the fields `code`, end to end; with `fim` a share of them gets a
    hole. Whatever the regular expressions of `remove` find is taken out of prompts and responses (GSM8K: `<<[^<>]*>>`).
    A record that takes longer than `seconds_per_record` is taken to hang: it ends as quarantined. None: no limit, and
    records are judged in this very process (for debuggers), else in a child of it.
    """

    name: ClassVar[str] = "instruct"
    VERSION: ClassVar[int] = 2
    schema: ClassVar[pa.Schema] = SCHEMA
    judgement: ClassVar[type[Judged]] = Judged

    form: Form = "chat"
    prompt: str = "question"
    response: str = "answer"
    system: str | None = None
    reasoning: Reasoning = "think"
    harmless: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    code: tuple[str, ...] = ("code",)
    fim: Fim | None = field(default_factory=Fim)
    read: ReadConfig = field(default_factory=ReadConfig)
    seconds_per_record: float | None = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in FORMS:
            raise ValueError(f"form={self.form!r}: one of {', '.join(FORMS)}")
        if self.reasoning not in REASONING:
            raise ValueError(f"reasoning={self.reasoning!r}: one of {', '.join(REASONING)}")
        if not self.code:
            raise ValueError("code=[]: name at least one field")
        for pattern in self.remove:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"remove: {pattern!r} is no regular expression: {error}") from None

    def formed(self, item: Record, row: Mapping[str, Any]) -> Judged:
        """The sample of a row. Raises BadSample for the rule that it breaks (`model.processing.chat`)."""
        parts, content = self._code(row) if self.form == "code" else self._chat(row)
        return Judged(tuple(parts), content)

    def _chat(self, row: Mapping[str, Any]) -> tuple[Sequence[Segment], str]:
        if self.form == "pair":
            turns = [("user", self._field(row, self.prompt)), ("assistant", self._field(row, self.response))]
            if self.system is not None:
                turns.insert(0, ("system", self.system))
            row = {"messages": [{"role": role, "content": content} for role, content in turns]}
        conversation = parse(row, Rules(self.reasoning, frozenset(self.harmless)))
        parts = render(conversation)
        # Where not all that the assistant says counts for the loss, equal texts with other masks are other samples.
        whole = all(turn.loss_mask for turn in conversation.turns)
        distinct = [(part.text, part.special) if whole else tuple(part) for part in parts]
        return parts, json.dumps(distinct, ensure_ascii=False)

    def _field(self, row: Mapping[str, Any], name: str) -> str:
        text = row.get(name)
        if not isinstance(text, str):
            raise BadSample("no_field" if name not in row else "not_text", name)
        for pattern in self.remove:
            text = re.sub(pattern, "", text)
        return text

    def _code(self, row: Mapping[str, Any]) -> tuple[Sequence[Segment], str]:
        """The hole is drawn by what the text is, not by where it lies: equal texts stay equal."""
        text = "".join(self._field(row, name) for name in self.code)
        if not text.strip():
            raise BadSample("empty_turn", "code")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise BadSample("lone_surrogate", "code") from None
        parts = fim(text, content_hash(text), self.fim) if self.fim is not None else None
        return parts or (Segment(text, loss_mask=True), Segment(END_OF_TEXT, special=True, loss_mask=True)), text

    def columns(self, item: Record, sample: Judged) -> dict[str, Any]:
        """Of a sample: those of SCHEMA that are not of RECORD."""
        return columns_of(item, sample.content, "code" if self.form == "code" else "chat", sample.parts)


def parts_of(text: str, spans: Sequence[Mapping[str, Any]]) -> list[Segment]:
    """The parts that a row of SCHEMA stores. Raises ValueError unless they tile its text."""
    parts, at = [], 0
    for span in spans:
        parts.append(Segment(text[at : at + span["length"]], span["special"], span["learn"]))
        at += span["length"]
    if at != len(text):
        raise ValueError(f"parts of {at} characters over a text of {len(text)}")
    return parts


@dataclass(frozen=True)
class WriteSamples(WriteShards):
    """Shards of samples."""

    name: ClassVar[str] = "samples"
    VERSION: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = SHARD
    measured: ClassVar[Mapping[str, str]] = MappingProxyType({})
