"""Pieces: where a text may be cut so that no token crosses, for the pre-tokenizers that most models have.

Encoding piece by piece gives the ids of the whole text, and a piece that was met before need not be encoded again.
Sources: the patterns of o200k and cl100k (tiktoken 0.7), of Qwen2, and GPT-2's as the library builds it in.
"""

from __future__ import annotations

import re
from typing import Any

from gristmill.model.processing.tokenizer.tokenizer_file import is_control

WHITESPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
"""Unicode White_Space, which is `\\s` in Rust and in Oniguruma; Python's has U+001C to U+001F as well."""

_LETTERS = (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]")
_REST = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_LETTERS[0]}*{_LETTERS[1]}+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_LETTERS[0]}+{_LETTERS[1]}*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{_REST}"
)
_CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _REST
_QWEN2 = _CL100K.replace("{1,3}", "")

# Where a text may be cut: no alternative of these patterns crosses (a) from a letter or digit to whitespace or to ASCII
# punctuation other than the apostrophe, (b) from anything else to whitespace, line ends apart, (c) from the last line
# end of a run of whitespace to what follows, unless that is a slash. No lookahead sees past a cut, and nothing looks
# back. GPT-2's pattern lets line ends stand with the spaces behind them: for it a run of whitespace starts a piece.
# Letters are those that Unicode has had for long: the library's tables and Python's may differ in age.
_S, _P = re.escape(WHITESPACE), r"!-&(-/:-@\[-`{-~"
_A = "0-9A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02af\u038e-\u03a1\u03a3-\u03f5\u0400-\u0481\u05d0-\u05ea"
_A += "\u0621-\u063a\u0641-\u064a\u0904-\u0939\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"
_WORD = rf"[{_S}]*+[{_P}]*+[^{_S}{_P}]++(?<=[{_A}])"
_LINES = rf"(?:(?>[{_S}]*[\r\n]++)/[^{_S}]*+)*+(?>[{_S}]*[\r\n]++)?+"
_TIKTOKEN_PIECES = re.compile(rf"{_WORD}|[{_S}]*+[^{_S}]++{_LINES}|[{_S}]++")
_GPT2_PIECES = re.compile(rf"{_WORD}|[{_S}]*+[^{_S}]++|[{_S}]++")


def pieces_of(file: dict[str, Any]) -> re.Pattern[str] | None:
    """What cuts a text where no token can cross, if the pre-tokenizer is one that we know and nothing else looks on."""
    pre_tokenizer = file.get("pre_tokenizer") or {}
    if file.get("normalizer") or not all(map(is_control, file.get("added_tokens") or ())):
        return None
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer.get("type") == "Sequence" else [pre_tokenizer]
    last = steps[-1] if steps else {}
    if last.get("type") != "ByteLevel" or last["add_prefix_space"]:
        return None
    if last.get("use_regex", True):
        return _GPT2_PIECES if len(steps) == 1 else None
    split = steps[0] if len(steps) == 2 and steps[0]["type"] == "Split" else {}
    known = split.get("pattern", {}).get("Regex") in (O200K, _CL100K, _QWEN2)
    whole = (split.get("behavior"), split.get("invert")) in {("Isolated", False), ("Removed", True)}
    return _TIKTOKEN_PIECES if known and whole else None


def loses_nothing(file: dict[str, Any]) -> bool:
    """Whether every byte of a text is in the text of some token: nothing is normalized away, unknown or split off."""
    vocab = file["model"].get("vocab")
    if not isinstance(vocab, dict) or file["model"].get("type") != "BPE":
        return False
    if pieces_of(file) is not None:
        return sum(len(name) == 1 for name in vocab) >= 256  # the whole alphabet of bytes
    # Else as Llama's: spaces are marked, nothing is changed, and what has no token falls back to bytes.
    steps = _steps(file.get("normalizer"), "normalizers") + _steps(file.get("pre_tokenizer"), "pretokenizers")
    fallback = file["model"].get("byte_fallback") and all(f"<0x{byte:02X}>" in vocab for byte in range(256))
    return bool(fallback) and all(map(_only_marks_spaces, steps))


def _steps(part: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    if not part:
        return []
    return part[name] if part["type"] == "Sequence" else [part]


def _only_marks_spaces(step: dict[str, Any]) -> bool:
    if step["type"] == "Replace":
        return step["pattern"] == {"String": " "} and step["content"] == "\u2581"
    return step["type"] in ("Prepend", "Metaspace")
