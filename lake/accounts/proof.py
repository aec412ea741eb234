"""Proof of one object: its bytes are hashed, its rows decoded, and what versions need to compare is summed up.

An object is read once however many versions share it. What is kept of it is a few numbers: tallies do not depend
on order and add up, so that the rows of a version are compared with its manifest, and the ids in its shards with
the kept ids of its ledger, in constant memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import FATES
from gristmill.lake.store.base import NotFound, Store
from gristmill.lake.store.objects import ObjectRef, iter_batches

_BLOCK = 1 << 20
_PARQUET = b"PAR1"


@dataclass(frozen=True)
class Proof:
    """`problem` is (kind, message) of the first thing wrong, or None.

    `fates`: tally of each fate by (input, ordinal), of a ledger. `ids`: tally of the ids of a shard of records, or of
    the kept ids of a ledger; None for any other object. `first`, `last`: ids of a ledger's first and last row.
    `twice`: an id that a ledger keeps twice, which only a mixture may.
    """

    ref: ObjectRef
    problem: tuple[str, str] | None = None
    fates: dict[str, Tally] = field(default_factory=dict)
    ids: Tally | None = None
    first: str = ""
    last: str = ""
    twice: str = ""


class _Wrong(ValueError):
    """What the object holds is not what it should."""


def prove(store: Store, ref: ObjectRef, id_column: str | None = None) -> Proof:
    """Reads the whole object. `id_column`: where its rows, one a record, have the record's id; None: they are none.

    Only errors of the object itself become a problem; others are raised.
    """
    try:
        digest, magic = _hash(store, ref)
    except NotFound:
        return Proof(ref, ("missing", "is not in the store"))  # it was a moment ago: it is deleted right now
    except OSError as error:  # a bad sector; a store that cannot deliver
        return Proof(ref, ("unreadable", f"cannot be read: {error}"))
    if digest != ref.sha256:
        return Proof(ref, ("corrupt", f"its bytes have sha256 {digest}: they changed since they were written"))
    try:
        if ref.kind == "ledger":
            return _ledger(store, ref)
        if magic == _PARQUET:
            return _table(store, ref, id_column)
        if id_column is not None:
            raise _Wrong("is a shard of records and no Parquet")
        return Proof(ref)
    except _Wrong as error:
        return Proof(ref, (_kind(ref), str(error)))
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:  # TypeError: a null in a key
        first = (str(error).splitlines() or [""])[0]
        problem = f"has the right digest but cannot be decoded ({type(error).__name__}: {first})"
        return Proof(ref, (_kind(ref), problem))


def _kind(ref: ObjectRef) -> str:
    return "ledger" if ref.kind == "ledger" else "rows"


def _hash(store: Store, ref: ObjectRef) -> tuple[str, bytes]:
    """(sha256, the first four bytes) of an object. Raises NotFound, OSError."""
    digest, magic = hashlib.sha256(), b""
    with store.open(ref.key) as source:
        while block := source.read(_BLOCK):
            magic = magic or block[:4]
            digest.update(block)
    return digest.hexdigest(), magic


def _table(store: Store, ref: ObjectRef, id_column: str | None) -> Proof:
    """Every row decoded and counted, every id added up. Raises _Wrong, and what decoding raises."""
    rows, ids = 0, Tally()
    for batch in iter_batches(store, ref):
        rows += batch.num_rows
        if id_column is not None:
            if id_column not in batch.schema.names:
                raise _Wrong(f"is a shard of records without a column {id_column!r} that names them")
            ids += tally_ids(batch.column(id_column))
    if rows != ref.records:
        raise _Wrong(f"holds {rows:,} rows, its pointer says {ref.records:,}")
    return Proof(ref, ids=None if id_column is None else ids)


def _ledger(store: Store, ref: ObjectRef) -> Proof:
    """The same of a ledger, and that it is sorted, as lookups believe. Raises _Wrong, and what decoding raises."""
    rows, fates, ids = 0, {fate: Tally() for fate in FATES}, Tally()
    last: tuple[str, str, int] | None = None
    first, twice, kept_before = "", "", ""
    for batch in iter_batches(store, ref, list(ledger.SCHEMA.names)):
        table = pa.Table.from_batches([batch])
        try:
            last = ledger.check_sorted(table, last)
        except ValueError as error:
            raise _Wrong(str(error)) from error
        first = first or table["id"][0].as_py()  # an id is never empty
        rows += table.num_rows
        for fate, tally in ledger.tallies(table).items():
            fates[fate] += tally
        kept = table.filter(pc.equal(table["fate"], "kept"))["id"]
        for record in kept.to_pylist():  # sorted, so that an id that is kept twice stands next to itself
            twice = twice or (record if record == kept_before else "")
            kept_before = record
        ids += tally_ids(kept)
    final = last[0] if last else ""
    if rows != ref.records:
        raise _Wrong(f"holds {rows:,} rows, its pointer says {ref.records:,}")
    if (counted := sum(tally.count for tally in fates.values())) != rows:
        raise _Wrong(f"{rows - counted:,} of {rows:,} rows have a fate other than {', '.join(FATES)}")
    if (first, final) != (ref.first, ref.last):
        raise _Wrong(f"ids run from {first} to {final}, its pointer says {ref.first} to {ref.last}: lookups miss rows")
    return Proof(ref, None, fates, ids, first, final, twice)


def tally_ids(ids: pa.Array | pa.ChunkedArray) -> Tally:
    """The tally of these ids, strings."""
    return Tally.of(str(record).encode() for record in ids.to_pylist())


def id_batches(store: Store, ref: ObjectRef, prefix: str, id_column: str = "id") -> Iterator[list[str]]:
    """Ids of a table of records, or kept ids of a ledger, that begin with `prefix`; a batch at a time."""
    columns = [id_column, "fate"] if ref.kind == "ledger" else [id_column]
    for batch in iter_batches(store, ref, columns):
        hit = pc.starts_with(batch.column(id_column), prefix)
        if ref.kind == "ledger":
            hit = pc.and_(hit, pc.equal(batch.column("fate"), "kept"))
        yield batch.column(id_column).filter(hit).to_pylist()
