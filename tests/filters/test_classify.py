"""Text classifiers: what a model sees of a text, its training, its scores as a filter, and screening by words."""

from __future__ import annotations

import hashlib
import random
import re
import shutil

import classifiers
import fast_text_models
import numpy as np
import pyarrow as pa
import pytest

from gristmill.filters.classify import learn, model
from gristmill.filters.classify.filter import Quality, Toxicity, draws
from gristmill.filters.classify.learn import FastText, NotTrained
from gristmill.filters.classify.windows import Windows, words
from gristmill.filters.classify.words import LISTS, ToxicWords, count_words, lists
from gristmill.filters.text.docs import Docs
from gristmill.stages.gates.texts import Samples

GOOD, BAD = classifiers.texts("positive", 3, seed=9), classifiers.texts("negative", 3, seed=9)


def docs(*texts: str) -> Docs:
    return Docs(pa.array(texts, pa.string()))


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("Hello,  World!", "hello , world !"),
        ("It’s 1,234.5 or 7", "it's 0 or 0"),
        ("one\n\ntwo", "one ¶ ¶ two"),
        ("soft\u00adhyphen no\u200bspace", "softhyphen nospace"),
        ("ｆｕｌｌ width", "full width"),
        (" \t ", ""),
    ],
)
def test_words_of_a_text(text, seen):
    assert words(text) == seen


def test_windows_are_spread_over_a_long_text_and_tile_a_short_one():
    numbered = " ".join(f"w{chr(97 + n // 26 % 26)}{chr(97 + n % 26)}" for n in range(600))  # 4 characters a word
    windows = Windows(count=3, characters=100)
    long = windows.lines(numbered)
    assert len(long) == 3
    assert long[0].startswith("waa wab") and long[-1].endswith("wxb")
    assert all(len(line) <= 100 for line in long)
    short = windows.lines(numbered[:150])
    assert len(short) == 2
    assert abs(len(short[0]) - len(short[1])) < 10  # pieces of one length
    assert windows.lines("") == []
    assert all(word in numbered.split() for line in long for word in line.split())  # no halves of words


@pytest.mark.parametrize("field", [{"count": 0}, {"characters": 10}])
def test_windows_that_cannot_be(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        Windows(**field)


def test_training_gives_the_same_bytes_whatever_memory_held_before(monkeypatch):
    lines = [(label, text) for label in ("positive", "negative") for text in classifiers.texts(label, 20)]
    first = FastText(epochs=2).train(lines)
    # A process whose allocator fills every block: without a fresh one, nine tenths of the matrix would be this byte.
    monkeypatch.setenv("MALLOC_PERTURB_", "165")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.perturb=165")
    assert FastText(epochs=2).train(lines) == first
    assert first.seed == 0


def test_numbers_that_run_away_are_tried_with_other_seeds_and_then_refused(monkeypatch):
    seeds: list[int] = []

    def runs_away(self, texts, path, seed):
        seeds.append(seed)
        path.write_bytes(b"model")
        return seed == good

    monkeypatch.setattr(FastText, "_tried", runs_away)
    good = 9
    assert FastText(seed=7).train([]) == learn.Trained(b"model", 9)
    assert seeds == [7, 8, 9]
    good = -1
    with pytest.raises(NotTrained, match=r"5 seeds from 7 on"):
        FastText(seed=7).train([])


def test_a_model_that_is_not_finite_is_none(monkeypatch, tmp_path):
    """The child looks at the matrices: an infinite one ends as a run-away training does."""
    infinite = learn._CHILD.replace("numpy.isfinite(matrix)", "numpy.isfinite(matrix * numpy.inf)")
    monkeypatch.setattr(learn, "_CHILD", infinite)
    with pytest.raises(NotTrained):
        FastText(epochs=1).train([("positive", "a b a b")] * 3 + [("negative", "c d c d")] * 3)


def test_a_module_that_cannot_train_is_said(monkeypatch):
    monkeypatch.setattr(learn, "_CHILD", "raise AttributeError('no train_supervised')")
    with pytest.raises(RuntimeError, match=r"no train_supervised.*pip install"):
        FastText().train([("positive", "a b")])


@pytest.mark.parametrize("field", [{"word_ngrams": 1}, {"buckets": 1000}, {"learning_rate": 0.0}, {"epochs": 0}])
def test_settings_that_do_not_train_are_refused(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        FastText(**field)


def test_a_score_is_the_mean_over_windows_of_what_the_library_says():
    long = " ".join(GOOD + BAD)
    quality = Quality(classifiers.model_path(), windows=Windows(4, 200))
    fast_text = fast_text_models.library(classifiers.model_bytes())
    lines = Windows(4, 200).lines(long)
    expected = []
    for line in lines:
        labels, scores = fast_text.predict(line, k=2)
        expected.append(dict(zip(labels, scores, strict=True))["__label__positive"])
    assert len(lines) == 4
    (score,) = quality.measure(docs(long))["score"].to_pylist()
    assert score == pytest.approx(np.mean(expected), abs=6e-5)
    assert score == np.float32(round(score, 4))


def test_quality_keeps_what_it_was_trained_to_want():
    quality = Quality(classifiers.model_path(), min_score=0.5)
    assert quality.judge(docs(*GOOD, *BAD, "")).to_pylist() == [None] * 3 + ["quality.below"] * 3 + [None]
    scores = quality.measure(docs(*GOOD, *BAD, ""))["score"].to_pylist()
    assert min(scores[:3]) > 0.8 and max(scores[3:6]) < 0.2 and scores[6] is None
    other = Quality(classifiers.model_path(), label="negative", min_score=0.5)
    assert other.measure(docs(*GOOD))["score"].to_pylist() == pytest.approx([1 - s for s in scores[:3]], abs=2e-4)


def test_only_documents_of_its_languages_are_scored():
    quality = Quality(classifiers.model_path(), languages=("en",))
    batch = Docs(pa.array([GOOD[0], GOOD[1]]), languages=pa.array(["en", "de"]))
    assert quality.measure(batch)["score"].is_valid().to_pylist() == [True, False]


def test_identity_is_the_models_bytes_not_its_place(tmp_path):
    moved = shutil.copy(classifiers.model_path(), tmp_path / "moved.bin")
    first, second = Quality(classifiers.model_path()), Quality(str(moved))
    assert first.config() == second.config()
    assert first.config()["model_sha256"] == hashlib.sha256(classifiers.model_bytes()).hexdigest()
    assert "model" not in first.config()
    assert Quality(classifiers.model_path(), min_score=0.6).config() != first.config()


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"label": "good"}, "label='good': the model has negative, positive"),
        ({"sha256": "0" * 64}, "not 000000000000"),
    ],
)
def test_a_model_that_cannot_be_used(fields, error):
    with pytest.raises(ValueError, match=error):
        Quality(classifiers.model_path(), **fields).check()


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"no model")
    with pytest.raises(ValueError, match="no fastText model"):
        Quality(str(tmp_path / "x.bin")).check()
    with pytest.raises(FileNotFoundError):
        Quality(str(tmp_path / "y.bin")).check()
    with pytest.raises(ValueError, match=r"quality\.model is empty"):
        Quality("")


def test_a_version_is_read_by_its_digest_once_a_process(monkeypatch):
    monkeypatch.setattr(model, "_LOADED", type(model._LOADED)())
    data = classifiers.model_bytes()
    sha256, asked = hashlib.sha256(data).hexdigest(), []
    quality = Quality("quality@v1", sha256=sha256)
    with pytest.raises(ValueError, match="was not read from its lake"):
        quality.measure(docs(GOOD[0]))

    def read(digest):
        asked.append(digest)
        return data

    ready = quality.with_objects(read).with_objects(read)
    assert asked == [sha256]
    assert ready.measure(docs(GOOD[0])).equals(Quality(classifiers.model_path()).measure(docs(GOOD[0])))
    with pytest.raises(ValueError, match="has to be looked up"):
        Quality("quality@v1").config()
    with pytest.raises(ValueError, match="its file changed"):
        Quality("quality@v1", sha256="1" * 64).with_objects(read)


def test_toxicity_drops_above_but_for_a_share_that_the_text_draws():
    texts = classifiers.texts("negative", 200, seed=3)
    batch = docs(*texts)
    none_kept = Toxicity(classifiers.model_path(), label="negative", max_score=0.5)
    assert none_kept.judge(batch).to_pylist() == ["toxicity.above"] * 200
    quarter = Toxicity(classifiers.model_path(), label="negative", max_score=0.5, keep=0.25)
    kept = {text for text, verdict in zip(texts, quarter.judge(batch).to_pylist(), strict=True) if verdict is None}
    assert kept == {text for text, draw in zip(texts, draws(batch).to_pylist(), strict=True) if draw < 0.25}
    assert 30 < len(kept) < 70  # a binomial of 200 draws: 50, standard deviation 6
    assert Toxicity(classifiers.model_path(), label="negative", keep=1.0).judge(batch).null_count == 200


def test_words_are_counted_whole():
    texts = [
        "Scunthorpe, Essex, cockpit, assassin, shiitake, Dickens, a therapist; raccoons and spices",
        "porn, porn\nporn",
        "what a fucking shit, fucked fuckers!",
        "fuckö füfuck",
        "FUCK Blow-job blow job",
        "",
    ]
    measured = ToxicWords().measure(docs(*texts)).to_pylist()
    shares = [tuple(row[name] for name in LISTS) for row in measured]
    assert shares[0] == (0, 0, 0)
    assert shares[1] == (1.0, 0, 0)
    assert shares[2] == pytest.approx((0, 0, 4 / 6))
    assert shares[4] == pytest.approx((2 / 4, 0, 1 / 4))
    assert shares[5] == (None, None, None)


def test_words_of_a_batch_are_those_of_its_texts():
    rng = random.Random(0)
    for _ in range(100):
        texts = ["".join(rng.choices(" a\n.é\tb", k=rng.randint(0, 12))) for _ in range(rng.randint(1, 8))]
        batch = Docs(pa.array(["before", *texts]).slice(1))
        assert count_words(*batch.buffers).tolist() == [len(re.findall(r"[^ \t\n\r\v\f]+", text)) for text in texts]


def test_a_word_that_is_quoted_is_not_a_page_of_them():
    around = "The court heard on Monday that the witness had been called names by the man. " * 10
    verdicts = ToxicWords().judge(docs(f"{around} He said porn. {around}", "porn and more porn for you", around))
    assert verdicts.to_pylist() == [None, "toxic_words.adult", None]
    assert ToxicWords(max_adult=None).judge(docs("porn and more porn for you")).to_pylist() == [None]
    assert ToxicWords(keep=1.0).judge(docs("porn and more porn for you")).to_pylist() == [None]


def test_each_word_of_the_lists_is_found_and_in_one_list():
    every = [word for words in lists().values() for word in words]
    assert len(set(every)) == len(every)
    for name, listed in lists().items():
        measured = ToxicWords().measure(docs(*(f"the {word}, a" for word in listed)))
        assert min(measured[name].to_pylist()) > 0, name
    assert all(word == word.lower() for word in every)


@pytest.mark.parametrize("field", [{"max_adult": 1.5}, {"keep": -0.1}])
def test_shares_outside_their_range(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        ToxicWords(**field)


def test_samples_are_read_without_special_tokens():
    text = "<|user|>Hi<|end|>Hello"
    parts = [(8, True), (2, False), (7, True), (5, False)]
    rows = pa.RecordBatch.from_pylist(
        [{"text": text, "parts": [{"length": n, "special": special, "learn": False} for n, special in parts]}]
    )
    assert Samples.of(rows).strings == ["Hi\nHello"]
