"""What tests/learn_web.py and tests/learn_languages.py promise of their comparison, on generated pages: no set holds a
page of a held-out host or words of a held-out text, and every model sees as many tokens.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import learn_languages
import learn_web
import numpy as np
import pytest
from text_lessons import Bits, Size, TextLesson, gain
from warc_files import gz, http, record

from gristmill.model.evaluate.intervals import Bootstrap

SIZE = Size(steps=2, batch=2, window=64, vocabulary=384)
SENTENCES = {
    "en": (
        "in {number} the {0} of the {1} was with a {2} people have.",
        "we have to be at {0} {number} before that {1} and your {2}.",
        "nobody knew what {number} {0} would say about this {1} or {2}.",
        "some of them, {number} at least, took their {0} from {1} to {2}.",
    ),
    "de": (
        "im Jahr {number} war der {0} in der {1} mit den {2} nicht.",
        "wir haben noch {number} Schritte bis zu eurem {0}, sagte ein {1} am {2}.",
        "niemand wusste, was {number} über {0} oder {1} und {2} steht.",
        "etwa {number} von ihnen nahmen ihren {0} vom {1} zum {2}.",
    ),
    "fr": (
        "en {number} le {0} de la {1} est avec des gens pour le {2}.",
        "nous avons encore {number} pas avant votre {0}, a dit ce {1} au {2}.",
        "personne ne savait que {number} fois sur dix un {0} vaut {1} et {2}.",
        "environ {number} d'entre eux ont pris leur {0} du {1} vers {2}.",
    ),
    "es": (
        "en {number} el {0} de la {1} está con los vecinos para el {2}.",
        "todavía nos faltan {number} pasos hasta su {0}, dijo aquel {1} al {2}.",
        "nadie sabía que {number} veces de cada diez un {0} vale {1} y {2}.",
        "unos {number} de ellos llevaron sus cosas desde {0} hasta {1} o {2}.",
    ),
}
"""With words, names and numbers drawn by these seeds no two texts share 13 words in a row."""
WORDS = {
    "en": "river garden window teacher market bridge winter letter island kitchen summer doctor village road",
    "de": "Fluss Garten Fenster Lehrer Markt Schnee Winter Brief Wald Tisch Sommer Arzt Dorf Weg",
    "fr": "fleuve jardin fenêtre professeur marché pont hiver lettre forêt cuisine été médecin village chemin",
    "es": "río jardín ventana maestro mercado puente invierno carta bosque cocina verano médico pueblo camino",
}
SYLLABLES = ("ba", "do", "ke", "li", "mu", "na", "po", "ri", "sa", "te", "vo", "zu")
HOSTS = [f"host{number}.example" for number in range(12)]
MENU = "<nav><ul><li><a href='/'>Home</a></li><li><a href='/log'>Log in</a></li></ul></nav>"


def prose(language: str, seed: object, sentences: int = 8) -> str:
    """Sentences of a language, the same for the same seed."""
    rng = random.Random(f"{language} {seed}")
    words = WORDS[language].split()
    templates = SENTENCES[language]
    drawn = []
    for place in range(sentences):
        name = "".join(rng.choices(SYLLABLES, k=3)).capitalize()
        number = rng.randrange(100_000)
        drawn.append(templates[place % len(templates)].format(*rng.sample(words, 2), name, number=number))
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in drawn)


def program(seed: int) -> str:
    """A function, the same for the same seed."""
    rng = random.Random(f"program {seed}")
    names = rng.sample(WORDS["en"].split(), 6)
    loops = [
        f"    for {name} in range({rng.randrange(99)}):\n        total += {name} * {rng.randrange(99)}\n"
        for name in names
    ]
    return f"def {names[0]}_{names[1]}({names[2]}):\n    total = {names[2]}\n{''.join(loops)}    return total\n"


def page(text: str, url: str, number: int) -> bytes:
    """A record of an article below a menu."""
    html = f"<html><body>{MENU}<article><h1>Page {number}</h1><p>{text}</p></article></body></html>"
    return record(http(html.encode()), url=url, number=number)


def lines(path: Path, rows: Sequence[object]) -> None:
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as those of ../shared/data: pages of twelve hosts in English and of others in four languages, of which one
    quotes a text that is held out, and what is held out."""
    folder = tmp_path_factory.mktemp("shared")
    for name in ("1_crawl/real", "2_pages", "3_math_code", "6_langid", "8_quality"):
        (folder / name).mkdir(parents=True)
    gold = [{"url": f"https://www.{host}/a", "main_text": prose("en", host)} for host in HOSTS]
    pages = [page(row["main_text"], row["url"], number) for number, row in enumerate(gold)]
    (folder / "2_pages" / "pages.warc.gz").write_bytes(b"".join(map(gz, pages)))
    lines(folder / "2_pages" / "pages.gold.jsonl", gold)
    others = [(language, number) for language in WORDS for number in range(6)]
    crawl = [
        page(prose(*which, sentences=10), f"https://{which[0]}{which[1]}.example/", 100 + number)
        for number, which in enumerate(others)
    ]
    quoted = f"{prose('en', 'quoting')} {prose('en', 'labelled 1')}"
    crawl.append(page(quoted, "https://quoting.example/", 200))
    (folder / "1_crawl" / "real" / "crawl.warc.gz").write_bytes(b"".join(map(gz, crawl)))
    labelled = [{"text": prose("en", f"labelled {number}"), "label": number % 2} for number in range(6)]
    lines(folder / "8_quality" / "dclm_human_quality.jsonl", labelled)
    sentences = [{"lang": language, "text": prose(language, "sentence", 2)} for language in WORDS]
    lines(folder / "6_langid" / "lingua_sentences.jsonl", sentences)
    declared = [{"iso639_3": name, "text": prose(of, "law", 2)} for of, name in learn_languages.DECLARATION.items()]
    lines(folder / "6_langid" / "udhr.jsonl", declared)
    code = folder / "3_math_code"
    lines(code / "mbpp.jsonl", [{"code": program(number)} for number in range(12)])
    lines(code / "tora_70b_gsm8k_outputs.jsonl", [{"code": [program(number)]} for number in range(12, 24)])
    lines(
        code / "humaneval.jsonl",
        [{"prompt": "def greet(name):\n", "canonical_solution": "    return 'Hello, ' + name\n"}],
    )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sets of pages are kept: what a test has made there, the next one finds."""
    return tmp_path_factory.mktemp("learned")


def test_no_set_holds_a_page_of_a_held_out_host_or_words_of_a_held_out_text(shared: Path, folder: Path) -> None:
    lesson = TextLesson(folder, SIZE)
    learn_web.given_texts(lesson, shared)
    held_out = lesson.rows(learn_web.HELD_OUT)
    hosts = {learn_web.host_of(row["url"]) for row in held_out if row["url"]}
    assert hosts == {host for host in HOSTS if learn_web.held(host)}
    assert {row["text"] for row in held_out if not row["url"]} == {prose("en", f"labelled {n}") for n in (1, 3, 5)}
    assert 0 < len(hosts) < len(HOSTS)
    sets = {arm: lesson.rows(dataset) for arm, dataset in learn_web.datasets_of(lesson, 0).items()}
    free = set(HOSTS) - hosts
    english = {f"en{number}.example" for number in range(6)}
    assert {learn_web.host_of(row["url"]) for row in sets["raw"]} == free | {
        f"{language}{number}.example" for language in WORDS for number in range(6)
    }
    assert {learn_web.host_of(row["url"]) for row in sets["english"]} == free | english
    assert {learn_web.host_of(row["url"]) for row in sets["curated"]} == free | english
    for arm, rows in sets.items():
        assert any("Log in" in row["text"] for row in rows) == (arm != "curated")
        assert not any("quoting" in row["url"] for row in rows)
    least = sorted(len(row["text"]) for row in sets["curated"])[len(sets["curated"]) // 2 - 1]
    assert all(len(row["text"]) >= least for row in sets["long"])


def test_every_model_sees_as_many_tokens(shared: Path, folder: Path) -> None:
    results = learn_web.learned(shared, folder, [0], SIZE)
    of_seed = results["seeds"]["0"]
    trained, sets = of_seed["trained"], of_seed["sets"]
    assert {arm: facts["windows"] for arm, facts in trained.items()} == dict.fromkeys(learn_web.ARMS, SIZE.windows)
    places = SIZE.windows * SIZE.window
    for facts in trained.values():  # the last window of an epoch is not full, and here it is one of four
        assert places - SIZE.window < facts["tokens"] <= places
    for arm in ("dropped", "long"):  # until there are as many: the last document may be more than is asked
        assert 0 <= sets[arm]["tokens"] - sets["curated"]["tokens"] <= sets["raw"]["tokens"] / 4
    assert sets["raw"]["tokens"] > sets["english"]["tokens"] > sets["curated"]["tokens"]
    assert set(results["curated_minus"]) == set(learn_web.CONTROLS)


def test_every_mixture_of_languages_and_code_has_as_many_tokens(shared: Path, tmp_path: Path) -> None:
    size = Size(steps=2, batch=2, window=256, vocabulary=384)  # of every source a mixture has room for a document
    results = learn_languages.learned(shared, tmp_path, [0], size)
    trained = results["seeds"]["0"]
    assert set(trained) == set(learn_languages.RECIPES)
    for facts in trained.values():
        assert facts["windows"] == size.windows
        assert size.windows * size.window - size.window < facts["tokens"] <= size.windows * size.window
    assert all(sum(weights.values()) == pytest.approx(1) for weights in learn_languages.RECIPES.values())
    assert set(trained["languages"]["epochs"]) == set(learn_languages.LANGUAGES)
    assert set(trained["half code"]["bits_per_byte"]) == {*learn_languages.LANGUAGES, learn_languages.CODE}
    assert set(results["minus_languages"]) == {"english", "half code"}


def bits(*nats: float) -> Bits:
    """Of documents of 8 bytes each."""
    return Bits(np.array(nats) * np.log(2), np.full(len(nats), 8.0), ("held-out",) * len(nats))


def test_a_gain_is_the_mean_over_seeds_and_its_interval_knows_both() -> None:
    before, after = [bits(16, 24, 8), bits(16, 24, 8)], [bits(8, 16, 0), bits(0, 8, -8)]
    gained = gain(after, before)
    assert gained.value == pytest.approx(-1.5)  # 1 bit a byte less by one seed, 2 by the other, of every document
    assert (gained.low, gained.high) == pytest.approx((-2, -1))
    assert gained.excludes_zero and not gain(before, before).excludes_zero


def test_of_one_seed_a_gain_is_what_grist_diff_says() -> None:
    rng = np.random.default_rng(0)
    before, after = bits(*rng.uniform(8, 24, 50)), bits(*rng.uniform(8, 24, 50))
    columns = [np.stack([each.nats / np.log(2), each.sizes], axis=1) for each in (before, after)]
    expected = Bootstrap().difference(*columns, lambda sums: sums[..., 0] / sums[..., 1])
    gained = gain([after], [before])
    assert (gained.low, gained.high) == pytest.approx(expected)
    assert gained.value == pytest.approx(after.per_byte - before.per_byte)
