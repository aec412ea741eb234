"""Pictures made from numbers, records with them in each container, and runs of the vision pipeline over these."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from gristmill.lake.query.dataset import Dataset
from gristmill.lake.store.base import Store
from gristmill.lake.versions.manifest import Manifest
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.vision import VisionConfig
from gristmill.stages.run.runner import Runner

CAPTION = "A mill by the river, number {}."
IN_PROCESS = {"seconds_per_record": None}


def pixels(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A smooth picture with an edge, uint8 [height, width, 3]: of two numbers two pictures that look unlike."""
    random = np.random.RandomState(seed)
    coarse = Image.fromarray(random.randint(0, 256, (5, 7, 3)).astype(np.uint8))
    picture = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
    top, left = (int(side * random.uniform(0, 0.6)) for side in (height, width))
    picture[top : top + height // 3, left : left + width // 3] = random.randint(0, 256, 3)
    return picture


def encoded(picture: np.ndarray, format: str = "PNG", **options: Any) -> bytes:
    """The bytes of a file of it."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format, **options)
    return stream.getvalue()


def picture(seed: int, format: str = "PNG", height: int = 96, width: int = 128, **options: Any) -> bytes:
    """A file with picture `seed`."""
    return encoded(pixels(seed, height, width), format, **options)


def folder_of(folder: Path, lines: Sequence[Mapping[str, Any] | bytes], files: Mapping[str, bytes]) -> str:
    """The address of the lines of a folder with these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    stored = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    (folder / "lines.jsonl").write_bytes(b"\n".join(stored) + b"\n")
    return f"folder::{folder}/lines.jsonl"


def tar_of(path: Path, members: Mapping[str, bytes]) -> str:
    """The address of a tar with these members."""
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return str(path)


def parquet_of(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """The address of a Parquet file with these rows: bytes in `image` or `images` as Hugging Face's datasets have
    them."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    types = {"image": image, "images": pa.list_(image)}
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: pa.array([row.get(name) for row in rows], types.get(name)) for name in names}
    pq.write_table(pa.table(columns), path)
    return str(path)


def run(store: Store, inputs: Sequence[str], workers: int = 0, **recipe: Any) -> Manifest:
    """The version of these inputs; stages read in this process unless `image` says otherwise."""
    image = {**IN_PROCESS, **recipe.pop("image", {})}
    recipe = {"max_quarantine_rate": 1.0, "inputs": list(inputs), "image": image, **recipe}
    config = VisionConfig.model_validate({"recipe": recipe})
    return run_pipeline(config, store, Runner(store, workers=workers)).manifest


def rows(store: Store, manifest: Manifest) -> list[dict[str, Any]]:
    """What the version keeps, in order of its shards."""
    return Dataset(store, manifest).to_arrow().to_pylist()


def fates(store: Store, manifest: Manifest) -> dict[int, tuple[str, str | None]]:
    """By place in the input: (fate, reason)."""
    return {row["ordinal"]: (row["fate"], row["reason"]) for row in Dataset(store, manifest).ledger().to_pylist()}


def values(store: Store, manifest: Manifest) -> dict[str, str]:
    """Reason -> the offending value of a record that has it."""
    return {row["reason"]: row["value"] for row in Dataset(store, manifest).ledger().to_pylist() if row["reason"]}
