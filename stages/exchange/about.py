"""What card and metadata say of an exported version: the version, its files, where it comes from.

All of it is read off manifests, so that none of it can be stale, and the same version gives the same bytes: no time of
the export, no address of this lake. Names of input files are cut to their last part: a path tells of a machine, and the
query of an address may be a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from gristmill.lake.query.query import Node
from gristmill.lake.versions.manifest import InputFile, Manifest
from gristmill.stages.exchange.files import Target


@dataclass(frozen=True)
class DataFile:
    """One data file as it was written. `name`: its path below the folder."""

    name: str
    sha256: str
    bytes: int
    records: int


@dataclass(frozen=True)
class Publication:
    """What whoever publishes a version says of it. `license`: its SPDX identifier, as the hub has it; None: not known.
    `url`: where it will be found."""

    license: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class About:
    """`schema`: of the tables; None for tars. `lineage`: the version with all that it comes from."""

    manifest: Manifest
    target: Target
    files: Sequence[DataFile]
    schema: pa.Schema | None
    lineage: Node
    published: Publication = field(default_factory=Publication)

    @property
    def records(self) -> int:
        """In all files."""
        return sum(file.records for file in self.files)

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def title(self) -> str:
        """`web@v3`."""
        return str(self.manifest)

    @property
    def languages(self) -> Mapping[str, int]:
        """Label -> records, most first; empty where nobody counted them."""
        counted = self.manifest.statistics.get("languages")
        return counted if isinstance(counted, dict) else {}


def name_of(file: InputFile) -> str:
    """What an input file is called, without where it lay."""
    return next(filter(None, map(last_part, file.names)), "")


def last_part(address: str) -> str:
    """Of a path or an address, without its query."""
    return urlsplit(address).path.rstrip("/").rpartition("/")[2]


def without_places(value: Any) -> Any:
    """A recipe with the last parts of its absolute paths and addresses alone."""
    if isinstance(value, dict):
        return {name: without_places(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_places(item) for item in value]
    if isinstance(value, str) and (value.startswith(("/", "~")) or "://" in value):
        return last_part(value) or value.partition(":")[0]
    return value
