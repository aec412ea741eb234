"""A small lake to export from: documents, pictures, clips, windows of texts and pictures; made once a module."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import clip_mixtures
import image_mixtures
import mixtures

from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.stages.exchange.export import Export, export
from gristmill.stages.exchange.files import Target

TEXTS = mixtures.texts(30, longest=20)
SIZES = [((70, 90), (40, 40)), ((64, 64),), ((50, 30), (64, 80), (20, 20)), ((90, 60),)]
"""Of each record, height and width of its pictures."""


def build(folder: Path) -> Path:
    """The lake: `web` in three shards, `pics`, `speech`, `mix` of texts and pictures."""
    store = open_store(str(folder / "lake"))
    mixtures.documents(store, "web", TEXTS, shards=3)
    rows = [(sizes, "A {} thing, number " + str(number)) for number, sizes in enumerate(SIZES)]
    image_mixtures.pictures(store, folder / "pictures", rows)
    clip_mixtures.spoken(store, folder / "clips", [(0.5, 16000), (0.7, 8000)])
    mixtures.tokenizer(store, "web@v1")
    mixtures.mix(store, {"web@v1": 1, "pics@v1": 1}, window=512, images=image_mixtures.CUT, max_waste=0.9)
    return folder / "lake"


def copied(lake: Path, folder: Path) -> Store:
    """A lake of a test's own."""
    shutil.copytree(lake, folder / "lake")
    return open_store(str(folder / "lake"))


def version(store: Store, ref: str) -> Manifest:
    """A manifest by its name."""
    return Versions(store).resolve(ref)


def written(store: Store, manifest: Manifest, folder: Path, target: Target, **more: Any) -> Export:
    """Exports a version to a folder."""
    return export(Versions(store), str(manifest), folder, target, **more)
