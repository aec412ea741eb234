"""Trains a text classifier on positives and negatives that were read before, and says what it is worth.

One Work: fastText trains on one machine. A share of the documents, by their hash, is kept apart, and the model is
judged by it. Left out are documents that both sides have, and those that share words with a text that is held out.
Everything is in the order of hashes, so that the same texts give the same bytes, whatever files they came in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.filters.classify.learn import FastText
from gristmill.filters.classify.model import NEGATIVE, POSITIVE, Model, parsed
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_file, put_refs, read_refs, read_table, scratch
from gristmill.model.evaluate.ranking import Ranking, ranking
from gristmill.stages.classify.texts import SCHEMA
from gristmill.stages.core.work import Outcome, Stage, Work

CLASSIFIER = "classifier"
"""Kind of a model's object: fastText's own file."""
LEAST = 20
"""Documents of a side to train on: fewer are no classifier."""
BOTH, HELD_OUT, BLANK, NOT_DRAWN = "of_both_sides", "held_out", "without_words", "not_drawn"
"""Why a document is not trained on."""


@dataclass(frozen=True)
class Sides:
    """Tables of texts (list objects) of documents that are wanted, and of others."""

    positives: ObjectRef
    negatives: ObjectRef


@dataclass(frozen=True)
class ClassifierFacts:
    """`positives`, `negatives`: documents trained on; `lines`: windows of theirs; `left_out`: reason -> documents;
    `seed`: the one that it was trained with, None where a side has too few documents; `held`: the model's ranking of
    documents kept apart, None where there are none of a side."""

    positives: int
    negatives: int
    lines: int
    left_out: dict[str, int]
    seed: int | None
    held: dict[str, Any] | None


class _Document(NamedTuple):
    content: str
    label: str
    characters: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class TrainClassifier(Stage[Sides]):
    """Output `classifier`, a fastText model with the labels `positive` and `negative`. `hold_out`: the share of
    documents that it is judged by; `most`: documents of a side, the others are not drawn."""

    name: ClassVar[str] = "train_classifier"
    VERSION: ClassVar[int] = 1

    fast_text: FastText = field(default_factory=FastText)
    hold_out: float = 0.1
    most: int = 200_000

    def __post_init__(self) -> None:
        if not 0 <= self.hold_out < 1:
            raise ValueError(f"hold_out={self.hold_out}: allowed is a share from 0, below 1")
        if self.most < LEAST:
            raise ValueError(f"most={self.most}: allowed are {LEAST} documents or more")

    def run(self, store: Store, work: Work[Sides]) -> Outcome:
        """Facts: ClassifierFacts. No output where a side has fewer than LEAST documents to train on. All texts are in
        memory. Raises NotTrained, DamagedObject."""
        left_out: Counter[str] = Counter()
        documents = self._documents(store, work.payload, left_out)
        apart = {document.content for document in documents if _draw(document.content) < self.hold_out}
        trained_on = [document for document in documents if document.content not in apart]
        counts = Counter(document.label for document in trained_on)
        lines = [(document.label, line) for document in trained_on for line in document.lines]
        facts = ClassifierFacts(
            positives=counts[POSITIVE],
            negatives=counts[NEGATIVE],
            lines=len(lines),
            left_out={reason: count for reason, count in sorted(left_out.items()) if count},
            seed=None,
            held=None,
        )
        if min(facts.positives, facts.negatives) < LEAST:
            return Outcome(outputs=(), received=Tally(), facts=facts)
        model = self.fast_text.train(lines)
        held = judged(parsed(model.data), [document for document in documents if document.content in apart])
        with scratch() as folder:
            path = folder / "model.bin"
            path.write_bytes(model.data)
            ref = put_file(store, CLASSIFIER, path, 1)
        facts = replace(facts, seed=model.seed, held=None if held is None else as_json(held))
        return Outcome(outputs=(ref,), received=Tally(), facts=facts)

    def _documents(self, store: Store, sides: Sides, left_out: Counter[str]) -> list[_Document]:
        """Those that can be trained on, in order of their hashes."""
        by_side = {POSITIVE: _rows(store, sides.positives), NEGATIVE: _rows(store, sides.negatives)}
        both = by_side[POSITIVE].keys() & by_side[NEGATIVE].keys()
        left_out[BOTH] += len(both)
        documents: list[_Document] = []
        for label, rows in by_side.items():
            usable: list[_Document] = []
            for content, row in sorted(rows.items()):
                if content in both:
                    continue
                if row["held_out"] or not row["lines"]:
                    left_out[HELD_OUT if row["held_out"] else BLANK] += 1
                    continue
                usable.append(_Document(content, label, row["characters"], tuple(row["lines"])))
            left_out[NOT_DRAWN] += max(0, len(usable) - self.most)
            documents += usable[: self.most]
        return sorted(documents)


def _rows(store: Store, tables: ObjectRef) -> dict[str, dict[str, Any]]:
    """Content hash -> row of SCHEMA, of all tables of a side."""
    parts = [SCHEMA.empty_table(), *(read_table(store, ref) for ref in read_refs(store, tables))]
    return {row["content"]: row for row in pa.concat_tables(parts).to_pylist()}


def _draw(content: str) -> float:
    """A number in [0, 1) by the end of a hash; its beginning decides who is drawn at all."""
    return int(content[-8:], 16) / 2.0**32


def judged(model: Model, documents: list[_Document]) -> Ranking | None:
    """What the model makes of documents with labels; None where one side has none that can be scored."""
    scores = np.array([mean_score(model, document.lines, POSITIVE) for document in documents])
    known = [number for number, score in enumerate(scores) if not np.isnan(score)]
    labels = [documents[number].label == POSITIVE for number in known]
    if not any(labels) or all(labels):
        return None
    return ranking(labels, scores[known], [documents[number].characters for number in known])


def mean_score(model: Model, lines: tuple[str, ...], label: str) -> float:
    """The mean over a document's windows, as filters/classify/filter.py has it; NaN without a known word."""
    scores = model.scores(lines, label)
    known = scores[~np.isnan(scores)]
    return float(known.mean()) if len(known) else float("nan")


def as_json(report: Ranking) -> dict[str, Any]:
    """A ranking for a manifest and for people: estimates as {value, low, high}, to 4 decimals."""
    shown: dict[str, Any] = {}
    for name, value in vars(report).items():
        if name == "thresholds":
            shown[name] = [{key: _plain(part) for key, part in vars(row).items()} for row in value]
        else:
            shown[name] = _plain(value)
    return shown


def _plain(value: Any) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(part) for name, part in value._asdict().items()}
    return round(value, 4) if isinstance(value, float) else value


def train_work(
    stage: TrainClassifier, store: Store, positives: list[ObjectRef], negatives: list[ObjectRef]
) -> Work[Sides]:
    """The one Work of a training."""
    sides = Sides(put_refs(store, positives), put_refs(store, negatives))
    digests = (sides.positives.sha256, sides.negatives.sha256)
    return Work(stage, digests, sides, Tally(), label=f"{len(positives) + len(negatives)} tables of texts")


def statistics(facts: ClassifierFacts) -> Mapping[str, Any]:
    """For a manifest."""
    return {"classifier": vars(facts)}
