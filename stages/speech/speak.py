"""Speaking: a question that is written becomes one that is asked aloud (SQQA made from text).

What users say in a record without a clip is said by an engine, turn by turn, and stored as a clip, FLAC of 16 bits;
what the assistant answers, and a system message, stay as they are. Rows are pairs, chats, or samples of another version
as its shards hold them. Voice and pace are drawn by the text, so that copies of a question are said alike. The clip is
then judged as every other is. The engine is made once a process, and lives as long as the worker that reads; its
release is part of what decides the data.
Source: arXiv 2503.01743, section 4.2 (spoken questions synthesised from text).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gristmill.model.processing.chat.conversation import BadSample
from gristmill.model.processing.chat.fields import either
from gristmill.stages.containers.media import Media
from gristmill.stages.media.fields import first_text
from gristmill.stages.media.turns import AUDIO
from gristmill.stages.read.reading import content_hash
from gristmill.stages.speech.clips import stored
from gristmill.stages.speech.prompts import LANGUAGES
from gristmill.synth.speech.engines import EMBEDDED, engine
from gristmill.synth.speech.tts import TTS, NotSpoken

VOICES: Mapping[str, tuple[str, ...]] = {
    "en": ("en-us", "en-us+m3", "en-us+f2", "en", "en+m2", "en+f1"),
    "zh": ("cmn", "cmn+f2"),
    "fr": ("fr", "fr+f2"),
    "de": ("de", "de+f2"),
    "it": ("it", "it+f2"),
    "ja": ("ja", "ja+f2"),
    "pt": ("pt", "pt+f2"),
    "es": ("es", "es+f2"),
}
"""Of the embedded engine."""
SPOKEN_TASKS = ("sqqa", "chat")
_ROLES = {"<|system|>": "system", "<|user|>": "user", "<|assistant|>": "assistant"}
_ENDS = ("<|end|>", "<|endoftext|>")
_PLAIN = frozenset(" \t\n.,;:!?'\"()-–—…%$€£+=/，。、！？：；（）「」『』¿¡‘’“”")
"""Signs that are said, or that a reader passes over."""


class Aloud(NamedTuple):
    """A row with clips: these, what is said in them, and `row`, in which placeholders stand for what was said."""

    clips: tuple[Media, ...]
    spoken: str
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Speak:
    """`tts`: `espeak`, or `module:object`, an engine of your own (synth/speech/tts.py). `version`: of the engine; "":
    the one that is there, which is filled in. `voices`: by language. `slowest`, `fastest`: words a minute, of which
    each text has one. A turn longer than `max_characters` is not said, nor one of which more than `max_signs_ratio`
    are signs that nobody says, such as code or formulas. Raises ValueError; NoEngine where the engine is missing."""

    tts: str = EMBEDDED
    version: str = ""
    voices: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict(VOICES))
    slowest: int = 150
    fastest: int = 190
    max_characters: int = 600
    max_signs_ratio: float = 0.05

    def __post_init__(self) -> None:
        if not 1 <= self.slowest <= self.fastest:
            raise ValueError(
                f"slowest={self.slowest}, fastest={self.fastest}: words a minute, the first at most the other"
            )
        if self.max_characters < 1 or not 0 <= self.max_signs_ratio <= 1:
            raise ValueError(
                f"max_characters={self.max_characters}, max_signs_ratio={self.max_signs_ratio}: at least 1, and 0 to 1"
            )
        if unknown := sorted(set(self.voices) - set(LANGUAGES)):
            raise ValueError(f"voices: {', '.join(unknown)}: languages are {', '.join(LANGUAGES)}")
        speaker = engine(self.tts)
        for language, names in self.voices.items():
            if not names:
                raise ValueError(f"voices.{language}=[]: name at least one voice, or leave the language out")
            for name in names:
                speaker.check(name)
        if self.version and self.version != speaker.version:
            raise ValueError(
                f"version={self.version!r}: {self.tts} here is {speaker.version!r}, and would say it otherwise"
            )
        object.__setattr__(self, "version", speaker.version)

    def aloud(self, row: Mapping[str, Any], task: str, questions: tuple[str, ...], language: str | None) -> Aloud:
        """A row without clips, spoken. `questions`: fields with the question of a pair. Raises BadSample: not_spoken,
        no_voice, and what a row lacks that is no question."""
        if task == "sqqa":
            question = first_text(row, questions)
            return Aloud((self._clip(question, language),), question, row)
        messages = messages_of(row) if "parts" in row else either(row, "messages", "conversations")
        if not isinstance(messages, list):
            raise BadSample("no_field", "messages")
        clips: list[Media] = []
        texts: list[str] = []
        changed: list[Any] = []
        for message in messages:
            text = _said_by_user(message)
            if text is not None:
                clips.append(self._clip(text, language))
                texts.append(text)
                message = {"role": "user", "content": AUDIO.placeholder(len(clips))}
            changed.append(message)
        kept = {name: row[name] for name in row if name not in ("messages", "conversations", "parts", "text")}
        return Aloud(tuple(clips), "\n".join(texts), kept | {"messages": changed})

    def _clip(self, text: str, language: str | None) -> Media:
        voices = self.voices.get(language or "")
        if voices is None:
            raise BadSample("no_voice", language or "the row does not say its language")
        self._check(text)
        drawn = int(content_hash(text)[:12], 16)
        rate = self.slowest + drawn // len(voices) % (self.fastest - self.slowest + 1)
        try:
            sound = self._engine.say(text, voices[drawn % len(voices)], rate)
        except NotSpoken as error:
            raise BadSample("not_spoken", str(error)) from None
        if not np.isfinite(sound.samples).all():
            raise BadSample("not_spoken", "the engine gave samples that are no numbers")
        data = stored(sound.samples, sound.rate)
        return Media("audio", hashlib.sha256(data).hexdigest(), None, data)

    @property
    def _engine(self) -> TTS:
        """Of this process. Raises RuntimeError where it is another than the one that the recipe was checked with."""
        speaker = engine(self.tts)
        if speaker.version != self.version:
            raise RuntimeError(
                f"{self.tts} is {speaker.version!r} on this worker, and {self.version!r} where the run was started:"
                " install the same release on every node"
            )
        return speaker

    def _check(self, text: str) -> None:
        if len(text) > self.max_characters:
            raise BadSample("not_spoken", f"{len(text)} characters, allowed are {self.max_characters}")
        signs = sum(not (character.isalnum() or character in _PLAIN) for character in text)
        if signs > self.max_signs_ratio * len(text):
            raise BadSample("not_spoken", f"{signs} of {len(text)} characters are signs that nobody says")


def _said_by_user(message: Any) -> str | None:
    """The text of a user's message; None of another's. Raises BadSample for one that has parts beside text."""
    if not isinstance(message, Mapping) or message.get("role", message.get("from")) not in ("user", "human"):
        return None
    content = message.get("content", message.get("value"))
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None for part in content
        ]
        content = None if None in parts else "".join(map(str, parts))
    if not isinstance(content, str):
        raise BadSample("not_text", "what a user says")
    return content


def messages_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages of a sample as shards hold it, `text` and `parts` that tile it. Raises BadSample for one that is no
    conversation of texts."""
    text, parts = row.get("text"), row.get("parts")
    if not isinstance(text, str) or not isinstance(parts, list):
        raise BadSample("no_field", "text, parts")
    messages: list[dict[str, Any]] = []
    at, role = 0, None
    for part in parts:
        piece = text[at : at + part["length"]]
        at += part["length"]
        if part["special"] and piece in _ROLES:
            role = _ROLES[piece]
            messages.append({"role": role, "content": ""})
        elif part["special"] and piece in _ENDS:
            role = None
        elif part["special"] or role is None:
            raise BadSample("not_a_conversation", piece[:40])
        else:
            messages[-1]["content"] += piece
            if role == "assistant" and not part["learn"]:
                messages[-1]["weight"] = 0
    return messages
