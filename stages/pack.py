"""Pack: one shard of a mixture, its drawn records laid into windows by best fit, as a WebDataset tar with its index.

A window is `input_ids`, `loss_mask` and `cu_seqlens`, the boundaries that attention must not cross; its metadata lists
the members. The first token of each stretch has nothing before it to be predicted from, and is not learned. The table
of members is a ledger of the version: every draw is tiled by its stretches, which is checked before anything is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.balance import Tally
from lake.fan import MEMBERS, check_members, draw_key
from lake.objects import ObjectRef, put_file, put_table, read_table, scratch
from lake.receipt import Receipt, StageId
from lake.store import Store
from model.processing.packing import Packing, Piece, pack
from model.shards import ShardWriter
from stages.account import draw_tally
from stages.mix import mixed, slices_of
from stages.tokenize import draw_keys
from stages.work import Outcome, Work, stage_id


@dataclass(frozen=True)
class Pack:
    """`window`: tokens. `max_waste`: share of empty places above which documents are cut to fill them."""

    name: ClassVar[str] = "pack"
    VERSION: ClassVar[int] = 1

    window: int
    max_waste: float
    seed: int

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: plan (pointer), shard (number), objects (tokens by sha256). Outputs `pack`, `index`, `members`."""
        p = work.payload
        number = int(p["shard"])
        slices = slices_of(store, ObjectRef(**p["plan"]), number)
        drawn = [_Slice.read(store, ObjectRef(**p["objects"][one["tokens"]]), one, self) for one in slices]
        texts = _Texts(drawn)
        packing = pack(texts.lengths, texts.splittable, self.window, max_waste=self.max_waste)
        with scratch() as folder:
            tar, index = folder / "pack.tar", folder / "index.parquet"
            learned, members = _write(tar, index, number, texts, packing, self.window)
            check_members(members, texts.draws())
            outputs = (
                put_file(store, "pack", tar, len(packing.windows)),
                put_file(store, "index", index, len(packing.windows)),
                put_table(store, "members", members),
            )
        return Outcome(
            outputs=outputs,
            came_in=texts.tally,
            passed=_tally_of(members, texts),
            facts={
                "windows": len(packing.windows),
                "tokens": int(texts.lengths.sum()),
                "loss_tokens": learned,
                "documents": int(texts.splittable.sum()),
                "samples": int((~texts.splittable).sum()),
                "split": packing.split,
                "forced": packing.forced,
            },
        )


@dataclass(frozen=True)
class _Slice:
    """The draws of one row of the plan. `ids`, `learn`: tokens end to end; `starts`: where each record's begin."""

    source: str
    samples: bool
    epoch: int
    input: str
    names: list[str]
    rows: list[int]
    starts: np.ndarray
    ids: np.ndarray
    learn: np.ndarray | None

    @classmethod
    def read(cls, store: Store, ref: ObjectRef, one: Mapping[str, Any], stage: Pack) -> _Slice:
        table = read_table(store, ref)
        if one["samples"]:
            table = table.filter(pc.less_equal(pc.list_value_length(table["ids"]), stage.window))
        if one["cut"] is not None:
            keys = mixed(draw_keys(table["id"].to_pylist()), stage.seed)
            table = table.filter(pa.array(keys < one["cut"]))
        table = table.slice(one["first"], one["end"] - one["first"]).combine_chunks()
        ids = table["ids"].combine_chunks()
        starts = ids.offsets.to_numpy()
        learn = table["learn"].combine_chunks()
        if learn.null_count not in ((0,) if one["samples"] else (0, len(learn))):
            raise ValueError(f"{one['source']}: {learn.null_count} of {len(learn)} rows do not say what is learned")
        self = cls(
            source=one["source"],
            samples=one["samples"],
            epoch=one["epoch"],
            input=one["input"],
            names=table["id"].to_pylist(),
            rows=table["row"].to_pylist(),
            starts=starts - starts[0],
            ids=ids.flatten().to_numpy(),
            learn=None if learn.null_count else learn.flatten().to_numpy(zero_copy_only=False),
        )
        if (len(self.names), len(self.ids)) != (one["documents"], one["units"]):
            raise ValueError(
                f"{self.source}: {len(self.names):,} records of {len(self.ids):,} tokens were drawn, the plan has"
                f" {one['documents']:,} of {one['units']:,}; this is a defect, please report it"
            )
        return self


class _Texts:
    """All draws of a shard, numbered through."""

    def __init__(self, slices: Sequence[_Slice]) -> None:
        self.slices = slices
        self.lengths = np.concatenate([np.zeros(0, np.int64), *(np.diff(one.starts) for one in slices)])
        counts = [len(one.names) for one in slices]
        self.splittable = np.repeat(np.array([not one.samples for one in slices], bool), counts)
        self._slice = np.repeat(np.arange(len(slices)), counts)
        self._at = np.concatenate([np.zeros(0, np.int64), *(np.arange(n) for n in counts)])

    def where(self, number: int) -> tuple[_Slice, int]:
        return self.slices[self._slice[number]], int(self._at[number])

    def tokens(self, piece: Piece) -> tuple[np.ndarray, np.ndarray]:
        """ids and what is learned of a stretch."""
        one, at = self.where(piece.sample)
        first = int(one.starts[at]) + piece.start
        end = first + piece.length
        learn = np.ones(piece.length, bool) if one.learn is None else one.learn[first:end].copy()
        learn[0] = False
        return one.ids[first:end], learn

    def draws(self) -> dict[tuple[str, str, int], int]:
        return {
            (one.source, name, one.epoch): int(n)
            for one in self.slices
            for name, n in zip(one.names, np.diff(one.starts), strict=True)
        }

    @cached_property
    def tally(self) -> Tally:
        return sum((draw_tally(one.input, [(one.epoch, row) for row in one.rows]) for one in self.slices), Tally())


def _write(tar: Path, index: Path, number: int, texts: _Texts, packing: Packing, window: int) -> tuple[int, pa.Table]:
    """The windows as files; how many tokens are learned, and MEMBERS."""
    learned, rows = 0, []
    with ShardWriter(tar, index) as writer:
        for at, pieces in enumerate(packing.windows):
            key = f"{number:06d}-{at:06d}"
            members = list(_members(texts, pieces))
            found = [texts.tokens(piece) for piece in pieces]
            loss_mask = np.concatenate([learn for _, learn in found])
            learned += int(loss_mask.sum())
            arrays = {
                "input_ids": np.concatenate([ids for ids, _ in found]).astype(np.int32),
                "loss_mask": loss_mask,
                "cu_seqlens": np.concatenate([[0], np.cumsum([piece.length for piece in pieces])]).astype(np.int32),
            }
            meta = {"format": 1, "kind": "text", "window": window, "members": members}
            writer.write(key, meta, arrays, tokens=len(loss_mask))
            rows += [{"pack": key, "position": n, **member} for n, member in enumerate(members)]
    return learned, pa.Table.from_pylist(rows, schema=MEMBERS)


def _members(texts: _Texts, pieces: Sequence[Piece]) -> Iterator[dict[str, Any]]:
    for piece in pieces:
        one, at = texts.where(piece.sample)
        yield {
            "source": one.source,
            "member": one.names[at],
            "epoch": one.epoch,
            "start": piece.start,
            "length": piece.length,
        }


def _tally_of(members: pa.Table, texts: _Texts) -> Tally:
    """The draws that packs hold, each once however often it was cut."""
    places = {
        (one.source, name): (one.input, row)
        for one in texts.slices
        for name, row in zip(one.names, one.rows, strict=True)
    }
    whole = members.filter(pc.equal(members["start"], 0))
    draws = zip(*(whole[name].to_pylist() for name in ("source", "member", "epoch")), strict=True)
    return Tally.of(draw_key(*places[source, member], epoch) for source, member, epoch in draws)


def pack_works(stage: Pack, plan: ObjectRef, shards: int, tokenized: Sequence[Receipt], slices: pa.Table) -> list[Work]:
    """One Work a shard. `slices`: the plan's columns `shard` and `tokens`."""
    refs = {ref.sha256: ref.model_dump() for ref in (receipt.output("tokens") for receipt in tokenized)}
    needed: dict[int, dict[str, Any]] = {number: {} for number in range(shards)}
    for number, digest in zip(slices["shard"].to_pylist(), slices["tokens"].to_pylist(), strict=True):
        needed[number][digest] = refs[digest]
    return [
        Work(
            stage=stage,
            inputs=(plan.sha256, str(number)),
            payload={"plan": plan.model_dump(), "shard": number, "objects": objects},
            label=f"shard {number}",
        )
        for number, objects in needed.items()
    ]
