"""The image path against transformers' own, on small random models; sizes, counts and errors on none at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import Phi4MultimodalConfig
from transformers.models.phi4_multimodal.modeling_phi4_multimodal import (
    Phi4MultimodalImageEmbedding,
    Phi4MultimodalVisionEmbeddings,
)

from gristmill.model.phi4.config import VisionConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.phi4.vision import Embeddings, VisionEncoder, VisionProjector, _seen, embed_images

RELEASED = VisionConfig()
TINY = VisionConfig(
    hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, image_token_id=5
)  # the released geometry: crops of 448, patches of 14
SMALL = replace(TINY, crop_size=64, patch_size=8)
OUT = 24
GRIDS = [(1, 1), (1, 1), (2, 1), (1, 3), (2, 2)]
PADDING = [(0, 0), (3, 0), (0, 2), (1, 3), (4, 1)]
"""Patches of padding below and at the right of the images of GRIDS."""


pytestmark = pytest.mark.usefixtures("one_thread")


def patch_mask(grid: tuple[int, int], padding: tuple[int, int], side: int, crops: int) -> Tensor:
    """[crops, side, side]: the global view, the image's crops, then padding crops, whose masks are ones."""
    rows, columns = grid
    picture = torch.ones(rows * side, columns * side)
    picture[rows * side - padding[0] :] = 0
    picture[:, columns * side - padding[1] :] = 0
    mask = torch.ones(crops, side, side)
    mask[1 : 1 + rows * columns] = picture.view(rows, side, columns, side).transpose(1, 2).flatten(0, 1)
    return mask


def batch(config: VisionConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels, sizes, mask of the images of GRIDS."""
    crops = 1 + max(rows * columns for rows, columns in GRIDS)
    masks = [patch_mask(grid, padding, config.grid, crops) for grid, padding in zip(GRIDS, PADDING, strict=True)]
    pixels = torch.randn(len(GRIDS), crops, 3, config.crop_size, config.crop_size)
    return pixels, torch.tensor(GRIDS) * config.crop_size, torch.stack(masks)


def reference_config(config: VisionConfig) -> Phi4MultimodalConfig:
    vision = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "image_size": config.crop_size,
        "crop_size": config.crop_size,
        "patch_size": config.patch_size,
        "feature_layer": config.feature_layer,
        "image_token_id": config.image_token_id,
    }
    text = {"hidden_size": OUT, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 1}
    tokens = {"vocab_size": 10, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    return Phi4MultimodalConfig(vision_config=vision, **text, **tokens)


def reference(config: VisionConfig) -> Phi4MultimodalImageEmbedding:
    """Random weights everywhere: in separators, biases and norms too."""
    model = Phi4MultimodalImageEmbedding(reference_config(config)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.2)
    return model


def with_weights_of(config: VisionConfig, model: Phi4MultimodalImageEmbedding) -> tuple[VisionEncoder, VisionProjector]:
    encoder, projector = VisionEncoder(config), VisionProjector(config, OUT)
    encoder.load_state_dict(model.img_processor.state_dict())
    names = {
        "global_img_feature_extensor": "global_separator",
        "sub_img_feature_extensor": "sub_separator",
        "img_projection_up": "up",
        "img_projection_down": "down",
    }
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("img_processor.")}
    for reference_name, mine in names.items():
        weights = {name.replace(reference_name, mine): tensor for name, tensor in weights.items()}
    projector.load_state_dict(weights)
    return encoder, projector


@pytest.mark.parametrize(
    "config",
    [TINY, SMALL, replace(SMALL, crop_size=80), replace(SMALL, feature_layer=-1), replace(SMALL, feature_layer=-4)],
    ids=["448/14", "64/8", "80/8", "last layer", "no layer"],
)
def test_tokens_are_the_references(config: VisionConfig) -> None:
    model = reference(config)
    encoder, projector = with_weights_of(config, model)
    pixels, sizes, mask = batch(config)
    with torch.no_grad():
        tokens = embed_images(encoder, projector, pixels, sizes, mask)
        ids = torch.full((1, sum(map(len, tokens))), config.image_token_id)
        wanted = model(ids, torch.zeros(*ids.shape, OUT), pixels, sizes, mask)[0]
    assert wanted.abs().mean() > 0.1
    torch.testing.assert_close(torch.cat(tokens), wanted, atol=2e-5, rtol=0)


def test_positions_are_the_references_for_every_padding() -> None:
    config = replace(SMALL, crop_size=64, patch_size=2)  # 32 patches a side, as released
    reference, mine = Phi4MultimodalVisionEmbeddings(reference_config(config).vision_config), Embeddings(config)
    mine.load_state_dict(reference.state_dict())
    real = torch.arange(32) < torch.arange(1, 33)[:, None]  # row n: n + 1 real places
    mask = torch.cat([real[:, :, None] & real.flip(0)[:, None], real[:, :, None] & real[:, None]])
    pixels = torch.zeros(64, 3, 64, 64)
    assert torch.equal(mine(pixels, mask), reference(pixels, mask))


def test_released_counts() -> None:
    with torch.device("meta"):
        encoder, projector = VisionEncoder(RELEASED), VisionProjector(RELEASED, 3072)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 428_565_440
    assert sum(parameter.numel() for parameter in encoder.parameters() if not parameter.requires_grad) == 30_480_160
    assert sum(parameter.numel() for parameter in projector.parameters()) == 2 * 1152 + 1153 * 3072 + 3073 * 3072


@pytest.mark.parametrize(
    ("grid", "resized", "tokens"),
    [
        ((1, 1), (448, 448), 545),
        ((1, 1), (448, 268), 449),
        ((1, 2), (448, 666), 673),
        ((2, 1), (449, 448), 562),
        ((2, 2), (672, 896), 1065),
        ((3, 3), (1344, 1344), 2625),
        ((3, 5), (1260, 2240), 3918),
        ((5, 7), (2090, 3136), 8748),
        ((2, 3), (896, 1344), 1841),
        ((4, 3), (1792, 1344), 3409),
        ((4, 7), (1764, 3136), 7392),
        ((6, 6), (2687, 2688), 9585),
        ((1, 2), (23, 896), 306),
        ((14, 1), (6272, 62), 1169),
    ],
)
def test_tokens_of_released_sizes(grid: tuple[int, int], resized: tuple[int, int], tokens: int) -> None:
    padding = [(448 * n - size) // 14 for n, size in zip(grid, resized, strict=True)]
    mask = patch_mask(grid, (padding[0], padding[1]), 32, 1 + grid[0] * grid[1])[None]
    projector = VisionProjector(TINY, 4)
    (embedded,) = projector(torch.zeros(1, mask.shape[1], 256, 32), torch.tensor([grid]) * 448, mask)
    assert embedded.shape == (tokens, 4)


def test_nano_shapes() -> None:
    nano = PRESETS["nano"]
    assert nano.vision is not None
    encoder, projector = VisionEncoder(nano.vision), VisionProjector(nano.vision, nano.text.hidden_size)
    pixels, sizes, mask = batch(nano.vision)
    assert encoder(pixels[0], mask[0]).shape == (5, 16, 64)
    images = embed_images(encoder, projector, pixels, sizes, mask)
    local = [4 * 5, 3 * 5, 8 * 4, 4 * 12, 6 * 9]  # rows * (columns + 1), of crops of 4x4 tokens
    assert [tuple(tokens.shape) for tokens in images] == [(n + 1 + 4 * 5, 128) for n in local]


def test_order_of_tokens() -> None:
    """Local rows, the global separator, global rows; told apart by the crop that each comes from."""
    projector = VisionProjector(SMALL, OUT)
    with torch.no_grad():
        projector.sub_separator.fill_(8)
        projector.global_separator.fill_(9)
    features = torch.arange(3.0)[:, None, None].expand(3, 16, 32)
    mask = patch_mask((1, 2), (4, 2), 8, 3)[:, ::2, ::2]
    local, whole = [1, 1, 1, 1, 2, 2, 2, 8], [0, 0, 0, 0, 8]
    assert projector.arrange(features, (1, 2), mask)[:, 0].tolist() == local * 2 + [9] + whole * 4


def test_padding_crops_are_not_encoded() -> None:
    encoder, projector = VisionEncoder(SMALL), VisionProjector(SMALL, OUT)
    seen = []
    encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    pixels, sizes, mask = batch(SMALL)
    for image, (rows, columns) in enumerate(GRIDS):
        pixels[image, 1 + rows * columns :] = torch.nan
    tokens = torch.cat(embed_images(encoder, projector, pixels, sizes, mask))
    assert seen == [sum(1 + rows * columns for rows, columns in GRIDS)]
    assert tokens.isfinite().all()


def test_a_crop_without_a_real_patch_is_finite_and_disturbs_no_other() -> None:
    encoder = VisionEncoder(SMALL)
    pixels, mask = torch.randn(3, 3, 64, 64), torch.ones(3, 8, 8, dtype=torch.bool)
    alone = encoder(pixels[:1], mask[:1])
    mask[1:] = False
    mask[2, -1, -1] = True  # real, yet nothing in the first row and column, which positions are counted in
    features = encoder(pixels, mask)
    assert features.isfinite().all()
    torch.testing.assert_close(features[:1], alone, atol=1e-5, rtol=0)
    seen = _seen(mask.flatten(1))  # not all kernels make zeros of a softmax over nothing, as the CPU's does
    assert seen is not None and seen.sum(-1).flatten().tolist() == [64, 64, 1]
    features.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters() if parameter.grad is not None)


@pytest.mark.parametrize(
    ("layer", "frozen"),
    [(-2, ("encoder.layers.2.", "post_layernorm.", "head.")), (-1, ("post_layernorm.", "head."))],
)
def test_the_unused_is_frozen_and_all_else_learns(layer: int, frozen: tuple[str, ...]) -> None:
    config = replace(SMALL, feature_layer=layer)
    encoder, projector = VisionEncoder(config), VisionProjector(config, OUT)
    torch.cat(embed_images(encoder, projector, *batch(config))).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.requires_grad != name.startswith(frozen), name
    for name, parameter in [*encoder.named_parameters(), *projector.named_parameters()]:
        if not parameter.requires_grad:
            assert parameter.grad is None, name
        elif not name.endswith("k_proj.bias"):  # adds the same to all scores of a query: its gradient is 0 by nature
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((64, 100), r"image_sizes\[1\] is 64x100: padded sizes are positive multiples of crop_size=64"),
        ((0, 64), r"image_sizes\[1\] is 0x64: padded sizes are positive"),
        (
            (128, 192),
            r"image_sizes\[1\] is 128x192: 2x3 crops of 64 pixels and the global view make 7, and 5 are given",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(size: tuple[int, int], message: str) -> None:
    encoder, projector = VisionEncoder(SMALL), VisionProjector(SMALL, OUT)
    pixels, sizes, mask = batch(SMALL)
    sizes[1] = torch.tensor(size)
    with pytest.raises(ValueError, match=message):
        embed_images(encoder, projector, pixels, sizes, mask)
    with pytest.raises(ValueError, match=message):
        projector(torch.zeros(5, 5, 16, 32), sizes, mask)


# Crops end to end.


def end_to_end(pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels and mask of the images of GRIDS without the crops that pad."""
    counts = [1 + rows * columns for rows, columns in GRIDS]
    joined = [torch.cat([image[:n] for image, n in zip(x, counts, strict=True)]) for x in (pixels, mask)]
    return joined[0], joined[1]


def test_crops_end_to_end_are_the_same_as_padded_to_the_largest_image() -> None:
    encoder, projector = VisionEncoder(SMALL), VisionProjector(SMALL, OUT)
    pixels, sizes, mask = batch(SMALL)
    padded = embed_images(encoder, projector, pixels, sizes, mask)
    crops, real = end_to_end(pixels, mask)
    assert len(crops) < pixels.shape[0] * pixels.shape[1]
    tokens = embed_images(encoder, projector, crops, sizes, real)
    assert [len(image) for image in tokens] == [len(image) for image in padded]
    assert all(torch.equal(image, other) for image, other in zip(tokens, padded, strict=True))


def test_the_model_takes_crops_end_to_end_with_and_without_a_mask() -> None:
    model = Multimodal.seeded(PRESETS["nano"], 0)
    vision = model.config.vision
    assert vision is not None
    pixels, sizes, _ = batch(vision)
    ones = torch.ones(len(GRIDS), pixels.shape[1], vision.grid, vision.grid)
    crops, real = end_to_end(pixels, ones)
    count = sum((rows * 4) * (columns * 4 + 1) + 1 + 4 * 5 for rows, columns in GRIDS)
    row = torch.full((1, count), vision.image_token_id)
    padded = model.embed(row, image_pixel_values=pixels, image_sizes=sizes, image_attention_mask=ones)
    for mask in ({}, {"image_attention_mask": real}):
        assert torch.equal(model.embed(row, image_pixel_values=crops, image_sizes=sizes, **mask), padded)


@pytest.mark.parametrize("change", [-1, 1])
def test_another_number_of_crops_than_the_sizes_say_is_refused(change: int) -> None:
    encoder, projector = VisionEncoder(SMALL), VisionProjector(SMALL, OUT)
    pixels, sizes, mask = batch(SMALL)
    crops, real = end_to_end(pixels, mask)
    crops, real = (torch.cat([x, x])[: len(x) + change] for x in (crops, real))
    message = rf"image_sizes are of 16 crops, global views included; {16 + change} are given"
    with pytest.raises(ValueError, match=message):
        embed_images(encoder, projector, crops, sizes, real)
