"""Training a tokenizer: the same bytes in any process; and one of the size of Phi-4-Mini."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizer_texts
import tokenizers
from tokenizer_texts import CORPUS, changed, same, whole

from gristmill.model.processing.segments import END_OF_TEXT, Segment
from gristmill.model.processing.text import Tokenizer
from gristmill.model.processing.tokenizer.bpe import SPECIAL_TOKENS, train_tokenizer

data, tokenizer = tokenizer_texts.data, tokenizer_texts.tokenizer


# Training

SCRIPT = """
import hashlib, sys
from gristmill.model.processing.tokenizer.bpe import train_tokenizer
from gristmill.model.processing.text import Tokenizer
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
        root = Path(__file__).parents[2]
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
    assert len(smallest.encode([[Segment("水")]]).ids) == 3


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
    parts = [Segment("<|user|>", True), Segment("\n 磨坊 <mill>"), Segment("<|image|>", True), Segment("<|end|>", True)]
    parts += [
        Segment("<|assistant|>", True),
        Segment("flour ", loss_mask=True),
        Segment("<|end|>", True, True),
        Segment(END_OF_TEXT, True),
    ]
    encoded = tokenizer.encode([parts])
    same(encoded, [whole(library, "".join(part.text for part in parts))])
    assert encoded.ids[[0, -1]].tolist() == [200_021, 199_999] and encoded.ids.max() == 200_021
    assert tokenizer.decode(encoded.ids) == "<|user|>磨坊 <mill><|image|><|end|><|assistant|>flour <|end|><|endoftext|>"
    assert tokenizer.decode([200_063]) == "<|reserved_200063|>"
    same(tokenizer.encode_documents(CORPUS), [[*whole(library, text), 199_999] for text in CORPUS])
