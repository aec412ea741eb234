"""Mixtures of records with images beside text: what stands in windows, and what budgets do."""

from __future__ import annotations

import mixtures
import numpy as np
import pytest
from forget_lake import do, erase, readable
from image_mixtures import CUT, pictures
from mixtures import documents, mix, texts, tokenizer
from models import NANO
from typer.testing import CliRunner

from gristmill.lake.store.objects import iter_batches, read_table
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.model.processing.image import crops, plan_crops
from gristmill.model.processing.image_file import decode_image
from gristmill.model.windows.media import media_inputs
from gristmill.orchestration.cli.main import app
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.tokenizer import tokenizer_of
from gristmill.stages.mix.windows import read_windows

SIZES = [[(64, 64)], [(40, 100)], [(64, 64), (100, 40)], [(130, 130)], [(64, 128)]]
ROWS = [(SIZES[n % len(SIZES)], f"Number {n} is {{}}, as <|image|> and <|image_1|> say.") for n in range(30)]
MIX = {"window": 512, "images": CUT, "max_window_crops": 12, "max_waste": 0.1}


@pytest.fixture
def lake(store, tmp_path):
    """A store with documents, pictures and a tokenizer."""
    documents(store, "web", texts(60, longest=120), shards=2)
    pictures(store, tmp_path / "in", ROWS, image={"ask": "What is in <|image|>, if that is a word?"})
    tokenizer(store, "web@v1", "pics@v1")
    return store


def images_of(store, manifest):
    """id -> the images of a record, as pixels, in the order of its placeholders."""
    rows = {}
    for ref in manifest.shards:
        for batch in iter_batches(store, ref, ["id", "media"]):
            for row in batch.to_pylist():
                rows[row["id"]] = [decode_image(medium["data"]) for medium in row["media"]]
    return rows


def test_windows_hold_the_crops_that_their_image_tokens_stand_for(lake):
    manifest = mix(lake, {"web@v1": 1, "pics@v1": 1}, **MIX).manifest
    windows = mixtures.windows(lake, manifest)
    token = tokenizer_of(Versions(lake), manifest).special("<|image|>")
    pixels = images_of(lake, Versions(lake).resolve("pics@v1"))
    seen = set()
    for window in windows:
        bounds, ids, tiles, sizes = (window.arrays.get(n) for n in ("cu_seqlens", "input_ids", "tiles", "image_sizes"))
        at = number = 0
        for member, start, end in zip(window.meta["members"], bounds[:-1], bounds[1:], strict=True):
            images = pixels.get(member["member"], []) if member["source"] == "pics@v1" else []
            expected = [crops(image, **CUT) for image in images]
            assert (ids[start:end] == token).sum() == sum(each.tokens for each in expected)
            assert not window.arrays["loss_mask"][start:end][ids[start:end] == token].any()
            for each in expected:
                assert (tiles[at : at + len(each.tiles)] == each.tiles).all()
                assert tuple(sizes[number]) == each.image_size
                about = window.meta["images"][number]
                assert (about["crops"], about["tokens"]) == (1 + len(each.tiles), each.tokens)
                at, number = at + len(each.tiles), number + 1
                seen.add(member["member"])
        assert at == len(tiles if tiles is not None else ()) and number == len(window.meta.get("images", ()))
        assert ("tiles" in window.arrays) == ("image_sizes" in window.arrays) == (number > 0)
        assert at + number <= MIX["max_window_crops"]
    assert seen == set(pixels)
    assert {"tiles" in window.arrays for window in windows} == {True, False}
    reader = read_windows(lake, manifest)
    assert sum(reader.counts(n).crops for n in range(len(reader))) == manifest.statistics["crops"]


def test_what_the_model_takes_of_a_window_are_as_many_embeddings_as_it_has_image_tokens(lake):
    manifest = mix(lake, {"pics@v1": 1}, **MIX).manifest
    window = next(w for w in mixtures.windows(lake, manifest) if "tiles" in w.arrays)
    inputs = media_inputs([window.arrays], NANO, "cpu")
    assert len(inputs["image_pixel_values"]) == len(window.arrays["tiles"]) + len(window.arrays["image_sizes"])


def test_a_record_with_more_crops_than_a_window_may_have_is_dropped_with_the_reason(lake):
    manifest = mix(lake, {"pics@v1": 1}, **{**MIX, "max_window_crops": 4}).manifest
    fates = [row for ref in manifest.fates for row in read_table(lake, ref).to_pylist()]
    reasons = {row["reason"] for row in fates}
    assert "mix.too_many_crops" in reasons
    most = max(plan_crops(*size, **CUT).rows * plan_crops(*size, **CUT).cols for sizes in SIZES for size in sizes)
    assert most == 4 and len(fates) == len(ROWS)
    for window in mixtures.windows(lake, manifest):
        assert len(window.arrays["tiles"]) + len(window.arrays["image_sizes"]) <= 4


def test_an_image_too_thin_to_be_cut_is_dropped_with_its_sizes(store, tmp_path):
    pictures(store, tmp_path / "in", [([(64, 64)], "It is {}."), ([(12, 1000)], "A line of {}.")])
    tokenizer(store, "pics@v1")
    manifest = mix(store, {"pics@v1": 1}, **MIX).manifest
    fates = [row for ref in manifest.fates for row in read_table(store, ref).to_pylist()]
    dropped = {row["reason"]: row["value"] for row in fates if row["fate"] == "dropped"}
    assert list(dropped) == ["tokenize.extreme_ratio"] and "12x1000 pixels is very extreme" in dropped.popitem()[1]
    assert manifest.statistics["images"] == 4 and len(fates) == 2  # the other, four times


def test_a_tokenizer_without_the_token_of_images_is_refused(lake):
    with pytest.raises(BadConfig, match=r"recipe\.tokenizer: .*no special token '<\|picture\|>'"):
        mix(lake, {"pics@v1": 1}, **{**MIX, "images": {**CUT, "token": "<|picture|>"}})


def test_a_budget_of_crops_without_images_is_refused():
    with pytest.raises(ValueError, match="max_window_crops=9: for mixtures with images"):
        mixtures.recipe({"web@v1": 1}, max_window_crops=9)


def test_images_that_no_mixture_key_speaks_of_are_refused(lake):
    with pytest.raises(BadConfig, match=r"recipe\.images is null, and pics@v1 holds records with images"):
        mix(lake, {"pics@v1": 1}, window=512)


def test_a_mixture_without_images_is_what_it_was_before_them(lake):
    recipe = mix(lake, {"web@v1": 1}, window=64).manifest
    assert not {"images", "max_window_crops", "shard_crops"} & set(recipe.recipe)
    assert all("images" not in (stage.config or {}) and "crops" not in stage.config for stage in recipe.stages)


def test_cuts_of_other_sizes_are_mixtures_of_one_dataset_with_digests_of_their_own(lake):
    first = mix(lake, {"pics@v1": 1}, **MIX).manifest
    again = mix(lake, {"pics@v1": 1}, **{**MIX, "images": {**CUT, "max_crops": 1}}).manifest
    same = mix(lake, {"pics@v1": 1}, dataset="other", **MIX).manifest
    assert first.content_digest == same.content_digest != again.content_digest
    assert again.statistics["crops"] == 2 * again.statistics["images"] < first.statistics["crops"]
    assert np.array_equal(again.statistics["images"], first.statistics["images"])


def by_member(windows):
    """(window, member) -> tokens, tiles and sizes of its stretch."""
    rows = {}
    for window in windows:
        bounds, images = window.arrays["cu_seqlens"], window.meta.get("images", [])
        tiles = np.repeat([image["stretch"] for image in images], [image["crops"] - 1 for image in images])
        for n, member in enumerate(window.meta["members"]):
            of = [image["stretch"] == n for image in images]
            held = (window.arrays["tiles"][tiles == n], window.arrays["image_sizes"][of]) if any(of) else ((), ())
            ids = window.arrays["input_ids"][bounds[n] : bounds[n + 1]]
            rows[window.key, member["member"], member["start"]] = [
                array.tobytes() if len(array) else b"" for array in (ids, *held)
            ]
    return rows


def test_a_record_that_is_taken_down_leaves_neither_tokens_nor_pixels(lake):
    manifest = mix(lake, {"web@v1": 1, "pics@v1": 1}, **MIX).manifest
    before = mixtures.windows(lake, manifest)
    window = next(w for w in before if len({image["stretch"] for image in w.meta.get("images", ())}) > 2)
    stretch = window.meta["images"][1]["stretch"]
    gone = window.meta["members"][stretch]["member"]
    sha256 = window.meta["images"][1]["sha256"]
    tile = by_member(before)[window.key, gone, 0][1]
    assert any(tile in data for _, data in readable(lake)) and any(sha256.encode() in d for _, d in readable(lake))
    do(lake, Suppression(ids=frozenset({gone})))
    clean = Versions(lake).resolve("mix")
    after = mixtures.windows(lake, clean)
    assert by_member(after) == {key: held for key, held in by_member(before).items() if key[1] != gone}
    images = [image for window in after for image in window.meta.get("images", ())]
    assert (clean.statistics["images"], clean.statistics["crops"]) == (len(images), sum(i["crops"] for i in images))
    reader = read_windows(lake, clean)
    assert sum(reader.counts(n).crops for n in range(len(reader))) == clean.statistics["crops"]
    erase(lake)
    assert [finding.message for finding in verify(lake, ["mix"], deep=True)] == []
    assert not any(tile in data or sha256.encode() in data for _, data in readable(lake))


def test_a_window_is_shown_with_a_line_an_image_and_without_bytes(lake, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    mix(lake, {"pics@v1": 1}, **MIX)
    answer = CliRunner().invoke(app, ["sample", "mix@v1", "--lake", lake.uri, "-n", "40"])
    assert answer.exit_code == 0, answer.output
    assert "image 1: 100 x 40 pixels, 3 crops with the global view, 57 tokens, sha256" in answer.output
    assert "image 2: 40 x 100 pixels" in answer.output and "<|image|><|image|><|image|>" not in answer.output
    shown = CliRunner().invoke(app, ["show", "mix@v1", "--lake", lake.uri])
    assert "crops with the global views" in shown.output and "of 12 a window" in shown.output, shown.output
