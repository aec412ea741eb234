"""What a word is, in all scripts: by example, by Unicode's equivalences, and in the kernel's table."""

from __future__ import annotations

import base64
import hashlib
import random
import unicodedata
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from minhash_texts import ANY_TEXT, sign

from gristmill.filters.signatures import alphabet
from gristmill.filters.signatures.minhash import MinHash, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't  stop—me_now!", ["don", "t", "stop", "me", "now"]),
        ("1,234 items, 56th v2", ["0", "0", "items", "0th", "v0"]),
        ("٣٤ ५६ 1२", ["0", "0", "0"]),
        ("CAFÉ Straße ﬁn İstanbul ΣΑΣ", ["cafe", "strasse", "fin", "istanbul", "σασ"]),
        ("so\u00adft e\u0301\u0302a non\u200djoin", ["soft", "ea", "nonjoin"]),
        ("中文 ab中7字", ["中", "文", "ab", "中", "0", "字"]),
        ("かが カﾊ々", ["か", "か", "カ", "ﾊ", "々"]),
        ("ไทย\u200bลาว", ["ไ", "ท", "ย", "ล", "า", "ว"]),
        ("한국어 ㄱ", [unicodedata.normalize("NFD", "한국어"), "ㄱ"]),
        ("हिन्दी", ["हिनदी"]),
        ("x² Ⅷ ½", ["x²", "ⅷ", "½"]),
        ("😀 ™ \u0301 \u00ad", []),
        ("\u0e50\u0e51ก", ["0", "ก"]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected
    assert sign([text]).n_words.tolist() == [len(expected)]


@settings(max_examples=300)
@given(ANY_TEXT)
def test_normalisation_and_case_change_nothing(text: str) -> None:
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    assert (sign([text]).values == sign(forms).values).all()
    lower = unicodedata.normalize("NFD", forms[1].casefold())
    if "\u0345" not in forms[1]:  # the mark that casefold() makes a letter, and that is a mark here
        assert (sign([text]).values == sign([lower]).values).all()


def test_ascii_and_other_characters_of_the_same_meaning_are_signed_alike(shared_text: str) -> None:
    composed: dict[str, str] = {}
    for point in range(0xC0, 0x2000):
        base = unicodedata.normalize("NFD", chr(point))
        if len(base) > 1 and base[0].isascii() and base[0].isalpha():
            composed.setdefault(base[0], chr(point))
    meanings = {char: composed.get(char, char) for char in map(chr, range(128)) if char.isalpha()}
    meanings |= {str(digit): chr(0x660 + digit) for digit in range(10)}
    meanings |= {char: "—" for char in map(chr, range(128)) if not char.isalnum()}
    assert len(composed) >= 48
    other = shared_text.translate(str.maketrans(meanings))
    within = "\u00ad".join(shared_text)
    signed = sign([shared_text, other, within, shared_text + " \u2014"], MinHash())
    assert len(set(signed.n_words.tolist())) == 1 and signed.n_words[0] > 1000
    assert (signed.values == signed.values[0]).all()


@pytest.fixture(scope="module")
def shared_text() -> str:
    rng = random.Random(2)
    return "".join(chr(rng.choice([rng.randint(0, 127), rng.randint(97, 122), 32])) for _ in range(12_000))


def test_the_table_says_what_meaning_says_of_every_character() -> None:
    table, several = alphabet.alphabet()
    for point in [*range(0xD800), *range(0xE000, 0x30000, 7), *range(0xE0000, 0x110000, 4097)]:
        kind, folded = alphabet.meaning.__wrapped__(chr(point))
        entry = int(table[point])
        value, count = entry & 0x1FFFFF, entry >> alphabet.COUNT_SHIFT
        assert entry >> alphabet.KIND_SHIFT & 7 == kind
        points = several[value : value + count].tolist() if kind == alphabet.SEVERAL else [value] if folded else []
        assert "".join(map(chr, points)) == folded


def test_the_alphabet_is_the_same_under_every_python() -> None:
    table, several = alphabet.alphabet()
    digest = hashlib.sha256(table.tobytes() + several.tobytes()).hexdigest()
    assert digest == "fb7ad1880032de86df7a94fe7f33c3a2a02fceecc9c091052b8139394e66abbb", (
        f"characters mean something else under Unicode {unicodedata.unidata_version}: signatures would not compare"
    )


@pytest.mark.skipif(unicodedata.unidata_version != "14.0.0", reason="the list is Unicode 14's")
def test_the_list_of_assigned_code_points_is_unicode_14() -> None:
    skipped = (*alphabet.IDEOGRAPHS, *alphabet.HANGUL_SYLLABLES)
    given = [unicodedata.category(chr(point)) not in ("Cn", "Co", "Cs") for point in range(0x110000)]
    for first, last in skipped:
        given[first : last + 1] = [False] * (last + 1 - first)
    edges = [0, *np.flatnonzero(np.diff([False, *given])).tolist()]
    runs = b""
    for run in np.diff(edges).tolist():
        while run >= 128:
            runs, run = runs + bytes([run & 127 | 128]), run >> 7
        runs += bytes([run])
    assert zlib.decompress(base64.b85decode(alphabet.ASSIGNED)) == runs
