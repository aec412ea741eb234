"""History: what a version's manifest says of all versions before it, so that a listing of a thousand reads a few files.

Each commit has among its attachments the blocks of summaries that it took over from the version before, and a new one
whenever BLOCK versions more are there; as many blocks of one size become one of the next. So they number with the
logarithm of the versions. They are objects: named by their digest in a sealed manifest, hashed when they are read, kept
by gc with the versions that name them. What they say is derived, so it is never all there is: a summary names the
digest and the size of the manifest that it was made from, `verify` compares the two, and versions without a history (of
an earlier release, or whose blocks are lost) are read one by one.
"""

from __future__ import annotations

import builtins
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from gristmill.lake.accounts.receipt import canonical
from gristmill.lake.store.base import NotFound, Store
from gristmill.lake.store.objects import DamagedObject, Frozen, ObjectRef, brief, put_file, read_object, scratch
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import InputFile, Manifest, VersionRef, stored_bytes

KIND = "history"
FORMAT = 1
BLOCK = 8
"""Versions in the smallest block, and blocks of one size that become one of the next: those that no block has yet are
fewer, and their manifests are read."""


class Summary(Frozen):
    """What questions over many versions ask of each. `manifest` and `manifest_bytes`: sha256 and size of the file that
    it was made from; `previous`: sha256 of the one before. `shards`: how many; `bytes`: of the distinct shards and
    ledgers; `ledgers`: kinds of these. `stages`: name -> VERSION."""

    dataset: str
    version: int
    manifest: str
    manifest_bytes: int
    previous: str | None
    digest: str
    form: Form
    parent: VersionRef | None
    sources: tuple[VersionRef, ...]
    inputs: tuple[InputFile, ...]
    received: int
    kept: int
    dropped: int
    quarantined: int
    shards: int
    bytes: int
    ledgers: tuple[str, ...]
    at: str | None
    commit: str | None
    dirty: bool | None
    recipe: dict[str, Any]
    stages: dict[str, int | str]

    @classmethod
    def of(cls, manifest: Manifest, file: builtins.bytes) -> Summary:
        """Of a manifest, with its lists unfolded, and the bytes in its slot."""
        return cls(
            dataset=manifest.dataset,
            version=manifest.version,
            manifest=hashlib.sha256(file).hexdigest(),
            manifest_bytes=len(file),
            previous=manifest.previous,
            digest=manifest.digest,
            form=manifest.form,
            parent=manifest.parent,
            sources=manifest.sources,
            inputs=manifest.inputs,
            received=manifest.received.count,
            kept=manifest.kept.count,
            dropped=manifest.dropped.count,
            quarantined=manifest.quarantined.count,
            shards=len(manifest.shards),
            bytes=stored_bytes(manifest),
            ledgers=tuple(sorted({ref.kind for ref in manifest.ledgers})),
            at=manifest.made.get("at"),
            commit=manifest.made.get("commit"),
            dirty=manifest.made.get("dirty"),
            recipe=manifest.recipe,
            stages={stage.name: stage.edition for stage in manifest.stages},
        )

    @property
    def ref(self) -> VersionRef:
        """A pointer to this version."""
        return VersionRef(dataset=self.dataset, version=self.version, digest=self.digest)

    @property
    def fingerprint(self) -> str:
        """A digest of all that it says."""
        return hashlib.sha256(canonical(self.model_dump(mode="json"))).hexdigest()

    def __str__(self) -> str:
        return f"{self.dataset}@v{self.version}"


def blocks_of(attachments: Sequence[ObjectRef]) -> tuple[ObjectRef, ...]:
    """The blocks among the attachments of a version, which cover versions 1 to `covered`; none where they do not
    follow one another."""
    blocks = tuple(ref for ref in attachments if ref.kind == KIND)
    follows = 1
    for ref in blocks:
        if not (ref.first.isdigit() and ref.last.isdigit()) or int(ref.first) != follows:
            return ()
        follows = int(ref.last) + 1
    return blocks


def covered(blocks: Sequence[ObjectRef]) -> int:
    """The last version that blocks tell of; 0 for none."""
    return int(blocks[-1].last) if blocks else 0


def extended(
    store: Store, name: str, blocks: Sequence[ObjectRef], upto: int, summary: Callable[[int], Summary]
) -> tuple[ObjectRef, ...]:
    """The blocks that tell of versions 1 to `upto` of a dataset, as far as these are whole blocks; `blocks`: those of
    an earlier version. `summary` reads a version, and its ValueError (a manifest that cannot be read) ends the history
    before it.
    """
    grown = list(blocks)
    while (first := covered(grown) + 1) + BLOCK - 1 <= upto:
        try:
            grown.append(put_block(store, [summary(number) for number in range(first, first + BLOCK)]))
            while len(grown) >= BLOCK and len({ref.records for ref in grown[-BLOCK:]}) == 1:
                rows = [row for ref in grown[-BLOCK:] for row in _rows(store, name, ref, summary)]
                grown[-BLOCK:] = [put_block(store, rows)]
        except ValueError:
            break
    return tuple(grown)


def _rows(store: Store, name: str, ref: ObjectRef, summary: Callable[[int], Summary]) -> list[Summary]:
    """What a block tells; of one that is lost or damaged what the manifests do: no commit fails for it."""
    try:
        return read_block(store, name, ref)
    except (NotFound, DamagedObject, ValueError):
        return [summary(number) for number in range(int(ref.first), int(ref.last) + 1)]


def put_block(store: Store, summaries: Sequence[Summary]) -> ObjectRef:
    """Stores summaries of consecutive versions; recipes and stages, which many versions share, once each."""
    made_by: dict[bytes, int] = {}
    versions = []
    for row in summaries:
        key = canonical([row.recipe, row.stages])
        fields = row.model_dump(mode="json", exclude={"recipe", "stages"})
        versions.append({**fields, "made_by": made_by.setdefault(key, len(made_by))})
    block = {"format": FORMAT, "made_by": [json.loads(key) for key in made_by], "versions": versions}
    first, last = (f"{summaries[at].version:08d}" for at in (0, -1))
    with scratch() as folder:
        path = folder / "history.json"
        path.write_bytes(canonical(block))
        return put_file(store, KIND, path, len(summaries), first=first, last=last)


def read_block(store: Store, name: str, ref: ObjectRef) -> list[Summary]:
    """The summaries of a block of a dataset, in order. Raises DamagedObject, NotFound, ValueError for one of a newer
    release, or that tells of other versions than its pointer says."""
    try:
        block = json.loads(read_object(store, ref))
        if block["format"] != FORMAT:
            raise ValueError(f"it has format {block['format']}, this gristmill reads {FORMAT}")
        rows = [_summary(**fields, of=block["made_by"]) for fields in block["versions"]]
        if [str(row) for row in rows] != [f"{name}@v{n}" for n in range(int(ref.first), int(ref.last) + 1)]:
            raise ValueError(f"it does not tell of {name}@v{ref.first} to v{ref.last}")
    except NotFound:
        raise
    except (LookupError, TypeError, ValueError) as error:  # whatever may stand in a file
        raise ValueError(f"history {ref.sha256[:12]}: {brief(error)}") from error
    return rows


def _summary(*, of: Sequence[Sequence[Any]], made_by: int, **fields: Any) -> Summary:
    """A row of a block, whose recipes and stages are `of`."""
    recipe, stages = of[made_by]
    return Summary(**fields, recipe=recipe, stages=stages)
