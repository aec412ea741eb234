"""The tokenizer against the library's own reading of whole strings: text is text, and parts are what they say."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tokenizer_texts
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_texts import FEW, TEXTS, changed, same, whole, without_specials, word_level

from gristmill.model.processing.segments import END_OF_TEXT, Segment
from gristmill.model.processing.text import MissingToken, Tokenizer
from gristmill.model.processing.tokenizer import tokenizer_file
from gristmill.model.processing.tokenizer.bpe import SPECIAL_TOKENS
from gristmill.model.processing.tokenizer.pieces import WHITESPACE

data, tokenizer, library = tokenizer_texts.data, tokenizer_texts.tokenizer, tokenizer_texts.library


# Text is text


@pytest.mark.parametrize("name", sorted(SPECIAL_TOKENS))
def test_text_that_spells_a_special_token_is_text(tokenizer: Tokenizer, name: str) -> None:
    specials = {tokenizer.special(other) for other in SPECIAL_TOKENS}
    texts = [name, f"a{name}  b", f"{name}{name}\n{name}", f" {name} "]
    encoded = tokenizer.encode_documents(texts)
    assert [i for i in encoded.ids.tolist() if i in specials] == [tokenizer.special(END_OF_TEXT)] * len(texts)
    assert tokenizer.decode(encoded.ids) == "".join(text + END_OF_TEXT for text in texts)
    chat = tokenizer.encode([[Segment("<|user|>", special=True), Segment(name), Segment("<|end|>", special=True)]])
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

    monkeypatch.setattr(tokenizer_file, "_renamed", renamed)
    assert Tokenizer.from_bytes(data).vocab_size == 600


def test_a_model_that_knows_special_tokens_as_words_does_not_find_them_in_text() -> None:
    vocab = {"[UNK]": 0, "a": 1, "<|end|>": 2, END_OF_TEXT: 3}
    tokenizer = Tokenizer.from_bytes(word_level(vocab, [(0, "[UNK]"), (2, "<|end|>"), (3, END_OF_TEXT)]))
    encoded = tokenizer.encode([[Segment("a <|end|> b"), Segment("<|end|>", special=True)]])
    assert encoded.ids.tolist() == [1, 0, 0, 2]
    assert tokenizer.decode(encoded.ids) == "a [UNK] [UNK] <|end|>"
    assert tokenizer.vocab_size == 4


def test_ids_with_gaps_are_those_of_the_file() -> None:
    library = tokenizers.Tokenizer.from_str(
        word_level({"[UNK]": 0, "a": 1}, [(9, "<|end|>"), (5, "<|user|>")]).decode()
    )
    assert library.token_to_id("<|end|>") == 2  # what the library makes of it
    tokenizer = Tokenizer.from_bytes(word_level({"[UNK]": 0, "a": 1}, [(9, "<|end|>"), (5, "<|user|>")]))
    assert (tokenizer.special("<|end|>"), tokenizer.special("<|user|>"), tokenizer.vocab_size) == (9, 5, 10)
    assert tokenizer.encode(
        [[Segment("<|user|>", True), Segment("a <|end|>"), Segment("<|end|>", True)]]
    ).ids.tolist() == [
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
    encoded = tokenizer.encode([[Segment("a</s>?"), Segment("</s>", special=True)]])
    assert encoded.ids.tolist() == [2, 4, 5, 6, 7, 0, 1]


# Parts and whole strings


def samples(names: list[str], texts: st.SearchStrategy[str]) -> st.SearchStrategy[list[Segment]]:
    """Special tokens, one or several, with at most one text between two of them."""
    specials = st.lists(st.sampled_from(names), min_size=1, max_size=3).map(
        lambda chosen: [Segment(n, True) for n in chosen]
    )
    runs = st.lists(st.tuples(texts, specials, st.booleans()), max_size=5)
    return runs.map(lambda parts: [p for t, specials, learn in parts for p in (Segment(t, False, learn), *specials)])


@FEW
@given(st.lists(samples(list(SPECIAL_TOKENS), TEXTS.map(without_specials)), max_size=3))
def test_part_by_part_is_the_whole_string(tokenizer, library, drawn_samples: list[list[Segment]]) -> None:
    same(
        tokenizer.encode(drawn_samples),
        [whole(library, "".join(part.text for part in sample)) for sample in drawn_samples],
    )


@FEW
@given(sample=samples(["<|end|>", "<|image|>", "<|user|>", "<|audio|>"], TEXTS.map(without_specials)))
def test_flags_that_eat_space_on_either_side(data: bytes, sample: list[Segment]) -> None:
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
        parts = [Segment("<|user|>", True), Segment(text), Segment("<|end|>", True), Segment(space)]
        assert tokenizer.encode([parts]).ids.tolist() == expected


def test_eating_goes_on_in_the_next_text(tokenizer: Tokenizer) -> None:
    parts = [Segment("<|user|>", True), Segment(" \n"), Segment("", loss_mask=True), Segment("\t x "), Segment(" y")]
    assert tokenizer.decode(tokenizer.encode([parts]).ids) == "<|user|>x  y"


def test_the_border_of_two_texts_is_a_border_of_tokens(tokenizer: Tokenizer) -> None:
    encoded = tokenizer.encode([[Segment("gra", loss_mask=False), Segment("in", loss_mask=True)]])
    first = len(tokenizer.encode([[Segment("gra")]]).ids)
    assert encoded.loss_mask.tolist() == [False] * first + [True] * (len(encoded.ids) - first)
    assert len(encoded.ids) > len(tokenizer.encode([[Segment("grain")]]).ids)


def test_what_is_learned_is_what_the_parts_say(tokenizer: Tokenizer) -> None:
    parts = [Segment("<|user|>", True), Segment("mill"), Segment("<|end|>", True), Segment("<|assistant|>", True)]
    parts += [Segment("grain", loss_mask=True), Segment("<|end|>", True, True), Segment(END_OF_TEXT, True)]
    encoded = tokenizer.encode([parts, [], parts[4:5]])
    shown = tokenizer.show(encoded.ids, encoded.loss_mask, np.cumsum(encoded.lengths))
    asked = [("<|user|>mill<|end|><|assistant|>", False), ("grain<|end|>", True), (END_OF_TEXT, False), ("grain", True)]
    assert shown == asked
    assert encoded.lengths[1] == 0 and encoded.lengths.sum() == len(encoded.ids)
