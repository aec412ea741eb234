"""Training a tokenizer: byte-level BPE behind the o200k pattern, with the special tokens of the chat template.

Same texts and size, same bytes, whatever the threads. Ids of special tokens come first, so that every size has them at
the same place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from gristmill.model.processing.segments import END_OF_TEXT, Segment, find_fault
from gristmill.model.processing.tokenizer.pieces import O200K

_EATS_SPACE = ("assistant", "end", "user", "system", "tool", "/tool", "tool_call", "/tool_call", "tool_response")
_KEEPS_SPACE = ("image", "audio", "fim_prefix", "fim_middle", "fim_suffix")
SPECIAL_TOKENS = {END_OF_TEXT: False, "<|endofprompt|>": False}
SPECIAL_TOKENS |= {f"<|{name}|>": True for name in _EATS_SPACE} | {f"<|{name}|>": False for name in _KEEPS_SPACE}
"""What `train_tokenizer` puts in, and whether it eats the whitespace that follows (`rstrip`)."""


def train_tokenizer(texts: Iterable[str], vocab_size: int, *, min_frequency: int = 2) -> bytes:
    """A tokenizer.json: byte-level BPE behind the o200k pattern (digits in threes), with SPECIAL_TOKENS as ids 0 to 15.

    Same texts and size, same bytes, whatever the threads. Fewer than `vocab_size` entries if the texts have no more
    pairs seen `min_frequency` times. Raises ValueError for a size without room for all bytes and special tokens.
    """
    least = 256 + len(SPECIAL_TOKENS)
    if vocab_size < least:
        raise ValueError(f"vocab_size={vocab_size}: at least {least}, for 256 bytes and {len(SPECIAL_TOKENS)} specials")
    library = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(O200K), behavior="isolated")
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
        if wrong := find_fault([[Segment(text)]]):
            raise ValueError(f"text {number}: {wrong}")
        yield text
