"""Forming: a row with its images becomes a sample, whose text says where each image stands.

Each image is decoded once, within bounds, in the child process that reads: for its size, for how it looks (by which
near duplicates meet), and to know that it can be. Stored are the bytes as they came. A record has one fate: where
several images are bad, that of the first of them. Text and parts are those of a sample of instruction data, so that
whoever reads samples reads these; what filters need of a record stands in small columns beside the media.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.image.look import look
from gristmill.model.processing.chat.conversation import BadSample, Rules, parse, render
from gristmill.model.processing.chat.fields import either
from gristmill.model.processing.image_file import MAX_PIXELS, MOST_PIXELS, ImageError, decode_image
from gristmill.model.processing.segments import Segment
from gristmill.stages.containers import ReadConfig, Record
from gristmill.stages.containers.media import MEDIA, Media, digests
from gristmill.stages.media.fields import first_text, text_of
from gristmill.stages.media.turns import (
    IMAGE,
    Album,
    Modality,
    names_media,
    placed,
    with_media,
    with_placeholders,
    with_several,
)
from gristmill.stages.read.reading import RECORD
from gristmill.stages.text.instruct import PARTS
from gristmill.stages.text.samples import BadMedium, SampleStage, columns_of

DIGESTS = pa.list_(pa.string())
SCHEMA = pa.schema(
    [
        *RECORD,
        ("content", pa.string()),  # 128-bit hash of what makes two records the same
        ("url", pa.string()),
        ("kind", pa.string()),  # chat
        ("text", pa.string()),
        ("parts", PARTS),  # tile the text, in characters
        ("date", pa.string()),
        ("source", pa.string()),
        ("learned", pa.string()),  # what of the text the loss counts
        ("is_caption", pa.bool_()),
        ("heights", pa.list_(pa.int32())),
        ("widths", pa.list_(pa.int32())),
        ("looks", pa.list_(pa.uint64())),  # filters/image/look.py
        ("digests", DIGESTS),  # sha256 of the media, then of the files that they are parts of
        ("bytes", pa.int64()),  # of the text, UTF-8, and of the media
        ("media", MEDIA),
    ],
    metadata={"gristmill.format": "1"},
)
Task = Literal["caption", "pair", "chat"]
TASKS: tuple[Task, ...] = ("caption", "pair", "chat")
Same = Literal["images_and_text", "images"]
SAME: tuple[Same, ...] = ("images_and_text", "images")
FIELDS = ("image", "images", "file", "files", "file_name", "file_names", "frames")


class Taken(NamedTuple):
    """What a record takes of a medium: images as rows of MEDIA, how each looks, and the file that they are parts of."""

    images: tuple[dict[str, Any], ...]
    looks: tuple[int, ...]
    origin: dict[str, Any] | None = None


class Formed(NamedTuple):
    """A sample: its parts, what makes two the same, its media as rows of MEDIA, how they look, the files that they are
    parts of; or the reason why it is none, with the offending value, or in `error` what a decoder said, which quotes
    nothing of a record."""

    parts: tuple[Segment, ...] = ()
    content: str = ""
    media: tuple[dict[str, Any], ...] = ()
    looks: tuple[int, ...] = ()
    origins: tuple[dict[str, Any], ...] = ()
    reason: str | None = None
    value: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class FormImages(SampleStage[Formed]):
    """Outputs `text` (the samples), `screened` (their keys, by content) and fates. `form` says what a row is.

    caption: one of the fields `caption`, the first that is there (of a list its first text), is said of the images
    after `ask`. pair: the fields `prompt` and `response`. chat: `messages` (OpenAI) or `conversations` (LLaVA), whose
    image parts and `<image>` say where images stand. `images`: fields that name them (stages/media/turns.py); where
    there are none, all of a record count, in order: frames of a video are its images. `text_only` keeps records without
    an image. `same`: records with equal images are duplicates if their text is equal too, or whatever it is.
    Bounds of a record: `read.max_record_bytes`, `max_images`, of each image `max_pixels`, and `seconds_per_record`;
    None: no limit of time, and records are judged in this very process (for debuggers).
    """

    name: ClassVar[str] = "image"
    VERSION: ClassVar[int] = 2  # it notes the media of all records
    releases: ClassVar[tuple[str, ...]] = ("pillow",)  # says which image is damaged, and of a JPEG each pixel
    schema: ClassVar[pa.Schema] = SCHEMA
    notes_media: ClassVar[bool] = True
    judgement: ClassVar[type[Formed]] = Formed
    named_by: ClassVar[tuple[str, ...]] = ("id", "url", "digests")

    modality: ClassVar[Modality] = IMAGE

    form: Task = "caption"
    caption: tuple[str, ...] = ("text", "caption", "captions")
    ask: str = ""
    prompt: str = "question"
    response: str = "answer"
    system: str | None = None
    images: tuple[str, ...] = FIELDS
    harmless: tuple[str, ...] = ()
    text_only: bool = False
    same: Same = "images_and_text"
    max_images: int = 64
    max_pixels: int = MAX_PIXELS
    read: ReadConfig = field(default_factory=lambda: ReadConfig(max_record_bytes=100_000_000))
    seconds_per_record: float | None = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in TASKS:
            raise ValueError(f"form={self.form!r}: one of {', '.join(TASKS)}")
        if self.same not in SAME:
            raise ValueError(f"same={self.same!r}: one of {', '.join(SAME)}")
        if not self.caption:
            raise ValueError("caption=[]: name at least one field")
        if self.max_images < 1:
            raise ValueError(f"max_images={self.max_images}: at least 1")
        if not 1 <= self.max_pixels <= MOST_PIXELS:
            raise ValueError(f"max_pixels={self.max_pixels}: from 1 to {MOST_PIXELS}")

    def formed(self, item: Record, row: Mapping[str, Any]) -> Formed:
        """The sample of a row. Raises BadSample for the rule that it breaks, BadMedium."""
        album = Album(item.media, self.modality)
        album.add_fields(row, self.naming)
        turns = either(row, "messages", "conversations") if self.form == "chat" else None
        if not album.named and not names_media(turns, self.modality):
            album.add_all()
        if self.form != "chat":
            turns = self._turns(row, len(album.named))
        messages = with_placeholders(turns, album)
        images = album.named
        if not images and not self.text_only:
            raise BadSample("no_image", f"{len(item.media)} media")
        if len(images) > self.max_images:
            raise BadSample("too_many_images", f"{len(images)}, allowed are {self.max_images}")
        conversation = parse(
            {"messages": messages, "tools": row.get("tools")}, Rules(harmless=frozenset(self.harmless))
        )
        parts = with_media(render(placed(conversation, len(images), self.modality)), self.modality)
        taken = self._taken(images)
        parts = with_several(parts, [len(medium.images) for medium in taken], self.modality)
        media = tuple(image for medium in taken for image in medium.images)
        looks = tuple(look for medium in taken for look in medium.looks)
        origins = tuple(medium.origin for medium in taken if medium.origin is not None)
        return Formed(tuple(parts), self._content(parts, media), media, looks, origins)

    @property
    def naming(self) -> tuple[str, ...]:
        """Fields that name media."""
        return self.images

    def _turns(self, row: Mapping[str, Any], images: int) -> list[dict[str, Any]]:
        """A caption or a pair as turns; a user who says nothing shows the images."""
        if self.form == "caption":
            prompt, response = self.ask, first_text(row, self.caption)
        else:
            prompt, response = text_of(row, self.prompt), text_of(row, self.response)
        if not prompt.strip():
            prompt = "".join(IMAGE.placeholder(number) for number in range(1, images + 1))
        turns = [("user", prompt), ("assistant", response)]
        if self.system is not None:
            turns.insert(0, ("system", self.system))
        return [{"role": role, "content": content} for role, content in turns]

    def _taken(self, media: Sequence[Media]) -> list[Taken]:
        """Of each medium what the record has. Raises BadSample for the first that cannot be had."""
        return [self._image(number, item) for number, item in enumerate(media, 1)]

    def _image(self, number: int, item: Media) -> Taken:
        """An image with its size, and how it looks."""
        if item.kind != "image":
            raise BadSample("not_an_image", f"image {number}: {item.kind}")
        try:
            pixels = decode_image(item.data, self.max_pixels)
        except ImageError as error:
            raise BadMedium(number, error) from None
        height, width = pixels.shape[:2]
        return Taken((item.as_row() | {"height": height, "width": width},), (look(pixels),))

    def _content(self, parts: Sequence[Segment], media: Sequence[Mapping[str, Any]]) -> str:
        """What makes two records the same: their images, and unless the images alone count their text and what of it
        is learned."""
        digests = [item["sha256"] for item in media]
        if self.same == "images" and digests:
            return json.dumps(digests)
        return json.dumps([digests, [tuple(part) for part in parts]], ensure_ascii=False)

    def media_of(self, item: Record, sample: Formed) -> list[str]:
        """Of a sample those that it speaks of, then the files that they are parts of."""
        return digests(item.media) if sample.reason else _digests(sample)

    def columns(self, item: Record, sample: Formed) -> dict[str, Any]:
        """Of a sample: those of SCHEMA that are not of RECORD."""
        columns = columns_of(item, sample.content, "chat", sample.parts)
        return columns | {
            "learned": "\n".join(part.text for part in sample.parts if part.loss_mask and not part.special),
            "is_caption": self.form == "caption",
            "heights": [medium["height"] for medium in sample.media],
            "widths": [medium["width"] for medium in sample.media],
            "looks": list(sample.looks),
            "digests": _digests(sample),
            "bytes": len(columns["text"].encode()) + sum(len(medium["data"]) for medium in sample.media),
            "media": list(sample.media),
        }

    def size(self, samples: pa.Table) -> int:
        """Of their texts, UTF-8, and of their media."""
        return pc.sum(samples["bytes"]).as_py() or 0


def _digests(sample: Formed) -> list[str]:
    return [item["sha256"] for item in (*sample.media, *sample.origins)]
