"""Near duplicates of records with images: how their pictures look, in the form that the linker of texts takes.

The n-th of 64 values of a signature says what the n-th bit of every picture of the record is, so that two records
agree in a value where all their pictures do, and in none where they have other texts (`same`) or another number of
pictures: one measure for one picture and for the frames of a video. A band is a hash of some of the values, drawn once
for all: copies differ in few bits, and so agree in one of the bands nearly always, strangers in few. How many bits, and
what is found with them: docs/decisions/17.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import ClassVar, NamedTuple, Self

import numpy as np
import pyarrow as pa

from gristmill.filters.image.look import BITS
from gristmill.lake.accounts import ledger
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ROW_GROUP_ROWS, put_table
from gristmill.stages.clusters.select_survivors import SelectSurvivors
from gristmill.stages.core.fates import KEYS
from gristmill.stages.core.records import Chunk, alive
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.near.minhash import GatherSignatures
from gristmill.stages.read.reading import content_hash
from gristmill.stages.vision.form import SAME, Same

SEED = 19


class Bands(NamedTuple):
    """`count` bands, each of `bits` values."""

    count: int
    bits: int


BANDS: Mapping[Same, Bands] = MappingProxyType({"images_and_text": Bands(32, 14), "images": Bands(64, 20)})
"""By which records are linked. Fewer bits find more copies, and link more strangers by chance: among 2^bits / count
records that can be linked at all (those with one text, or all of them) components begin to hang together. Strangers
are compared and stay, so they cost time and no record."""
MIN_SIMILARITY = 0.84
"""10 of 64 bits may differ."""
N_IMAGES = "phash.n_images"
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class SignImages(Stage[Chunk]):
    """Signs what passed the filters. `same`: as `FormImages` has it."""

    name: ClassVar[str] = "sign_images"
    VERSION: ClassVar[int] = 1

    same: Same = "images_and_text"

    def __post_init__(self) -> None:
        if self.same not in SAME:
            raise ValueError(f"same={self.same!r}: one of {', '.join(SAME)}")

    def run(self, store: Store, work: Work[Chunk]) -> Outcome:
        """payload: Chunk. Output `signed`: keys, images, signature (null where a record has no image)."""
        rows = alive(store, work.payload, [*KEYS, "text", "looks"])
        parts = [self._signed(pa.Table.from_batches([batch])) for batch in rows.to_batches(ROW_GROUP_ROWS)]
        signed = pa.concat_tables(parts) if parts else self._signed(rows)
        tally = ledger.tally(signed)
        return Outcome(outputs=(put_table(store, "signed", signed),), passed=tally, received=tally)

    def _signed(self, rows: pa.Table) -> pa.Table:
        looks = rows["looks"].to_pylist()
        texts = rows["text"].to_pylist() if self.same == "images_and_text" else [""] * len(looks)
        signatures = [
            signature(of_record, content_hash(text)).tobytes() if of_record else None
            for of_record, text in zip(looks, texts, strict=True)
        ]
        table = rows.select(KEYS).append_column(N_IMAGES, pa.array(map(len, looks), pa.int64()))
        return table.append_column("signature", pa.array(signatures, pa.binary(4 * BITS)))


def signature(looks: list[int], text: str) -> np.ndarray:
    """uint32 [64], little-endian, of a record's pictures, at least one; `text`: what it says."""
    shifts = np.arange(BITS, dtype=np.uint64)
    values = np.full(BITS, int(content_hash(f"{len(looks)}\0{text}")[:16], 16), np.uint64)
    for picture in looks:
        bits = np.uint64(picture) >> shifts & np.uint64(1)
        values = (values ^ bits + np.uint64(1)) * _MIX
        values ^= values >> np.uint64(29)
    return (values >> np.uint64(32)).astype("<u4")


@dataclass(frozen=True)
class GatherLooks(GatherSignatures):
    """Brings signatures of pictures together, and hashes their bands."""

    name: ClassVar[str] = "collect_looks"
    VERSION: ClassVar[int] = 1
    counted: ClassVar[str] = N_IMAGES

    @classmethod
    def of(cls, same: Same, survivor: tuple[str, ...]) -> Self:
        """As records are signed."""
        return cls(BANDS[same].count, BANDS[same].bits, survivor)

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


@lru_cache(maxsize=4)
def band_places(bands: int, bits: int) -> tuple[tuple[int, ...], ...]:
    """Which bits each band looks at; each bit is in about as many bands as any other."""
    random = np.random.RandomState(SEED)  # whose numbers are promised to stay
    return tuple(tuple(sorted(random.permutation(BITS)[:bits].tolist())) for _ in range(bands))


@dataclass(frozen=True)
class SelectPictures(SelectSurvivors):
    """Selects survivors among records whose pictures look alike. `min_similarity`: the share of the 64 bits in which
    all pictures of both records agree."""

    name: ClassVar[str] = "choose_pictures"
    VERSION: ClassVar[int] = 2
    decider: ClassVar[str] = "phash"
    estimated: ClassVar[bool] = False

    min_similarity: float | None = MIN_SIMILARITY

    @property
    def places(self) -> np.ndarray:
        """Bands of all pictures: four values in a row, which are one of 16 things each, would be rare in none."""
        return np.array(band_places(*BANDS["images"]), np.int64)
