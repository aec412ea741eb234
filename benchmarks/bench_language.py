"""How much faster is a line labelled with its language here than by fastText's library, with the same model?

Both get the same lines in one batch: the windows that the language filter cuts of every text. Labels and probabilities
of all have to be equal, to the last bit. The filter with all that it does, windows cut and levelled, is compared with
the same filter that asks the library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from benchmarks.fast_text import open_model
from benchmarks.harness import Arm, Report, Row, contest, figure, require_equal
from benchmarks.material import SHARED, texts
from gristmill.filters import language, lid
from gristmill.filters.fast_text.file import LABEL_PREFIX
from gristmill.filters.identify.base import LABELS
from gristmill.filters.language import LanguageFilter
from gristmill.filters.text.docs import Docs


def material(tiny: bool) -> tuple[str, list[str]]:
    """Where the texts are from, and the texts: documents, and sentences in 75 languages."""
    source, documents = texts(tiny)
    sentences = SHARED / "6_langid" / "lingua_sentences.jsonl"
    if tiny or not sentences.is_file():
        return source, documents
    lines = sentences.read_text(encoding="utf-8").splitlines()
    return f"{source}, 6_langid", documents + [json.loads(line)["text"] for line in lines]


class ByLibrary:
    """lid.176 as the library runs it."""

    def __init__(self) -> None:
        self.model = open_model(lid.SHIPPED)
        self.labels = frozenset(label.removeprefix(LABEL_PREFIX) for label in self.model.get_labels())

    def best(self, lines: Sequence[str]) -> list[Mapping[str, float]]:
        """As in `Identifier`."""
        labels, scores = self.model.predict(list(lines), k=LABELS)
        return [
            {label.removeprefix(LABEL_PREFIX): score for label, score in zip(*pair, strict=True)}
            for pair in zip(labels, scores, strict=True)
        ]


class LibraryFilter(LanguageFilter):
    """The filter as it would be with the library."""

    by_library: ClassVar[ByLibrary]

    def _checked(self) -> ByLibrary:
        return self.by_library


def by_filter(chosen: LanguageFilter, docs: Docs) -> dict[str, list[Any]]:
    """What the filter measures."""
    measures: dict[str, list[Any]] = chosen.measure(docs).to_pydict()
    return measures


def check(outcomes: Mapping[str, Any]) -> None:
    """Raises Differ where a label or a bit of a probability is another."""
    labels, scores = outcomes["kernel"]
    names = lid.load_model(lid.SHIPPED).labels
    named = [tuple(names[label] for label in of_line if label >= 0) for of_line in labels]
    require_equal("language: labels", [tuple(of_line) for of_line in outcomes["library"][0]], named)
    known = [row[of_line >= 0].tolist() for of_line, row in zip(labels, scores, strict=True)]
    require_equal("language: probabilities", [row.tolist() for row in outcomes["library"][1]], known)
    require_equal("language: measures", [outcomes["filter, library"]], [outcomes["filter"]])


def run(tiny: bool) -> Report:
    """The report; `tiny` on generated texts."""
    source, documents = material(tiny)
    rounds = 1 if tiny else 9
    lines = [window for text in documents for window in language._windows(text)]
    LibraryFilter.by_library = library = ByLibrary()
    model = lid.load_model(lid.SHIPPED)
    docs = Docs(pa.array(documents, pa.string()))
    times = contest(
        {
            "library": Arm(lambda: library.model.predict(lines, k=LABELS)),
            "kernel": Arm(lambda: model.best(pa.array(lines, pa.large_string()), LABELS)),
            "filter, library": Arm(lambda: by_filter(LibraryFilter(keep=(), min_score=None), docs)),
            "filter": Arm(lambda: by_filter(LanguageFilter(keep=(), min_score=None), docs)),
        },
        rounds,
        check,
    )
    megabytes = sum(len(text.encode()) for text in documents) / 1e6
    same = f"labels and probabilities of all {len(lines)} lines, to the last bit"
    rates = figure([megabytes / seconds for seconds in times.cpu["filter"]])
    return Report(
        name="language",
        data=source,
        rounds=rounds,
        rows=(
            Row("languages of lines, over fastText's library", times.ratio("library", "kernel"), "x", same),
            Row("the filter over whole texts, windows cut too", times.ratio("filter, library", "filter"), "x", same),
            Row("the filter", rates, "MB/s"),
        ),
        details={
            "texts": len(documents),
            "lines": len(lines),
            "characters": sum(map(len, lines)),
            "cpu_seconds": {name: times.seconds(name).median for name in times.cpu},
        },
    )
