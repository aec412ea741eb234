"""Tars without some of their records: what a takedown does to shards whose records lie in groups of files.

Which records lie in which group is said by the shard's table of members, not by the tar, so that a tar without any of
them is never opened. A group of one record goes whole; of a window the record's stretches are cut out, which leaves the
window that the others alone would have made: it is not padded, and attention and positions begin anew at each stretch.
All other groups are copied byte by byte. The tar is hashed as it is read, and what the groups themselves say of their
members must agree with the table: a takedown never guesses.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import DamagedObject, ObjectRef, put_file, put_table, read_object, read_table
from gristmill.lake.store.scratch import scratch
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.form import Unit
from gristmill.model.shards.files import ShardWriter
from gristmill.model.shards.index import ShardFile, parse_index
from gristmill.model.shards.sample import Sample, decode
from gristmill.model.windows.stretches import ARRAYS, LISTS, WindowMedia

CUTTABLE = frozenset({"input_ids", "loss_mask", "cu_seqlens", *ARRAYS})
"""Arrays of a window whose stretches can be told apart."""
_BLOCK = 1 << 20


class NotRewritable(ValueError):
    """No clean version can be made of this one; it can still be withdrawn."""


@dataclass(frozen=True)
class GroupShard:
    """A tar, its index, and the table of members (lake/accounts/fan.py) that says which records lie in which group."""

    tar: ObjectRef
    index: ObjectRef
    members: ObjectRef


@dataclass(frozen=True)
class CutShard:
    """A shard without some records. `shard`: None if nothing is left of it. `gone`: the rows of its members that went.
    `groups`: how many groups went whole; `loss_tokens`: tokens that went and that the loss counted; `media`: that went
    with them, counted as in `WindowMedia.counts`."""

    shard: GroupShard | None
    gone: pa.Table
    groups: int = 0
    loss_tokens: int = 0
    media: Mapping[str, int] = field(default_factory=dict)


Cut = Callable[[Sample, pa.Table, np.ndarray], Sample | None]
"""A group, its members in order of position and which of them go, bool [members]: what is left of the group."""


def cut_shard(store: Store, shard: GroupShard, unit: Unit | None, wanted: Suppression) -> CutShard:
    """The shard without the records that `wanted` names by id. `unit`: see `ShardKind`.

    Raises NotRewritable where the records cannot be told apart in it, DamagedObject, NotFound.
    """
    members = read_table(store, shard.members).sort_by([("pack", "ascending"), ("position", "ascending")])
    goes = wanted.match(members["member"])  # bool [members]
    if not goes.any():
        return CutShard(shard, members.slice(0, 0))
    groups = {key: _GroupMembers(rows, hit) for key, rows, hit in _by_group(members, goes)}
    named = frozenset(members["pack"].to_pylist())
    cut = _Cutting(_cut_stretches if unit == "stretch" else _drop_group, groups)
    with scratch() as folder:
        tar, index = folder / "shard.tar", folder / "index.parquet"
        with ShardWriter(tar, index) as writer:
            for key, data, tokens in _groups(store, shard):
                if key not in named:
                    raise NotRewritable(f"its members do not say whose group {key!r} of a tar is")
                cut.write(writer, key, data, tokens)
        if cut.missing:
            raise NotRewritable(f"its members name {cut.missing[0]!r}, which is in no tar")
        left = None
        if writer.samples:
            left = GroupShard(
                put_file(store, shard.tar.kind, tar, writer.samples),
                put_file(store, shard.index.kind, index, writer.samples),
                put_table(store, shard.members.kind, _renumbered(members.filter(pa.array(~goes)))),
            )
    return CutShard(left, members.filter(pa.array(goes)), cut.dropped, cut.loss_tokens, dict(cut.media))


@dataclass(frozen=True)
class _GroupMembers:
    """The members of one group, and which of them go."""

    rows: pa.Table
    goes: np.ndarray


def _by_group(members: pa.Table, goes: np.ndarray) -> Iterator[tuple[str, pa.Table, np.ndarray]]:
    """(key, members, which of them go) of each group that loses a record; `members` are sorted by group."""
    keys = members["pack"].to_pylist()
    first = 0
    for end in range(1, len(keys) + 1):
        if end == len(keys) or keys[end] != keys[first]:
            if goes[first:end].any():
                yield keys[first], members.slice(first, end - first), goes[first:end]
            first = end


class _Cutting:
    """Writes group after group, without what goes."""

    def __init__(self, cut: Cut, groups: Mapping[str, _GroupMembers]) -> None:
        self.cut, self.groups = cut, groups
        self.seen: set[str] = set()
        self.dropped = 0
        self.loss_tokens = 0
        self.media = Counter[str]()

    @property
    def missing(self) -> list[str]:
        """Groups that members name and the tar has not."""
        return sorted(self.groups.keys() - self.seen)

    def write(self, writer: ShardWriter, key: str, data: bytearray, tokens: int) -> None:
        """A group as it is, or what is left of it."""
        if key not in self.groups:
            writer.copy(key, data, tokens=tokens)
            return
        self.seen.add(key)
        before = decode(key, data)
        left = self.cut(before, self.groups[key].rows, self.groups[key].goes)
        self.media.update(_media(before))
        self.loss_tokens += _loss_tokens(before)
        if left is None:
            self.dropped += 1
        else:
            self.media.subtract(_media(left))
            self.loss_tokens -= _loss_tokens(left)
            writer.write(key, left.meta, left.arrays, left.files, tokens=len(left.arrays["input_ids"]))


def _loss_tokens(sample: Sample) -> int:
    """How many tokens of a group the loss counts; 0 for one that is no window."""
    mask = sample.arrays.get("loss_mask")
    return 0 if mask is None else int(mask.sum())


def _media(sample: Sample) -> dict[str, int]:
    """The media of a window; nothing of another group."""
    if "cu_seqlens" not in sample.arrays:
        return {}
    return WindowMedia({}, {name: sample.meta.get(name, []) for name in LISTS}).counts()


def _drop_group(sample: Sample, members: pa.Table, goes: np.ndarray) -> Sample | None:
    """Nothing: all of the group is the record's. Raises NotRewritable for one that others share."""
    if not goes.all():
        others = int((~goes).sum())
        raise NotRewritable(f"group {sample.key!r} of a tar holds {others} other records, and cannot be parted")
    return None


def _cut_stretches(sample: Sample, members: pa.Table, goes: np.ndarray) -> Sample | None:
    """The window without the stretches that go; None if no stretch is left.

    Raises NotRewritable for a window with arrays that this release cannot cut, or that is not what its members say.
    """
    if unknown := sorted(sample.arrays.keys() - CUTTABLE) + sorted(sample.files):
        raise NotRewritable(f"window {sample.key!r} holds {', '.join(unknown)}, of which it is not said whose it is")
    _check_window(sample, members)
    try:
        media = WindowMedia.of(sample)
    except ValueError as error:
        raise NotRewritable(f"window {sample.key!r}: {error}") from error
    if goes.all():
        return None
    # Attention and positions begin anew at each bound, so that a stretch can go without a trace in the others.
    bounds = sample.arrays["cu_seqlens"].astype(np.int64)
    lengths = np.diff(bounds)
    stays = np.repeat(~goes, lengths)  # bool [tokens]
    kept = [member for member, gone in zip(sample.meta["members"], goes.tolist(), strict=True) if not gone]
    arrays = {
        "input_ids": sample.arrays["input_ids"][stays],
        "loss_mask": sample.arrays["loss_mask"][stays],
        "cu_seqlens": np.concatenate([[0], np.cumsum(lengths[~goes])]).astype(np.int32),
    }
    media = media.only(~goes)
    meta = {name: value for name, value in sample.meta.items() if name not in LISTS} | {"members": kept}
    return Sample(sample.key, {**meta, **media.lists}, {**arrays, **media.arrays}, {})


_MEMBER = ("source", "member", "epoch", "start", "length")


def _check_window(sample: Sample, members: pa.Table) -> None:
    """Raises NotRewritable unless the window's own list, its boundaries and the table of members agree."""
    expected: list[dict[str, Any]] = members.select(_MEMBER).to_pylist()
    if expected != sample.meta.get("members"):
        raise NotRewritable(f"window {sample.key!r} names other members than the table of members")
    bounds = sample.arrays["cu_seqlens"]
    lengths = np.diff(bounds).tolist()
    if lengths != [row["length"] for row in expected] or bounds[-1] != len(sample.arrays["input_ids"]):
        raise NotRewritable(f"window {sample.key!r} has stretches of other lengths than the table of members says")


def _renumbered(members: pa.Table) -> pa.Table:
    """Sorted members with their positions within each group anew: 0, 1, 2, ..."""
    positions: list[int] = []
    last = ""
    for key in members["pack"].to_pylist():
        positions.append(positions[-1] + 1 if key == last else 0)
        last = key
    at = members.schema.get_field_index("position")
    return members.set_column(at, members.schema.field(at), pa.array(positions, pa.int32()))


def _groups(store: Store, shard: GroupShard) -> Iterator[tuple[str, bytearray, int]]:
    """(key, bytes with headers and padding, tokens) of each group in order. Raises DamagedObject once all was read, or
    at a group that is not what the index says."""
    tar = shard.tar
    file = ShardFile(tar=tar.key, index=shard.index.key, samples=tar.records, bytes=tar.bytes, sha256=tar.sha256)
    index = parse_index(file, read_object(store, shard.index))
    digest = hashlib.sha256()
    at = 0
    with store.open(tar.key) as stream:
        for row in index.to_pylist():
            if row["offset"] != at:
                raise DamagedObject(f"{shard.index.key} in {store.uri}: group {row['key']!r} begins at byte {at}")
            data = bytearray(stream.read(row["length"]))
            if zlib.crc32(data) != row["crc32"]:
                raise DamagedObject(f"{tar.key} in {store.uri} is damaged at group {row['key']!r}: its bytes changed")
            digest.update(data)
            at += len(data)
            yield row["key"], data, row["tokens"]
        # To the end, for the digest: behind the last group stand the blocks that close a tar.
        while block := stream.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != tar.sha256:
        raise DamagedObject(f"{tar.key} in {store.uri} is damaged: its sha256 is {digest.hexdigest()[:12]}")
