"""What users ask of a clip: templates by task and language, which are data (prompts.json).

A request is drawn by the answer, not by where the record lies, among those in the language of the clip and those in
English: equal records stay equal. Whoever changes the file raises the VERSION of `FormSpeech`.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

LANGUAGES = ("zh", "en", "fr", "de", "it", "ja", "pt", "es")
"""Those that the encoder was trained on."""
_FILE = Path(__file__).with_name("prompts.json")
_SHORT = {
    "zho": "zh", "chi": "zh", "cmn": "zh", "eng": "en", "fra": "fr", "fre": "fr", "deu": "de", "ger": "de",
    "ita": "it", "jpn": "ja", "por": "pt", "spa": "es",
    "chinese": "zh", "mandarin": "zh", "english": "en", "french": "fr", "german": "de", "italian": "it",
    "japanese": "ja", "portuguese": "pt", "spanish": "es",
}  # fmt: skip


@lru_cache(maxsize=1)
def _data() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return data


def templates(task: str, language: str | None) -> tuple[str, ...]:
    """Those of a task in this language and in English; none for a task that asks nothing of its own."""
    by_language = _data()["prompts"].get(task, {})
    own = by_language.get(language, []) if language != "en" else []
    return (*own, *by_language.get("en", []))


def asked(task: str, language: str | None, target: str | None, drawn: int) -> str:
    """The request number `drawn`, which may be any whole number. Raises ValueError where there is none."""
    choice = templates(task, language)
    if not choice:
        raise ValueError(f"no prompt for task {task!r}")
    template = choice[drawn % len(choice)]
    if "{target}" not in template:
        return template
    written = next(code for code in (language, "en") if code and template in _data()["prompts"][task].get(code, []))
    return template.replace("{target}", _data()["names"][written].get(target, target or ""))


def tag(language: str) -> str:
    """A label of a language as BCP 47 has its first part, of two letters where there are two: `en-US`, `eng`
    and `English` (Lhotse) are en."""
    first = language.strip().replace("_", "-").partition("-")[0].lower()
    return _SHORT.get(first, first)
