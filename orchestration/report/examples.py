"""Records to look at: what was kept, what went and for which value, what windows hold, with pictures and clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from gristmill.filters.edits.pii import personal, replaced
from gristmill.lake.query.sampling import MEDIA, SampledRecord
from gristmill.orchestration.report.html import Content, Html, element, foreign, joined
from gristmill.orchestration.report.media import Room, clip_figure, image_figure, mel_figure, picture
from gristmill.orchestration.report.pieces import NOTHING, facts, figure, folded, name, section, side_by_side
from gristmill.orchestration.report.subject import Subject, Windows
from gristmill.orchestration.show.records import PARTS, pieces_of, where
from gristmill.orchestration.show.sheet import laid_out

CUT = 500
"""Characters of a text."""
MEDIA_EACH = 3
"""Images and clips of a record."""
UNFOLDED = 3
"""Reasons whose examples are seen at once."""
CHAINS = 3
"""Samples of a problem."""
_BESIDE = frozenset({PARTS, MEDIA, "stage", "survivor", "content", "input", "digests", "looks", "heights", "widths"})
_VERDICTS = {"accepted": "good", "rejected": "bad"}


def kept(subject: Subject, room: Room) -> Html:
    """A few records as they were kept."""
    if subject.kept is None or subject.manifest.form == "verdicts":  # whose answers have a table
        return NOTHING
    drawn = [_record(record, "kept", room, subject.manifest.layout.children) for record in subject.kept.samples]
    notes = f"{len(drawn)} of {subject.kept.population:,} records, drawn by the version's digest."
    return section("Examples of what was kept", side_by_side(drawn, "examples"), note=notes)


def refused(subject: Subject, room: Room) -> Html:
    """Records that went, by reason, with the value that decided. Reports are passed on, and what went was never to be
    shipped: personal data in it is shown as placeholders, whether or not the recipe has such an edit."""
    groups = list[Html]()
    for reason, records in subject.refused.items():
        drawn = side_by_side([_record(record, record.fate, room, masked=True) for record in records], "examples")
        groups.append(folded(name(reason), drawn, open_=len(groups) < UNFOLDED))
    notes = "Of the most frequent reasons, with the value that decided. Texts stay in the lake for a while only."
    return section("Examples of what went", *groups, note=notes)


def _record(record: SampledRecord, fate: str, room: Room, children: str | None = None, masked: bool = False) -> Html:
    """`children`: the column with the samples of a problem, as the version's form names it. `masked`: with placeholders
    for personal data."""
    about: dict[str, Content] = {}
    if record.value is not None:
        about["value"] = element("strong", name(record.value))
    if (survivor := record.fields.get("survivor")) is not None:
        about["same as"] = element("code", str(survivor))
    for key, value in record.fields.items():
        if key not in _BESIDE and key != children and value not in (None, "", []):
            about[key.replace("_", " ")] = name(f"{value:.4g}" if isinstance(value, float) else str(value))
    if record.place is not None:
        about["from"] = name(where(record.place))
    head = element("h4", element("code", record.id or "no id"))
    body = _text(record, masked)
    media = _media(record.fields.get(MEDIA) or (), record.id or "a record", room)
    family = _family(record.fields.get(children) or ()) if children is not None else NOTHING
    return element("div", head, facts(about), body, media, family, class_=f"example {fate}")


def _text(record: SampledRecord, masked: bool) -> Html:
    if record.text is None:
        return element("p", f"No text: {record.why_no_text}.", class_="dim")
    parts = [(text, learned) for text, learned in pieces_of(record)]
    if masked:
        parts = [(replaced(text, personal(text)), learned) for text, learned in parts]
    return pieces(parts)


def pieces(parts: Sequence[tuple[str, bool | None]], most: int = CUT) -> Html:
    """Pieces of a text, of which those that are learned are marked, cut after `most` characters."""
    drawn, left, whole = [], most, sum(len(text) for text, _ in parts)
    for learned, group in groupby(parts, key=lambda piece: piece[1]):
        text = "".join(piece for piece, _ in group)[:left]
        left -= len(text)
        if text:
            drawn.append(element("mark" if learned else "bdi", text, class_="learned" if learned else None))
    if whole > most:
        drawn.append(element("span", f"… ({whole:,} characters)", class_="dim"))
    return element("pre", *drawn)


def _family(samples: Sequence[Mapping[str, Any]]) -> Html:
    """Samples of a problem, each with its verdict."""
    lines = []
    for sample in samples[:CHAINS]:
        verdict = element("span", sample["verdict"], class_=_VERDICTS.get(sample["verdict"]))
        because = f" by {sample['reason']}" if sample["reason"] else ""
        text = foreign(sample["text"], CUT) if sample["text"] else Html("no text: the engine gave none")
        lines.append(element("div", element("p", "Sample: ", verdict, because), element("pre", text)))
    if len(samples) > CHAINS:
        lines.append(element("p", f"and {len(samples) - CHAINS:,} more samples", class_="dim"))
    return joined(lines)


def _media(media: Sequence[Mapping[str, Any]], of: str, room: Room) -> Html:
    figures = []
    for number, item in enumerate(media[:MEDIA_EACH], 1):
        data, called = item.get("data"), name(item.get("url") or f"{item['kind']} {number}")
        if not data:
            continue
        if item["kind"] == "image":
            size = f", {item['height']} x {item['width']} pixels (height x width)" if item.get("height") else ""
            about = joined([called, size])
            figures.append(image_figure(room, data, f"Image {number} of record {of}", about))
        elif item["kind"] == "audio":
            figures.append(clip_figure(room, data, f"clip {number} of record {of}", called))
    if len(media) > MEDIA_EACH:
        figures.append(element("p", f"and {len(media) - MEDIA_EACH:,} more", class_="dim"))
    return side_by_side(figures, "media")


def windows(subject: Subject, room: Room) -> Html:
    """Records as a mixture's windows hold them, by source, with images as crops and clips as frames."""
    if subject.windows is None or not subject.windows.drawn.stretches:
        return NOTHING
    drawn = [_stretch(subject.windows, number, room) for number in range(len(subject.windows.drawn.stretches))]
    notes = "A few records of each source as a model is shown them; what is marked is learned."
    return section("What a model sees", side_by_side(drawn, "examples"), note=notes)


def _stretch(shown: Windows, number: int, room: Room) -> Html:
    stretch, media = shown.drawn.stretches[number], shown.media[number]
    figures = []
    for image, about in list(zip(media.images, stretch.images, strict=True))[:MEDIA_EACH]:
        size = f"{about.height:,} x {about.width:,} pixels"
        tiled = f"{about.crops:,} crops with the global view at the right, {about.tokens:,} tokens"
        alt = f"Crops of an image of record {stretch.id}"
        figures.append(figure(f"{size}: {tiled}", picture(room, laid_out(image), alt)))
    for mel, clip in list(zip(media.mels, stretch.clips, strict=True))[:MEDIA_EACH]:
        length = f"{clip.samples / clip.rate:.1f} s at {clip.rate:,} Hz, {clip.frames:,} frames, {clip.tokens:,} tokens"
        figures.append(mel_figure(room, mel, f"a clip of record {stretch.id}", length))
    place = f"epoch {stretch.epoch}, tokens {stretch.start:,} to {stretch.start + stretch.tokens:,}"
    origin = facts({"source": name(stretch.source), "window": joined([name(stretch.window), ", ", place])})
    head = element("h4", element("code", stretch.id))
    return element("div", head, origin, pieces(stretch.pieces), side_by_side(figures, "media"), class_="example kept")
