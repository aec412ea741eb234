"""The options of a multiple choice, and its answer, as data sets write them.

A list (MMLU), with letters before the options (AQuA), `{text, label}` (ARC), a mapping from letters (GAOKAO), or one
text with all of them (SAT). Letters are taken off, since a prompt writes its own: `A. A) 5` would name an option twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.model.processing.chat.conversation import BadSample
from gristmill.synth.verify.choice import LETTERS

_MARK = re.compile(r"(?:^|\s)\(?([A-J])[).:：]")


def options_of(given: Any, field: str) -> tuple[list[str], list[str]]:
    """The options of a row, and what each is called there. Raises BadSample: no_choices, not_text."""
    labels: Sequence[Any] = LETTERS
    if isinstance(given, Mapping) and "text" in given:
        labels, given = given.get("label") or LETTERS, given["text"]
    elif isinstance(given, Mapping):
        labels, given = list(given), list(given.values())
    elif isinstance(given, str):
        given = _parted(given)
    if not isinstance(given, list) or not 2 <= len(given) <= len(LETTERS) or not isinstance(labels, str | list):
        raise BadSample("no_choices", field)
    if not all(isinstance(option, str) and option.strip() for option in given):
        raise BadSample("not_text", field)
    return _bare(given), [str(label) for label in labels]


def place_of(answer: Any, options: Sequence[str], labels: Sequence[str]) -> int:
    """Which option an answer names: by number from 0, label, letter, or its own text. Raises BadSample: no_field,
    not_text, unknown_choice."""
    if isinstance(answer, int) and not isinstance(answer, bool):
        if 0 <= answer < len(options):
            return answer
        raise BadSample("unknown_choice", f"option {answer} of {len(options)}")
    if not isinstance(answer, str) or not answer.strip():
        raise BadSample("no_field" if answer is None else "not_text", "the answer of a choice")
    text = answer.strip()
    for names in (labels, LETTERS, options):
        if text in names[: len(options)]:
            return list(names).index(text)
    raise BadSample("unknown_choice", text[:80])


def _parted(text: str) -> list[str] | None:
    """The options of `A) one B) two`; None: its marks are not A, B, C and so on in order."""
    marks: list[re.Match[str]] = []
    for match in _MARK.finditer(text):
        if len(marks) < len(LETTERS) and match[1] == LETTERS[len(marks)]:
            marks.append(match)
    if not marks or text[: marks[0].start()].strip():
        return None
    ends = [match.start() for match in marks[1:]] + [len(text)]
    return [text[match.end() : end].strip() for match, end in zip(marks, ends, strict=True)]


def _bare(options: list[str]) -> list[str]:
    """Options without their letters, if every one has its own."""
    marks = [_MARK.match(option) for option in options]
    if not all(mark is not None and mark[1] == letter for mark, letter in zip(marks, LETTERS, strict=False)):
        return options
    bare = [option[mark.end() :].strip() for option, mark in zip(options, marks, strict=True) if mark is not None]
    return bare if all(bare) else options
