"""The table of media: whose an image is, whatever became of it, and pixels whose source is gone."""

from __future__ import annotations

import hashlib

import mixtures
import pytest
from drafts import NONE, draft
from forget_lake import erase, readable
from image_mixtures import CUT
from mixtures import mix, tokenizer
from vision import CAPTION, folder_of, picture, rows, run

from gristmill.lake.query.why import why
from gristmill.lake.store.objects import put_file, read_table, scratch
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions

FILES = {f"{name}.png": picture(n) for n, name in enumerate("abcdef")}
FILES["cut.png"] = FILES["f.png"][:2000]
FILES["thin.png"] = picture(9, height=4, width=200)


def sha(name: str) -> str:
    return hashlib.sha256(FILES[name]).hexdigest()


def table(store, manifest) -> list[tuple[str, str, int]]:
    refs = [ref for ref in manifest.attachments if ref.kind == "media"]
    return [tuple(row.values()) for ref in refs for row in read_table(store, ref).to_pylist()]


def fates_of(store, name: str) -> set[tuple[int, str, str | None]]:
    """(place in the input, fate, reason) of the records that have an image."""
    stories = why(Versions(store), sha(name)).stories
    return {(story.place.ordinal, story.fate, story.reason) for story in stories}


LINES = [
    {"images": ["a.png", "b.png"], "text": CAPTION.format(0)},
    {"image": "cut.png", "text": CAPTION.format(1)},
    {"image": "thin.png", "text": CAPTION.format(2)},
    {"images": ["c.png", "cut.png"], "text": CAPTION.format(3)},
    {"image": "a.png", "text": "a.png"},
    {"images": ["a.png", "b.png"], "text": CAPTION.format(0)},
]


def test_a_record_with_more_media_than_a_row_holds_is_quarantined(store, tmp_path, monkeypatch):
    most = max(map(len, FILES.values()))
    monkeypatch.setattr("gristmill.stages.read.rows.MOST_BYTES", most)
    lines = [{"image": "a.png", "text": CAPTION.format(0)}, {"images": ["b.png", "c.png"], "text": CAPTION.format(1)}]
    manifest = run(store, [folder_of(tmp_path / "in", lines, FILES)], max_quarantine_rate=0.5)
    assert (manifest.kept.count, manifest.quarantined.count) == (1, 1)
    (story,) = why(Versions(store), sha("c.png")).stories
    assert (story.fate, story.reason) == ("quarantined", "image.too_much_media")


def test_every_record_that_came_in_is_found_by_its_images_with_its_reason(store, tmp_path):
    manifest = run(store, [folder_of(tmp_path / "in", LINES, FILES)], scan={"chunk_records": 2})
    assert fates_of(store, "cut.png") == {(1, "dropped", "image.truncated"), (3, "dropped", "image.truncated")}
    assert fates_of(store, "c.png") == {(3, "dropped", "image.truncated")}
    assert fates_of(store, "thin.png") == {(2, "dropped", "image_size.too_narrow")}
    alike = {(fate, reason) for place, fate, reason in fates_of(store, "b.png") if place in (0, 5)}
    assert alike == {("kept", None), ("dropped", "exact.duplicate")}
    assert fates_of(store, "a.png") == fates_of(store, "b.png") | {(4, "dropped", "caption.too_short")}
    assert fates_of(store, "d.png") == set()
    listed = table(store, manifest)
    assert listed == sorted(listed) and len(listed) == 9
    assert all(sha256 in {hashlib.sha256(data).hexdigest() for data in FILES.values()} for sha256, _, _ in listed)
    for row in rows(store, manifest):
        for position, medium in enumerate(row["media"]):
            assert (medium["sha256"], row["id"], position) in listed


def test_an_image_is_looked_up_without_reading_shards_texts_or_older_tables(store, tmp_path, monkeypatch):
    for night in range(4):
        lines = [{"image": f"{night}-{n}.png", "text": CAPTION.format(10 * night + n)} for n in range(2)]
        files = {f"{night}-{n}.png": picture(100 + 10 * night + n) for n in range(2)}
        run(
            store,
            [folder_of(tmp_path / str(night), lines, files)],
            extends="vision" if night else None,
            min_similarity=None,
        )
    versions = Versions(store)
    newest = versions.resolve("vision")
    assert newest.version == 4
    allowed = {ref.key for ref in (*newest.attachments, *newest.ledgers) if ref.kind in ("media", "ledger", "clusters")}
    assert sum(ref.kind == "media" for ref in newest.attachments) < 4  # merged as they grow
    opened = []
    for name in ("get", "open"):
        call = getattr(store, name)
        monkeypatch.setattr(
            store, name, lambda key, *more, call=call, **named: opened.append(key) or call(key, *more, **named)
        )
    wanted = hashlib.sha256(picture(101)).hexdigest()
    (story,) = why(versions, wanted).stories
    assert (story.versions, story.place.ordinal, story.fate) == ((1, 2, 3, 4), 1, "kept")
    assert {key for key in opened if key.startswith("objects/")} <= allowed


def test_a_rejected_image_is_on_no_table_that_a_takedown_has_to_rewrite(store, tmp_path):
    address = folder_of(tmp_path / "in", LINES, FILES)
    run(store, [address])
    versions = Versions(store)
    plan = plan_forget(versions, Suppression.of(media=[sha("cut.png")]))
    assert not plan.affected and plan.ids == 2
    forget(versions, plan, "request 1")
    assert run(store, [address], dataset="again").kept.count == 1
    again = versions.resolve("again")
    assert sha("cut.png") not in {sha256 for sha256, _, _ in table(store, again)}


def trained(versions: Versions, name: str, mixture: str) -> None:
    """A version that says it was trained on a mixture."""
    with scratch() as folder:
        (folder / "weights").write_bytes(name.encode())
        ref = put_file(versions.store, "weights", folder / "weights", 1)
    source = versions.resolve(mixture).ref.model_copy(update={"role": "trained_on"})
    of_weights = {"form": "model", "sources": (source,), "received": NONE, "kept": NONE}
    versions.commit(draft(name, hashlib.sha256(name.encode()).hexdigest(), [], (ref,), **of_weights))


@pytest.mark.parametrize("extended", [False, True], ids=["alone", "extended"])
@pytest.mark.parametrize("source_gone", [False, True], ids=["source there", "source gone"])
def test_an_image_leaves_records_mixtures_and_caches_and_who_saw_it_is_named(store, tmp_path, extended, source_gone):
    lines = [{"images": ["a.png", "b.png"], "text": "two <|image_1|> here <|image_2|>"}]
    lines += [{"image": f"{name}.png", "text": CAPTION.format(name)} for name in "cdef"]
    run(store, [folder_of(tmp_path / "in", lines[:2] if extended else lines, FILES)])
    if extended:
        run(store, [folder_of(tmp_path / "more", lines[2:], FILES)], extends="vision")
    versions = Versions(store)
    tokenizer(store, str(versions.resolve("vision")))
    recipe = {"window": 256, "images": CUT, "max_window_crops": 12, "max_waste": 0.5}
    before = mix(store, {str(versions.resolve("vision")): 1}, **recipe).manifest
    trained(versions, "saw", str(before))
    if source_gone:
        for number in versions.numbers("vision"):
            versions.withdraw("vision", number, "by hand")
        erase(store)
    with_pixels = [data for _, data in readable(store) if FILES["a.png"] in data]
    assert bool(with_pixels) != source_gone

    request = Suppression.of(media=[sha("a.png")])
    plan = plan_forget(versions, request)
    assert "saw@v1" in {derived.ref for derived in plan.derived}
    forget(versions, plan, "request 1")
    erase(store)
    after = versions.resolve("mix")
    assert versions.withdrawn("mix").keys() == {1} and str(after) == "mix@v2"
    assert after.statistics["images"] * 6 == before.statistics["images"] * 4
    assert not [data for _, data in readable(store) if FILES["a.png"] in data]
    about = [image for window in mixtures.windows(store, after) for image in window.meta.get("images", ())]
    assert {image["sha256"] for image in about} == {sha(f"{name}.png") for name in "cdef"}
    assert not plan_forget(versions, request).affected
    assert [finding.message for finding in verify(store, deep=True) if "mix@v2" in finding.message] == []
    assert "saw@v1" in {derived.ref for derived in plan_forget(versions, request).derived}
    named = {key for key, data in readable(store) if sha("a.png").encode() in data}
    assert not {key for key in named if key.startswith("objects/")}


def test_a_model_whose_mixture_is_erased_is_named_as_not_known(store, tmp_path):
    run(store, [folder_of(tmp_path / "in", LINES[:1], FILES)])
    versions = Versions(store)
    tokenizer(store, "vision@v1")
    mix(store, {"vision@v1": 1}, window=256, images=CUT, max_waste=0.5)
    trained(versions, "saw", "mix@v1")
    request = Suppression.of(media=[sha("a.png")])
    assert plan_forget(versions, request).unknown == ()
    for name in ("vision", "mix"):
        versions.withdraw(name, 1, "by hand")
    erase(store)
    plan = plan_forget(versions, request)
    assert (plan.affected, plan.derived, plan.unknown) == ((), (), ("saw@v1",))
