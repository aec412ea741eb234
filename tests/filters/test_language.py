"""LanguageFilter: labels, reasons, what the model sees, and where the model comes from."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.language_scores import least_scores
from gristmill.filters import language, lid
from gristmill.filters.identify.fast_text import as_labelled
from gristmill.filters.language import LanguageFilter
from gristmill.filters.text.docs import Docs
from gristmill.filters.text.scores import LEAST_SCORES

ENGLISH = "The miller grinds the grain into flour and sells it at the market every Saturday morning."
GERMAN = "Der Müller mahlt das Korn zu Mehl und verkauft es jeden Samstagmorgen auf dem Markt."
FRENCH = "Le meunier moud le grain en farine et la vend au marché tous les samedis matin."
JAPANESE = "粉屋は穀物を挽いて小麦粉にし、毎週土曜日の朝に市場で売ります。"


def docs(*texts: str) -> Docs:
    return Docs(pa.array(texts, pa.string()))


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(lid.ENVIRONMENT, raising=False)


def test_labels_and_scores() -> None:
    measures = LanguageFilter().measure(docs(ENGLISH, GERMAN, FRENCH, JAPANESE))
    assert measures.column("language").to_pylist() == ["en", "de", "fr", "ja"]
    assert measures.schema.field("language_score").type == pa.float32()
    scores = measures.column("language_score").to_numpy()
    assert (scores > 0.8).all() and (scores <= 1).all()
    assert (np.round(scores.astype(np.float64), 4).astype(np.float32) == scores).all()


def test_measuring_labels_the_batch() -> None:
    batch = docs(ENGLISH, GERMAN)
    LanguageFilter().measure(batch)
    assert batch.languages is not None and batch.languages.to_pylist() == ["en", "de"]
    assert batch.rows_in(["de"]).tolist() == [False, True]


def test_reasons() -> None:
    verdicts = LanguageFilter(keep=("en", "fr")).judge(docs(ENGLISH, GERMAN, FRENCH, "", " \n\u3000"))
    assert verdicts.to_pylist() == [None, "language.unwanted", None, "language.no_text", "language.no_text"]
    assert LanguageFilter(keep=()).judge(docs(ENGLISH, GERMAN, "")).to_pylist() == [
        None,
        None,
        "language.no_text",
    ]


def test_score_threshold_is_inclusive_and_replayed() -> None:
    scores = pa.array([0.65, 0.6499, 0.6501, None], pa.float32())
    measures = pa.record_batch([pa.array(["en", "en", "de", None]), scores], names=["language", "language_score"])
    assert LanguageFilter(("en",), 0.65).rule(measures).to_pylist() == [
        None,
        "language.low_score",
        "language.unwanted",
        "language.no_text",
    ]
    assert LanguageFilter((), None).rule(measures).to_pylist() == [None, None, None, "language.no_text"]


MENU = "Deutsch Français Español Italiano Português Русский 日本語 中文 한국어 العربية Türkçe Polski Suomi Ελληνικά "
NOTICE = (
    "Wir verwenden Cookies, um Inhalte und Anzeigen zu personalisieren und die Zugriffe auf unsere Website zu messen. "
)


@pytest.mark.parametrize("foreign", [MENU, NOTICE, GERMAN + " "])
@pytest.mark.parametrize("place", ["head", "middle", "tail"])
def test_a_thousand_foreign_characters_do_not_decide_a_longer_text(foreign: str, place: str) -> None:
    half, other = (ENGLISH + "\n") * 20, (foreign * 12)[:1000]
    text = {"head": other + half * 2, "middle": half + other + half, "tail": half * 2 + other}[place]
    measures = LanguageFilter().measure(docs(text))
    assert measures.column("language").to_pylist() == ["en"]
    assert LanguageFilter().rule(measures).to_pylist() == [None]


def test_an_english_head_does_not_make_a_german_text_english() -> None:
    assert LanguageFilter().judge(docs((ENGLISH * 20)[:1000] + GERMAN * 40)).to_pylist() == ["language.unwanted"]
    mixed = LanguageFilter().judge(docs(*(ENGLISH * n + GERMAN * (40 - n) for n in range(16, 25))))
    assert mixed.to_pylist()[0] is not None, "two fifths of English are too little"


def test_a_short_text_is_one_window_and_a_long_one_costs_no_more_than_five() -> None:
    assert language._windows("a" * 1000) == ["a" * 1000]
    for length in (1001, 4_321, 100_000):
        windows = language._windows("".join(chr(ord("a") + i % 26) for i in range(length)))
        assert [len(window) for window in windows] == [200] * 5
        assert windows[0].startswith("abc") and windows[-1].endswith(chr(ord("a") + (length - 1) % 26))


BLANKS = "\t\n\x0b\x0c\r\x1c\x85\u00a0\u1680\u2000\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000"


@pytest.mark.parametrize("blank", BLANKS)
def test_every_blank_of_unicode_parts_words(blank: str) -> None:
    texts = [ENGLISH, GERMAN, FRENCH]
    spoken = LanguageFilter().measure(docs(*texts))
    assert LanguageFilter().measure(docs(*(text.replace(" ", blank) for text in texts))).equals(spoken)


@pytest.mark.parametrize("invisible", ["\u00ad", "\u200b", "\u2060", "\ufeff"])
def test_what_is_not_seen_parts_no_words(invisible: str) -> None:
    hyphenated = ENGLISH.replace("in", f"i{invisible}n").replace("er", f"e{invisible}r")
    assert LanguageFilter().measure(docs(hyphenated)).equals(LanguageFilter().measure(docs(ENGLISH)))


def test_capitals_do_not_count() -> None:
    texts = [ENGLISH, GERMAN.replace("ß", "ss"), FRENCH]
    spoken = LanguageFilter().measure(docs(*texts))
    for shout in (str.upper, str.title, str.swapcase):
        assert LanguageFilter().measure(docs(*map(shout, texts))).equals(spoken)


def test_text_that_is_no_language_has_a_reason_or_a_label() -> None:
    odd = docs("\x00", "\x00 \x00", "12 34", "\U0010ffff", "...", "\r", "a\u2028b", "\x85")
    measures = LanguageFilter().measure(odd)
    verdicts = LanguageFilter().rule(measures).to_pylist()
    for label, verdict in zip(measures.column("language").to_pylist(), verdicts, strict=True):
        assert (label is None) == (verdict == "language.no_text")


def test_real_sentences(shared_data: Path) -> None:
    lines = (shared_data / "6_langid" / "lingua_sentences.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    wanted = [record for record in records if record["lang"] in {"en", "de", "fr", "es", "ru", "ja", "ko", "pl"}]
    measures = LanguageFilter().measure(docs(*(record["text"] for record in wanted)))
    right: Counter[str] = Counter()
    for record, label in zip(wanted, measures.column("language").to_pylist(), strict=True):
        right[record["lang"]] += label == record["lang"]
    assert len(wanted) == 800
    assert min(right.values()) >= 90, right


def test_each_language_has_its_own_least_score() -> None:
    scores = {"de": [0.89, 0.9], "hr": [0.35, 0.4], "xh": [0.64, 0.66], "en": [None]}
    rows = [(label, score) for label, values in scores.items() for score in values]
    labels, values = zip(*rows, strict=True)
    measures = pa.record_batch([pa.array(labels), pa.array(values, pa.float32())], ["language", "language_score"])
    verdicts = LanguageFilter(keep=(), min_score="by_language").rule(measures).to_pylist()
    low = "language.low_score"
    assert verdicts == [low, None, low, None, low, None, None]
    assert LanguageFilter(keep=()).rule(measures).to_pylist() == [None, None, low, low, low, None, None]
    assert "min_scores" in LanguageFilter(min_score="by_language").config()
    assert "min_scores" not in LanguageFilter().config()


def test_least_scores_are_those_of_the_formula(shared_data: Path) -> None:
    assert least_scores() == LEAST_SCORES


def test_by_language_keeps_what_one_number_loses(shared_data: Path) -> None:
    lines = (shared_data / "6_langid" / "lingua_sentences.jsonl").read_text(encoding="utf-8").splitlines()
    croatian = docs(*(record["text"] for record in map(json.loads, lines) if record["lang"] == "hr"))
    kept = LanguageFilter(keep=("hr",), min_score="by_language").judge(croatian).to_pylist().count(None)
    assert kept >= 2 * LanguageFilter(keep=("hr",)).judge(croatian).to_pylist().count(None) > 0


def test_unknown_labels_and_scores_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\['english'\].*never answers"):
        LanguageFilter(keep=("en", "english")).judge(docs(ENGLISH))
    for score, shown in ((65, "65"), ("every", "every")):
        with pytest.raises(ValueError, match=rf"min_score is {shown}; a probability, .* by_language or null"):
            LanguageFilter(min_score=score)  # type: ignore[arg-type]


def test_where_the_model_lies_is_no_identity_but_its_bytes_are(tmp_path: Path, no_environment: None) -> None:
    copy = shutil.copy(lid.find_model(), tmp_path / "copy.ftz")
    moved = LanguageFilter(model_path=str(copy))
    assert moved == LanguageFilter() and hash(moved) == hash(LanguageFilter())
    assert moved.model_digest() == LanguageFilter().model_digest() == lid.SHA256
    assert moved.judge(docs(ENGLISH, GERMAN)).to_pylist() == [None, "language.unwanted"]


def test_one_load_a_process() -> None:
    assert lid.load_model(lid.find_model()) is lid.load_model(lid.find_model())


def test_a_named_model_that_is_missing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="named by the config"):
        LanguageFilter(model_path=str(tmp_path / "absent.ftz")).judge(docs(ENGLISH))
    monkeypatch.setenv(lid.ENVIRONMENT, str(tmp_path / "absent.ftz"))
    with pytest.raises(FileNotFoundError, match=f"named by {lid.ENVIRONMENT}"):
        LanguageFilter().model_digest()


def test_config_then_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_environment: None) -> None:
    installed = lid.find_model()
    monkeypatch.setenv(lid.ENVIRONMENT, str(shutil.copy(installed, tmp_path / "environment.ftz")))
    named = shutil.copy(installed, tmp_path / "config.ftz")
    assert lid.find_model() == (tmp_path / "environment.ftz").resolve()
    assert lid.find_model(str(named)) == (tmp_path / "config.ftz").resolve()


def test_the_model_comes_with_the_package_and_its_licence(no_environment: None) -> None:
    assert lid.find_model() == lid.SHIPPED and lid.digest(lid.SHIPPED) == lid.SHA256
    licence = lid.SHIPPED.with_name("LICENSE-lid.176.md").read_text()
    assert "Creative Commons Attribution-ShareAlike 3.0" in licence and lid.SHA256 in licence


def test_the_module_fasttext_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fasttext", None)
    monkeypatch.setitem(sys.modules, "fasttext_pybind", None)
    lid.load_model.cache_clear()
    as_labelled.cache_clear()
    assert LanguageFilter().judge(docs(ENGLISH, GERMAN)).to_pylist() == [None, "language.unwanted"]


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.ftz").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"none\.ftz"):
        LanguageFilter(model_path=str(tmp_path / "none.ftz")).check()
