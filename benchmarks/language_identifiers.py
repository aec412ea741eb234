"""`python -m benchmarks.language_identifiers`: how well each identifier that is installed does, as docs/filters.md has
it, on the labelled sentences in ../shared/data/6_langid. Prints a table; `--glotlid FILE` adds GlotLID."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from typing import get_args

import pyarrow as pa

from benchmarks.material import SHARED
from gristmill.filters.identify.codes import short_code
from gristmill.filters.identify.names import Name, identifier
from gristmill.filters.language import LanguageFilter
from gristmill.filters.text.docs import Docs

MAIN = ("en", "de", "fr", "es", "it", "pt", "ru", "zh", "ja", "ar")
LEAST = 0.65
"""The filter's `min_score` by default."""
Labelled = list[tuple[str, str]]


def sentences() -> dict[str, Labelled]:
    """(language, text) of lingua's sentences, Tatoeba's, and the articles of the declaration of human rights."""
    folder = SHARED / "6_langid"
    lingua, articles = (
        [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
        for name in ("lingua_sentences.jsonl", "udhr.jsonl")
    )
    tatoeba = [line.split("\t") for line in (folder / "tatoeba_10lang.tsv").read_text(encoding="utf-8").splitlines()]
    return {
        "lingua": [(short_code(row["lang"]), row["text"]) for row in lingua],
        "tatoeba": [(short_code(language), text) for _, language, text in tatoeba],
        "articles": [(short_code(row["iso639_3"]), row["text"]) for row in articles],
    }


def right(chosen: LanguageFilter, labelled: Labelled) -> tuple[Counter[str], int, float]:
    """Of each language how many are labelled rightly; how many of them with the default score at least; seconds."""
    docs = Docs(pa.array([text for _, text in labelled], pa.string()))
    chosen.measure(docs)  # imports and models are not counted
    started = time.process_time()
    measures = chosen.measure(docs).to_pydict()
    seconds = time.process_time() - started
    answers = zip(labelled, measures["language"], measures["language_score"], strict=True)
    hits = [(language, score) for (language, _), label, score in answers if label == language]
    return Counter(language for language, _ in hits), sum(score >= LEAST for _, score in hits), seconds


def main() -> None:
    """Prints a row of percentages an identifier."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--glotlid", metavar="FILE")
    glotlid = parser.parse_args().glotlid
    material = sentences()
    whole = {name: len(labelled) for name, labelled in material.items()}
    print("| identifier | labels |", " | ".join(MAIN), "| 75 languages | of them at .65 | Tatoeba | articles | us |")
    for name in get_args(Name):
        path = glotlid if name == "glotlid" else None
        chosen = LanguageFilter((), None, path, name)
        try:
            labels = identifier(name, path).labels
        except (ValueError, RuntimeError) as error:
            print(f"{name}: {error}")
            continue
        by_set = {key: right(chosen, labelled) for key, labelled in material.items()}
        hits, sure, seconds = by_set["lingua"]
        shares = [f"{100 * sum(by_set[key][0].values()) / whole[key]:.1f}" for key in ("tatoeba", "articles")]
        cells = [
            name,
            str(len(labels)),
            *(str(hits[language]) for language in MAIN),
            f"{100 * sum(hits.values()) / whole['lingua']:.1f}",
            f"{100 * sure / whole['lingua']:.1f}",
            *shares,
            f"{1e6 * seconds / whole['lingua']:.0f}",
        ]
        print("|", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
