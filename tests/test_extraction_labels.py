"""What the training of the extractor learns from, and how extractors are scored."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from benchmarks.extraction_pages import Page, score, word_f1
from benchmarks.train_extraction import aligned, blocks_with, example, forest_of, kept_by, rounded_down
from gristmill.filters.extraction import columns as c

LONG = "A sentence that is long enough to stand nowhere by accident."


def test_long_blocks_are_looked_for_anywhere_and_short_ones_in_order() -> None:
    wanted = f"Introduction\n{LONG}\nShare of the vote: 3\nThe end"
    texts = ["Share", "Introduction", LONG, "Share", "Menu", "The end", "Share"]
    assert aligned(texts, wanted).tolist() == [0, 1, 1, 1, 0, 1, 0]


def test_a_long_block_that_stands_there_in_part_counts_from_six_tenths_of_its_triples() -> None:
    wanted = "one two three four five six seven eight"
    assert aligned(["one two three four five six seven nine"], wanted).tolist() == [1]
    assert aligned(["one two three nine ten eleven twelve nine"], wanted).tolist() == [0]


def test_an_extractor_votes_for_lines_and_for_long_text_anywhere() -> None:
    kept = f"Title\n{LONG} {LONG}\n- item"
    assert kept_by(["Title", LONG, "item", "A sentence", "!"], kept).tolist() == [1, 1, 1, 0, 0]


def test_the_blocks_of_a_snippet() -> None:
    texts = ["one  two", "three four", "five", "one two three"]
    assert blocks_with("one two", texts) == [0, 3]
    assert blocks_with("one two three four five", texts) == [0, 1, 2]
    assert blocks_with("four six seven eight", texts) == []


def test_what_a_person_marked_counts_more_than_votes() -> None:
    html = f"<p>{LONG}<p>Read more<p>Nobody said anything of this one, which is long enough"
    page = Page("https://a.example/1", html, keeps=("long enough to stand",), drops=("Read more",))
    got = example(page, ["Read more", f"Read more\n{LONG}"])
    assert got.labels.tolist() == [1, 0, 0]
    marked, others = got.weights[:2] / np.sqrt(np.log2(2.0 + got.blocks.rows[:2, c.CHARS])), got.weights[2]
    assert marked == pytest.approx([3 * min(1, 12 / 3**0.5)] * 2) and 0 < others < 1.5
    unmarked = example(Page("https://a.example/2", html), [])
    assert unmarked.weights.tolist() == [0, 0, 0]


def test_folds_are_by_host() -> None:
    folds = {
        example(Page(f"https://{host}/{n}", "<p>x"), []).fold
        for n in range(9)
        for host in ("b.example", "www.b.example")
    }
    assert len(folds) == 1


class Booster:
    """What LightGBM says of a tree."""

    def dump_model(self):
        leaf = {"leaf_value": -0.5}
        split = {"split_feature": 3, "threshold": 1.0000000180025095e-35, "left_child": leaf, "right_child": leaf}
        return {"tree_info": [{"tree_structure": {**split, "right_child": {**split, "split_feature": 7}}}] * 2}


def test_a_booster_becomes_arrays() -> None:
    feature, threshold, left, right, value, roots = astuple(forest_of(Booster()))
    assert feature.tolist() == [3, -1, 7, -1, -1] * 2 and roots.tolist() == [0, 5]
    assert left[:3].tolist() == [1, 0, 3] and right[:3].tolist() == [2, 0, 4] and right[5] == 7
    assert value.tolist() == [0, -0.5, 0, -0.5, -0.5] * 2
    assert threshold.dtype == np.float32 and 0 < threshold[0] <= 1.0000000180025095e-35


def test_thresholds_are_rounded_down() -> None:
    assert rounded_down(0.1) < 0.1 and rounded_down(0.5) == 0.5
    assert float(np.nextafter(np.float32(rounded_down(0.1)), np.float32(1))) > 0.1


def test_score() -> None:
    pages = [
        Page("a", "", keeps=("x  y", "z"), drops=("menu", "foot")),
        Page("b", "", main_text="one two two three"),
    ]
    got = score(pages, {"a": "x y\nmenu", "b": "one two four"})
    assert (got.must_contain, got.leak, got.f1, got.empty) == (0.5, 0.5, 0.5, 0)
    assert got.words == pytest.approx(4 / 7)
    assert score(pages, {"a": "", "b": " "}).empty == 2
    assert word_f1("日本", "日 本") == 1
