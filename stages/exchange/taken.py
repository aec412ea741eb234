"""What was taken down does not leave: asked before the first byte is written, and again before an export is said to be
whole.

`grist forget` withdraws each version that holds a record; one that was broken off has put its request on the list, and
the version is still given out. Such a version is refused as a whole: an export without some of its records would not be
the version. Of shards only ids, URLs and digests of media are read. Windows have no URL: for a request that names one,
the records of their sources are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts import media
from gristmill.lake.accounts.fan import MEMBER
from gristmill.lake.store.base import NotFound
from gristmill.lake.store.objects import ObjectRef, iter_batches, open_parquet
from gristmill.lake.takedown.suppress import DIGESTS, Suppression
from gristmill.lake.takedown.suppress_guard import guarded_list
from gristmill.lake.versions.catalogue import Catalogue
from gristmill.lake.versions.manifest import Manifest, VersionRef
from gristmill.lake.versions.versions import NoSuchVersion, Versions

_MEDIA_DIGEST = "media.list.element.sha256"
_PARENTS = ("parent_id", "parent")
"""Columns with the id of the record that one was made of: of it all goes, or nothing."""


class TakenDown(NoSuchVersion):
    """A version holds what was to be forgotten, and is not given out."""


def check_free(versions: Versions, manifest: Manifest) -> str:
    """The digest of the list of requests, none of which this version holds anything of. Raises TakenDown, NoSuchVersion
    for a version that was withdrawn, ListNotWhole."""
    if (reason := versions.withdrawn(manifest.dataset).get(manifest.version)) is not None:
        raise NoSuchVersion(f"{manifest} was withdrawn ({reason}): its data is no longer given out")
    listed = guarded_list(versions.store)
    held = _held(versions, manifest, listed) if listed else 0
    if held:
        raise TakenDown(
            f"{manifest} holds {held:,} records that were taken down (`grist forget`), and is not exported. Run the"
            " same `grist forget ... --yes` again: it goes on to a version without them"
        )
    return listed.digest


def _held(versions: Versions, manifest: Manifest, listed: Suppression) -> int:
    """How many records of the version are on the list."""
    layout = manifest.layout
    tables = [ref for ref in manifest.shards if layout.id_column_of(ref.kind) is not None]
    held = sum(int(hit.sum()) for ref in tables for hit, _ in _matches(versions, ref, listed))
    if manifest.members:
        gone = _ids_gone(versions, manifest, listed)
        seen: set[str] = set()
        for ref in manifest.members:
            for batch in iter_batches(versions.store, ref, [MEMBER]):
                ids = batch[MEMBER]
                hit = listed.match(ids) | np.asarray(pc.is_in(ids, gone))
                seen.update(ids.filter(pa.array(hit)).to_pylist())
        held += len(seen)
    return held


def _matches(versions: Versions, ref: ObjectRef, listed: Suppression) -> Iterator[tuple[np.ndarray, pa.Array]]:
    """(which rows are on the list, their ids) of a table, batch by batch."""
    with open_parquet(versions.store, ref) as file:
        names = file.schema_arrow.names
    columns = [name for name in ("id", "url", *_PARENTS) if name in names]
    if listed.media and "media" in names:
        columns.append(_MEDIA_DIGEST)
    for batch in iter_batches(versions.store, ref, columns):
        rows = _with_digests(pa.Table.from_batches([batch]))
        hit = listed.match_rows(rows)
        for name in set(_PARENTS) & set(rows.schema.names):
            hit |= listed.match(rows[name])
        yield hit, batch["id"]


def _with_digests(rows: pa.Table) -> pa.Table:
    """With the digests of media as the list is asked by."""
    if "media" not in rows.schema.names:
        return rows
    column = rows["media"].combine_chunks()
    digests = pa.ListArray.from_arrays(column.offsets, pc.struct_field(column.values, "sha256"))
    return rows.drop_columns(["media"]).append_column(DIGESTS, digests)


def _ids_gone(versions: Versions, manifest: Manifest, listed: Suppression) -> pa.Array:
    """Ids of records in tars that the list names by their URL or by a medium."""
    gone: set[str] = set()
    if listed.by_url:
        for source in manifest.sources:
            origin = _given_out(versions, source)
            tables = [ref for ref in origin.shards if origin.layout.id_column_of(ref.kind) is not None]
            try:
                for ref in tables:
                    for hit, ids in _matches(versions, ref, listed):
                        gone.update(ids.filter(pa.array(hit)).to_pylist())
            except NotFound as error:
                raise NoSuchVersion(
                    f"{manifest} was made from {origin}, which is not whole any more: whether it holds what was taken"
                    " down is not known, and it is not exported. Make it again from a version that is given out"
                ) from error
    if listed.media:
        for ref in media.tables_of(manifest.attachments):
            gone |= media.ids_having(versions.store, ref, sorted(listed.media))
    return pa.array(sorted(gone), pa.string())


def _given_out(versions: Versions, source: VersionRef) -> Manifest:
    """A version with the records that `source` had, but for those that were taken down: itself, or where it was
    withdrawn, and may be erased, the first of those on top of it that is given out. Of a takedown that was broken off
    that one still has the records: versions are withdrawn when all that was made of them is clean."""
    withdrawn, catalogue = versions.withdrawn(source.dataset), Catalogue(versions)
    if source.version in withdrawn:
        for number in versions.numbers(source.dataset):
            if number > source.version and number not in withdrawn:
                later = versions.manifest(source.dataset, number)
                if str(source) in map(str, catalogue.ancestors(later)):
                    return later
    return versions.manifest(source.dataset, source.version)
