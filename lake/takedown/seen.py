"""What a search for records remembers of a version, and where it looks in a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import VersionRef


@dataclass(frozen=True)
class Seen:
    """What is remembered of a version. `tables`, `members` and `attachments` are digests of what was searched: shards
    of records, the tables that say what lies in its tars, and the rest. `tars`: how many those are. `not_rewritable`:
    why no clean version can be made of it; None: it can."""

    ref: VersionRef
    form: Form
    withdrawn: bool
    parent: VersionRef | None
    sources: tuple[VersionRef, ...]
    tables: tuple[str, ...]
    tars: int
    members: tuple[str, ...]
    attachments: tuple[str, ...]
    not_rewritable: str | None

    @property
    def looked_at(self) -> tuple[str, ...]:
        """Digests of all that was searched."""
        return (*self.tables, *self.members, *self.attachments)

    def __str__(self) -> str:
        return str(self.ref)


class Columns(NamedTuple):
    """Where a table has record ids, and their URLs."""

    id: str
    url: str | None

    @property
    def names(self) -> list[str]:
        """The columns that a search reads: ids, and the others where there are any."""
        return [name for name in self if name is not None]
