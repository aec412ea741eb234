"""Which parameters a stage trains; fresh adapters on an imported base, merged and not; float32 over bfloat16."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from models import ADAPTERS, NANO, batch_of_all_kinds, enlivened, ids, text_model
from torch import Tensor

from gristmill.model.assembly.adapters import add_adapters, merge_adapter
from gristmill.model.hf import names as hf_names
from gristmill.model.hf.checkpoint import load_hf, save_hf
from gristmill.model.phi4.config import LoraConfig
from gristmill.model.phi4.lora import LoRA
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part, part_of, trainable
from gristmill.model.train.objective import Batch, Objective

pytestmark = pytest.mark.usefixtures("one_thread")
FRESH = (LoraConfig("vision", 5, 20.0), LoraConfig("speech", 6, 6.0))


def batch_of(tokens: Iterable[int], inputs: dict[str, Tensor] | None = None) -> Batch:
    """One segment, all of it targets."""
    row = torch.tensor(list(tokens))
    return Batch(row, torch.ones(len(row), dtype=torch.bool), torch.tensor([0, len(row)]), inputs or {})


# What is trained.


@pytest.mark.parametrize("parts", [{part} for part in Part] + [{Part.VISION_ENCODER, Part.LORA_VISION}])
def test_only_the_parts_of_a_stage_get_gradients_and_all_of_theirs_do(parts: set[Part]) -> None:
    model = enlivened(NANO, 2).train()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)  # of a stage before
    trained = trainable(model, parts)
    model.zero_grad()
    Objective(model)(batch_of_all_kinds())[0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (name in trained) == (parameter.grad is not None), name
        assert part_of(name) in parts or name not in trained
    assert {part_of(name) for name in trained} == parts
    for name, parameter in trained.items():
        if not name.endswith("k_proj.bias"):  # adds the same to all scores of a query: its gradient is 0 by nature
            assert parameter.grad is not None and parameter.grad.any(), name


def test_what_never_reaches_the_output_stays_frozen_and_is_what_checkpoints_may_lack() -> None:
    model = enlivened(NANO, 2)
    model.requires_grad_(True)
    trained = trainable(model, list(Part))
    frozen = {name for name, _ in model.named_parameters()} - set(trained)
    assert frozen == {name for name, _ in model.named_parameters() if hf_names.is_unused(name, NANO)} != set()


def test_gradients_of_what_is_frozen_are_thrown_away() -> None:
    model = text_model()
    model.language.norm.weight.grad = torch.ones_like(model.language.norm.weight)
    trainable(model, {Part.LORA_SPEECH})
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_stage_that_trains_nothing_or_what_is_not_there_is_refused() -> None:
    model = text_model()
    with pytest.raises(ValueError, match="no part is to be trained; it has language, lora_vision, lora_speech"):
        trainable(model, set())
    with pytest.raises(ValueError, match="audio_encoder: this model has no such part; it has language, lora_vision"):
        trainable(model, {Part.LANGUAGE, Part.AUDIO_ENCODER})
    with pytest.raises(ValueError, match="'decoder' is not a valid Part"):
        trainable(model, ["decoder"])  # type: ignore[list-item]


# Fresh adapters.


def imported(folder: Path, adapters: tuple[LoraConfig, ...]) -> Multimodal:
    """A base as somebody else has trained it, read from a folder."""
    save_hf(text_model(3, adapters=adapters), folder)
    return load_hf(folder)


def test_fresh_adapters_change_nothing_learn_alone_and_are_exported_with_their_base(tmp_path: Path) -> None:
    model, rows = imported(tmp_path / "base", ()), ids(3, 20)
    before, weights = model(rows).logits, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    add_adapters(model, FRESH, seed=1)
    assert torch.equal(model(rows, adapter="vision").logits, before)
    trained = trainable(model, {Part.LORA_SPEECH})
    assert len(trained) == 2 * 4 * len(model.language.layers)
    optimiser = torch.optim.AdamW(trained.values(), lr=0.02)
    for _ in range(2):  # the first step moves B alone, since A has no gradient while B is zero
        model.zero_grad()
        Objective(model, adapter="speech")(batch_of(rows.flatten().tolist()))[0].backward()
        optimiser.step()
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in weights.items())
    assert torch.equal(model(rows, adapter="vision").logits, before) and torch.equal(model(rows).logits, before)
    spoken = model(rows, adapter="speech").logits
    assert (spoken - before).abs().max() > 0.01
    save_hf(model, tmp_path / "trained")
    again = load_hf(tmp_path / "trained")
    assert again.config.adapters == FRESH and torch.equal(again(rows, adapter="speech").logits, spoken)


def test_a_seed_decides_fresh_adapters_and_leaves_the_global_generator() -> None:
    def fresh(seed: int) -> Tensor:
        model = text_model(adapters=())
        add_adapters(model, FRESH, seed)
        return torch.cat([each.A.flatten() for each in model.modules() if isinstance(each, LoRA)])

    state = torch.get_rng_state()
    assert torch.equal(fresh(1), fresh(1)) and not torch.equal(fresh(1), fresh(2))
    fresh(3)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    model = text_model(adapters=())
    torch.manual_seed(0)
    add_adapters(model, FRESH, 1)
    assert torch.equal(torch.rand(3), expected)
    torch.set_rng_state(state)


def test_a_merged_adapter_is_the_base_of_a_fresh_one(tmp_path: Path) -> None:
    model, rows = imported(tmp_path, (ADAPTERS[0],)), ids(3, 20)
    plain, adapted = model(rows, adapter=None).logits, model(rows, adapter="vision").logits
    assert (plain - adapted).abs().max() > 0.01
    merge_adapter(model, "vision")
    assert model.config.adapters == () and not any(isinstance(module, LoRA) for module in model.modules())
    torch.testing.assert_close(model(rows).logits, adapted, atol=1e-4, rtol=0)
    base = model(rows).logits
    add_adapters(model, [replace(FRESH[0], r=2)], seed=0)
    assert torch.equal(model(rows, adapter="vision").logits, base)
    assert set(trainable(model, {Part.LORA_VISION})) == {
        name for name, _ in model.named_parameters() if ".adapters.vision." in name
    }


def test_a_fresh_adapter_beside_one_that_is_kept_leaves_that_as_it_is(tmp_path: Path) -> None:
    model, rows = imported(tmp_path, (ADAPTERS[0],)), ids(3, 20)
    kept = model(rows, adapter="vision").logits
    add_adapters(model, [FRESH[1]], seed=0)
    assert [adapter.name for adapter in model.config.adapters] == ["vision", "speech"]
    assert torch.equal(model(rows, adapter="vision").logits, kept)
    mixed = model(rows, adapter=["vision", "speech", None]).logits
    torch.testing.assert_close(mixed[0], kept[0], atol=1e-5, rtol=0)


def test_a_bfloat16_base_gets_float32_adapters_and_merging_rounds_once() -> None:
    half = text_model(adapters=()).bfloat16()
    add_adapters(half, FRESH, seed=0)
    adapters = [module for module in half.modules() if isinstance(module, LoRA)]
    assert {each.A.dtype for each in adapters} == {torch.float32}
    linear = half.language.layers[1].mlp.down_proj
    torch.nn.init.normal_(linear.adapters["vision"].B, std=0.1)
    low = linear.adapters["vision"]
    expected = (linear.weight.double() + low.B.double() @ low.A.double() * 4.0).bfloat16()
    merge_adapter(half, "vision")
    assert linear.weight.dtype == torch.bfloat16
    assert (linear.weight != expected).float().mean() < 0.01, "but for ties that float32 and float64 round apart"


def test_adapters_that_cannot_be_are_refused() -> None:
    model = text_model()
    with pytest.raises(ValueError, match="'vision' is there already: merge it first"):
        add_adapters(model, [FRESH[0]], seed=0)
    with pytest.raises(ValueError, match="'taste' is not known; allowed are"):
        add_adapters(model, [LoraConfig("taste", 2, 2.0)], seed=0)
    with pytest.raises(ValueError, match=r"'taste': this model has \['vision', 'speech'\]"):
        merge_adapter(model, "taste")


# Types.


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("parts", [{Part.LORA_VISION, Part.LORA_SPEECH}, set(Part)], ids=["adapters", "all"])
def test_float32_adapters_over_a_bfloat16_base_learn_as_in_float32(parts: set[Part], autocast: bool) -> None:
    """A mixed batch, so that adapters compute gathered tokens; gradients point where those of float32 do."""
    batch, gradients = batch_of_all_kinds(), []
    for half in (False, True):
        model = Multimodal.seeded(NANO, 2).bfloat16()  # weights of both are rounded
        for module in model.modules():
            if isinstance(module, LoRA):
                module.float()
                torch.nn.init.normal_(module.B, std=0.02, generator=torch.Generator().manual_seed(module.B.numel()))
        if not half:
            model.float()
        trained = trainable(model, parts)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast and half):
            loss, count = Objective(model)(batch)
        (loss / count).backward()
        assert loss.dtype == torch.float32
        gradients.append({name: parameter.grad for name, parameter in trained.items()})
    errors = []
    for name, expected in gradients[0].items():
        gradient = gradients[1][name]
        assert gradient is not None and expected is not None and gradient.isfinite().all(), name
        assert gradient.dtype == (torch.float32 if ".adapters." in name else torch.bfloat16), name
        if ".adapters." in name:
            errors.append(float((gradient - expected).norm() / expected.norm()))
    assert sum(errors) / len(errors) < 0.1 and max(errors) < 0.35, "relative, from rounding activations alone"


def test_autocast_over_a_float32_model_attends_in_the_lower_type(monkeypatch: pytest.MonkeyPatch) -> None:
    attend, kinds = torch.nn.functional.scaled_dot_product_attention, set()
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda q, k, v, is_causal: kinds.add((q.dtype, k.dtype, v.dtype)) or attend(q, k, v, is_causal=is_causal),
    )
    batch = batch_of_all_kinds()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = Objective(enlivened(NANO, 2))(
            Batch(batch.input_ids[:9], batch.loss_mask[:9], torch.tensor([0, 4, 9]))
        )
    assert loss.isfinite() and kinds == {(torch.bfloat16,) * 3}
