"""A warm-up of the image encoder without a language model's help: images and what is said of them, matched (SigLIP).

Stands in for a pretrained encoder where there is none. A pair is an image of a window and the text to learn of its
segment. The window is the batch of the paper: an image is told apart from the other texts of its window, and from no
others, so that neither passes nor ranks change what is minimised, and no rank waits for another's embeddings. Towers,
temperature and bias are the objective's own: they are in checkpoints of the trainer, and never in its result.
Letters of shapes: I images that have a text, N texts, L tokens of the longest, E and D channels of the language model
and of the encoder, S segments.
Source: Zhai et al. 2023, arXiv 2303.15343; the pooling, transformers 5.23, `models/siglip`.
"""

from __future__ import annotations

from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gristmill.model.phi4.config import VisionConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.vision import Layer, PoolingHead
from gristmill.model.train.losses import SigmoidLoss
from gristmill.model.train.objective import Batch

MOST_TOKENS = 64
"""Of a text: what lies beyond is not read, as in SigLIP."""


class Pooling(PoolingHead):
    """SigLIP's attention pooling, computed: the encoder's own is only kept for the round trip of a checkpoint."""

    def forward(self, x_NPD: Tensor) -> Tensor:
        """[N, D], of a crop's features."""
        probe_N1D = self.probe.expand(len(x_NPD), -1, -1)
        pooled_N1D = self.attention(probe_N1D, x_NPD, x_NPD, need_weights=False)[0]
        pooled_N1D = pooled_N1D + self.mlp(self.layernorm(pooled_N1D))
        return pooled_N1D[:, 0]


class TextTower(nn.Module):
    """One block of the encoder's kind on a language model's embeddings, and the mean over tokens."""

    def __init__(self, config: VisionConfig, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, config.hidden_size)
        self.position = nn.Parameter(torch.randn(MOST_TOKENS, config.hidden_size) * 0.3)
        self.block = Layer(config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, embedded_NLE: Tensor, real_NL: Tensor) -> Tensor:
        """[N, D]. `embedded_NLE`: at most MOST_TOKENS tokens of each text; `real_NL`, bool: one at least of each."""
        # Embeddings of a model that trains are of any size: their direction counts.
        x_NLD = self.up(F.rms_norm(embedded_NLE, embedded_NLE.shape[-1:])) + self.position[: embedded_NLE.shape[1]]
        x_NLD = self.norm(self.block(x_NLD, real_NL[:, None, None]))
        mean_ND = (x_NLD * real_NL[..., None]).sum(1) / real_NL.sum(1, keepdim=True)
        return self.out(mean_ND)


class SiglipObjective(nn.Module):
    """SigLIP's loss of the images of each window and their texts. Equal texts of a window match each other's images.

    An image is seen whole, in its global view. `seed`: of the towers, which are the same on every rank. Raises
    ValueError for a model without vision.
    """

    def __init__(self, model: Multimodal, *, seed: int = 0) -> None:
        super().__init__()
        if (config := model.config.vision) is None:
            raise ValueError("loss=siglip: the model has no vision")
        self.model, self.config = model, config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.pooling = Pooling(config)
            self.text = TextTower(config, model.config.text.hidden_size)
        self.loss = SigmoidLoss()
        if (device := model.language.norm.weight.device).type != "cpu":  # drawn on the CPU: the same on every device
            for module in (self.pooling, self.text, self.loss):
                module.to(device)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The sum over the pairs of each window, float32 [], and how many images they are of, int64 [], which the paper
        divides by. An image whose segment has nothing to learn has no pair."""
        ids_SL, real_SL = texts_of(batch)
        segment_I = self._segments(batch)
        paired_I = real_SL.any(1)[segment_I]
        segment_I = segment_I[paired_I]
        ids_IL, real_IL = ids_SL[segment_I], real_SL[segment_I]
        total = torch.zeros((), device=ids_IL.device)
        if len(segment_I):
            image_ID = self._images(batch)[paired_I]
            text_ID = self.text(self.model.language.embed_tokens(ids_IL).float(), real_IL)
            window_I = segment_I.new_zeros(len(segment_I)) if batch.windows is None else batch.windows[segment_I]
            for window in window_I.unique():
                own = window_I == window
                match_nn = (ids_IL[own][:, None] == ids_IL[own][None]).all(2)
                total = total + self.loss(image_ID[own], text_ID[own], match_nn)[0]
        return total, torch.tensor(len(segment_I), device=total.device)

    def _segments(self, batch: Batch) -> Tensor:
        """The number of the segment that each image stands in, int64 [images]."""
        if "image_pixel_values" not in batch.inputs:
            return batch.cu_seqlens.new_zeros(0)
        counts = image_tokens(self.config, batch.inputs["image_sizes"], batch.inputs["image_attention_mask"])
        places_T = (batch.input_ids == self.config.token_id).nonzero()[:, 0]
        if len(places_T) != sum(counts):
            raise ValueError(f"input_ids have {len(places_T)} tokens of images, the images make {sum(counts)}")
        first_I = torch.tensor([0, *accumulate(counts[:-1])], device=places_T.device)
        return batch.segments[places_T[first_I]]

    def _images(self, batch: Batch) -> Tensor:
        """What the encoder makes of each global view, [images, D]."""
        pixels, mask = batch.inputs["image_pixel_values"], batch.inputs["image_attention_mask"]
        crop = self.config.crop_size
        crops = [1 + (height // crop) * (width // crop) for height, width in batch.inputs["image_sizes"].tolist()]
        first_I = torch.tensor([0, *accumulate(crops[:-1])], device=pixels.device)
        encoder = self.model.get_submodule("vision_encoder")
        features_IPD = encoder(pixels[first_I], mask[first_I.to(mask.device)])
        pooled_ID: Tensor = self.pooling(features_IPD)
        return pooled_ID


def texts_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """Of each segment the tokens to learn, at most MOST_TOKENS: int64 [S, L], 0 behind a text's end, and which of them
    are real, bool [S, L]."""
    targets_N = batch.targets
    segment_N = batch.segments[targets_N]
    count_S = torch.bincount(segment_N, minlength=len(batch.cu_seqlens) - 1)
    place_N = torch.arange(len(targets_N), device=targets_N.device) - (count_S.cumsum(0) - count_S)[segment_N]
    read_N = place_N < MOST_TOKENS
    longest = int(count_S.max()) if len(count_S) else 0
    real_SL = torch.arange(min(MOST_TOKENS, longest), device=count_S.device) < count_S[:, None]
    ids_SL = torch.zeros_like(real_SL, dtype=torch.int64)
    ids_SL[segment_N[read_N], place_N[read_N]] = batch.input_ids[targets_N[read_N]]
    return ids_SL, real_SL


def image_tokens(config: VisionConfig, sizes_B2: Tensor, mask_NGG: Tensor) -> list[int]:
    """How many tokens each image becomes, by its padded size and the real patches of its crops, end to end."""
    grids = [(height // config.crop_size, width // config.crop_size) for height, width in sizes_B2.tolist()]
    side = config.grid // 2
    counts = []
    for (rows, columns), mask_nGG in zip(grids, mask_NGG.cpu().split([1 + r * c for r, c in grids]), strict=True):
        real_rcSS = mask_nGG[1:, ::2, ::2].unflatten(0, (rows, columns))
        height, width = int(real_rcSS[:, 0, :, 0].sum()), int(real_rcSS[0, :, 0].sum())
        counts.append(height * (width + 1) + 1 + side * (side + 1))
    return counts
