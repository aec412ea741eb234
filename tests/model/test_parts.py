"""Every parameter belongs to exactly one part; the presets' counts by part are those of the released model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from models import ADAPTERS, NANO, enlivened, nano, prompts_of_all_kinds, text_model
from torch import nn

from gristmill.model.generate.engine import Engine, Options
from gristmill.model.generate.sampling import Sampling
from gristmill.model.phi4.config import LoraConfig, ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part, check_parts, counts, parameters_of, part_of, tensors_of
from gristmill.model.phi4.presets import PRESETS

RELEASED = {
    Part.LANGUAGE: 3_836_021_760,
    Part.VISION_ENCODER: 428_565_440,
    Part.VISION_PROJECTOR: 12_984_576,
    Part.LORA_VISION: 369_098_752,
    Part.AUDIO_ENCODER: 441_238_144,
    Part.AUDIO_PROJECTOR_SPEECH: 12_589_056,
    Part.AUDIO_PROJECTOR_VISION: 12_589_056,
    Part.LORA_SPEECH: 461_373_440,
}


def on_meta(config: ModelConfig) -> Multimodal:
    with torch.device("meta"):
        return Multimodal(config)


def test_the_paper_s_shape_has_the_released_counts() -> None:
    model = on_meta(PRESETS["multimodal"])
    assert counts(model) == RELEASED
    assert sum(parameter.numel() for parameter in model.parameters()) == sum(RELEASED.values()) == 5_574_460_224


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("part", Part)
@pytest.mark.parametrize(("rest", "own"), [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)], ids=str)
def test_a_part_may_be_of_another_type_than_the_rest(part: Part, rest: torch.dtype, own: torch.dtype) -> None:
    model = enlivened(NANO, 1).to(rest)
    for _, parameter in parameters_of(model, part):
        parameter.data = parameter.data.to(own)
    requests = [replace(request, sampling=Sampling(max_tokens=2)) for request in prompts_of_all_kinds().values()]
    for request in requests:
        logits = model(torch.tensor([request.tokens]), **dict(request.inputs or {})).logits
        assert logits.dtype == model.language.norm.weight.dtype and logits.isfinite().all()
    engine = Engine(
        model,
        Options(max_num_seqs=4, max_model_len=128, max_num_partial_prefills=4, prefill_chunk_size=64, block_size=64),
    )
    assert len(list(engine.run(requests))) == 4


def test_mini_is_the_language_model_alone() -> None:
    assert counts(on_meta(PRESETS["mini"])) == {Part.LANGUAGE: RELEASED[Part.LANGUAGE]}


@pytest.mark.parametrize(("name", "least", "most"), [("nano", 0.8e6, 2e6), ("small", 5e7, 3e8)])
def test_smaller_presets_have_every_part_and_their_size(name: str, least: float, most: float) -> None:
    totals = counts(on_meta(PRESETS[name]))
    assert set(totals) == set(Part) and least < sum(totals.values()) < most


def test_every_parameter_and_buffer_is_in_exactly_one_part() -> None:
    model = nano()
    names = [name for part in Part for name, _ in parameters_of(model, part)]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    held = [name for part in Part for name in tensors_of(model, part)]
    assert sorted(held) == sorted(model.state_dict()) and len(held) > len(names), "buffers too"


def test_what_lies_beside_a_linear_belongs_to_its_adapter() -> None:
    names = [name for name, _ in parameters_of(text_model(), Part.LORA_SPEECH)]
    assert len(names) == 3 * 4 * 2 and all(".adapters.speech." in name for name in names)


@pytest.mark.parametrize("name", ["stray", "stray.weight", "language_model.norm.weight", "language.x.adapters.music.A"])
def test_a_name_of_no_part_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: belongs to no part"):
        part_of(name)


@pytest.mark.parametrize("kind", ["parameter", "buffer", "child"])
def test_a_stray_tensor_is_refused(kind: str) -> None:
    model = text_model()
    if kind == "parameter":
        model.stray = nn.Parameter(torch.zeros(1))
    elif kind == "buffer":
        model.register_buffer("stray", torch.zeros(1), persistent=False)
    else:
        model.stray = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="stray"):
        check_parts(model)


@pytest.mark.parametrize("kind", ["parameter", "buffer", "storage"])
def test_a_tensor_that_two_parts_share_is_refused(kind: str) -> None:
    """Training one part, or replacing it from a checkpoint, would change the other."""
    model = Multimodal.seeded(NANO, 0)
    check_parts(model)
    speech, vision = model.audio_projector_speech, model.audio_projector_vision
    if kind == "parameter":
        vision.up.weight = speech.up.weight
    elif kind == "storage":
        vision.up.weight = nn.Parameter(speech.up.weight.data)
    else:
        shared = torch.zeros(3)
        speech.register_buffer("shared", shared)
        vision.register_buffer("shared", shared)
    with pytest.raises(ValueError, match="same tensor"):
        check_parts(model)


def test_a_part_may_share_within_itself() -> None:
    model = text_model()
    layers = model.language.layers
    layers[1].mlp.down_proj.weight = layers[0].mlp.down_proj.weight
    check_parts(model)
    assert counts(model)[Part.LANGUAGE] < counts(text_model())[Part.LANGUAGE]


def test_an_adapter_of_no_part_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'music' is not known; allowed are .*speech"):
        Multimodal(ModelConfig(adapters=(*ADAPTERS, LoraConfig("music", 2, 4.0))))


def test_weights_follow_from_the_seed_and_the_global_generator_stays() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    weights, same, other = (Multimodal.seeded(NANO, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert not torch.equal(weights["language.embed_tokens.weight"], other["language.embed_tokens.weight"])
