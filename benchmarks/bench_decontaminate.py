"""How much faster is decontamination than datatrove's NGramsDecontFilter, with the same decisions?

The rules coincide on texts whose words both cut alike (datatrove's are spaCy's, here runs of letters and digits): the
texts of the other benchmarks, without the words that spaCy cuts, in small letters. Items are stretches of some of them
and stretches of words drawn at random. Both have their index in memory; datatrove's is written as its indexer writes
it, which itself wants lighteval. Ours also names the item and counts the n-grams of each, datatrove stops at the first.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from datatrove.data import Document
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
from datatrove.utils.text import ngrams, simplify_text

from benchmarks.harness import Arm, Report, Row, contest, require_equal
from benchmarks.material import texts as load_texts
from gristmill.filters.decontaminate import Decontaminate
from gristmill.filters.text.docs import Docs

NGRAM = 13
ITEMS = 4000
_WORD = re.compile("[a-z]+")


def plain(texts: Sequence[str], tokenizer: Any) -> list[str]:
    """The texts in words that both cut alike."""
    words = [_WORD.findall(text.lower()) for text in texts]
    whole = {word for word in {word for row in words for word in row} if tokenizer.word_tokenize(word) == [word]}
    return [" ".join(word for word in row if word in whole) for row in words]


def items_of(texts: Sequence[str], n: int, rng: random.Random) -> list[str]:
    """Half of them stretches of texts (of one in fifty), half of their words in random order."""
    rows = [text.split() for text in texts]
    chosen = [row for row in rows if len(row) > 60][::50]
    vocabulary = [word for row in rows[:200] for word in row]
    items = []
    for number in range(n):
        length = rng.randrange(NGRAM, 60)
        if number % 2:
            row = rng.choice(chosen)
            at = rng.randrange(len(row) - length + 1)
            items.append(" ".join(row[at : at + length]))
        else:
            items.append(" ".join(rng.choices(vocabulary, k=length)))
    return items


def datatrove_filter(folder: Path, items: Sequence[str]) -> NGramsDecontFilter:
    """Its filter with the index of these items."""
    config = NGramsDecontConfig(n_grams=NGRAM)
    filter_ = NGramsDecontFilter(str(folder), config)
    hashes = {
        filter_.hash_func(" ".join(gram))
        for item in items
        for gram in ngrams(filter_.tokenizer.word_tokenize(simplify_text(item, config.norm_config)), NGRAM)
    }
    np.array(sorted(hashes), config.hash_config.np_descr).tofile(folder / "items.index.hashes")
    filter_.load_index_hashes()
    return filter_


def by_datatrove(filter_: NGramsDecontFilter, texts: Sequence[str]) -> list[bool]:
    """Whether each text is contaminated."""
    return [filter_.filter(Document(text=text, id="")) is not True for text in texts]


def by_gristmill(filter_: Decontaminate, texts: Sequence[str]) -> list[bool]:
    """Whether each text is contaminated."""
    return [reason is not None for reason in filter_.judge(Docs(pa.array(texts, pa.string()))).to_pylist()]


def run(tiny: bool) -> Report:
    """The report; `tiny` on generated texts."""
    source, material = load_texts(tiny)
    rounds = 1 if tiny else 5
    with TemporaryDirectory() as folder:
        index = Path(folder, "index")
        index.mkdir()
        datatrove_index = datatrove_filter(index, ["one to load the tokenizer"])
        texts = plain(material, datatrove_index.tokenizer)
        items = items_of(texts, 200 if tiny else ITEMS, random.Random(0))
        datatrove_index = datatrove_filter(index, items)
        path = Path(folder, "items.jsonl")
        path.write_text("".join(json.dumps({"text": item}) + "\n" for item in items))
        own_filter = Decontaminate((str(path),), ngram=NGRAM, max_items=None)
        by_gristmill(own_filter, texts[:1])  # the index of this process
        arms = {
            "datatrove": Arm(lambda: by_datatrove(datatrove_index, texts)),
            "gristmill": Arm(lambda: by_gristmill(own_filter, texts)),
        }
        times = contest(
            arms,
            rounds,
            lambda outcomes: require_equal("decontaminate", outcomes["datatrove"], outcomes["gristmill"]),
        )
    contaminated = sum(times.outcomes["gristmill"])
    return Report(
        name="decontaminate",
        data=source,
        rounds=rounds,
        rows=(
            Row(
                "decontamination, 13 words, over datatrove's NGramsDecontFilter",
                times.ratio("datatrove", "gristmill"),
                "x",
                f"decision on all {len(texts)} texts, {contaminated} of them contaminated",
            ),
        ),
        details={
            "texts": len(texts),
            "characters": sum(map(len, texts)),
            "items": len(items),
            "contaminated": contaminated,
            "cpu_seconds": {name: times.seconds(name).median for name in times.cpu},
        },
    )
