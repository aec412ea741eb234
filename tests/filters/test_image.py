"""Filters over images and captions: what every filter has to do, and where each of their tests cuts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import vision

from gristmill.filters.base import Filter
from gristmill.filters.image.caption import CaptionQuality, Captions
from gristmill.filters.image.look import BITS, look
from gristmill.filters.image.pictures import Pictures
from gristmill.filters.image.size import ImageSize
from gristmill.pipelines.vision import VisionRecipe

SIDES = [([480], [640]), ([], []), ([9], [640]), ([4000, 20], [4000, 2001]), ([30], [20]), ([60, 60], [6000, 60])]
TEXTS = [
    ("A mill by the river.", True), ("yes", False), ("yes", True), ("", True), ("DSC_0042", True),
    ("A photo (1).jpeg", True), ("click here to see more", True), ("mill mill mill mill mill mill", True),
    ("x " * 9000, True), ("Ein Müller mahlt das Korn.", True), ("img 12 of the mill", True),
]  # fmt: skip


def pictures(start: int = 0, end: int = len(SIDES)) -> Pictures:
    heights, widths = (pa.array([sides[i] for sides in SIDES[start:end]], pa.list_(pa.int32())) for i in range(2))
    return Pictures(heights, widths, pa.array([7] * (end - start), pa.int64()))


def captions(start: int = 0, end: int = len(TEXTS)) -> Captions:
    texts, is_caption = [text for text, _ in TEXTS[start:end]], [own for _, own in TEXTS[start:end]]
    urls = pa.nulls(end - start, pa.string())
    return Captions(pa.array(texts, pa.string()), urls, np.array(is_caption, bool), pa.array([7] * (end - start)))


EVERY = [(ImageSize(), pictures, len(SIDES)), (CaptionQuality(), captions, len(TEXTS))]
every_filter = pytest.mark.parametrize(("filter_", "batch", "n"), EVERY, ids=lambda value: getattr(value, "name", ""))


def test_every_filter_of_the_pipeline_is_in_the_table() -> None:
    recipe = VisionRecipe()
    assert {recipe.image_size, recipe.caption} == {filter_ for filter_, _, _ in EVERY}


@every_filter
def test_one_by_one_is_one_batch(filter_: Filter, batch, n) -> None:
    together = filter_.measure(batch())
    alone = [filter_.measure(batch(row, row + 1)) for row in range(n)]
    assert pa.Table.from_batches(alone).equals(pa.Table.from_batches([together]))
    verdicts = filter_.judge(batch())
    assert isinstance(verdicts, pa.StringArray) and len(verdicts) == n and 0 < verdicts.null_count < n
    assert pa.concat_arrays([filter_.judge(batch(row, row + 1)) for row in range(n)]).equals(verdicts)


@every_filter
def test_an_empty_batch_has_the_schema_of_any_other(filter_: Filter, batch, n) -> None:
    for empty in (batch(0, 0), type(batch()).empty()):
        assert filter_.measure(empty).schema == filter_.measure(batch()).schema
        assert filter_.judge(empty).equals(pa.array([], pa.string()))


@every_filter
def test_every_reason_has_its_measure(filter_: Filter, batch, n) -> None:
    measures = filter_.measure(batch())
    assert set(filter_.evidence.values()) <= set(measures.schema.names)
    for reason in filter_.judge(batch()).drop_null().to_pylist():
        assert reason.split(".")[0] == filter_.name and reason.split(".")[1] in filter_.evidence


def test_where_sizes_cut() -> None:
    def reasons(**thresholds: object) -> list[str | None]:
        off = dict.fromkeys(("max_images", "min_side", "max_ratio", "min_pixels", "max_pixels"))
        return [r and r.split(".")[1] for r in ImageSize(**{**off, **thresholds}).judge(pictures()).to_pylist()]

    assert reasons() == [None] * 6
    assert reasons(max_images=1) == [None, None, None, "too_many_images", None, "too_many_images"]
    assert reasons(min_side=20) == [None, None, "too_narrow", None, None, None]
    assert reasons(max_ratio=100) == [None, None, None, "ratio_too_extreme", None, None]
    assert reasons(min_pixels=3600) == [None, None, None, None, "too_few_pixels", None]
    assert reasons(max_pixels=363_599) == [None, None, None, "too_many_pixels", None, "too_many_pixels"]


def test_where_captions_cut() -> None:
    reasons = [r and r.split(".")[1] for r in CaptionQuality().judge(captions()).to_pylist()]
    assert reasons == [
        None, None, "too_short", "too_short", "boilerplate", "boilerplate", "boilerplate", "repetitive", "too_long",
        None, None,
    ]  # fmt: skip
    words = CaptionQuality(min_characters=None, min_words=4, max_words=5, boilerplate=(), max_repeated_ratio=None)
    assert [r and r.split(".")[1] for r in words.judge(captions(0, 8)).to_pylist()] == [
        None, None, "too_few_words", "too_few_words", "too_few_words", None, None, "too_many_words",
    ]  # fmt: skip


def test_sides_of_other_numbers_of_records_are_refused() -> None:
    with pytest.raises(ValueError, match="1 heights, 0 widths, 1 sizes"):
        Pictures(pa.array([[1]]), pa.array([], pa.list_(pa.int32())), pa.array([1]))


def test_brightness_is_no_look_and_a_turned_picture_has_another() -> None:
    own = vision.pixels(1) // 2
    assert look(own) == look(own + np.uint8(20))
    assert (look(own) ^ look(np.rot90(own).copy())).bit_count() > BITS // 4
    plain = [np.full((700, 3, 3), colour, np.uint8) for colour in ((0, 0, 0), (9, 9, 9), (255, 0, 0), (0, 0, 255))]
    assert len({look(pixels) for pixels in plain}) == 4  # nothing but a colour: known by it
    assert look(np.zeros((1, 1, 3), np.uint8)) == look(plain[0])
