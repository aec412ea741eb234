"""What the receipt of a shard of windows says of it, and what all of them say of a mixture."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Manifest
from gristmill.stages.mix.kinds import Clips, Images
from gristmill.stages.mix.mix import MediaBudget
from gristmill.stages.mix.pairs import GRADED, PAIRS
from gristmill.stages.mix.plan_rows import SourceFacts

WINDOW_SCHEMA = "input_ids: int32, loss_mask: bool, cu_seqlens: int32"
MEDIA_SCHEMAS = {Images.name: "tiles: uint8, image_sizes: int32", Clips.name: "mel: float32, cu_frames: int32"}
"""What windows with media of a kind hold beside."""
SEGMENTS: Mapping[Form, Mapping[str, str]] = {"preferences": PAIRS, "graded": GRADED}


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
class MediaFacts(PackFacts):
    """Of a mixture with media: how many of each kind, the crops of images as the encoder sees them, and the frames of
    clips."""

    images: int
    crops: int
    clips: int
    frames: int


def statistics_of(
    receipts: Sequence[Receipt],
    sources: Sequence[SourceFacts],
    window: int,
    budgets: Mapping[tuple[str, str], MediaBudget],
) -> dict[str, Any]:
    """Sums over the shards (lake/versions/statistics.py), and per source what was planned and drawn. `budgets`: by what
    media of a kind are called, and their unit, of the kinds that there are."""
    facts = MediaFacts if budgets else PackFacts
    packed: list[PackFacts] = [receipt.facts_as(facts) for receipt in receipts]
    media: dict[str, int | None] = {}
    for (listed, unit), budget in budgets.items():
        media |= {name: sum(getattr(shard, name) for shard in packed) for name in (listed, unit)}
        media[f"window_{unit}"] = budget.window
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
        **media,
        "mixture": [asdict(source) for source in sources],
    }


def schemas_of(kinds: Collection[str], form: Form) -> dict[str, str]:
    """What a window holds, where there are media of these kinds; and, of sources of this form, what its segments are if
    they are no samples to learn as they stand."""
    window = ", ".join([WINDOW_SCHEMA, *(MEDIA_SCHEMAS[kind] for kind in kinds)])
    return {"window": window, **SEGMENTS.get(form, {})}


def arrays_of(mixture: Manifest) -> tuple[str, ...]:
    """The arrays that windows of a mixture hold: what its schema says, but of a kind of media of which it has none."""
    none = {kind.name for kind in (Images, Clips) if mixture.statistics.get(kind.listed) == 0}
    left_out = {name for kind in none for name in _names(MEDIA_SCHEMAS[kind])}
    return tuple(name for name in _names(mixture.schemas["window"]) if name not in left_out)


def _names(schema: str) -> list[str]:
    return [field.partition(":")[0].strip() for field in schema.split(",")]
