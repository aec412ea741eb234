"""Images to embeddings: a SigLIP encoder sees one crop at a time, a projector makes one sequence of an image's crops.

Letters of shapes: B images, n crops of each (the first the global view), N crops, G patches a side, S = G/2 after
pooling, L = G*G and P = S*S, D channels. Names of the encoder's parameters are the reference's, the unused ones too.
Source: arXiv 2503.01743, section 2.2; transformers 5.23, `models/phi4_multimodal`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gristmill.model.phi4.blocks import Stack
from gristmill.model.phi4.config import ModelConfig, VisionConfig

INPUTS = ("image_pixel_values", "image_sizes", "image_attention_mask")


class Embeddings(nn.Module):
    """Patches plus learned positions. A crop that is padded in part spreads its real patches over the whole table."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, config.hidden_size, config.patch_size, stride=config.patch_size)
        self.position_embedding = nn.Embedding(config.grid**2, config.hidden_size)

    def forward(self, pixels_NCHW: Tensor, real_NGG: Tensor) -> Tensor:
        """[N, L, D], row-major."""
        x_NLD = self.patch_embedding(pixels_NCHW).flatten(2).transpose(1, 2)
        return x_NLD + self.position_embedding(position_ids(real_NGG))


def position_ids(real_NGG: Tensor) -> Tensor:
    """Rows of the position table, int64 [N, L], of bool `real_NGG`; padded patches have row 0."""
    side = real_NGG.shape[-1]
    rows_NG = _buckets(real_NGG[:, :, 0].sum(1), side)
    columns_NG = _buckets(real_NGG[:, 0, :].sum(1), side)
    ids_NGG = rows_NG[:, :, None] * side + columns_NG[:, None, :]
    return ids_NGG.masked_fill(~real_NGG, 0).flatten(1)


def _buckets(count_N: Tensor, side: int) -> Tensor:
    """Where each of `side` places falls on an axis that `count` real ones fill: [N, side].

    Float32 in the reference's order of operations: a place on a boundary falls to the side that rounding sends it.
    """
    device = count_N.device
    boundaries = torch.arange(1 / side, 1.0, 1 / side, dtype=torch.float32, device=device)
    # n real places take n rows spread over the whole table: positions are those of a picture that fills its crop.
    step_N = 1.0 / count_N.clamp(min=1)  # no real patch in a crop's first row or column: any place, but no infinity
    places_NG = torch.arange(side, dtype=torch.float32, device=device) * step_N[:, None]
    return torch.bucketize(places_NG.clamp(max=1.0 - 1e-6), boundaries, right=True)


class Attention(nn.Module):
    """Every patch of a crop sees the real ones of that crop."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x_NLD: Tensor, seen_N11L: Tensor | None) -> Tensor:
        """[N, L, D] -> [N, L, D]. `seen_N11L`: the keys that a crop's queries see, bool; None: all."""
        q, k, v = (
            project(x_NLD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        y_NHLK = F.scaled_dot_product_attention(q, k, v, attn_mask=seen_N11L)
        return self.out_proj(y_NHLK.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linears with GELU (tanh) between."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x_NLD: Tensor) -> Tensor:
        """[N, L, D] -> [N, L, D]."""
        return self.fc2(F.gelu(self.fc1(x_NLD), approximate="tanh"))


class Layer(nn.Module):
    """Attention and MLP, each on the normed input and added to it (pre-norm)."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = Attention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x_NLD: Tensor, seen_N11L: Tensor | None) -> Tensor:
        """[N, L, D] -> [N, L, D]; arguments as those of `Attention`."""
        x_NLD = x_NLD + self.self_attn(self.layer_norm1(x_NLD), seen_N11L)
        return x_NLD + self.mlp(self.layer_norm2(x_NLD))


class Layers(nn.Module):
    """Computes the first `config.used_layers` of them."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.used = config.used_layers
        self.layers = Stack(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x_NLD: Tensor, seen_N11L: Tensor | None) -> Tensor:
        """[N, L, D] -> [N, L, D], of the last layer that is used; arguments as those of `Attention`."""
        for number in range(self.used):
            x_NLD = self.layers.call(number, x_NLD, seen_N11L)
        return x_NLD


class PoolingHead(nn.Module):
    """Weights of SigLIP's attention pooling, for the round trip of a checkpoint: never computed here."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.randn(1, 1, config.hidden_size))
        self.attention = nn.MultiheadAttention(config.hidden_size, config.num_attention_heads, batch_first=True)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)


class VisionEncoder(nn.Module):
    """SigLIP up to `config.feature_layer`, then 2x2 pooling. What lies beyond is kept, frozen and never computed.

    Initial weights of linears and the convolution are normal with variance 1/inputs, biases 0: the reference has a
    standard deviation of 1 in attention and MLP, which saturates the softmax of a model trained from scratch.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Layers(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = PoolingHead(config)
        self.apply(_init)
        nn.ModuleList(self.unused).requires_grad_(False)

    @property
    def unused(self) -> tuple[nn.Module, ...]:
        """What lies beyond `config.feature_layer`."""
        return (*self.encoder.layers[self.config.used_layers :], self.post_layernorm, self.head)

    def forward(self, pixels_NCHW: Tensor, mask_NGG: Tensor) -> Tensor:
        """Features [N, P, D], row-major. `pixels_NCHW`: [N, 3, crop, crop], about -1 to 1; `mask_NGG`, bool or 0 and 1:
        a real patch, those of a crop being its first rows and columns. Crops do not see each other."""
        real_NGG = mask_NGG.bool()
        x_NLD = self.encoder(self.embeddings(pixels_NCHW, real_NGG), _seen(real_NGG.flatten(1)))
        side = self.config.grid // 2
        return x_NLD.unflatten(1, (side, 2, side, 2)).mean((2, 4)).flatten(1, 2)  # padding too, as in transformers


def _seen(real_NL: Tensor) -> Tensor | None:
    """The keys that a crop's queries see, bool [N, 1, 1, L]; None: all."""
    # Waits for the device once a call; attention without a mask is worth it in each of the layers.
    if real_NL.all():
        return None
    # A softmax over nothing is NaN: a crop without a real patch sees all of its padding.
    return (real_NL | ~real_NL.any(1, keepdim=True))[:, None, None]


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)


class VisionProjector(nn.Module):
    """Features of an image's crops in the order of reading, with learned separators, into the decoder's `out` channels.

    Initial weights are normal with the decoder's standard deviation, 0.02; separators and biases 0.
    """

    def __init__(self, config: VisionConfig, out: int) -> None:
        super().__init__()
        self.config = config
        self.global_separator = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.sub_separator = nn.Parameter(torch.zeros(1, 1, 1, config.hidden_size))
        self.up = nn.Linear(config.hidden_size, out)
        self.down = nn.Linear(out, out)
        for linear in (self.up, self.down):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(
        self, features_BnPD: Tensor | Sequence[Tensor], sizes_B2: Tensor, mask_BnGG: Tensor | Sequence[Tensor]
    ) -> list[Tensor]:
        """For each image its tokens, [tokens, out]: see `arrange`.

        `features_BnPD` of the encoder and its `mask_BnGG`: of all images, or one [crops, ...] an image; `sizes_B2`:
        height and width of the padded image in pixels. Crops beyond those of an image's size are padding.
        Raises ValueError for sizes that are no multiples of the crop or need more crops than given.
        """
        grids = _grids(self.config, sizes_B2, mask_BnGG.shape[1] if isinstance(mask_BnGG, Tensor) else None)
        if isinstance(mask_BnGG, Tensor):
            mask_BnGG = list(mask_BnGG.cpu())  # shapes depend on it: wait for the device once, not by image
        images = zip(features_BnPD, grids, mask_BnGG, strict=True)
        # A pooled place is real if its first patch is, which the reference decides by the same stride.
        rows = [self.arrange(features, grid, mask_nGG[:, ::2, ::2].bool()) for features, grid, mask_nGG in images]
        tokens_TO = self.down(F.gelu(self.up(torch.cat(rows))))
        return list(tokens_TO.split([len(image) for image in rows]))

    def arrange(self, features_nPD: Tensor, grid: tuple[int, int], mask_nSS: Tensor) -> Tensor:
        """One image before the projection, [tokens, D]: its crops as one picture of `grid` rows and columns, cut to
        what is real; the global separator; the global view. In both pictures the sub separator ends each row."""
        side = mask_nSS.shape[-1]
        crops = slice(1, 1 + grid[0] * grid[1])
        real_HW = _stitch(mask_nSS[crops, ..., None], grid)[..., 0]
        height, width = int(real_HW[:, 0].sum()), int(real_HW[0].sum())
        pictures = features_nPD.unflatten(1, (side, side))
        local_HWD = _stitch(pictures[crops], grid)[:height, :width]
        return torch.cat([self._rows(local_HWD), self.global_separator[0], self._rows(pictures[0])])

    def _rows(self, picture_HWD: Tensor) -> Tensor:
        ends_H1D = self.sub_separator[0].expand(len(picture_HWD), -1, -1)
        return torch.cat([picture_HWD, ends_H1D], 1).flatten(0, 1)


def _stitch(crops_nSSD: Tensor, grid: tuple[int, int]) -> Tensor:
    """Crops in row-major order side by side: [rows * S, columns * S, D]."""
    return crops_nSSD.unflatten(0, grid).transpose(1, 2).flatten(2, 3).flatten(0, 1)


def _grids(config: VisionConfig, sizes_B2: Tensor, crops: int | None) -> list[tuple[int, int]]:
    """Rows and columns of crops of each image, of at most `crops` in all. Raises as `VisionProjector.forward`."""
    grids = []
    for image, (height, width) in enumerate(sizes_B2.tolist()):
        if min(height, width) < 1 or height % config.crop_size or width % config.crop_size:
            raise ValueError(
                f"image_sizes[{image}] is {height}x{width}: padded sizes are positive multiples of "
                f"crop_size={config.crop_size}"
            )
        rows, columns = height // config.crop_size, width // config.crop_size
        if crops is not None and 1 + rows * columns > crops:
            raise ValueError(
                f"image_sizes[{image}] is {height}x{width}: {rows}x{columns} crops of {config.crop_size} pixels and "
                f"the global view make {1 + rows * columns}, and {crops} are given"
            )
        grids.append((rows, columns))
    return grids


def embed_images(
    encoder: VisionEncoder, projector: VisionProjector, pixels: Tensor, sizes_B2: Tensor, mask: Tensor
) -> list[Tensor]:
    """For each image its tokens, [tokens, out].

    `pixels` [N, 3, crop, crop], `mask` [N, G, G]: crops of all images end to end, or [B, n, ...], padded to the most:
    those that only pad are not computed. Raises ValueError as `VisionProjector.forward`, and for sizes not of N crops.
    """
    sizes_B2, crops = sizes_B2.cpu(), pixels.shape[1] if pixels.ndim == 5 else None
    counts = [1 + rows * columns for rows, columns in _grids(encoder.config, sizes_B2, crops)]
    if crops is not None:
        pixels, mask = (torch.cat([image[:n] for image, n in zip(x, counts, strict=True)]) for x in (pixels, mask))
    if sum(counts) != len(pixels):
        raise ValueError(f"image_sizes are of {sum(counts)} crops, global views included; {len(pixels)} are given")
    features_NPD = encoder(pixels, mask).to(projector.up.weight.dtype)  # they may be of two types
    return projector(features_NPD.split(counts), sizes_B2, mask.cpu().split(counts))


def parts(config: ModelConfig) -> dict[str, nn.Module]:
    """The modules of `model.phi4.modalities`."""
    assert config.vision is not None
    projector = VisionProjector(config.vision, config.text.hidden_size)
    return {"vision_encoder": VisionEncoder(config.vision), "vision_projector": projector}


def encode(model: Any, inputs: Mapping[str, Tensor | None]) -> Tensor:
    """Tokens of all images, end to end: [tokens, hidden]. Without a mask all patches are real."""
    pixels, sizes_B2, mask = (inputs.get(name) for name in INPUTS)
    assert pixels is not None
    if sizes_B2 is None:
        raise ValueError("image_pixel_values without image_sizes")
    if mask is None:
        mask = pixels.new_ones(*pixels.shape[:-3], *[model.config.vision.grid] * 2)
    pixels = pixels.to(model.vision_encoder.embeddings.patch_embedding.weight)
    images = embed_images(model.vision_encoder, model.vision_projector, pixels, sizes_B2, mask.to(pixels.device))
    return torch.cat(images)


def project(model: Any, encoded_ND: Tensor, beside: Callable[[str], Tensor]) -> Tensor:
    """As it is: separators had to go through the projector with their image."""
    return encoded_ND
