"""Text as token ids: any Hugging Face tokenizer.json, fed segment by segment: text never becomes a special token.

Who builds a sample says which segments are special tokens and what the loss counts; a page that spells `<|end|>` is
text. The library alone encodes one or two megabytes a second and core. Where its pre-tokenizer is a known one, texts
are cut at places that no token can cross, and each piece is encoded once and remembered: the same ids, in a half to a
fifth of the time.
Source: tokenizers 0.23 (added_vocabulary.rs for what `rstrip` and `lstrip` eat).
"""

from __future__ import annotations

import hashlib
from collections import ChainMap
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np

from gristmill.model.processing.segments import END_OF_TEXT, Segment, find_fault, slices
from gristmill.model.processing.tokenizer.byte_level import byte_level, is_byte_level
from gristmill.model.processing.tokenizer.pieces import WHITESPACE, loses_nothing, pieces_of
from gristmill.model.processing.tokenizer.tokenizer_file import NO_TEXT, is_control, load, unknown_id

_BATCH = 4096  # texts in one call of the library, which holds a few kilobytes for each
_KNOWN = 400_000  # pieces remembered, about 60 MB
_LONG = 48  # characters; longer pieces hardly ever come again


class Encoded(NamedTuple):
    """Samples end to end: `ids` int32 [tokens], `loss_mask` bool [tokens], `lengths` int32 [samples], in tokens."""

    ids: np.ndarray
    loss_mask: np.ndarray
    lengths: np.ndarray


class MissingToken(ValueError):
    """A special token that a tokenizer does not have."""


class Tokenizer:
    """A tokenizer.json. `digest` is the sha256 of its bytes, `vocab_size` its largest id + 1, added tokens included.

    Padding, truncation and post-processor of the file are left out. One object may serve several threads.
    A pre-tokenizer that treats the start of a string apart (Metaspace "first") takes every segment for a start.
    """

    def __init__(self, data: bytes) -> None:
        self.digest = hashlib.sha256(data).hexdigest()
        self._library, file = load(data)
        added = {token["id"]: token for token in file.get("added_tokens") or ()}
        unknown = unknown_id(file)
        self._added = {i: token["content"] for i, token in added.items()}
        self._special = {token["content"]: token for token in added.values() if is_control(token)}
        vocab = file["model"]["vocab"]
        largest = len(vocab) - 1 if isinstance(vocab, list) else max(vocab.values(), default=-1)
        self.vocab_size = max(largest, *added, -1) + 1
        self._forbidden = np.zeros(self.vocab_size, bool)
        self._forbidden[[token["id"] for token in self._special.values() if token["id"] != unknown]] = True
        self.decoder: dict[str, Any] | None = file.get("decoder")
        self._bytes: dict[int, bytes] | None = {} if is_byte_level(self.decoder) else None
        self._pieces = pieces_of(file)
        self.eats_space = any(token["lstrip"] or token["rstrip"] for token in self._special.values())
        self._known: dict[str, bytes] = {}
        self._loses_nothing = loses_nothing(file)

    @classmethod
    def from_bytes(cls, data: bytes) -> Tokenizer:
        """Raises ValueError that says what is wrong with the file."""
        return cls(data)

    def check_fits(self, vocab: int) -> None:
        """Raises ValueError if a model of `vocab` entries has none for some id. A larger one is padded: usual."""
        ids = self.vocab_size
        if ids > vocab:
            raise ValueError(
                f"the tokenizer has {ids} ids, 0 to {ids - 1}, and the model's vocabulary {vocab} entries: "
                "this is another model's tokenizer, or the embedding was not resized with it"
            )

    def special(self, name: str) -> int:
        """The id of a special token. Raises MissingToken."""
        return self._token(name)["id"]

    @property
    def byte_level(self) -> bool:
        """Whether tokens are bytes: `bytes_of` gives them."""
        return self._bytes is not None

    def has(self, token: int) -> bool:
        """Whether an id stands for a token."""
        return self.name(token) is not None

    def name(self, token: int) -> str | None:
        """What an id is called in the file; None: it stands for nothing."""
        return self._library.id_to_token(token) if 0 <= token < self.vocab_size else None

    def is_special(self, token: int) -> bool:
        """Whether an id is a special token."""
        return token in self._added and self._added[token] in self._special

    @cached_property
    def most_bytes(self) -> int | None:
        """UTF-8 bytes of a text that one token can stand for at most, so that n bytes are at least n / most_bytes
        tokens. None where that is not known: a normalizer may shorten a text, an unknown token stand for any of it."""
        if not self._loses_nothing:
            return None
        names = (self.bytes_of(i) if self.byte_level else (self.name(i) or "").encode() for i in self._ids())
        return max(map(len, names), default=1)

    def encode_documents(self, texts: Sequence[str]) -> Encoded:
        """Each text and <|endoftext|>, all of it learned. Raises ValueError for what is no Unicode text."""
        end = Segment(END_OF_TEXT, special=True, loss_mask=True)
        return self.encode([(Segment(text, loss_mask=True), end) for text in texts])

    def encode(self, samples: Sequence[Sequence[Segment]]) -> Encoded:
        """Tokens of the segments of each sample. The border of two segments is a border of tokens.

        Equals the library's reading of the joined text with its special tokens active, where no two texts are
        neighbours and no text spells a special token. Raises MissingToken, and ValueError for what is no Unicode text.
        """
        try:
            encoded = [self._encode(run) for run in slices(samples)]
        except TypeError as error:  # what Python and the library say of a text that is none
            raise ValueError(find_fault(samples) or str(error)) from error
        if not encoded:
            return Encoded(np.zeros(0, np.int32), np.zeros(0, bool), np.zeros(0, np.int32))
        return Encoded(*(np.concatenate(columns) for columns in zip(*encoded, strict=True)))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids, special tokens by name. Raises ValueError for an id that stands for nothing."""
        listed = [int(i) for i in ids]
        if self._bytes is not None:
            return b"".join(map(self.bytes_of, listed)).decode("utf-8", "replace")
        for token in listed:
            self._name(token)
        try:
            return self._library.decode(listed, skip_special_tokens=False).replace(NO_TEXT, "")
        except BaseException as error:  # a panic of the library is no Exception
            if type(error).__name__ != "PanicException":
                raise
            raise ValueError(f"tokenizer {self.digest[:12]} cannot decode {len(listed)} tokens: {error}") from None

    def show(
        self, ids: Sequence[int], loss_mask: Sequence[bool], bounds: Iterable[int] | None = None
    ) -> list[tuple[str, bool]]:
        """For printing: the text in stretches, and whether the loss counts each.

        A character made of several tokens stays whole, in the stretch where it begins. `bounds` are token positions
        where a sample begins: there a stretch always ends, and bytes of a character cut in two show as \\xe4.
        """
        listed, flags = [int(i) for i in ids], [bool(flag) for flag in loss_mask]
        if len(listed) != len(flags):
            raise ValueError(f"{len(listed)} ids and {len(flags)} of loss_mask: one for each token")
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

    def _encode(self, samples: Sequence[Sequence[Segment]]) -> Encoded:
        """As `encode`, in two passes: all texts go to the library at once, for it encodes batches on many cores; then
        special tokens are put in between. A special token may eat the whitespace before or behind it, as the library
        does it where they stand in one text."""
        texts: list[str] = []
        kinds: list[int] = []  # id of a special token, -1 for a text
        masks: list[bool] = []
        ends = [0]  # of the samples, in segments
        for sample in samples:
            eats = False
            for text, special, loss_mask in sample:
                if special:
                    token = self._token(text)
                    if token["lstrip"]:
                        _strip_back(texts, kinds, ends[-1])
                    kinds.append(token["id"])
                    eats = token["rstrip"]
                else:
                    text = text.lstrip(WHITESPACE) if eats else text
                    eats = eats and not text  # nothing is left of this text: what follows is eaten from as well
                    kinds.append(-1)
                    texts.append(text)
                masks.append(loss_mask)
            ends.append(len(kinds))
        tokens, sizes = self._tokens(texts)
        kind = np.array(kinds, np.int32)
        spans = np.ones(len(kinds), np.int64)  # tokens of each segment
        spans[kind < 0] = sizes
        special_at = np.repeat(kind >= 0, spans)
        ids = np.empty(len(special_at), np.int32)
        ids[special_at], ids[~special_at] = kind[kind >= 0], tokens
        starts = np.concatenate([[0], np.cumsum(spans)])[ends]
        return Encoded(ids, np.repeat(np.array(masks, bool), spans), np.diff(starts).astype(np.int32))

    def _tokens(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of ordinary texts end to end, int32 [tokens], and how many each has, int64 [texts].

        Where texts can be cut into pieces, each piece that was not met before is encoded, and a text is the pieces put
        together. Long pieces are used and forgotten: they hardly ever come again."""
        if self._pieces is None:
            batches = [self._ask(texts[i : i + _BATCH]) for i in range(0, len(texts), _BATCH)] or [self._ask([])]
            return np.concatenate([ids for ids, _ in batches]), np.concatenate([sizes for _, sizes in batches])
        pieces = [self._pieces.findall(text) for text in texts]
        # Threads share what is known, and only ever add to it; one that is full is left to who still reads it.
        if len(self._known) > _KNOWN:
            self._known = {}
        known, own = self._known, dict[str, bytes]()
        new = list(set[str]().union(*pieces).difference(known))
        for i in range(0, len(new), _BATCH):
            ids, sizes = self._ask(new[i : i + _BATCH])
            data, cuts = ids.tobytes(), [0, *np.cumsum(sizes * 4).tolist()]
            own |= zip(new[i : i + _BATCH], (data[start:end] for start, end in pairwise(cuts)), strict=True)
        known |= {piece: data for piece, data in own.items() if len(piece) <= _LONG}
        find = ChainMap(own, known).__getitem__ if any(len(piece) > _LONG for piece in own) else known.__getitem__
        joined = [b"".join(map(find, of_text)) for of_text in pieces]  # ids as bytes, four each
        return np.frombuffer(b"".join(joined), np.int32), np.array([len(data) // 4 for data in joined], np.int64)

    def _ask(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """As `_tokens`, of the library itself."""
        try:
            encodings = self._library.encode_batch_fast(texts, add_special_tokens=False)
        except TypeError:
            raise
        except Exception as error:  # the library has no class of its own
            raise ValueError(f"tokenizer {self.digest[:12]} cannot encode a text: {error}") from error
        sizes = np.array([len(encoding) for encoding in encodings], np.int64)
        every_id = chain.from_iterable(encoding.ids for encoding in encodings)
        ids = np.fromiter(every_id, np.int32, count=int(sizes.sum()))
        if self._forbidden[ids].any():
            raise ValueError(f"tokenizer {self.digest[:12]} makes a special token of ordinary text: it cannot be used")
        return ids, sizes

    def bytes_of(self, token: int) -> bytes:
        """The bytes of a byte-level token. Raises ValueError for an id that stands for nothing."""
        assert self._bytes is not None
        if token not in self._bytes:
            name = self._added.get(token)
            self._bytes[token] = name.encode() if name is not None else byte_level(self._name(token))
        return self._bytes[token]

    def _name(self, token: int) -> str:
        name = self.name(token)
        if name is None:
            raise ValueError(f"id {token} stands for no token of tokenizer {self.digest[:12]} ({self.vocab_size} ids)")
        return name

    def _ids(self) -> Iterator[int]:
        return filter(self.has, range(self.vocab_size))

    def _goes_on(self, token: int) -> bool:
        """Whether a token starts inside a character."""
        data = self.bytes_of(token) if self._bytes is not None else b""
        return bool(data) and 0x80 <= data[0] < 0xC0

    def _printable(self, ids: list[int]) -> str:
        if self._bytes is None:
            return self.decode(ids)
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", "backslashreplace")


def _strip_back(texts: list[str], kinds: list[int], first: int) -> None:
    """Takes the whitespace at the end of the texts since the last special token of the sample."""
    for back in range(1, len(kinds) - first + 1):
        if kinds[-back] >= 0:
            return
        texts[-back] = texts[-back].rstrip(WHITESPACE)
        if texts[-back]:
            return
