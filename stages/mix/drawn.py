"""Media of a shard's windows: crops and frames of what was drawn, made from the bytes that records hold.

Windows draw records from everywhere in their sources' shards, which hold media in row groups. So what is drawn is first
copied to local disk in one pass over each shard, one row group in memory at a time; then windows are made one by one,
each medium decoded when its window is written. Disk holds media as they came, memory what one window holds of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, open_parquet
from gristmill.stages.mix.kinds import Encoded, Kind, Planned


class Drawn(NamedTuple):
    """A medium of a window: the shard and row of its record, its place among the media there, and what it was planned
    to cost. `stretch`: the number of its record's stretch in the window."""

    stretch: int
    shard: str
    row: int
    kind: str
    place: int
    tokens: int
    units: int

    @property
    def planned(self) -> Planned:
        """What it costs."""
        return Planned(self.tokens, self.units)


class _Stored(NamedTuple):
    """Where a medium lies in the file, and what its record says of it."""

    start: int
    length: int
    described: Mapping[str, Any]


class DrawnMedia:
    """The media of drawn records, in a file: `with DrawnMedia(path, kinds) as media`."""

    def __init__(self, path: Path, kinds: Mapping[str, Kind]) -> None:
        self.kinds = kinds
        self._file = path.open("w+b")
        self._stored: dict[tuple[str, int, int], _Stored] = {}

    def __enter__(self) -> DrawnMedia:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def copy(self, store: Store, shard: ObjectRef, rows: Collection[int]) -> None:
        """Takes the media of these rows of a shard. Raises DamagedObject."""
        wanted = np.array(sorted(rows), np.int64)
        first = 0
        with open_parquet(store, shard) as file:
            for group in range(file.num_row_groups):
                end = first + file.metadata.row_group(group).num_rows
                here = wanted[(wanted >= first) & (wanted < end)]
                if len(here):
                    media = file.read_row_group(group, columns=["media"])["media"]
                    for row in here.tolist():
                        self._add(shard.sha256, row, media[row - first].as_py())
                first = end

    def _add(self, shard: str, row: int, media: Sequence[Mapping[str, Any]]) -> None:
        for place, medium in enumerate(media):
            described = {name: value for name, value in medium.items() if name != "data"}
            self._stored[shard, row, place] = _Stored(self._file.seek(0, 2), len(medium["data"]), described)
            self._file.write(medium["data"])

    def arrays(self, media: Sequence[Drawn]) -> dict[str, np.ndarray]:
        """What a window holds of these, in their order. Raises ValueError for one that comes out other than it was
        planned."""
        arrays: dict[str, np.ndarray] = {}
        for name, kind in self.kinds.items():
            if own := [medium for medium in media if medium.kind == name]:
                arrays |= self._of_kind(kind, own)
        return arrays

    def _of_kind(self, kind: Kind, media: Sequence[Drawn]) -> dict[str, np.ndarray]:
        rows, entries, at = kind.room([medium.planned for medium in media]), [], 0
        for medium in media:
            encoded = self._encoded(kind, medium)
            rows[at : at + len(encoded.rows)] = encoded.rows
            entries.append(encoded.entry)
            at += len(encoded.rows)
        return kind.arrays(rows, entries)

    def _encoded(self, kind: Kind, medium: Drawn) -> Encoded:
        """Raises ValueError for a file that is not read, or comes out other than its record says."""
        where = f"{medium.kind} {medium.place + 1} of row {medium.row} of shard {medium.shard}"
        try:
            encoded = kind.encoded(self._data(medium))
        except ValueError as error:
            raise ValueError(f"{where}: it was read when it was taken in, and is not now: {error}") from error
        if encoded.cost != medium.planned:
            raise ValueError(
                f"{where}: {encoded.cost.tokens} tokens of {encoded.cost.units} {kind.unit}, planned were"
                f" {medium.tokens} of {medium.units}: its record gives another size than its bytes have"
            )
        return encoded

    def about(self, media: Sequence[Drawn]) -> dict[str, list[dict[str, Any]]]:
        """What a window's metadata says of these, in the order of its arrays."""
        lists: dict[str, list[dict[str, Any]]] = {}
        for medium in media:
            kind, described = self.kinds[medium.kind], self._stored[medium.shard, medium.row, medium.place].described
            measures = {name: described[name] for name in ("sha256", *kind.measures)}
            costs = {kind.unit: medium.units, "tokens": medium.tokens}
            lists.setdefault(kind.listed, []).append({"stretch": medium.stretch, **measures, **costs})
        return lists

    def _data(self, medium: Drawn) -> bytes:
        stored = self._stored[medium.shard, medium.row, medium.place]
        self._file.seek(stored.start)
        return self._file.read(stored.length)
