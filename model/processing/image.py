"""Images as the encoder takes them: a plan of crops by size, the crops as uint8, and of these float pixels.

An image is enlarged or shrunk to fill a grid of square crops, padded with white below or at the right; beside the crops
the encoder sees the whole in the size of one, the global view. A shard keeps the crops alone, four times smaller than
floats, and the size of each resized image: all else follows, on the device where the tensors lie, bit for bit the same.
Letters of shapes: B images, n crops of one and N of all, S pixels and G patches a side of a crop.
Source: arXiv 2503.01743, section 2.2; transformers 5.23, the image processor of `phi4_multimodal`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gristmill.model.processing.memory import empty_floats

Size = tuple[int, int]
"""Height and width, or rows and columns."""

CROP, PATCH = 448, 14
"""Pixels a side, as released."""
MIN_SIDE = 10
"""Pixels that a resized image has at least a side, in the reference."""
WHITE = 255


class ExtremeRatio(ValueError):
    """An image that would be too thin to see once it is resized."""


@dataclass(frozen=True)
class CropPlan:
    """How an image is cut: the grid of crops, the size it is resized to, in pixels, and the tokens that it becomes."""

    rows: int
    cols: int
    resized_height: int
    resized_width: int
    tokens: int


@dataclass(frozen=True, eq=False)
class Crops:
    """An image cut by its plan. `tiles`: uint8 [n, S, S, 3], row by row, without the global view."""

    plan: CropPlan
    tiles: np.ndarray
    patch: int = PATCH

    @property
    def tokens(self) -> int:
        """How many the image becomes."""
        return self.plan.tokens

    @property
    def image_size(self) -> Size:
        """Height and width of the resized image: with the tiles, all that a shard keeps."""
        return self.plan.resized_height, self.plan.resized_width

    @property
    def mask(self) -> Tensor:
        """Which patches are real, bool [1 + n, G, G]; the global view first."""
        return patch_masks([self.image_size], self.tiles.shape[1], self.patch)

    def pixels(self) -> Tensor:
        """float32 [1 + n, 3, S, S], the global view first: see `pixels_of`."""
        return pixels_of(torch.from_numpy(self.tiles), [self.image_size])


# Plans.


def plan_crops(height: int, width: int, max_crops: int, crop: int = CROP, patch: int = PATCH) -> CropPlan:
    """The plan for an image of so many pixels: of as many crops as cover it, or, beyond `max_crops`, of a grid whose
    ratio is the closest. `crop` and `patch`: pixels a side.

    Raises ExtremeRatio for an image that would be less than 10 pixels high or wide, ValueError for other arguments
    that make no sense.
    """
    if max_crops < 1 or patch < 1 or crop < MIN_SIDE or crop % (2 * patch):
        raise ValueError(
            f"max_crops={max_crops}, crop={crop}, patch={patch}: allowed are 1 and more crops, of a multiple of twice "
            f"the patch, {MIN_SIDE} pixels or more"
        )
    rows, cols = grid_of((height, width), crop)
    if rows * cols > max_crops:
        rows, cols = _closest_grid(height, width, max_crops, crop)
    # Floats and truncation as in the reference: a side that fits exactly may come out a pixel short.
    by_width, by_height = crop * cols / width, crop * rows / height
    fills_width = by_width < by_height
    resized_height = int(height * by_width) if fills_width else crop * rows
    resized_width = crop * cols if fills_width else int(width * by_height)
    if min(resized_height, resized_width) < MIN_SIDE:
        raise ExtremeRatio(
            f"the aspect ratio of {height}x{width} pixels is very extreme: in {rows}x{cols} crops of {crop} it would "
            f"have {resized_height}x{resized_width}, and {MIN_SIDE} a side are needed"
        )
    tokens = _tokens((resized_height, resized_width), crop, patch)
    return CropPlan(rows, cols, resized_height, resized_width, tokens)


def grid_of(size: Size, crop: int) -> Size:
    """Rows and columns of the crops that cover an image of so many pixels. Of a resized one they are those of its plan:
    a grid with a row or column more than the image reaches into has a farther ratio than the one without it.
    Raises ValueError for an image without pixels."""
    height, width = size
    if min(height, width) < 1:
        raise ValueError(f"an image of {height}x{width} pixels: allowed are 1 and more a side")
    return -(-height // crop), -(-width // crop)


def _closest_grid(height: int, width: int, max_crops: int, crop: int) -> Size:
    best, least = (1, 1), float("inf")
    for rows, cols in _grids(max_crops):
        difference = abs(width / height - cols / rows)
        # Of equals the larger, if the image fills half of it: so the reference. Beyond the cap, all images do.
        large = height * width > 0.5 * crop * crop * rows * cols
        if difference < least or (difference == least and large):
            best, least = (rows, cols), difference
    return best


@lru_cache
def _grids(max_crops: int) -> list[Size]:
    """Rows and columns of all grids of so many crops at most, the smaller first."""
    grids = [(rows, cols) for rows in range(1, max_crops + 1) for cols in range(1, max_crops // rows + 1)]
    return sorted(grids, key=lambda grid: grid[0] * grid[1])


def _tokens(resized: Size, crop: int, patch: int) -> int:
    """Of an image: patches pool two by two, and a separator ends each row, those of the global view too; one more
    stands between the views."""
    rows, cols = (-(-side // (2 * patch)) for side in resized)
    side = crop // patch // 2
    return rows * (cols + 1) + 1 + side * (side + 1)


# Crops.


def crops(image_HWC: np.ndarray, max_crops: int, crop: int = CROP, patch: int = PATCH) -> Crops:
    """An image, uint8 [height, width, 3], cut by its plan. Raises as `plan_crops`, and ValueError for another array.

    Bits are those of the reference where its resizing is torch's own of uint8 (on CPUs with AVX2, on ARM); elsewhere it
    resizes floats, and a level of 255 may lie between.
    """
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3:
        raise ValueError(f"an image of {image_HWC.dtype} {list(image_HWC.shape)}: needed is uint8 [height, width, 3]")
    height, width, _ = image_HWC.shape
    plan = plan_crops(height, width, max_crops, crop, patch)
    resized_HWC = _resized(image_HWC, (plan.resized_height, plan.resized_width))
    tiles = np.full((plan.rows, plan.cols, crop, crop, 3), WHITE, np.uint8)
    for row in range(plan.rows):
        for col in range(plan.cols):
            part = resized_HWC[row * crop : (row + 1) * crop, col * crop : (col + 1) * crop]
            tiles[row, col, : part.shape[0], : part.shape[1]] = part
    return Crops(plan, tiles.reshape(-1, crop, crop, 3), patch)


def _resized(image_HWC: np.ndarray, size: Size) -> np.ndarray:
    if image_HWC.shape[:2] == size:
        return image_HWC
    writable = np.require(image_HWC, requirements=["C", "W"])  # torch takes no other array
    pixels_1CHW = torch.from_numpy(writable)[None].permute(0, 3, 1, 2)
    resized_1CHW = F.interpolate(pixels_1CHW, size=size, mode="bilinear", align_corners=False, antialias=True)
    return resized_1CHW[0].permute(1, 2, 0).numpy()


# Pixels.


def pixels_of(tiles_NSSC: Tensor, sizes: Sequence[Size]) -> Tensor:
    """float32 [B + N, 3, S, S], -1 to 1 and in a global view slightly beyond: of each image the global view, then its
    crops, row by row. `tiles_NSSC`: uint8 [N, S, S, 3], crops of all images end to end; `sizes`: height and width of
    each resized image. Raises ValueError where they are not of so many crops."""
    side = tiles_NSSC.shape[1]
    grids = [grid_of(size, side) for size in sizes]
    counts = [rows * cols for rows, cols in grids]
    if sum(counts) != len(tiles_NSSC):
        raise ValueError(
            f"image_sizes {list(sizes)} are of {sum(counts)} crops of {side} pixels, not {len(tiles_NSSC)}"
        )
    pixels_NCSS = empty_floats((len(sizes) + sum(counts), 3, side, side), tiles_NSSC.device)
    start = 0
    for grid, tiles_nSSC in zip(grids, tiles_NSSC.split(counts), strict=True):
        pixels_NCSS[start] = _global_view(tiles_nSSC, grid)
        for number, tile_SSC in enumerate(tiles_nSSC, start + 1):  # one by one: a crop stays in the cache
            _normalise(tile_SSC.permute(2, 0, 1), pixels_NCSS[number])
        start += 1 + len(tiles_nSSC)
    return pixels_NCSS


def _normalise(levels: Tensor, target: Tensor) -> None:
    """Writes 0 to 255 as -1 to 1."""
    # A tensor, not a number, by which CUDA would multiply the inverse: its last bit is another.
    half = torch.full((), 127.5, device=target.device)
    target.copy_(levels).sub_(half).div_(half)


def _global_view(tiles_nSSC: Tensor, grid: Size) -> Tensor:
    """The whole picture in the size of a crop, [3, S, S]: bicubic on the padded floats, without a filter against
    aliases, as the reference has it.

    A picture of `rows` crops shrinks `rows` times. Each pixel then is the middle one of `rows`, if that is odd, or
    comes of the middle four: no other is made a float. Bits are those of the whole picture's interpolation.
    """
    side, (rows, cols) = tiles_nSSC.shape[1], grid
    picture = tiles_nSSC.unflatten(0, grid).transpose(1, 2).reshape(side, rows, side, cols, 3)
    seen = picture[:, _middle(rows), :, _middle(cols)].permute(4, 0, 1, 2, 3)
    floats = empty_floats(seen.shape, seen.device)
    _normalise(seen, floats)
    floats_CHW = floats.flatten(3, 4).flatten(1, 2)
    if floats_CHW.shape[1:] == (side, side):
        return floats_CHW
    return F.interpolate(floats_CHW[None], size=(side, side), mode="bicubic", align_corners=False)[0]


def _middle(count: int) -> slice:
    """Of `count` pixels that become one, those that it comes of; of two, both, and their neighbours."""
    return slice(count // 2, count // 2 + 1) if count % 2 else slice(max(0, count // 2 - 2), count // 2 + 2)


def patch_masks(sizes: Sequence[Size], crop: int, patch: int) -> Tensor:
    """Which patches of each crop are real, bool [B + N, G, G], in the order of `pixels_of`; a global view is, whole.

    A patch is padding where all of it lies beyond the image."""
    side, masks = crop // patch, list[Tensor]()
    for height, width in sizes:
        rows, cols = grid_of((height, width), crop)
        real_HW = torch.zeros(rows * side, cols * side, dtype=torch.bool)
        real_HW[: -(-height // patch), : -(-width // patch)] = True
        masks += [torch.ones(1, side, side, dtype=torch.bool)]
        masks += [real_HW.unflatten(0, (rows, side)).unflatten(2, (cols, side)).transpose(1, 2).flatten(0, 1)]
    return torch.cat(masks)


def image_inputs(tiles_NSSC: Tensor, sizes: Sequence[Size], patch: int = PATCH) -> dict[str, Tensor]:
    """What `Multimodal.embed` takes of images: `image_pixel_values` and `image_attention_mask` of all crops end to end,
    on the device of the tiles; `image_sizes` int64 [B, 2] with padding, on the CPU, since shapes follow from it.
    Arguments and errors as those of `pixels_of`."""
    crop, device = tiles_NSSC.shape[1], tiles_NSSC.device
    padded = [[crop * side for side in grid_of(size, crop)] for size in sizes]
    return {
        "image_pixel_values": pixels_of(tiles_NSSC, sizes),
        "image_sizes": torch.tensor(padded),
        "image_attention_mask": patch_masks(sizes, crop, patch).to(device, non_blocking=True),
    }
