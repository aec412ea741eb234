"""What a character is to a word, for MinHash: it folds to a letter or digit, is a word of its own, or ends a word.

Folding drops case, accents and other marks, so that texts that are equal in Unicode's sense (NFC, NFD) or but for
case have the same words. Each run of digits is one "0", as after datatrove's default normalisation. Scripts that put
no space between words have a word a character. A signature must not depend on the interpreter, so code points that
Unicode 14 (Python 3.11's) did not assign end a word under every later version too.
"""

from __future__ import annotations

import unicodedata
import zlib
from base64 import b85decode
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

BREAK, LETTER, DIGIT, ALONE, NOTHING, SEVERAL = range(6)  # kinds, the same in filters/signatures/kernels.py
KIND_SHIFT, COUNT_SHIFT = 21, 24

# Ideographs: all of a range, assigned or not; too many to look at one by one. Compatibility ideographs fold to them.
IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0x20000, 0x2F7FF), (0x2FA20, 0x3FFFD))
HANGUL_SYLLABLES = ((0xAC00, 0xD7A3),)
HANGUL_LETTERS = ((0x3130, 0x318F),)  # amid the unspaced, but Korean has spaces
UNSPACED = (  # and ideographs
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x3000, 0x31FF),  # Hiragana, Katakana, Bopomofo, ideographic marks and numerals
    (0xA000, 0xA4CF),  # Yi
    (0xA9E0, 0xA9FF),  # Myanmar
    (0xAA60, 0xAADF),  # Myanmar, Tai Viet
    (0xF900, 0xFAFF),  # compatibility ideographs
    (0xFF66, 0xFF9F),  # halfwidth Katakana
    (0x17000, 0x18D7F),  # Tangut, Khitan
    (0x1AFF0, 0x1B2FF),  # Kana, Nushu
    (0x2F800, 0x2FA1F),  # compatibility ideographs
)
ZERO_WIDTH_SPACE = "\u200b"  # ends a word, where format characters such as the soft hyphen are nothing

# The other code points that Unicode 14 assigned: lengths of runs, in turn not assigned and assigned, as LEB128
# numbers, deflated. tests/filters/test_minhash.py makes them anew.
ASSIGNED = (
    b"c-mD|O>9(E6!ts!+~4=+y-qvrOlLYXE$I)m)7DaGOIuA5s3l^fLBU2tNTibJ!cBKZLJW}wKZ((3f{~5HrMd#TkPxD>(1i;mE-=BkaAS-"
    b"sQ+J*_4MyLa`+M&B&bi-w=RLM%$gl-a!X<@a+D!_xuEr+0OjxA#Y=NdIM;`%+Zi3A3fFq(Fh?8RSGG_-SXzCST!`n8BuQ+L0D+SAdEd~V-"
    b"g>Ad0Aag~?nNn+I{s=ePBCfKkjoTRrMnG5&1Ed5{rL5zQ7?5@Af_RtFK@puTMO0!6wx_)xBHp&ekoW{pA$m+B=G#G489P-"
    b")asyd8W+aL;fmAxr^`RJ3qauBowDg7oasLVic?5&VQ5gEReS-du*pW)6UD5{rUFFy({Q>G%RdY;I_(ZEU+v6*~l*TkDJwd?)Q#EULOfQEfQcf9al"
    b"yuVKs!7z7v>$a!<V;4*sb|$BHr%4h)uJ7v#Et0>Sx|?iIcz^o+AEo5WY9&C^L3<DLqQGX1NlYpN4huZ{ve}%{7ibho&21otl};H|DM@V#aenF)s&"
    b"ZTj85w@oWKj|Bp#~U(@STs;gVOg{sEP4!hI(!M<OZ<DwsL9>{7FlG}I~*9>A>6gtpU_z94!d(+;%AXDD1hUgoKDPyIpk`mjy4t|D?A)$?}8SBhpV"
    b"`bW()y1=Y)Ubb-ys*NEk5R{-PMOEygBg%HXr4^5>m*lFLoOlOyHI?`Apl|3g-"
    b"M|oMqgNqZ5Aq=IbbFFiNQ!bxw#NfE$oB+SF&KqEBvL_3)CMYJ#rel2gdR{ejios*(Qa8e`Sa?eI9P9&`bRkRGpbHCUA3Ir=MK+K7pCom3!hO_02R"
    b"^dPB+?99qucY{i-"
    b"B&P;}U9gV~EtH{wsClysuCzbzTbCou~;82)cjAjG1GlGj#*sxROb=*EgfzzhxVIFtla=$bcSrbaoJH?er?XzGMYC(aG2#?*&pM-"
    b"!CPR@~9T;qy`y<H$l?^-F~8aE#GXk$mrhF)|KGGd5hO-Wx!^yYR7n?M>+9YkXgNweW?5zuUaan+G=8HWB!F1k)fBmP3$yyLH!>`sMX!c%LmU>4dV"
    b"aNq66m`ri(5`!=7_xGJ){sLpl1p$p2}K<>fd1eN{9;$H|ObO+tbS5Qii``+_-5l_d@N&MI#6^1PKOG!By`-Cl#jA-"
    b"E=(KVu5I@id5aLr%DSfn;_KVn>o{+Mo4vpBEuQ1r)9G57}5vFiwn={<As$P;&DyB0+zzaaBi?%M-mp|<xQJ#iJU!tDbAMXe-"
    b"};vTw8Ek2dzQuaB9!snQ)7h3G4zRVT;WOaussEu^ZN{Qzw&k5B#T|>likJ5~^(#ra}O0)^VIA{I)!0b?XcS~L6UoW)KIC&O-;vbSwh4B"
)


class Alphabet(NamedTuple):
    """Meanings by code point.

    An entry is a folded code point, with its kind from bit 21. Of SEVERAL letters it holds their place in `several`
    instead, and their number from bit 24.
    """

    entries: np.ndarray  # uint32 [0x110000]
    several: np.ndarray  # uint32: folded code points


@lru_cache(maxsize=1 << 12)
def meaning(char: str) -> tuple[int, str]:
    """(kind, folded characters) of a character; no characters for BREAK and NOTHING, "0" for DIGIT."""
    point = ord(char)
    if _is_ideograph(point):
        return ALONE, char
    if not (point in _assigned() or _within(point, HANGUL_SYLLABLES)):
        return BREAK, ""
    bases = [base for base in unicodedata.normalize("NFD", char) if not _is_mark(base)]
    kinds = {_kind(base) for base in bases}
    if not kinds:
        return NOTHING, ""
    if len(kinds) > 1:
        raise AssertionError(f"alphabet: U+{point:04X} decomposes into characters of different kinds")
    kind = kinds.pop()
    if kind in (BREAK, NOTHING):
        return kind, ""
    if kind == DIGIT:
        return kind, "0"
    small = "".join(unicodedata.normalize("NFD", base.casefold()) for base in bases)
    folded = "".join(char for char in small if not _is_mark(char))
    return (kind, folded) if len(folded) == 1 else (SEVERAL, folded)


@lru_cache(maxsize=1)
def alphabet() -> Alphabet:
    """The meanings of all characters; takes some 0.2 seconds, once a process."""
    table = np.zeros(0x110000, dtype=np.uint32)  # all BREAK
    for first, last in IDEOGRAPHS:
        table[first : last + 1] = np.arange(first, last + 1, dtype=np.uint32) | (ALONE << KIND_SHIFT)
    several: list[int] = []
    for point in _looked_at():
        kind, folded = meaning.__wrapped__(chr(point))
        value = ord(folded) if len(folded) == 1 else 0
        if kind == SEVERAL:
            value = len(several) | len(folded) << COUNT_SHIFT
            several += map(ord, folded)
        table[point] = value | kind << KIND_SHIFT
    return Alphabet(table, np.array(several, dtype=np.uint32))


def _looked_at() -> Iterator[int]:
    for point in _assigned():
        # Most of the rest, and all that end a word and decompose into nothing else.
        if unicodedata.category(chr(point))[0] not in "SPZ":
            yield point
    for first, last in HANGUL_SYLLABLES:
        yield from range(first, last + 1)


@lru_cache(maxsize=1)
def _assigned() -> frozenset[int]:
    points: list[int] = []
    at = run = shift = 0
    given = False
    for byte in zlib.decompress(b85decode(ASSIGNED)):
        run |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            if given:
                points += range(at, at + run)
            at, given, run, shift = at + run, not given, 0, 0
    return frozenset(points)


@lru_cache(maxsize=1)
def _unspaced() -> frozenset[int]:
    points: set[int] = set()
    for first, last in UNSPACED:
        points.update(range(first, last + 1))
    return frozenset(points.difference(*(range(first, last + 1) for first, last in HANGUL_LETTERS)))


def _is_ideograph(point: int) -> bool:
    return point >= IDEOGRAPHS[0][0] and _within(point, IDEOGRAPHS)  # seldom more than one comparison


def _within(point: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= point <= last for first, last in ranges)


def _is_mark(char: str) -> bool:
    """Vanishes: a mark without width of its own, or one that normalisation may move."""
    return unicodedata.category(char) in ("Mn", "Me") or unicodedata.combining(char) > 0


def _kind(base: str) -> int:
    category = unicodedata.category(base)
    if category == "Nd":
        return DIGIT
    if category[0] in "LMN":
        return ALONE if ord(base) in _unspaced() or _is_ideograph(ord(base)) else LETTER
    return NOTHING if category == "Cf" and base != ZERO_WIDTH_SPACE else BREAK
