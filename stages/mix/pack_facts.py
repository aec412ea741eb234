"""What the receipt of a shard of windows says of it, and what all of them say of a mixture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gristmill.lake.accounts.receipt import Receipt
from gristmill.stages.mix.mix import CropBudget
from gristmill.stages.mix.pairs import PAIRS
from gristmill.stages.mix.plan_rows import SourceFacts

WINDOW_SCHEMA = "input_ids: int32, loss_mask: bool, cu_seqlens: int32"
IMAGE_SCHEMA = "tiles: uint8, image_sizes: int32"
"""What windows with images hold beside."""


@dataclass(frozen=True)
class PackFacts:
    """`tokens` in `windows`, `loss_tokens` of them in the loss; `documents` and `samples` drawn; documents that were
    cut: `split` to fill windows, `forced` because they are longer than one."""

    windows: int
    tokens: int
    loss_tokens: int
    documents: int
    samples: int
    split: int
    forced: int


@dataclass(frozen=True)
class ImageFacts(PackFacts):
    """Of a mixture with images: how many, and their crops as the encoder sees them."""

    images: int
    crops: int


def statistics_of(
    receipts: Sequence[Receipt], sources: Sequence[SourceFacts], window: int, budget: CropBudget | None
) -> dict[str, Any]:
    """Sums over the shards (lake/versions/statistics.py), and per source what was planned and drawn. `budget`: of
    crops, where there are images."""
    images: dict[str, int | None] = {}
    if budget is None:
        packed = [receipt.facts_as(PackFacts) for receipt in receipts]
    else:
        with_images = [receipt.facts_as(ImageFacts) for receipt in receipts]
        images = {
            "images": sum(shard.images for shard in with_images),
            "crops": sum(shard.crops for shard in with_images),
            "window_crops": budget.window,
        }
        packed = list[PackFacts](with_images)
    windows, tokens = sum(shard.windows for shard in packed), sum(shard.tokens for shard in packed)
    places = windows * window
    return {
        "windows": windows,
        "tokens": tokens,
        "loss_tokens": sum(shard.loss_tokens for shard in packed),
        "waste": round(1 - tokens / places, 6) if places else 0.0,
        "documents": sum(shard.documents for shard in packed),
        "documents_cut": sum(shard.split for shard in packed),
        "documents_too_long": sum(shard.forced for shard in packed),
        "samples": sum(shard.samples for shard in packed),
        **images,
        "mixture": [asdict(source) for source in sources],
    }


def schemas_of(images: bool, pairs: bool) -> dict[str, str]:
    """What a window holds; and, where each two of its segments are a pair, that."""
    window = f"{WINDOW_SCHEMA}, {IMAGE_SCHEMA}" if images else WINDOW_SCHEMA
    return {"window": window, **(PAIRS if pairs else {})}
