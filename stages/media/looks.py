"""Near duplicates of records with media: how pictures look and clips sound, in the form that the linker of texts takes.

The n-th of 64 values of a signature says what the n-th bit of every medium of the record is, so that two records agree
in a value where all their media do, and in none where they have other texts (where these count) or another number of
media: one measure for one picture and for the frames of a video. A band is a hash of some of the values, drawn once
for all: copies differ in few bits, and so agree in one of the bands nearly always, strangers in few. How many bits, and
what is found with them: docs/decisions/17.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple, Self

import numpy as np
import pyarrow as pa

from gristmill.lake.accounts import ledger
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ROW_GROUP_ROWS, put_table
from gristmill.stages.clusters.select_survivors import SelectSurvivors
from gristmill.stages.core.fates import KEYS
from gristmill.stages.core.records import Chunk, alive
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.near.minhash import GatherSignatures
from gristmill.stages.read.reading import content_hash

BITS = 64
"""Of a look: filters/image/look.py, filters/audio/sound.py."""
SEED = 19
_MIX = np.uint64(0x9E3779B97F4A7C15)


class Bands(NamedTuple):
    """So many bands, each of `bits` values."""

    bands: int
    bits: int


class SignLooks(Stage[Chunk]):
    """Signs what passed the filters. `counted`: what the number of media is called, a measure; `allowed`: what `same`
    may be."""

    counted: ClassVar[str]
    allowed: ClassVar[tuple[str, ...]]

    same: str  # a field of every such stage

    def __post_init__(self) -> None:
        if self.same not in self.allowed:
            raise ValueError(f"same={self.same!r}: one of {', '.join(self.allowed)}")

    @property
    def with_text(self) -> bool:
        """Whether records with other texts are never alike."""
        return True

    def run(self, store: Store, work: Work[Chunk]) -> Outcome:
        """payload: Chunk. Output `signed`: keys, media, signature (null where a record has none)."""
        rows = alive(store, work.payload, [*KEYS, "text", "looks"])
        parts = [self._signed(pa.Table.from_batches([batch])) for batch in rows.to_batches(ROW_GROUP_ROWS)]
        signed = pa.concat_tables(parts) if parts else self._signed(rows)
        tally = ledger.tally(signed)
        return Outcome(outputs=(put_table(store, "signed", signed),), passed=tally, received=tally)

    def _signed(self, rows: pa.Table) -> pa.Table:
        looks = rows["looks"].to_pylist()
        texts = rows["text"].to_pylist() if self.with_text else [""] * len(looks)
        signatures = [
            signature(of_record, content_hash(text)).tobytes() if of_record else None
            for of_record, text in zip(looks, texts, strict=True)
        ]
        table = rows.select(KEYS).append_column(self.counted, pa.array(map(len, looks), pa.int64()))
        return table.append_column("signature", pa.array(signatures, pa.binary(4 * BITS)))


def signature(looks: list[int], text: str) -> np.ndarray:
    """uint32 [64], little-endian, of a record's media, at least one; `text`: what it says."""
    shifts = np.arange(BITS, dtype=np.uint64)
    values = np.full(BITS, int(content_hash(f"{len(looks)}\0{text}")[:16], 16), np.uint64)
    for look in looks:
        bits = np.uint64(look) >> shifts & np.uint64(1)
        values = (values ^ bits + np.uint64(1)) * _MIX
        values ^= values >> np.uint64(29)
    return (values >> np.uint64(32)).astype("<u4")


@dataclass(frozen=True)
class GatherAlike(GatherSignatures):
    """Brings signatures of media together, and hashes their bands. `rows`: how many values a band hashes."""

    @classmethod
    def of(cls, bands: Bands, survivor: tuple[str, ...]) -> Self:
        """As records are signed."""
        return cls(*bands, survivor)

    @property
    def width(self) -> int:
        """One value a bit: bands overlap."""
        return BITS

    def hashes(self, values: np.ndarray) -> np.ndarray:
        """uint64 [rows, bands]."""
        hashes = np.empty((len(values), self.bands), np.uint64)
        for band, places in enumerate(band_places(self.bands, self.rows)):
            total = np.zeros(len(values), np.uint64)
            for place in places:
                total = (total ^ values[:, place]) * _MIX
                total ^= total >> np.uint64(31)
            hashes[:, band] = total
        return hashes


@dataclass(frozen=True)
class SelectAlike(SelectSurvivors):
    """Selects survivors among records whose media are alike, by all 64 values. `index_bands`: by which a record of a
    large component finds survivors to be compared with; four values in a row, which are one of 16 things each, would be
    rare in none."""

    estimated: ClassVar[bool] = False
    index_bands: ClassVar[Bands]

    @property
    def places(self) -> np.ndarray:
        """int64 [bands, bits]."""
        return np.array(band_places(*self.index_bands), np.int64)


@lru_cache(maxsize=4)
def band_places(bands: int, bits: int) -> tuple[tuple[int, ...], ...]:
    """Which bits each band looks at; each bit is in about as many bands as any other."""
    random = np.random.RandomState(SEED)  # whose numbers are promised to stay
    return tuple(tuple(sorted(random.permutation(BITS)[:bits].tolist())) for _ in range(bands))
