"""The tokenizer piece by piece: the ids of the library, texts that come back, and errors that say what is wrong."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import tokenizer_texts
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_texts import CORPUS, FEW, TEXTS, changed, same, whole, without_specials, word_level

from gristmill.model.processing import segments
from gristmill.model.processing import text as module
from gristmill.model.processing.segments import END_OF_TEXT, Segment
from gristmill.model.processing.text import MissingToken, Tokenizer
from gristmill.model.processing.tokenizer import pieces

data, tokenizer, library = tokenizer_texts.data, tokenizer_texts.tokenizer, tokenizer_texts.library


CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(split: str | None, behavior: str = "Isolated", invert: bool = False) -> dict[str, Any]:
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": split is None}
    if split is None:
        return last
    cut = {"type": "Split", "pattern": {"Regex": split}, "behavior": behavior, "invert": invert}
    return {"type": "Sequence", "pretokenizers": [cut, last]}


# Pieces: the same ids as the library, of texts as a whole

PRE_TOKENIZERS = {
    "o200k": None,
    "cl100k": byte_level(CL100K),
    "removed": byte_level(CL100K, "Removed", True),
    "qwen2": byte_level(CL100K.replace("{1,3}", "")),
    "gpt2": byte_level(None),
}


CATEGORIES: dict[str, list[str]] = {}
for character in map(chr, range(0x20000)):
    CATEGORIES.setdefault(unicodedata.category(character), []).append(character)


@pytest.fixture(scope="module")
def pairs(data: bytes) -> dict[str, tuple[Tokenizer, tokenizers.Tokenizer]]:
    files = {name: data if pre is None else changed(data, pre_tokenizer=pre) for name, pre in PRE_TOKENIZERS.items()}
    return {name: (Tokenizer.from_bytes(f), tokenizers.Tokenizer.from_str(f.decode())) for name, f in files.items()}


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
@settings(max_examples=250, deadline=None)
@given(text=TEXTS)
def test_pieces_give_the_ids_of_the_whole_text(pairs: dict[str, Any], name: str, text: str) -> None:
    text = without_specials(text)
    tokenizer, library = pairs[name]
    assert tokenizer._pieces is not None
    assert "".join(tokenizer._pieces.findall(text)) == text
    same(tokenizer.encode([[Segment(text)]]), [whole(library, text)])


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_pieces_at_every_kind_of_character(pairs: dict[str, Any], name: str) -> None:
    tokenizer, library = pairs[name]
    kinds = [chr(c) for c in range(0x600)]
    for category, letters in CATEGORIES.items():
        kinds += letters[:: len(letters) // 40 + 1] if category != "Cs" else []
    texts = [
        "".join(f"a{c}b{c}.{c}1{c} x{c}\n{c}-{c}/'{c}\n /" for c in kinds[i : i + 500])
        for i in range(0, len(kinds), 500)
    ]
    same(tokenizer.encode([[Segment(text)] for text in texts]), [whole(library, text) for text in texts])


def test_letters_at_borders_are_letters_for_the_library() -> None:
    letters = "".join(
        c for c in map(chr, range(0x10000)) if not 0xD800 <= ord(c) < 0xE000 and re.match(f"[{pieces._A}]", c)
    )
    keep = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\p{L}\p{N}]+"), "isolated")
    assert len(letters) > 20_000 and len(keep.pre_tokenize_str(letters)) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": byte_level(CL100K.replace("{1,3}", "{1,2}"))},
        {"pre_tokenizer": byte_level(CL100K, "MergedWithNext")},
        {"pre_tokenizer": byte_level(None) | {"add_prefix_space": True}},
        {"pre_tokenizer": None},
    ],
)
def test_other_files_go_to_the_library_as_they_are(data: bytes, fields: dict[str, Any]) -> None:
    file = changed(data, **fields)
    tokenizer, library = Tokenizer.from_bytes(file), tokenizers.Tokenizer.from_str(file.decode())
    assert tokenizer._pieces is None
    texts = [*CORPUS[:6], "e\u0301 12345", ""]
    same(tokenizer.encode([[Segment(text)] for text in texts]), [whole(library, text) for text in texts])


def test_slices_and_a_full_memory_change_nothing(
    data: bytes, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*CORPUS, "", "x" * 300, *CORPUS]
    expected = tokenizer.encode_documents(texts)
    monkeypatch.setattr(segments, "_SLICE", 100)
    monkeypatch.setattr(module, "_BATCH", 3)
    monkeypatch.setattr(module, "_KNOWN", 40)
    other = Tokenizer.from_bytes(data)
    for _ in range(2):
        for encoded, two in zip(other.encode_documents(texts), expected, strict=True):
            assert np.array_equal(encoded, two)
    assert len(other._known) <= 40
    plain = Tokenizer.from_bytes(changed(data, pre_tokenizer=byte_level("b")))
    small = plain.encode_documents(texts)
    monkeypatch.undo()
    for encoded, two in zip(plain.encode_documents(texts), small, strict=True):
        assert np.array_equal(encoded, two)


def test_long_pieces_are_not_remembered(data: bytes) -> None:
    tokenizer = Tokenizer.from_bytes(data)
    tokenizer.encode_documents(["wheel " + "x" * 49 + " mill"])
    assert set(tokenizer._known) == {"wheel", " mill"}


# Round trips and printing


@FEW
@given(st.lists(st.one_of(TEXTS, st.text(st.characters(exclude_categories=["Cs"]), max_size=60)), max_size=4))
def test_decoding_gives_back_the_texts(tokenizer: Tokenizer, texts: list[str]) -> None:
    encoded = tokenizer.encode_documents(texts)
    assert encoded.loss_mask.all() and len(encoded.lengths) == len(texts)
    bounds = np.concatenate([[0], np.cumsum(encoded.lengths)]).tolist()
    assert [tokenizer.decode(encoded.ids[a:b]) for a, b in pairwise(bounds)] == [text + END_OF_TEXT for text in texts]


def test_no_text_is_one_token(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_documents([""]).ids.tolist() == [tokenizer.special(END_OF_TEXT)]
    same(tokenizer.encode_documents([]), [])
    same(tokenizer.encode([[]]), [[]])


def test_a_character_of_several_tokens_prints_whole(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode([[Segment("x𝔘y𝔙")]]).ids
    assert len(ids) == 10
    assert tokenizer.show(ids, [True] * 3 + [False] * 7) == [("x𝔘", True), ("y𝔙", False)]
    assert tokenizer.show(ids, [i % 2 == 0 for i in range(10)]) == [("x", True), ("𝔘y", False), ("𝔙", True)]
    shown = tokenizer.show(ids[2:], [True] * 8, bounds=[0, 2])
    assert shown == [("\\x9d\\x94", True), ("\\x98y𝔙", True)]
    assert "\ufffd" not in "".join(text for text, _ in shown)
    with pytest.raises(ValueError, match="10 ids and 9 of loss_mask"):
        tokenizer.show(ids, [True] * 9)


# Errors


def test_a_missing_token_is_named_with_those_there(tokenizer: Tokenizer) -> None:
    with pytest.raises(MissingToken, match=r"no special token '<\|nope\|>'; it has: .*<\|user\|>"):
        tokenizer.special("<|nope|>")
    with pytest.raises(MissingToken):
        tokenizer.encode([[Segment("mill", special=True)]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "no tokenizer.json"),
        (b"", "no tokenizer.json"),
        (b"[1]", "no tokenizer.json"),
        (b"[" * 100_000, "no tokenizer.json"),
        (b'{"version": "1.0"}', "Model missing"),
        (b'{"version":"2.0","model":{"type":"BPE","vocab":{},"merges":[]}}', "version '2.0'"),
        (
            b'{"version":"1.0","model":{"type":"BPE","vocab":{},"merges":["a b"],"dropout":null}}',
            "`a` out of vocabulary",
        ),
        (b'{"version":"1.0","model":{"type":"BPE","vocab":{"a":0},"merges":[],"dropout":0.1}}', "dropout=0.1"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_bytes(content)


@pytest.mark.parametrize("number", [-1, 1 << 24, 1 << 31, 1 << 32, 1 << 70])
@pytest.mark.parametrize("where", ["vocab", "added"])
def test_an_id_that_no_window_can_hold_is_refused_by_name(data: bytes, where: str, number: int) -> None:
    file = json.loads(data)
    if where == "vocab":
        file["model"]["vocab"]["mill"] = number
    else:
        file["added_tokens"].append({**file["added_tokens"][0], "content": "mill", "id": number})
    with pytest.raises(ValueError, match=f"'mill' has id {number}; allowed: 0 to 16777215"):
        Tokenizer.from_bytes(json.dumps(file).encode())


def test_an_id_of_two_texts_is_refused_by_both(data: bytes) -> None:
    file = json.loads(data)
    last, number = list(file["model"]["vocab"].items())[-1]
    vocab = [["<unk>", 0.0], ["a", -1.0]]
    added = {**file["added_tokens"][0], "content": "<|twin|>"}
    unigram = {"version": "1.0", "model": {"type": "Unigram", "unk_id": 0, "vocab": vocab}}
    for wrong, names in (
        (changed(data, model=file["model"] | {"vocab": file["model"]["vocab"] | {"twin": number}}), (last, "twin")),
        (changed(data, added_tokens=[*file["added_tokens"], {**added, "id": number}]), (last, "<|twin|>")),
        (json.dumps(unigram | {"added_tokens": [{**added, "id": 1}]}).encode(), ("a", "<|twin|>")),
    ):
        with pytest.raises(ValueError, match="stands for both") as error:
            Tokenizer.from_bytes(wrong)
        assert all(repr(name) in str(error.value) for name in names)


def test_ids_may_have_gaps_and_an_entry_may_come_twice(data: bytes) -> None:
    file = json.loads(data)
    far = {**file["added_tokens"][0], "content": "<|far|>", "id": 70_000}
    tokenizer = Tokenizer.from_bytes(changed(data, added_tokens=[*file["added_tokens"], far, dict(far)]))
    assert (tokenizer.vocab_size, tokenizer.special("<|far|>")) == (70_001, 70_000)
    assert tokenizer.encode([[Segment("<|far|>", special=True)]]).ids.tolist() == [70_000]


def test_a_tokenizer_of_more_ids_than_a_model_is_told_with_both_numbers(tokenizer: Tokenizer) -> None:
    tokenizer.check_fits(tokenizer.vocab_size)
    tokenizer.check_fits(tokenizer.vocab_size + 63)
    ids = tokenizer.vocab_size
    with pytest.raises(
        ValueError, match=rf"has {ids} ids, 0 to {ids - 1}, and the model's vocabulary {ids - 1} entries"
    ):
        tokenizer.check_fits(ids - 1)


@pytest.mark.parametrize("bad", ["a\ud800b", None, 5, b"x"])
@pytest.mark.parametrize("pieces", [True, False])
def test_what_is_no_text_is_told_with_its_number(data: bytes, bad: Any, pieces: bool) -> None:
    tokenizer = Tokenizer.from_bytes(data if pieces else changed(data, normalizer={"type": "NFC"}))
    with pytest.raises(ValueError, match="sample 1: "):
        tokenizer.encode_documents(["fine", bad, "fine"])
    assert (
        tokenizer.encode_documents(["fine"]).lengths.tolist() == tokenizer.encode_documents(["fine"]).lengths.tolist()
    )


def test_a_word_that_the_model_cannot_encode_is_an_error() -> None:
    tokenizer = Tokenizer.from_bytes(word_level({"a": 1}, [(2, END_OF_TEXT)]))
    with pytest.raises(ValueError, match="cannot encode"):
        tokenizer.encode_documents(["b"])


def test_padding_truncation_and_templates_are_left_out(data: bytes, tokenizer: Tokenizer) -> None:
    library = tokenizers.Tokenizer.from_str(data.decode())
    library.enable_padding(length=50)
    library.enable_truncation(3)
    end = library.token_to_id("<|end|>")
    library.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A <|end|>", special_tokens=[("<|end|>", end)]
    )
    other = Tokenizer.from_bytes(library.to_str().encode())
    assert other.encode_documents(CORPUS).ids.tolist() == tokenizer.encode_documents(CORPUS).ids.tolist()
    assert other.digest != tokenizer.digest == hashlib.sha256(data).hexdigest()
