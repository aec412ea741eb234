"""Packs: the windows of a mixture, read in the order of training, from wherever the lake is.

`model.shards.files` knows of no lake; this hands it a version's shards by their digests.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow.compute as pc

from gristmill.lake.query.packs import opened_by_key
from gristmill.lake.query.packs import read_windows as read_windows
from gristmill.lake.query.packs import shard_files as shard_files
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, read_table
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import NoSuchVersion
from gristmill.model.processing.text import Tokenizer
from gristmill.model.shards.files import ShardReader
from gristmill.model.shards.sample import Sample
from gristmill.model.train.settings import Source


def source_of(store: Store, shards: Sequence[tuple[ObjectRef, ObjectRef]]) -> Source:
    """Windows as a trainer takes them. `shards`: (tar, index) of each, in order."""
    return Source(*opened_by_key(store, shards))


@dataclass(frozen=True)
class ShownImage:
    """An image of a stretch: its size in pixels, crops that the encoder sees with the global view, and its tokens."""

    sha256: str
    height: int
    width: int
    crops: int
    tokens: int


@dataclass(frozen=True)
class ShownClip:
    """A clip of a stretch: samples of a channel and their rate in Hz, frames of log-Mel, and its tokens."""

    sha256: str
    samples: int
    rate: int
    frames: int
    tokens: int


Shown = TypeVar("Shown", ShownImage, ShownClip)


@dataclass(frozen=True)
class Stretch:
    """A record as it stands in a window, at `position` among others: its tokens from `start` on, as text, each piece
    with whether it counts for the loss. All tokens of an image, or of a clip, are shown as one."""

    window: str
    position: int
    source: str
    id: str
    epoch: int
    start: int
    tokens: int
    pieces: tuple[tuple[str, bool], ...]
    images: tuple[ShownImage, ...] = ()
    clips: tuple[ShownClip, ...] = ()


@dataclass(frozen=True)
class DrawnStretches:
    """`stretches` of the `population` that the sources asked for have in this version."""

    version: str
    population: dict[str, int]
    stretches: tuple[Stretch, ...]


def sample_stretches(
    store: Store, manifest: Manifest, tokenizer: Tokenizer, n: int, *, seed: int = 0, source: str | None = None
) -> DrawnStretches:
    """At most `n` records of each source, or of `source`, as windows hold them; the same ones for the same seed.

    Raises ValueError for a version without windows, LookupError for a source that its mixture does not have.
    """
    reader = read_windows(store, manifest)
    names = sorted(row["source"] for row in manifest.statistics["mixture"])
    if source is not None and source not in names:
        raise NoSuchVersion(f"{manifest} has no source {source!r}; it has {', '.join(names)}")
    rng = random.Random(f"{seed}:{manifest.digest}")
    tables = manifest.members
    population, stretches = {}, list[Stretch]()
    files = shard_files(manifest)
    ends = list(accumulate(tar.records for tar, _ in files))
    for name in names if source is None else [source]:
        sizes = [read_table(store, ref, ["source"], pc.field("source") == name).num_rows for ref in tables]
        population[name] = sum(sizes)
        for position in sorted(rng.sample(range(sum(sizes)), min(n, sum(sizes)))):
            # `position` counts over all tables; windows are numbered over all tars, of which each table has one
            at = bisect_right(list(accumulate(sizes)), position)
            within = position - sum(sizes[:at])
            row = read_table(store, tables[at], filters=pc.field("source") == name).slice(within, 1).to_pylist()[0]
            number = (ends[at - 1] if at else 0) + _place(store, files[at][1], row["pack"])
            stretches.append(_stretch(reader, number, row, tokenizer, manifest.recipe))
    return DrawnStretches(str(manifest), population, tuple(stretches))


class ImageCrops(NamedTuple):
    """An image as a window holds it: `tiles` uint8 [n, S, S, 3], and height and width of what they were cut from."""

    tiles: np.ndarray
    size: tuple[int, int]


class StretchMedia(NamedTuple):
    """Of a stretch, in order: `images`, and of clips `mels`, float32 [frames, 80] each."""

    images: list[ImageCrops]
    mels: list[np.ndarray]


def media_of(store: Store, manifest: Manifest, stretches: Sequence[Stretch]) -> list[StretchMedia]:
    """Of each stretch its media as its window holds them. Raises LookupError for a window that is not there."""
    reader = read_windows(store, manifest)
    keys = [key for _, index in shard_files(manifest) for key in read_table(store, index, ["key"])["key"].to_pylist()]
    numbers = {key: number for number, key in enumerate(keys)}
    windows = (reader.sample(numbers[stretch.window]) for stretch in stretches)
    return [
        StretchMedia(_crops(window, stretch.position), _mels(window, stretch.position))
        for window, stretch in zip(windows, stretches, strict=True)
    ]


def _crops(window: Sample, position: int) -> list[ImageCrops]:
    """Of the images of the stretch at `position`."""
    crops, at = list[ImageCrops](), 0
    for number, image in enumerate(window.meta.get("images", ())):
        end = at + image["crops"] - 1  # the global view is not kept
        if image["stretch"] == position:
            height, width = window.arrays["image_sizes"][number].tolist()
            crops.append(ImageCrops(window.arrays["tiles"][at:end], (height, width)))
        at = end
    return crops


def _mels(window: Sample, position: int) -> list[np.ndarray]:
    """Of the clips of the stretch at `position`."""
    of_stretch = [number for number, clip in enumerate(window.meta.get("clips", ())) if clip["stretch"] == position]
    ends = window.arrays.get("cu_frames", np.zeros(1, np.int32))
    return [window.arrays["mel"][ends[number] : ends[number + 1]] for number in of_stretch]


def _place(store: Store, index: ObjectRef, key: str) -> int:
    """Which window of its tar a key names: where a takedown took windows, the number in the key is another."""
    return int(pc.index(read_table(store, index, ["key"])["key"], key).as_py())


def _stretch(
    reader: ShardReader, number: int, row: dict[str, Any], tokenizer: Tokenizer, recipe: Mapping[str, Any]
) -> Stretch:
    """`recipe`: of the mixture, which says what stands for media."""
    window = reader.sample(number)
    if window.key != row["pack"]:
        raise ValueError(f"window {number} is {window.key}, the members say {row['pack']}")
    first, end = window.arrays["cu_seqlens"][row["position"] :][:2]
    ids, loss_mask = window.arrays["input_ids"][first:end], window.arrays["loss_mask"][first:end]
    images = _shown(window, row["position"], "images", ShownImage)
    clips = _shown(window, row["position"], "clips", ShownClip)
    for settings, media in (("images", images), ("audio", clips)):
        if media:
            token = tokenizer.special(recipe[settings]["token"])
            shown = _one_each(ids, token, [medium.tokens for medium in media])
            ids, loss_mask = ids[shown], loss_mask[shown]
    return Stretch(
        window=window.key,
        position=row["position"],
        source=row["source"],
        id=row["member"],
        epoch=row["epoch"],
        start=row["start"],
        tokens=row["length"],
        pieces=tuple(tokenizer.show(ids.tolist(), loss_mask.tolist())),
        images=images,
        clips=clips,
    )


def _shown(window: Sample, position: int, listed: str, shown: type[Shown]) -> tuple[Shown, ...]:
    """The media of a stretch that a window's metadata lists."""
    names = [field.name for field in fields(shown)]
    about = [medium for medium in window.meta.get(listed, ()) if medium["stretch"] == position]
    return tuple(shown(**{name: medium[name] for name in names}) for medium in about)


def _one_each(ids: np.ndarray, token: int, counts: Sequence[int]) -> np.ndarray:
    """Which tokens are shown, bool [tokens]: of each image, that is of so many `token` in a row, the first."""
    at = np.flatnonzero(ids == token)
    shown = np.ones(len(ids), bool)
    shown[at] = False
    shown[at[np.cumsum([0, *counts[:-1]])]] = True
    return shown
