"""What a conversation is: turns of four roles, calls of tools, what tools are offered.

Plain values between the forms they are read from (`messages`, `served`) and the template they are shown in
(`template`): none of the three knows another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "tool_response": "tool",
    "observation": "tool",
}
"""Names of roles in OpenAI's and ShareGPT's forms."""


@dataclass(frozen=True)
class Call:
    """A call of a tool, its arguments a JSON object; in a history that a client sends, whatever it kept of them."""

    name: str
    arguments: Any


@dataclass(frozen=True)
class Shown:
    """An image or a clip within what a user says: behind `at` characters of it. `source`: the part of the message that
    names or holds it, as it came."""

    kind: Literal["image", "audio"]
    at: int
    source: Any


@dataclass(frozen=True)
class Turn:
    """One message. `calls` and `reasoning` (what was thought before the content) are the assistant's; with calls,
    content may be empty. `loss_mask`: the loss counts it, if it is the assistant's. `media` are the user's, in their
    order."""

    role: Role
    content: str
    calls: tuple[Call, ...] = ()
    reasoning: str = ""
    loss_mask: bool = True
    media: tuple[Shown, ...] = ()


@dataclass(frozen=True)
class Conversation:
    """`tools`: what the system message offers, as `{name, description, parameters}`."""

    turns: tuple[Turn, ...]
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def media(self) -> tuple[Shown, ...]:
        """Of all turns; the template numbers those of a kind in this order, from 1."""
        return tuple(item for turn in self.turns for item in turn.media)
