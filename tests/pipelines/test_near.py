"""Near duplicates from texts to ledger: revisions, templates, a changed threshold, increments of other recipes."""

from __future__ import annotations

import json
import random
import shutil
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
import web

from gristmill import lake
from gristmill.filters.signatures.minhash import words
from gristmill.lake.query.query import describe
from gristmill.lake.query.why import why
from gristmill.lake.store.objects import put_table, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.recipes import changed_on_the_way
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.command import main
from gristmill.pipelines.frame.growth import growth_report
from gristmill.pipelines.settings.config import BadConfig, validate
from gristmill.pipelines.web import WebConfig
from gristmill.stages.clusters.divergence import current
from gristmill.stages.near.minhash import Sign

GOLDEN = Path(__file__).parents[1] / "golden"
ANY_TEXT = {"language": {"keep": [], "min_score": 0}, "gopher_quality": {"languages": ["xx"]}}


def sentence(chance: random.Random, length: int = 10) -> str:
    return " ".join("".join(chance.choices("abcdefghiklmnoprstuw", k=chance.randint(3, 9))) for _ in range(length))


def revisions(seed: int, number: int, sentences: int = 25) -> list[str]:
    """Each changes one sentence of the one before it, in turn."""
    chance = random.Random(seed)
    text = [sentence(chance) for _ in range(sentences)]
    texts = []
    for i in range(number):
        texts.append(". ".join(text))
        text[i % sentences] = sentence(chance)
    return texts


def template(seed: int, pages: int, own: int, shared: int = 151) -> list[str]:
    """Pages with words in common around `own` words of their own."""
    chance = random.Random(seed)
    head, foot = sentence(chance, shared // 2), sentence(chance, shared - shared // 2)
    return [f"{head}. {sentence(chance, own)}. {foot}" for _ in range(pages)]


def write(path: Path, texts: list[str], first: int = 0) -> Path:
    lines = [{"url": f"https://wiki.example/{n}", "text": text} for n, text in enumerate(texts, first)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run(folder: Path, texts: list[str], **recipe) -> Manifest:
    return web.run(folder / "lake", [write(folder / "pages.jsonl", texts)], **{**ANY_TEXT, **recipe}).manifest


def jaccard(a: str, b: str) -> float:
    left, right = (
        {tuple(folded[i : i + 5]) for i in range(len(folded) - 4)} for folded in (words(text) for text in (a, b))
    )
    return len(left & right) / len(left | right)


@pytest.mark.parametrize(("number", "seed"), [(26, 1), (40, 2)])
def test_a_page_that_was_revised_again_and_again_is_not_one_page(tmp_path, number, seed):
    texts = revisions(seed, number)
    assert min(jaccard(a, b) for a, b in pairwise(texts)) > 0.85 and jaccard(texts[0], texts[25]) < 0.1
    manifest = run(tmp_path, texts)
    assert 4 <= manifest.kept.count <= number / 2
    store = open_store(str(tmp_path / "lake"))
    by_id = {row["id"]: row for row in lake.open("web", lake=store.uri).ledger().to_pylist()}
    for row in by_id.values():
        if row["fate"] == "dropped":
            alike = jaccard(texts[row["ordinal"]], texts[by_id[row["survivor"]]["ordinal"]])
            assert float(row["value"]) >= 0.7 and alike > 0.6 and abs(float(row["value"]) - alike) < 0.15
            assert by_id[row["survivor"]]["fate"] == "kept"
    dropped = next(row["id"] for row in by_id.values() if row["fate"] == "dropped")
    (story,) = why(Versions(store), dropped).stories
    assert story.value == by_id[dropped]["value"] and story.cluster is not None
    table = [
        row for ref in manifest.attachments if ref.kind == "clusters" for row in read_table(store, ref).to_pylist()
    ]
    assert {row["id"]: row["survivor"] for row in table} == {
        row["id"]: row["survivor"] for row in by_id.values() if row["fate"] == "dropped"
    }


@pytest.mark.parametrize("own", [40, 60, 80, 120])
def test_pages_with_a_common_template_are_not_copies(tmp_path, own):
    texts = template(own, 30, own)
    assert 0.3 < jaccard(texts[0], texts[1]) < 0.63
    assert run(tmp_path, texts).kept.count == 30
    assert run(tmp_path, texts, min_similarity=None).kept.count < 30


def test_copies_of_pages_with_a_template_go_all_the_same(tmp_path):
    """Thirty pages, of each an exact copy and one with two words changed."""
    texts = template(7, 30, 60)
    near = [text.replace(text.split()[3], "other").replace(text.split()[-4], "another") for text in texts]
    manifest = run(tmp_path, [*texts, *texts, *near])
    reasons = {reason: n for row in manifest.funnel for reason, n in row.dropped.items()}
    assert reasons == {"exact.duplicate": 30, "minhash.duplicate": 30} and manifest.kept.count == 30


def test_another_similarity_signs_nothing_again(tmp_path, monkeypatch):
    texts = revisions(3, 20)
    counts = {0.7: run(tmp_path, texts).kept.count}
    monkeypatch.setattr(Sign, "run", None)
    for similarity in (0.95, 0.3, None):
        counts[similarity] = run(tmp_path, texts, min_similarity=similarity).kept.count
    assert counts[0.95] > counts[0.7] > counts[0.3] >= counts[None] == 1


@pytest.mark.parametrize(("value", "message"), [(0, "greater than 0"), (1.5, "less than or equal to 1")])
def test_a_similarity_that_is_none_is_refused(value, message):
    with pytest.raises(BadConfig, match=rf"recipe\.min_similarity: .*{message}"):
        validate(WebConfig, {"recipe": {"min_similarity": value}})


# Increments


def increment(folder: Path, texts: list[list[str]], **recipe) -> Manifest:
    files = [write(folder / f"{n}.jsonl", part, 100 * n) for n, part in enumerate(texts)]
    return web.run(folder / "lake", files, extends="web", **{**ANY_TEXT, **recipe}).manifest


def test_increments_of_one_recipe_say_what_one_run_would_have_kept(tmp_path):
    texts = revisions(4, 26)
    parts = [texts[:9], texts[9:18], texts[18:]]
    for n in (1, 2, 3):
        grown = increment(tmp_path, parts[:n])
    whole = web.run(tmp_path / "whole", sorted(tmp_path.glob("*.jsonl")), **ANY_TEXT).manifest
    growth = grown.statistics["growth"]
    assert grown.kept.count - whole.kept.count == growth["kept_here"] - growth["dropped_here"]
    here, there = (set(ids(tmp_path / name)) for name in ("lake", "whole"))
    assert (len(here - there), len(there - here)) == (growth["kept_here"], growth["dropped_here"])
    changed = changed_on_the_way(Versions(open_store(str(tmp_path / "lake"))), grown)
    assert changed == () and "one run over everything would have kept" in growth_report(grown, changed)
    assert sum(ref.kind == "divergence" for ref in grown.attachments) == 1


def ids(folder: Path) -> list[str]:
    return lake.open("web", lake=str(folder)).to_arrow()["id"].to_pylist()


def test_increments_without_a_difference_say_so(tmp_path):
    parts = [template(1, 5, 200), template(2, 5, 200)]
    increment(tmp_path, parts[:1])
    assert "would have kept the same records" in growth_report(increment(tmp_path, parts))


def test_increments_of_other_recipes_do_not_claim_to_know(tmp_path):
    parts = [template(n, 3, 200) for n in range(3)]
    increment(tmp_path, parts[:1], gopher_quality={"languages": ["xx"], "min_words": 10})
    increment(tmp_path, parts[:2], max_quarantine_rate=0.5)
    grown = increment(tmp_path, parts, max_quarantine_rate=0.4)
    about = describe(Versions(open_store(str(tmp_path / "lake"))), "web")
    assert about.manifest == grown and about.changed == ("gopher_quality.min_words",)
    report = growth_report(grown, about.changed)
    assert "(gopher_quality.min_words changed on the way)" in report and "is not known" in report
    assert "the same records" not in report and about.to_json()["changed_on_the_way"] == ["gopher_quality.min_words"]


def test_nothing_new_with_another_recipe_is_said_as_it_is(tmp_path, caplog):
    parts = [template(1, 3, 200)]
    increment(tmp_path, parts)
    common = [f"recipe.inputs=[{tmp_path}/0.jsonl]", "recipe.language={keep: [], min_score: 0}", "run.workers=0"]
    common += ["recipe.scan.chunk_bytes=200000", "recipe.shards.target_bytes=100000"]
    reports = {}
    for language in ("xx", "en"):
        caplog.clear()
        settings = [*common, "recipe.extends=web", f"recipe.gopher_quality.languages=[{language}]"]
        argv = ["run", str(GOLDEN.parents[1] / "conf" / "web.yaml"), "--lake", str(tmp_path / "lake")]
        with caplog.at_level("INFO", "gristmill"):
            assert main([*argv, *(word for setting in settings for word in ("--set", setting))]) == 0
        reports[language] = next(record.message for record in caplog.records if "nothing to do" in record.message)
    assert reports["xx"] == "web@v1 has all of these inputs; nothing to do"
    assert "made with other gopher_quality.languages than this recipe has" in reports["en"]
    assert "very run" not in reports["en"] and "run without extends" in reports["en"]


def test_what_increments_of_the_last_release_wrote_down_is_read_as_what_it_meant(tmp_path):
    """`joined`: the second was kept as well; `outranked`: the second would have been kept in place of the first."""
    store = open_store(str(tmp_path))
    rows = [("a", "b", "joined"), ("a", "c", "joined"), ("d", "e", "outranked")]
    table = pa.Table.from_pylist([dict(zip(("survivor", "other", "what"), row, strict=True)) for row in rows])
    assert [
        tuple(row.values()) for row in current(store, [put_table(store, "divergence", table)], [], []).to_pylist()
    ] == [
        ("b", "a", "kept_here"),
        ("c", "a", "kept_here"),
        ("d", "e", "dropped_here"),
        ("d", "e", "kept_here"),
    ]
    old = Manifest.model_construct(
        statistics={"growth": {"joined": 2, "outranked": 1, "exact_outranked": 0}}, recipe={}, dataset="web", version=2
    )
    assert "would have kept 2 fewer (dropped 3 near duplicates" in growth_report(old)
    for same, ending in ((1, "kept 1 text under another id"), (2, "kept 2 texts under another id")):
        old.statistics["growth"]["exact_outranked"] = same
        assert growth_report(old).endswith(f"would have {ending}")


def test_the_lake_of_the_last_release_grows(tmp_path):
    """Its recipe compared no near duplicates."""
    shutil.copytree(GOLDEN / "lake-format-1", tmp_path / "lake")
    before = ids(tmp_path / "lake")
    new = write(tmp_path / "new.jsonl", template(1, 2, 100))
    grown = web.run(tmp_path / "lake", [new], extends="web", minhash=None, **ANY_TEXT).manifest
    assert str(grown.parent) == "web@v2" and set(before) < set(ids(tmp_path / "lake"))
    about = describe(Versions(open_store(str(tmp_path / "lake"))), "web")
    assert "language.keep" in about.changed and "is not known" in growth_report(grown, about.changed)
