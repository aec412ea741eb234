"""The stored shape of a model: one format number, and what earlier releases wrote is read as what it meant."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gristmill.model.hf.shape import FORMAT, Shape
from gristmill.model.phi4.config import ModelConfig, RopeParameters
from gristmill.model.phi4.presets import PRESETS

GOLDEN = Path(__file__).parents[1] / "golden"
NANO = PRESETS["nano"]
ODD = replace(
    NANO,
    text=replace(
        NANO.text,
        tie_word_embeddings=False,
        max_position_embeddings=8192,
        rope_parameters=RopeParameters(5000.0, 0.5, (1.0,) * 8, (2.0,) * 8, 1.25),
    ),
    audio=None,
    hf_compat_rope=True,
)
"""Every field of rotary positions is another than its default, and a part is missing."""


@pytest.mark.parametrize(("name", "config"), [("nano", NANO), ("odd", ODD)])
def test_what_the_last_release_wrote_is_the_same_model(name: str, config: ModelConfig) -> None:
    """Bytes that format 2 wrote, by the code that wrote it."""
    stored = (GOLDEN / f"model-shape-2-{name}.json").read_bytes()
    assert json.loads(stored)["format"] == 2
    shape = Shape.from_json(stored)
    assert shape.config == config
    assert shape.sidecars == {"chat_template.jinja": "{{ messages }}"}


def test_the_first_format_had_no_files_beside_the_weights() -> None:
    document = json.loads((GOLDEN / "model-shape-2-nano.json").read_bytes())
    first = {"format": 1, "config": document["config"]}
    assert Shape.from_json(json.dumps(first)) == Shape(NANO)


@pytest.mark.parametrize("name", PRESETS)
def test_a_shape_is_read_as_it_was_written(name: str) -> None:
    shape = Shape(PRESETS[name], {"generation_config.json": "{}"})
    assert Shape.from_json(shape.to_json()) == shape
    assert json.loads(shape.to_json())["format"] == FORMAT == 3


@pytest.mark.parametrize("number", [0, 4, "3", None])
def test_a_format_of_a_later_release_is_refused(number: object) -> None:
    document = {**json.loads(Shape(NANO).to_json()), "format": number}
    with pytest.raises(ValueError, match=f"format {number}, this release reads up to 3"):
        Shape.from_json(json.dumps(document))


@pytest.mark.parametrize(("stored", "unknown"), [(2, "layer"), (3, "layers")])
def test_a_name_that_its_format_does_not_have_is_refused(stored: int, unknown: str) -> None:
    """Old names belong to old formats: they are read nowhere else."""
    document = json.loads((GOLDEN / "model-shape-2-nano.json").read_bytes() if stored == 2 else Shape(NANO).to_json())
    document["config"]["text"][unknown] = 4
    with pytest.raises(ValueError, match=rf"model\.text: unknown \['{unknown}'\]"):
        Shape.from_json(json.dumps(document))
