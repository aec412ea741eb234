"""A small tokenizer, the library as its oracle, and texts that are made to tell the two apart."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import settings
from hypothesis import strategies as st

from gristmill.model.processing.text import Encoded, Tokenizer
from gristmill.model.processing.tokenizer.bpe import train_tokenizer
from gristmill.model.processing.tokenizer.pieces import WHITESPACE

CORPUS = [
    "The mill grinds grain into flour. It's the wheel that DOESN'T stop, isn't it?\n\n\tfor i in x:\n    i += 1\n",
    "Мельница мелет зерно в муку, и вода вращает колесо.\r\nДа/нет: 12345,678 ½ ²\n/usr/bin/env\n",
    "磨坊把谷物磨成面粉。水推动轮子。 粉挽き小屋は穀物を挽く。방앗간은 곡식을 빻는다.",
    "चक्की अनाज पीसती है। الطاحونة تطحن الحبوب. Müllerstraße, naïve façade, e\u0301te\u0301",
    "<html><body class='a-b'>x = {\"k\": [1, 2]}; // https://example.org/a?b=c_d&e=f#g</body></html>  \n",
    "😀👩‍👩‍👧‍👦🏳️‍🌈 ok\n\nmill\n\n  grain\n\n  flour.\r\n\r\n",
] * 3
# Everything that the borders of pieces depend on: kinds of whitespace, line ends, slashes, marks, contractions.
ATOMS = [
    *WHITESPACE,
    "\x1c",
    "\x1f",
    "\u200b",
    "\u180e",
    "\ufeff",
    "/",
    "'",
    "’",
    "_",
    "-",
    ".",
    ",",
    "(",
    "|",
    ">",
    "&",
]
ATOMS += [
    "\r\n",
    "\n\n",
    "  ",
    "'s",
    "'LL",
    "'ſ",
    "1",
    "2345",
    "²",
    "½",
    "Ⅷ",
    "٣",
    "a",
    "B",
    "ß",
    "ǅ",
    "ʰ",
    "é",
    "e\u0301",
]
ATOMS += [
    "\u0301",
    "ा",
    "ह",
    "中",
    "の",
    "한",
    "д",
    "ع",
    "ª",
    "\xb5",
    "×",
    "÷",
    "€",
    "😀",
    "\u200d",
    "\ufe0f",
    "\U0001e922",
    "\x00",
]
WORDS = st.lists(st.sampled_from(ATOMS), max_size=30).map("".join)
TEXTS = st.one_of(WORDS, st.text(max_size=40), st.text(st.sampled_from(" \n\t\r/.a1'"), max_size=40))


FEW = settings(max_examples=120)


@pytest.fixture(scope="module")
def data() -> bytes:
    """A tokenizer.json, trained on CORPUS."""
    return train_tokenizer(CORPUS, 600)


@pytest.fixture(scope="module")
def tokenizer(data: bytes) -> Tokenizer:
    """Ours."""
    return Tokenizer.from_bytes(data)


@pytest.fixture(scope="module")
def library(data: bytes) -> tokenizers.Tokenizer:
    """The oracle: special tokens active, pieces unknown."""
    return tokenizers.Tokenizer.from_str(data.decode())


def changed(data: bytes, **fields: Any) -> bytes:
    """The same file with other fields."""
    return json.dumps(json.loads(data) | fields).encode()


def whole(library: tokenizers.Tokenizer, text: str) -> list[int]:
    """Ids of a text by the library."""
    return library.encode(text, add_special_tokens=False).ids


def same(encoded: Encoded, expected: list[list[int]]) -> None:
    """Asserts that these ids were given, in the types that are promised."""
    assert encoded.ids.dtype == np.int32 and encoded.loss_mask.dtype == bool and encoded.lengths.dtype == np.int32
    assert encoded.lengths.tolist() == [len(ids) for ids in expected]
    assert encoded.ids.tolist() == [i for ids in expected for i in ids]
    assert len(encoded.loss_mask) == len(encoded.ids)


def without_specials(text: str) -> str:
    """The text without what spells a special token."""
    return text.replace("|>", "| >")


def word_level(vocab: dict[str, int], added: list[tuple[int, str]], **fields: Any) -> bytes:
    """A tokenizer.json of whole words."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    file = {
        "version": "1.0",
        "added_tokens": [{"id": number, "content": name, **flags} for number, name in added],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    }
    return json.dumps(file | fields).encode()
