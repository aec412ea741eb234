"""What stages did, recorded as they run and described so that two machines say the same: tallies, reasons, and one hash
a column of the rows themselves."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.lake.accounts.balance import total
from gristmill.lake.accounts.receipt import Receipt, canonical
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, read_object, read_refs, read_table
from gristmill.stages.core.work import Stage, Work
from gristmill.stages.run.runner import Done, Runner
from gristmill.stages.run.sources import Phase


class Recorder(Runner):
    """A runner in this process that remembers what each stage answered."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, workers=0)
        self.seen: list[tuple[str, Stage, list[Receipt]]] = []

    def map(self, title: str, works: Iterable[Work]) -> list[Receipt]:
        todo = list(works)
        receipts = super().map(title, todo)
        if todo:
            self.seen.append((title, todo[0].stage, receipts))
        return receipts

    def stream(self, title: str, works: Iterable[Work | None], ahead: int | None = None) -> Iterator[Done]:
        by_stage: dict[str, tuple[Stage, list[Receipt]]] = {}
        for done in super().stream(title, works, ahead):
            by_stage.setdefault(done.work.stage.name, (done.work.stage, []))[1].append(done.receipt)
            yield done
        self.seen += [(f"{title}, {name}", stage, receipts) for name, (stage, receipts) in by_stage.items()]

    def pipelined(self, count: int, phases: Sequence[Phase]) -> list[list[Receipt]]:
        done = super().pipelined(count, phases)
        for place, phase in enumerate(phases if count else ()):
            work = phase.work(0, [receipts[0] for receipts in done[:place]])
            self.seen.append((phase.title, work.stage, done[place]))
        return done


def stages_of(recorder: Recorder, prefix: str) -> dict[str, Any]:
    """Title, behind the prefix, -> what each stage is and did."""
    return {prefix + title: _stage(recorder.store, stage, receipts) for title, stage, receipts in recorder.seen}


def _stage(store: Store, stage: Stage, receipts: Sequence[Receipt]) -> dict[str, Any]:
    fates = ("received", "passed", "kept", "dropped", "quarantined")
    return {
        "identity": [part.model_dump(mode="json") for part in stage.identity()],
        "pieces": len(receipts),
        "tallies": {
            "came_in" if fate == "received" else fate: total(getattr(r, fate) for r in receipts).to_json()
            for fate in fates
        },
        "reasons": [r.reasons for r in receipts],
        "errors": [r.errors for r in receipts],
        "facts": [r.facts for r in receipts],
        "outputs": _outputs(store, receipts),
    }


def _outputs(store: Store, receipts: Sequence[Receipt]) -> dict[str, Any]:
    """kind -> rows, and a hash of each column: over its type and its values, in the order of the works."""
    tables: dict[str, list[pa.Table]] = {}
    for receipt in receipts:
        for ref in receipt.outputs:
            tables.setdefault(ref.kind, []).append(_READ.get(ref.kind, read_table)(store, ref))
    return {
        kind: {
            "rows": [table.num_rows for table in parts],
            "metadata": {k.decode(): v.decode() for k, v in (parts[0].schema.metadata or {}).items()},
            "columns": {field.name: _hash(field, [table[field.name] for table in parts]) for field in parts[0].schema},
        }
        for kind, parts in tables.items()
    }


def _windows(store: Store, ref: ObjectRef) -> pa.Table:
    """A tar's members; the tar's own bytes are those of `webdataset`. Of tiles and frames the shape: how a picture is
    resized differs by a level between machines, and a frame by its last bit (tests/model compares their values)."""
    with store.open(ref.key) as stream, tarfile.open(fileobj=stream) as tar:
        rows = [{"name": file.name, "data": tar.extractfile(file).read()} for file in tar]  # type: ignore[union-attr]
    for row in rows:
        if row["name"].endswith((".tiles.npy", ".mel.npy")):
            row["data"] = str(np.load(io.BytesIO(row["data"])).shape).encode()
    return pa.Table.from_pylist(rows)


def _vocabulary(store: Store, ref: ObjectRef) -> pa.Table:
    model = json.loads(store.get(ref.key))["model"]
    return pa.table({"vocab": [json.dumps(sorted(model["vocab"].items()))], "merges": [json.dumps(model["merges"])]})


def _kinds(store: Store, ref: ObjectRef) -> pa.Table:
    """Of a list of pointers what they point to; digests of Parquet are those of one pyarrow."""
    listed = sorted((item.kind, item.records) for item in read_refs(store, ref))
    return pa.table({"kind": [kind for kind, _ in listed], "records": [records for _, records in listed]})


def _work(store: Store, ref: ObjectRef) -> pa.Table:
    """Of merged receipts which stages they are of; their order is that of digests."""
    receipts = [Receipt.model_validate_json(line) for line in read_object(store, ref).splitlines()]
    return pa.table({"stage": sorted(receipt.stages[-1].name for receipt in receipts)})


_READ: dict[str, Callable[[Store, ObjectRef], pa.Table]] = {
    "pack": _windows,
    "tokenizer": _vocabulary,
    "refs": _kinds,
    "receipts": _work,
}


def _hash(field: pa.Field, parts: Sequence[pa.ChunkedArray]) -> str:
    # 4 decimals: language scores of two builds of fastText agree to there (filters/language.py)
    values = [[_shown(v) for v in part.to_pylist()] for part in parts]
    return hashlib.sha256(canonical([str(field.type), values])).hexdigest()[:16]


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return [_shown(item) for item in value]
    if isinstance(value, dict):
        return {name: _shown(item) for name, item in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    return round(value, 4) if isinstance(value, float) else value
