"""The tokenizer against the library's own reading of whole strings, on texts that are made to tell them apart."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from model.processing import text as module
from model.processing.text import (
    END_OF_TEXT,
    SPECIAL_TOKENS,
    WHITESPACE,
    Encoded,
    MissingToken,
    Part,
    Tokenizer,
    train_tokenizer,
)

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
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
FEW = settings(max_examples=120, deadline=None)


@pytest.fixture(scope="module")
def data() -> bytes:
    return train_tokenizer(CORPUS, 600)


@pytest.fixture(scope="module")
def tokenizer(data: bytes) -> Tokenizer:
    return Tokenizer.from_bytes(data)


@pytest.fixture(scope="module")
def library(data: bytes) -> tokenizers.Tokenizer:
    """The oracle: special tokens active, pieces unknown."""
    return tokenizers.Tokenizer.from_str(data.decode())


def changed(data: bytes, **fields: Any) -> bytes:
    return json.dumps(json.loads(data) | fields).encode()


def byte_level(split: str | None, behavior: str = "Isolated", invert: bool = False) -> dict[str, Any]:
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": split is None}
    if split is None:
        return last
    cut = {"type": "Split", "pattern": {"Regex": split}, "behavior": behavior, "invert": invert}
    return {"type": "Sequence", "pretokenizers": [cut, last]}


def whole(library: tokenizers.Tokenizer, text: str) -> list[int]:
    return library.encode(text, add_special_tokens=False).ids


def same(found: Encoded, expected: list[list[int]]) -> None:
    assert found.ids.dtype == np.int32 and found.learn.dtype == bool and found.lengths.dtype == np.int32
    assert found.lengths.tolist() == [len(ids) for ids in expected]
    assert found.ids.tolist() == [i for ids in expected for i in ids]
    assert len(found.learn) == len(found.ids)


# Text is text


@pytest.mark.parametrize("name", sorted(SPECIAL_TOKENS))
def test_text_that_spells_a_special_token_is_text(tokenizer: Tokenizer, name: str) -> None:
    specials = {tokenizer.special(other) for other in SPECIAL_TOKENS}
    texts = [name, f"a{name}  b", f"{name}{name}\n{name}", f" {name} "]
    found = tokenizer.encode_documents(texts)
    assert [i for i in found.ids.tolist() if i in specials] == [tokenizer.special(END_OF_TEXT)] * len(texts)
    assert tokenizer.decode(found.ids) == "".join(text + END_OF_TEXT for text in texts)
    chat = tokenizer.encode([[Part("<|user|>", special=True), Part(name), Part("<|end|>", special=True)]])
    assert [i for i in chat.ids.tolist() if i in specials] == [
        tokenizer.special("<|user|>"),
        tokenizer.special("<|end|>"),
    ]


def test_added_tokens_that_are_not_special_are_read_in_text(data: bytes) -> None:
    added = json.loads(data)["added_tokens"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added += [{"id": 600, "content": "grain mill", "special": False, **flags}]
    added += [{"id": 601, "content": "<think>é", "special": True, **flags}]
    tokenizer = Tokenizer.from_bytes(changed(data, added_tokens=added))
    ids = tokenizer.encode_documents(["a grain mill, <think>é"]).ids.tolist()
    assert tokenizer.vocab_size == 602 and 600 in ids and 601 not in ids
    assert tokenizer.decode(ids) == "a grain mill, <think>é" + END_OF_TEXT
    assert tokenizer.decode([601, 600]) == "<think>égrain mill"
    with pytest.raises(MissingToken):
        tokenizer.special("grain mill")


def test_an_ordinary_file_is_used_as_it_is(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renaming is for files that need it."""

    def renamed(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(module, "_renamed", renamed)
    assert Tokenizer.from_bytes(data).vocab_size == 600


def word_level(vocab: dict[str, int], added: list[tuple[int, str]], **fields: Any) -> bytes:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    file = {
        "version": "1.0",
        "added_tokens": [{"id": number, "content": name, **flags} for number, name in added],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    }
    return json.dumps(file | fields).encode()


def test_a_model_that_knows_special_tokens_as_words_does_not_find_them_in_text() -> None:
    vocab = {"[UNK]": 0, "a": 1, "<|end|>": 2, END_OF_TEXT: 3}
    tokenizer = Tokenizer.from_bytes(word_level(vocab, [(0, "[UNK]"), (2, "<|end|>"), (3, END_OF_TEXT)]))
    found = tokenizer.encode([[Part("a <|end|> b"), Part("<|end|>", special=True)]])
    assert found.ids.tolist() == [1, 0, 0, 2]
    assert tokenizer.decode(found.ids) == "a [UNK] [UNK] <|end|>"
    assert tokenizer.vocab_size == 4


def test_ids_with_gaps_are_those_of_the_file() -> None:
    library = tokenizers.Tokenizer.from_str(
        word_level({"[UNK]": 0, "a": 1}, [(9, "<|end|>"), (5, "<|user|>")]).decode()
    )
    assert library.token_to_id("<|end|>") == 2  # what the library makes of it
    tokenizer = Tokenizer.from_bytes(word_level({"[UNK]": 0, "a": 1}, [(9, "<|end|>"), (5, "<|user|>")]))
    assert (tokenizer.special("<|end|>"), tokenizer.special("<|user|>"), tokenizer.vocab_size) == (9, 5, 10)
    assert tokenizer.encode([[Part("<|user|>", True), Part("a <|end|>"), Part("<|end|>", True)]]).ids.tolist() == [
        5,
        1,
        0,
        9,
    ]
    with pytest.raises(ValueError, match="id 7 stands for no token"):
        tokenizer.decode([7])


def test_a_unigram_model_with_special_tokens_does_not_find_them_in_text() -> None:
    pieces = [["<unk>", 0.0], ["</s>", 0.0], *([letter, -5.0] for letter in "ab</s>")]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": 0, "content": "<unk>", **flags}, {"id": 1, "content": "</s>", **flags}]
    file = {"version": "1.0", "added_tokens": added, "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces}}
    tokenizer = Tokenizer.from_bytes(json.dumps(file).encode())
    found = tokenizer.encode([[Part("a</s>?"), Part("</s>", special=True)]])
    assert found.ids.tolist() == [2, 4, 5, 6, 7, 0, 1]


# Parts and whole strings


def samples(names: list[str], texts: st.SearchStrategy[str]) -> st.SearchStrategy[list[Part]]:
    """Special tokens, one or several, with at most one text between two of them."""
    some = st.lists(st.sampled_from(names), min_size=1, max_size=3).map(lambda found: [Part(n, True) for n in found])
    runs = st.lists(st.tuples(texts, some, st.booleans()), max_size=5)
    return runs.map(lambda found: [p for t, specials, learn in found for p in (Part(t, False, learn), *specials)])


def without_specials(text: str) -> str:
    return text.replace("|>", "| >")


@FEW
@given(st.lists(samples(list(SPECIAL_TOKENS), TEXTS.map(without_specials)), max_size=3))
def test_part_by_part_is_the_whole_string(tokenizer, library, found: list[list[Part]]) -> None:
    same(tokenizer.encode(found), [whole(library, "".join(part.text for part in sample)) for sample in found])


@FEW
@given(sample=samples(["<|end|>", "<|image|>", "<|user|>", "<|audio|>"], TEXTS.map(without_specials)))
def test_flags_that_eat_space_on_either_side(data: bytes, sample: list[Part]) -> None:
    added = json.loads(data)["added_tokens"]
    for token in added:
        token["lstrip"] = token["content"] in ("<|end|>", "<|image|>")
    file = changed(data, added_tokens=added)
    oracle = tokenizers.Tokenizer.from_str(file.decode())
    same(Tokenizer.from_bytes(file).encode([sample]), [whole(oracle, "".join(part.text for part in sample))])


def test_whitespace_is_what_the_library_eats(tokenizer: Tokenizer, library: tokenizers.Tokenizer) -> None:
    python = {chr(c) for c in range(0x110000) if chr(c).isspace()}
    assert python - set(WHITESPACE) == set("\x1c\x1d\x1e\x1f") and set(WHITESPACE) <= python
    for space in [*sorted(python), "\u200b", "\u180e", "\ufeff"]:
        text = f"{space} x{space}"
        expected = whole(library, f"<|user|>{text}<|end|>{space}")
        assert whole(library, f"<|user|>{space}")[1:] == ([] if space in WHITESPACE else whole(library, space)), hex(
            ord(space)
        )
        parts = [Part("<|user|>", True), Part(text), Part("<|end|>", True), Part(space)]
        assert tokenizer.encode([parts]).ids.tolist() == expected


def test_eating_goes_on_in_the_next_text(tokenizer: Tokenizer) -> None:
    parts = [Part("<|user|>", True), Part(" \n"), Part("", learn=True), Part("\t x "), Part(" y")]
    assert tokenizer.decode(tokenizer.encode([parts]).ids) == "<|user|>x  y"


def test_the_border_of_two_texts_is_a_border_of_tokens(tokenizer: Tokenizer) -> None:
    found = tokenizer.encode([[Part("gra", learn=False), Part("in", learn=True)]])
    first = len(tokenizer.encode([[Part("gra")]]).ids)
    assert found.learn.tolist() == [False] * first + [True] * (len(found.ids) - first)
    assert len(found.ids) > len(tokenizer.encode([[Part("grain")]]).ids)


def test_what_is_learned_is_what_the_parts_say(tokenizer: Tokenizer) -> None:
    parts = [Part("<|user|>", True), Part("mill"), Part("<|end|>", True), Part("<|assistant|>", True)]
    parts += [Part("grain", learn=True), Part("<|end|>", True, True), Part(END_OF_TEXT, True)]
    found = tokenizer.encode([parts, [], parts[4:5]])
    shown = tokenizer.show(found.ids, found.learn, np.cumsum(found.lengths))
    asked = [("<|user|>mill<|end|><|assistant|>", False), ("grain<|end|>", True), (END_OF_TEXT, False), ("grain", True)]
    assert shown == asked
    assert found.lengths[1] == 0 and found.lengths.sum() == len(found.ids)


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
    same(tokenizer.encode([[Part(text)]]), [whole(library, text)])


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_pieces_at_every_kind_of_character(pairs: dict[str, Any], name: str) -> None:
    tokenizer, library = pairs[name]
    kinds = [chr(c) for c in range(0x600)]
    for category, found in CATEGORIES.items():
        kinds += found[:: len(found) // 40 + 1] if category != "Cs" else []
    texts = [
        "".join(f"a{c}b{c}.{c}1{c} x{c}\n{c}-{c}/'{c}\n /" for c in kinds[i : i + 500])
        for i in range(0, len(kinds), 500)
    ]
    same(tokenizer.encode([[Part(text)] for text in texts]), [whole(library, text) for text in texts])


def test_letters_at_borders_are_letters_for_the_library() -> None:
    letters = "".join(
        c for c in map(chr, range(0x10000)) if not 0xD800 <= ord(c) < 0xE000 and module.re.match(f"[{module._A}]", c)
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
    same(tokenizer.encode([[Part(text)] for text in texts]), [whole(library, text) for text in texts])


def test_slices_and_a_full_memory_change_nothing(
    data: bytes, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*CORPUS, "", "x" * 300, *CORPUS]
    expected = tokenizer.encode_documents(texts)
    monkeypatch.setattr(module, "_SLICE", 100)
    monkeypatch.setattr(module, "_BATCH", 3)
    monkeypatch.setattr(module, "_KNOWN", 40)
    other = Tokenizer.from_bytes(data)
    for _ in range(2):
        for one, two in zip(other.encode_documents(texts), expected, strict=True):
            assert np.array_equal(one, two)
    assert len(other._known) <= 40
    plain = Tokenizer.from_bytes(changed(data, pre_tokenizer=byte_level("b")))
    small = plain.encode_documents(texts)
    monkeypatch.undo()
    for one, two in zip(plain.encode_documents(texts), small, strict=True):
        assert np.array_equal(one, two)


def test_long_pieces_are_not_remembered(data: bytes) -> None:
    tokenizer = Tokenizer.from_bytes(data)
    tokenizer.encode_documents(["wheel " + "x" * 49 + " mill"])
    assert set(tokenizer._known) == {"wheel", " mill"}


# Round trips and printing


@FEW
@given(st.lists(st.one_of(TEXTS, st.text(st.characters(exclude_categories=["Cs"]), max_size=60)), max_size=4))
def test_decoding_gives_back_the_texts(tokenizer: Tokenizer, texts: list[str]) -> None:
    found = tokenizer.encode_documents(texts)
    assert found.learn.all() and len(found.lengths) == len(texts)
    bounds = np.concatenate([[0], np.cumsum(found.lengths)]).tolist()
    assert [tokenizer.decode(found.ids[a:b]) for a, b in pairwise(bounds)] == [text + END_OF_TEXT for text in texts]


def test_no_text_is_one_token(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_documents([""]).ids.tolist() == [tokenizer.special(END_OF_TEXT)]
    same(tokenizer.encode_documents([]), [])
    same(tokenizer.encode([[]]), [[]])


def test_a_character_of_several_tokens_prints_whole(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode([[Part("x𝔘y𝔙")]]).ids
    assert len(ids) == 10
    assert tokenizer.show(ids, [True] * 3 + [False] * 7) == [("x𝔘", True), ("y𝔙", False)]
    assert tokenizer.show(ids, [i % 2 == 0 for i in range(10)]) == [("x", True), ("𝔘y", False), ("𝔙", True)]
    shown = tokenizer.show(ids[2:], [True] * 8, bounds=[0, 2])
    assert shown == [("\\x9d\\x94", True), ("\\x98y𝔙", True)]
    assert "\ufffd" not in "".join(text for text, _ in shown)
    with pytest.raises(ValueError, match="10 ids and 9 of learn"):
        tokenizer.show(ids, [True] * 9)


# Errors


def test_a_missing_token_is_named_with_those_there(tokenizer: Tokenizer) -> None:
    with pytest.raises(MissingToken, match=r"no special token '<\|nope\|>'; it has: .*<\|user\|>"):
        tokenizer.special("<|nope|>")
    with pytest.raises(MissingToken):
        tokenizer.encode([[Part("mill", special=True)]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "no tokenizer.json"),
        (b"", "no tokenizer.json"),
        (b"[1]", "no tokenizer.json"),
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


# Training

SCRIPT = """
import hashlib, sys
from model.processing.text import Tokenizer, train_tokenizer
words = ["mill", "grain", "flour", "stone", "water", "wheel", "мука", "水车", "x1", "y2"]
texts = [" ".join(words[(i * k) % 10] + words[(i + k) % 10] for k in range(1, 9)) for i in range(400)]
data = train_tokenizer(iter(texts) if sys.argv[1] == "iter" else texts, 700)
found = Tokenizer.from_bytes(data).encode_documents(texts)
print(hashlib.sha256(data).hexdigest(), hashlib.sha256(found.ids.tobytes()).hexdigest())
"""


def test_training_gives_the_same_bytes_in_any_process() -> None:
    results = []
    for seed, threads, kind in (("1", "1", "iter"), ("2", "4", "list")):
        environment = os.environ | {
            "PYTHONHASHSEED": seed,
            "RAYON_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "true",
        }
        command = [sys.executable, "-c", SCRIPT, kind]
        root = Path(__file__).parents[1]
        run = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True)
        results.append(run.stdout)
    assert results[0] == results[1] and len(results[0].split()) == 2


def test_a_trained_tokenizer_has_bytes_and_special_tokens(data: bytes, tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 600
    added = json.loads(data)["added_tokens"]
    assert {token["content"]: token["rstrip"] for token in added} == SPECIAL_TOKENS
    assert all(token["special"] and not token["lstrip"] and not token["normalized"] for token in added)
    assert {name for name, eats in SPECIAL_TOKENS.items() if not eats} == {
        *(
            END_OF_TEXT,
            "<|endofprompt|>",
            "<|image|>",
            "<|audio|>",
            "<|fim_prefix|>",
            "<|fim_middle|>",
            "<|fim_suffix|>",
        )
    }
    smallest = Tokenizer.from_bytes(train_tokenizer([], 272))
    assert smallest.vocab_size == 272
    assert len(smallest.encode([[Part("水")]]).ids) == 3


def test_training_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="vocab_size=271: at least 272"):
        train_tokenizer([], 271)
    with pytest.raises(ValueError, match=r"text 1: .*lone surrogate"):
        train_tokenizer(["fine", "a\ud800"], 300)


def test_min_frequency_is_heeded() -> None:
    once = train_tokenizer(["qzqz"], 400, min_frequency=1)
    twice = train_tokenizer(["qzqz"], 400, min_frequency=3)
    assert Tokenizer.from_bytes(once).vocab_size > Tokenizer.from_bytes(twice).vocab_size == 272


# The size of Phi-4-Mini

PHI = {END_OF_TEXT: 199999, "<|image|>": 200010, "<|audio|>": 200011, "<|endofprompt|>": 200018}
PHI |= {"<|assistant|>": 200019, "<|end|>": 200020, "<|user|>": 200021, "<|system|>": 200022}


def phi_sized(data: bytes) -> bytes:
    """199,999 entries of byte-level BPE, most of them made up, and the special tokens of Phi-4-Mini up to 200,063."""
    trained = json.loads(data)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in trained["model"]["merges"]]
    there = {*alphabet, *("".join(pair) for pair in merges)}
    for left in [a + b for a in alphabet for b in alphabet]:  # pairs before what is made of them
        merges += [(left[0], left[1])] if left not in there else []
        there.add(left)
    for pair in [a + b for a in alphabet[:60] for b in alphabet]:
        for letter in alphabet[200:]:
            if len(there) < 199_999 and pair + letter not in there:
                merges.append((pair, letter))
                there.add(pair + letter)
    vocab = {token: number for number, token in enumerate([*alphabet, *(a + b for a, b in merges)])}
    names = {number: f"<|reserved_{number}|>" for number in range(199_999, 200_064)} | {
        n: name for name, n in PHI.items()
    }
    flags = {"single_word": False, "lstrip": False, "normalized": False, "special": True}
    added = [
        {"id": n, "content": names[n], "rstrip": SPECIAL_TOKENS.get(names[n], False), **flags} for n in sorted(names)
    ]
    return changed(data, added_tokens=added, model=trained["model"] | {"vocab": vocab, "merges": merges})


def test_a_vocabulary_of_200064_entries_works(data: bytes) -> None:
    file = phi_sized(data)
    tokenizer, library = Tokenizer.from_bytes(file), tokenizers.Tokenizer.from_str(file.decode())
    assert tokenizer.vocab_size == 200_064 == library.get_vocab_size()
    assert {name: tokenizer.special(name) for name in PHI} == PHI
    parts = [Part("<|user|>", True), Part("\n 磨坊 <mill>"), Part("<|image|>", True), Part("<|end|>", True)]
    parts += [
        Part("<|assistant|>", True),
        Part("flour ", learn=True),
        Part("<|end|>", True, True),
        Part(END_OF_TEXT, True),
    ]
    found = tokenizer.encode([parts])
    same(found, [whole(library, "".join(part.text for part in parts))])
    assert found.ids[[0, -1]].tolist() == [200_021, 199_999] and found.ids.max() == 200_021
    assert tokenizer.decode(found.ids) == "<|user|>磨坊 <mill><|image|><|end|><|assistant|>flour <|end|><|endoftext|>"
    assert tokenizer.decode([200_063]) == "<|reserved_200063|>"
    same(tokenizer.encode_documents(CORPUS), [[*whole(library, text), 199_999] for text in CORPUS])
