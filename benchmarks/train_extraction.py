"""Trains the model of `filters.extraction`: `python benchmarks/train_extraction.py DATA [--votes FILE] [--write]`.

DATA is the folder with 2_pages and 1_crawl. Labels are of blocks: on pages with a whole text, whether a block stands in
it; on the others, the share of extractors that keep it (trafilatura twice, as it is and precise, and Readability), with
little weight; a snippet that a person marked counts most, whatever the extractors say. The report is a cross-validation
in which all pages of a host are in one fold. The same pages and votes give the same model, bit for bit.

Needs `pip install lightgbm trafilatura readability-lxml`, which gristmill itself does not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.extraction_pages import Page, letters_of, marked_pages, score, unmarked_pages, words_of
from gristmill.filters.extraction import columns as c
from gristmill.filters.extraction import extractor
from gristmill.filters.extraction.model import SHIPPED, TYPES, Forest, Model, stored

FOLDS = 5
SHARES = (0.3, 0.35, 0.4, 0.45, 0.5)
"""Thresholds that are tried."""
LONG = 25
"""Letters from which a block's text is looked for anywhere; a shorter one may stand there by accident."""
FIRST = {"num_iterations": 150, "learning_rate": 0.05, "num_leaves": 24, "feature_fraction": 0.2, "seed": 1}
SECOND = {"num_iterations": 100, "learning_rate": 0.06, "num_leaves": 16, "feature_fraction": 0.3, "seed": 2}
BOTH = {
    "objective": "cross_entropy",  # labels may be shares
    "lambda_l2": 5.0,
    "min_data_in_leaf": 40,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


@dataclass
class Example:
    """A page in blocks, with features as `extractor.features` has them, labels 0 to 1 and weights [blocks]."""

    page: Page
    blocks: extractor.Blocks
    features: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    early: np.ndarray

    @property
    def fold(self) -> int:
        """By the host's name, so that it is the same in every run and for every page of it."""
        return zlib.crc32(self.page.host.removeprefix("www.").encode()) % FOLDS


def main(arguments: Sequence[str]) -> int:
    """Trains, prints the cross-validation, and writes the model if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("data", type=Path, help="folder with 2_pages and 1_crawl")
    parser.add_argument("--votes", type=Path, help="file that keeps what the other extractors answered, by page")
    parser.add_argument("--weak", action="store_true", help="also pages of 1_crawl, which nobody has marked")
    parser.add_argument("--write", action="store_true", help=f"write {SHIPPED.name}")
    given = parser.parse_args(arguments)
    pages = marked_pages(given.data)
    weak = unmarked_pages(given.data) if given.weak else []
    votes = voted([*(page for page in pages if not page.main_text), *weak], given.votes)
    examples = [example(page, votes.get(page.url, ())) for page in (*pages, *weak)]
    examples = [each for each in examples if len(each.labels)]
    print(f"{len(examples)} pages, {sum(len(each.labels) for each in examples)} blocks", flush=True)
    share = best_share(examples, unseen(examples))
    if given.write:
        SHIPPED.write_bytes(stored(trained(examples, share)))
        print(f"wrote {SHIPPED.name}, sha256 {hashlib.sha256(SHIPPED.read_bytes()).hexdigest()}")
    return 0


# Labels


def voted(pages: Sequence[Page], cache: Path | None) -> dict[str, list[str]]:
    """What the other extractors keep of each page, URL -> texts; from `cache` where it has them."""
    known: dict[str, list[str]] = json.loads(cache.read_text()) if cache and cache.is_file() else {}
    for page in pages:
        if page.url not in known:
            known[page.url] = answers(page.html)
    if cache:
        cache.write_text(json.dumps(known))
    return known


def answers(html: str) -> list[str]:
    """The main text by trafilatura, by trafilatura's precise setting and by Readability; what cannot read a page has no
    vote. Others leak more than these, and would teach it: resiliparse, boilerpy3."""
    import trafilatura
    from readability import Document
    from resiliparse.extract.html2text import extract_plain_text

    texts = [
        trafilatura.extract(html, include_comments=False, favor_precision=is_precise) or ""
        for is_precise in (False, True)
    ]
    try:
        texts.append(extract_plain_text(Document(html).summary(), main_content=False))
    except Exception as error:
        print(f"readability: {type(error).__name__}", file=sys.stderr)
    return [text for text in texts if text.strip()]


def example(page: Page, votes: Sequence[str]) -> Example:
    """The page's blocks with their labels."""
    blocks = extractor.segment(page.html.encode("utf-8", "replace"))
    texts = [blocks.text[row[c.START] : row[c.END]].tobytes().decode("utf-8", "replace") for row in blocks.rows]
    if page.main_text:
        labels, weights = aligned(texts, page.main_text), np.ones(len(texts))
    else:
        labels = np.mean([kept_by(texts, vote) for vote in votes], 0) if votes else np.zeros(len(texts))
        weights = np.where((labels > 0.25) & (labels < 0.75), 0.15, 0.35) * bool(len(votes))
    for snippets, label in ((page.keeps, 1.0), (page.drops, 0.0)):
        for snippet in snippets:
            at = blocks_with(snippet, texts)
            if label and len(at) > 1:  # a text to keep may stand in a teaser too
                at = [max(at, key=lambda block: labels[block])]
            labels[at], weights[at] = label, 3.0
    features = extractor.features(blocks)
    # A page with thousands of blocks counts like several, not like hundreds.
    weights = weights * np.sqrt(np.log2(2.0 + blocks.rows[:, c.CHARS])) * min(1.0, 12.0 / np.sqrt(max(len(texts), 1)))
    return Example(page, blocks, features, labels, weights, np.zeros(len(texts)))


def aligned(texts: Sequence[str], wanted: str) -> np.ndarray:
    """1 for each block that stands in the wanted text, 0 for each other: long ones anywhere, short ones right behind
    what stood there before. A long one that stands there in part: 1 from six tenths of its triples of words on."""
    whole, words = letters_of(wanted), words_of(wanted)
    triples = set(zip(words, words[1:], words[2:], strict=False))
    labels, reached = np.zeros(len(texts)), 0
    for number, text in enumerate(texts):
        letters = letters_of(text)
        if not letters:
            continue
        near = (reached, reached + len(letters) + 40)
        at = whole.find(letters, *near) if len(letters) < LONG else whole.find(letters)
        if at >= 0:
            labels[number], reached = 1.0, at + len(letters)
        elif len(letters) >= LONG:
            words = words_of(text)
            own = list(zip(words, words[1:], words[2:], strict=False))
            labels[number] = float(np.mean([triple in triples for triple in own]) >= 0.6) if own else 0.0
    return labels


def kept_by(texts: Sequence[str], kept: str) -> np.ndarray:
    """1 for each block that an extractor kept: a long one anywhere in its text, a short one as a line of it."""
    whole, lines = letters_of(kept), {letters_of(line) for line in kept.split("\n")}
    letters = [letters_of(text) for text in texts]
    return np.array([float(each in whole if len(each) >= LONG else each in lines) for each in letters])


def blocks_with(snippet: str, texts: Sequence[str]) -> list[int]:
    """The blocks that a snippet stands in; of one that goes over several, those that stand in it."""
    wanted = " ".join(snippet.split())
    plain = [" ".join(text.split()) for text in texts]
    at = [number for number, text in enumerate(plain) if wanted in text]
    if at or len(wanted) <= 10:
        return at
    for first in range(len(plain) - 1):
        if wanted in " ".join(plain[first : first + 3]):
            near = range(first, min(first + 3, len(plain)))
            return [number for number in near if letters_of(plain[number]) and plain[number] in wanted]
    return []


# Training


def fitted(examples: Sequence[Example], settings: dict[str, Any], width: int) -> Any:
    """A booster over the first `width` features."""
    import lightgbm

    table = lightgbm.Dataset(
        np.concatenate([each.features[:width, : len(each.labels)].T for each in examples]),
        np.concatenate([each.labels for each in examples]),
        weight=np.concatenate([each.weights for each in examples]),
        free_raw_data=False,
    )
    return lightgbm.train({**BOTH, **settings}, table)


def forest_of(booster: Any) -> Forest:
    """A booster as arrays. Thresholds are rounded down to float32: a value is at most a number if and only if it is at
    most the greatest float32 that is not above it."""
    rows: list[tuple[int, float, int, int, float]] = []

    def add(node: dict[str, Any]) -> int:
        at = len(rows)
        rows.append((-1, 0.0, 0, 0, node.get("leaf_value", 0.0)))
        if "leaf_value" not in node:
            left, right = add(node["left_child"]), add(node["right_child"])
            rows[at] = (node["split_feature"], rounded_down(node["threshold"]), left, right, 0.0)
        return at

    roots = [add(tree["tree_structure"]) for tree in booster.dump_model()["tree_info"]]
    arrays = [np.array(column, dtype) for column, dtype in zip(zip(*rows, strict=True), TYPES, strict=False)]
    return Forest(*[*arrays, np.array(roots, TYPES[-1])])


def rounded_down(value: float) -> float:
    """The greatest float32 that is not above."""
    rounded = np.float32(value)
    return float(np.nextafter(rounded, np.float32(-np.inf)) if float(rounded) > value else rounded)


def trained(examples: Sequence[Example], share: float) -> Model:
    """The model of all pages: the second forest learns from what first forests say that have not seen the page."""
    first = forest_of(fitted(examples, FIRST, c.FEATURES))
    second = forest_of(fitted(examples, SECOND, c.FEATURES + c.CONTEXT))  # the context is in place: `unseen`
    return Model(first, second, share)


def unseen(examples: Sequence[Example]) -> list[np.ndarray]:
    """Each block's chance, float64 [blocks] a page, from forests that have not seen the page's host; fills contexts.

    First each page gets its context from a forest without its fold; then the second forests are trained on these, each
    without the fold that it judges. What they know of that fold is only through the first forests of others.
    """
    for fold in range(FOLDS):
        forest = forest_of(fitted([each for each in examples if each.fold != fold], FIRST, c.FEATURES))
        for each in examples:
            if each.fold == fold:
                extractor.add_context(each.blocks, forest, each.features, each.early)
        print(f"first forest without fold {fold}", flush=True)
    chances = [np.zeros(len(each.labels)) for each in examples]
    for fold in range(FOLDS):
        forest = forest_of(fitted([each for each in examples if each.fold != fold], SECOND, c.FEATURES + c.CONTEXT))
        for each, own in zip(examples, chances, strict=True):
            if each.fold == fold:
                extractor.grown(each.features, forest, own)
        print(f"second forest without fold {fold}", flush=True)
    return chances


def best_share(examples: Sequence[Example], chances: Sequence[np.ndarray]) -> float:
    """The best threshold; prints the score at each, and what the labels themselves would come to."""
    pages = [each.page for each in examples]
    perfect = {each.page.url: extractor.assembled(each.blocks, each.labels > 0.5) for each in examples}
    print(f"labels: {score(pages, perfect)}", flush=True)
    best = (0.0, SHARES[0])
    for share in SHARES:
        texts = {each.page.url: text_of(each, own, share) for each, own in zip(examples, chances, strict=True)}
        result = score(pages, texts)
        print(f"share {share}: {result}", flush=True)
        best = max(best, (result.f1, share))
    return best[1]


def text_of(each: Example, chances: np.ndarray, share: float) -> str:
    """What is kept of a page at a threshold."""
    return extractor.assembled(each.blocks, extractor.kept(each.blocks, chances, share))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
