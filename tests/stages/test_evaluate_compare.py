"""Two evaluations item by item: planted answers are what is shown, and other data or rules are refused."""

from __future__ import annotations

import evaluations
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from gristmill.lake.store.objects import put_table, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.manifest import Draft
from gristmill.lake.versions.versions import Versions
from gristmill.model.evaluate.scores import ROWS
from gristmill.orchestration.cli.main import app
from gristmill.stages.evaluate.compare import EXAMPLES, compare


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    store = open_store(str(folder / "lake"))
    evaluations.lake(store, folder)
    return store


def planted(store, manifest, change):
    """A version with the rows of an evaluation after `change`, as another model would have made it."""
    table = read_table(store, manifest.shards[0])
    rows = pa.Table.from_pylist([change(dict(row)) for row in table.to_pylist()], schema=ROWS)
    fields = manifest.model_dump() | {
        "run_key": "planted",
        "shards": (put_table(store, "shard", rows),),
        "parent": None,
    }
    for name in ("version", "previous", "digest"):
        fields.pop(name)
    return Versions(store).commit(Draft(**fields))


def test_planted_answers_are_what_a_comparison_shows(lake, monkeypatch):
    first = evaluations.evaluate(lake, ["math@v1", "refusals@v1"], dataset="planted").manifest

    def better(row):
        if row["task"] == "exact" and row["ordinal"] < 5:
            return row | {"answer": f"#### {row['expected']}", "score": 1.0, "reason": None}
        if row["task"] == "refusal" and row["harmful"]:
            return row | {"answer": "I can't do that.", "score": 1.0, "refused": True, "reason": None}
        return row

    second = planted(lake, first, better)
    comparison = compare(lake, first, second)
    assert (comparison.items, comparison.only_a, comparison.only_b, comparison.model_a) == (20, 0, 0, "base@v1")
    by_metric = {d.metric: d for d in comparison.differences if not d.source}
    accuracy, harmful = by_metric["accuracy"], by_metric["refused_harmful"]
    assert (accuracy.before, accuracy.after, accuracy.became_right, accuracy.became_wrong) == (0.0, 5 / 12, 5, 0)
    assert accuracy.p_value == pytest.approx(2 * 0.5**5) and accuracy.low > 0
    assert (harmful.items, harmful.after, harmful.became_right, harmful.p_value) == (4, 1.0, 4, 0.125)
    shown = [example for example in comparison.examples if example.task == "exact"]
    assert len(shown) == EXAMPLES and all(example.right for example in shown)
    assert shown[0].question == "What is 0 plus 1?" and (shown[0].expected, shown[0].after) == ("1", "#### 1")
    monkeypatch.setenv("COLUMNS", "160")
    drawn = CliRunner().invoke(app, ["diff", str(first), str(second), "--lake", lake.uri]).stdout
    (line,) = [line.split() for line in drawn.splitlines() if line.startswith("  exact  ")]
    assert line[1:7] == ["accuracy", "all", "0.0%", "41.7%", "+41.7", "pp"] and line[-3:] == ["+5", "-0", "0.062"]
    assert "exact, became right: " in drawn and "What is 0 plus 1?" in drawn and "#### 1" in drawn
    back = compare(lake, second, first)
    assert {d.metric: d for d in back.differences}["accuracy"].became_wrong == 5
    assert not any(example.right for example in back.examples)


def test_items_are_joined_by_their_place_whatever_the_order_of_rows(lake):
    first = evaluations.evaluate(lake, ["math@v1"], dataset="order").manifest
    second = planted(lake, first, lambda row: row | {"score": float(row["ordinal"] == 3)})
    rows = read_table(lake, second.shards[0])
    left_out = rows.filter(pc.not_equal(rows["ordinal"], 5)).sort_by([("ordinal", "descending")])
    third = second.model_copy(update={"shards": (put_table(lake, "shard", left_out),)})
    comparison = compare(lake, first, third)
    assert (comparison.items, comparison.only_a, comparison.only_b) == (11, 1, 0)
    assert [(e.question, e.right) for e in comparison.examples] == [("What is 3 plus 4?", True)]


@pytest.mark.parametrize(
    ("data", "recipe", "why"),
    [
        (["tools@v1"], {}, r"their data is math@v1 and tools@v1"),
        (
            ["math@v1"],
            {"generate": evaluations.SIZES | {"max_tokens": 7}},
            r"recipe\.generate is .*'max_tokens': 6.* and",
        ),
        (["math@v1"], {"judge": {"more": ["nope"]}}, r"recipe\.judge is"),
        (["math@v1"], {"tasks": {"math@v1": "refusal"}}, r"recipe\.tasks is \{\} and"),
        (["math@v1"], {"limit": 3}, r"recipe\.limit is None and 3"),
    ],
)
def test_other_data_or_rules_are_refused_and_named(lake, data, recipe, why):
    first = evaluations.evaluate(lake, ["math@v1"], dataset="refused").manifest
    other = evaluations.evaluate(lake, data, dataset="refused-too", **recipe).manifest
    with pytest.raises(ValueError, match=f"cannot be compared: {why}"):
        compare(lake, first, other)
