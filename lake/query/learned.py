"""Which models learned from a record: those trained on a version that keeps it, and those that began with such a model.

A version of records has a ledger, which says whether it keeps a record. A model has none: it learned what the versions
that it was trained on keep, and what the models know whose parts it began with. What it was only compared with (its
tokenizer, what was held out, a reference) it did not learn.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from gristmill.lake.store.sealed import Unreadable
from gristmill.lake.versions.catalogue import Catalogue
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import VersionRef
from gristmill.lake.versions.versions import NoSuchVersion

MODEL: Form = "model"
TRAINED_ON, INIT_FROM = "trained_on", "init_from."


@dataclass(frozen=True)
class Learned:
    """`model` learned from a record through `through`, which it was trained on or began with."""

    model: str
    role: str
    through: str


def teaches(role: str) -> bool:
    """Whether a model learns from a source of this role."""
    return role == TRAINED_ON or role.startswith(INIT_FROM)


class Holders:
    """Which versions of a lake hold some records. `kept`: versions with a ledger that keeps one, as `web@v3`."""

    def __init__(self, catalogue: Catalogue, kept: Collection[str]) -> None:
        self._catalogue = catalogue
        self._holds = dict.fromkeys(kept, True)

    def holds(self, ref: VersionRef) -> bool:
        """Whether this version does. One that is not in the lake does not, as far as is known."""
        if str(ref) not in self._holds:
            self._holds[str(ref)] = False  # while its sources are asked; a model is never made from itself
            self._holds[str(ref)] = bool(self.through(ref))
        return self._holds[str(ref)]

    def through(self, ref: VersionRef) -> list[VersionRef]:
        """The sources through which a model does; none for what is no model."""
        try:
            summary = self._catalogue.summary(ref.dataset, ref.version)
        except (NoSuchVersion, Unreadable):
            return []
        if summary.form != MODEL:
            return []
        return [source for source in summary.sources if teaches(source.role) and self.holds(source)]

    def models(self, names: Collection[str]) -> tuple[Learned, ...]:
        """Every model of these datasets that learned from one of the records, with each source that it did through."""
        summaries = [row for name in names for row in self._catalogue.of(name).in_order() if row.form == MODEL]
        return tuple(
            Learned(str(row), source.role, str(source)) for row in summaries for source in self.through(row.ref)
        )
