"""Input files in versions: which versions read a file, asked by its name, a part of its path, or its sha256.

Ledgers know inputs by digest. A record without URL and id is filed under the digest of its input and its place in it;
so damage, and a file that is quarantined whole, is found from the name of the file, which manifests have.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gristmill.lake.accounts.identity import key_hash
from gristmill.lake.versions.history import Summary
from gristmill.lake.versions.manifest import InputFile

FEW_RECORDS = 64
"""Up to so many records of a file are looked up by their places; of one with more its name alone is no question."""


@dataclass(frozen=True)
class FileUse:
    """An input of `versions` of a dataset, which says so itself: what extends them has it too. `names`: addresses."""

    dataset: str
    versions: tuple[int, ...]
    digest: str
    bytes: int
    records: int
    names: tuple[str, ...]

    @property
    def heads(self) -> tuple[str, ...]:
        """First halves of the ids of its records that have neither URL nor id, as `stages.read.reading` files them."""
        if self.records > FEW_RECORDS:
            return ()
        return tuple(key_hash(f"{self.digest}:{ordinal}") for ordinal in range(self.records))


def uses_of(summaries: Mapping[str, Iterable[Summary]], query: str) -> tuple[FileUse, ...]:
    """The inputs that a question means. `summaries`: dataset -> versions in order."""
    asked = query.strip()
    # A whole name, the same from this folder, or the end of a path: `part-0003.warc.gz`, `crawl/part-0003.warc.gz`.
    whole, ending = {asked, os.path.abspath(asked)}, "/" + asked.removeprefix("./")

    def is_meant(file: InputFile) -> bool:
        return file.digest == asked or any(name in whole or name.endswith(ending) for name in file.names)

    uses = []
    for dataset, versions in summaries.items():
        by_digest: dict[str, tuple[InputFile, list[int]]] = {}
        for summary in versions:
            for file in summary.inputs:
                if is_meant(file):
                    by_digest.setdefault(file.digest, (file, []))[1].append(summary.version)
        uses += [_use(dataset, file, numbers) for file, numbers in by_digest.values()]
    return tuple(uses)


def _use(dataset: str, file: InputFile, numbers: Sequence[int]) -> FileUse:
    return FileUse(dataset, tuple(numbers), file.digest, file.bytes, file.records, file.names)
