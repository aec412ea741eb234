"""Pack: one shard of a mixture, its drawn records laid into windows by best fit, as a WebDataset tar with its index.

A window is `input_ids`, `loss_mask` and `cu_seqlens`, the boundaries that attention must not cross, and where its
records have images `tiles` and `image_sizes`; its metadata lists the members, and whose images these are. The first
token of each stretch has nothing before it to be predicted from, and is masked out of the loss.
The table of members is a ledger of the version: every draw is tiled by its stretches, which is checked before anything
is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts.balance import Tally, total
from gristmill.lake.accounts.fan import MEMBERS, check_members, draw_tally
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_file, put_table, scratch
from gristmill.model.processing.packing import Packing, Piece, pack
from gristmill.model.shards.files import ShardWriter
from gristmill.model.windows.placeholders import Cut
from gristmill.stages.core.work import Outcome, Stage, Work, added
from gristmill.stages.mix.pack_facts import ImageFacts, PackFacts
from gristmill.stages.mix.plan_rows import slices_of
from gristmill.stages.mix.texts import Limits, Slice, Texts
from gristmill.stages.mix.tiles import DrawnImages


@dataclass(frozen=True)
class PackInput:
    """The `plan`, the number of a shard in it, the objects of tokens that it draws from, and the shards of records with
    images that these were made of."""

    plan: ObjectRef
    shard: int
    objects: tuple[ObjectRef, ...]
    images: tuple[ObjectRef, ...] = ()


@dataclass(frozen=True)
class Pack(Stage[PackInput]):
    """`window`: tokens. `max_waste`: share of empty places above which documents are cut to fill them. `cut`: how
    images are cut, where there are any; `max_crops`: of a window, None: no bound."""

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
        limits = Limits(self.window, self.max_crops, self.seed)
        texts = Texts([Slice.read(store, objects[row.tokens], row, limits) for row in rows])
        packing = pack(
            texts.lengths,
            texts.splittable,
            self.window,
            max_waste=self.max_waste,
            crops=texts.crops,
            max_crops=self.max_crops,
        )
        windows = [[part for piece in pieces for part in texts.stretches(piece)] for pieces in packing.windows]
        packing = replace(packing, windows=windows)
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


def _write(
    tar: Path, index: Path, number: int, texts: Texts, packing: Packing, window: int, drawn: DrawnImages
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


def _members(texts: Texts, pieces: Sequence[Piece]) -> Iterator[dict[str, Any]]:
    for piece in pieces:
        part, at = texts.where(piece.sample)
        yield {
            "source": part.source,
            "member": part.names[at],
            "epoch": part.epoch,
            "start": piece.start,
            "length": piece.length,
        }


def _tally_of(members: pa.Table, texts: Texts) -> Tally:
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
