"""Text as token ids: any Hugging Face tokenizer.json, fed part by part, so that text never becomes a special token.

Who builds a sample says which parts are special tokens and what the loss counts; a page that spells `<|end|>` is text.
The library alone encodes one or two megabytes a second and core. Where its pre-tokenizer is one we know, texts are
cut at places that no token can cross, and each piece is encoded once and remembered: the same ids, in a half to a fifth
of the time.
The file is longer than 300 lines because cutting is right only for the very patterns that training writes.
Source: tokenizers 0.23 (added_vocabulary.rs for what `rstrip` and `lstrip` eat); the o200k pattern of tiktoken 0.7.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"
WHITESPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
"""Unicode White_Space, which is `\\s` in Rust and in Oniguruma; Python's has U+001C to U+001F as well."""

_EATS_SPACE = ("assistant", "end", "user", "system", "tool", "/tool", "tool_call", "/tool_call", "tool_response")
_KEEPS_SPACE = ("image", "audio", "fim_prefix", "fim_middle", "fim_suffix")
SPECIAL_TOKENS = {END_OF_TEXT: False, "<|endofprompt|>": False}
SPECIAL_TOKENS |= {f"<|{name}|>": True for name in _EATS_SPACE} | {f"<|{name}|>": False for name in _KEEPS_SPACE}
"""What `train_tokenizer` puts in, and whether it eats the whitespace that follows (`rstrip`)."""

_LETTERS = (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]")
_REST = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_O200K = (
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

_NO_TEXT = "\ufdd0"  # not a character, says Unicode: no text has it
_SLICE = 1 << 20  # characters encoded at a time
_BATCH = 4096  # texts in one call of the library, which holds a few kilobytes for each
_KNOWN = 400_000  # pieces remembered, about 60 MB
_LONG = 48  # characters; longer pieces hardly ever come again


class Part(NamedTuple):
    """A stretch of a sample. `special`: `text` is the name of a special token; `learn`: the loss counts its tokens."""

    text: str
    special: bool = False
    learn: bool = False


class Encoded(NamedTuple):
    """Samples end to end: `ids` int32 [tokens], `learn` bool [tokens], `lengths` int32 [samples], in tokens."""

    ids: np.ndarray
    learn: np.ndarray
    lengths: np.ndarray


class MissingToken(ValueError):
    """A special token that a tokenizer does not have."""


class Tokenizer:
    """A tokenizer.json. `digest` is the sha256 of its bytes, `vocab_size` its largest id + 1, added tokens included.

    Padding, truncation and post-processor of the file are left out. One object serves one thread: it remembers pieces.
    A pre-tokenizer that treats the start of a string apart (Metaspace "first") takes every part for a start.
    """

    def __init__(self, data: bytes) -> None:
        self.digest = hashlib.sha256(data).hexdigest()
        self._library, file = _load(data)
        added = {token["id"]: token for token in file.get("added_tokens") or ()}
        unknown = _unknown_id(file)
        self._added = {i: token["content"] for i, token in added.items()}
        self._special = {token["content"]: token for token in added.values() if token["special"]}
        vocab = file["model"]["vocab"]
        largest = len(vocab) - 1 if isinstance(vocab, list) else max(vocab.values(), default=-1)
        self.vocab_size = max(largest, *added, -1) + 1
        self._forbidden = np.zeros(self.vocab_size, bool)
        self._forbidden[[token["id"] for token in self._special.values() if token["id"] != unknown]] = True
        self._bytes: dict[int, bytes] | None = {} if (file.get("decoder") or {}).get("type") == "ByteLevel" else None
        self._pieces = _pieces(file)
        self._known: dict[str, bytes] = {}

    @classmethod
    def from_bytes(cls, data: bytes) -> Tokenizer:
        """Raises ValueError that says what is wrong with the file."""
        return cls(data)

    def special(self, name: str) -> int:
        """The id of a special token. Raises MissingToken."""
        return self._token(name)["id"]

    def encode_documents(self, texts: Sequence[str]) -> Encoded:
        """Each text and <|endoftext|>, all of it learned. Raises ValueError for what is no Unicode text."""
        end = Part(END_OF_TEXT, special=True, learn=True)
        return self.encode([(Part(text, learn=True), end) for text in texts])

    def encode(self, samples: Sequence[Sequence[Part]]) -> Encoded:
        """Tokens of the parts of each sample. The border of two parts is a border of tokens.

        Equals the library's reading of the joined text with its special tokens active, where no two texts are
        neighbours and no text spells a special token. Raises MissingToken, and ValueError for what is no Unicode text.
        """
        try:
            found = [self._encode(some) for some in _slices(samples)]
        except TypeError as error:  # what Python and the library say of a text that is none
            raise ValueError(_fault(samples) or str(error)) from error
        if not found:
            return Encoded(np.zeros(0, np.int32), np.zeros(0, bool), np.zeros(0, np.int32))
        return Encoded(*(np.concatenate(columns) for columns in zip(*found, strict=True)))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids, special tokens by name. Raises ValueError for an id that stands for nothing."""
        listed = [int(i) for i in ids]
        if self._bytes is not None:
            return b"".join(map(self._bytes_of, listed)).decode("utf-8", "replace")
        for token in listed:
            self._name(token)
        return self._library.decode(listed, skip_special_tokens=False).replace(_NO_TEXT, "")

    def show(
        self, ids: Sequence[int], learn: Sequence[bool], bounds: Iterable[int] | None = None
    ) -> list[tuple[str, bool]]:
        """For printing: the text in stretches, and whether each is learned.

        A character made of several tokens stays whole, in the stretch where it begins. `bounds` are token positions
        where a sample begins: there a stretch always ends, and bytes of a character cut in two show as \\xe4.
        """
        listed, flags = [int(i) for i in ids], [bool(flag) for flag in learn]
        if len(listed) != len(flags):
            raise ValueError(f"{len(listed)} ids and {len(flags)} of learn: one for each token")
        hard = {0, len(listed), *(() if bounds is None else map(int, bounds))}
        cuts, current = sorted(at for at in hard if 0 <= at <= len(listed)), flags[:1]
        for at in range(1, len(listed)):
            if at in hard or (flags[at] != current[0] and not self._goes_on(listed[at])):
                current = [flags[at]]
                cuts.append(at)
        stretches = pairwise(sorted(set(cuts)))
        return [(self._printable(listed[start:end]), flags[start]) for start, end in stretches if end > start]

    def _token(self, name: str) -> dict[str, Any]:
        token = self._special.get(name)
        if token is None:
            there = ", ".join(sorted(self._special)[:40]) or "none"
            raise MissingToken(f"tokenizer {self.digest[:12]} has no special token {name!r}; it has: {there}")
        return token

    def _encode(self, samples: Sequence[Sequence[Part]]) -> Encoded:
        texts: list[str] = []
        kinds: list[int] = []  # id of a special token, -1 for a text
        learned: list[bool] = []
        ends = [0]  # of the samples, in parts
        for sample in samples:
            eats = False
            for text, special, learn in sample:
                if special:
                    token = self._token(text)
                    if token["lstrip"]:
                        _strip_back(texts, kinds, ends[-1])
                    kinds.append(token["id"])
                    eats = token["rstrip"]
                else:
                    text = text.lstrip(WHITESPACE) if eats else text
                    eats = eats and not text
                    kinds.append(-1)
                    texts.append(text)
                learned.append(learn)
            ends.append(len(kinds))
        tokens, sizes = self._tokens(texts)
        kind = np.array(kinds, np.int32)
        spans = np.ones(len(kinds), np.int64)
        spans[kind < 0] = sizes
        special_at = np.repeat(kind >= 0, spans)
        ids = np.empty(len(special_at), np.int32)
        ids[special_at], ids[~special_at] = kind[kind >= 0], tokens
        starts = np.concatenate([[0], np.cumsum(spans)])[ends]
        return Encoded(ids, np.repeat(np.array(learned, bool), spans), np.diff(starts).astype(np.int32))

    def _tokens(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of ordinary texts end to end, int32 [tokens], and how many each has, int64 [texts]."""
        if self._pieces is None:
            found = [self._ask(texts[i : i + _BATCH]) for i in range(0, len(texts), _BATCH)] or [self._ask([])]
            return np.concatenate([ids for ids, _ in found]), np.concatenate([sizes for _, sizes in found])
        pieces = [self._pieces.findall(text) for text in texts]
        known = self._known
        new = list(set[str]().union(*pieces).difference(known))
        for i in range(0, len(new), _BATCH):
            ids, sizes = self._ask(new[i : i + _BATCH])
            data, cuts = ids.tobytes(), [0, *np.cumsum(sizes * 4).tolist()]
            known |= zip(new[i : i + _BATCH], (data[start:end] for start, end in pairwise(cuts)), strict=True)
        joined = [b"".join(map(known.__getitem__, some)) for some in pieces]
        if len(known) > _KNOWN:
            known.clear()
        else:
            for piece in new:
                if len(piece) > _LONG:
                    del known[piece]
        return np.frombuffer(b"".join(joined), np.int32), np.array([len(some) // 4 for some in joined], np.int64)

    def _ask(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        try:
            found = self._library.encode_batch_fast(texts, add_special_tokens=False)
        except TypeError:
            raise
        except Exception as error:  # the library has no class of its own
            raise ValueError(f"tokenizer {self.digest[:12]} cannot encode a text: {error}") from error
        sizes = np.array([len(one) for one in found], np.int64)
        ids = np.fromiter(chain.from_iterable(one.ids for one in found), np.int32, count=int(sizes.sum()))
        if self._forbidden[ids].any():
            raise ValueError(f"tokenizer {self.digest[:12]} makes a special token of ordinary text: it cannot be used")
        return ids, sizes

    def _bytes_of(self, token: int) -> bytes:
        assert self._bytes is not None
        if token not in self._bytes:
            name = self._added.get(token)
            self._bytes[token] = name.encode() if name is not None else _byte_level(self._name(token))
        return self._bytes[token]

    def _name(self, token: int) -> str:
        name = self._library.id_to_token(token) if 0 <= token < self.vocab_size else None
        if name is None:
            raise ValueError(f"id {token} stands for no token of tokenizer {self.digest[:12]} ({self.vocab_size} ids)")
        return name

    def _goes_on(self, token: int) -> bool:
        """Whether a token starts inside a character."""
        data = self._bytes_of(token) if self._bytes is not None else b""
        return bool(data) and 0x80 <= data[0] < 0xC0

    def _printable(self, ids: list[int]) -> str:
        if self._bytes is None:
            return self.decode(ids)
        return b"".join(map(self._bytes_of, ids)).decode("utf-8", "backslashreplace")


def train_tokenizer(texts: Iterable[str], vocab_size: int, *, min_frequency: int = 2) -> bytes:
    """A tokenizer.json: byte-level BPE behind the o200k pattern (digits in threes), with SPECIAL_TOKENS as ids 0 to 15.

    Same texts and size, same bytes, whatever the threads. Fewer than `vocab_size` entries if the texts have no more
    pairs seen `min_frequency` times. Raises ValueError for a size without room for all bytes and special tokens.
    """
    least = 256 + len(SPECIAL_TOKENS)
    if vocab_size < least:
        raise ValueError(f"vocab_size={vocab_size}: at least {least}, for 256 bytes and {len(SPECIAL_TOKENS)} specials")
    library = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_O200K), behavior="isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_only])
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[
            AddedToken(name, special=True, normalized=False, rstrip=eats) for name, eats in SPECIAL_TOKENS.items()
        ],
    )
    library.train_from_iterator(_checked(texts), trainer)
    return library.to_str(pretty=False).encode()


def _checked(texts: Iterable[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        if fault := _fault([[Part(text)]]):
            raise ValueError(f"text {number}: {fault}")
        yield text


def _load(data: bytes) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """The library's tokenizer, for encoding ordinary text, and the file as it is.

    The library numbers added tokens anew where ids have gaps, and a model that has a special token in its vocabulary
    may find it in text (WordLevel, Unigram). Either way the token gets another name there, under its id.
    """
    try:
        file = json.loads(data)
    except ValueError as error:
        raise ValueError(f"no tokenizer.json: {error}") from error
    library = _built(data.decode())
    if file["model"].get("dropout"):
        raise ValueError(f"dropout={file['model']['dropout']} in the model: ids would be random; set it to null")
    added, unknown = file.get("added_tokens") or [], _unknown_id(file)
    if _wrong(library, added, added, unknown):
        renamed = _renamed(data, unknown)
        library = _built(json.dumps(renamed))
        if fault := _wrong(library, added, renamed["added_tokens"], unknown):
            raise ValueError(f"this tokenizer.json cannot be used: {fault}")
    return library, file


def _built(text: str) -> tokenizers.Tokenizer:
    try:
        library = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library has no class of its own
        raise ValueError(f"no tokenizer.json that tokenizers {tokenizers.__version__} can read: {error}") from error
    library.encode_special_tokens = True  # special tokens in a text are text
    library.no_padding()
    library.no_truncation()
    library.post_processor = None
    return library


def _unknown_id(file: dict[str, Any]) -> int | None:
    """The token of what the model cannot encode: special perhaps, yet ordinary text makes it."""
    model = file["model"]
    return model["unk_id"] if model.get("unk_id") is not None else _id_in(file, model.get("unk_token"))


def _id_in(file: dict[str, Any], name: str | None) -> int | None:
    vocab = file["model"]["vocab"]
    return vocab.get(name) if isinstance(vocab, dict) else None


def _wrong(library: tokenizers.Tokenizer, asked: list[Any], given: list[Any], unknown: int | None) -> str | None:
    for token, own in zip(asked, given, strict=True):
        name, number = token["content"], token["id"]
        if library.token_to_id(own["content"]) != number:
            return f"{name!r} has id {number}, but the library makes it {library.token_to_id(own['content'])}"
        if token["special"] and number != unknown and number in _ids(library, name):
            return f"text that spells {name!r} becomes that special token"
    return None


def _ids(library: tokenizers.Tokenizer, text: str) -> list[int]:
    try:
        return library.encode(text, add_special_tokens=False).ids
    except Exception:  # a model without a token for what it does not know: it finds nothing in this text
        return []


def _renamed(data: bytes, unknown: int | None) -> dict[str, Any]:
    file = json.loads(data)
    vocab = file["model"]["vocab"]
    for token in file["added_tokens"]:
        name, number = token["content"], token["id"]
        if token["special"] and number != unknown:
            token["content"] = _NO_TEXT + name
            if isinstance(vocab, dict):
                vocab.pop(name, None)
            elif number < len(vocab):
                vocab[number][0] = token["content"]
        if isinstance(vocab, dict):
            vocab[token["content"]] = number
    return file | {"post_processor": None}


def _pieces(file: dict[str, Any]) -> re.Pattern[str] | None:
    """What cuts a text where no token can cross, if the pre-tokenizer is one that we know and nothing else looks on."""
    found = file.get("pre_tokenizer") or {}
    if file.get("normalizer") or not all(token["special"] for token in file.get("added_tokens") or ()):
        return None
    steps = found["pretokenizers"] if found.get("type") == "Sequence" else [found]
    last = steps[-1] if steps else {}
    if last.get("type") != "ByteLevel" or last["add_prefix_space"]:
        return None
    if last.get("use_regex", True):
        return _GPT2_PIECES if len(steps) == 1 else None
    split = steps[0] if len(steps) == 2 and steps[0]["type"] == "Split" else {}
    known = split.get("pattern", {}).get("Regex") in (_O200K, _CL100K, _QWEN2)
    whole = (split.get("behavior"), split.get("invert")) in {("Isolated", False), ("Removed", True)}
    return _TIKTOKEN_PIECES if known and whole else None


def _slices(samples: Sequence[Sequence[Part]]) -> Iterator[Sequence[Sequence[Part]]]:
    start = size = 0
    for end, sample in enumerate(samples, 1):
        size += sum(len(part[0]) for part in sample)
        if size >= _SLICE or end == len(samples):
            yield samples[start:end]
            start, size = end, 0


def _strip_back(texts: list[str], kinds: list[int], first: int) -> None:
    """Takes the whitespace at the end of the texts since the last special token of the sample."""
    for back in range(1, len(kinds) - first + 1):
        if kinds[-back] >= 0:
            return
        texts[-back] = texts[-back].rstrip(WHITESPACE)
        if texts[-back]:
            return


def _fault(samples: Sequence[Sequence[Part]]) -> str | None:
    for number, sample in enumerate(samples):
        for text, *_ in sample:
            if not isinstance(text, str):
                return f"sample {number}: {type(text).__name__} instead of a text"
            try:
                text.encode()
            except UnicodeEncodeError as error:
                return f"sample {number}: a lone surrogate at character {error.start} is no Unicode text"
    return None


def _byte_level(token: str) -> bytes:
    """The bytes of a token that is written in the byte-level alphabet."""
    return bytes(_BYTE_OF[letter] for letter in token)


def _alphabet() -> dict[str, int]:
    """GPT-2's letters for bytes: those that print stand for themselves, the rest for U+0100 and on."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _alphabet()
