"""`grist forget`: says before it does, refuses what it does not understand, and leaves nothing in clear."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import web
from forget_lake import Doc, docs, files, increment, made_from, readable, sound
from typer.testing import CliRunner, Result

from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.cli.main import app

PAGES = [*docs("a", "b", "c"), Doc("https://jane-doe.example/cv"), Doc("https://copies.net/1", "https://example.org/b")]


@pytest.fixture(autouse=True)
def no_lake_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRIST_LAKE", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def lake(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "lake"))
    first = increment(store, "web", PAGES)
    made_from(store, "packs", first, "pack", "text")
    made_from(store, "model", first, "weights", "init")
    Versions(store).tag("web", 1, "release")
    return store


def named(tmp_path: Path, text: str, kind: str = "urls") -> list[str]:
    path = tmp_path / f"{kind}.txt"
    path.write_text(text, encoding="utf-8")
    return [f"--{kind}", str(path)]


def grist(lake: Store, *args: str) -> Result:
    return CliRunner().invoke(app, [*args, "--lake", lake.uri])


def ask(lake: Store, *args: str) -> Any:
    result = grist(lake, "forget", "--reason", "request 7", "--json", *args)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_without_yes_it_says_what_would_happen_and_changes_nothing(lake, tmp_path):
    before = files(lake)
    result = grist(lake, "forget", *named(tmp_path, "https://example.org/b\n"), "--reason", "request 7")
    assert result.exit_code == 0, result.output
    for line in (
        "web: 1 text, 1 row of contents, 1 row of signatures",
        "a version without them would follow web@v1",
        "would be withdrawn: v1",
        "tags that name them, and are not moved: release",
        "1 duplicate dropped in their favour: stay dropped",
        "made from them: model@v1 (init), stays",
        "made from them: packs@v1 (text), would be withdrawn as well",
        "Nothing was changed. --yes does it",
    ):
        assert line in result.stdout, result.stdout
    assert files(lake) == before


def test_with_yes_it_does_it_and_says_how_to_erase(lake, tmp_path):
    args = [
        *named(tmp_path, "https://example.org/b\n"),
        *named(tmp_path, "# all of it\n\n Jane-Doe.EXAMPLE. \n", "domains"),
    ]
    result = grist(lake, "forget", *args, "--reason", "request 7", "--yes")
    assert result.exit_code == 0, result.output
    for line in (
        "web: 2 texts",
        "web@v2 is without them",
        "  withdrawn: v1",
        "made from them: packs@v1 (text), withdrawn as well",
        "grist gc --grace 0s --yes",
        "texts that extraction stored",
        "Input files outside the lake are not touched",
    ):
        assert line in result.stdout, result.stdout
    manifest = Versions(lake).resolve("web")
    assert manifest.version == 2 and {"at", "host", "packages", "commit_id"} <= manifest.made.keys()
    shown = grist(lake, "show", "web")
    assert shown.exit_code == 0 and "requested" in shown.stdout and "forget" in shown.stdout
    why = grist(lake, "why", "https://example.org/b")
    assert why.exit_code == 0 and "forget.requested" in why.stdout
    assert "request 7" in grist(lake, "log", "web").stdout
    sound(lake)


def test_nothing_of_the_request_is_in_the_lake_in_clear_after_gc(lake, tmp_path):
    words = [b"jane", b"doe.example", b"example.org/b"]
    assert any(word in data for _, data in readable(lake) for word in words)
    args = [*named(tmp_path, "https://example.org/b"), *named(tmp_path, "jane-doe.example", "domains")]
    assert grist(lake, "forget", *args, "--reason", "request 7", "--yes").exit_code == 0
    assert grist(lake, "gc", "--grace", "0s", "--yes").exit_code == 0
    assert [(path, word) for path, data in readable(lake) for word in words if word in data.lower()] == []
    assert grist(lake, "verify", "--deep").exit_code == 0


def test_json_has_plan_and_report(lake, tmp_path):
    args = named(tmp_path, "https://example.org/b\n")
    dry = ask(lake, *args)
    assert dry["report"] is None and dry["plan"]["records"] == 1
    (web_,) = dry["plan"]["datasets"]
    assert (web_["dataset"], web_["base"], web_["withdraw"], web_["records"]) == ("web", 1, [1], 1)
    done = ask(lake, *args, "--yes")
    assert done["plan"] == dry["plan"]
    assert done["report"]["made"] == [{"from": "web@v1", "to": "web@v2"}]
    assert done["report"]["withdrawn"] == ["packs@v1", "web@v1"]
    again = ask(lake, *args, "--yes")
    assert again["report"]["made"] == [] == again["report"]["withdrawn"] and again["plan"]["datasets"] == []


def test_what_matches_nothing_is_still_kept_out(lake, tmp_path):
    result = grist(lake, "forget", *named(tmp_path, "ab" * 16, "ids"), "--reason", "request 7", "--yes")
    assert result.exit_code == 0 and "No version that is given out holds any of these records." in result.stdout
    assert "On the suppression list" in result.stdout and Versions(lake).numbers("web") == [1]
    assert "was not searched" not in result.stdout
    by_url = grist(lake, "forget", *named(tmp_path, "https://example.org/none"), "--reason", "request 8")
    assert "An id beside a url was not searched" in by_url.stdout
    assert Suppression.load(lake) == Suppression.of(["ab" * 16])


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("urls", "# x\n\nhttps://example.org/b\nexample\n", "line 4: 'example' is no absolute URL"),
        ("ids", "abc\n", "line 1: 'abc' is no record id"),
        ("domains", "https://example.org/", "line 1: 'https://example.org/' is no domain"),
        ("domains", "com", "would cover a whole top level"),
        ("urls", "\n# nothing\n", "nothing was named"),
    ],
)
def test_a_bad_entry_is_refused_with_its_place_and_nothing_changes(lake, tmp_path, kind, text, message):
    before = files(lake)
    result = grist(lake, "forget", *named(tmp_path, text, kind), "--reason", "request 7", "--yes")
    assert result.exit_code == 2 and message in result.stderr, result.output
    assert files(lake) == before


def test_a_reason_that_names_the_record_is_refused(lake, tmp_path):
    args = named(tmp_path, "jane-doe.example\n", "domains")
    result = grist(lake, "forget", *args, "--reason", "complaint of Jane-Doe.example", "--yes")
    assert result.exit_code == 2 and "--reason names what is to be forgotten" in result.stderr
    assert grist(lake, "forget", *args, "--reason", " ").exit_code == 2
    assert grist(lake, "forget", "--reason", "request 7").exit_code == 2
    missing = grist(lake, "forget", "--urls", str(tmp_path / "none.txt"), "--reason", "request 7")
    assert missing.exit_code == 1 and "none.txt" in missing.stderr
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8" in grist(lake, "forget", "--urls", str(binary), "--reason", "request 7").stderr


def test_a_byte_order_mark_and_a_fragment_are_no_comment(lake, tmp_path):
    args = named(tmp_path, "\ufeffhttps://example.org/b#top\r\n")
    assert ask(lake, *args)["plan"]["records"] == 1


COMMON = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "was",
    "for",
    "people",
    "which",
    "would",
    "about",
    "number",
    "have",
]


def crawl_in_dolmas_form(path: Path) -> dict[str, str]:
    """URL -> a word of its text that no other has. The URL stands in `id`, and there is no url, or none that says any
    thing; the last record has no URL at all."""
    urls = ["http://blog.example/private/page", "http://blog.example/?q=J%c3%bcrgen%20doe&me=%7Ex", "http://b.example/"]
    rng, rows, words = random.Random(0), [], {}
    for i, url in enumerate([*urls, "record-17"]):
        lines = [" ".join(rng.choices(COMMON, k=12)).capitalize() + "." for _ in range(25)]
        words[url] = f"secretword{i}"
        row = {"id": url, "text": "\n".join([*lines, f"It is {words[url]}."])}
        rows.append({**row, "url": None} if i == 1 else {**row, "url": ""} if i == 2 else row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return words


@pytest.fixture(scope="module")
def dolma(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A folder with such a crawl and a lake made of it, and its words."""
    folder = tmp_path_factory.mktemp("dolma")
    words = crawl_in_dolmas_form(folder / "crawl.jsonl")
    assert web.run(folder / "lake", [folder / "crawl.jsonl"]).manifest.kept.count == 4
    return folder, words


@pytest.fixture
def dolmas(dolma, tmp_path) -> tuple[Store, Path, dict[str, str]]:
    folder, words = dolma
    return open_store(str(shutil.copytree(folder / "lake", tmp_path / "lake"))), folder / "crawl.jsonl", words


SPELLED = ["http://BLOG.example/private/page", "http://blog.example:80/?q=Jürgen+doe&me=~x#top"]


@pytest.mark.parametrize("kind", ["urls", "domains", "ids"])
def test_a_url_that_stands_in_id_is_found_by_why_and_by_forget(dolmas, tmp_path, kind):
    store, _, words = dolmas
    ids = []
    for url in (*list(words)[:2], *SPELLED):
        (story,) = json.loads(grist(store, "why", "--json", url).stdout)["stories"]
        assert story["fate"] == "kept"
        ids.append(story["place"]["id"])
    assert ids[:2] == ids[2:] and ids[0] != ids[1]
    entries = {"urls": SPELLED, "domains": ["BLOG.example"], "ids": ids}[kind]
    output = grist(store, "forget", *named(tmp_path, "\n".join(entries), kind), "--reason", "request 7").stdout
    assert "web: 2 texts" in output and ("1 record of these versions have no URL" in output) == (kind == "domains")


def test_after_gc_a_later_run_over_the_same_crawl_stores_nothing_of_it(dolmas, tmp_path):
    store, crawl, words = dolmas
    assert ask(store, *named(tmp_path, "blog.example\n", "domains"), "--yes")["report"]["withdrawn"] == ["web@v1"]
    assert grist(store, "gc", "--grace", "0s", "--yes").exit_code == 0
    other = web.run(store.uri, [crawl], dataset="other", gopher_quality={"min_words": 20}).manifest
    assert other.kept.count == 2
    assert next(row for row in other.funnel if row.stage == "forget").dropped == {"forget.suppressed": 2}
    left = {url for url, word in words.items() if any(word.encode() in data for _, data in readable(store))}
    assert left == set(list(words)[2:])
    sound(store)


def test_the_web_pipeline_leaves_out_what_was_forgotten(tmp_path, sample):
    """A night, forget, erase: the same inputs are nothing new, a night goes on from the clean version, and another
    dataset of the same inputs is made without the page."""
    lake, files = tmp_path / "lake", web.crawl_files(sample)
    lax = {"max_quarantine_rate": 0.9}  # the first file is the damaged one
    first = web.run(lake, files[:1], extends="web", **lax).manifest
    store = open_store(str(lake))
    shard = pq.read_table(store.open(first.shards[0].key))
    page = {name: shard[name][0].as_py() for name in ("id", "url", "text")}
    done = ask(store, *named(tmp_path, page["url"]), "--yes")
    assert done["report"]["made"] == [{"from": "web@v1", "to": "web@v2"}]
    assert grist(store, "gc", "--grace", "0s", "--yes").exit_code == 0
    needle = page["text"].encode()
    assert not any(needle in data or page["url"].encode() in data for _, data in readable(store))
    clean = Versions(store).resolve("web")
    assert web.run(lake, files[:1], extends="web", **lax).manifest == clean
    grown = web.run(lake, files[:2], extends="web", **lax).manifest
    assert grown.parent == clean.ref and grown.kept.count > clean.kept.count
    other = web.run(lake, files[:1], dataset="other", **lax).manifest
    dropped = {reason: n for row in other.funnel for reason, n in row.dropped.items()}
    assert dropped["forget.suppressed"] == 1 and other.kept == clean.kept
    sound(store)
