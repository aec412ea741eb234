"""What a takedown would do, and what it did: for the command, for JSON, for whoever asks from Python.

Nothing here says what was asked for but the digest of the request: it is personal data.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.form import Form


@dataclass(frozen=True)
class Affected:
    """One dataset. `withdraw`: its versions that hold a record. `base`: the one that gets a clean successor.

    `records` texts go from the newest of them, `rows` of its other objects by kind; `followers` were dropped as
    duplicates of a forgotten record and stay dropped. `tags` name versions that are withdrawn: they are never moved.
    """

    dataset: str
    withdraw: tuple[int, ...]
    base: int | None
    why_not: str | None
    records: int
    rows: dict[str, int]
    followers: int
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Derived:
    """A version made from an affected one, in the `role` of that. `withdraw`: windows that may hold a record and do not
    say so go with it. `form`: what the version holds."""

    ref: str
    role: str
    withdraw: bool
    form: Form


@dataclass(frozen=True)
class ForgetPlan:
    """What would happen; nothing was changed. `ids` is how many records of the lake the request came to, with or
    without a text in a version. `unsearched` versions have shards without ids: whether they hold a record is unknown.
    `texts_gone`: extracted texts no longer there, in which a domain's dropped duplicates could not be looked
    up. `without_url`: records of shards that are given out and have no URL, which no domain finds. `unknown`: models
    that were trained on versions which are erased, and of which no clean version tells what they held."""

    request: Suppression = field(repr=False)
    affected: tuple[Affected, ...]
    derived: tuple[Derived, ...]
    unsearched: tuple[str, ...]
    ids: int
    texts_gone: int
    without_url: int = 0
    unknown: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether no version has to change."""
        return not self.affected and not any(derived.withdraw for derived in self.derived)

    def to_json(self) -> dict[str, Any]:
        """As `grist forget --json` prints it; the request by its digest alone."""
        return {
            "suppression": self.request.digest,
            "records": self.ids,
            "datasets": [asdict(dataset) for dataset in self.affected],
            "derived": [asdict(version) for version in self.derived],
            "unsearched": list(self.unsearched),
            "texts_gone": self.texts_gone,
            "without_url": self.without_url,
            "unknown": list(self.unknown),
        }


@dataclass(frozen=True)
class ForgetReport:
    """What was done now. `plan` is as it was before; `made`: (old, new) versions; `withdrawn`: packs, then holders."""

    plan: ForgetPlan
    made: tuple[tuple[str, str], ...]
    withdrawn: tuple[str, ...]
    without_successor: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """As `grist forget --json` prints it."""
        successors = [{"from": old, "to": new} for old, new in self.made]
        return {"made": successors, "withdrawn": list(self.withdrawn), "without_successor": self.without_successor}
