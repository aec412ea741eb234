"""Thresholds on stored measures: a verdict that is replayed is the one that a run with that setting would come to.

Over every field of every filter: either it is declared to decide what is measured, and then some document is measured
otherwise with another value, or another value of it gives the run's verdicts on the measures of the first.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import classifiers
import pyarrow as pa
import pytest

from gristmill.filters.audio.clip import ClipQuality
from gristmill.filters.audio.transcript import SpeechRate, TranscriptQuality
from gristmill.filters.base import Filter
from gristmill.filters.c4 import C4Quality
from gristmill.filters.classify.filter import Quality, Toxicity
from gristmill.filters.classify.windows import Windows
from gristmill.filters.classify.words import ToxicWords, lists
from gristmill.filters.datatrove_filter import DatatroveFilter
from gristmill.filters.decontaminate import Decontaminate
from gristmill.filters.fineweb import FineWebQuality
from gristmill.filters.gopher import GopherQuality
from gristmill.filters.image.caption import CaptionQuality
from gristmill.filters.image.size import ImageSize
from gristmill.filters.language import LanguageFilter
from gristmill.filters.language_quality import LanguageQuality
from gristmill.filters.repetition import GopherRepetition
from gristmill.filters.rights import Rights
from gristmill.filters.text.docs import Docs
from gristmill.filters.url import UrlRules
from gristmill.pipelines.speech import SpeechRecipe
from gristmill.pipelines.vision import VisionRecipe
from gristmill.pipelines.web import WebRecipe
from tests.filters.test_audio import clips, transcripts
from tests.filters.test_image import captions, pictures

WORDS = "the mill of a river and that have with grain stone wheel miller flour be to water 7 1984 longerwordthanothers"
GERMAN = "die der und das nicht Mühle Korn Mehl Wasser von mit den ein Rad dem 12 zu auf"
MADE_FROM = {"en": WORDS.split(), "de": GERMAN.split()}
PATHS = ("mill", "casino", "free-casino", "sexy-poker", "xxx", "hot")


def _line(rng: random.Random, words: list[str], dirt: float) -> str:
    """A line of some words, with marks that rules count where `dirt` (0 to 1) has it so."""
    spoken = [rng.choice(words) for _ in range(rng.choice((1, 2, 4, 12, 25)))]
    for mark in ("#", "...", "•", "lorem ipsum", "{", "javascript", "privacy policy", "(" * 40, "(" * 1020, "w" * 1100):
        if rng.random() < dirt / 12:
            spoken.insert(rng.randrange(len(spoken) + 1), mark)
    start = "- " if rng.random() < dirt else ""
    return start + " ".join(spoken) + rng.choice((".", ".", "", "...", "?", ".[1]"))


def _text(rng: random.Random, language: str) -> str:
    """Lines in paragraphs, of which some stood before."""
    dirt, repeats = rng.choice((0.0, 0.05, 0.3, 0.9)), rng.choice((0.0, 0.0, 0.1, 0.5))
    vocabulary = rng.sample(MADE_FROM[language], rng.choice((3, 8, len(MADE_FROM[language]))))
    lines: list[str] = []
    for _ in range(rng.choice((1, 3, 9, 30))):
        lines.append(rng.choice(lines) if lines and rng.random() < repeats else _line(rng, vocabulary, dirt))
    return rng.choice(("\n", "\n\n", " ")).join(lines)


def documents(rows: int = 500) -> Docs:
    """Texts of every kind of dirt, the same ones in each call."""
    rng = random.Random(13)
    labels = [rng.choice(("en", "en", "de", None)) for _ in range(rows)]
    texts = ["", "  \n"] + [_text(rng, label or "en") for label in labels[2:]]
    hosts = [rng.choice(("example.org", "10.0.0.1", "porn.example", "mill.example")) for _ in range(rows)]
    urls = [f"https://{host}/{rng.choice(PATHS)}/{rng.choice(PATHS)}" for host in hosts]
    strings = pa.string()
    return Docs(pa.array(texts, strings), urls=pa.array(urls, strings), languages=pa.array(labels, strings))


def coarse() -> Docs:
    """The same with words of the lists, in some."""
    rng, docs = random.Random(5), documents()
    every = [word for words in lists().values() for word in words]
    texts = [f"{text} {rng.choice(every)}" if rng.random() < 0.5 else text for text in docs.strings]
    return Docs(pa.array(texts, pa.string()), docs.urls, docs.languages)


def declared() -> Docs:
    """The same with what their sources declare."""
    rng, docs = random.Random(6), documents()
    columns = {
        "license": [None, "cc-by-4.0", "cc-by-nc-3.0", "all rights reserved", "cc0-1.0; mit"],
        "robots": [None, "noai", "noindex, noai", "ccbot:noindex"],
        "tdm_reservation": [None, "0", "1"],
        "date": [None, "2023", "2024-05-06", "2024-11-29T10:00:00"],
    }
    rows = {name: [rng.choice(values) for _ in docs.strings] for name, values in columns.items()}
    docs.declared = pa.record_batch(rows, schema=pa.schema([(name, pa.string()) for name in rows]))
    return docs


MILLERS = str(Path(__file__).parent / "millers.jsonl")
Case = tuple[Filter[Any], Callable[[], Any]]
FILTERS: list[Case] = [
    (LanguageFilter(), documents),
    (GopherQuality(), documents),
    (GopherQuality(languages=(), max_symbol_run=None, min_words=None), documents),
    (GopherRepetition(), documents),
    (C4Quality(), documents),
    (FineWebQuality(), documents),
    (LanguageQuality(), documents),
    (UrlRules(), documents),
    (DatatroveFilter("GopherQualityFilter"), lambda: documents(60)),  # datatrove takes its time
    (Decontaminate((MILLERS,), ngram=2), documents),
    (Decontaminate((MILLERS,), ngram=2, min_ngrams=None, min_share=0.3), documents),
    (LanguageFilter(min_score="by_language"), documents),
    (Quality(classifiers.model_path()), documents),
    (Toxicity(classifiers.model_path(), max_score=0.4), documents),
    (ToxicWords(), coarse),
    (Rights(licenses=("cc-by",), crawled_from="2024-01", crawled_before="2024-06"), declared),
    (ImageSize(), pictures),
    (CaptionQuality(), captions),
    (ClipQuality(), clips),
    (SpeechRate(), clips),
    (TranscriptQuality(), transcripts),
    (TranscriptQuality(min_score=None), transcripts),
]
IDLE = {
    (TranscriptQuality(min_score=None), "min_letters"),
    (Decontaminate((MILLERS,), ngram=2), "min_share"),  # any n-gram is enough
}
"""Fields that another one leaves nothing to decide."""
OTHERS: dict[str, list[Any]] = {
    "languages": [("de",), ("en", "de"), ("fr",)],
    "keep": [("de",), ("de", "en"), ()],
    "besides": [("en", "de")],
    "short_line_length": [5, 100],
    "stop_words": [("mill", "river")],
    "boilerplate": [("yes",)],
    "block_lists": [],  # files; tests/filters/test_url.py
    "benchmarks": [],  # files; tests/filters/test_decontaminate.py
    "fields": [("answer",)],
    "ngram": [1, 3],
    "max_items": [1, None],
    "model_path": [],  # another file
    "identifier": [],  # other packages; tests/filters/test_identify.py
    "model": [],
    "label": ["negative"],
    "windows": [Windows(count=1, characters=50)],
    "sha256": [],
    "licenses": [None, ("cc0", "mit")],
    "refused_licenses": [("cc-by",)],
    "robots": [("noindex",), ()],
    "crawled_from": ["2023", "2024-11"],
    "crawled_before": ["2024", None],
    "host_parts": [("mill",)],
    "words": [("casino",)],
    "soft_words": [("mill", "hot")],
    "filter": ["FineWebQualityFilter"],
    "args": [{"min_doc_words": 5}],
}
"""Other values of fields that are no thresholds and no switches."""


def others(filter_: Filter[Any], field: str) -> Iterator[Filter[Any]]:
    """The filter with other values of a field."""
    value = getattr(filter_, field)
    if isinstance(value, bool):
        values: list[Any] = [not value]
    elif value == "by_language":
        values = [0.3, 0.65, 0.95, None]
    elif field in OTHERS and not isinstance(value, float):
        values = OTHERS[field]
    else:
        unset = (0, 1, 2, 5, 20, 300, 100_000)
        scaled = unset if value is None else [value * by for by in (0, 0.2, 0.7, 1.05, 1.5, 9)]
        kind = float if isinstance(value, float) else int
        values = [*map(kind, scaled), 0.05, 0.5, 1.0, None]
        if field == "keep":  # a share
            values = [0.05, 0.5, 1.0]
    for other in values:
        try:
            yield dataclasses.replace(filter_, **{field: other})
        except ValueError:  # a probability above 1
            continue


CASES = [
    pytest.param(filter_, batch, field.name, id=f"{number}-{filter_.name}-{field.name}")
    for number, (filter_, batch) in enumerate(FILTERS)
    for field in dataclasses.fields(filter_)  # type: ignore[arg-type]  # every filter is a dataclass
    if (filter_, field.name) not in IDLE
]


@pytest.mark.parametrize(("filter_", "batch", "field"), CASES)
def test_a_replayed_verdict_is_that_of_a_run(filter_: Filter[Any], batch: Callable[[], Any], field: str) -> None:
    measures = filter_.measure(batch())
    verdicts = filter_.rule(measures)
    moved = refused = otherwise = 0
    asked = list(others(filter_, field))
    for other in asked:
        run = other.measure(batch())
        if fields := filter_.unmeasured(other):
            assert fields == (field,)
            refused += 1
            otherwise += not run.equals(measures)
            continue
        replayed = other.rule(measures)
        assert replayed.equals(other.rule(run)), other
        moved += not replayed.equals(verdicts)
    if field in OTHERS and not asked:
        assert field in filter_.measured_with
        return
    assert moved or refused, "no value of it changes a verdict: these documents do not test it"
    assert not refused or otherwise, "it is refused, and changes no measure"
    assert refused == 0 or field in filter_.measured_with


def test_every_filter_of_a_pipeline_is_replayed() -> None:
    off = ("url", "rights", "gopher_repetition", "c4_quality", "fineweb_quality", "language_quality", "toxic_words")
    model = {"model": classifiers.model_path()}
    named = {
        "quality": model,
        "toxicity": model,
        "datatrove": {"filter": "FineWebQualityFilter"},
        "decontaminate": {"benchmarks": ["a.jsonl"]},
    }
    web = WebRecipe.model_validate({**{name: {} for name in off}, **named})
    recipes = (web, VisionRecipe(language=LanguageFilter()), SpeechRecipe())
    values = [getattr(recipe, key) for recipe in recipes for key in type(recipe).model_fields]
    assert {type(v) for v in values if isinstance(v, Filter)} == {type(filter_) for filter_, _ in FILTERS}


def test_every_field_that_is_refused_is_one() -> None:
    for filter_, _ in FILTERS:
        fields = {field.name for field in dataclasses.fields(filter_)}  # type: ignore[arg-type]
        assert filter_.measured_with <= fields


def test_a_shorter_run_of_symbols_is_known_and_a_longer_one_is_not() -> None:
    measured = GopherQuality(max_symbol_run=100)
    assert measured.unmeasured(GopherQuality(max_symbol_run=20)) == ()
    assert measured.unmeasured(GopherQuality(max_symbol_run=101)) == ("max_symbol_run",)
    assert measured.unmeasured(GopherQuality(max_symbol_run=None)) == ("max_symbol_run",)
    assert GopherQuality(max_symbol_run=None).unmeasured(measured) == ()


def test_the_score_of_a_transcript_is_known_where_the_model_was_asked() -> None:
    asked, not_asked = TranscriptQuality(), TranscriptQuality(min_score=None)
    assert asked.unmeasured(not_asked) == () == asked.unmeasured(TranscriptQuality(min_score=0.1))
    assert not_asked.unmeasured(asked) == ("min_score",)
