"""Pack: one shard of a mixture, its drawn records laid into windows by best fit, as a WebDataset tar with its index.

A window is `input_ids`, `loss_mask` and `cu_seqlens`, the boundaries that attention must not cross, and where its records
have images `tiles` and `image_sizes`; its metadata lists the members, and whose images these are. The first token of each stretch has nothing before it to be predicted from, and is masked out of the loss.
The table of members is a ledger of the version: every draw is tiled by its stretches, which is checked before anything
is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts.balance import Tally, total
from gristmill.lake.accounts.fan import MEMBERS, Draw, check_members, draw_tally
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_file, put_table, read_table, scratch
from gristmill.model.processing.packing import Packing, Piece, pack
from gristmill.model.shards.files import ShardWriter
from gristmill.stages.core.work import Outcome, Stage, Work, added
from gristmill.stages.mix.images import Cut
from gristmill.stages.mix.mix import crops_of, mixed
from gristmill.stages.mix.plan_rows import PlanRow, slices_of
from gristmill.stages.mix.tiles import DrawnImages, Image
from gristmill.stages.mix.tokenize import draw_keys


@dataclass(frozen=True)
class PackInput:
    """The `plan`, the number of a shard in it, the objects of tokens that it draws from, and the shards of records with
    images that these were made of."""

    plan: ObjectRef
    shard: int
    objects: tuple[ObjectRef, ...]
    images: tuple[ObjectRef, ...] = ()


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
class ImageFacts(PackFacts):
    """Of a mixture with images: how many, and their crops as the encoder sees them."""

    images: int
    crops: int


@dataclass(frozen=True)
class Pack(Stage[PackInput]):
    """`window`: tokens. `max_waste`: share of empty places above which documents are cut to fill them. `cut`: how images
    are cut, where there are any; `max_crops`: of a window, None: no bound."""

    name: ClassVar[str] = "pack"
    VERSION: ClassVar[int] = 2

    window: int
    max_waste: float
    seed: int
    cut: Cut | None = added()
    max_crops: int | None = added()

    def run(self, store: Store, work: Work[PackInput]) -> Outcome:
        """Outputs `pack` (a tar), `index`, `members` (MEMBERS); facts: PackFacts. What comes in are draws. Raises
        BalanceError where the windows hold other stretches than were drawn."""
        number = work.payload.shard
        objects = {ref.sha256: ref for ref in work.payload.objects}
        rows = slices_of(store, work.payload.plan, number)
        texts = _Texts([_Slice.read(store, objects[row.tokens], row, self) for row in rows])
        packing = pack(
            texts.lengths,
            texts.splittable,
            self.window,
            max_waste=self.max_waste,
            crops=texts.crops,
            max_crops=self.max_crops,
        )
        with scratch() as folder, DrawnImages(folder / "images", self.cut or Cut()) as drawn:
            for ref in work.payload.images:
                drawn.copy(store, ref, texts.rows_with_images(ref.sha256))
            tar, index = folder / "pack.tar", folder / "index.parquet"
            loss_tokens, members = _write(tar, index, number, texts, packing, self.window, drawn)
            check_members(members, texts.draws())
            outputs = (
                put_file(store, "pack", tar, len(packing.windows)),
                put_file(store, "index", index, len(packing.windows)),
                put_table(store, "members", members),
            )
        facts = PackFacts(
            windows=len(packing.windows),
            tokens=int(texts.lengths.sum()),
            loss_tokens=loss_tokens,
            documents=int(texts.splittable.sum()),
            samples=int((~texts.splittable).sum()),
            split=packing.split,
            forced=packing.forced,
        )
        if self.cut is not None:
            facts = ImageFacts(**vars(facts), images=texts.images_drawn, crops=int(texts.crops.sum()))
        return Outcome(outputs=outputs, received=texts.tally, passed=_tally_of(members, texts), facts=facts)


@dataclass(frozen=True)
class _Slice:
    """The draws of one row of the plan. ids (int32) and loss_mask (bool; None: all) of their tokens, end to end;
    starts: where the tokens of each draw begin, and the last ends. crops: of each, int64; images: as
    `stages.mix.images.IMAGES` has them, empty where none of the source has any."""

    source: str
    samples: bool
    epoch: int
    input: str
    names: list[str]
    rows: list[int]
    starts: np.ndarray
    ids: np.ndarray
    loss_mask: np.ndarray | None
    crops: np.ndarray
    images: list[list[dict[str, int]]]

    @classmethod
    def read(cls, store: Store, ref: ObjectRef, row: PlanRow, stage: Pack) -> _Slice:
        """The tokens of a row of the plan, chosen as the plan chose them: what fits, below the cut, from first to end.

        Raises ValueError where they are not as many as it says.
        """
        # `first` and `end` count draws, not rows: the plan's choice has to be made once more, step by step, on the
        # tokens themselves. Where the two differ, the numbers below do not fit.
        table = read_table(store, ref)
        if row.samples:
            table = table.filter(pc.less_equal(pc.list_value_length(table["ids"]), stage.window))
        if stage.max_crops is not None:
            table = table.filter(pa.array(crops_of(table) <= stage.max_crops))
        if row.cut is not None:
            keys = mixed(draw_keys(table["id"].to_pylist()), stage.seed)
            table = table.filter(pa.array(keys < row.cut))
        table = table.slice(row.first, row.end - row.first).combine_chunks()
        ids = table["ids"].combine_chunks()
        starts = ids.offsets.to_numpy()
        loss_mask = table["learn"].combine_chunks()
        nulls = loss_mask.null_count  # a null is a document, of which every token counts
        if nulls not in ((0,) if row.samples else (0, len(loss_mask))):
            raise ValueError(f"{row.source}: {nulls} of {len(loss_mask)} rows do not say what is learned")
        self = cls(
            source=row.source,
            samples=row.samples,
            epoch=row.epoch,
            input=row.input,
            names=table["id"].to_pylist(),
            rows=table["row"].to_pylist(),
            starts=starts - starts[0],  # a sliced array keeps the offsets of the whole; `flatten` below begins at 0
            ids=ids.flatten().to_numpy(),
            loss_mask=None if nulls else loss_mask.flatten().to_numpy(zero_copy_only=False),
            crops=crops_of(table),
            images=table["images"].to_pylist() if "images" in table.column_names else [],
        )
        if (len(self.names), len(self.ids)) != (row.documents, row.units):
            raise ValueError(
                f"{self.source}: {len(self.names):,} records of {len(self.ids):,} tokens were drawn, the plan has"
                f" {row.documents:,} of {row.units:,}; this is a defect, please report it"
            )
        return self


class _Texts:
    """All draws of a shard, numbered through. lengths: int64 [draws]; splittable: bool [draws]."""

    def __init__(self, slices: Sequence[_Slice]) -> None:
        self.slices = slices
        self.lengths = np.concatenate([np.zeros(0, np.int64), *(np.diff(part.starts) for part in slices)])
        counts = [len(part.names) for part in slices]
        self.crops = np.concatenate([np.zeros(0, np.int64), *(part.crops for part in slices)])
        self.splittable = np.repeat(np.array([not part.samples for part in slices], bool), counts)
        self._slice = np.repeat(np.arange(len(slices)), counts)
        self._at = np.concatenate([np.zeros(0, np.int64), *(np.arange(n) for n in counts)])

    def where(self, number: int) -> tuple[_Slice, int]:
        """The slice of a draw, and its place in it."""
        return self.slices[self._slice[number]], int(self._at[number])

    def tokens(self, piece: Piece) -> tuple[np.ndarray, np.ndarray]:
        """ids and loss_mask of a stretch."""
        part, at = self.where(piece.sample)
        first = int(part.starts[at]) + piece.start
        end = first + piece.length
        loss_mask = np.ones(piece.length, bool) if part.loss_mask is None else part.loss_mask[first:end].copy()
        loss_mask[0] = False  # nothing stands before it in its segment, from which it could be predicted
        return part.ids[first:end], loss_mask

    def images(self, pieces: Sequence[Piece]) -> list[Image]:
        """Those of a window, in the order of their tokens."""
        images = []
        for stretch, piece in enumerate(pieces):
            part, at = self.where(piece.sample)
            own = part.images[at] if part.images else []
            images += [Image(stretch, part.input, part.rows[at], **image) for image in own]
        return images

    def rows_with_images(self, shard: str) -> set[int]:
        """Of a shard, the rows with images that are drawn."""
        parts = [part for part in self.slices if part.input == shard and part.images]
        return {row for part in parts for row, own in zip(part.rows, part.images, strict=True) if own}

    @property
    def images_drawn(self) -> int:
        """How many all draws have."""
        return sum(len(own) for part in self.slices for own in part.images)

    def draws(self) -> dict[Draw, int]:
        """Each draw, and how many tokens it has."""
        tokens: dict[Draw, int] = {}
        for part in self.slices:
            for name, length in zip(part.names, np.diff(part.starts), strict=True):
                tokens[part.source, name, part.epoch] = int(length)
        return tokens

    @cached_property
    def tally(self) -> Tally:
        """Of all draws: a draw is a record in an epoch."""
        tallies = []
        for part in self.slices:
            tallies.append(draw_tally(part.input, [(part.epoch, row) for row in part.rows]))
        return total(tallies)


def _write(
    tar: Path, index: Path, number: int, texts: _Texts, packing: Packing, window: int, drawn: DrawnImages
) -> tuple[int, pa.Table]:
    """The windows as files; how many tokens count for the loss, and MEMBERS."""
    loss_tokens, rows = 0, []
    with ShardWriter(tar, index) as writer:
        for at, pieces in enumerate(packing.windows):
            key = f"{number:06d}-{at:06d}"
            members = list(_members(texts, pieces))
            segments = [texts.tokens(piece) for piece in pieces]
            loss_mask = np.concatenate([mask for _, mask in segments])
            loss_tokens += int(loss_mask.sum())
            arrays = {
                "input_ids": np.concatenate([ids for ids, _ in segments]).astype(np.int32),
                "loss_mask": loss_mask,
                "cu_seqlens": np.concatenate([[0], np.cumsum([piece.length for piece in pieces])]).astype(np.int32),
            }
            meta: dict[str, Any] = {"format": 1, "kind": "text", "window": window, "members": members}
            if images := texts.images(pieces):
                arrays |= drawn.arrays(images)
                meta["images"] = drawn.about(images)
            writer.write(key, meta, arrays, tokens=len(loss_mask))
            rows += [{"pack": key, "position": n, **member} for n, member in enumerate(members)]
    return loss_tokens, pa.Table.from_pylist(rows, schema=MEMBERS)


def _members(texts: _Texts, pieces: Sequence[Piece]) -> Iterator[dict[str, Any]]:
    for piece in pieces:
        part, at = texts.where(piece.sample)
        yield {
            "source": part.source,
            "member": part.names[at],
            "epoch": part.epoch,
            "start": piece.start,
            "length": piece.length,
        }


def _tally_of(members: pa.Table, texts: _Texts) -> Tally:
    """The draws that packs hold, each once however often it was cut: by its stretch that starts at 0."""
    places: dict[tuple[str, str], tuple[str, int]] = {}
    for part in texts.slices:
        for name, row in zip(part.names, part.rows, strict=True):
            places[part.source, name] = part.input, row
    whole = members.filter(pc.equal(members["start"], 0))
    packed: dict[str, list[tuple[int, int]]] = {}
    for source, member, epoch in zip(*(whole[c].to_pylist() for c in ("source", "member", "epoch")), strict=True):
        shard, row = places[source, member]
        packed.setdefault(shard, []).append((epoch, row))
    return total(draw_tally(shard, draws) for shard, draws in packed.items())


def pack_works(
    stage: Pack,
    plan: ObjectRef,
    shards: int,
    tokenized: Sequence[Receipt],
    slices: pa.Table,
    with_images: Sequence[ObjectRef] = (),
) -> list[Work[PackInput]]:
    """One Work a shard. `slices`: the plan's columns `shard`, `tokens` and `input`; `with_images`: the shards of the
    sources that have images."""
    tokens = [receipt.output("tokens") for receipt in tokenized]
    refs = {ref.sha256: ref for ref in tokens}
    needed: list[dict[str, ObjectRef]] = [{} for _ in range(shards)]
    media = {ref.sha256: ref for ref in with_images}
    needed_media: list[dict[str, ObjectRef]] = [{} for _ in range(shards)]
    for number, digest, shard in zip(*(slices[c].to_pylist() for c in ("shard", "tokens", "input")), strict=True):
        needed[number][digest] = refs[digest]
        if shard in media:
            needed_media[number][shard] = media[shard]
    works = []
    for number, (objects, images) in enumerate(zip(needed, needed_media, strict=True)):
        payload = PackInput(plan, number, tuple(objects.values()), tuple(images.values()))
        works.append(Work(stage, (plan.sha256, str(number)), payload, label=f"shard {number}"))
    return works
