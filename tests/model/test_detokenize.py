"""Text of tokens one by one: for every decoder, the pieces are the whole text, and none waits without a reason."""

from __future__ import annotations

import json
from itertools import chain
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.model.processing.detokenize import Detokenizer, byte_of, decoded, find_anchor, token_bytes
from gristmill.model.processing.segments import Segment
from gristmill.model.processing.text import Tokenizer
from gristmill.model.processing.tokenizer.bpe import train_tokenizer

WORDS = [
    "▁",
    "▁the",
    "the",
    "▁ca",
    "t",
    "▁,",
    ",",
    "n't",
    "##ing",
    "un",
    "é",
    "你",
    ".",
    " ",
    "  ",
    "a</w>",
    "|",
    "<pad>",
    "x",
]
SENTENCEPIECE: list[dict[str, Any]] = [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
]
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
DECODERS: dict[str, tuple[dict[str, Any] | None, bool]] = {
    "sentencepiece": ({"type": "Sequence", "decoders": SENTENCEPIECE}, True),
    "gemma": ({"type": "Sequence", "decoders": SENTENCEPIECE[:3]}, True),
    "strips two": (
        {
            "type": "Sequence",
            "decoders": [*SENTENCEPIECE[:3], {"type": "Strip", "content": " ", "start": 2, "stop": 0}],
        },
        True,
    ),
    "bytes alone": ({"type": "ByteFallback"}, True),
    "fuse": ({"type": "Fuse"}, True),
    "none": (None, True),
    "metaspace": ({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}, True),
    "wordpiece": ({"type": "WordPiece", "prefix": "##", "cleanup": True}, True),
    "bpe": ({"type": "BPEDecoder", "suffix": "</w>"}, True),
    "ctc": ({"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True}, True),
    "looks across": (
        {
            "type": "Sequence",
            "decoders": [{"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "thet"}, "content": "X"}],
        },
        False,
    ),
    "byte level and more": (
        {
            "type": "Sequence",
            "decoders": [BYTE_LEVEL, {"type": "Replace", "pattern": {"String": "th"}, "content": "X"}],
        },
        False,
    ),
    "strips the end": (
        {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": "t", "start": 0, "stop": 1}]},
        False,
    ),
}


def tokenizer_with(decoder: dict[str, Any] | None) -> Tokenizer:
    """All bytes by name, a few words, and a special token with an id far off; ids between stand for nothing."""
    names = [*(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
    special = {"id": len(names) + 5, "content": "<|end|>", "special": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    model = {"type": "BPE", "vocab": {name: i for i, name in enumerate(names)}, "merges": [], "byte_fallback": True}
    model |= {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    file = {"version": "1.0", "added_tokens": [special | flags], "normalizer": None, "pre_tokenizer": None}
    return Tokenizer.from_bytes(json.dumps(file | {"decoder": decoder, "model": model}).encode())


ALL = {name: tokenizer_with(decoder) for name, (decoder, _) in DECODERS.items()}
ALL["byte level"] = Tokenizer.from_bytes(train_tokenizer(["the cat sat, où l'été finit 你好 👩‍🔬"] * 5, 330))


def tokens_of(tokenizer: Tokenizer) -> st.SearchStrategy[list[int]]:
    """Runs of bytes of real characters and of none, words, ids that stand for nothing."""
    characters = st.text("aé你👩\n", min_size=1, max_size=4).map(lambda text: list(text.encode()))
    cut = characters.map(lambda data: data[:-1] or data)
    others = st.integers(250, tokenizer.vocab_size + 3).map(lambda token: [token])
    return st.lists(characters | cut | others, max_size=14).map(lambda runs: list(chain(*runs)))


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_pieces_are_the_whole_text(name: str, data: st.DataObject) -> None:
    tokenizer = ALL[name]
    tokens = data.draw(tokens_of(tokenizer))
    if name == "strips the end":  # the library panics at a text that is shorter than what it is to strip
        tokens.insert(0, 0x41)
    known = [token for token in tokens if tokenizer.has(token)]
    growing = Detokenizer(tokenizer)
    text = ""
    for token in tokens:
        text += growing.add(token)
    assert text + growing.end() == tokenizer.decode(known) == decoded(tokenizer, tokens)


def test_a_panic_of_the_library_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot decode"):
        ALL["strips the end"].decode([])


@pytest.mark.parametrize("name", [*(name for name, (_, streams) in DECODERS.items() if streams), "byte level"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_text_goes_on_from_its_context(name: str, data: st.DataObject) -> None:
    tokenizer = ALL[name]
    before = data.draw(tokens_of(tokenizer)) + tokenizer.encode([[Segment("x")]]).ids.tolist()
    after = data.draw(tokens_of(tokenizer))
    whole = [token for token in [*before, *after] if tokenizer.has(token)]
    start = tokenizer.decode(token for token in before if tokenizer.has(token))
    assert start + decoded(tokenizer, after, before) == tokenizer.decode(whole)


@pytest.mark.parametrize(("name", "streams"), [(name, streams) for name, (_, streams) in DECODERS.items()])
def test_what_can_be_said_is_said(name: str, streams: bool) -> None:
    tokenizer = ALL[name]
    growing, words = Detokenizer(tokenizer), [tokenizer._library.token_to_id(word) for word in ("the", "▁ca", "t")]
    texts = [growing.add(token) for token in words]
    assert all(texts) == any(texts) == streams
    if name == "sentencepiece":  # a run of bytes is one thing: it is shown whole, or each byte as unknown
        assert [growing.add(token) for token in "你".encode()] == ["", "", ""]
        assert growing.add(words[0]) == "你the"
        assert [growing.add(token) for token in (*"你".encode(), 0xE4, words[0])][-1] == "\ufffd" * 4 + "the"


def test_the_text_is_that_of_the_library() -> None:
    """Random tokens against the decoder as another tool builds it."""
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    library.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(" ", 1, 0),
        ]
    )
    names = [f"<0x{byte:02X}>" for byte in range(256)] + WORDS
    tokens = [258, 0xE4, 0xBD, 0xA0, 256, 257, 0xE4, 0xBD, 256, 0x41, 0xC3, 0xA9, 258]
    assert decoded(ALL["sentencepiece"], tokens) == library.decoder.decode([names[i] for i in tokens])


def test_a_token_is_named_as_it_stands_in_a_text() -> None:
    tokenizer = ALL["sentencepiece"]
    anchor = find_anchor(tokenizer)
    token = tokenizer._library.token_to_id
    assert token_bytes(tokenizer, token("▁the"), anchor) == b" the"
    assert token_bytes(tokenizer, 0xE4, anchor) == b"\xe4" and byte_of(tokenizer, 0xE4) == 0xE4
    assert token_bytes(tokenizer, tokenizer.vocab_size + 3, anchor) == b""
    assert byte_of(ALL["fuse"], 0xE4) is None and token_bytes(ALL["fuse"], 0xE4, anchor) == b"<0xE4>"
    level = ALL["byte level"]
    ids = level.encode([[Segment("où 你")]]).ids.tolist()
    assert b"".join(token_bytes(level, i, None) for i in ids) == "où 你".encode()


def test_a_text_has_as_many_tokens_as_its_bytes_need() -> None:
    level, fallback = ALL["byte level"], ALL["sentencepiece"]
    for tokenizer in (level, fallback):
        for text in ("the cat", "你好" * 50, " " * 300, "\x00\x01é"):
            count = len(tokenizer.encode([[Segment(text)]]).ids)
            assert tokenizer.most_bytes is not None and count * tokenizer.most_bytes >= len(text.encode())
    lossy = json.loads(train_tokenizer(["the cat"] * 5, 300))
    lossy["normalizer"] = {"type": "Strip", "strip_left": True, "strip_right": True}
    assert Tokenizer.from_bytes(json.dumps(lossy).encode()).most_bytes is None


def test_tokens_of_a_template_are_never_made_of_text() -> None:
    """Phi-4's own file has `special: false` for the tokens around calls."""
    file = json.loads(train_tokenizer(["the cat"] * 5, 300))
    for token in file["added_tokens"]:
        token["special"] = "tool" not in token["content"]
    tokenizer = Tokenizer.from_bytes(json.dumps(file).encode())
    call = tokenizer.special("<|tool_call|>")
    spelled = tokenizer.encode([[Segment("a <|tool_call|> b<|end|>")]]).ids.tolist()
    assert call not in spelled and tokenizer.decode(spelled) == "a <|tool_call|> b<|end|>"
    assert tokenizer.encode([[Segment("<|tool_call|>", special=True)]]).ids.tolist() == [call]
    assert tokenizer.decode([call]) == "<|tool_call|>"
