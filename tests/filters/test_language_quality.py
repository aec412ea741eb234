"""Documents of each language by their own thresholds, words of any language, and what is kept of real pages."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.filters.language_quality import LanguageQuality
from gristmill.filters.text.docs import Docs
from gristmill.filters.text.languages import LANGUAGES, OTHERS, thresholds
from gristmill.filters.text.words import plain_words

SPOKEN = ("de", "fr", "es", "it", "pt", "pl", "zh", "ja")
SYLLABLES = ("mo", "le", "tri", "ga", "nu", "sel", "bur", "ka", "vin", "do", "pra", "li")


def prose(language: str, sentences: int = 24) -> str:
    """Sentences of made-up words with the language's own small words among them; none comes twice."""
    rng = random.Random(language)
    unspaced = language in ("zh", "ja")
    small = [word for word in thresholds(language).stop_words if "\u2019" not in word and "'" not in word] or [
        "i",
        "na",
    ]
    lines = []
    for _ in range(sentences):
        words = []
        for _ in range(16):
            coined = chr(rng.randrange(0x5000, 0x9000)) if unspaced else "".join(rng.choices(SYLLABLES, k=3))
            words.append(rng.choice(small) if rng.random() < 0.35 else coined)
        lines.append(("" if unspaced else " ").join(words) + ("\u3002" if unspaced else "."))
    return " ".join(lines)


def judge(texts: list[str], labels: list[str | None], **settings: object) -> list[str | None]:
    docs = Docs(pa.array(texts, pa.string()), languages=pa.array(labels, pa.string()))
    return LanguageQuality(**settings).judge(docs).to_pylist()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (
            "Die Mühle, z.B. in Baden-Baden, hat 3.500,00 Euro.",
            "Die|Mühle|,|z.B|.|in|Baden-Baden|,|hat|3.500,00|Euro|.",
        ),
        ("L'eau d’un moulin, aujourd'hui", "L'|eau|d’|un|moulin|,|aujourd'|hui"),
        ("'quoted' rock'n'roll s'", "'|quoted|'|rock'|n'|roll|s|'"),
        ("https://a.example/b?c", "https|:|/|/|a.example/b|?|c"),
        ("磨坊2个mill。", "磨|坊|2|个|mill|。"),
        ("ミル の水", "ミ|ル|の|水"),
        ("방앗간은 강가에", "방앗간은|강가에"),
        ("cafe\u0301 \u0301x हिन्दी", "cafe\u0301|\u0301|x|हिन्दी"),
        ("...--a..b", ".|.|.|-|-|a|.|.|b"),
        ("", ""),
    ],
)
def test_plain_words(text: str, tokens: str) -> None:
    assert plain_words().split([text]).tokens(0) == [token for token in tokens.split("|") if token]


@given(st.lists(st.text(st.one_of(st.sampled_from(" a1.'-,’\u0301中\n"), st.characters(codec="utf-8"))), max_size=4))
def test_plain_words_lose_nothing(texts: list[str]) -> None:
    words = plain_words().split(texts)
    for row, text in enumerate(texts):
        assert "".join(words.tokens(row)) == "".join(text.split())


@pytest.mark.parametrize("language", SPOKEN)
def test_prose_is_kept_in_its_language(language: str) -> None:
    assert judge([prose(language)], [language]) == [None]


def test_stop_words_are_of_the_language() -> None:
    assert judge([prose("pl")], ["de"]) == ["language_quality.too_few_stop_words"]
    assert judge([prose("pl")], ["pl"]) == [None]  # it has no list, so none is asked for


@pytest.mark.parametrize(
    ("language", "text", "reason"),
    [
        ("de", prose("de") + "\n" + "\n".join(["Weiter"] * 20), "repeated_lines"),
        ("de", " ".join([prose("de"), *["mole triga nusel"] * 99]), "top_2_gram"),
        ("fr", " ".join([prose("fr"), *[prose("es", 1)] * 9]), "repeated_5_grams"),
        ("es", prose("es").replace(". ", "\n"), "too_few_ending_lines"),
        ("fr", re.sub(r"((?:\S+ ){3}\S+) ", r"\1\n", prose("fr")), "too_many_newlines"),
        ("it", prose("it", 3), "too_few_words"),
        ("zh", prose("zh", 5), "too_few_words"),
        ("fr", re.sub(r"\b(\w{5,})", r"\1\1\1\1", prose("fr")), "mean_word_length_high"),
        ("pt", "".join(f"{word} {n} " for n, word in enumerate(prose("pt").split())) + ".", "too_few_alpha_words"),
        ("de", re.sub(r"(\w+ \w+ \w+) ", r"\1 # ", prose("de")), "too_many_hashes"),
        ("ja", re.sub("[のにをはが]", "…", prose("ja")), "too_many_ellipses"),
    ],
)
def test_a_text_has_its_reason(language: str, text: str, reason: str) -> None:
    assert judge([text], [language], max_repeated_chars=None) == [f"language_quality.{reason}"]


def test_english_and_unknown_are_kept_unmeasured() -> None:
    docs = Docs(pa.array(["x", "y", "z"]), languages=pa.array(["en", None, "de"]))
    measures = LanguageQuality().measure(docs)
    assert measures["language"].to_pylist() == [None, None, "de"]
    assert LanguageQuality().rule(measures).to_pylist() == [None, None, "language_quality.too_few_words"]
    only = LanguageQuality(languages=("fr",))
    assert only.judge(docs).to_pylist() == [None, None, None]


def test_a_threshold_is_replayed_from_stored_measures() -> None:
    texts = [*(prose(language) for language in SPOKEN), prose("de", 2), "..."]
    docs = Docs(pa.array(texts), languages=pa.array([*SPOKEN, "de", "fr"]))
    tuned = LanguageQuality(min_words=5, min_stop_words=14)
    stored = LanguageQuality().measure(docs)
    assert tuned.rule(stored).to_pylist() == tuned.judge(docs).to_pylist()
    assert tuned.rule(stored).to_pylist() != LanguageQuality().rule(stored).to_pylist()


def test_the_table_is_part_of_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    before = LanguageQuality().config()
    monkeypatch.setitem(LANGUAGES, "de", OTHERS)
    assert LanguageQuality().config() != before
    assert thresholds("de") == thresholds("no such language") == thresholds(None) == OTHERS


def test_real_declarations_and_gold_pages_are_kept(shared_data: Path) -> None:
    kept: dict[str, list[str | None]] = {}
    by_language: dict[str, list[str]] = {}
    for line in (shared_data / "6_langid" / "udhr.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        by_language.setdefault(record["bcp47"].split("-")[0], []).append(record["text"])
    for language in LANGUAGES:
        kept[language] = judge(["\n".join(by_language[language])], [language])
    assert kept == {language: [None] for language in LANGUAGES}
