"""Settings of the speech pipeline: what cannot work says so, and what is allowed."""

from __future__ import annotations

import pytest

from gristmill.pipelines.settings.config import BadConfig, validate
from gristmill.pipelines.speech import SpeechConfig
from gristmill.stages.speech.prompts import tag


def test_tags_of_languages_are_levelled():
    labels = ["en-US", "eng", "English", "zh_CN", "cmn", "DE", "pt-BR", "ko"]
    assert [tag(label) for label in labels] == ["en", "en", "en", "zh", "zh", "de", "pt", "ko"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("audio.task", "stt", "Input should be 'asr', 'ast', .*found 'stt'"),
        ("audio.same", "audio", "Input should be 'clips_and_text', 'clips' or 'text', found 'audio'"),
        ("audio.language", "ko", "language='ko': one of zh, en, fr, de, it, ja, pt, es, or nothing"),
        ("audio.max_clips", 0, "max_clips=0: at least 1"),
        ("audio.max_seconds", 0, "max_seconds=0.0: more than 0"),
        ("audio.fields.transcript", [], r"fields\.transcript=\[\]: name at least one field"),
        ("transcript.min_score", 2, "allowed: 0 to 1, or null"),
        ("scan.chunk_bytes", 1 << 30, "at most 1073741824, because a worker holds the clips of a chunk in memory"),
        ("survivor", [], r"name at least one measure, such as clip\.min_rate"),
    ],
)
def test_settings_that_cannot_work_say_so(key, value, message):
    *path, last = key.split(".")
    recipe: dict[str, object] = {last: value}
    for name in reversed(path):
        recipe = {name: recipe}
    with pytest.raises(BadConfig, match=message):
        validate(SpeechConfig, {"recipe": recipe})
