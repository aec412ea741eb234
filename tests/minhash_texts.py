"""Texts that a tokenizer could stumble over, for the tests of MinHash, its alphabet and its compiled kernels."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import strategies as st

from gristmill.filters.signatures.minhash import MinHash, Signatures

# The first letter of each kind of trouble: case that grows, marks, digits, scripts, planes, what is nothing.
PIECES = [
    "a",
    "Z",
    "é",
    "e\u0301",
    "ß",
    "ﬁ",
    "İ",
    "7",
    "٣",
    "५",
    "Ⅷ",
    " ",
    "\n",
    ".",
    "_",
    "'",
    "한글",
    "中",
    "か\u3099",
]
PIECES += [
    "ﾊ",
    "ไทย",
    "ພາສາ",
    "ខ្មែរ",
    "བོད",
    "မြန်မာ",
    "हिन्दी",
    "ো",
    "\u00ad",
    "\u200b",
    "\u200d",
    "😀",
    "\U00020000",
    "Я",
    "𝐀",
]
TROUBLE = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)
ANY_TEXT = st.one_of(st.text(max_size=80), TROUBLE, st.text("ab 1.Z", max_size=80))
SMALL = MinHash(bands=3, rows=3, ngram=2, seed=7)  # 9 values: no multiple of the 4 that the kernel takes at once
MIXED = "The Quick brown fox, 2024: naïve CAFÉ über ﬁne. 中文网络文本 ภาษาไทย 한국어 문장 Привет, мир! 12.5 x " * 40


def sign(texts: list[str], settings: MinHash = SMALL) -> Signatures:
    """Signatures with small settings."""
    return settings.sign(pa.array(texts, pa.string()))
