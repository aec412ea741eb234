"""`checkout`: a version as plain files in a folder, for tools that know nothing of lakes.

Each file is written beside its place, hashed on the way, and renamed only when its sha256 is the one in the
manifest; `manifest.json` comes last and says that all is there. A marker names the version that is on its way,
so a killed checkout goes on where it stopped, and a folder with anything else in it is never touched.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, file_sha256
from gristmill.lake.versions.manifest import Manifest

MARKER = ".grist-checkout.json"
DONE = "manifest.json"
_BLOCK = 1 << 20


class Damaged(Exception):
    """Bytes that are not what the manifest says."""


@dataclass(frozen=True)
class Checkout:
    """`written` and `found` are numbers of files: copied now, and there already and whole."""

    version: str
    directory: str
    files: tuple[str, ...]
    bytes: int
    written: int
    found: int


def checkout(
    store: Store, manifest: Manifest, directory: Path, progress: Callable[[str], None] | None = None
) -> Checkout:
    """Writes NAME-00000.parquet ... (of a mixture .tar and .index.parquet) and manifest.json. `progress` is told each
    file name.

    Raises FileExistsError (a folder with other things in it, or a file there that was changed), Damaged (an object
    of the lake is not whole), NotFound (it is gone).
    """
    _claim(manifest, directory)
    names = _names(manifest)
    written = 0
    for name, ref in zip(names, manifest.shards, strict=True):
        target = directory / name
        if target.exists():
            _check_there(target, ref)
            continue
        _fetch(store, manifest, ref, target)
        written += 1
        if progress is not None:
            progress(name)
    if not (directory / DONE).exists():
        write_whole(directory / DONE, manifest.model_dump_json(indent=1).encode())
    (directory / MARKER).unlink(missing_ok=True)
    size = sum(ref.bytes for ref in manifest.shards)
    return Checkout(str(manifest), str(directory), tuple(names), size, written, len(names) - written)


def _names(manifest: Manifest) -> list[str]:
    """A file for each shard, numbered within its kind: an index has the number of its tar."""
    numbers: Counter[str] = Counter()
    names = []
    for ref in manifest.shards:
        kind = manifest.layout.kind(ref.kind)
        suffix = ref.kind if kind is None else kind.suffix
        names.append(f"{manifest.dataset}-{numbers[ref.kind]:05d}.{suffix}")
        numbers[ref.kind] += 1
    return names


def _claim(manifest: Manifest, directory: Path) -> None:
    """Marks the folder as that of this version. Raises FileExistsError if it holds anything else."""
    directory.mkdir(parents=True, exist_ok=True)
    present = sorted(path.name for path in directory.iterdir() if path != half_of(directory / MARKER))
    about = {"format": 1, "dataset": manifest.dataset, "version": manifest.version, "digest": manifest.digest}
    owner = _owner(directory)
    if owner == (manifest.dataset, manifest.version, manifest.digest):
        return
    if owner is not None:
        raise FileExistsError(f"{directory} holds {owner[0]}@v{owner[1]}, not {manifest}: give another folder")
    if present:
        raise FileExistsError(f"{directory} is not empty ({', '.join(present[:3])}): give a new or an empty folder")
    write_whole(directory / MARKER, json.dumps(about).encode())


def _owner(directory: Path) -> tuple[str, int, str] | None:
    """(dataset, version, digest) of the checkout that the folder holds, finished or not."""
    for name in (MARKER, DONE):
        try:
            fields = json.loads((directory / name).read_bytes())
        except (FileNotFoundError, ValueError):  # ValueError: the manifest.json of another program
            continue
        if isinstance(fields, dict) and {"dataset", "version", "digest"} <= fields.keys():
            return fields["dataset"], fields["version"], fields["digest"]
    return None


def half_of(path: Path) -> Path:
    """Where a file is written until it is whole."""
    return path.with_name(f".{path.name.lstrip('.')}.part")


def _check_there(target: Path, ref: ObjectRef) -> None:
    """Raises FileExistsError unless the file is the object."""
    present = file_sha256(target)
    if present != ref.sha256:
        raise FileExistsError(
            f"{target} is not as it was checked out (sha256 {present[:12]}, expected {ref.sha256[:12]}):"
            " move it away, and run the same command again"
        )


def _fetch(store: Store, manifest: Manifest, ref: ObjectRef, target: Path) -> None:
    """Writes the object to a file that has its name only when all of it was seen to be right. Raises Damaged."""
    half = half_of(target)
    digest = hashlib.sha256()
    with store.open(ref.key) as source, half.open("wb") as sink:
        while block := source.read(_BLOCK):
            digest.update(block)
            sink.write(block)
        sink.flush()
        os.fsync(sink.fileno())
    if digest.hexdigest() != ref.sha256:
        half.unlink()
        raise Damaged(
            f"{manifest}: object {ref.sha256} in {store.uri} is damaged (its bytes have sha256"
            f" {digest.hexdigest()[:12]}); {target.name} was not written."
            " `grist verify --deep` names every version that it harms"
        )
    os.replace(half, target)


def write_whole(path: Path, data: bytes) -> None:
    """A small file, whole or not at all."""
    half = half_of(path)
    with half.open("wb") as sink:
        sink.write(data)
        sink.flush()
        os.fsync(sink.fileno())
    os.replace(half, path)
