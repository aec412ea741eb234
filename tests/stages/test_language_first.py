"""What is dropped for its language before it is extracted, and that nothing is of which there is doubt."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from warc_files import http, read_record, record

from benchmarks.language_first import agreement, languages, real_pages, texts_of
from gristmill.filters.language import WINDOW, WINDOWS, Glance, LanguageFilter
from gristmill.filters.pages.language_first import LanguageFirst, unwanted, windows
from gristmill.stages.read.reading import ReadStage
from gristmill.stages.text import extract as extract_module
from gristmill.stages.text.extract import Extract, ExtractWanted, Text
from gristmill.stages.text.html import METHODS, ExtractConfig

ENGLISH = "The miller grinds the grain into flour and sells it at the market every Saturday morning, as he always has."
GERMAN = "Der Müller mahlt das Korn zu Mehl und verkauft es jeden Samstagmorgen auf dem Markt, so wie er es immer tat."
FRENCH = "Le meunier moud le grain en farine et la vend au marché tous les samedis matin, comme il l'a toujours fait."


def paragraphs(text: str, count: int = 6) -> str:
    return f"<p>{text}</p>" * count


def label_of(page: str, keep: tuple[str, ...] = ("en",), **rules: float) -> str | None:
    return unwanted(page.encode(), LanguageFirst(**rules), LanguageFilter(keep=keep))  # type: ignore[arg-type]


def test_a_page_in_another_language_has_its_label_and_score() -> None:
    label, score = (label_of(paragraphs(GERMAN)) or "").split()
    assert label == "de" and 0.9 <= float(score) <= 1 and len(score) == 4


@pytest.mark.parametrize(
    ("page", "keep"),
    [
        (paragraphs(ENGLISH), ("en",)),
        (paragraphs(GERMAN), ("en", "de")),
        (paragraphs(GERMAN, 3), ("en",)),  # too little
        (f"<li>{GERMAN[:60]}</li>" * 40, ("en",)),  # no prose: menus
        (paragraphs(GERMAN, 10) + paragraphs(ENGLISH, 10), ("en",)),
        (paragraphs(ENGLISH[:70], 30) + paragraphs(GERMAN, 5), ("en",)),  # the text may be the short lines
        ("<p>" + "1234567890 " * 200, ("en",)),
        ("", ("en",)),
    ],
)
def test_a_page_in_doubt_goes_on(page: str, keep: tuple[str, ...]) -> None:
    assert label_of(page, keep) is None


def test_one_window_of_a_wanted_page_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at, glance = [], LanguageFilter.glance
    monkeypatch.setattr(
        LanguageFilter, "glance", lambda self, windows: looked_at.append(windows) or glance(self, windows)
    )
    assert label_of(paragraphs(ENGLISH)) is None
    assert [len(windows) for windows in looked_at] == [1]
    assert label_of(paragraphs(GERMAN))
    assert [len(windows) for windows in looked_at] == [1, 1, 2 * WINDOWS]


def test_each_bound_decides() -> None:
    page = paragraphs(GERMAN)
    size = len(" ".join([GERMAN] * 6).encode())
    assert label_of(page, min_bytes=size) and not label_of(page, min_bytes=size + 1)
    assert label_of(page, min_score=0.5) and not label_of(page, min_score=1)
    assert not label_of(page, max_wanted=0)
    mixed = paragraphs(GERMAN, 30) + paragraphs(ENGLISH, 10)
    assert not label_of(mixed) and label_of(mixed, max_wanted=1)


def test_wanted_languages_count_together() -> None:
    pairs = zip(ENGLISH.split(), FRENCH.split(), strict=False)
    mixed = " ".join(word for pair in pairs for word in pair)
    one_each = [LanguageFilter(keep=(name,)).glance([mixed]).wanted for name in ("en", "fr")]
    assert LanguageFilter(keep=("en", "fr")).glance([mixed]).wanted > max(one_each) + 0.1


def test_a_glance_of_nothing() -> None:
    glance = LanguageFilter().glance([" \n", ""])
    assert glance.language is None and math.isnan(glance.score) and glance.wanted == 0
    assert isinstance(glance, Glance)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [""] * WINDOWS),
        ("abcde", ["a", "b", "c", "d", "e"]),
        ("ab", ["a", "a", "a", "b", "b"]),
        ("a&uuml;" * 40, ["aü" * 8] * WINDOWS),
        ("x" * 5000, ["x" * WINDOW] * WINDOWS),
        ("日" * 2000, ["日" * WINDOW] * 4 + ["日" * (WINDOW // 3)]),
    ],
)
def test_windows(text: str, expected: list[str]) -> None:
    assert windows(text.encode()) == expected


@pytest.mark.parametrize(
    "rules", [{"min_bytes": 0}, {"min_score": 1.1}, {"max_wanted": -0.1}, {"min_score": float("nan")}]
)
def test_a_bound_that_cannot_be_is_refused(rules: dict[str, float]) -> None:
    (name,) = rules
    with pytest.raises(ValueError, match=f"language_first: {name}="):
        LanguageFirst(**rules)  # type: ignore[arg-type]


def stage(method: str = "resiliparse", **rules: float) -> ExtractWanted:
    first = LanguageFirst(**rules)  # type: ignore[arg-type]
    config = ExtractConfig(method=method)  # type: ignore[arg-type]
    return ExtractWanted.of(Extract(html=config, language_first=first), LanguageFilter())


@pytest.mark.parametrize("method", METHODS)
def test_no_extractor_is_asked_for_it(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def extracted(page: str, config: ExtractConfig) -> object:
        asked.append(config.method)
        return original(page, config)

    original = extract_module.page_text
    monkeypatch.setattr(extract_module, "page_text", extracted)
    german, english = (read_record(record(http(paragraphs(text).encode()))) for text in (GERMAN, ENGLISH))
    label = stage(method).judge(german)
    assert label.reason == "extract.unwanted_language" and (label.value or "").startswith("de ") and label.text is None
    assert not asked
    assert ENGLISH in (stage(method).judge(english).text or "") and asked == [method]
    assert (
        stage(method, min_bytes=5000).judge(german).text
        == Extract(html=ExtractConfig(method=method)).judge(german).text
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("charset", ["latin-1", "utf-16", "utf-8-sig"])
def test_in_whatever_charset_a_page_is(charset: str) -> None:
    page = read_record(record(http(f"<html>{paragraphs(GERMAN)}".encode(charset))))
    (label, score), expected = (stage().judge(page).value or "").split(), label_of(paragraphs(GERMAN)) or ""
    assert label == "de" and float(score) == pytest.approx(float(expected.split()[1]), abs=0.01)


def test_texts_are_left_to_the_filter() -> None:
    conversion = record(GERMAN.encode() * 9, kind="conversion", content_type="text/plain")
    assert stage().judge(read_record(conversion)) == Text(GERMAN * 9)


def test_what_is_no_page_has_the_reason_that_it_had() -> None:
    broken = read_record(record(http(paragraphs(GERMAN).encode(), status="HTTP/1.1 404 Not Found")))
    assert stage().judge(broken).reason == "read.http_status"


def test_what_the_stage_is() -> None:
    plain, first = Extract(), stage()
    assert "language_first" not in plain.identity()[0].config
    read, *_, wanted = first.identity()
    assert read.name == "extract" and read.config["language_first"] == dataclasses.asdict(LanguageFirst())
    assert set(read.config) == {*plain.identity()[0].config, "language_first"}
    assert wanted.name == "language_first" and wanted.config["keep"] == ["en"]
    assert set(wanted.config) == {"keep", "model_sha256"}

    def of(**filters: object) -> ReadStage:
        return ExtractWanted.of(Extract(language_first=LanguageFirst()), LanguageFilter(**filters))  # type: ignore[arg-type]

    for score in (0.9, "by_language", None):
        assert of(min_score=score).identity() == first.identity(), "its score decides behind the extraction alone"
    assert of(keep=("en", "de")).identity() == of(keep=("de", "en", "de")).identity() != first.identity()


def test_another_model_is_another_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stage().identity()
    monkeypatch.setattr(LanguageFilter, "model_digest", lambda self: "another")
    assert stage().identity() != before


def test_of_real_pages_none_is_lost(shared_data: Path) -> None:
    """docs/filters.md has the figures, for the other extractors and languages too."""
    pages = real_pages()
    texts = texts_of(pages, "resiliparse")
    english = agreement(pages, texts, ["en"])
    assert english.lost == () and english.relabelled == 0 and english.early > 0.8 * english.unwanted > 150
    wanted = [language for language, _ in languages(texts).most_common(8)]
    assert agreement(pages, texts, wanted).lost == ()
