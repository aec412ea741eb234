"""Items: a sample of instruction data as a question, what is expected, and how an answer to it is judged.

Which task it is follows from the sample's form: calls of tools are judged as calls, a worked solution by its last line,
lettered options by likelihood; what is said of images or clips by the sample's own answer; of any other conversation
only whether it is refused. Code and what is asked for by name is scored by perplexity, and by name too come transcripts
and translations. The prompt is the sample itself up to the answer, as training has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from gristmill.model.evaluate.answers import Extraction, choice_of, same_answer, spoken
from gristmill.model.evaluate.calls import call_fault
from gristmill.model.evaluate.reading import NUMBER, attributes, reading, vqa_accuracy
from gristmill.model.evaluate.refusals import Judge
from gristmill.model.evaluate.transcripts import Normalisation, transcript_reading
from gristmill.model.evaluate.translation import bleu_counts, chrf_counts
from gristmill.model.processing.segments import Segment, placeholder_of, placeholders, translated

Task = Literal["perplexity", "exact", "choice", "calls", "refusal", "answer", "vqa", "transcript", "translation"]
TASKS: tuple[Task, ...] = get_args(Task)
SEVERAL = "|"
"""Between the answers of several people to one question."""
QUOTING: frozenset[Task] = frozenset(("transcript", "translation"))
"""Tasks whose answers are what somebody else says: to write down a refusal is not to refuse."""
_ASSISTANT, _END, _USER = "<|assistant|>", "<|end|>", "<|user|>"


class NoItem(ValueError):
    """A sample that cannot be evaluated as was asked. `reason` is one word."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True)
class Rules:
    """How answers are read: `exact`, where the answer of a worked solution stands; `judge`, what a refusal is;
    `attributes`, by name the values that are looked for in answers (`evaluate.reading.attributes`); `transcripts`: what
    of them counts as the same."""

    exact: Extraction = field(default_factory=Extraction)
    judge: Judge = field(default_factory=Judge)
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    transcripts: Normalisation = field(default_factory=Normalisation)

    def __post_init__(self) -> None:
        for name, values in self.attributes.items():
            if not values or any(value != NUMBER and not value.isalnum() for value in values):
                raise ValueError(
                    f"attributes: {name}: {list(values)}: allowed are words, at least one, and {NUMBER!r} for numbers"
                )


@dataclass(frozen=True)
class Item:
    """`prompt`: the sample up to the answer; of perplexity all of it. `question`: what was asked last. `expected`: the
    answer as the sample has it, of "exact" its last line alone; `accepted`: those of several people. `options` of a
    choice, and which is `right`; `tools` that are offered and the `calls` expected; `harmful`: the sample's own answer
    refuses. `language` of what is expected, None where it is not known."""

    task: Task
    prompt: tuple[Segment, ...]
    question: str = ""
    expected: str = ""
    options: tuple[str, ...] = ()
    right: int = 0
    tools: tuple[dict[str, Any], ...] = ()
    calls: tuple[dict[str, Any], ...] = ()
    harmful: bool = False
    accepted: tuple[str, ...] = ()
    language: str | None = None


class _Turn(NamedTuple):
    """A turn of the assistant: its first segment, and those behind its last one (<|end|>, or the end)."""

    start: int
    end: int


def item_of(segments: Sequence[Segment], rules: Rules, task: Task | None = None, language: str | None = None) -> Item:
    """The item of a sample. `task`: how it is judged; None: as its form says. "vqa" has to be asked for: the sample's
    answer is then those of several people, with SEVERAL between them; so have "transcript" and "translation", of which
    `language` says what texts are made of.

    Raises NoItem: no_answer, no_calls, no_expected (the pattern is not in the sample's answer), no_choice.
    """
    turns = _answers(segments)
    if task == "perplexity" or (task is None and not turns):
        return Item("perplexity", tuple(segments))
    if not turns:
        raise NoItem("no_answer")
    calling = [turn for turn in turns if _between(segments, "tool_call", turn.start, turn.end)]
    if task == "calls" or (task is None and calling):
        return _calls_item(segments, calling)
    last = turns[-1]
    prompt = tuple(segments[: last.start])
    answer, question = spoken(_text(segments[last.start : last.end])), _question(prompt)
    if task == "vqa":
        accepted = tuple(part.strip() for part in answer.split(SEVERAL) if part.strip())
        if not accepted:
            raise NoItem("no_answer")
        return Item("vqa", prompt, question, answer, accepted=accepted)
    if task == "answer":
        return Item("answer", prompt, question, answer)
    if task in ("transcript", "translation"):
        wanted = translated(answer) if task == "translation" else answer
        if not wanted.strip():
            raise NoItem("no_expected")
        return Item(task, prompt, question, wanted, language=language)
    if task in (None, "exact"):
        expected = rules.exact.of(answer)
        if expected is not None:
            return Item("exact", prompt, question, expected)
        if task == "exact":
            raise NoItem("no_expected")
    if task in (None, "choice"):
        choice = choice_of(question, answer)
        if choice is not None:
            return Item("choice", prompt, question, choice.options[choice.right], choice.options, choice.right)
        if task == "choice":
            raise NoItem("no_choice")
    if task is None and placeholders(prompt):
        return Item("answer", prompt, question, answer)
    return Item("refusal", prompt, question, answer, harmful=rules.judge.refuses(answer))


def _answers(segments: Sequence[Segment]) -> list[_Turn]:
    """The turns of the assistant that are learned, in order."""
    turns = []
    for start, segment in enumerate(segments, 1):
        if segment.special and segment.text == _ASSISTANT:
            ends = (n for n in range(start, len(segments)) if segments[n].special and segments[n].text == _END)
            end = next(ends, len(segments))
            if any(part.loss_mask for part in segments[start:end]):
                turns.append(_Turn(start, end))
    return turns


def _calls_item(segments: Sequence[Segment], calling: Sequence[_Turn]) -> Item:
    """The first turn that calls: what the user asked for, before any tool answered."""
    if not calling:
        raise NoItem("no_calls")
    start, end = calling[0]
    prompt = tuple(segments[:start])
    expected = _between(segments, "tool_call", start, end)
    offered = _between(prompt, "tool", 0, start)
    tools = tuple(json.loads(offered)) if offered else ()
    return Item("calls", prompt, _question(prompt), expected, tools=tools, calls=tuple(json.loads(expected)))


def _between(segments: Sequence[Segment], name: str, start: int, end: int) -> str:
    """The text between <|name|> and <|/name|>; "" if there is none."""
    for n in range(start, end):
        if segments[n] == Segment(f"<|{name}|>", True, segments[n].loss_mask) and n + 1 < end:
            return segments[n + 1].text
    return ""


def _text(segments: Sequence[Segment]) -> str:
    return "".join(segment.text for segment in segments if not segment.special)


def _question(prompt: Sequence[Segment]) -> str:
    """What the user said last."""
    starts = [n for n, segment in enumerate(prompt) if segment.special and segment.text == _USER]
    if not starts:
        return ""
    rest = prompt[starts[-1] + 1 :]
    end = next((n for n, part in enumerate(rest) if part.special and not placeholder_of(part)), len(rest))
    return _text(rest[:end])


def verdict_of(item: Item, answer: str, calls: Sequence[Mapping[str, Any]] | None, rules: Rules) -> dict[str, Any]:
    """What a written answer to an item is worth, as columns of `scores.ROWS`: `score`, and `reason`, what is wrong with
    it, None if nothing is. `calls`: those in it (`evaluate.calls`)."""
    verdict: dict[str, Any] = {}
    if item.task == "vqa":
        score = vqa_accuracy(spoken(answer), item.accepted)
        verdict = {"score": score, "reason": None if score == 1 else "other_answer"}
    elif item.task == "transcript":
        near = transcript_reading(spoken(answer), item.expected, item.language, rules.transcripts)
        verdict = near._asdict() | {"score": float(near.exact), "reason": None if near.exact else "other_answer"}
    elif item.task == "translation":
        given = translated(spoken(answer))
        same = reading(given, item.expected).exact
        verdict = {"score": float(same), "reason": None if same else "other_answer"}
        verdict |= {"bleu": bleu_counts(given, item.expected, item.language), "chrf": chrf_counts(given, item.expected)}
    elif item.task == "answer":
        near = reading(spoken(answer), item.expected)
        verdict = near._asdict() | {"score": float(near.exact), "reason": None if near.exact else "other_answer"}
    else:
        fault = answer_fault(item, answer, calls, rules)
        return {"score": float(fault is None), "reason": fault}
    if rows := attributes(spoken(answer), item.expected, rules.attributes):
        verdict["attributes"] = [row._asdict() for row in rows]
    return verdict


def answer_fault(item: Item, answer: str, calls: Sequence[Mapping[str, Any]] | None, rules: Rules) -> str | None:
    """What is wrong with a written answer to an item; None: it is right. `calls`: those in it (`evaluate.calls`)."""
    if item.task == "calls":
        return call_fault(calls, item.tools, item.calls)
    if item.task == "exact":
        given = rules.exact.of(spoken(answer))
        if given is None:
            return "no_answer"
        return None if same_answer(given, item.expected) else "other_answer"
    if item.task == "refusal":
        refused = rules.judge.refuses(answer)
        if refused == item.harmful:
            return None
        return "refused" if refused else "not_refused"
    raise ValueError(f"task {item.task!r} has no written answer")
