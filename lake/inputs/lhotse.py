"""What Lhotse's manifests say, as rows: supervisions with the file of their recording, and cuts.

A cut of one recording is a row: the file, from which second to which, and what its supervisions say, as they begin. A
supervision that begins before its cut or ends behind it says more than is heard in it, so such a cut has no text.
Cuts that are put together of several (`MixedCut`), padding, what lies elsewhere than in one file (a command, a URL,
features alone) and what is not as it lies there (a recording that is played faster) name no file, so that they have a
fate without a clip.
Source: Lhotse 1.30, `RecordingSet`, `SupervisionSet`, `MonoCut` and `MultiCut` as they are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gristmill.lake.inputs.folder_lines import LONGEST

CUTS = ("MonoCut", "MultiCut", "MixedCut", "PaddingCut")
_OWN = ("id", "start", "duration", "channel")
_ALIKE = ("Resample",)
"""Transforms of a recording after which it is what its file has, at the same times."""
_OVERHANG = 0.1
"""Seconds that a supervision may reach beyond its cut: times are rounded."""
_MOST = 1e9
"""Seconds: 31 years."""


def is_cut(row: Mapping[str, Any]) -> bool:
    """Whether a line is one of a manifest of cuts."""
    return row.get("type") in CUTS


def source_of(recording: Mapping[str, Any]) -> tuple[str, str] | None:
    """(id, file) of a recording that lies in one file, and is what it has."""
    transforms = recording.get("transforms") or []
    if not isinstance(transforms, list) or not all(
        isinstance(each, dict) and each.get("name") in _ALIKE for each in transforms
    ):
        return None
    match recording:
        case {"id": str(key), "sources": [{"type": "file", "source": str(path)}]} if len(path) <= LONGEST:
            return key, path
    return None


def row_of_supervision(supervision: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    """A supervision, with its file, if it has one. `files`: by the id of a recording."""
    recording = supervision.get("recording_id")
    audio = files.get(recording) if isinstance(recording, str) else None
    return {**supervision} if audio is None else {**supervision, "audio": audio}


def row_of_cut(cut: Mapping[str, Any]) -> dict[str, Any] | None:
    """A cut as a row; None for one that is not of one recording."""
    if cut.get("type") not in ("MonoCut", "MultiCut"):
        return None
    supervisions = cut.get("supervisions") or []
    if not isinstance(supervisions, list) or not all(isinstance(each, dict) for each in supervisions):
        return None
    row = {name: cut[name] for name in _OWN if name in cut}
    recording = cut.get("recording")
    source = source_of(recording) if isinstance(recording, dict) else None
    with_text = [each for each in supervisions if isinstance(each.get("text"), str) and each["text"].strip()]
    if not all(_within(each, cut) for each in with_text):
        with_text = []
    texts = [each["text"] for each in sorted(with_text, key=_begin)]
    languages = {each["language"] for each in supervisions if isinstance(each.get("language"), str)}
    row |= {} if source is None else {"audio": source[1]}
    row |= {"text": " ".join(texts)} if texts else {}
    return row | ({"language": languages.pop()} if len(languages) == 1 else {})


def _begin(supervision: Mapping[str, Any]) -> float:
    """Seconds from the beginning of its cut; of one without a time, 0."""
    return _seconds(supervision.get("start")) or 0.0


def _within(supervision: Mapping[str, Any], cut: Mapping[str, Any]) -> bool:
    """Whether a supervision lies in its cut, as far as both have times."""
    own, whole = _seconds(supervision.get("duration")), _seconds(cut.get("duration"))
    end = None if own is None else _begin(supervision) + own
    return _begin(supervision) >= -_OVERHANG and (end is None or whole is None or end <= whole + _OVERHANG)


def _seconds(value: Any) -> float | None:
    """Of a number of seconds; None of anything else, and of what no recording has."""
    # Comparing is exact for whole numbers of any length, and false for NaN.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) <= _MOST else None
