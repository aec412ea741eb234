"""Which media a row speaks of, and where they stand in its turns: images, or clips.

A row names media by number (a field of Parquet, a member of a tar), by name (a path in its folder, a member), in
fields of their own or as parts of its messages; one that names none speaks of all media of its record, in order. In a
text the n-th is `<|image_n|>` or `<|audio_n|>`, from 1 (LLaVA's `<image>` is the next one); where no text says, all
stand before what the first user says. Each stands in one place, in what users say: an answer that spells a placeholder
has a text.
Source: the template of microsoft/Phi-4-multimodal-instruct; OpenAI's content parts; LLaVA's conversations.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any
from urllib.parse import unquote

from gristmill.lake.inputs.folder_lines import paths_of
from gristmill.model.processing.chat.conversation import BadSample, Conversation
from gristmill.model.processing.segments import (
    Segment,
    placeholder,
    placeholder_of,
    placeholders,
    split_at_placeholders,
)
from gristmill.stages.containers.media import Media

USER = "<|user|>"


@dataclass(frozen=True)
class Modality:
    """What media of one kind are called. `kind`: as containers know it; `parts`: types of parts of messages; `others`:
    kinds of media that are taken for it."""

    kind: str
    parts: tuple[str, ...]
    others: tuple[str, ...] = ()

    def placeholder(self, number: int) -> str:
        """What stands in a text for the medium `number`, from 1."""
        return placeholder(self.kind, number).text

    @cached_property
    def next(self) -> re.Pattern[str]:
        """What stands in a text for the next medium that no part took yet."""
        return re.compile("|".join(f"<{kind}>" for kind in (self.kind, *self.others)))


IMAGE = Modality("image", ("image", "image_url", "input_image"))
FRAMES = Modality("image", (*IMAGE.parts, "video", "video_url", "input_video"), others=("video",))
"""Images, and videos of which a record has several."""
AUDIO = Modality("audio", ("audio", "audio_url", "input_audio"))


class Album:
    """The media of a record, and those among them that its row speaks of, in the order in which it does. They are
    counted as `modality`, whatever they are: who decodes them says so of one that is none."""

    def __init__(self, media: Sequence[Media], modality: Modality) -> None:
        self._media, self.modality = media, modality
        self._numbers: dict[str, int] = {}  # name -> place among the media
        for place, item in enumerate(media):
            for name in _names(item.url or ""):
                self._numbers.setdefault(name, place)
        self._order: dict[int, int] = {}  # place among the media -> its number
        self._unused: list[int] = []  # numbers that fields named, and no part of a message yet

    @property
    def named(self) -> list[Media]:
        """Those that the row speaks of; the n-th, from 1, is that of the n-th placeholder."""
        return [self._media[place] for place in self._order]

    def add_fields(self, row: Mapping[str, Any], fields: Sequence[str]) -> None:
        """The media that fields of the row name. Raises BadSample: missing."""
        for field in fields:
            for name in _flat(row.get(field)):
                number = self._number(name)
                if number not in self._unused:
                    self._unused.append(number)

    def add_all(self) -> None:
        """Every medium of the record, where nothing named any."""
        if not self._order:
            self._unused = [self._number(place + 1) for place in range(len(self._media))]

    def of_part(self, part: Mapping[str, Any]) -> str:
        """The placeholder of a part of a message: of the medium that it names, else of the next one. Raises
        BadSample."""
        name = next((part[key] for key in self.modality.parts if part.get(key) is not None), None)
        if isinstance(name, Mapping):
            name = name.get("url", name.get("path"))
        if name is not None:
            number = self._number(name)
            self._unused = [other for other in self._unused if other != number]
            return self.modality.placeholder(number)
        return self.modality.placeholder(self.next())

    def next(self) -> int:
        """The number of the first medium that no part took yet. Raises BadSample: missing."""
        if not self._unused:
            raise BadSample("missing", f"{self.modality.kind} {len(self._order) + 1}: the record has no more")
        return self._unused.pop(0)

    def _number(self, name: Any) -> int:
        """Of the medium of this name or number. Raises BadSample: missing."""
        shown = f"{self.modality.kind} {len(self._order) + 1}"
        if isinstance(name, int) and not isinstance(name, bool) and 1 <= name <= len(self._media):
            place = name - 1
        elif isinstance(name, str):
            known = (self._numbers.get(key) for key in (name, *paths_of(name)))
            places = [place for place in known if place is not None]
            if not places:
                raise BadSample("missing", f"{shown}: {name[:200]}")
            place = places[0]
        else:
            raise BadSample("missing", f"{shown}: {name!r}"[:200])
        return self._order.setdefault(place, len(self._order) + 1)


def _names(url: str) -> Iterator[str]:
    """What a row may call a medium: its whole name, that of its file, and behind the key of its sample the path that a
    folder's lines name it by (lake/inputs/folder_lines.py)."""
    file = posixpath.basename(url)
    yield url
    yield unquote(file.partition(".")[2])
    yield file


def _flat(value: Any) -> Iterator[Any]:
    """Names within lists of any depth, in their order; a stack of its own, as who made the row says how deep it is."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, list | tuple):
            left.extend(reversed(item))
        elif isinstance(item, Mapping):  # {path} without bytes, {url}
            left.append(item.get("path", item.get("url")))
        elif item is not None and item != "":
            yield item


def names_media(messages: Any, modality: Modality) -> bool:
    """Whether a part of a message says which medium it is."""
    if not isinstance(messages, list):
        return False
    contents = [message.get("content") for message in messages if isinstance(message, Mapping)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    media = [part for part in parts if isinstance(part, Mapping) and part.get("type") in modality.parts]
    return any(part.get(key) is not None for part in media for key in modality.parts)


def with_placeholders(messages: Any, album: Album) -> Any:
    """Messages whose parts with media became placeholders in their text; what is no list of messages, as it is. Raises
    BadSample."""
    if not isinstance(messages, list):
        return messages
    return [_message(message, album) for message in messages]


def _message(message: Any, album: Album) -> Any:
    if not isinstance(message, Mapping):
        return message
    changed, types = dict(message), album.modality.parts
    user = message.get("role", message.get("from")) in ("user", "human")
    for key in ("content", "value"):
        content = message.get(key)
        if isinstance(content, list):
            if not user and any(isinstance(part, Mapping) and part.get("type") in types for part in content):
                raise BadSample("not_of_user", str(message.get("role", message.get("from")))[:40])
            changed[key] = [_part(part, album) for part in content]
        elif isinstance(content, str) and user:
            changed[key] = _with_next(content, album)
    return changed


def _with_next(text: str, album: Album) -> str:
    return album.modality.next.sub(lambda match: album.modality.placeholder(album.next()), text)


def _part(part: Any, album: Album) -> Any:
    if isinstance(part, Mapping) and part.get("type") in album.modality.parts:
        return {"type": "text", "text": album.of_part(part)}
    return part


def placed(conversation: Conversation, media: int, modality: Modality) -> Conversation:
    """The conversation with each of so many media in one place. Raises BadSample: placeholders."""
    contents = [Segment(turn.content) for turn in conversation.turns if turn.role == "user"]
    numbers = [item.number for text in contents for item in placeholders(split_at_placeholders(text, modality.kind))]
    if not numbers and media:
        before = "".join(modality.placeholder(number) for number in range(1, media + 1))
        first = next(n for n, turn in enumerate(conversation.turns) if turn.role == "user")
        turns = list(conversation.turns)
        turns[first] = replace(turns[first], content=before + turns[first].content)
        return replace(conversation, turns=tuple(turns))
    if sorted(numbers) != list(range(1, media + 1)):
        raise BadSample("placeholders", f"{' '.join(map(str, numbers[:8])) or 'none'} of {media} {modality.kind}s")
    return conversation


def with_media(parts: Sequence[Segment], *modalities: Modality) -> list[Segment]:
    """The parts of a rendered conversation, with the placeholders in what users say as special tokens."""
    split: list[Segment] = []
    before: Segment | None = None
    for part in parts:
        pieces = [part]
        if before == Segment(USER, special=True) and not part.special:
            for modality in modalities:
                pieces = [piece for each in pieces for piece in _split(each, modality)]
        split += pieces
        before = part
    return split


def _split(part: Segment, modality: Modality) -> list[Segment]:
    return [part] if part.special else split_at_placeholders(part, modality.kind)


def with_several(parts: Sequence[Segment], counts: Sequence[int], modality: Modality) -> list[Segment]:
    """The parts, where medium n became so many of them: its placeholder is one of each, and those behind it are counted
    on."""
    first = list(accumulate(counts, initial=1))
    several: list[Segment] = []
    for part in parts:
        item = placeholder_of(part)
        if item is None or item.kind != modality.kind:
            several.append(part)
        else:
            numbers = range(first[item.number - 1], first[item.number])
            several += [placeholder(modality.kind, number) for number in numbers]
    return several
