"""The file tokenizer.json, as the library reads it once nothing in it can turn ordinary text into a special token.

Padding, truncation and post-processor are left out: who builds a sample says what stands in it.
Source: tokenizers 0.23 (added_vocabulary.rs, the models).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import tokenizers

_CONTROL = re.compile(r"<\|[^\s|<>]+\|>")
NO_TEXT = "\ufdd0"  # not a character, says Unicode: no text has it

LARGEST_ID = (1 << 24) - 1
"""Windows hold ids as int32, and tables by id are as long as the largest; vocabularies in use end at a million."""


def load(data: bytes) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """The library's tokenizer, for encoding ordinary text, and the file as it is.

    The library numbers added tokens anew where ids have gaps, and a model that has a special token in its vocabulary
    may find it in text (WordLevel, Unigram). Either way the token gets another name there, under its id.
    """
    try:
        file = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no tokenizer.json: {error}") from error
    _check_ids(file)
    library = _built(data.decode())
    if file["model"].get("dropout"):
        raise ValueError(f"dropout={file['model']['dropout']} in the model: ids would be random; set it to null")
    added, unknown = file.get("added_tokens") or [], unknown_id(file)
    if _wrong(library, added, added, unknown):
        renamed = _renamed(data, unknown)
        library = _built(json.dumps(renamed))
        if fault := _wrong(library, added, renamed["added_tokens"], unknown):
            raise ValueError(f"this tokenizer.json cannot be used: {fault}")
    return library, file


def is_control(token: dict[str, Any]) -> bool:
    """Whether an added token must never be made of ordinary text: it is special, or it is written as those of chat
    templates are. Phi-4's own file says `special: false` of <|tool_call|> and its like."""
    return bool(token["special"]) or _CONTROL.fullmatch(token["content"]) is not None


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


def _check_ids(file: Any) -> None:
    """Raises ValueError for an id that cannot be, or stands for two texts. Ids may have gaps."""
    names: dict[int, str] = {}
    for name, number in _entries(file):
        if not 0 <= number <= LARGEST_ID:
            raise ValueError(
                f"this tokenizer.json cannot be used: {name!r} has id {number}; allowed: 0 to {LARGEST_ID}"
            )
        if (other := names.setdefault(number, name)) != name:
            raise ValueError(
                f"this tokenizer.json cannot be used: id {number} stands for both {other!r} and {name!r}; "
                "give each text an id of its own"
            )


def _entries(file: Any) -> Iterator[tuple[str, int]]:
    """Texts and ids, of the model and added; what has another form the library refuses, and says why."""
    fields = file if isinstance(file, dict) else {}
    model = fields.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, list):
        yield from ((str(entry[0]), number) for number, entry in enumerate(vocab) if isinstance(entry, list) and entry)
    elif isinstance(vocab, dict):
        yield from ((name, number) for name, number in vocab.items() if isinstance(number, int))
    for token in fields.get("added_tokens") or ():
        if isinstance(token, dict) and isinstance(token.get("id"), int):
            yield str(token.get("content")), token["id"]


def unknown_id(file: dict[str, Any]) -> int | None:
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
        if is_control(token) and number != unknown and number in _ids(library, name):
            return f"text that spells {name!r} becomes that special token"
    return None


def _ids(library: tokenizers.Tokenizer, text: str) -> list[int]:
    try:
        return library.encode(text, add_special_tokens=False).ids
    except Exception:  # a model without a token for what it does not know: it finds nothing in this text
        return []


def _renamed(data: bytes, unknown: int | None) -> dict[str, Any]:
    """The file with control tokens under names that begin with NO_TEXT, which no text spells: so the library makes them
    of no text. `Tokenizer.decode` takes the mark off again."""
    file = json.loads(data)
    vocab = file["model"]["vocab"]
    for token in file["added_tokens"]:
        name, number = token["content"], token["id"]
        if is_control(token) and number != unknown:
            token["content"] = NO_TEXT + name
            if isinstance(vocab, dict):
                vocab.pop(name, None)
            elif number < len(vocab):
                vocab[number][0] = token["content"]
        if isinstance(vocab, dict):
            vocab[token["content"]] = number
    return file | {"post_processor": None}
