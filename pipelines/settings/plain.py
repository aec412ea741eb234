"""Foreign text on its way to a terminal: what would move a cursor, turn the reading direction or forge a line is named.

A key of a config, a page, a URL, a server's answer: whoever wrote it must not act on the reader's terminal. Escaped, as
Python and JSON write them: control characters (C0 but line ends and tabs, C1), bidirectional and other format
characters, separators of lines and paragraphs, halves of surrogate pairs, what Unicode has not assigned.
Source: Unicode TR 36, section 3 (bidirectional text spoofing); CVE-2021-42574.
"""

from __future__ import annotations

import json
import logging
import unicodedata
from typing import Any

_JOINERS = "\u200c\u200d"  # join letters of Persian and parts of emoji, and do nothing else


def unsafe(character: str) -> bool:
    """Whether a character could act on a terminal, or hide."""
    return not (character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs")


def plain(text: str) -> str:
    """The text with unsafe characters as \\x1b, \\u202e; line ends and tabs stay."""
    if text.isprintable():
        return text
    return "".join(_named(c) if unsafe(c) and c not in "\n\t" else c for c in text)


def one_line(text: str) -> str:
    """The same, and line ends and tabs as \\n, \\r and \\t."""
    return plain(text).replace("\n", "\\n").replace("\t", "\\t")


def json_line(data: Any, default: Any = None) -> str:
    """A JSON document on one line, readable in any script, in which every unsafe character is a \\u escape."""
    text = json.dumps(data, ensure_ascii=False, default=default)
    if text.isprintable():
        return text
    return "".join(_json_escape(c) if unsafe(c) else c for c in text)


class PlainFormatter(logging.Formatter):
    """Log lines with what they quote made harmless; tracebacks keep their lines."""

    def format(self, record: logging.LogRecord) -> str:
        """The line as the base formats it, with unsafe characters escaped."""
        return plain(super().format(record))


def _named(character: str) -> str:
    """As Python's `repr` and `ascii` write it."""
    return ascii(character)[1:-1]


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
