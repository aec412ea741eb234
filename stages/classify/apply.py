"""A model's scores of texts outside a run, for `grist classifier apply` and `eval`. Nothing is committed.

Texts are those of versions or of files, scored as a filter scores them. What is labelled is ranked: positives and
negatives by themselves, or rows of JSON lines that say which they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from gristmill.filters.classify.filter import Quality
from gristmill.filters.classify.model import digest
from gristmill.filters.classify.windows import Windows
from gristmill.filters.text.docs import Docs
from gristmill.lake.query.query import resolve_usable
from gristmill.lake.store.objects import iter_batches
from gristmill.lake.versions.markers import is_exact
from gristmill.lake.versions.versions import Versions
from gristmill.model.evaluate.ranking import ranking
from gristmill.stages.classify.texts import TextOrigin, file_texts
from gristmill.stages.classify.train import as_json
from gristmill.stages.gates.texts import Samples
from gristmill.stages.mix.tokenize import text_shards
from gristmill.stages.read.listing import find_inputs
from gristmill.stages.text.screen import object_reader

SCORES = pa.schema([("id", pa.string()), ("characters", pa.int64()), ("score", pa.float32())])
"""`id`: of a version its record's, of a file PATH:RECORD from 0; `score`: null where there is no known word."""
_ROWS = 1024
_POSITIVE = frozenset({"1", "1.0", "true", "positive", "pos", "yes"})
_NEGATIVE = frozenset({"0", "0.0", "-1", "false", "negative", "neg", "no"})


@dataclass(frozen=True)
class Labelled:
    """What a model is compared with: texts of either kind, and files of JSON lines whose field `label_field` says
    which a row is."""

    positives: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    label_field: str = "label"


class _Batch(NamedTuple):
    ids: list[str]
    docs: Docs


def scored(versions: Versions, model: str, texts: Sequence[str], *, label: str, field: str) -> pa.Table:
    """SCORES of every text of versions and files, in their order.

    Raises NoSuchVersion, ValueError for what is no classifier, has no texts or lacks the label, OSError.
    """
    classifier = opened(versions, model, label)
    tables = [SCORES.empty_table(), *(_scores(classifier, batch) for batch in _batches(versions, texts, field))]
    return pa.concat_tables(tables)


def evaluated(versions: Versions, model: str, asked: Labelled, *, label: str, field: str) -> dict[str, Any]:
    """`model`, `sha256`, `unscored` texts, and what `model.evaluate.ranking.Ranking` says of the others. Raises as
    `scored`, and ValueError unless there are positives and negatives."""
    classifier = opened(versions, model, label)
    labels: list[bool] = []
    tables: list[pa.Table] = [SCORES.empty_table()]
    sides = ((True, _batches(versions, asked.positives, field)), (False, _batches(versions, asked.negatives, field)))
    for positive, batches in sides:
        for batch in batches:
            tables.append(_scores(classifier, batch))
            labels += [positive] * len(batch.ids)
    for path in asked.files:
        rows = list(_labelled_rows(path, asked.label_field, field))
        docs = Docs(pa.array([text for text, _ in rows], pa.string()))
        tables.append(_scores(classifier, _Batch([f"{path}:{number}" for number in range(len(rows))], docs)))
        labels += [positive for _, positive in rows]
    table = pa.concat_tables(tables).append_column("positive", pa.array(labels, pa.bool_()))
    known = table.filter(table["score"].is_valid())
    report = ranking(*(known[name].to_numpy() for name in ("positive", "score", "characters")))
    about = {"model": model, "sha256": classifier.model_digest(), "unscored": table.num_rows - known.num_rows}
    return about | as_json(report)


def opened(versions: Versions, model: str, label: str) -> Quality:
    """A filter that drops nothing, ready to score. Raises as `scored`."""
    classifier = Quality(model, label=label, min_score=None)
    if not classifier.is_version:
        classifier = Quality(model, label=label, min_score=None, sha256=digest(model))
        classifier.check()
        return classifier
    manifest = resolve_usable(versions, model)
    if manifest.form != "classifier":
        raise ValueError(
            f"{manifest} holds {manifest.layout.called}, no classifier; `grist classifier train` makes one"
        )
    windows, sha256 = Windows(**manifest.recipe["windows"]), manifest.shards[0].sha256
    classifier = Quality(model, label=label, windows=windows, sha256=sha256, min_score=None)
    return classifier.with_objects(object_reader(versions.store))


def _scores(classifier: Quality, batch: _Batch) -> pa.Table:
    characters = [len(text) for text in batch.docs.strings]
    return pa.table([pa.array(batch.ids, pa.string()), characters, classifier.scores(batch.docs)], schema=SCORES)


def _batches(versions: Versions, names: Iterable[str], field: str) -> Iterator[_Batch]:
    """The texts of versions and files, without those that are blank."""
    for name in names:
        if is_exact(name):
            yield from _of_version(versions, name)
            continue
        for uri in find_inputs([name]):
            yield from _of_file(uri, field)


def _of_version(versions: Versions, name: str) -> Iterator[_Batch]:
    for texts in text_shards(resolve_usable(versions, name)):
        kind = Samples if texts.samples else Docs
        columns = [*kind.columns, "id"]
        for batch in iter_batches(versions.store, texts.shard, columns):
            yield _Batch(batch["id"].to_pylist(), kind.of(batch))


def _of_file(uri: str, field: str) -> Iterator[_Batch]:
    numbered = [
        (f"{uri}:{number}", text) for number, text in enumerate(file_texts(TextOrigin("", uri=uri, field=field)))
    ]
    known = [(name, text) for name, text in numbered if text is not None]
    for first in range(0, len(known), _ROWS):
        part = known[first : first + _ROWS]
        yield _Batch([name for name, _ in part], Docs(pa.array([text for _, text in part], pa.string())))


def _labelled_rows(path: str, label_field: str, field: str) -> Iterator[tuple[str, bool]]:
    """(text, whether positive) of rows of JSON. Raises ValueError for a row that has not both."""
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        row = json.loads(line)
        given = str(row.get(label_field)).lower() if isinstance(row, dict) else ""
        if given not in _POSITIVE | _NEGATIVE:
            raise ValueError(
                f"{path}, line {number}: {label_field!r} is {given[:40]!r}; allowed are 1, true, positive and 0, false,"
                " negative"
            )
        if not isinstance(text := row.get(field), str):
            raise ValueError(f"{path}, line {number}: no text in its field {field!r}")
        yield text, given in _POSITIVE
