"""YAML from outside: a key that stands twice is a mistake of its writer, and no half of it is lost in silence."""

from __future__ import annotations

import pytest

from gristmill.pipelines.settings.yaml_text import BadYaml, read_yaml


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "{r: {x: 1, x: 1}}", "'a': 1\na: 2", "<<: {x: 1}\n<<: {y: 2}"])
def test_a_key_that_stands_twice_is_refused(text) -> None:
    with pytest.raises(BadYaml, match=r"the key '\S+' stands twice in one section, line \d"):
        read_yaml(text)


def test_a_key_may_stand_over_one_that_is_merged_in() -> None:
    text = "a: &a {x: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, y: 3}"
    assert read_yaml(text) == {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 2, "y": 3}}
