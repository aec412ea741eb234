"""What every filter has to do, in one table: a new filter adds one row to FILTERS and nothing else here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import classifiers
import pyarrow as pa
import pytest

from gristmill.filters.base import Filter, above, below, first_reason
from gristmill.filters.c4 import C4Quality
from gristmill.filters.classify.filter import Quality, Toxicity
from gristmill.filters.classify.words import ToxicWords
from gristmill.filters.datatrove_filter import DatatroveFilter
from gristmill.filters.decontaminate import Decontaminate
from gristmill.filters.fineweb import FineWebQuality
from gristmill.filters.gopher import GopherQuality
from gristmill.filters.language import LanguageFilter
from gristmill.filters.language_quality import LanguageQuality
from gristmill.filters.repetition import GopherRepetition
from gristmill.filters.rights import COLUMNS, DeclaredDocs, Rights
from gristmill.filters.text.docs import Docs
from gristmill.filters.url import UrlRules
from gristmill.pipelines.web import WebRecipe

FILTERS: list[Filter[Docs]] = [
    LanguageFilter(),
    GopherQuality(),
    GopherRepetition(),
    C4Quality(),
    FineWebQuality(),
    LanguageQuality(),
    UrlRules(),
    Rights(),
    DatatroveFilter("GopherQualityFilter"),
    Quality(classifiers.model_path(), min_score=0.9),
    ToxicWords(max_vulgar=0.01),
    Toxicity(classifiers.model_path(), max_score=0.9),
    Decontaminate((str(Path(__file__).parent / "millers.jsonl"),)),
]

GOOD = "The miller took the grain that we brought to the mill, and ground it with a stone of granite. " * 5
TEXTS = [
    GOOD,
    "",
    "too short",
    "Der Müller mahlt das Korn zu Mehl und verkauft es auf dem Markt. " * 9,
    "foo:) ) IS_ALPHA \x00 \u2028 中文 shit",
    "# " * 60 + GOOD,
    "- the mill\n" * 60,
    " \n ",
]
LANGUAGES = ["en", None, "en", "de", "en", "en", "en", None]

every_filter = pytest.mark.parametrize("filter_", FILTERS, ids=lambda filter_: filter_.name)


def test_every_filter_of_a_pipeline_is_in_the_table() -> None:
    off = ("url", "rights", "gopher_repetition", "c4_quality", "fineweb_quality", "language_quality", "toxic_words")
    model = {"model": classifiers.model_path()}
    named = {"datatrove": {"filter": "FineWebQualityFilter"}, "decontaminate": {"benchmarks": ["millers.jsonl"]}}
    models = {"quality": model, "toxicity": model}
    recipe = WebRecipe.model_validate({**{name: {} for name in off}, **named, **models})
    assert {type(filter_) for filter_ in recipe.screen.filters} == {type(filter_) for filter_ in FILTERS}


def batch(start: int = 0, end: int = len(TEXTS)) -> Docs:
    urls = [f"https://{'xxx.' if row == 3 else ''}example.org/{row}" for row in range(start, end)]
    labels = pa.array(LANGUAGES[start:end], pa.string())
    nothing = pa.nulls(end - start, pa.string())
    robots = pa.array(["noai" if row == 5 else None for row in range(start, end)], pa.string())
    columns = {"text": pa.array(TEXTS[start:end], pa.string()), "url": pa.array(urls, pa.string())}
    declared = dict.fromkeys(COLUMNS, nothing) | {"robots": robots}
    docs = DeclaredDocs.of(pa.record_batch(columns | declared))
    docs.languages = labels
    return docs


@every_filter
def test_one_verdict_a_document_and_the_text_untouched(filter_: Filter) -> None:
    docs = batch()
    verdicts = filter_.judge(docs)
    assert isinstance(verdicts, pa.StringArray)
    assert len(verdicts) == len(TEXTS)
    assert docs.texts.to_pylist() == docs.strings == TEXTS


@every_filter
def test_the_table_has_a_kept_and_a_dropped_document(filter_: Filter) -> None:
    verdicts = filter_.judge(batch())
    assert 0 < verdicts.null_count < len(TEXTS)


@every_filter
def test_one_by_one_is_one_batch(filter_: Filter) -> None:
    together = filter_.measure(batch())
    alone = [filter_.measure(batch(row, row + 1)) for row in range(len(TEXTS))]
    assert pa.Table.from_batches(alone).equals(pa.Table.from_batches([together]))
    verdicts = [filter_.judge(batch(row, row + 1)) for row in range(len(TEXTS))]
    assert pa.concat_arrays(verdicts).equals(filter_.judge(batch()))


@every_filter
def test_an_empty_batch(filter_: Filter) -> None:
    measures = filter_.measure(batch(0, 0))
    assert measures.num_rows == 0
    assert measures.schema == filter_.measure(batch()).schema
    assert filter_.judge(batch(0, 0)).equals(pa.array([], pa.string()))


@every_filter
def test_judging_is_measure_and_rule_and_twice_is_once(filter_: Filter) -> None:
    docs = batch()
    first = filter_.judge(docs)
    assert filter_.rule(filter_.measure(docs)).equals(first)
    assert filter_.judge(batch()).equals(first)


@every_filter
def test_every_reason_has_its_evidence(filter_: Filter) -> None:
    measures = filter_.measure(batch())
    assert set(filter_.evidence.values()) <= set(measures.schema.names)
    for verdict in filter_.judge(batch()).drop_null().to_pylist():
        name, _, reason = verdict.partition(".")
        assert name == filter_.name
        assert reason in filter_.evidence or isinstance(filter_, DatatroveFilter)  # whose reasons nobody lists


@every_filter
def test_a_frozen_dataclass_with_a_name_and_a_version(filter_: Filter) -> None:
    assert dataclasses.is_dataclass(filter_)
    with pytest.raises(dataclasses.FrozenInstanceError):
        filter_.name = "other"
    assert filter_.VERSION >= 1
    hash(filter_)


def test_names_are_different() -> None:
    assert len({filter_.name for filter_ in FILTERS}) == len(FILTERS)


def test_first_reason_is_the_first() -> None:
    values = pa.array([1.0, 5.0, None, 9.0])
    tests = [("low", below(values, 2)), ("high", above(values, 4)), ("off", above(values, None))]
    assert first_reason("f", 4, tests).to_pylist() == ["f.low", "f.high", None, "f.high"]


def test_docs_refuse_what_they_cannot_hold() -> None:
    texts = pa.array(["a", "b"])
    with pytest.raises(ValueError, match="1 of 2 texts are null"):
        Docs(pa.array(["a", None]))
    with pytest.raises(ValueError, match="1 urls for 2 texts"):
        Docs(texts, urls=pa.array(["u"]))
    with pytest.raises(TypeError, match="texts is a list"):
        Docs(["a"])
    with pytest.raises(TypeError, match="languages is a NullArray"):
        Docs(texts, languages=pa.nulls(2))


def test_words_and_symbols_are_computed_once() -> None:
    docs = batch()
    rows = docs.rows_in(("en",))
    assert docs.words(rows) is docs.words(rows.copy())
    assert docs.words(rows).n_tokens[3] == 0  # not in the rows asked for
    assert docs.words().n_tokens[3] > 0
    assert docs.symbols(rows) is docs.symbols(rows.copy())
    assert docs.symbols(rows).n_lines.tolist()[3:] == [0, 2, 1, 60, 0]
