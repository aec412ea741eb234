"""`sample`: a few documents of a version to look at, the same ones for the same seed.

Kept documents come from the shards. Of dropped and quarantined ones the ledger has the fate, and the text that
extraction stored is found through the receipts of the run, by (input, ordinal), as long as gc has left it there;
where it is gone, or never was, the sample says why. Positions are drawn before anything is read, then only the
row groups they lie in (of the ledger lake/query/draws.py).
"""

from __future__ import annotations

import json
import random
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts.receipt import FATES, Receipt
from gristmill.lake.query.draws import draw_rows, scalar
from gristmill.lake.query.grouped import rows_in_tar, tars_of
from gristmill.lake.query.why import Place, names_of, place_of
from gristmill.lake.store.base import NotFound, Store
from gristmill.lake.store.objects import ObjectRef, open_parquet, read_object
from gristmill.lake.takedown.suppress import DIGESTS, Suppression
from gristmill.lake.versions.catalogue import Catalogue
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import NoSuchVersion, Versions

MEDIA = "media"
"""The column of images, clips and videos that a record has."""
TAKEN_DOWN = "it was taken down (`grist forget`)"
GONE = "its text is no longer in the lake (gc removed it); running the same inputs again extracts it again"
NEVER = "it left the pipeline before it had a text"
IN_SOURCE = "its text is in the version that the mixture was made from"
UNKNOWN = "this version keeps no receipts, so nothing says where its text is"


@dataclass(frozen=True)
class SampledRecord:
    """One record. `fields` are its other columns, of the shard, or of ledger and extraction; of its media what they
    are, and their bytes only where they were asked for."""

    id: str | None
    fate: str
    reason: str | None
    value: str | None
    text: str | None
    why_no_text: str | None
    place: Place | None
    fields: dict[str, Any]


@dataclass(frozen=True)
class Drawn:
    """`samples` of the `population` records that were asked for, in the order in which they stand."""

    version: str
    population: int
    samples: tuple[SampledRecord, ...]

    def without_data(self) -> Drawn:
        """The same records without the bytes of their media."""
        samples = tuple(replace(record, fields=_without_data(record.fields)) for record in self.samples)
        return replace(self, samples=samples)


def sample(
    versions: Versions,
    manifest: Manifest,
    n: int = 5,
    *,
    seed: int = 0,
    fate: str | None = None,
    reason: str | None = None,
    data: bool = False,
) -> Drawn:
    """At most `n` records of one fate (default: kept), or with one reason. `data`: with the bytes of their media.

    Raises ValueError (n, fate), LookupError for a reason that this version has not, or a version without records.
    """
    if n < 1:
        raise ValueError(f"sample: n is {n}; it has to be at least 1")
    if fate is not None and fate not in FATES:
        raise ValueError(f"sample: fate {fate!r}; allowed: {', '.join(FATES)}")
    if manifest.layout.shown is None:
        raise NoSuchVersion(f"{manifest} holds no records, but {manifest.layout.called}")
    rng = random.Random(f"{seed}:{manifest.digest}")  # the same records on every machine, for equal data
    if fate in (None, "kept") and reason is None:
        drawn = _kept(versions.store, manifest, n, rng)
    else:
        drawn = _fated(versions, manifest, n, rng, fate, reason)
    return drawn if data else drawn.without_data()


def _draw(rng: random.Random, population: int, n: int) -> list[int]:
    """Positions in order, so that each row group is read once."""
    return sorted(rng.sample(range(population), min(n, population)))


def _kept(store: Store, manifest: Manifest, n: int, rng: random.Random) -> Drawn:
    """`sample` of kept records: drawn from the shards, whose rows and groups are all kept."""
    tars = tars_of(manifest)
    shards = [ref for ref in manifest.shards if manifest.layout.holds(ref.kind) != "index"]
    ends = list(accumulate(tars[ref.sha256][1].records if ref.sha256 in tars else ref.records for ref in shards))
    population = ends[-1] if ends else 0
    rows: list[dict[str, Any]] = []
    for i, at in _grouped(_draw(rng, population, n), ends):
        ref = shards[i]
        rows += rows_in_tar(store, ref, *tars[ref.sha256], at) if ref.sha256 in tars else _rows_at(store, ref, at)
    column = manifest.layout.text
    samples = [
        SampledRecord(
            id=row.get("id"),
            fate="kept",
            reason=None,
            value=None,
            text=row.get(column),
            why_no_text=_why_no_text(row, column),
            place=None,
            fields={k: v for k, v in row.items() if k not in ("id", column)},
        )
        for row in rows
    ]
    return Drawn(str(manifest), population, tuple(samples))


def _why_no_text(row: Mapping[str, Any], column: str) -> str | None:
    if column not in row:
        return f"the shards of this dataset have no column `{column}`"
    return f"this record has no `{column}`" if row[column] is None else None


def _grouped(positions: Sequence[int], ends: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """(part, positions in it) of positions over parts laid end to end; `ends` are cumulative sizes."""
    parts: dict[int, list[int]] = {}
    for position in positions:
        i = bisect_right(ends, position)
        parts.setdefault(i, []).append(position - (ends[i - 1] if i else 0))
    yield from parts.items()


def _rows_at(store: Store, ref: ObjectRef, positions: Sequence[int]) -> list[dict[str, Any]]:
    """The rows of a Parquet object at these positions; reads only their row groups."""
    rows: list[dict[str, Any]] = []
    with open_parquet(store, ref) as file:
        sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        for g, at in _grouped(positions, list(accumulate(sizes))):
            group = file.read_row_group(g)  # not `take`, which imports pandas
            rows.extend(row for place in at for row in group.slice(place, 1).to_pylist())
    return rows


def _without_data(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose media have their sizes in place of their bytes, and nothing that only others of their kind have."""
    if not row.get(MEDIA):
        return row
    shown = [{**item, "data": None, "bytes": len(item["data"] or b"")} for item in row[MEDIA]]
    return {**row, MEDIA: [{k: v for k, v in item.items() if v is not None} for item in shown]}


def _fated(
    versions: Versions, manifest: Manifest, n: int, rng: random.Random, fate: str | None, reason: str | None
) -> Drawn:
    """`sample` of records that were not kept, or of one reason: drawn from the ledger."""
    known: dict[str, str] = {}  # reason -> the fate that it gives
    for row in manifest.funnel:
        known |= dict.fromkeys(row.dropped, "dropped") | dict.fromkeys(row.quarantined, "quarantined")
    if reason is not None and reason not in known:
        have = ", ".join(known) or "none"
        raise NoSuchVersion(f"{manifest} has no record with reason {reason!r}; it has {have}")

    fate = fate or known[str(reason)]
    of_fate, of_reason = scalar(fate), None if reason is None else scalar(reason)

    def wanted(table: pa.Table) -> pa.ChunkedArray:
        hit = pc.equal(table["fate"], of_fate)
        return hit if of_reason is None else pc.and_(hit, pc.equal(table["reason"], of_reason))

    reasons = (row.dropped if fate == "dropped" else row.quarantined for row in manifest.funnel)
    population = {"kept": manifest.kept, "dropped": manifest.dropped, "quarantined": manifest.quarantined}[fate].count
    if reason is not None:
        population = sum(counts.get(reason, 0) for counts in reasons)
    drawn = draw_rows(versions.store, manifest.fates, wanted, n, rng)
    population = population if drawn.all_there_are is None else drawn.all_there_are
    return Drawn(str(manifest), population, of_ledger(versions, manifest, drawn.rows))


def of_ledger(versions: Versions, manifest: Manifest, rows: Sequence[dict[str, Any]]) -> tuple[SampledRecord, ...]:
    """These rows of a version's ledger, each with its text, or why it has none."""
    catalogue = Catalogue(versions)
    texts = _texts(catalogue, manifest, rows)
    names = names_of((manifest, *catalogue.ancestors(manifest)))
    return tuple(_ledger_sample(row, texts, names) for row in rows)


def _ledger_sample(
    row: dict[str, Any], texts: dict[tuple[str, int], dict[str, Any] | str], names: dict[str, tuple[str, ...]]
) -> SampledRecord:
    """A record of the ledger with its text, or why it has none. `texts`: as `_texts` gives them."""
    text = texts[row["input"], row["ordinal"]]
    extracted = text if isinstance(text, dict) else {}
    fields = {k: row[k] for k in ("stage", "survivor")}
    fields |= {k: v for k, v in extracted.items() if k not in row and k != "text"}
    return SampledRecord(
        id=row["id"],
        fate=row["fate"],
        reason=row["reason"],
        value=row["value"],
        text=extracted.get("text"),
        why_no_text=None if isinstance(text, dict) else text,
        place=place_of(row, names),
        fields=fields,
    )


def _texts(
    catalogue: Catalogue, manifest: Manifest, rows: Sequence[dict[str, Any]]
) -> dict[tuple[str, int], dict[str, Any] | str]:
    """For each row its extracted document, or why there is none."""
    reasons = {(row["input"], row["ordinal"]): row["reason"] for row in rows}
    taken = {(row["input"], row["ordinal"]): TAKEN_DOWN for row in rows if row["stage"] == "forget"}
    keys = [key for key in reasons if key not in taken]
    if manifest.layout.shown == "stretches":
        return {**dict.fromkeys(keys, IN_SOURCE), **taken}
    store = catalogue.versions.store
    receipts = _receipts(catalogue, manifest, {digest for digest, _ in keys})
    texts: dict[tuple[str, int], dict[str, Any] | str] = dict.fromkeys(keys, NEVER if receipts else UNKNOWN)
    for receipt in receipts:
        for ref in receipt.outputs:
            missing = {key for key in keys if key[0] in receipt.inputs and not isinstance(texts[key], dict)}
            if ref.kind != "text" or not missing:
                continue
            try:
                texts |= _read_texts(store, ref, missing)
            except NotFound:
                texts |= {key: GONE for key in missing if _may_hold(receipt, key[1], reasons[key])}
    return texts | _forgotten(store, texts) | taken


def _forgotten(
    store: Store, texts: Mapping[tuple[str, int], dict[str, Any] | str]
) -> dict[tuple[str, int], dict[str, Any] | str]:
    """Of these, what is on the suppression list: a text that was dropped for another reason stays until gc."""
    rows, suppressed = {k: row for k, row in texts.items() if isinstance(row, dict)}, Suppression.load(store)
    if not rows or not suppressed:
        return {}
    ids, urls = ([row.get(name) for row in rows.values()] for name in ("id", "url"))
    digests = pa.array([row.get(DIGESTS) or [] for row in rows.values()], pa.list_(pa.string()))
    hit = suppressed.match_rows(
        pa.table({"id": pa.array(ids, pa.string()), "url": pa.array(urls, pa.string()), DIGESTS: digests})
    )
    return {key: TAKEN_DOWN for key, listed in zip(rows, hit, strict=True) if listed}


def _may_hold(receipt: Receipt, ordinal: int, reason: str | None) -> bool:
    """Whether an extraction (inputs: digest, "first+rows") gave this record a text: covers it, did not drop it."""
    if reason in receipt.reasons or reason in receipt.errors:
        return False
    for item in receipt.inputs:
        first, plus, rows = item.partition("+")
        if plus and first.isdigit() and rows.isdigit():
            return int(first) <= ordinal < int(first) + int(rows)
    return True


def _read_texts(
    store: Store, ref: ObjectRef, asked: set[tuple[str, int]]
) -> dict[tuple[str, int], dict[str, Any] | str]:
    """The extracted documents of these records, as far as they are in this object."""
    with open_parquet(store, ref) as file:
        places = file.read(["input", "ordinal"])
    there = enumerate(zip(places["input"].to_pylist(), places["ordinal"].to_pylist(), strict=True))
    rows = _rows_at(store, ref, [number for number, place in there if place in asked])
    return {(row["input"], row["ordinal"]): row for row in rows}


def _receipts(catalogue: Catalogue, manifest: Manifest, inputs: set[str]) -> list[Receipt]:
    """Receipts about these inputs: those that the version has, which are all of those it extends unless a release
    before did not take them over, and those of the versions that brought the inputs in. One may stand in several."""
    receipts, seen = dict[str, Receipt](), set[str]()
    versions = catalogue.versions
    brought = (a for a in catalogue.ancestors(manifest) if any(file.digest in inputs for file in a.inputs))
    holders = (manifest, *(versions.manifest(a.dataset, a.version) for a in brought))
    wanted = [digest.encode() for digest in inputs]
    for ref in (ref for holder in holders for ref in holder.attachments):
        if ref.kind != "receipts" or ref.sha256 in seen:
            continue
        seen.add(ref.sha256)
        for line in read_object(versions.store, ref).splitlines():
            if not any(digest in line for digest in wanted):  # of a hundred thousand lines a few are looked into
                continue
            fields = json.loads(line)
            if fields["work_key"] not in receipts and inputs & set(fields["inputs"]):
                receipts[fields["work_key"]] = Receipt.model_validate_json(line)
    return list(receipts.values())
