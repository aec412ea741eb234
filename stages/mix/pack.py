"""Pack: one shard of a mixture, its drawn records laid into windows by best fit, as a WebDataset tar with its index.

A window is `input_ids`, `loss_mask` and `cu_seqlens`, the boundaries that attention must not cross, and where its
records have media, `tiles` and `image_sizes`, `mel` and `cu_frames`; its metadata lists the members, and whose media
these are. The first token of each stretch has nothing before it to be predicted from, and is masked out of the loss.
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
from gristmill.model.processing.packing import Budget, Packing, Piece, pack
from gristmill.model.shards.files import ShardWriter
from gristmill.model.windows.placeholders import Cut, LogMel
from gristmill.stages.core.work import Outcome, Stage, Work, added
from gristmill.stages.mix.drawn import DrawnMedia
from gristmill.stages.mix.fitting import UNITS, Bounds
from gristmill.stages.mix.kinds import Kind, kinds_of
from gristmill.stages.mix.pack_facts import MediaFacts, PackFacts
from gristmill.stages.mix.plan_rows import slices_of
from gristmill.stages.mix.texts import Limits, Slice, Texts


@dataclass(frozen=True)
class PackInput:
    """The `plan`, the number of a shard in it, the objects of tokens that it draws from, and the shards of records with
    media that these were made of."""

    plan: ObjectRef
    shard: int
    objects: tuple[ObjectRef, ...]
    media: tuple[ObjectRef, ...] = ()


@dataclass(frozen=True)
class Pack(Stage[PackInput]):
    """`window`: tokens. `max_waste`: share of empty places above which documents are cut to fill them. `cut`,
    `log_mel`: how images and clips are taken, where there are any; `max_crops`, `max_frames`: of a window, None: no
    bound."""

    name: ClassVar[str] = "pack"
    VERSION: ClassVar[int] = 3  # clips of other rates have other last bits

    window: int
    max_waste: float
    seed: int
    cut: Cut | None = added()
    max_crops: int | None = added()
    log_mel: LogMel | None = added()
    max_frames: int | None = added()

    @property
    def kinds(self) -> dict[str, Kind]:
        """Of media, by name."""
        return kinds_of(self.cut, self.log_mel)

    @property
    def bounds(self) -> Bounds:
        """Of a window, in the order of UNITS."""
        return self.max_crops, self.max_frames

    def run(self, store: Store, work: Work[PackInput]) -> Outcome:
        """Outputs `pack` (a tar), `index`, `members` (MEMBERS); facts: PackFacts. What comes in are draws. Raises
        BalanceError where the windows hold other stretches than were drawn."""
        number = work.payload.shard
        objects = {ref.sha256: ref for ref in work.payload.objects}
        rows = slices_of(store, work.payload.plan, number)
        limits = Limits(self.window, self.bounds, self.seed)
        texts = Texts([Slice.read(store, objects[row.tokens], row, limits) for row in rows])
        budgets = [Budget(unit, texts.taken[:, at], self.bounds[at]) for at, unit in enumerate(UNITS)]
        packing = pack(texts.lengths, texts.splittable, self.window, max_waste=self.max_waste, budgets=budgets)
        windows = [[part for piece in pieces for part in texts.stretches(piece)] for pieces in packing.windows]
        packing = replace(packing, windows=windows)
        with scratch() as folder, DrawnMedia(folder / "media", self.kinds) as drawn:
            for ref in work.payload.media:
                drawn.copy(store, ref, texts.rows_with_media(ref.sha256))
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
        if self.kinds:
            facts = MediaFacts(
                **vars(facts),
                images=texts.media_drawn("image"),
                clips=texts.media_drawn("audio"),
                **dict(zip(UNITS, texts.taken.sum(0).tolist(), strict=True)),
            )
        return Outcome(outputs=outputs, received=texts.tally, passed=_tally_of(members, texts), facts=facts)


def _write(
    tar: Path, index: Path, number: int, texts: Texts, packing: Packing, window: int, drawn: DrawnMedia
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
            if media := texts.media(pieces):
                arrays |= drawn.arrays(media)
                meta |= drawn.about(media)
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
    with_media: Sequence[ObjectRef] = (),
) -> list[Work[PackInput]]:
    """One Work a shard. `slices`: the plan's columns `shard`, `tokens` and `input`; `with_media`: the shards of the
    sources that have media."""
    tokens = [receipt.output("tokens") for receipt in tokenized]
    refs = {ref.sha256: ref for ref in tokens}
    needed: list[dict[str, ObjectRef]] = [{} for _ in range(shards)]
    media = {ref.sha256: ref for ref in with_media}
    needed_media: list[dict[str, ObjectRef]] = [{} for _ in range(shards)]
    for number, digest, shard in zip(*(slices[c].to_pylist() for c in ("shard", "tokens", "input")), strict=True):
        needed[number][digest] = refs[digest]
        if shard in media:
            needed_media[number][shard] = media[shard]
    works = []
    for number, (objects, own) in enumerate(zip(needed, needed_media, strict=True)):
        payload = PackInput(plan, number, tuple(objects.values()), tuple(own.values()))
        works.append(Work(stage, (plan.sha256, str(number)), payload, label=f"shard {number}"))
    return works
