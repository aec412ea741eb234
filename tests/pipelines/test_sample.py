"""The demo crawl is reproducible, readable and true to what it says about itself. The oracles are other people's:
datatrove for quality, lid.176 for language, FastWARC; readers are written here, so that a shared mistake shows.
"""

import collections
import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
import sample_files
from fastwarc.warc import ArchiveIterator
from sample_files import PAGES

from gristmill.synth.articles import LANGUAGES, article
from gristmill.synth.crawl.damage import flip_byte, wrong_length
from gristmill.synth.crawl.families import NOMINAL, jaccard, near_duplicate, shingles
from gristmill.synth.crawl.html import sites
from gristmill.synth.crawl.plants import benchmark, plant_leak, plant_pii
from gristmill.synth.crawl.spam import KINDS, spam
from gristmill.synth.crawl.warc import gzip_member
from gristmill.synth.draw import Draw
from gristmill.synth.grammar import expand, grammar, parse
from gristmill.synth.sample import write_sample

sample = sample_files.sample


@pytest.fixture(scope="module")
def truth(sample: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (sample / "truth.jsonl").read_text(encoding="utf-8").splitlines()]


def _tree(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_the_same_seed_writes_the_same_bytes(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "again", pages=PAGES, seed=3)
    assert _tree(sample) == _tree(tmp_path / "again")
    write_sample(tmp_path / "other", pages=PAGES, seed=4)
    other = _tree(tmp_path / "other")
    assert _tree(sample)["crawl/part-0000.warc.gz"] != other["crawl/part-0000.warc.gz"]
    assert _tree(sample)["instruct/math.jsonl"] != other["instruct/math.jsonl"]
    write_sample(tmp_path / "more", pages=PAGES + 20, seed=3)
    more = _tree(tmp_path / "more")
    assert all(more[name] == data for name, data in _tree(sample).items() if name.startswith("instruct/"))


def test_draws_are_pinned() -> None:
    # If these change, every published sample changes with them.
    draw = Draw("pin", 7)
    assert [draw.below(1000) for _ in range(5)] == [823, 559, 544, 536, 566]
    assert Draw("a", "b").fraction() != Draw("ab").fraction()


def test_english_articles_pass_gopher_quality() -> None:
    filters = pytest.importorskip("datatrove.pipeline.filters")
    document = pytest.importorskip("datatrove.data").Document
    gopher = filters.GopherQualityFilter()
    results = [gopher.filter(document(text=article("en", Draw(1, i)).text, id=str(i))) for i in range(100)]
    assert sum(r is True for r in results) >= 0.98 * len(results), collections.Counter(map(str, results))


@pytest.mark.parametrize("kind", KINDS)
def test_spam_fails_gopher_quality_or_language(kind: str) -> None:
    filters = pytest.importorskip("datatrove.pipeline.filters")
    document = pytest.importorskip("datatrove.data").Document
    gopher = filters.GopherQualityFilter()
    for i in range(8):
        page = spam(kind, Draw("spam", i))
        assert gopher.filter(document(text=page.text, id="x")) is not True, page.text[:300]
        assert page.reasons


def test_every_language_is_recognised() -> None:
    fasttext = pytest.importorskip("fasttext")
    model = fasttext.load_model(str(Path(__file__).parents[2] / "filters" / "data" / "lid.176.ftz"))
    cases = [(language, i) for language in LANGUAGES for i in range(25)]
    texts = [article(language, Draw(2, language, i)).text.replace("\n", " ")[:1000] for language, i in cases]
    labels, scores = model.predict(texts)
    right = [
        label[0] == f"__label__{language}" and score[0] > 0.65
        for (language, _), label, score in zip(cases, labels, scores, strict=True)
    ]
    assert sum(right) >= 0.97 * len(right), [case for case, ok in zip(cases, right, strict=True) if not ok]


def test_unrelated_articles_share_few_5grams() -> None:
    texts = [article("en", Draw(5, i)).text for i in range(60)]
    grams = [shingles(text) for text in texts]
    worst = max(len(a & b) / len(a | b) for i, a in enumerate(grams) for b in grams[:i])
    assert worst < 0.2


def test_near_duplicates_have_the_stated_similarity() -> None:
    heads = [a for a in (article("en", Draw(6, i)) for i in range(18)) if len(a.text.split()) >= 200]
    assert len(heads) >= 10
    for head in heads:
        for nominal in NOMINAL:
            edited, measured = near_duplicate(head, nominal, Draw(7, head.title, nominal))
            assert measured == pytest.approx(_jaccard_by_hand(head.text, edited.text), abs=1e-12)
            assert abs(measured - nominal) <= 0.03
            assert len(edited.text.split()) == len(head.text.split())


def _jaccard_by_hand(a: str, b: str) -> float:
    grams = [
        {" ".join(t.lower().split()[i : i + 5]) for i in range(len(t.split()) - 4)} for t in (a, b)
    ]  # an implementation apart from the generator's
    return len(grams[0].intersection(grams[1])) / len(grams[0].union(grams[1]))


def test_near_duplicate_refuses_languages_without_swaps() -> None:
    with pytest.raises(ValueError, match=r"'de'.*only 'en'"):
        near_duplicate(article("de", Draw(0)), 0.9, Draw(0))


def test_intact_containers_are_what_the_truth_says(sample: Path, truth: list[dict[str, Any]]) -> None:
    rows = collections.defaultdict(list)
    for row in truth:
        rows[row["file"]].append(row)
    intact = [name for name in rows if name.endswith(".warc.gz") and rows[name][0]["ordinal"] is not None]
    assert len(intact) == 4  # two parts, the second increment, the recompressed copy
    for name in intact:
        with (sample / name).open("rb") as stream:
            matches = [
                (
                    r.record_id,
                    r.headers.get("WARC-Target-URI"),
                    r.headers["WARC-Type"],
                    r.verify_block_digest(),
                )
                for r in ArchiveIterator(stream, parse_http=False)
            ]
        assert [row["ordinal"] for row in rows[name]] == list(range(len(matches)))
        assert [(row["warc_id"], row["url"]) for row in rows[name]] == [(ident, url) for ident, url, _, _ in matches]
        assert all(ok for *_, ok in matches)
        for row, (_, _, kind, _) in zip(rows[name], matches, strict=True):
            assert (row["expected"] == "other") == (kind != "response")


def test_pages_decode_in_the_charset_of_their_host(sample: Path, truth: list[dict[str, Any]]) -> None:
    by_id = {row["warc_id"]: row for row in truth if row["kind"] == "article"}
    charsets = {site.host: site.charset for site in sites()}
    seen = set()
    for path in sorted(sample.glob("*/part-000[01].warc.gz")):
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream, parse_http=True, auto_decode="all"):
                row = by_id.get(record.record_id)
                if row is None:
                    continue
                charset = charsets[row["url"].split("/")[2]]
                text = record.reader.read().decode(charset)  # raises if the page lies
                assert text.rstrip().endswith("</html>")
                seen.add(charset)
    assert {"utf-8", "windows-1252"} <= seen


def test_each_kind_of_record_is_there(truth: list[dict[str, Any]]) -> None:
    kinds = collections.Counter(row["kind"] for row in truth)
    wanted = {
        "article", "spam", "near_duplicate", "copy", "copy_other_template", "recrawl", "same_record", "pii",
        "leak", "http_error", "not_html", "text", "broken", "warcinfo",
    }  # fmt: skip
    assert wanted <= set(kinds)
    assert {row["expected"] for row in truth} == {"kept", "dropped", "quarantined", "either", "other"}
    english = [row for row in truth if row["kind"] == "article" and row["file"].startswith("crawl")]
    assert 0.4 < sum(row["language"] == "en" for row in english) / len(english) < 0.9


def test_families_point_to_a_head_in_an_intact_file(truth: list[dict[str, Any]]) -> None:
    intact = {row["warc_id"] for row in truth if row["ordinal"] is not None}
    members = [row for row in truth if row["family"]]
    assert members
    assert all(row["family"] in intact for row in members)
    heads = [row for row in members if row["family"] == row["warc_id"] and row["jaccard"] is None]
    assert heads and all(row["kind"] != "near_duplicate" for row in heads)


def test_same_record_is_the_same_bytes(sample: Path, truth: list[dict[str, Any]]) -> None:
    twice = [row for row in truth if row["kind"] == "same_record" and row["file"].startswith("crawl/")]
    assert twice
    blocks = collections.defaultdict(set)
    for path in sorted((sample / "crawl").glob("part-000[01].warc.gz")):
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream, parse_http=False):
                blocks[record.record_id].add((path.name, record.reader.read()))
    for row in twice:
        assert len(blocks[row["warc_id"]]) == 2
        assert len({block for _, block in blocks[row["warc_id"]]}) == 1
    part, copy = (sample / "crawl/part-0001.warc.gz", sample / "night2/copy-of-part-0001.warc.gz")
    assert gzip.decompress(part.read_bytes()) == gzip.decompress(copy.read_bytes())
    assert part.read_bytes() != copy.read_bytes()


def test_the_damaged_container_is_damaged(sample: Path, truth: list[dict[str, Any]]) -> None:
    rows = [row for row in truth if row["kind"] == "broken" and row["file"].endswith(".warc.gz")]
    assert len({row["note"] for row in rows}) == 5 and len({row["file"] for row in rows}) == 1
    data = (sample / rows[0]["file"]).read_bytes()
    with pytest.raises((EOFError, zlib.error, gzip.BadGzipFile)):
        gzip.GzipFile(fileobj=io.BytesIO(data)).read()


def test_jsonl_lines_are_broken_where_the_truth_says(sample: Path, truth: list[dict[str, Any]]) -> None:
    rows = [row for row in truth if row["file"] == "crawl/extra.jsonl.gz"]
    lines = gzip.decompress((sample / "crawl/extra.jsonl.gz").read_bytes()).splitlines()
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        try:
            good = isinstance(json.loads(line.decode("utf-8"))["text"], str)
        except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
            good = False
        assert good == (row["kind"] == "text"), row
    assert sum(row["kind"] == "broken" for row in rows) == 5


def test_plants_stand_in_the_text() -> None:
    for i in range(20):
        text, planted = plant_pii(article("en", Draw(8, i)), Draw(9, i))
        assert planted and all(plant.value in text.text for plant in planted)
    problems = benchmark(40, 0)
    assert len({p.question for p in problems}) == 40
    for problem in problems:
        a, b, per_day, days = _numbers(problem.question)
        assert int(problem.answer) == a - b + per_day * days
        base = article("en", Draw(10, problem.id))
        assert problem.question in plant_leak(base, problem, False, Draw(11)).text
        edited = plant_leak(base, problem, True, Draw(11)).text
        assert problem.question not in edited and problem.question.split(" How many")[0] in edited


def _numbers(question: str) -> tuple[int, int, int, int]:
    a, b, days, more = [int(word) for word in question.split() if word.isdigit()]
    return a, b, more, days


def test_hosts_can_not_exist() -> None:
    allowed = (".example.org", ".example.com", ".example.net", ".example")
    assert len(sites()) >= 40 and all(site.host.endswith(allowed) for site in sites())
    assert {"windows-1252", "iso-8859-1", "shift_jis", "utf-16", "gb18030"} <= {site.charset for site in sites()}


def test_damage_damages() -> None:
    member = gzip_member(b"some text that compresses " * 40)
    with pytest.raises(zlib.error):
        zlib.decompress(flip_byte(member, Draw(0)), 31)
    record = b"WARC/1.1\r\nWARC-Type: response\r\nContent-Length: 50\r\n\r\n" + b"x" * 50
    assert b"Content-Length: 10\r\n\r\nxxx" in wrong_length(record, -40)


def test_a_grammar_names_its_undefined_slot() -> None:
    with pytest.raises(ValueError, match="slot 'nowhere' is not defined"):
        parse("xx", ["@town = A | B", "== t", "^ {town} and {nowhere}."])
    memo: dict[str, str] = {}
    texts = {expand("{Town}", grammar("en"), Draw(i), memo) for i in range(9)}
    assert len(texts) == 1  # a capital slot keeps its value


def test_refuses_too_few_pages_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pages=5: at least 100"):
        write_sample(tmp_path, pages=5)
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "part-0099.warc.gz").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="part-0099"):
        write_sample(tmp_path, pages=PAGES)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["part-0099.warc.gz"]


def test_jaccard_ends() -> None:
    assert jaccard("a b c d e f", "a b c d e f") == 1.0
    assert jaccard("a b c d e f", "u v w x y z") == 0.0
