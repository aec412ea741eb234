"""Forming: a row with its clips becomes a sample, whose text says where each clip stands.

Each clip is decoded once, within bounds, in the child process that reads: for its length, its levels and how it sounds
(by which near duplicates meet), and to know that it can be. Stored are the bytes as they came; of a row that speaks of
a part of a file (a segment of a manifest) that part is, as FLAC, with the digest of the file that it is of. A record
has one fate: where several clips are bad, that of the first of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.audio.pauses import Cut
from gristmill.model.processing.audio_file import AudioError
from gristmill.model.processing.chat.conversation import (
    BadSample,
    Conversation,
    Rules,
    parse,
    prompt,
    read_turns,
    render,
)
from gristmill.model.processing.chat.fields import either
from gristmill.model.processing.segments import Segment
from gristmill.stages.containers import Item, OpenAt, ReadConfig, Record
from gristmill.stages.containers.media import MEDIA, Media, digests
from gristmill.stages.core.work import added
from gristmill.stages.media.turns import AUDIO, IMAGE, Album, names_media, placed, with_media, with_placeholders
from gristmill.stages.media.write import groups_of
from gristmill.stages.read.reading import RECORD
from gristmill.stages.speech.clips import Clip, Files, check_channel, check_read, clip_of, part_of
from gristmill.stages.speech.cut import CutFiles, read_segments
from gristmill.stages.speech.pictures import Picture, album_of, pictures_of
from gristmill.stages.speech.prompts import LANGUAGES
from gristmill.stages.speech.speak import SPOKEN_TASKS, Speak
from gristmill.stages.speech.tasks import TASKS, Defaults, Fields, Said, Task, language_of, learned_of, turns, words_of
from gristmill.stages.text.instruct import PARTS
from gristmill.stages.text.samples import BadMedium, SampleStage, columns_of

ORIGINS = pa.list_(
    pa.struct([("sha256", pa.string()), ("url", pa.string()), ("start", pa.float64()), ("end", pa.float64())])
)
"""Of each clip that is a part of a file: of which, and from which second to which. Else it is not named."""
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
        ("task", pa.string()),
        ("language", pa.string()),  # in which the clips are, a tag of prompts.py; null: unknown
        ("learned", pa.string()),  # what of the text the loss counts; of ast_cot the translation
        ("learned_language", pa.string()),  # of a transcript or a translation
        ("spoken", pa.string()),  # what is said in the clips; null: unknown
        ("samples", pa.list_(pa.int64())),  # of a channel of each clip
        ("rates", pa.list_(pa.int32())),  # Hz
        ("depths", pa.list_(pa.int32())),  # bits a sample; 0 of a lossy encoding
        ("peaks", pa.list_(pa.float32())),  # filters/audio/levels.py
        ("silent", pa.list_(pa.float32())),
        ("clipped", pa.list_(pa.float32())),
        ("looks", pa.list_(pa.uint64())),  # of images (filters/image/look.py), then of clips (filters/audio/sound.py)
        ("digests", pa.list_(pa.string())),  # sha256 of the media, then of the files that they are parts of
        ("bytes", pa.int64()),  # of the text, UTF-8, and of the media
        ("media", MEDIA),
        ("origins", ORIGINS),
        ("parent", pa.string()),  # of spoken text: the id of the row that it is of
    ],
    metadata={"gristmill.format": "1"},
)
Same = Literal["clips_and_text", "clips", "text"]
SAME: tuple[Same, ...] = ("clips_and_text", "clips", "text")
_files = Files()
"""What this process decodes parts of: segments of a file follow each other, and a long file is decoded once for all."""


class Formed(NamedTuple):
    """A sample: its parts, what makes two the same, its clips and images, what the row says of them, the id of the text
    that it was spoken from; or the reason why it is none, with the offending value, or in `error` what a decoder said,
    which quotes nothing of a record."""

    parts: tuple[Segment, ...] = ()
    content: str = ""
    clips: tuple[Clip, ...] = ()
    pictures: tuple[Picture, ...] = ()
    words: Said | None = None
    parent: str | None = None
    reason: str | None = None
    value: str | None = None
    error: str | None = None

    @property
    def media(self) -> list[Picture | Clip]:
        """In the order in which they are stored."""
        return [*self.pictures, *self.clips]


@dataclass(frozen=True)
class FormSpeech(SampleStage[Formed]):
    """Outputs `text` (the samples), `screened` (their keys, by content) and fates.

    `task`: what a row is a sample of, and `fields` what its fields are called (stages/speech/tasks.py); `language` and
    `target` of rows that do not say; `prompts`: instead of the templates of the task. Clips are named as images are
    (stages/media/turns.py); where nothing names any, all of a record count. A row with a start (and an end or a
    duration, in seconds) speaks of that part of its one file; one with a `channel`, a number or a list of such, is
    refused where its file has others too. `max_images`: of a record, beside its clips; None: an image is no clip, and
    its record is refused. `speak`: how what users say in a record without a clip is spoken (stages/speech/speak.py).
    `cut`: how files of which nothing is said are cut in their pauses, before they are read (stages/speech/cut.py);
    None: they stay whole. `same`: records are duplicates where clips and text are equal, or clips alone, or the text
    alone. `text_only` keeps records without a clip. Bounds of a record: `read.max_record_bytes`, `max_clips`, of each
    clip `max_seconds`, and `seconds_per_record`; None: no limit, and records are judged in this process (debuggers).
    """

    name: ClassVar[str] = "audio"
    VERSION: ClassVar[int] = 6  # row groups bounded in bytes; how a clip sounds is told around its loud centre
    releases: ClassVar[tuple[str, ...]] = ("pillow", "soundfile")  # they say what is damaged
    schema: ClassVar[pa.Schema] = SCHEMA
    judgement: ClassVar[type[Formed]] = Formed
    named_by: ClassVar[tuple[str, ...]] = ("id", "url", "digests")
    notes_media: ClassVar[bool] = True

    task: Task = "asr"
    fields: Fields = field(default_factory=Fields)
    language: str = ""
    target: str = ""
    prompts: tuple[str, ...] = ()
    system: str | None = None
    harmless: tuple[str, ...] = ()
    text_only: bool = False
    cut: Cut | None = None
    same: Same = "clips_and_text"
    max_clips: int = 16
    max_seconds: float = 7200.0
    read: ReadConfig = field(default_factory=lambda: ReadConfig(max_record_bytes=400_000_000))
    seconds_per_record: float | None = 300.0
    max_images: int | None = added()
    speak: Speak | None = added()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task not in TASKS:
            raise ValueError(f"task={self.task!r}: one of {', '.join(TASKS)}")
        if self.same not in SAME:
            raise ValueError(f"same={self.same!r}: one of {', '.join(SAME)}")
        for name, label in (("language", self.language), ("target", self.target)):
            if label and label not in LANGUAGES:
                raise ValueError(f"{name}={label!r}: one of {', '.join(LANGUAGES)}, or nothing")
        if self.cut is not None and self.task != "unlabelled":
            raise ValueError(
                f"cut with task={self.task!r}: what is said of a file is not said of its segments. Cut it as task"
                " unlabelled, or name its parts in a manifest"
            )
        if self.cut is not None and not (self.fields.start and self.fields.end):
            raise ValueError("cut: fields.start and fields.end name no field, by which a segment knows where it is")
        if self.max_clips < 1:
            raise ValueError(f"max_clips={self.max_clips}: at least 1")
        if self.max_images is not None and self.max_images < 1:
            raise ValueError(f"max_images={self.max_images}: at least 1, or null")
        if self.speak is not None and self.task not in SPOKEN_TASKS:
            raise ValueError(f"speak with task={self.task!r}: spoken are {' and '.join(SPOKEN_TASKS)}")
        if not 0 < self.max_seconds <= 86_400:
            raise ValueError(f"max_seconds={self.max_seconds}: more than 0, at most a day (86400)")

    @property
    def cutting(self) -> CutFiles | None:
        """The stage that says where files are cut, before they are read."""
        cut = self.cut
        return None if cut is None else CutFiles(cut, self.fields.start, self.read, self.seconds_per_record)

    def items(self, open_at: OpenAt, spans: pa.Table, kind: str) -> Iterator[Item]:
        """Whole rows, with their media; one a segment, where files were cut."""
        if self.cut is None:
            return super().items(open_at, spans, kind)
        return read_segments(open_at, spans, kind, self.read, (self.fields.start[0], self.fields.end[0]))

    def formed(self, item: Record, row: Mapping[str, Any]) -> Formed:
        """The sample of a row. Raises BadSample for the rule that it breaks, BadMedium."""
        if self.speak is None or item.media:
            return self._formed(item, row)
        language = language_of(row, self.fields.language, self.language)
        aloud = self.speak.aloud(row, self.task, self.fields.question, language)
        formed = self._formed(item._replace(media=aloud.clips), aloud.row)
        assert formed.words is not None
        return formed._replace(words=formed.words._replace(spoken=aloud.spoken), parent=item.id)

    def _formed(self, item: Record, row: Mapping[str, Any]) -> Formed:
        check_read(row, self.read.id)
        album = Album([each for each in item.media if self.max_images is None or each.kind != IMAGE.kind], AUDIO)
        album.add_fields(row, self.fields.audio)
        messages = either(row, "messages", "conversations") if self.task == "chat" else None
        if not album.named and not names_media(messages, AUDIO):
            album.add_all()
        if self.task == "chat":  # whose number of clips is known when its parts were looked at
            words = Said("", "", None, language_of(row, self.fields.language, self.language), None)
            messages = with_placeholders(messages, album)
        else:
            self._check_number(album.named, len(item.media))
            words = words_of(row, self.task, self.fields, Defaults(self.language, self.target, self.prompts))
            messages = turns(words, len(album.named), self.system)
        self._check_number(album.named, len(item.media))
        shown = Album((), IMAGE)
        if self.max_images is not None:
            shown = album_of(item.media, row, messages)
            messages = with_placeholders(messages, shown)
        given = {"messages": messages, "tools": row.get("tools")}
        parts = with_media(self._rendered(given, len(album.named), len(shown.named)), AUDIO, IMAGE)
        pictures = pictures_of(shown.named, self.max_images or 0)
        clips = self._clips(album.named, row)
        return Formed(tuple(parts), self._content(parts, [*pictures, *clips]), clips, pictures, words)

    def _rendered(self, given: Mapping[str, Any], clips: int, images: int) -> list[Segment]:
        """A conversation to learn from, or a request alone. Raises BadSample."""
        rules = Rules(harmless=frozenset(self.harmless))
        conversation = Conversation(read_turns(given, rules)) if self.task == "unlabelled" else parse(given, rules)
        conversation = placed(placed(conversation, clips, AUDIO), images, IMAGE)
        return prompt(conversation) if self.task == "unlabelled" else render(conversation)

    def _check_number(self, clips: Sequence[Media], media: int) -> None:
        if not clips and not self.text_only:
            raise BadSample("no_clip", f"{media} media")
        if len(clips) > self.max_clips:
            raise BadSample("too_many_clips", f"{len(clips)}, allowed are {self.max_clips}")

    def _clips(self, media: Sequence[Media], row: Mapping[str, Any]) -> tuple[Clip, ...]:
        """Decoded, and cut where the row speaks of a part. Raises BadSample for the first that cannot be had."""
        part = part_of(row, self.fields.start, self.fields.end, self.fields.duration)
        if part is not None and len(media) != 1:
            raise BadSample("segment", f"of {len(media)} clips: a part is one of one file")
        clips = []
        for number, item in enumerate(media, 1):
            if item.kind not in ("audio", "video"):  # a container of films may hold a sound track alone
                raise BadSample("not_audio", f"clip {number}: {item.kind}")
            try:
                check_channel(row, item)
                clips.append(clip_of(item, part, self.max_seconds, _files))
            except AudioError as error:
                raise BadMedium(number, error) from None
        return tuple(clips)

    def _content(self, parts: Sequence[Segment], media: Sequence[Picture | Clip]) -> str:
        """What makes two records the same: their media, their text and what of it is learned, or one of these."""
        digests = [item.medium["sha256"] for item in media]
        text = [tuple(part) for part in parts]
        if self.same == "clips" and digests:
            return json.dumps(digests)
        return json.dumps([[] if self.same == "text" else digests, text], ensure_ascii=False)

    def columns(self, item: Record, sample: Formed) -> dict[str, Any]:
        """Of a sample: those of SCHEMA that are not of RECORD."""
        clips, words = sample.clips, sample.words
        media = [item.medium for item in sample.media]
        assert words is not None
        columns = columns_of(item, sample.content, "chat", sample.parts)
        return columns | {
            "task": self.task,
            "language": words.language,
            "learned": learned_of(sample.parts, self.task),
            "learned_language": words.learned,
            "spoken": words.spoken,
            "samples": [clip.medium["samples"] for clip in clips],
            "rates": [clip.medium["rate"] for clip in clips],
            "depths": [clip.depth for clip in clips],
            "peaks": [clip.levels.peak for clip in clips],
            "silent": [clip.levels.silent for clip in clips],
            "clipped": [clip.levels.clipped for clip in clips],
            "looks": [item.look for item in sample.media],
            "digests": _digests(sample),
            "bytes": len(columns["text"].encode()) + sum(len(medium["data"]) for medium in media),
            "media": media,
            "parent": sample.parent,
            "origins": [clip.origin for clip in clips if clip.origin is not None],
        }

    def media_of(self, item: Record, sample: Formed) -> list[str]:
        """Of a sample its images and clips, then the files that these are parts of."""
        return digests(item.media) if sample.reason else _digests(sample)

    def groups(self, samples: pa.Table) -> Iterable[pa.Table]:
        """Bounded in bytes of media: an hour of segments is never written or read at once."""
        return groups_of(samples) if samples.num_rows else (samples,)

    def size(self, samples: pa.Table) -> int:
        """Of their texts, UTF-8, and of their media."""
        return pc.sum(samples["bytes"]).as_py() or 0


def _digests(sample: Formed) -> list[str]:
    origins = [clip.origin["sha256"] for clip in sample.clips if clip.origin is not None]
    return [item.medium["sha256"] for item in sample.media] + origins
