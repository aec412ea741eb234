"""Datasets whose records lie in tars: images, one group of files a record; and what anybody finds in such tars."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from forget_lake import doc_id

from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.fan import MEMBERS
from gristmill.lake.accounts.identity import digest_of
from gristmill.lake.accounts.receipt import StageId
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_file, put_table, read_object
from gristmill.lake.store.scratch import scratch
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.manifest import Draft, FunnelRow, Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.model.shards.files import ShardFile, ShardReader, ShardWriter


def secret(name: str) -> bytes:
    """What only this record's picture has."""
    return hashlib.sha256(name.encode()).hexdigest().encode()


def image_id(name: str) -> str:
    """The record id of the picture of this name: 32 hex characters."""
    return doc_id(f"https://example.org/{name}")


def asked(*names: str) -> Suppression:
    """A request to forget the pictures of these names."""
    return Suppression.of(ids=[image_id(name) for name in names])


def put_tar(
    store: Store, names: Sequence[Sequence[str]], number: int, drawn: Callable[[str], bytes] = secret
) -> tuple[ObjectRef, ObjectRef, ObjectRef]:
    """A tar of one group for each of `names` (more than one name: a group that records share), index and members.
    `drawn`: the file of a name."""
    rows: list[dict[str, Any]] = []
    with scratch() as folder:
        with ShardWriter(folder / "tar", folder / "index") as writer:
            for at, group in enumerate(names):
                key = f"{number:06d}-{at:06d}"
                picture = b"".join(drawn(name) for name in group)
                writer.write(key, {"format": 1, "ids": [image_id(name) for name in group]}, {}, {"image.jpg": picture})
                rows += [
                    {"pack": key, "position": n, "source": "pictures", "member": image_id(name), "epoch": 0}
                    | {"start": 0, "length": 1}
                    for n, name in enumerate(group)
                ]
        tar, index = (put_file(store, kind, folder / kind, len(names)) for kind in ("tar", "index"))
    return tar, index, put_table(store, "members", pa.Table.from_pylist(rows, schema=MEMBERS))


def pictures(
    store: Store,
    *tars: Sequence[Sequence[str]],
    dataset: str = "pictures",
    drawn: Callable[[str], bytes] = secret,
) -> Manifest:
    """A version of images: each tar with the groups named; `drawn` as of `put_tar`."""
    written = [put_tar(store, groups, number, drawn) for number, groups in enumerate(tars)]
    names = [name for groups in tars for group in groups for name in group]
    digest = digest_of(dataset, *names)
    table = ledger.sort(pa.Table.from_pylist([_fate(name, digest, n) for n, name in enumerate(names)], ledger.SCHEMA))
    tally, none = ledger.tally(table), ledger.tally(ledger.empty())
    draft = Draft(
        dataset=dataset,
        form="images",
        run_key=digest,
        recipe={},
        stages=(StageId(name="toy", version=1, config={}),),
        shards=tuple(ref for tar, index, _ in written for ref in (tar, index)),
        ledgers=(put_table(store, "ledger", table, sorted_by="id"), *(members for _, _, members in written)),
        received=tally,
        kept=tally,
        dropped=none,
        quarantined=none,
        funnel=(FunnelRow(stage="toy", received=len(names), passed=len(names)),),
        statistics={"documents": len(names), "pixels": 7},
    )
    return Versions(store).commit(draft)


def _fate(name: str, digest: str, ordinal: int) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(ledger.SCHEMA.names)
    place = {"id": image_id(name), "input": digest, "ordinal": ordinal, "start": ordinal, "length": 1}
    return row | place | {"fate": "kept", "stage": "toy"}


def groups(store: Store, manifest: Manifest) -> dict[str, bytes]:
    """Each file of each tar, as any reader of tars finds it; the index fits each tar."""
    files_in_tars: dict[str, bytes] = {}
    tars = [ref for ref in manifest.shards if ref.kind in ("tar", "pack")]
    indices = [ref for ref in manifest.shards if ref.kind == "index"]
    for tar, index in zip(tars, indices, strict=True):
        file = ShardFile(tar.key, index.key, tar.records, tar.bytes, tar.sha256)
        reader = ShardReader([file], lambda key: io.BytesIO(store.get(key)))
        reader.check()
        for number in range(len(reader)):
            reader.sample(number)
        with tarfile.open(fileobj=io.BytesIO(read_object(store, tar))) as files:
            for info in files:
                assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")
                files_in_tars[info.name] = files.extractfile(info).read()
    return files_in_tars


def holders(store: Store, needle: bytes) -> list[str]:
    """Files of a local lake with these bytes."""
    return [str(path) for path in Path(store.uri).rglob("*") if path.is_file() and needle in path.read_bytes()]
