"""Repeated substrings cut out of texts: by a plain reference, whatever the chunks, ranges and increments."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import web
from forget_lake import do
from repeated_runs import N, fates, measured, reference, run, texts_of, write

from gristmill import lake
from gristmill.lake.store.objects import read_refs, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.replay.replay import replay
from gristmill.stages.dedup import judge_runs, pieces
from gristmill.stages.run.unfinished import Incomplete

MIN_WORDS = 4
CUT: dict[str, Any] = {"substrings": {"min_tokens": N, "repeated": "cut", "min_words": MIN_WORDS}}


def cut_by_hand(texts: list[str], known: int = 0) -> list[tuple[str, int, int]]:
    """Of each text what is left, how many ranges went and how many words."""
    answer = []
    for text, ranges in zip(texts, reference(texts, N), strict=True):
        gone = {at for start, end in ranges for at in range(start, end)}
        left = [word for at, word in enumerate(text.split()) if at not in gone]
        answer.append((" ".join(left), len(ranges), len(gone)))
    return answer[known:]


def shipped(folder: Path) -> dict[str, str]:
    """The end of a URL -> text."""
    rows = lake.open("web", lake=str(folder)).to_arrow().select(["url", "text"]).to_pylist()
    return {row["url"].removeprefix("https://e.org/"): row["text"] for row in rows}


def expected(name: str, left: list[tuple[str, int, int]]) -> dict[str, str]:
    """What is shipped of a file: what was not cut, and what has enough words left."""
    texts = {f"{name}/{n}": row for n, row in enumerate(left)}
    return {url: text for url, (text, ranges, _) in texts.items() if not ranges or len(text.split()) >= MIN_WORDS}


@pytest.mark.parametrize("seed", range(3))
def test_texts_ledger_and_statistics_are_those_of_a_plain_reference(tmp_path, monkeypatch, seed) -> None:
    monkeypatch.setattr(pieces, "ROWS_PER_RANGE", 100)  # several ranges and groups, though texts are few
    monkeypatch.setattr(pieces, "ROWS_PER_GROUP", 150)
    texts = texts_of(random.Random(seed), 40)
    again = " ".join(max(texts, key=len).split()[:12])
    texts += [again, f"{again} few left"]
    folder = tmp_path / "lake"
    m = run(folder, [write(tmp_path / "a.jsonl", texts)], **CUT)
    left, ranges = cut_by_hand(texts), reference(texts, N)
    assert shipped(folder) == expected("a", left)
    came = fates(folder)
    for n, (text, n_ranges, n_words) in enumerate(left):
        words, n_left = len(texts[n].split()), len(text.split())
        reason = "nothing_left" if not n_left else "too_few_words" if n_left < MIN_WORDS else None
        assert came[n][0] == (f"substrings.{reason}" if reason and n_ranges else None)
        if n_ranges and reason is None:
            shown = ", ".join(f"{start} to {end}" for start, end in ranges[n])
            assert came[n][1] == f"substrings: ranges {n_ranges}, words {n_words} ({shown} of {words})"
        elif not n_ranges:
            assert came[n][1] is None
        else:
            start, end = max(ranges[n], key=lambda part: (part[1] - part[0], -part[0]))
            assert came[n][1] == f"{n_words / words:.4g}; words {start} to {end} of {words}"
    reasons = {reason for reason, _ in came.values()}
    assert reasons == {None, "substrings.nothing_left", "substrings.too_few_words"}
    kept = [row for n, row in enumerate(left) if came[n][0] is None]
    assert m.statistics["edits"] == {
        "substrings.ranges": sum(row[1] for row in kept), "substrings.words": sum(row[2] for row in kept)
    }  # fmt: skip
    assert [value for _, value in sorted(measured(folder, m).items())] == ranges
    assert verify(open_store(str(folder)), deep=True) == []


def test_the_same_texts_for_other_chunks_ranges_groups_and_slices(tmp_path, monkeypatch) -> None:
    path = write(tmp_path / "a.jsonl", texts_of(random.Random(4), 40))
    run(tmp_path / "lake", [path], **CUT)
    monkeypatch.setattr(pieces, "ROWS_PER_RANGE", 64)
    monkeypatch.setattr(pieces, "ROWS_PER_GROUP", 64)
    monkeypatch.setattr("gristmill.filters.signatures.ngrams.SLICE_BYTES", 300)
    run(tmp_path / "other", [path], scan={"chunk_records": 3}, **CUT)
    assert shipped(tmp_path / "lake") == shipped(tmp_path / "other")
    assert fates(tmp_path / "lake") == fates(tmp_path / "other")


def test_an_increment_is_cut_of_what_earlier_versions_have(tmp_path) -> None:
    texts = texts_of(random.Random(9), 40)
    first, second = write(tmp_path / "a.jsonl", texts[:20]), write(tmp_path / "b.jsonl", texts[20:])
    grown = tmp_path / "grown"
    before = run(grown, [first], extends="web", **CUT)
    m = run(grown, [first, second], extends="web", **CUT)
    new = expected("b", cut_by_hand(texts, 20))
    assert {url: text for url, text in shipped(grown).items() if url.startswith("b/")} == new and new
    assert shipped(grown) == {**expected("a", cut_by_hand(texts[:20])), **new}
    kept = sum(
        row[2] for url, row in zip((f"b/{n}" for n in range(20)), cut_by_hand(texts, 20), strict=True) if url in new
    )
    assert m.statistics["edits"]["substrings.words"] == before.statistics["edits"]["substrings.words"] + kept
    assert verify(open_store(str(grown)), deep=True) == []


def test_runs_of_a_version_that_dropped_serve_one_that_cuts(tmp_path) -> None:
    texts = texts_of(random.Random(9), 40)
    first, second = write(tmp_path / "a.jsonl", texts[:20]), write(tmp_path / "b.jsonl", texts[20:])
    grown = tmp_path / "grown"
    run(grown, [first], extends="web")
    run(grown, [first, second], extends="web", **CUT)
    new = expected("b", cut_by_hand(texts, 20))
    assert {url: text for url, text in shipped(grown).items() if url.startswith("b/")} == new


def words_of(name: str, count: int) -> str:
    """Without digits, of which all are one to near duplicates."""
    return " ".join(f"{name}{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(count))


def test_near_duplicates_are_told_on_what_is_left(tmp_path) -> None:
    """Two pages that differ in most of their text, which an earlier page has, and are alike in the rest."""
    rest = [words_of("rest", 60), words_of("rest", 60).replace("restbe ", "other ")]
    long = [words_of("left", 60), words_of("right", 60)]
    # What the two have in common is no run of 35 words.
    pages = [*long, f"{long[0]} {rest[0]}", f"{long[1]} {rest[1]}"]
    path = write(tmp_path / "a.jsonl", pages)
    near: dict[str, Any] = {"minhash": {"bands": 32, "rows": 4}, "min_similarity": 0.65}
    substrings = {"min_tokens": 35, "repeated": "cut", "min_words": 10}
    run(tmp_path / "whole", [path], substrings=None, **near)
    run(tmp_path / "cut", [path], substrings=substrings, **near)
    assert "minhash.duplicate" not in {reason for reason, _ in fates(tmp_path / "whole").values()}
    came = fates(tmp_path / "cut")
    assert sorted(str(came[n][0]) for n in (2, 3)) == ["None", "minhash.duplicate"]
    (survivor,) = (n for n in (2, 3) if came[n][0] is None)
    assert shipped(tmp_path / "cut")[f"a/{survivor}"] == rest[survivor - 2]


def test_what_was_dropped_before_is_in_no_comparison(tmp_path) -> None:
    shared = words_of("shared", 20)
    rows = [shared, shared, f"{words_of('mine', 9)} {shared}"]
    m = run(tmp_path / "lake", [write(tmp_path / "a.jsonl", rows)], **CUT)
    came = fates(tmp_path / "lake")
    assert sorted(str(came[n][0]) for n in (0, 1)) == ["None", "exact.duplicate"]
    assert came[2] == (None, "substrings: ranges 1, words 20 (9 to 29 of 29)")
    assert m.kept.count == len(measures(tmp_path / "lake", m)) == 2


def test_a_cut_comes_after_an_edit_and_counts_beside_it(tmp_path) -> None:
    shared = words_of("shared", 20)
    pages = [f"{words_of('own', 9)} {shared}", f"{words_of('mine', 9)}. Mail a.b@mill.example. {shared}"]
    m = run(tmp_path / "lake", [write(tmp_path / "a.jsonl", pages)], pii={"kinds": ["email"]}, **CUT)
    assert shipped(tmp_path / "lake")["a/1"] == f"{words_of('mine', 9)}. Mail <email>."
    assert fates(tmp_path / "lake")[1][1] == "pii: email 1; substrings: ranges 1, words 20 (11 to 31 of 31)"
    assert m.statistics["edits"] == {"pii.email": 1, "substrings.ranges": 1, "substrings.words": 20}
    # A later version that edits nothing has these texts all the same.
    third = write(tmp_path / "b.jsonl", [words_of("later", 9)])
    asked = {"pii": None, "substrings": None, "extends": "web"}
    assert run(tmp_path / "lake", [tmp_path / "a.jsonl", third], **asked).statistics["edits"] == m.statistics["edits"]


def test_who_had_a_run_first_is_forgotten_and_what_was_cut_stays_cut(tmp_path) -> None:
    shared = words_of("shared", 20)
    pages = [f"{words_of('own', 9)} {shared}", f"{words_of('mine', 9)} {shared}"]
    folder = tmp_path / "lake"
    path = write(tmp_path / "a.jsonl", pages)
    m = run(folder, [path], **CUT)
    ids = {row["url"][-1]: row["id"] for row in lake.open("web", lake=str(folder)).to_arrow().to_pylist()}
    store = open_store(str(folder))
    do(store, Suppression.of(ids=[ids["0"]]))
    assert shipped(folder) == {"a/1": words_of("mine", 9)}
    assert Versions(store).resolve("web").statistics["edits"] == m.statistics["edits"]
    do(store, Suppression.of(ids=[ids["1"]]))
    assert Versions(store).resolve("web").statistics["edits"] == {"substrings.ranges": 0, "substrings.words": 0}
    assert verify(store, deep=True) == []


def test_filters_of_a_version_that_cuts_are_replayed(tmp_path) -> None:
    folder = tmp_path / "lake"
    texts = texts_of(random.Random(1), 30)
    open_ = {"gopher_quality": {"languages": [], "min_words": 3, "min_stop_words": 0, "min_mean_word_length": 0}}
    m = run(folder, [write(tmp_path / "a.jsonl", texts)], **CUT, **open_)
    stricter = replay(Versions(open_store(str(folder))), m, ["recipe.gopher_quality.min_words=15"])
    fewer = sum(3 <= len(text.split()) < 15 for text in texts)
    assert {after: n for after, _, n in stricter.verdicts}["gopher_quality.too_few_words"] >= fewer > 0


def test_content_and_runs_of_other_records_are_refused(tmp_path, monkeypatch) -> None:
    path = write(tmp_path / "a.jsonl", texts_of(random.Random(2), 20))
    alive = judge_runs.alive
    monkeypatch.setattr(judge_runs, "alive", lambda *args, **named: alive(*args, **named).slice(1))
    with pytest.raises(Incomplete, match="name other records"):
        run(tmp_path / "lake", [path], **CUT)


def test_identities_have_what_decides() -> None:
    def substrings(**settings: Any) -> dict[str, Any]:
        return dict(web.config([], substrings=settings).recipe.identity()["substrings"])

    assert substrings() == substrings(min_words=9) == {"min_tokens": 50, "max_repeated": 0.5}
    assert substrings(repeated="cut") == substrings(repeated="cut", max_repeated=0.1)
    assert substrings(repeated="cut") == {"min_tokens": 50, "repeated": "cut", "min_words": 50}


def test_measures_of_a_cut_are_kept(tmp_path) -> None:
    texts = texts_of(random.Random(0), 20)
    folder = tmp_path / "lake"
    m = run(folder, [write(tmp_path / "a.jsonl", texts)], **CUT)
    assert measures(folder, m) == {n: row[1:] for n, row in enumerate(cut_by_hand(texts))}


def measures(folder: Path, m: Manifest) -> dict[int, tuple[int, int]]:
    """Ordinal -> ranges and words, of all that came to the cut."""
    store = open_store(str(folder))
    refs = [ref for listed in m.attachments if listed.kind == "refs" for ref in read_refs(store, listed)]
    tables = [read_table(store, ref) for ref in refs if ref.kind == "screened"]
    rows = [row for table in tables if "substrings.words" in table.schema.names for row in table.to_pylist()]
    return {row["ordinal"]: (row["substrings.ranges"], row["substrings.words"]) for row in rows}
