"""The model that a stage starts from: whose parts it has, and that fresh ones follow from the seed alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gristmill.model.assembly.shapes import differing, of_stage, parts_of
from gristmill.model.assembly.start import starting_model
from gristmill.model.hf.checkpoint import part_files
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part, tensors_of
from gristmill.model.phi4.presets import PRESETS

NANO = PRESETS["nano"]
VISION = {Part.VISION_ENCODER, Part.VISION_PROJECTOR}


def start(folder, taken, trained, stored=(), config=NANO, seed=3):
    """The model of a stage of NANO."""
    folder.mkdir(exist_ok=True)
    return starting_model(of_stage(config, taken, trained), stored, taken, trained, seed=seed, folder=folder)


def equal(a, b, part):
    """Whether two models have the same bits of a part."""
    left, right = tensors_of(a, part), tensors_of(b, part)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def whole():
    """Every part of NANO, fresh."""
    return Multimodal.seeded(NANO, 8)


def stored(model, folder, *parts):
    """Files of these parts."""
    folder.mkdir()
    return [path for part in parts for path in part_files(model, part, folder)]


def test_a_stage_has_the_parts_that_it_trains_or_starts_from_and_no_other():
    assert parts_of(of_stage(NANO, (), {Part.LANGUAGE})) == {Part.LANGUAGE}
    assert parts_of(of_stage(NANO, {Part.LANGUAGE}, {Part.VISION_PROJECTOR})) == {Part.LANGUAGE, *VISION}
    both = of_stage(NANO, {Part.LANGUAGE, Part.LORA_SPEECH}, {Part.LORA_VISION})
    assert [adapter.name for adapter in both.adapters] == ["speech", "vision"]  # what is made anew comes last
    assert both.text == NANO.text and both.vision is both.audio is None


def test_fresh_parts_follow_from_the_seed_whatever_else_the_model_has(tmp_path, whole):
    text = start(tmp_path / "a", (), {Part.LANGUAGE})
    assert equal(text, Multimodal.seeded(replace(NANO, vision=None, audio=None, adapters=()), 3), Part.LANGUAGE)
    seeing = start(tmp_path / "b", (), {Part.LANGUAGE, *VISION, Part.LORA_VISION})
    assert equal(seeing, text, Part.LANGUAGE)
    language = stored(whole, tmp_path / "language", Part.LANGUAGE)
    upon = start(tmp_path / "c", {Part.LANGUAGE}, {*VISION, Part.LORA_VISION}, language)
    assert equal(upon, whole, Part.LANGUAGE) and not equal(upon, text, Part.LANGUAGE)
    other = start(tmp_path / "d", {Part.LANGUAGE}, {*VISION, Part.LORA_VISION}, language, seed=4)
    for part in (*VISION, Part.LORA_VISION):
        assert equal(upon, seeing, part) and not equal(upon, other, part)


def test_what_is_trained_is_float32_upon_a_base_that_stays_as_it_is(tmp_path, whole):
    half = Multimodal.seeded(NANO, 8).bfloat16()
    taken = {Part.LANGUAGE, *VISION}
    model = start(
        tmp_path / "a", taken, {Part.VISION_PROJECTOR, Part.LORA_VISION}, stored(half, tmp_path / "b", *taken)
    )
    kinds = {part: {tensor.dtype for tensor in tensors_of(model, part).values()} for part in parts_of(model.config)}
    assert kinds == {
        Part.LANGUAGE: {torch.bfloat16},
        Part.VISION_ENCODER: {torch.bfloat16},
        Part.VISION_PROJECTOR: {torch.float32},
        Part.LORA_VISION: {torch.float32},
    }
    assert equal(model, half, Part.LANGUAGE)


def test_files_of_other_parts_are_refused(tmp_path, whole):
    files = stored(whole, tmp_path / "files", Part.LANGUAGE, Part.VISION_PROJECTOR)
    with pytest.raises(ValueError, match="tensors that this model has no place for: vision_projector"):
        start(tmp_path / "a", {Part.LANGUAGE}, {Part.LORA_VISION}, files)


def test_a_part_fits_where_the_sections_that_it_comes_from_are_the_same():
    deep = replace(NANO, text=replace(NANO.text, num_hidden_layers=5))
    assert list(differing(Part.LANGUAGE, deep, NANO)) == ["its text.num_hidden_layers is 5, the model's is 4"]
    assert list(differing(Part.LORA_VISION, deep, NANO)) == ["its text.num_hidden_layers is 5, the model's is 4"]
    assert not list(differing(Part.VISION_ENCODER, deep, NANO))
    sharp = replace(NANO, vision=replace(NANO.vision, crop_size=128))
    assert list(differing(Part.VISION_PROJECTOR, sharp, NANO)) == ["its vision.crop_size is 128, the model's is 64"]
    assert not list(differing(Part.LANGUAGE, sharp, NANO)) and not list(differing(Part.AUDIO_ENCODER, sharp, NANO))
    blind = replace(NANO, vision=None, adapters=())
    assert list(differing(Part.VISION_ENCODER, blind, NANO)) == ["its vision is None, the model's is there"]
    assert list(differing(Part.LORA_SPEECH, blind, NANO)) == ["its adapter lora_speech is None, the model's is there"]
