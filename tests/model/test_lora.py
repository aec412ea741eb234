"""The mixture of LoRAs: each token of a batch takes its own adapter, in training too, and nothing of the others."""

from __future__ import annotations

import math

import pytest
import torch
from models import (
    ADAPTERS,
    AUDIO,
    IMAGE,
    NANO,
    enlivened,
    ids,
    nano,
    prompts_of_all_kinds,
    text_model,
)
from torch import Tensor

from gristmill.model.phi4 import routing
from gristmill.model.phi4.config import LoraConfig
from gristmill.model.phi4.lora import LoRA, MultiLoRALinear
from gristmill.model.phi4.multimodal import Multimodal

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = (None, "vision", "speech", "vision", None)


@pytest.fixture(scope="module")
def model() -> Multimodal:
    return text_model()


def ruined(name: str, seed: int = 0) -> Multimodal:
    """A model whose adapter of this name holds no numbers."""
    model = text_model(seed)
    for key, parameter in model.named_parameters():
        if f".adapters.{name}." in key:
            parameter.data.fill_(torch.nan)
    return model


def linear(seed: int = 0) -> MultiLoRALinear:
    torch.manual_seed(seed)
    layer = MultiLoRALinear(10, 7, ADAPTERS).eval()
    for lora in layer.adapters.values():
        torch.nn.init.normal_(lora.B)
    return layer


def by_hand(layer: MultiLoRALinear, x: Tensor, name: str | None) -> Tensor:
    """As peft's documentation has it: Wx + alpha / r * B(Ax)."""
    y = x @ layer.weight.T
    if name is None:
        return y
    config = {adapter.name: adapter for adapter in ADAPTERS}[name]
    a, b = layer.adapters[name].A, layer.adapters[name].B
    return y + config.lora_alpha / config.r * ((x @ a.T) @ b.T)


@pytest.mark.parametrize("name", [None, "vision", "speech"])
def test_a_linear_is_what_peft_computes(name: str | None) -> None:
    layer, x = linear(), torch.randn(2, 5, 10)
    torch.testing.assert_close(
        layer(x, {} if name is None else {name: None}), by_hand(layer, x, name), atol=1e-6, rtol=0
    )


def test_places_and_masks_route_alike() -> None:
    layer, x = linear(), torch.randn(3, 5, 10)
    vision = torch.rand(3, 5) < 0.4
    masks = {"vision": vision, "speech": ~vision & (torch.rand(3, 5) < 0.5)}
    assert masks["speech"].any() and masks["vision"].any() and not (masks["vision"] | masks["speech"]).all()
    expected = by_hand(layer, x, None)
    for name, mask in masks.items():
        expected[mask] = by_hand(layer, x, name)[mask]
    torch.testing.assert_close(layer(x, masks), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(layer(x, routing.routes(masks)), expected, atol=1e-6, rtol=0)


def test_an_adapter_is_given_the_tokens_that_take_it_and_no_others() -> None:
    layer, x, given_ = linear(), torch.randn(3, 5, 10), []
    mask = torch.rand(3, 5) < 0.4
    layer.adapters["vision"].register_forward_pre_hook(lambda _, inputs: given_.append(inputs[0]))
    layer(x, routing.routes({"vision": mask}))
    assert len(given_) == 1 and torch.equal(given_[0], x[mask])


def test_by_masks_an_adapter_of_no_numbers_harms_no_token_that_does_not_take_it() -> None:
    layer, x, mask = linear(), torch.randn(3, 5, 10), torch.rand(3, 5) < 0.4
    plain = layer(x, {})
    layer.adapters["vision"].A.data.fill_(torch.nan)
    y = layer(x, {"vision": mask})
    assert y[mask].isnan().all() and torch.equal(y[~mask], plain[~mask])


def test_places_of_all_and_of_none_are_not_listed() -> None:
    everywhere = torch.ones(2, 3, dtype=torch.bool)
    routes = routing.routes({"vision": everywhere, "speech": ~everywhere})
    assert routes == {"vision": None}


def test_an_untrained_adapter_changes_nothing_and_starts_as_pefts() -> None:
    torch.manual_seed(0)
    layer, x = MultiLoRALinear(400, 7, ADAPTERS), torch.randn(2, 5, 400)
    assert torch.equal(layer(x, {"vision": None}), layer(x, {}))
    a = layer.adapters["vision"].A.detach()
    assert a.abs().max() <= 1 / math.sqrt(400) and a.std() == pytest.approx(1 / math.sqrt(3 * 400), rel=0.1)
    assert not layer.adapters["vision"].B.any()


def test_dropout_is_for_training_and_the_adapter_alone() -> None:
    torch.manual_seed(0)
    lora, x = LoRA(LoraConfig("vision", 8, 8.0, lora_dropout=0.25), 8, 8), torch.ones(2000, 8)
    torch.nn.init.eye_(lora.A)
    torch.nn.init.eye_(lora.B)
    assert torch.equal(lora.eval()(x), x)
    dropped = lora.train()(x)
    assert dropped.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert (dropped == 0).float().mean() == pytest.approx(0.25, abs=0.02)
    routed = MultiLoRALinear(10, 7, ADAPTERS).train()
    assert torch.equal(routed(x[:1, :1].expand(1, 1, 10), {}), routed.eval()(x[:1, :1].expand(1, 1, 10), {}))


def test_rows_of_a_mixed_batch_are_as_alone(model: Multimodal) -> None:
    rows = ids(5, 12)
    mixed = model(rows, adapter=list(ROWS)).logits
    for i, name in enumerate(ROWS):
        torch.testing.assert_close(mixed[i], model(rows[i : i + 1], adapter=name).logits[0], atol=1e-5, rtol=0)
    assert (
        len({round(model(rows[:1], adapter=name).logits.sum().item(), 3) for name in (None, "vision", "speech")}) == 3
    )


@pytest.mark.parametrize("name", ["vision", "speech"])
def test_rows_without_an_adapter_compute_nothing_of_it(name: str, model: Multimodal) -> None:
    rows = ids(5, 12)
    logits = ruined(name)(rows, adapter=list(ROWS)).logits
    for i, row in enumerate(ROWS):
        assert bool(logits[i].isnan().all()) == (row == name)
    others = [i for i, row in enumerate(ROWS) if row != name]
    assert torch.equal(logits[others], model(rows, adapter=list(ROWS)).logits[others])


def test_the_gradient_of_an_unrouted_adapter_is_none_and_that_of_others_is_finite() -> None:
    broken = ruined("speech").train()
    broken(ids(3, 8), adapter=["vision", None, "vision"]).logits.square().mean().backward()
    for name, parameter in broken.named_parameters():
        if ".adapters.speech." in name:
            assert parameter.grad is None or not parameter.grad.any()
        elif name.startswith("language"):
            assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_gradients_of_a_mixed_batch_are_the_sum_of_those_of_its_rows(model: Multimodal) -> None:
    rows, weights = ids(5, 12), torch.randn(5, 12, 300)

    def gradients(chosen: list[int]) -> dict[str, Tensor]:
        model.zero_grad()
        logits = model(rows[chosen], adapter=[ROWS[i] for i in chosen]).logits
        (logits * weights[chosen]).sum().backward()
        return {
            name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
        }

    together, alone = gradients([0, 1, 2, 3, 4]), [gradients([i]) for i in range(5)]
    model.zero_grad()
    assert set(together) == {name for row in alone for name in row}
    for name, gradient in together.items():
        total = sum(row[name] for row in alone if name in row)
        assert isinstance(total, Tensor)
        assert (gradient - total).abs().max() <= 1e-5 * max(1.0, total.abs().max().item()), name


def test_masks_of_a_step_in_bfloat16_keep_its_type() -> None:
    half = text_model().bfloat16()
    logits = half(ids(2, 6), adapter=["vision", None]).logits
    assert logits.dtype == torch.bfloat16 and logits.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert text_model()(ids(2, 6), adapter=["vision", None]).logits.isfinite().all()


@pytest.mark.parametrize(
    ("base", "adapter"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16), (torch.float16, torch.bfloat16)],
    ids=str,
)
def test_an_adapter_of_another_type_than_its_base_is_what_peft_computes(
    base: torch.dtype, adapter: torch.dtype
) -> None:
    layer, x = linear().to(base), torch.randn(2, 5, 10).to(base)
    layer.adapters.to(adapter)
    low = layer.adapters["vision"]
    expected = x @ layer.weight.T + (x.float() @ low.A.float().T) @ low.B.float().T * low.scaling  # peft's own order
    mask = torch.tensor([[True, False, True, True, False]] * 2)
    plain = layer(x, {})
    assert torch.equal(layer(x, {"vision": None}), expected.to(base))
    for y in (layer(x, {"vision": mask}), layer(x, routing.routes({"vision": mask}))):
        assert y.dtype == base and torch.equal(y[~mask], plain[~mask])
        torch.testing.assert_close(y[mask], expected.to(base)[mask])


def test_a_float32_adapter_on_a_bfloat16_base_runs_and_learns() -> None:
    half = text_model().bfloat16().train()
    for module in half.modules():
        if isinstance(module, LoRA):
            module.float()
    rows = ids(3, 6)
    logits = half(rows, adapter=["vision", None, "speech"]).logits
    assert logits.dtype == torch.bfloat16 and logits.isfinite().all()
    logits.float().square().mean().backward()
    for name, parameter in half.named_parameters():
        assert (
            parameter.grad is not None and parameter.grad.dtype == parameter.dtype and parameter.grad.isfinite().all()
        ), name


# Routing.

P, A, T = IMAGE, AUDIO, 50
BATCH = torch.tensor([[T, T, T, T, T, T], [T, P, P, T, T, T], [T, T, A, A, T, T], [A, T, T, P, T, T]])


def places(masks: dict[str, Tensor], name: str) -> list[list[int]]:
    return masks[name].int().tolist()


def rows_of(ids_BL: Tensor) -> Tensor:
    return torch.arange(len(ids_BL))[:, None].expand_as(ids_BL)


def test_by_sample_an_image_makes_it_vision_and_else_audio_speech() -> None:
    masks = routing.masks(NANO, "auto", BATCH, rows_of(BATCH))
    assert places(masks, "vision") == [[0] * 6, [1] * 6, [0] * 6, [1] * 6]
    assert places(masks, "speech") == [[0] * 6, [0] * 6, [1] * 6, [0] * 6]


def test_by_token_each_takes_its_own() -> None:
    masks = routing.masks(NANO, "token", BATCH, rows_of(BATCH))
    assert places(masks, "vision") == (BATCH == P).int().tolist()
    assert places(masks, "speech") == (BATCH == A).int().tolist()


def test_packed_samples_of_one_row_are_routed_apart() -> None:
    masks = routing.masks(NANO, "auto", BATCH.view(1, -1), torch.arange(24).view(1, -1) // 6)
    assert places(masks, "vision") == [[0] * 6 + [1] * 6 + [0] * 6 + [1] * 6]
    assert places(masks, "speech") == [[0] * 12 + [1] * 6 + [0] * 6]


def test_a_named_adapter_is_for_all_rows_and_none_for_none() -> None:
    assert routing.masks(NANO, None, BATCH, rows_of(BATCH)) == {}
    assert places(routing.masks(NANO, "speech", BATCH, rows_of(BATCH)), "speech") == [[1] * 6] * 4
    masks = routing.masks(NANO, [None, "speech", None, "vision"], BATCH, rows_of(BATCH))
    assert places(masks, "speech") == [[0] * 6, [1] * 6, [0] * 6, [0] * 6] and set(masks) == {"vision", "speech"}


def test_a_model_without_a_part_routes_what_it_has() -> None:
    bare = text_model(adapters=())
    assert routing.masks(bare.config, "auto", BATCH, rows_of(BATCH)) == {}
    assert torch.equal(bare(BATCH).logits, bare(BATCH, adapter=None).logits)


@pytest.mark.parametrize(
    ("adapter", "message"),
    [("music", "'music': this model has .*speech"), (["vision", "music"] * 2, "'music'"), (["vision"], "1 rows.* 4")],
)
def test_an_adapter_that_is_not_there_is_refused(adapter: str | list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nano()(BATCH, adapter=adapter)
    with pytest.raises(ValueError, match="none"):
        text_model(adapters=())(BATCH, adapter="vision")


def test_all_four_kinds_in_one_batch_are_as_alone_in_training_too() -> None:
    model = enlivened(NANO, 3).train()
    for request in model.modules():
        if isinstance(request, LoRA):
            request.dropout = 0.0
    requests = list(prompts_of_all_kinds().values())
    length = max(len(request.tokens) for request in requests)
    batch = torch.tensor([[*request.tokens, *[0] * (length - len(request.tokens))] for request in requests])
    real = torch.tensor([[1] * len(request.tokens) + [0] * (length - len(request.tokens)) for request in requests])
    parts = [request.inputs for request in requests if request.inputs]
    names = {name for part in parts for name in part}
    inputs = {name: torch.cat([part[name] for part in parts if name in part]) for name in names}
    mixed = model(batch, real, **inputs).logits
    packed = torch.tensor([[token for request in requests for token in request.tokens]])
    numbers = torch.tensor([[i for i, request in enumerate(requests) for _ in request.tokens]])
    in_a_row = (
        model(packed, segment_ids=numbers, **inputs).logits[0].split([len(request.tokens) for request in requests])
    )
    for i, request in enumerate(requests):
        alone = model(torch.tensor([request.tokens]), **dict(request.inputs or {})).logits[0]
        torch.testing.assert_close(mixed[i, : len(request.tokens)], alone, atol=1e-4, rtol=0)
        torch.testing.assert_close(in_a_row[i], alone, atol=1e-4, rtol=0)
    mixed.square().mean().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())
