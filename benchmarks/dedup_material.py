"""Texts for deduplication: tens of thousands of them, with families of near duplicates, and what is true of these.

A text is sentences drawn from real ones (benchmarks/material.py and the sample crawl's articles) until a length drawn
like a web page's, log-normal with a median of 110 words (shorter than the web's, so that datatrove is done in minutes).
Unrelated texts share a sentence now and then, as pages do. In a family every member is its head with some words changed
into ones that nobody knows, as many as bring the Jaccard similarity of 5-shingles to one of JACCARDS; that of each
member with its head is then measured, over lower-cased words between spaces, the unit of no contestant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from benchmarks.material import texts as load_texts
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.identity import record_id
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table
from gristmill.stages.core.records import CONTENT, KEYS, VERDICTS, Chunk, Verdicts
from gristmill.stages.text.extract import SCHEMA
from gristmill.synth.articles import article
from gristmill.synth.draw import Draw

JACCARDS = (0.95, 0.9, 0.8, 0.7, 0.5)
IN_FAMILIES = 0.3
NGRAM = 5
FEWEST, MEDIAN, MOST = 40, 110, 3000  # words
TEXTS_PER_CHUNK = 10_000


class Pair(NamedTuple):
    """A head and its only relative, by number. `planted`: of JACCARDS; `jaccard`: as measured."""

    head: int
    copy: int
    planted: float
    jaccard: float


class Material(NamedTuple):
    """`families`: (head, member, planted) of every near duplicate. Texts stand in the order they were made."""

    source: str
    texts: list[str]
    families: list[tuple[int, int, float]]

    def first(self, count: int) -> Sample:
        """The first texts, in drawn order, so that relatives lie far apart."""
        place = np.random.default_rng(1).permutation(count).tolist()
        shuffled = [""] * count
        for old, new in enumerate(place):
            shuffled[new] = self.texts[old]
        pairs = []
        for (head, copy, planted), before, after in _neighbours(self.families):
            if head not in (before, after) and copy < count:
                similarity = jaccard(self.texts[head], self.texts[copy])
                pairs.append(Pair(place[head], place[copy], planted, similarity))
        return Sample(shuffled, pairs)


class Sample(NamedTuple):
    """`pairs`: the families of two. Larger ones are there too, whose members can find each other by ways around."""

    texts: list[str]
    pairs: list[Pair]


def material(tiny: bool, count: int) -> Material:
    """Texts of real sentences with near duplicates planted among them."""
    source, sentences = _sentences(tiny)
    rng = np.random.default_rng(0)
    texts: list[str] = []
    families: list[tuple[int, int, float]] = []
    while len(texts) < count:
        head, words = len(texts), _words(rng, sentences)
        texts.append(" ".join(words))
        for _ in range(_relatives(rng)):
            planted = JACCARDS[rng.integers(len(JACCARDS))]
            families.append((head, len(texts), planted))
            texts.append(" ".join(_edited(rng, words, planted)))
    return Material(source, texts[:count], families)


def _neighbours(families: list[tuple[int, int, float]]) -> Iterator[tuple[tuple[int, int, float], int, int]]:
    """Each with the heads of the one before and the one after."""
    heads = [-1, *(head for head, _, _ in families), -1]
    return zip(families, heads[:-2], heads[2:], strict=True)


def _relatives(rng: np.random.Generator) -> int:
    """How many near duplicates a head has: mostly none, else one, sometimes many."""
    if rng.random() > IN_FAMILIES / 2:
        return 0
    return 1 if rng.random() < 0.7 else int(min(2 + rng.geometric(0.3), 30))


def _sentences(tiny: bool) -> tuple[str, list[list[str]]]:
    source, texts = load_texts(tiny)
    texts = [*texts, *(article("en", Draw("dedup", n)).text for n in range(20 if tiny else 1000))]
    distinct = dict.fromkeys(sentence.strip() for text in texts for sentence in re.split(r"(?<=[.!?])\s+|\n+", text))
    words = [sentence.split() for sentence in distinct]
    return f"texts of sentences of: {source}, and the sample crawl", [
        sentence for sentence in words if 4 <= len(sentence) <= 60
    ]


def _words(rng: np.random.Generator, sentences: list[list[str]]) -> list[str]:
    wanted = min(max(FEWEST, rng.lognormal(np.log(MEDIAN), 0.8)), MOST)
    words: list[str] = []
    while len(words) < wanted:
        words += sentences[rng.integers(len(sentences))]
    return words


def _edited(rng: np.random.Generator, words: list[str], planted: float) -> list[str]:
    """Of the shingles a share s stays, which is a Jaccard of s / (2 - s); a changed word costs five of them."""
    stays = 2 * planted / (1 + planted)
    changed = np.flatnonzero(rng.random(len(words)) < 1 - stays ** (1 / NGRAM))
    edited = list(words)
    for at in changed.tolist():
        edited[at] = "".join(chr(98 + c) for c in rng.integers(0, 24, 9))
    return edited


def jaccard(left: str, right: str) -> float:
    """Of the word n-grams of two texts."""
    a, b = _ngrams(left), _ngrams(right)
    return len(a & b) / len(a | b)


def _ngrams(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[at : at + NGRAM]) for at in range(len(words) - NGRAM + 1)}


def put_chunks(store: Store, texts: list[str]) -> list[Chunk]:
    """The texts as extract and screen leave them, none of them dropped; the only measures are those read here."""
    return [
        _put_chunk(store, n, texts[first : first + TEXTS_PER_CHUNK])
        for n, first in enumerate(range(0, len(texts), TEXTS_PER_CHUNK))
    ]


def _put_chunk(store: Store, number: int, texts: list[str]) -> Chunk:
    digest, ordinals = f"{number:064x}", list(range(len(texts)))
    urls = [f"https://example.org/{number}/{n}" for n in ordinals]
    columns: dict[str, list[Any]] = {
        "id": [record_id(url=url, source_key=None, own=url.encode()) for url in urls],
        "input": [digest] * len(texts),
        "ordinal": ordinals,
        "start": [1000 * n for n in ordinals],
        "length": [1000] * len(texts),
        "url": urls,
        "date": [None] * len(texts),
        "source": [None] * len(texts),
        "content": [f"{number:016x}{n:016x}" for n in ordinals],
        "mark": [None] * len(texts),
        "text": texts,
    }
    table = pa.table(columns, schema=SCHEMA)
    verdicts = table.select(KEYS).append_column("reason", pa.nulls(len(texts), pa.string())).replace_schema_metadata()
    return Chunk(
        content=put_table(store, CONTENT, table),
        tally=Tally.of_records(columns["input"], ordinals),
        bytes=sum(len(text.encode()) for text in texts),
        verdicts=(Verdicts(put_table(store, VERDICTS, verdicts)),),
    )
