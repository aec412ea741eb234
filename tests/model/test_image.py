"""Crops against the image processor of transformers: pixels, masks, tokens, what is refused, and a model's logits.

Where the reference leaves the resizing of uint8 to torch, pixels are the same bits, in the global view too; elsewhere
they may be a level apart.
"""

from __future__ import annotations

import io
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hf
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from released_images import CAPS, TABLE, picture, plan_or_none
from torch import Tensor
from transformers.models.phi4_multimodal.image_processing_phi4_multimodal import Phi4MultimodalImageProcessor

from gristmill.model.hf.checkpoint import load_hf
from gristmill.model.processing.image import (
    crops,
    image_inputs,
    pixels_of,
)
from gristmill.model.processing.image_file import ImageError, decode_image

pytestmark = pytest.mark.usefixtures("one_thread")

NATIVE = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in ("aarch64", "arm64")
"""Whether the reference leaves the resizing of uint8 to torch on this machine."""
LEVEL = 0.0 if NATIVE else 2 / 255 + 1e-6


def processed(images: Sequence[np.ndarray | Image.Image], cap: int) -> dict[str, Any]:
    """By the reference, which has to guess of an array which axis is colour."""
    pictures = [image if isinstance(image, Image.Image) else Image.fromarray(image) for image in images]
    return dict(Phi4MultimodalImageProcessor(dynamic_hd=cap)(pictures, return_tensors="pt"))


# Pixels.


def assert_the_same(images: Sequence[np.ndarray], given: Sequence[np.ndarray | Image.Image], cap: int) -> None:
    """Tiles, pixels, masks and tokens of images are what the reference makes of `given`; end to end, where it pads."""
    expected = processed(given, cap)
    cut = [crops(image, cap) for image in images]
    assert [each.tokens for each in cut] == list(expected["num_img_tokens"])
    tiles = torch.from_numpy(np.concatenate([each.tiles for each in cut]))
    inputs = image_inputs(tiles, [each.image_size for each in cut])
    assert torch.equal(inputs["image_sizes"], expected["image_sizes"])
    counts = [1 + len(each.tiles) for each in cut]
    ends = zip(expected["image_pixel_values"], expected["image_attention_mask"], counts, cut, strict=True)
    split = zip(*(inputs[f"image_{name}"].split(counts) for name in ("pixel_values", "attention_mask")), strict=True)
    for (values, mask, count, each), (pixels, real) in zip(ends, split, strict=True):
        assert torch.equal(real.float(), mask[:count]) and torch.equal(each.mask, real)
        assert torch.equal(each.pixels(), pixels)
        if NATIVE:
            assert torch.equal(pixels, values[:count])  # of the global view 2.4e-7 were allowed
        else:
            assert (pixels[1:] - values[1:count]).abs().max() <= LEVEL
            assert (pixels[0] - values[0]).abs().max() <= 2.5 * LEVEL  # the sum of its taps' sizes, squared


@pytest.mark.parametrize(
    ("size", "cap"),
    [
        *[((height, width), cap) for height, width, cap, *_ in TABLE if height * width < 2_100_000],
        ((2000, 3000), 16),
        ((3, 100), 16),  # one crop, as flat as may be
        ((450, 450), 2),
        ((1800, 1800), 16),
        ((500, 3000), 16),
    ],
)
def test_pixels_are_the_references(size: tuple[int, int], cap: int) -> None:
    image = picture(*size)
    assert_the_same([image], [image], cap)


def test_several_images_end_to_end_are_the_references_padded_ones() -> None:
    images = [picture(*size) for size in ((28, 28), (600, 800), (449, 448), (300, 1300))]
    assert_the_same(images, images, 16)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 1400), st.integers(1, 1400), st.sampled_from(CAPS))
def test_pixels_of_any_size_are_the_references(height: int, width: int, cap: int) -> None:
    image = picture(height, width)
    if plan_or_none(height, width, cap) is None:
        with pytest.raises(ValueError, match="very extreme"):
            processed([image], cap)
    else:
        assert_the_same([image], [image], cap)


def test_real_images_are_the_references(shared_data: Path) -> None:
    count = 0
    for path in sorted((shared_data / "4_images").iterdir()):
        data = path.read_bytes()
        try:
            image = decode_image(data)
        except ImageError:
            continue
        given = image if path.suffix == ".tif" else ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        assert_the_same([image], [given], 16)
        count += 1
    assert count > 60


@pytest.mark.parametrize("rows", range(1, 9))
@pytest.mark.parametrize("cols", [1, 2, 3, 4, 5, 6, 12])
def test_the_global_view_is_the_whole_pictures_interpolation_bit_for_bit(rows: int, cols: int) -> None:
    side = 24
    tiles = torch.randint(0, 256, (rows * cols, side, side, 3), dtype=torch.uint8)
    floats = (tiles.float() - 127.5) / 127.5
    whole = floats.view(rows, cols, side, side, 3).permute(4, 0, 2, 1, 3).reshape(1, 3, rows * side, cols * side)
    expected = F.interpolate(whole, size=(side, side), mode="bicubic", align_corners=False)[0]
    pixels = pixels_of(tiles, [(rows * side, cols * side)])
    assert torch.equal(pixels[0], expected)
    assert torch.equal(pixels[1:], floats.permute(0, 3, 1, 2))


def test_an_image_that_fits_is_cut_and_not_resized() -> None:
    image = picture(100, 128)
    cut = crops(image, 8, 64, 8)
    assert cut.image_size == (100, 128) and cut.tiles.shape == (4, 64, 64, 3)
    whole = cut.tiles.reshape(2, 2, 64, 64, 3).swapaxes(1, 2).reshape(128, 128, 3)
    assert np.array_equal(whole[:100], image) and (whole[100:] == 255).all()
    assert cut.tokens == 7 * 9 + 1 + 4 * 5


def test_views_of_an_array_and_read_only_ones_are_cut_like_copies(recwarn: pytest.WarningsRecorder) -> None:
    image = picture(90, 120)
    frozen = image.copy()
    frozen.setflags(write=False)
    turned = np.ascontiguousarray(image[::-1, :, ::-1])[::-1, :, ::-1]
    tiles = crops(image, 8, 64, 8).tiles
    assert all(np.array_equal(crops(other, 8, 64, 8).tiles, tiles) for other in (frozen, turned))
    assert not recwarn.list
    assert np.array_equal(image, frozen)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((9, 9, 3), np.float32), r"an image of float32 \[9, 9, 3\]: needed is uint8 \[height, width, 3\]"),
        (np.zeros((9, 9), np.uint8), r"an image of uint8 \[9, 9\]"),
        (np.zeros((3, 9, 9), np.uint8), r"an image of uint8 \[3, 9, 9\]"),
        (np.zeros((0, 9, 3), np.uint8), "an image of 0x9 pixels"),
    ],
)
def test_other_arrays_are_refused(image: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        crops(image, 4)


def test_tiles_that_are_not_of_the_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image_sizes \[\(64, 65\)\] are of 2 crops of 64 pixels, not 3"):
        pixels_of(torch.zeros(3, 64, 64, 3, dtype=torch.uint8), [(64, 65)])


# Logits.


def row_of(counts: Sequence[int]) -> Tensor:
    """Words and, between them, images of so many tokens each."""
    parts = [torch.arange(7)]
    for count in counts:
        parts += [torch.full((count,), hf.IMAGE), torch.arange(10, 15)]
    return torch.cat(parts)[None]


def test_logits_are_the_same_with_both_processors(written_multimodal: Path) -> None:
    images = [picture(*size) for size in ((200, 120), (500, 420), (450, 700))]
    expected = processed(images, 16)
    row = row_of(expected.pop("num_img_tokens"))
    cut = [crops(image, 16) for image in images]
    inputs = image_inputs(
        torch.from_numpy(np.concatenate([each.tiles for each in cut])), [each.image_size for each in cut]
    )
    model, other = load_hf(written_multimodal), hf.tiny_multimodal()
    with torch.no_grad():
        logits = model(row, **inputs, adapter=None).logits
        wanted = other(input_ids=row, **expected).logits
    assert wanted.std() > 0.5
    atol = 1e-4 if NATIVE else 0.1
    torch.testing.assert_close(logits, wanted, atol=atol, rtol=0)
