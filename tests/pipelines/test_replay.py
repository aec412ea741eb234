"""`grist replay`: what it says is what a run with those settings comes to; what it cannot know it refuses."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import vision
import web

from gristmill.lake.query.diff import diff
from gristmill.lake.store.objects import put_refs, put_table, read_refs, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.replay.replay import KEPT, Replay, replay
from gristmill.pipelines.replay.verdicts import PASSES
from gristmill.pipelines.settings.config import BadConfig
from tests.filters.test_replay import documents

ALL = {
    "url": {},
    "language": {"keep": []},
    "gopher_repetition": {},
    "c4_quality": {"min_sentences": 2},
    "fineweb_quality": {"max_short_lines": 0.9},
    "language_quality": {},
}
"""Every filter that has measures."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="module")
def files(sample, tmp_path_factory) -> list[Path | str]:
    """A part of the crawl, and texts of every kind of dirt, some of them twice."""
    docs = documents(200)
    assert docs.urls is not None
    pairs = list(zip(docs.strings, docs.urls.to_pylist(), strict=True))
    dirty = tmp_path_factory.mktemp("inputs") / "dirty.jsonl"
    rows = [{"text": text, "url": f"{url}/{n}"} for n, (text, url) in enumerate([*pairs, *pairs[:60]])]
    dirty.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [*web.crawl_files(sample)[:2], dirty]


@pytest.fixture(scope="module")
def base(folder, files) -> Manifest:
    """A version whose only comparison is for exact duplicates."""
    return web.run(folder, files, minhash=None, **ALL).manifest


def versions_in(folder: Path) -> Versions:
    return Versions(open_store(str(folder)))


def real(folder: Path, files: list[Path | str], settings: dict[str, object], **recipe: object) -> Manifest:
    """The version of a run with these settings, `filter.field`: value, or `filter`: None."""
    over = {key: dict(value) for key, value in ALL.items()} | recipe
    for dotted, value in settings.items():
        section, _, field = dotted.partition(".")
        over[section] = {**(over.get(section) or {}), field: value} if field else value
    return web.run(folder, files, minhash=None, **over).manifest


def spelled(settings: dict[str, object]) -> list[str]:
    return [f"recipe.{key}={json.dumps(value)}" for key, value in settings.items()]


def moves(answer: Replay) -> Counter[tuple[str, str]]:
    return Counter({(change.before, change.after): change.records for change in answer.changes})


SETTINGS: list[dict[str, object]] = [
    {"gopher_quality.min_words": 200},
    {"gopher_quality.min_words": 5, "gopher_quality.min_stop_words": 0},
    {"gopher_quality": None},
    {"gopher_quality.max_symbol_run": 20, "gopher_repetition": None},
    {"language.keep": ["de"], "language_quality.min_words": 70},
    {"language.min_score": 0.99, "c4_quality.min_sentences": 8},
    {"fineweb_quality.max_newlines_per_word": 0.05, "gopher_repetition.max_top_2_gram": 0.02},
    {"url.max_soft_words": 0, "fineweb_quality": None, "c4_quality": None, "gopher_repetition": None},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: ",".join(settings))
def test_a_replay_says_what_a_run_comes_to(folder, base, files, settings) -> None:
    versions = versions_in(folder)
    answer = replay(versions, base, spelled(settings))
    run = real(folder, files, settings)
    assert run.version != base.version
    filters = {reason for change in answer.changes for reason in (change.before, change.after)}
    compared = diff(versions.store, base, run)
    came = Counter[tuple[str, str]]()
    for change in compared.changes:  # of a record that passes now the replay says no more
        behind = change.after == KEPT or change.after.startswith("exact.")
        after = PASSES if behind else change.after
        if not (behind and (change.before == KEPT or change.before.startswith("exact."))):
            came[change.before, after] += change.records
    assert moves(answer) == came and came, filters
    after = {name: n for name, _, n in answer.verdicts}
    in_run = {reason: n for row in run.funnel for reason, n in (*row.dropped.items(), *row.quarantined.items())}
    screened = {name for name in {*after, *in_run} if name.partition(".")[0] in {"language", *ALL, "gopher_quality"}}
    assert {name: after.get(name, 0) for name in screened} == {name: in_run.get(name, 0) for name in screened}
    assert answer.is_exact and answer.kept_at_most == run.kept.count
    assert answer.passed == run.kept.count + sum(n for reason, n in in_run.items() if reason.startswith("exact."))
    assert sum(n for _, _, n in answer.verdicts) == base.received.count


def test_the_settings_of_the_version_change_nothing(folder, base) -> None:
    answer = replay(versions_in(folder), base, ["recipe.gopher_quality.min_words=50"])
    assert answer.changes == () == answer.settings and answer.kept_at_most == base.kept.count
    assert all(before == after for _, before, after in answer.verdicts)
    assert answer.asked < answer.received


def test_examples_have_their_measure_and_their_text(folder, base) -> None:
    answer = replay(versions_in(folder), base, ["recipe.gopher_quality.min_words=200"], examples=2)
    (change,) = (c for c in answer.changes if c.before == KEPT)
    assert change.after == "gopher_quality.too_few_words" and change.records > 2 == len(change.examples)
    for example in change.examples:
        assert example.measure == "gopher_quality.n_words" and 50 <= example.value < 200
        assert example.record.text and example.record.fate == KEPT and example.record.place.names
    assert replay(versions_in(folder), base, ["recipe.gopher_quality.min_words=200"], 0).changes[0].examples == ()


REFUSED = {
    "recipe.gopher_quality.stop_words=[mill]": "recipe.gopher_quality.stop_words: it decides what is measured",
    "recipe.gopher_quality.max_symbol_run=null": "recipe.gopher_quality.max_symbol_run: it decides what is measured",
    "recipe.url.words=[mill]": "recipe.url.words: it decides what is measured",
    "recipe.minhash={}": "recipe.minhash: only settings of the filters are replayed \\(url, language, gopher_rep",
    "recipe.shards.target_bytes=5": "recipe.shards.target_bytes: only settings of the filters",
    "recipe.datatrove={filter: FineWebQualityFilter}": "recipe.datatrove: it was off, so that nothing was measured",
    "recipe.gopher_quality.min_word=5": "recipe.gopher_quality.min_word: unknown key; allowed here: languages",
    "run.workers=0": "run.workers: only settings of the filters",
    "recipe.language.min_score=7": "recipe.language: language.min_score is 7.0; a probability",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_what_cannot_be_known_is_refused(folder, base, setting) -> None:
    with pytest.raises(BadConfig, match=REFUSED[setting]):
        replay(versions_in(folder), base, [setting])


def test_all_that_is_refused_is_said_at_once(folder, base) -> None:
    asked = ["recipe.gopher_quality.stop_words=[mill]", "recipe.exact=null", "recipe.url.words=[mill]"]
    with pytest.raises(BadConfig) as refused:
        replay(versions_in(folder), base, ["recipe.gopher_quality.min_words=5", *asked[::2]])
    assert len(str(refused.value).splitlines()) == 2
    with pytest.raises(BadConfig, match="give a filter's setting"):
        replay(versions_in(folder), base, [])


def test_measures_of_another_release_are_not_judged(folder, base) -> None:
    older = tuple(
        stage.model_copy(update={"version": 7}) if stage.name == "gopher_quality" else stage for stage in base.stages
    )
    with pytest.raises(BadConfig, match="was judged by VERSION 7 of gopher_quality, this release has 1"):
        replay(versions_in(folder), base.model_copy(update={"stages": older}), ["recipe.gopher_quality.min_words=5"])


def test_rules_that_do_not_give_the_stored_reasons_are_not_replayed(folder, base) -> None:
    versions = versions_in(folder)
    store = versions.store
    (listed,) = (ref for ref in base.attachments if ref.kind == "refs")
    refs = read_refs(store, listed)
    at = next(n for n, ref in enumerate(refs) if ref.kind == "screened" and ref.records)
    table = read_table(store, refs[at])
    other = pc.if_else(pc.is_null(table["reason"]), "url.word", table["reason"])
    changed = table.set_column(table.schema.get_field_index("reason"), "reason", other.cast(pa.string()))
    refs[at] = put_table(store, "screened", changed)
    attachments = (*(ref for ref in base.attachments if ref.kind != "refs"), put_refs(store, refs))
    with pytest.raises(ValueError, match="give other reasons for the measures that are stored there"):
        replay(versions, base.model_copy(update={"attachments": attachments}), ["recipe.gopher_quality.min_words=5"])


def test_each_version_of_a_chain_is_judged_with_its_own_recipe(tmp_path, sample) -> None:
    files = [*web.crawl_files(sample), *sorted((sample / "night2").iterdir())]
    first = web.run(tmp_path, files[:-1], extends="web").manifest
    second = web.run(tmp_path, files, extends="web", gopher_quality={"min_words": 70}).manifest
    assert second.parent is not None and first.received.count < second.received.count
    answer = replay(versions_in(tmp_path), second, ["recipe.gopher_quality.min_words=200"])
    assert answer.settings == (
        ("recipe.gopher_quality.min_words", 70, 200),
        ("recipe.gopher_quality.min_words", 50, 200),
    )
    asked = web.run(tmp_path / "asked", files, gopher_quality={"min_words": 200}).manifest
    few = "gopher_quality.too_few_words"
    after = {name: n for name, _, n in answer.verdicts}
    in_run = next(row.dropped for row in asked.funnel if row.stage == "gopher_quality")
    assert after[few] == in_run[few] > 0
    assert not answer.is_exact and asked.kept.count <= answer.kept_at_most <= answer.passed


def test_what_was_taken_down_is_not_brought_back(tmp_path, sample) -> None:
    base = web.run(tmp_path, web.crawl_files(sample), minhash=None).manifest
    versions = versions_in(tmp_path)
    asked = ["recipe.gopher_quality.min_words=200"]
    before = replay(versions, base, asked)
    (change,) = (c for c in before.changes if c.before == KEPT)
    gone = change.examples[0].record
    forget(versions, plan_forget(versions, Suppression.of(ids=[gone.id])), "a test")
    after = replay(versions, versions.resolve("web"), asked)
    assert moves(after)[KEPT, change.after] == change.records - 1
    assert gone.id not in {e.record.id for c in after.changes for e in c.examples}
    assert not after.is_exact


CAPTIONS = ["A red mill by the river in the evening.", "short", "IMG_20231101.JPG", "A barn."]
SIZES = [(96, 128), (5, 400), (300, 300)]


def test_a_record_that_an_earlier_screen_drops_is_asked_no_further(store, tmp_path) -> None:
    """Images are screened before captions: a record goes and comes between the two."""
    lines, images = [], {}
    for n, (caption, size) in enumerate((caption, size) for caption in CAPTIONS for size in SIZES):
        images[f"{n}.png"] = vision.encoded(vision.pixels(n, *size))
        lines.append({"image": f"{n}.png", "text": caption})
    inputs = [vision.folder_of(tmp_path / "in", lines, images)]
    base = vision.run(store, inputs, min_similarity=None)
    settings = {"image_size": {"min_side": 100}, "caption": {"min_characters": 10}}
    spelled_out = [f"recipe.{key}={json.dumps(value)}" for key, value in settings.items()]
    answer = replay(Versions(store), base, spelled_out)
    compared = diff(store, base, vision.run(store, inputs, min_similarity=None, **settings))
    narrow = "image_size.too_narrow"
    assert (
        moves(answer)
        == {(c.before, c.after): c.records for c in compared.changes}
        == {
            (KEPT, narrow): 2,  # two captions that pass, of a picture that was high enough
            ("caption.too_short", narrow): 1,
            ("caption.boilerplate", narrow): 1,
            (KEPT, "caption.too_short"): 1,
        }
    )
    wider = replay(Versions(store), base, ["recipe.image_size.min_side=2"])
    assert moves(wider) == {(narrow, PASSES): 4}  # what their captions come to is not known
    assert wider.kept_at_most == base.kept.count + 4 and wider.unmeasured == 4 and not wider.is_exact
