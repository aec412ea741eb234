"""Images as shards keep them to what the encoder takes: crops as uint8, and from them float pixels and a global view.

A shard keeps the crops alone, four times smaller than floats, and of each image the height and width that are real:
what lies beyond, up to whole crops, is padding. Everything else follows, on the device where the tensors lie.
Letters of shapes: B images, N crops of all of them, S pixels and G patches a side of a crop.
Source: arXiv 2503.01743, section 2.2; transformers 5.23, the image processor of `phi4_multimodal`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]
"""Height and width, or rows and columns."""


def grid_of(size: Size, crop: int) -> Size:
    """Rows and columns of the crops of an image with so many real pixels. Raises ValueError for one without any."""
    height, width = size
    if min(height, width) < 1:
        raise ValueError(f"an image of {height}x{width} pixels: allowed are 1 and more a side")
    return -(-height // crop), -(-width // crop)


def pixels(tiles_NSSC: Tensor, sizes: Sequence[Size]) -> Tensor:
    """float32 [B + N, 3, S, S], -1 to 1 and in a global view slightly beyond: of each image the global view, then its
    crops, row by row. `tiles_NSSC`: uint8 [N, S, S, 3], crops of all images end to end; `sizes`: real height and width
    of each. Raises ValueError where they are not of so many crops."""
    side = tiles_NSSC.shape[1]
    grids = [grid_of(size, side) for size in sizes]
    counts = [rows * columns for rows, columns in grids]
    if sum(counts) != len(tiles_NSSC):
        raise ValueError(
            f"image_sizes {list(sizes)} are of {sum(counts)} crops of {side} pixels, not {len(tiles_NSSC)}"
        )
    pixels_NCSS = tiles_NSSC.new_empty(len(sizes) + sum(counts), 3, side, side, dtype=torch.float32)
    start = 0
    for grid, crops_nSSC in zip(grids, tiles_NSSC.split(counts), strict=True):
        crops_nCSS = pixels_NCSS[start + 1 : start + 1 + len(crops_nSSC)]
        crops_nCSS.copy_(crops_nSSC.permute(0, 3, 1, 2)).sub_(127.5).div_(127.5)
        pixels_NCSS[start] = _shrunk(crops_nCSS, grid)
        start += 1 + len(crops_nSSC)
    return pixels_NCSS


def _shrunk(crops_nCSS: Tensor, grid: Size) -> Tensor:
    """The whole picture in the size of a crop, [3, S, S]: bicubic on the padded floats, without a filter against
    aliases, as the reference has it."""
    side = crops_nCSS.shape[-1]
    picture_CHW = crops_nCSS.unflatten(0, grid).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    shrunk_1CSS = F.interpolate(picture_CHW[None], size=(side, side), mode="bicubic", align_corners=False)
    return shrunk_1CSS[0]


def patch_masks(sizes: Sequence[Size], crop: int, patch: int) -> Tensor:
    """Which patches of each crop are real, bool [B + N, G, G], in the order of `pixels`; a global view is, whole.

    A patch is padding where all of it lies beyond the image."""
    side, masks = crop // patch, list[Tensor]()
    for height, width in sizes:
        rows, columns = grid_of((height, width), crop)
        real_HW = torch.zeros(rows * side, columns * side, dtype=torch.bool)
        real_HW[: -(-height // patch), : -(-width // patch)] = True
        masks += [torch.ones(1, side, side, dtype=torch.bool)]
        masks += [real_HW.unflatten(0, (rows, side)).unflatten(2, (columns, side)).transpose(1, 2).flatten(0, 1)]
    return torch.cat(masks)
