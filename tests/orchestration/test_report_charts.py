"""Charts of a report: marks stand where the numbers are, and say them to who cannot see."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lxml.html
import pytest
import reasonings
from reports import headings, report, tables, words

from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.orchestration.report.pieces import span, table
from gristmill.orchestration.report.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    POINTS,
    RIGHT,
    TOP,
    WIDTH,
    Part,
    Series,
    bar,
    columns,
    interval,
    lines,
    short,
    ticks,
)


def drawn(markup: str) -> Any:
    return lxml.html.fromstring(markup)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (0.887, 0.991, [0.9, 0.92, 0.94, 0.96, 0.98]),
        (-3, 4, [-2, 0, 2, 4]),
        (1e-6, 5e-6, [1e-6, 2e-6, 3e-6, 4e-6, 5e-6]),
        (5, 5, [5]),
        (0, math.inf, [0]),
    ],
)
def test_ticks_are_round_numbers_within(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (0.25, "0.25"), (2e-5, "2e-05"), (1500, "1,500"), (20_000, "20k"), (3.5e6, "3.5M"), (-2e9, "-2G")],
)
def test_numbers_of_axes_are_short(value: float, expected: str) -> None:
    assert short(value) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0454, "45 ms"), (2.44, "2.4 s"), (35, "35 s"), (725, "12 min 5 s"), (12_000, "3 h 20 min")],
)
def test_times_are_readable(seconds: float, expected: str) -> None:
    assert span(seconds) == expected


def test_parts_of_a_bar_are_as_wide_as_their_shares_and_stand_side_by_side() -> None:
    svg = drawn(bar(Part(0.25, "kept", "a"), Part(0, "dropped", "b"), Part(0.5, "quarantined", "c")))
    rects = [(rect.get("x"), rect.get("width"), rect.get("class")) for rect in svg.iter("rect")]
    assert rects == [("0.00%", "25.00%", "kept"), ("25.00%", "50.00%", "quarantined")]
    assert svg.get("aria-label") == "a; b; c"


def test_a_part_that_is_not_nothing_is_seen() -> None:
    assert drawn(bar(Part(1e-9, "kept", "one"))).find("rect").get("width") == "0.40%"


def test_an_interval_stays_on_its_line() -> None:
    svg = drawn(interval(1.2, -0.1, 1.5, "x"))
    assert svg.find("circle").get("cx") == "100.00%"
    whisker = svg.xpath("./line[starts-with(@class, 'whisker')]")[0]
    assert (whisker.get("x1"), whisker.get("x2")) == ("0.00%", "100.00%")


def test_columns_are_as_high_as_their_counts() -> None:
    svg = drawn(columns("lengths", [("0", 5.0), ("10", 10.0), ("20", 0.0)], "bytes"))
    heights = [float(rect.get("height")) for rect in svg.iter("rect")]
    assert heights == pytest.approx([(HEIGHT - TOP - BOTTOM) / 2, HEIGHT - TOP - BOTTOM, 0], abs=0.1)
    assert svg.get("aria-label") == "lengths: 0: 5, 10: 10, 20: 0"


def test_a_line_fills_its_frame_and_leaves_out_what_is_not_finite() -> None:
    ys = [4.0, math.nan, 2.0, math.inf, 0.0]
    svg = drawn(lines("Loss", [Series("each", "kept", [1, 2, 3, 4, 5], ys)], "step", "loss"))
    points = [tuple(map(float, point.split(","))) for point in svg.find("polyline").get("points").split()]
    assert points == [
        (LEFT, TOP),
        ((LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2),
        (WIDTH - RIGHT, HEIGHT - BOTTOM),
    ]
    assert lines("Loss", [Series("each", "kept", [1], [math.nan])], "step", "loss") == ""


def test_a_long_line_is_thinned_and_keeps_its_end() -> None:
    count = 100_000
    series = Series("each", "kept", range(count), [1.0 / (x + 1) for x in range(count)])
    points = drawn(lines("Loss", [series], "step", "loss")).find("polyline").get("points").split()
    assert POINTS / 2 < len(points) <= POINTS and float(points[-1].split(",")[0]) == WIDTH - RIGHT


def test_a_table_of_nothing_is_nothing() -> None:
    assert table("caption", ("a", "b>"), []) == ""


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two rounds of problems with samples, and what was selected of the second."""
    folder = tmp_path_factory.mktemp("rounds")
    store = open_store(str(folder / "lake"))
    reasonings.lake(store, folder)
    problems = [reasonings.problem(i) for i in range(12)]
    problems += [row | {"question": f"{'It is a long day. ' * 6}{row['question']}"} for row in problems[:4]]
    file = reasonings.lines(folder / "in" / "problems.jsonl", problems)
    with pytest.MonkeyPatch.context() as patch:
        reasonings.by_parity(patch)
        few = {"stop": {"accept": 2, "at_most": 2}}
        for dataset, seed in (("first", 1), ("second", 2)):
            reasonings.reason(store, [file], **few, dataset=dataset, draws={"max_tokens": 6, "seed": seed})
    return store


def test_rollouts_and_what_was_selected_have_their_shares(lake: Store, tmp_path: Path) -> None:
    rollouts, _, selected = reasonings.three(lake, "second")
    root = report(lake, tmp_path, "second.rollouts", "second")
    drawn_tables = tables(root)
    verdicts = {row["Verdict"]: row["Samples"] for row in drawn_tables[f"Samples of {rollouts} by verdict"]}
    assert verdicts == {verdict: f"{tally.count:,}" for verdict, tally in rollouts.verdicts.items()}
    dimensions: dict[str, list[dict[str, Any]]] = {}
    for row in selected.statistics["selection"]["groups"]:
        dimensions.setdefault(row["dimension"], []).append(row)
    compared = {dimension: rows for dimension, rows in dimensions.items() if len(rows) > 1}
    assert compared
    for dimension, rows in compared.items():
        for row, shown in zip(rows, drawn_tables[f"Groups by {dimension}"], strict=True):
            assert shown["Problems"] == str(row["problems"])
            assert shown["Problems kept"].startswith(f"{row['kept'][0]:.1%}")
            assert shown["Group"].endswith("thinned out") == row["thinned"]


def test_acceptance_by_round_is_that_of_the_versions(lake: Store, tmp_path: Path) -> None:
    root = report(lake, tmp_path, "first.rollouts", "second.rollouts")
    assert "Acceptance by round" in headings(root)
    rounds = tables(root)["Rounds of sampling"]
    for number, (shown, dataset) in enumerate(zip(rounds, ("first", "second"), strict=True), 1):
        m = reasonings.latest(lake, f"{dataset}.rollouts")
        rows = reasonings.rows_of(lake, m)
        solved = sum(row["accepted"] > 0 for row in rows) / len(rows)
        assert (shown["Round"], shown["Version"]) == (str(number), str(m))
        assert shown["Problems solved"] == f"{solved:.1%}" and shown["0 to 100%"].startswith(
            f"{solved:.1%} of problems"
        )
    assert "Acceptance by round" not in headings(report(lake, tmp_path, "first.rollouts"))
    assert "Sample: " in words(root)
