"""The byte-level alphabet: GPT-2's way to write bytes as letters, in which tokens of many vocabularies are named.

Source: GPT-2's `bytes_to_unicode`; tokenizers 0.23, the decoder ByteLevel.
"""

from __future__ import annotations

from typing import Any


def is_byte_level(decoder: dict[str, Any] | None) -> bool:
    """Whether tokens are bytes in that alphabet, by the `decoder` of a tokenizer.json."""
    steps = decoder["decoders"] if decoder and decoder.get("type") == "Sequence" else [decoder or {}]
    return [step.get("type") for step in steps] == ["ByteLevel"]


def byte_level(token: str) -> bytes:
    """The bytes of a token that is written in the byte-level alphabet; as the library, of any other, its own."""
    try:
        return bytes(_BYTE_OF[letter] for letter in token)
    except KeyError:
        return token.encode()


def _alphabet() -> dict[str, int]:
    """GPT-2's letters for bytes: those that print stand for themselves, the rest for U+0100 and on."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _alphabet()
