"""The contract of an edit: texts of a batch in, the same texts rewritten, and what was done to each of them.

An edit is to a text what a filter is to a verdict: a frozen dataclass that is a field of the recipe. It decides nothing
about a record; one whose text it leaves empty is dropped by the stage (stages/text/edit.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from gristmill.filters.text.docs import Docs


class Edited(NamedTuple):
    """texts: string [rows], no nulls. counts: int64 [rows] columns, one for each kind of edit that is counted, such as
    `email`."""

    texts: pa.StringArray
    counts: pa.RecordBatch


class Edit(ABC):
    """A frozen dataclass. Raise `VERSION` whenever the same text can come out otherwise. `releases`: distributions of
    others by whose release it comes out as it does."""

    name: ClassVar[str]
    VERSION: ClassVar[int]
    releases: ClassVar[tuple[str, ...]] = ()

    @property
    @abstractmethod
    def counted(self) -> tuple[str, ...]:
        """The columns of its counts, in order."""

    @property
    def asked_languages(self) -> tuple[str, ...]:
        """ISO 639-1 labels of the texts that it edits; empty: all, and no labels are needed."""
        return ()

    @abstractmethod
    def edit(self, docs: Docs) -> Edited:
        """The texts as they are afterwards. Raises ValueError if it asks for languages and the batch has no labels."""

    def config(self) -> dict[str, Any]:
        """What decides beside name and VERSION, for the identity: its fields."""
        return asdict(self)  # type: ignore[call-overload]  # every edit is a dataclass
