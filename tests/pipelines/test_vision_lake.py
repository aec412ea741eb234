"""A dataset of images in the lake: samples of it, takedowns by digest, runs that are killed."""

from __future__ import annotations

import hashlib
import io

import pytest
from killed import kills_until
from rich.console import Console
from vision import CAPTION, fates, folder_of, picture, rows, run

from gristmill.lake.query.sampling import sample
from gristmill.lake.query.why import why
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.show.records import draw_samples


def test_a_sample_shows_what_images_are_and_not_their_bytes(store, tmp_path):
    files = {"a.png": picture(0), "b.png": picture(1)}
    lines = [{"images": ["a.png", "b.png"], "text": CAPTION.format(0)}, {"image": "a.png", "text": "short"}]
    manifest = run(store, [folder_of(tmp_path / "in", lines, files)])
    for fate in ("kept", "dropped"):
        drawn = sample(Versions(store), manifest, fate=fate)
        for record in drawn.samples:
            for medium in record.fields["media"]:
                assert medium["bytes"] == len(files[medium["url"].partition(".")[2]])
                assert not {"data", "samples", "rate"} & medium.keys()
        shown = io.StringIO()
        draw_samples(Console(file=shown, width=400), drawn, full=False)
        text = shown.getvalue()
        assert "image 1" in text and "96 x 128 pixels" in text and "PNG" not in text and "\\x89" not in text


def test_an_image_is_asked_for_and_taken_down_by_its_digest(store, tmp_path):
    files = {f"{name}.png": picture(n) for n, name in enumerate("abc")}
    lines = [
        {"image": "a.png", "text": CAPTION.format(0)},
        {"image": "b.png", "text": CAPTION.format(1)},
        {"images": ["b.png", "a.png"], "text": CAPTION.format(2)},
        {"image": "a.png", "text": CAPTION.format(0)},
        {"image": "c.png", "text": CAPTION.format(4)},
    ]
    run(store, [folder_of(tmp_path / "in", lines, files)])
    gone = hashlib.sha256(files["a.png"]).hexdigest()
    stories = why(Versions(store), gone).stories
    assert sorted(story.place.ordinal for story in stories) == [0, 2, 3]
    assert sorted(story.fate for story in stories) == ["dropped", "kept", "kept"]

    request = Suppression.of(media=[gone])
    versions = Versions(store)
    forget(versions, plan_forget(versions, request), "request 1")
    second = versions.resolve("vision")
    assert versions.withdrawn("vision").keys() == {1}
    assert [row["text"].partition("number ")[2][0] for row in rows(store, second)] == ["1", "4"]
    held = {medium["sha256"] for row in rows(store, second) for medium in row["media"]}
    assert gone not in held and len(held) == 2
    answers = {(story.versions, story.fate, story.reason) for story in why(versions, gone).stories}
    assert ((2,), "dropped", "forget.requested") in answers
    lines = [{"image": "a.png", "text": "Another caption of it."}, {"image": "c.png", "text": "And one of this."}]
    third = run(store, [folder_of(tmp_path / "more", lines, files)], dataset="later")
    assert fates(store, third) == {0: ("dropped", "forget.suppressed"), 1: ("kept", None)}
    assert not plan_forget(versions, request).affected and not verify(store, deep=True)


def test_a_digest_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"'a\.png' is no sha256: 64 hex characters"):
        Suppression.of(media=["a.png"])


def test_a_run_that_is_killed_before_any_receipt_ends_with_the_same_digest(store, tmp_path):
    lines = [{"images": [f"{n}.png", f"{(n + 1) % 6}.png"], "text": CAPTION.format(n)} for n in range(6)]
    address = folder_of(tmp_path / "in", lines, {f"{n}.png": picture(n) for n in range(6)})
    scan = {"chunk_records": 2}
    whole = run(open_store(str(tmp_path / "whole")), [address], scan=scan)
    kills = kills_until(lambda: Versions(store).numbers("vision"), lambda: run(store, [address], scan=scan))
    assert kills > 5
    assert Versions(store).manifest("vision", 1).digest == whole.digest
    assert not verify(store, deep=True)
