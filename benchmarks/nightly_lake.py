"""A lake of a crawl that grew by a small increment a night, a thousand times, with a ledger of a hundred million rows.

Ledgers are written as the house writes them: cut by id, sorted, merged by its own compaction, each commit with its
checks. The crawl's ledger objects have new ids each, in order, over one draw of all other columns: a hash is all that
tells the rows of one range of ids from those of another. What nothing that is measured looks at is left out: pages (a
few short texts stand in each shard) and the sums of the balance, of which the counts alone are true.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.ledgers import DATASET, FATES
from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.identity import digest_of, record_id
from gristmill.lake.accounts.receipt import StageId
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_file, put_refs, put_table, scratch
from gristmill.lake.versions.manifest import Draft, FunnelRow, InputFile, Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.stages.core.ranges import hash_ranges
from gristmill.stages.core.shards import LEDGER_ROWS
from gristmill.stages.near.compact import Compact, compacted
from gristmill.stages.run.runner import Runner

PER_INPUT = 40_000
DOCUMENTS = 64
"""Texts in a shard of the crawl."""
SHARDS = 512
LEDGER = Compact("ledger", ("id", "input", "ordinal"))
LISTS, RECEIPTS = Compact("refs"), Compact("receipts")
STAGES = tuple(StageId(name=name, version=1, config={}) for name in ("scan", "read", "shards"))


@dataclass(frozen=True)
class Nights:
    """`crawl`: rows that the first version has; `nights`: versions in all; `night`: rows that each adds."""

    crawl: int
    nights: int
    night: int

    @property
    def rows(self) -> int:
        """Of the newest version."""
        return self.crawl + (self.nights - 1) * self.night


def probe(night: int, number: int) -> str:
    """A URL that one night has."""
    return f"https://www.example.org/{night}/{number}/some-story.html"


PROBES = 4
"""URLs of each night that are known."""


def build(store: Store, size: Nights) -> Iterator[Manifest]:
    """Commits all versions of the dataset, and yields each."""
    runner, versions = Runner(store, workers=0), Versions(store)
    base = versions.commit(_crawl(store, size), expected_parent=0)
    yield base
    for number in range(1, size.nights):
        base = versions.commit(_night(runner, size, base, number), expected_parent=number)
        yield base


def _crawl(store: Store, size: Nights) -> Draft:
    ranges = hash_ranges(size.crawl, LEDGER_ROWS)
    rows = size.crawl // len(ranges)
    inputs = [_input(0, n) for n in range(max(1, size.crawl // PER_INPUT))]
    columns = _columns(np.random.default_rng(0), rows, inputs)
    tallies, ledgers = dict.fromkeys(("kept", "dropped", "quarantined"), 0), []
    for place, (low, _) in enumerate(ranges):
        ids = _ids(np.random.default_rng((1, place)), rows, place, len(ranges))
        table = _table(columns, ids, place * (rows // len(inputs) + 1))
        table = _with_probes(table, 0, low, ranges[place][1])
        ledgers.append(put_table(store, "ledger", table, sorted_by="id"))
        for fate in tallies:
            tallies[fate] += int(pc.sum(pc.equal(table["fate"], fate)).as_py())
    shards = tuple(_shard(store, 0, n) for n in range(SHARDS if size.crawl >= LEDGER_ROWS else 4))
    files = _files(inputs, sum(tallies.values()), "crawl")
    return _draft(store, None, 0, files, tallies, tuple(ledgers), shards, ())


def _night(runner: Runner, size: Nights, base: Manifest, number: int) -> Draft:
    store, inputs = runner.store, [_input(number, 0)]
    rng = np.random.default_rng((2, number))
    table = _table(_columns(rng, size.night, inputs), _ids(rng, size.night, 0, 1), 0)
    table = _with_probes(table, number, "", "g")
    tallies = {fate: tally.count for fate, tally in ledger.tallies(table).items()}
    own = put_table(store, "ledger", table, sorted_by="id")
    attachments = (
        *compacted(runner, LISTS, [ref for ref in base.attachments if ref.kind == "refs"]),
        *compacted(runner, RECEIPTS, [ref for ref in base.attachments if ref.kind == "receipts"]),
    )
    shards = (*base.shards, _shard(store, number, 0))
    files = _files(inputs, table.num_rows, f"nights/{number:05}")
    return _draft(
        store, base, number, files, tallies, (*compacted(runner, LEDGER, base.ledgers), own), shards, attachments
    )


def _draft(
    store: Store,
    base: Manifest | None,
    number: int,
    files: tuple[InputFile, ...],
    tallies: dict[str, int],
    ledgers: tuple[ObjectRef, ...],
    shards: tuple[ObjectRef, ...],
    attachments: tuple[ObjectRef, ...],
) -> Draft:
    if base is not None:
        before = {"kept": base.kept, "dropped": base.dropped, "quarantined": base.quarantined}
        tallies = {fate: before[fate].count + count for fate, count in tallies.items()}
    listed = put_refs(store, [put_table(store, "spans", pa.table({"night": [number]}))])
    return Draft(
        dataset=DATASET,
        form="documents",
        run_key=digest_of("night", str(number)),
        parent=None if base is None else base.ref,
        inputs=files,
        recipe={"dataset": DATASET, "extends": DATASET, "filters": {f.stage: {"least": 1} for f in FATES}},
        stages=STAGES,
        shards=shards,
        ledgers=ledgers,
        attachments=(*attachments, listed, _receipts(store, files)),
        received=Tally(sum(tallies.values())),
        kept=Tally(tallies["kept"]),
        dropped=Tally(tallies["dropped"]),
        quarantined=Tally(tallies["quarantined"]),
        funnel=_funnel(tallies),
        statistics={"documents": tallies["kept"], "languages": {"en": tallies["kept"]}, "bytes_from": {"0": 1}},
        made={"at": f"2026-01-01T00:{number // 60 % 60:02}:{number % 60:02}Z", "commit": "0" * 40, "dirty": False},
    )


def _funnel(tallies: dict[str, int]) -> tuple[FunnelRow, ...]:
    """In one stage, with reasons as often as they are drawn; what rounding leaves over goes to the first."""
    reasons: dict[str, dict[str, int]] = {"dropped": {}, "quarantined": {}}
    for fate, counts in reasons.items():
        shares = {f.reason: f.share for f in FATES if f.fate == fate and f.reason}
        counts |= {r: int(tallies[fate] * share / sum(shares.values())) for r, share in shares.items()}
        counts[next(iter(counts))] += tallies[fate] - sum(counts.values())
    received = sum(tallies.values())
    return (FunnelRow(stage="screen", received=received, passed=tallies["kept"], **reasons),)


def _columns(rng: np.random.Generator, rows: int, inputs: list[str]) -> dict[str, pa.Array]:
    """All but ids, in an order that has nothing to do with them."""
    order = rng.permutation(rows)
    drawn = pa.array(rng.choice(len(FATES), rows, p=[fate.share for fate in FATES]), pa.int8())
    fate, stage, reason, value = (
        pa.array(list(column), pa.string()).take(drawn) for column in list(zip(*FATES, strict=True))[1:]
    )
    lengths = rng.integers(500, 100_000, rows)
    return {
        "input": pa.array(inputs, pa.string()).take(pa.array(order % len(inputs))),
        "ordinal": pa.array(order // len(inputs)),
        "fate": fate,
        "stage": stage,
        "reason": reason,
        "value": value,
        "start": pa.array(order // len(inputs) * 50_000),
        "length": pa.array(lengths),
    }


def _table(columns: dict[str, pa.Array], ids: pa.Array, first_ordinal: int) -> pa.Table:
    rows = len(ids)
    # A duplicate's survivor is any other record: here the one that stands half a table away.
    others = pa.concat_arrays([ids.slice(rows // 2), ids.slice(0, rows // 2)])
    survivors = pc.if_else(pc.equal(columns["stage"], "exact"), others, pa.scalar(None, pa.string()))
    ordinals = pc.add(columns["ordinal"], first_ordinal)
    table = pa.table({"id": ids, **columns, "survivor": survivors, "ordinal": ordinals})
    return table.select(ledger.SCHEMA.names).cast(ledger.SCHEMA)


def _with_probes(table: pa.Table, night: int, low: str, high: str) -> pa.Table:
    """With the rows of the night's URLs, kept ones, where their ids lie between `low` and `high`."""
    ids = [record_id(url=probe(night, n), source_key=None, own=b"%d %d" % (night, n)) for n in range(PROBES)]
    inside = [record for record in ids if low <= record < high]
    if not inside:
        return table
    first = table.slice(0, 1).to_pylist()[0]
    kept = {"fate": "kept", "stage": "shards", "reason": None, "value": None, "survivor": None}
    rows = [{**first, **kept, "id": record, "ordinal": 10_000_000 + n} for n, record in enumerate(inside)]
    return ledger.sort(pa.concat_tables([table, pa.Table.from_pylist(rows, ledger.SCHEMA)]))


def _ids(rng: np.random.Generator, rows: int, place: int, places: int) -> pa.Array:
    """Sorted hex strings of 32 characters that begin as those of one of so many equal ranges do; without a Python
    string for each."""
    halves = np.frombuffer(rng.bytes(16 * rows), dtype=np.uint64).reshape(rows, 2).copy()
    width = (1 << 64) // places
    halves[:, 0] = np.sort(halves[:, 0] // np.uint64(places)) + np.uint64(place * width)
    data = pa.py_buffer(halves.astype(">u8").tobytes().hex().encode())
    offsets = pa.py_buffer(np.arange(0, 32 * rows + 1, 32, dtype=np.int32))
    return pa.StringArray.from_buffers(rows, offsets, data)


def _input(night: int, number: int) -> str:
    return hashlib.sha256(b"input %d %d" % (night, number)).hexdigest()


def _files(inputs: list[str], rows: int, folder: str) -> tuple[InputFile, ...]:
    """The input files, over which the rows are spread; what does not divide is in the last."""
    each, rest = divmod(rows, len(inputs))
    return tuple(
        InputFile(
            digest=digest,
            bytes=1 << 30,
            records=each + (rest if n == len(inputs) - 1 else 0),
            names=(f"{folder}/{n:05}.warc.gz",),
        )
        for n, digest in enumerate(inputs)
    )


def _shard(store: Store, night: int, number: int) -> ObjectRef:
    names = [f"{night}/{number}/{n}" for n in range(DOCUMENTS)]
    texts = [f"Text {name}: a page that says nothing, several times. " * 20 for name in names]
    ids = [record_id(url=f"https://example.org/{name}", source_key=None, own=name.encode()) for name in names]
    urls = [f"https://example.org/{name}" for name in names]
    return put_table(store, "shard", pa.table({"id": ids, "url": urls, "text": texts}))


def _receipts(store: Store, files: tuple[InputFile, ...]) -> ObjectRef:
    """A line for each sixteenth of an input, of the form and the size of an extraction's receipt."""
    with scratch() as folder:
        path = folder / "lines"
        lines = 0
        with path.open("w") as sink:
            for file in files:
                for part in range(16):
                    sink.write(json.dumps(_receipt(file, part)) + "\n")
                    lines += 1
        return put_file(store, "receipts", path, lines)


def _receipt(file: InputFile, part: int) -> dict[str, object]:
    output = {"kind": "text", "sha256": digest_of(file.digest, str(part)), "bytes": 1 << 24, "records": 2500}
    tally = [2500, "0" * 32]
    return {
        "format": 3,
        "work_key": digest_of("work", file.digest, str(part)),
        "stages": [stage.model_dump() for stage in STAGES],
        "inputs": [file.digest, f"{part * 2500}+2500"],
        "outputs": [output],
        "came_in": tally,
        "passed": tally,
        "facts": {"measured": [[f.stage, f.share] for f in FATES]},
    }
