"""The chat template of Phi-4-Mini: `<|role|>content<|end|>` a message, no line ends between, <|endoftext|> after all.

Tools stand in the first system message, calls after the content of their turn. Only what the assistant says is learned:
its reasoning, its content, its calls, and the <|end|> with which it stops; of a turn with weight 0, nothing.
Notable choice: reasoning stands before the content between <think> and </think>, which are text, not special tokens, in
every turn that has it: a served history holds what the model wrote, so that is what it learns to go on from.
Source: the chat templates of microsoft/Phi-4-mini-instruct and Phi-4-mini-reasoning; arXiv 2503.01743, section 2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gristmill.model.processing.chat.tools import canonical
from gristmill.model.processing.chat.turns import Conversation, Role, Turn
from gristmill.model.processing.segments import END_OF_TEXT, Segment, placeholder

_TOKENS: Mapping[Role, str] = {
    "system": "<|system|>",
    "user": "<|user|>",
    "assistant": "<|assistant|>",
    "tool": "<|tool_response|>",
}
_END = "<|end|>"
THINK, END_THINK = "<think>", "</think>"


def render(conversation: Conversation) -> list[Segment]:
    """The whole conversation, for training."""
    return [*_rendered(conversation), Segment(END_OF_TEXT, special=True)]


def prompt(conversation: Conversation) -> list[Segment]:
    """What stands before the assistant's next turn, for generation; before its last one where that ends it all."""
    turns = conversation.turns
    if turns and turns[-1].role == "assistant":
        turns = turns[:-1]
    return answered(Conversation(turns, conversation.tools))


def answered(conversation: Conversation) -> list[Segment]:
    """All turns, whoever spoke last, and the assistant's next one begun."""
    return [*_rendered(conversation), Segment(_TOKENS["assistant"], special=True)]


def thought(turn: Turn) -> str:
    """A turn's text as the template has it: reasoning, then content."""
    if not turn.reasoning:
        return turn.content
    block = f"{THINK}\n{turn.reasoning}\n{END_THINK}"
    return f"{block}\n\n{turn.content}" if turn.content else block


def plain_calls(turn: Turn) -> list[dict[str, Any]]:
    """The calls of a turn as the template shows them."""
    return [{"name": call.name, "arguments": call.arguments} for call in turn.calls]


def _rendered(conversation: Conversation) -> list[Segment]:
    turns = list(conversation.turns)
    if conversation.tools and (not turns or turns[0].role != "system"):
        turns.insert(0, Turn("system", ""))  # somebody has to offer the tools
    segments: list[Segment] = []
    media: Counter[str] = Counter()
    for number, turn in enumerate(turns):
        loss_mask = turn.role == "assistant" and turn.loss_mask
        segments.append(Segment(_TOKENS[turn.role], special=True))
        segments += _with_media(turn, media) if turn.media else [Segment(thought(turn), loss_mask=loss_mask)]
        if number == 0 and conversation.tools:
            segments += _between("tool", conversation.tools, loss_mask=False)
        if turn.calls:
            segments += _between("tool_call", plain_calls(turn), loss_mask=loss_mask)
        segments.append(Segment(_END, special=True, loss_mask=loss_mask))
    return [segment for segment in segments if segment.text]


def _with_media(turn: Turn, count: Counter[str]) -> list[Segment]:
    """What a user says, with placeholders where media stand; `count`: how many of each kind came, with these."""
    segments: list[Segment] = []
    at = 0
    for item in turn.media:
        count[item.kind] += 1
        segments += [Segment(turn.content[at : item.at]), placeholder(item.kind, count[item.kind])]
        at = item.at
    return [*segments, Segment(turn.content[at:])]


def _listed(items: Iterable[Mapping[str, Any]]) -> str:
    """Calls or tools as a JSON list: the fields of each in their order, so a call's name first, all within sorted."""
    return "[" + ",".join(map(_object, items)) + "]"


def _object(item: Mapping[str, Any]) -> str:
    fields = (f"{canonical(name)}:{canonical(value)}" for name, value in item.items())
    return "{" + ",".join(fields) + "}"


def _between(token: str, items: Sequence[Mapping[str, Any]], loss_mask: bool) -> list[Segment]:
    return [
        Segment(f"<|{token}|>", special=True, loss_mask=loss_mask),
        Segment(_listed(items), loss_mask=loss_mask),
        Segment(f"<|/{token}|>", special=True, loss_mask=loss_mask),
    ]
