"""Decontamination against benchmark files: planted and natural overlaps, by a plain set of tuples of words."""

from __future__ import annotations

import gzip
import json
import random
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.filters.decontaminate import Decontaminate
from gristmill.filters.text.docs import Docs

REAL = Path(__file__).parents[3] / "shared" / "data" / "3_math_code"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the project's real data is not here")
QUESTION = "A miller grinds seven sacks of rye on Monday and twice as many on Tuesday. How many sacks is that together?"


def words_of(text: str) -> list[str]:
    """Small letters and digits, without accents; whatever else there is stands between words."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).lower()
    return "".join(c if c.isalnum() else " " for c in plain).split()


def tuples(text: str, n: int) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def write(path: Path, items: Sequence[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return str(path)


def judged(filter_: Decontaminate, texts: Sequence[str]) -> list[tuple[str | None, dict[str, object]]]:
    measures = filter_.measure(Docs(pa.array(texts, pa.string())))
    return list(zip(filter_.rule(measures).to_pylist(), measures.to_pylist(), strict=True))


@pytest.fixture
def benchmark(tmp_path: Path) -> str:
    items = [
        {"question": "What is it?"},
        {"question": QUESTION, "answer": "21"},
        {"problem": " ".join("abcdefghijklmnop")},
    ]
    return write(tmp_path / "mill.jsonl", items)


def test_what_is_planted_is_named(benchmark: str) -> None:
    words = QUESTION.split()
    texts = [
        f"We saw this in a forum: {QUESTION} The answer was not given.",
        " ".join(words[2:15]) + " and so on",  # 13 words
        " ".join(words[2:14]) + " and so on",  # 12
        QUESTION.upper().replace(" ", "\n- "),
        "What is it?",
        "what IS it",
        "What is it? I ask.",
        "",
        "... k l m n o p",
    ]
    verdicts = judged(Decontaminate((benchmark,)), texts)
    grams = len(words_of(QUESTION)) - 12
    assert [reason for reason, _ in verdicts] == [
        *("decontaminate.ngrams", "decontaminate.ngrams", None, "decontaminate.same", "decontaminate.same"),
        *("decontaminate.same", None, None, None),
    ]
    item = "mill.jsonl:2"
    assert verdicts[0][1] == {"same_item": None, "n_ngrams": grams, "item": item, "share": 1.0, "share_item": item}
    assert verdicts[1][1]["n_ngrams"] == 1 and verdicts[1][1]["share"] == pytest.approx(1 / grams)
    assert verdicts[5][1]["same_item"] == "mill.jsonl:1" and verdicts[7][1]["item"] is None


def test_thresholds_of_ngrams_and_of_shares(benchmark: str) -> None:
    text = " ".join(QUESTION.split()[:15])  # 3 n-grams of 8
    (measured,) = (measures for _, measures in judged(Decontaminate((benchmark,)), [text]))
    assert measured["n_ngrams"] == 3
    share = measured["share"]

    def reason(**settings: float | None) -> str | None:
        return judged(Decontaminate((benchmark,), **settings), [text])[0][0]  # type: ignore[arg-type]

    assert reason(min_ngrams=3) == "decontaminate.ngrams" and reason(min_ngrams=4) is None
    assert reason(min_ngrams=None, min_share=share) == "decontaminate.near"
    assert reason(min_ngrams=None, min_share=share + 1e-9) is None
    assert reason(min_ngrams=None) is None


def test_what_many_items_share_is_their_template(tmp_path: Path) -> None:
    template = "Read the following passage with great care and then choose the one best answer of these four:"
    items = [{"question": f"{template} item {n} is of the mill"} for n in range(11)]
    path = write(tmp_path / "many.jsonl", items)
    assert judged(Decontaminate((path,)), [template])[0][0] is None
    assert judged(Decontaminate((path,), max_items=11), [template])[0][0] == "decontaminate.ngrams"
    assert judged(Decontaminate((path,), max_items=None), [template])[0][1]["item"] == "many.jsonl:1"


def test_files_count_by_content_and_name_wherever_they_lie(benchmark: str, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    moved = write(there / "mill.jsonl", [json.loads(line) for line in Path(benchmark).read_text().splitlines()])
    renamed = str(there / "rye.jsonl")
    Path(renamed).write_bytes(Path(benchmark).read_bytes())
    config = Decontaminate((benchmark,)).config()
    assert Decontaminate((moved,)).config() == config != Decontaminate((renamed,)).config()
    before = judged(Decontaminate((moved,)), [QUESTION])
    write(Path(moved), [{"question": "Another one of fewer words"}])
    assert Decontaminate((moved,)).config() != config and before != judged(Decontaminate((moved,)), [QUESTION])
    with gzip.open(there / "mill.jsonl.gz", "wt") as file:
        file.write(Path(benchmark).read_text())
    zipped = Decontaminate((str(there / "mill.jsonl.gz"),))
    assert judged(zipped, [QUESTION])[0][1]["same_item"] == "mill.jsonl.gz:2"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"body": "x"}', "line 2 of .* has none of the fields question, problem, prompt, text: it has body"),
        ('{"question": 5}', "has none of the fields"),
        ('{"question": " "}', "has none of the fields"),
        ("no json", "it is no JSON object"),
        ("[1]", "it is no JSON object"),
    ],
)
def test_a_line_that_is_no_item_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps({"question": QUESTION}) + f"\n{line}\n")
    with pytest.raises(ValueError, match=message):
        Decontaminate((str(path),)).check()
    with pytest.raises(OSError, match=r"none\.jsonl"):
        Decontaminate((str(tmp_path / "none.jsonl"),)).check()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"benchmarks": ()}, "name at least one file"),
        ({"benchmarks": ("a/x.jsonl", "b/x.jsonl")}, "no two of one name"),
        ({"fields": ()}, "name at least one field"),
        ({"ngram": 0}, "allowed are 1 to 1024 words"),
        ({"min_ngrams": 0}, "at least 1, or null"),
        ({"min_share": 1.5}, "a share above 0"),
        ({"max_items": 0}, "max_items=0"),
    ],
)
def test_settings_that_are_not_allowed(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decontaminate(**{"benchmarks": ("a.jsonl",), **settings})  # type: ignore[arg-type]


def rows_of(name: str, fields: Sequence[str]) -> Iterator[str]:
    for line in (REAL / name).read_text().splitlines():
        row = json.loads(line)
        yield "\n".join(" ".join(row[field]) if isinstance(row[field], list) else row[field] for field in fields)


@real
@pytest.mark.parametrize("max_items", [10, None])
def test_natural_overlaps_are_those_of_sets_of_tuples(max_items: int | None) -> None:
    """MATH's problems and MMLU's STEM questions in texts of other data sets."""
    benchmarks = ("math_test.jsonl", "mmlu_stem.jsonl")
    fields = ("problem", "question")
    filter_ = Decontaminate(tuple(str(REAL / name) for name in benchmarks), fields, max_items=max_items)
    texts = [*rows_of("minerva_math.jsonl", ["problem", "solution"]), *rows_of("gsm8k_test.jsonl", ["question"])]
    texts += [*rows_of("qwen_math_cot_8samples.jsonl", ["question"]), *rows_of("math_test.jsonl", ["solution"])]
    texts += [*rows_of("mmlu_stem.jsonl", ["question", "choices"]), *rows_of("mbpp.jsonl", ["text"])]
    items = {
        f"{name}:{number}": tuples(next(json.loads(line)[f] for f in fields if f in json.loads(line)), 13)
        for name in benchmarks
        for number, line in enumerate((REAL / name).read_text().splitlines(), 1)
    }
    held_by = Counter(gram for grams in items.values() for gram in grams)
    of_gram: dict[tuple[str, ...], list[str]] = {}
    for name, grams in items.items():
        for gram in grams:
            if max_items is None or held_by[gram] <= max_items:
                of_gram.setdefault(gram, []).append(name)
    hits = 0
    for text, (reason, measures) in zip(texts, judged(filter_, texts), strict=True):
        shared = Counter(name for gram in tuples(text, 13) for name in of_gram.get(gram, ()))
        most = max(shared.values(), default=0)
        assert measures["n_ngrams"] == most, text
        assert (measures["item"] in {name for name, n in shared.items() if n == most}) == bool(most)
        assert (reason is not None) == bool(most or measures["same_item"])
        hits += bool(most)
    assert hits > 500


def test_a_property_against_sets_of_tuples(tmp_path: Path) -> None:
    rng = random.Random(7)
    for round_ in range(30):
        n, vocabulary = rng.randrange(1, 5), [f"w{i}" for i in range(rng.choice((3, 8, 40)))]
        items = [" ".join(rng.choices(vocabulary, k=rng.randrange(1, 12))) for _ in range(rng.randrange(1, 12))]
        path = write(tmp_path / f"{round_}.jsonl", [{"text": item} for item in items])
        texts = [" ".join(rng.choices(vocabulary, k=rng.randrange(0, 40))) for _ in range(20)]
        filter_ = Decontaminate((path,), ngram=n, max_items=None)
        for text, (_, measures) in zip(texts, judged(filter_, texts), strict=True):
            grams = [tuples(item, n) for item in items]
            shared = [len(own & tuples(text, n)) for own in grams]
            shares = [count / len(own) if own else 0 for count, own in zip(shared, grams, strict=True)]
            assert measures["n_ngrams"] == max(shared) and measures["share"] == pytest.approx(max(shares))
            first = f"{round_}.jsonl:{shared.index(max(shared)) + 1}" if max(shared) else None
            assert measures["item"] == first
