"""Records that lie in tars: a group of files each, found by the table of members that goes with its tar.

A group's `json` is what is known of the record; its files are the record's media, of the kind that their names say. A
group that several records share shows all of its files for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

from gristmill.lake.accounts.fan import MEMBER
from gristmill.lake.query.packs import opened_by_key
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, read_table
from gristmill.lake.versions.manifest import Manifest
from gristmill.model.shards.files import Sample, ShardReader

_KINDS = {
    **dict.fromkeys(("bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp"), "image"),
    **dict.fromkeys(("aif", "aiff", "flac", "mp3", "oga", "ogg", "opus", "wav"), "audio"),
    **dict.fromkeys(("avi", "mkv", "mov", "mp4", "webm"), "video"),
}
_BESIDE = frozenset({"format", "ids"})
"""Of a group's `json`: how it is written, and whose it is."""


def tars_of(manifest: Manifest) -> dict[str, tuple[ObjectRef, ObjectRef]]:
    """Digest of each tar -> (its index, the table of its members)."""
    tars = [ref for ref in manifest.shards if manifest.layout.holds(ref.kind) == "groups"]
    indices = [ref for ref in manifest.shards if manifest.layout.holds(ref.kind) == "index"]
    return {tar.sha256: beside for tar, *beside in zip(tars, indices, manifest.members, strict=True)}  # type: ignore[misc]


def rows_in_tar(
    store: Store, tar: ObjectRef, index: ObjectRef, members: ObjectRef, positions: Sequence[int]
) -> list[dict[str, Any]]:
    """The records at these positions of a tar's table of members, as rows of a table have them: `id`, what its group
    says, and `media`. Raises DamagedShard, DamagedObject, NotFound."""
    table = read_table(store, members)
    asked = [(table[MEMBER][at].as_py(), table["pack"][at].as_py()) for at in positions]
    files, opened = opened_by_key(store, [(tar, index)])
    with closing(ShardReader(files, opened)) as reader:
        numbers = {reader.key(number): number for number in range(len(reader))}
        return [_row(record, reader.sample(numbers[key])) for record, key in asked]


def _row(record: str, group: Sample) -> dict[str, Any]:
    media = [
        {"kind": kind, "url": name, "data": bytes(data)}
        for name, data in group.files.items()
        if (kind := _KINDS.get(name.rpartition(".")[2].lower())) is not None
    ]
    about = {name: value for name, value in group.meta.items() if name not in _BESIDE}
    return {**about, "id": record, "media": media}
