"""`replay`: what other thresholds of its filters would keep of a version, from the measures that it stores.

Each version of a chain is judged with its own recipe, over which the settings are laid. What becomes of records behind
the filters is looked up in the ledger for those that would be dropped, and not replayed for those that would come in:
of them there is a bound, since exact duplicates can be counted by their stored hashes, and other steps only drop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.redact import redact
from gristmill.lake.accounts.receipt import canonical
from gristmill.lake.query.sampling import SampledRecord, of_ledger
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, iter_batches, read_refs, read_table
from gristmill.lake.versions.catalogue import Catalogue
from gristmill.lake.versions.history import Summary
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.replay.asked import Asked, asked_of
from gristmill.pipelines.replay.verdicts import PASSES, Places, Verdicts, is_among
from gristmill.stages.core.records import VERDICTS
from gristmill.stages.read.suppress import FORGET

KEPT = "kept"


@dataclass(frozen=True)
class Example:
    """A record whose verdict changes, and the `value` of the `measure` that decides: of the new reason, or of the old
    one where there is no new one; redacted."""

    record: SampledRecord
    measure: str | None
    value: str | float | None


@dataclass(frozen=True)
class Change:
    """`records` that the version's ledger has under `before`, a reason or "kept", and a replay under `after`, a reason
    or PASSES. `examples`: those with the smallest ids, which are hashes."""

    before: str
    after: str
    records: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Replay:
    """`settings`: (dotted key, in the version, asked). `verdicts`: (reason, "kept" or PASSES; records before; after).

    `asked`: records that came to the filters; no setting of a filter changes the fate of the others. `passed`: those
    that no filter drops now, of which `unmeasured` never came to the later ones. `kept_at_most`: of those that pass, as
    many have different contents; exactly so many are kept where `is_exact`, because nothing but exact duplicates is
    dropped behind the filters.
    """

    version: str
    settings: tuple[tuple[str, Any, Any], ...]
    received: int
    asked: int
    verdicts: tuple[tuple[str, int, int], ...]
    changes: tuple[Change, ...]
    passed: int
    unmeasured: int
    kept_at_most: int
    is_exact: bool


def replay(versions: Versions, manifest: Manifest, settings: Sequence[str], examples: int = 3) -> Replay:
    """What these settings (`recipe.gopher_quality.min_words=80`) would come to, with so many examples of each change.

    Raises BadConfig for what cannot be replayed, ValueError where measures and reasons do not agree, NotFound for a
    table that gc took with a withdrawn version.
    """
    store = versions.store
    ancestors = list(Catalogue(versions).ancestors(manifest))
    brought = [*manifest.inputs, *(file for ancestor in ancestors for file in ancestor.inputs)]
    at = Places(list(dict.fromkeys(file.digest for file in brought)))
    verdicts = Verdicts(at, _forgotten(store, manifest, at))
    parts = [(asked_of(part, settings), tables) for part, tables in _parts(versions, manifest, ancestors)]
    for asked, tables in parts:
        verdicts.add(store, tables, asked)
    moved = _Moved(verdicts, examples)
    moved.look_up(store, manifest)
    return Replay(
        version=str(manifest),
        settings=_different([change for asked, _ in parts for change in asked.settings]),
        received=manifest.received.count,
        asked=verdicts.asked,
        verdicts=_table(manifest, moved.counts),
        changes=moved.changes(versions, manifest, [asked for asked, _ in parts]),
        passed=sum(map(len, verdicts.contents)),
        unmeasured=verdicts.unmeasured,
        kept_at_most=verdicts.distinct(),
        is_exact=all(asked.only_exact for asked, _ in parts) and not (len(verdicts.forgotten) or verdicts.unmeasured),
    )


def _different(settings: Sequence[tuple[str, Any, Any]]) -> tuple[tuple[str, Any, Any], ...]:
    """Each once, in order: parts of a chain may have the same ones. Values are lists and sections too."""
    return tuple(change for n, change in enumerate(settings) if change not in settings[:n])


def _parts(
    versions: Versions, manifest: Manifest, ancestors: Sequence[Summary]
) -> list[tuple[Manifest, list[ObjectRef]]]:
    """The versions with a recipe of their own, of this one and its ancestors (newest first), each with the tables of
    measures of what was read with that recipe."""
    newest, made_by = manifest, canonical([manifest.recipe, {s.name: s.version for s in manifest.stages}])
    parts = []
    tables = _tables(versions.store, newest)
    for ancestor in ancestors:
        its = canonical([ancestor.recipe, ancestor.stages])
        if its == made_by:
            continue
        older = versions.manifest(ancestor.dataset, ancestor.version)
        earlier = _tables(versions.store, older)
        parts.append((newest, [ref for sha, ref in tables.items() if sha not in earlier]))
        newest, made_by, tables = older, its, earlier
    return [*parts, (newest, list(tables.values()))]


def _tables(store: Store, manifest: Manifest) -> dict[str, ObjectRef]:
    """The filters' tables that a version has, by digest; those of what it extends are among them."""
    lists = [ref for ref in manifest.attachments if ref.kind == "refs"]
    return {ref.sha256: ref for listed in lists for ref in read_refs(store, listed) if ref.kind == VERDICTS}


def _forgotten(store: Store, manifest: Manifest, at: Places) -> np.ndarray:
    """Sorted places of records that were taken down after they had been judged."""
    if not any(row.stage == FORGET for row in manifest.funnel):
        return np.zeros(0, np.uint64)
    is_forgotten = pc.field("stage") == FORGET
    rows = [read_table(store, ref, ["input", "ordinal"], is_forgotten) for ref in manifest.fates]
    return np.sort(np.concatenate([np.zeros(0, np.uint64), *map(at.of, rows)]))


@dataclass
class _Moved:
    """The records that change, with the labels that they have in the ledger."""

    verdicts: Verdicts
    wanted: int
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    rows: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)

    def look_up(self, store: Store, manifest: Manifest) -> None:
        """Reads the ledger once. Raises ValueError where it has not each of the records once."""
        places, labels, _ = self.verdicts.changes()
        names = pa.array(self.verdicts.names, pa.string())
        for ref in manifest.fates if len(places) else ():
            for batch in iter_batches(store, ref):
                at = self.verdicts.at.of(batch)
                hit = np.flatnonzero(is_among(at, places))
                rows = batch.take(pa.array(hit))
                before = pc.coalesce(rows["reason"], rows["fate"])
                after = names.take(pa.array(labels[np.searchsorted(places, at[hit])]))
                self._add(rows, before, after)
        if sum(self.counts.values()) != len(places):
            raise ValueError(
                f"{len(places):,} records change, of which the ledger of {manifest} has {sum(self.counts.values()):,}:"
                " its measures are not those of its records; `grist verify` says what is damaged"
            )

    def _add(self, rows: pa.RecordBatch, before: pa.Array, after: pa.Array) -> None:
        pairs = pa.table({"before": before, "after": after})
        for row in pairs.group_by(["before", "after"]).aggregate([([], "count_all")]).to_pylist():
            pair = (row["before"], row["after"])
            self.counts[pair] += row["count_all"]
            here = pc.and_(pc.equal(before, pair[0]), pc.equal(after, pair[1]))
            fresh = rows.filter(here).slice(0, self.wanted).to_pylist()  # in order of id, as ledgers are
            both = sorted([*self.rows.get(pair, ()), *fresh], key=lambda row: (row["id"], row["input"], row["ordinal"]))
            self.rows[pair] = both[: self.wanted]

    def changes(self, versions: Versions, manifest: Manifest, asked: Sequence[Asked]) -> tuple[Change, ...]:
        """The most frequent first, with texts of their examples."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        rows = [(pair, row) for pair, _ in ordered for row in self.rows[pair]]
        records = of_ledger(versions, manifest, [row for _, row in rows])
        evidence = _Evidence(versions.store, self.verdicts, asked)
        examples: dict[tuple[str, str], list[Example]] = {}
        for (pair, row), record in zip(rows, records, strict=True):
            measure = evidence.column(pair[1]) or evidence.column(pair[0])
            value = None if measure is None else evidence.value(row, measure)
            examples.setdefault(pair, []).append(Example(record, measure, value))
        return tuple(Change(*pair, n, tuple(examples.get(pair, ()))) for pair, n in ordered)


class _Evidence:
    """Values of measures, looked up for single records."""

    def __init__(self, store: Store, verdicts: Verdicts, asked: Sequence[Asked]) -> None:
        self._store, self._verdicts = store, verdicts
        self._places, _, self._tables = verdicts.changes()
        filters = [own for each in asked for screen in each.screens for own in screen.filters]
        self._columns = {
            f"{own.name}.{reason}": f"{own.name}.{column}" for own in filters for reason, column in own.evidence.items()
        }

    def column(self, reason: str) -> str | None:
        """The measure that a reason is about; None for what is no filter's reason."""
        return self._columns.get(reason)

    def value(self, row: dict[str, Any], measure: str) -> str | float | None:
        """What a record of the ledger has for a measure, redacted."""
        place = self._verdicts.at.of(pa.table({"input": [row["input"]], "ordinal": [row["ordinal"]]}))
        ref = self._verdicts.refs[self._tables[np.searchsorted(self._places, place[0])]]
        here = (pc.field("input") == row["input"]) & (pc.field("ordinal") == row["ordinal"])
        value: str | float | None = read_table(self._store, ref, [measure], here)[measure][0].as_py()
        return redact(value) if isinstance(value, str) else value


def _table(manifest: Manifest, moved: Counter[tuple[str, str]]) -> tuple[tuple[str, int, int], ...]:
    """The fates of all records, by reason, before and after; in the order of the funnel, kept ones last."""
    before: dict[str, int] = {}
    for row in manifest.funnel:
        before |= {reason: n + before.get(reason, 0) for reason, n in (*row.dropped.items(), *row.quarantined.items())}
    after = Counter({**before, KEPT: manifest.kept.count})
    for (old, new), n in moved.items():
        after[old] -= n
        after[new] += n
    order = [*before, *(name for name in after if name not in before and name not in (KEPT, PASSES)), KEPT]
    rows = [(name, {**before, KEPT: manifest.kept.count}.get(name, 0), after[name]) for name in order]
    return (*rows, (PASSES, 0, after[PASSES])) if after[PASSES] else tuple(rows)
